// A list of any length: only the rows in sight exist, and films come in pages from the server.

const ROW = 64; // pixels, as in viewer.css
const PAGE = 100;
const SPARE = 4; // rows above and below those in sight

export function filmList({ list, rows, ask, open, fill }) {
  let total = 0, pages = new Map(), active = -1, drawn = new Map(), turn = 0;

  async function page(number) {
    if (!pages.has(number)) {
      const mine = turn;
      pages.set(number, ask(number * PAGE, PAGE).then((answer) => (mine === turn ? answer : null)));
      pages.get(number).catch(() => { if (mine === turn) pages.delete(number); });
    }
    return pages.get(number);
  }

  async function film(index) {
    const answer = await page(Math.floor(index / PAGE));
    return answer?.films[index % PAGE];
  }

  async function restart() {
    turn += 1;
    const mine = turn;
    pages = new Map();
    const first = await page(0);
    if (mine !== turn || !first) return null;
    total = first.total;
    active = -1;
    list.scrollTop = 0;
    rows.style.height = `${total * ROW}px`;
    for (const row of drawn.values()) row.remove();
    drawn = new Map();
    list.removeAttribute("aria-activedescendant");
    draw();
    return first;
  }

  function draw() {
    const from = Math.max(0, Math.floor(list.scrollTop / ROW) - SPARE);
    const to = Math.min(total, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + SPARE);
    for (const [index, row] of drawn) {
      if ((index < from || index >= to) && index !== active) {
        row.remove();
        drawn.delete(index);
      }
    }
    for (let index = from; index < to; index++) if (!drawn.has(index)) add(index);
  }

  function add(index) {
    const row = document.createElement("div");
    row.id = `row-${index}`;
    row.className = "row";
    row.setAttribute("role", "option");
    row.setAttribute("aria-setsize", total);
    row.setAttribute("aria-posinset", index + 1);
    row.setAttribute("aria-selected", index === active);
    row.style.transform = `translateY(${index * ROW}px)`;
    row.dataset.index = index;
    drawn.set(index, row);
    rows.append(row);
    film(index).then((one) => { if (one && drawn.get(index) === row) fill(row, one); }).catch(() => {});
  }

  async function choose(index) {
    if (total === 0) return;
    const place = Math.min(total - 1, Math.max(0, index));
    const before = drawn.get(active);
    active = place;
    before?.setAttribute("aria-selected", "false");
    show(place);
    draw();
    if (!drawn.has(place)) add(place);
    drawn.get(place).setAttribute("aria-selected", "true");
    list.setAttribute("aria-activedescendant", `row-${place}`);
    const one = await film(place);
    if (one && active === place) open(one);
  }

  function show(index) {
    const top = index * ROW;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
  }

  list.addEventListener("scroll", draw, { passive: true });
  new ResizeObserver(draw).observe(list);
  list.addEventListener("click", (event) => {
    const row = event.target.closest(".row");
    if (row) choose(Number(row.dataset.index));
  });
  list.addEventListener("keydown", (event) => {
    const screen = Math.max(1, Math.floor(list.clientHeight / ROW) - 1);
    const to = {
      ArrowDown: active + 1, ArrowUp: active - 1, PageDown: active + screen, PageUp: active - screen,
      Home: 0, End: total - 1, Enter: Math.max(0, active),
    }[event.key];
    if (to === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    choose(to);
  });

  return {
    restart, choose, step: (by) => choose(active + by), total: () => total,
    leave: () => {
      drawn.get(active)?.setAttribute("aria-selected", "false");
      active = -1;
      list.removeAttribute("aria-activedescendant");
    },
  };
}
