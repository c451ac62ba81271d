// Probabilities with thresholds and calibration, as rows and as a reliability diagram.

const SVG = "http://www.w3.org/2000/svg";
const SIDE = 160, EDGE = 32; // of the diagram, in its own units

export const words = (name) => name.replaceAll("_", " ");
export const decimal = (value) => (value === null || value === undefined ? "–" : value.toFixed(3));

// An element with a class and text; whatever the text holds is shown, never run.
export function make(tag, name = "", text = "") {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== "") element.textContent = text;
  return element;
}

// The bin of a reliability table that a probability belongs to.
export function binOf(bins, probability) {
  if (!bins?.length || probability === null || probability === undefined) return null;
  return bins.find((bin) => probability <= bin.high_edge) ?? bins.at(-1);
}

export function findingRows(box, { model, film, finding, bins, choose }) {
  const rows = model.findings.map((name, k) => {
    const probability = film?.probability?.[k] ?? null, label = film?.label?.[k] ?? null;
    const called = probability !== null && probability >= model.threshold[k];
    const row = make("button", "finding");
    row.type = "button";
    row.dataset.finding = name;
    row.setAttribute("role", "radio");
    row.setAttribute("aria-checked", name === finding);
    row.tabIndex = name === finding ? 0 : -1;
    row.classList.toggle("called", called);
    const mark = { 1: "●", 0: "○" }[label] ?? "";
    const stated = { 1: "labelled present", 0: "labelled absent" }[label] ?? "no label";
    const dot = make("span", "mark", mark);
    dot.setAttribute("aria-hidden", "true");
    row.append(dot, make("span", "called-name", words(name)), bar(probability, model.threshold[k], binOf(bins[name], probability)));
    const number = make("span", "number", decimal(probability));
    number.setAttribute("aria-hidden", "true");
    row.append(number);
    row.title = `${words(name)}: ${stated}; probability ${decimal(probability)}, threshold ${decimal(model.threshold[k])}`;
    row.setAttribute("aria-label", row.title + (called ? ": called present" : ""));
    row.addEventListener("click", () => choose(name));
    return row;
  });
  box.replaceChildren(...rows);
}

function bar(probability, threshold, bin) {
  const box = make("span", "bar");
  box.setAttribute("aria-hidden", "true");
  const part = (name, from, to) => {
    const piece = make("span", name);
    piece.style.left = `${100 * from}%`;
    piece.style.width = `${100 * Math.max(0, to - from)}%`;
    box.append(piece);
  };
  if (bin) part("interval", bin.share_low ?? 0, bin.share_high ?? 1);
  if (probability !== null) part("value", 0, probability);
  part("threshold", threshold, threshold);
  return box;
}

export function calibrationPanel(box, { finding, probability, bins, part, threshold }) {
  const own = bins[finding];
  if (!own?.length) {
    box.replaceChildren();
    return;
  }
  const bin = binOf(own, probability), lines = make("p", "muted");
  lines.textContent = bin
    ? `Calibration (${part} films): of ${bin.films} films with a probability near ${decimal(probability)}, ` +
      `${bin.positives} are labelled ${words(finding)}: share ${decimal(bin.share)}, ` +
      `95 % interval ${decimal(bin.share_low)} to ${decimal(bin.share_high)}. Threshold ${decimal(threshold)}.`
    : `Calibration (${part} films). Threshold ${decimal(threshold)}.`;
  box.replaceChildren(diagram(own, probability, threshold, finding), lines);
}

function diagram(bins, probability, threshold, finding) {
  const top = Math.min(1, Math.max(0.1, ...bins.map((bin) => Math.max(bin.mean_probability, bin.share_high ?? 0)), probability ?? 0));
  const x = (value) => EDGE + value / top * (SIDE - EDGE - 6), y = (value) => SIDE - EDGE - value / top * (SIDE - EDGE - 6);
  const svg = shape("svg", { viewBox: `0 0 ${SIDE} ${SIDE}`, role: "img", class: "reliability" });
  svg.setAttribute("aria-label", `Reliability diagram of ${words(finding)}`);
  const line = (name, x1, y1, x2, y2) => svg.append(shape("line", { class: name, x1, y1, x2, y2 }));
  const text = (value, at, anchor = "middle") => {
    const label = shape("text", { ...at, "text-anchor": anchor });
    label.textContent = value;
    svg.append(label);
  };
  line("axis", x(0), y(0), x(top), y(0));
  line("axis", x(0), y(0), x(0), y(top));
  line("ideal", x(0), y(0), x(top), y(top));
  if (threshold <= top) line("limit", x(threshold), y(0), x(threshold), y(top));
  for (const bin of bins) {
    const at = x(bin.mean_probability);
    line("whisker", at, y(bin.share_low ?? 0), at, y(Math.min(top, bin.share_high ?? top)));
    svg.append(shape("circle", { class: "dot", cx: at, cy: y(bin.share), r: 2.5 }));
  }
  if (probability !== null) svg.append(shape("path", { class: "here", d: `M${x(probability)} ${y(0)}l-4 7h8z` }));
  text("0", { x: x(0), y: SIDE - EDGE + 12 });
  text(top.toFixed(1), { x: x(top) - 4, y: SIDE - EDGE + 12 });
  text("probability", { x: x(top / 2), y: SIDE - 3 });
  text(top.toFixed(1), { x: EDGE - 4, y: y(top) + 7 }, "end");
  text("share", { x: EDGE - 4, y: y(top / 2) }, "end");
  return svg;
}

function shape(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}
