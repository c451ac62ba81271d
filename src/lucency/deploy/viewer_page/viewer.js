// The viewer: what is shown, and what drags, keys and buttons do. Texts go in as text, never as HTML.
import { OWN, WHOLE, drawFilm, loadFilm, moved, windowOf, windowed, zoomed } from "./film.js";
import { filmList } from "./list.js";
import { calibrationPanel, decimal, findingRows, make, words } from "./findings.js";
import { drawBoxes, drawContours, drawHeat, heatOf } from "./overlay.js";

const API = "/viewer/api/";
const NAMES = { order: { name: "by name", highest: "highest first", lowest: "lowest first" },
  part: { train: "training", val: "validation", test: "test" }, error: { "label error": "label error suspected" } };
const DRAWN = 24; // pixels of a pan by a key
const at = (id) => document.getElementById(id);
const panes = {
  main: { canvas: at("canvas"), name: at("name"), facts: at("facts") },
  beside: { canvas: at("canvas-beside"), name: at("name-beside"), facts: at("facts-beside") },
};
for (const pane of Object.values(panes)) pane.context = pane.canvas.getContext("2d", { willReadFrequently: true });
const state = {
  model: null, film: null, finding: "", bins: {}, part: "test", verdict: "", about: "",
  view: WHOLE, look: OWN, clahe: false, heat: false, contour: false, box: true, opacity: 0.5, drag: false,
  shown: { main: null, beside: null }, turn: new AbortController(), letters: true,
};
let list = null, pending = 0;

async function ask(path, words = {}, signal = undefined) {
  const query = new URLSearchParams(Object.entries(words).filter(([, value]) => value !== ""));
  const answer = await fetch(`${API}${path}${query.size ? `?${query}` : ""}`, { signal });
  return answered(answer);
}

async function answered(answer) {
  const value = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(value.detail ?? value.title ?? `The service answered ${answer.status}.`);
  return value;
}

function say(text) {
  at("message").querySelector("span").textContent = text;
  at("message").hidden = !text;
}

const attempt = (doing) => doing.catch((error) => {
  if (error.name !== "AbortError") say(error.message);
});

// --- drawing ---------------------------------------------------------------------------------

function draw() {
  if (!pending) pending = requestAnimationFrame(drawNow);
}

function drawNow() {
  pending = 0;
  for (const [name, pane] of Object.entries(panes)) {
    const shown = state.shown[name], { canvas, context } = pane;
    if (!canvas.clientWidth) continue;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((side) => Math.round(side * devicePixelRatio));
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    if (!shown) { context.clearRect(0, 0, width, height); continue; }
    const place = drawFilm(context, shown.picture, state.view, state.look);
    const heat = shown.heat?.finding === state.finding ? shown.heat.drawn : null;
    if (heat && state.heat) drawHeat(context, place, heat, state.opacity);
    if (heat && state.contour) drawContours(context, place, heat);
    if (state.box) drawBoxes(context, place, shown.about.boxes ?? [], state.finding);
    pane.canvas.dataset.key = shown.about.key;
  }
  if (state.shown.main) {
    reading();
    if (!performance.getEntriesByName("first-picture").length) performance.mark("first-picture");
  }
}

function reading() {
  const { picture } = state.shown.main, top = 2 ** picture.bits - 1;
  const shown = windowOf(picture, state.look), level = Math.round(shown.centre * top), width = Math.round(shown.width * top);
  at("reading").textContent =
    `${picture.width} × ${picture.height}, ${picture.bits} bit · level ${level}, window ${width} · zoom ${state.view.zoom.toFixed(2)}`;
}

function about(film) {
  if (film.added) return "added";
  const facts = film.facts ?? {};
  const age = facts.age === undefined ? "" : `${Math.round(facts.age)} years`;
  return [`patient ${film.patient}`, facts.sex, age, film.view, NAMES.part[film.part] ?? film.part]
    .filter(Boolean).join(" · ");
}

function caption(name, film) {
  panes[name].name.textContent = film.image;
  panes[name].facts.textContent = about(film);
  panes[name].canvas.setAttribute("aria-label", `Film ${film.image}, ${about(film)}`);
}

// --- films -----------------------------------------------------------------------------------

// What is under way for the film before is given up: its signal is aborted.
async function open(key) {
  state.turn.abort();
  const turn = state.turn = new AbortController(), { signal } = turn;
  document.body.setAttribute("aria-busy", "true");
  say("");
  try {
    const [film, picture] = await Promise.all([ask(`film/${key}`, {}, signal), loadFilm(key, state.clahe, signal)]);
    if (turn !== state.turn) return;
    closeBeside();
    state.film = film;
    state.shown.main = { about: film, picture };
    state.view = WHOLE;
    state.look = { ...OWN, inverted: state.look.inverted };
    at("empty").hidden = true;
    at("pane-main").hidden = false;
    caption("main", film);
    chooseFinding(at("filters").elements.finding.value || state.finding || striking(film));
    patientFilms(film);
    clearSimilar();
    marks();
    draw();
    if (film.probability === null) await predict(film, turn);
  } finally {
    if (turn === state.turn) document.body.removeAttribute("aria-busy");
  }
}

// The finding that is furthest above its threshold.
function striking(film) {
  const over = (k) => (film.probability?.[k] ?? 0) / Math.max(state.model.threshold[k], 1e-6);
  const order = state.model.findings.map((name, k) => [over(k), name]);
  return order.reduce((best, one) => (one[0] > best[0] ? one : best))[1];
}

async function predict(film, turn) {
  at("source").textContent = "Predicting…";
  const { probability } = await ask(`film/${film.key}/prediction`, {}, turn.signal);
  if (turn !== state.turn) return;
  film.probability = probability;
  chooseFinding(state.finding);
}

function source(film) {
  if (film.probability === null) return "";
  const limit = "The tick is the threshold" + (Object.keys(state.bins).length ? ", the band the 95 % interval of calibration" : "");
  const learnt = film.part === "train" ? " A training film: the model has seen its label." : "";
  return `Recalibrated probabilities of ${state.model.name}. ${limit}.${learnt}`;
}

function chooseFinding(name) {
  state.finding = name;
  const film = state.film, k = state.model.findings.indexOf(name);
  const focused = document.activeElement?.classList.contains("finding");
  findingRows(at("findings"), { model: state.model, film, finding: name, bins: state.bins, choose: chooseFinding });
  if (focused) at("findings").querySelector("[aria-checked=true]").focus();
  const probability = film?.probability?.[k] ?? null;
  calibrationPanel(at("calibration"), {
    finding: name, probability, bins: state.bins, part: NAMES.part[state.part], threshold: state.model.threshold[k],
  });
  if (film) {
    at("source").textContent = source(film);
    showVerdict(film, name, k);
    attempt(fetchHeat());
  }
  draw();
}

async function fetchHeat() {
  const wanted = state.heat || state.contour, finding = state.finding, { signal } = state.turn;
  at("remark").textContent = "";
  if (!wanted) return;
  for (const name of ["main", "beside"]) {
    const shown = state.shown[name];
    if (!shown || shown.heat?.finding === finding) continue;
    at("remark").textContent = "Computing the heat map…";
    shown.heat = await heatFor(shown.about.key, finding, signal);
    draw();
  }
  if (finding === state.finding) remarkOnHeat();
}

function remarkOnHeat() {
  const heat = state.shown.main?.heat;
  if (!heat || !(state.heat || state.contour)) return;
  const { finding, drawn, why } = heat;
  const method = heat.network === state.model.name ? heat.method : `${heat.method} of ${heat.network}`;
  at("remark").textContent = why ? `No heat map: ${why}`
    : drawn ? `Heat map of ${words(finding)}: ${method}`
      : `The heat map of ${words(finding)} (${method}) is the same everywhere: it shows no place.`;
}

async function heatFor(key, finding, signal) {
  try {
    const map = await ask(`film/${key}/heatmap`, { finding }, signal);
    return { finding, method: map.method, network: map.network, drawn: heatOf(map) };
  } catch (error) {
    if (error.name === "AbortError") throw error;
    return { finding, method: "", network: "", drawn: null, why: error.message };
  }
}

// A film with CLAHE has another depth: each film is shown in its own window again.
async function toggleClahe() {
  const clahe = state.clahe = !state.clahe, { signal } = state.turn;
  marks();
  const shown = Object.values(state.shown).filter(Boolean);
  const pictures = await Promise.all(shown.map((one) => loadFilm(one.about.key, clahe, signal)));
  if (clahe !== state.clahe) return;
  shown.forEach((one, place) => { one.picture = pictures[place]; });
  state.look = { ...OWN, inverted: state.look.inverted };
  draw();
}

async function openBeside(film) {
  const { signal } = state.turn;
  const picture = await loadFilm(film.key, state.clahe, signal);
  const whole = await ask(`film/${film.key}`, {}, signal);
  state.shown.beside = { about: whole, picture };
  at("pane-beside").hidden = false;
  at("panes").classList.add("two");
  caption("beside", whole);
  document.body.dataset.tab = "film";
  tabs();
  await fetchHeat();
  draw();
}

function closeBeside() {
  state.shown.beside = null;
  at("pane-beside").hidden = true;
  at("panes").classList.remove("two");
  draw();
}

function thumb(film, text, chosen) {
  const item = make("li"), button = make("button"), picture = make("img");
  button.type = "button";
  picture.src = `${API}film/${film.key}/thumbnail`;
  picture.alt = "";
  button.append(picture, make("span", "", film.image), make("span", "muted", text));
  button.title = `Show ${film.image} beside the film`;
  button.setAttribute("aria-label", `${film.image}, ${text}: show beside the film`);
  button.addEventListener("click", () => chosen(film));
  item.append(button);
  return item;
}

function patientFilms(film) {
  const others = (film.patient_films ?? []).filter((one) => one.key !== film.key);
  const text = (one) => `${turnOf(one, film)}, ${one.view}: ${one.findings.map(words).join(", ")}`;
  at("patient").replaceChildren(...others.map((one) => thumb(one, text(one), (chosen) => attempt(openBeside(chosen)))));
  at("patient-title").textContent = others.length ? `Other films of patient ${film.patient}: ${others.length}` : "No other film of the patient";
}

// Where a film of the patient stands to the one that is shown, where the label file has an order.
function turnOf(one, film) {
  const [own, shown] = [one.follow_up ?? null, film.follow_up ?? null];
  if (own === null || shown === null || own === shown) return "other film";
  return own < shown ? "prior" : "later";
}

// The film before this one, or else the one after it.
function prior() {
  const films = state.film?.patient_films ?? [], place = films.findIndex((one) => one.key === state.film.key);
  const other = films[place - 1] ?? films[place + 1];
  if (other) return openBeside(other);
  say("This patient has no other film.");
  return Promise.resolve();
}

function clearSimilar() {
  at("similar").replaceChildren();
  at("similar-note").querySelector("span").textContent = "";
  at("find-similar").hidden = false;
}

async function similar() {
  if (!state.film) return;
  const turn = state.turn, note = at("similar-note").querySelector("span");
  note.textContent = "Searching…";
  try {
    const { films, network, left_out: patient } = await ask(`film/${state.film.key}/similar`, {}, turn.signal);
    if (turn !== state.turn) return;
    const whose = patient === null ? "Patient not known: films of the same patient may be among them" : "Films of other patients";
    note.textContent = `${whose}, by the features of ${network}; appearance, not diagnosis.`;
    at("find-similar").hidden = true;
    const text = (one) => `${one.similarity.toFixed(3)}: ${one.findings.map(words).join(", ")}`;
    at("similar").replaceChildren(...films.map((one) => thumb(one, text(one), (chosen) => attempt(openBeside(chosen)))));
  } catch (error) {
    if (turn === state.turn) note.textContent = error.message;
  }
}

// --- films from elsewhere --------------------------------------------------------------------

async function take(files) {
  for (const file of files) {
    const sent = await fetch(`${API}films`, {
      method: "POST", body: file,
      headers: { "X-Film-Name": encodeURIComponent(file.name), "Content-Type": "application/octet-stream" },
    });
    const film = await answered(sent);
    state.model.added.push(film);
    added();
    list.leave();
    await open(film.key);
  }
  document.body.dataset.tab = "film";
  tabs();
}

function added() {
  at("added").replaceChildren(...state.model.added.map((film) => {
    const item = make("li"), button = make("button", "", film.image);
    button.type = "button";
    button.addEventListener("click", () => { list.leave(); attempt(open(film.key)); });
    item.append(button);
    return item;
  }));
}

// --- verdicts --------------------------------------------------------------------------------

function showVerdict(film, finding, k) {
  const form = at("verdict"), label = film.label?.[k] ?? null;
  form.hidden = film.added || !state.model.run;
  const stated = { 1: "present", 0: "absent" }[label];
  at("labelled").textContent = stated ? `${words(finding)} is labelled ${stated}.` : `${words(finding)} has no label on this film.`;
  for (const button of form.querySelectorAll(".verdicts button")) button.disabled = !stated;
  const about = JSON.stringify([film.key, finding, reviewer()]);
  if (about === state.about) return; // a note that is being written stays
  state.about = about;
  const mine = (film.verdicts ?? []).find((one) => one.finding === finding && one.reviewer === reviewer());
  form.elements.note.value = mine?.note ?? "";
  markVerdict(mine?.verdict ?? "");
  at("saved").textContent = "";
}

function markVerdict(verdict) {
  state.verdict = verdict;
  for (const button of at("verdict").querySelectorAll(".verdicts button")) {
    button.setAttribute("aria-pressed", button.value === verdict);
  }
}

const reviewer = () => at("verdict").elements.reviewer.value.trim().replace(/\s+/g, " ");

// The verdict that stands is withdrawn by giving it again.
const giveVerdict = (verdict) => sendVerdict(verdict === state.verdict ? "" : verdict);

async function saveNote() {
  if (state.verdict) await sendVerdict(state.verdict);
}

async function sendVerdict(verdict) {
  const form = at("verdict"), film = state.film;
  if (form.hidden || !film || form.querySelector("button[value=right]").disabled) return;
  if (!reviewer()) {
    at("saved").textContent = "Please give your name or initials first.";
    document.body.dataset.tab = "about";
    tabs();
    form.elements.reviewer.focus();
    return;
  }
  const given = { film: film.key, finding: state.finding, verdict, reviewer: reviewer(), note: form.elements.note.value };
  const answer = await fetch(`${API}verdicts`, {
    method: "POST", body: JSON.stringify(given), headers: { "Content-Type": "application/json" },
  });
  const kept = await answered(answer);
  const others = film.verdicts.filter((one) => one.finding !== kept.finding || one.reviewer !== kept.reviewer);
  film.verdicts = kept.verdict ? [...others, kept] : others;
  if (state.about !== JSON.stringify([film.key, kept.finding, kept.reviewer])) return;
  markVerdict(kept.verdict);
  at("saved").textContent = kept.verdict ? `Saved to the run: ${kept.verdict}.` : "Withdrawn from the run.";
}

// --- controls --------------------------------------------------------------------------------

function marks() {
  for (const name of ["drag", "invert", "clahe", "heat", "contour", "box"]) {
    at(name).setAttribute("aria-pressed", name === "invert" ? state.look.inverted : state[name]);
  }
}

function toggle(name) {
  state[name] = !state[name];
  marks();
  draw();
}

function toggleHeat(name) {
  toggle(name);
  return fetchHeat();
}

function setOpacity(value) {
  state.opacity = Math.min(1, Math.max(0, value));
  at("opacity").value = state.opacity;
  draw();
}

function zoom(factor, canvas = at("canvas"), x, y) {
  if (!state.shown.main) return;
  state.view = zoomed(state.view, factor, state.shown.main.picture, canvas, x, y);
  draw();
}

function pan(dx, dy, canvas = at("canvas"), picture = state.shown.main?.picture) {
  if (!picture) return;
  state.view = moved(state.view, dx * devicePixelRatio, dy * devicePixelRatio, picture, canvas);
  draw();
}

function window_(across, down) {
  if (!state.shown.main) return;
  state.look = windowed(state.look, across, down, state.shown.main.picture);
  draw();
}

function invert() {
  state.look = { ...state.look, inverted: !state.look.inverted };
  marks();
  draw();
}

function reset() {
  state.view = WHOLE;
  state.look = OWN;
  marks();
  draw();
}

function step(by) {
  if (state.model.films) return list.step(by);
  return Promise.resolve();
}

function nextFinding(by) {
  const names = state.model.findings, place = names.indexOf(state.finding) + by;
  chooseFinding(names[(place + names.length) % names.length]);
}

function pointers(name) {
  const { canvas } = panes[name], held = new Map();
  let windowing = false, apart = 0;
  const distance = () => {
    const [a, b] = [...held.values()];
    return Math.hypot(a.x - b.x, a.y - b.y);
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    held.set(event.pointerId, { x: event.offsetX, y: event.offsetY });
    windowing = state.drag !== (event.shiftKey || event.button === 2);
    if (held.size === 2) apart = distance();
  });
  canvas.addEventListener("pointermove", (event) => {
    const was = held.get(event.pointerId);
    if (!was) return;
    const now = { x: event.offsetX, y: event.offsetY };
    const [dx, dy] = [now.x - was.x, now.y - was.y];
    held.set(event.pointerId, now);
    const picture = state.shown[name]?.picture;
    if (!picture) return;
    if (held.size === 2) {
      const [a, b] = [...held.values()], wide = distance();
      const middle = [(a.x + b.x) / 2, (a.y + b.y) / 2].map((side) => side * devicePixelRatio);
      if (apart > 0) zoom(wide / apart, canvas, ...middle);
      apart = wide;
      pan(dx / 2, dy / 2, canvas, picture);
    } else if (windowing) window_(dx / 150, dy / 600);
    else pan(dx, dy, canvas, picture);
  });
  const release = (event) => { held.delete(event.pointerId); };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("dblclick", () => { state.view = WHOLE; draw(); });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(2 ** (-event.deltaY / 300), canvas, event.offsetX * devicePixelRatio, event.offsetY * devicePixelRatio);
  }, { passive: false });
  new ResizeObserver(draw).observe(canvas);
}

const KEYS = [ // key, what it does, how it is shown
  ["n", "next film of the list", () => step(1)],
  ["p", "previous film of the list", () => step(-1)],
  ["/", "search the list", () => { show("films"); at("filters").elements.text.focus(); }],
  ["l", "go to the list of films", () => { show("films"); at("list").focus(); }],
  ["g", "go to the film", () => { show("film"); at("canvas").focus(); }],
  ["e", "go to the findings", () => { show("about"); at("findings").querySelector("[aria-checked=true]")?.focus(); }],
  ["u", "open a film", () => at("file").click()],
  ["+", "zoom in", () => zoom(1.25)],
  ["-", "zoom out", () => zoom(0.8)],
  ["0", "reset view and window", reset],
  ["[", "narrower window", () => window_(-0.25, 0)],
  ["]", "wider window", () => window_(0.25, 0)],
  [",", "lower level", () => window_(0, -0.02)],
  [".", "higher level", () => window_(0, 0.02)],
  ["d", "drag: window and level, or move", () => toggle("drag")],
  ["i", "invert", invert],
  ["c", "CLAHE", toggleClahe],
  ["h", "heat map", () => toggleHeat("heat")],
  ["o", "contours of the heat map", () => toggleHeat("contour")],
  ["t", "more opacity", () => setOpacity(state.opacity + 0.1)],
  ["T", "less opacity", () => setOpacity(state.opacity - 0.1)],
  ["b", "boxes of the ground truth", () => toggle("box")],
  ["f", "next finding", () => nextFinding(1)],
  ["F", "previous finding", () => nextFinding(-1)],
  ["v", "prior film of the patient beside it", prior],
  ["s", "find similar films", similar],
  ["x", "close the film beside", closeBeside],
  ["1", "verdict: right", () => giveVerdict("right")],
  ["2", "verdict: wrong", () => giveVerdict("wrong")],
  ["3", "verdict: unsure", () => giveVerdict("unsure")],
  ["m", "note of the verdict", () => { show("about"); at("verdict").elements.note.focus(); }],
  ["?", "these keys", () => at("help").showModal()],
];
const PANS = { ArrowLeft: [DRAWN, 0], ArrowRight: [-DRAWN, 0], ArrowUp: [0, DRAWN], ArrowDown: [0, -DRAWN] };

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || at("help").open) return;
  const typing = event.target.closest?.("input:not([type=range]), textarea, select");
  if (typing) {
    if (event.key === "Escape") {
      event.preventDefault(); // which would empty the search, and leave the list as it is
      event.target.blur();
    }
    return;
  }
  if (event.target === at("canvas") && PANS[event.key]) {
    event.preventDefault();
    pan(...PANS[event.key]);
    return;
  }
  if (event.target.closest?.("#findings") && ["ArrowDown", "ArrowUp"].includes(event.key)) {
    event.preventDefault();
    nextFinding(event.key === "ArrowDown" ? 1 : -1);
    return;
  }
  if (!state.letters && event.key.length === 1) return;
  const found = KEYS.find(([key]) => key === event.key || (key === "+" && event.key === "="));
  if (!found) return;
  event.preventDefault();
  attempt(Promise.resolve(found[2]()));
}

function show(tab) {
  document.body.dataset.tab = tab;
  tabs();
}

function tabs() {
  for (const button of at("tabs").children) {
    if (button.value === document.body.dataset.tab) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  }
  draw();
}

// --- list ------------------------------------------------------------------------------------

function options(name, values, first) {
  const select = at("filters").elements[name];
  const shown = values.map((value) => {
    const option = make("option", "", NAMES[name]?.[value] ?? words(value));
    option.value = value;
    return option;
  });
  if (first) {
    const any = make("option", "", first);
    any.value = "";
    shown.unshift(any);
  }
  select.replaceChildren(...shown);
}

function filters() {
  const form = new FormData(at("filters"));
  return Object.fromEntries([...form].map(([name, value]) => [name, value.trim()]));
}

function fill(row, film) {
  const picture = make("img"), text = make("span", "text");
  picture.src = `${API}film/${film.key}/thumbnail`;
  picture.alt = "";
  text.append(make("strong", "", film.image), make("span", "", film.findings.map(words).join(", ")));
  text.append(make("span", "muted", `patient ${film.patient} · ${film.view} · ${NAMES.part[film.part] ?? film.part}`));
  row.replaceChildren(picture, text, make("span", "number", film.probability === null ? "" : film.probability.toFixed(2)));
}

async function refilter() {
  if (filters().error === "label error") at("count").textContent = "Ranking label errors: once, minutes in a large run…";
  const first = await list.restart();
  if (!first) return null;
  const total = first.total.toLocaleString("en"), all = state.model.films.toLocaleString("en");
  at("count").textContent = first.total === state.model.films ? `${all} films` : `${total} of ${all} films`;
  return first;
}

function connect() {
  list = filmList({
    list: at("list"), rows: at("rows"), fill,
    ask: (offset, limit) => ask("films", { ...filters(), offset, limit }),
    open: (film) => attempt(open(film.key)),
  });
  let waiting = 0;
  at("filters").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => attempt(refilter()), 150);
  });
  at("filters").addEventListener("reset", () => setTimeout(() => attempt(refilter())));
  at("filters").addEventListener("submit", (event) => event.preventDefault());
  const clicks = {
    "open-film": () => at("file").click(), "open-help": () => at("help").showModal(), drag: () => toggle("drag"),
    invert, clahe: toggleClahe, reset, heat: () => toggleHeat("heat"), contour: () => toggleHeat("contour"),
    box: () => toggle("box"), out: () => zoom(0.8), in: () => zoom(1.25), previous: () => step(-1), next: () => step(1),
    "close-beside": closeBeside, "find-similar": similar,
  };
  for (const [id, act] of Object.entries(clicks)) at(id).addEventListener("click", () => attempt(Promise.resolve(act())));
  at("opacity").addEventListener("input", (event) => setOpacity(Number(event.target.value)));
  at("file").addEventListener("change", (event) => {
    const files = [...event.target.files];
    event.target.value = "";
    attempt(take(files));
  });
  at("message").querySelector("button").addEventListener("click", () => say(""));
  for (const button of at("tabs").children) button.addEventListener("click", () => show(button.value));
  for (const button of at("verdict").querySelectorAll(".verdicts button")) {
    button.addEventListener("click", () => attempt(giveVerdict(button.value)));
  }
  at("verdict").addEventListener("submit", (event) => event.preventDefault());
  at("verdict").elements.note.addEventListener("change", () => attempt(saveNote()));
  at("letters").checked = state.letters = kept("letters") !== "off";
  at("letters").addEventListener("change", (event) => {
    state.letters = event.target.checked;
    keep("letters", state.letters ? "on" : "off");
  });
  at("verdict").elements.reviewer.addEventListener("change", () => {
    keep("reviewer", reviewer());
    if (state.film) showVerdict(state.film, state.finding, state.model.findings.indexOf(state.finding));
  });
  document.addEventListener("keydown", press);
  pointers("main");
  pointers("beside");
  dropping();
}

function dropping() {
  const carries = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    at("drop").hidden = false;
  });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) at("drop").hidden = true; });
  document.addEventListener("drop", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    at("drop").hidden = true;
    attempt(take([...event.dataTransfer.files]));
  });
}

function keep(name, value) {
  try { localStorage.setItem(`lucency-${name}`, value); } catch { /* a browser that stores nothing */ }
}

function kept(name) {
  try { return localStorage.getItem(`lucency-${name}`) ?? ""; } catch { return ""; }
}

function keyList() {
  at("keys").replaceChildren(...KEYS.flatMap(([key, what]) => {
    const term = make("dt");
    term.append(make("kbd", "", key === "T" || key === "F" ? `Shift+${key}` : key.toUpperCase()));
    return [term, make("dd", "", what)];
  }), ...[["Arrows", "move the film, or along the list and the findings, where the focus is"]].flatMap(([key, what]) => {
    const term = make("dt");
    term.append(make("kbd", "", key));
    return [term, make("dd", "", what)];
  }));
}

async function start() {
  connect();
  keyList();
  at("verdict").elements.reviewer.value = kept("reviewer");
  const model = state.model = await ask("model");
  at("what").textContent = model.run ? `${model.run} · ${model.name}` : model.name;
  at("what").title = model.origin;
  for (const [name, values, first] of [
    ["finding", model.findings, "any"], ["part", model.parts, "all"], ["error", model.errors, "any label"],
    ["view", model.views, "all"], ["order", model.orders, ""],
  ]) options(name, values, first);
  document.body.classList.toggle("without-run", !model.run);
  for (const id of ["filters", "list", "count"]) at(id).hidden = !model.films;
  at("find-similar").disabled = !model.run;
  added();
  chooseFinding(model.findings[0]);
  state.finding = "";
  if (model.remark) at("count").hidden = false;
  at("count").textContent = model.remark;
  const first = model.films ? (await refilter())?.films[0]?.key : null;
  const key = model.added[0]?.key ?? first;
  if (key === model.added[0]?.key && key) await attempt(open(key));
  else if (first) await list.choose(0);
  else empty();
  if (model.films) attempt(calibration());
}

function empty() {
  at("pane-main").hidden = true;
  at("empty").hidden = false;
  at("empty").textContent = "Drop a film here, or open one, to have it predicted.";
}

async function calibration() {
  for (const part of ["test", "val"]) {
    const { bins } = await ask("calibration", { part });
    if (!Object.keys(bins).length) continue;
    Object.assign(state, { bins, part });
    if (state.finding) chooseFinding(state.finding);
    return;
  }
}

attempt(start());
