// Films at native depth: loading, halving for small displays, window and level, drawing.
// A view is the centre (x, y: shares of the film) and the zoom (1: the whole film fits).
// A window is a centre and a width (shares of the depth). A film opens in its own; a look changes
// it for all films that are shown: by a shift and a factor of each one's own width, and inverted.

export const WHOLE = { x: 0.5, y: 0.5, zoom: 1 };
export const OWN = { shift: 0, factor: 1, inverted: false };
const SMALLEST = 256; // pixels of the longer side of the smallest copy
const WIDEST = 2;
const MOST_ZOOM = 40;

export async function loadFilm(key, enhanced, signal) {
  const answer = await fetch(`/viewer/api/film/${key}/pixels${enhanced ? "?clahe=1" : ""}`, { signal });
  if (!answer.ok) throw new Error((await answer.json()).detail);
  const head = (name) => Number(answer.headers.get(`X-Film-${name}`));
  const raw = await answer.arrayBuffer();
  const pixels = head("Bytes") === 2 ? new Uint16Array(raw) : new Uint8Array(raw);
  const film = filmOf(pixels, head("Width"), head("Height"), head("Bits"));
  const top = 2 ** film.bits - 1, low = head("Low") / top, high = head("High") / top;
  return { ...film, own: { centre: (low + high) / 2, width: Math.max(high - low, 1 / top) } };
}

export function filmOf(pixels, width, height, bits) {
  const levels = [{ pixels, width, height }];
  for (let last = levels[0]; Math.max(last.width, last.height) > SMALLEST; last = levels.at(-1)) {
    levels.push(halved(last));
  }
  return { levels, width, height, bits };
}

function halved({ pixels, width, height }) {
  const w = Math.max(1, width >> 1), h = Math.max(1, height >> 1);
  const small = new pixels.constructor(w * h);
  for (let y = 0; y < h; y++) {
    let at = 2 * y * width;
    const down = 2 * y + 1 < height ? width : 0;
    for (let x = 0; x < w; x++, at += 2) {
      const right = 2 * x + 1 < width ? 1 : 0;
      small[y * w + x] = (pixels[at] + pixels[at + right] + pixels[at + down] + pixels[at + down + right] + 2) >> 2;
    }
  }
  return { pixels: small, width: w, height: h };
}

// Where a film lies on a canvas: left, top and pixels of the canvas a pixel of the film.
export function placed(film, view, canvas) {
  const fit = Math.min(canvas.width / film.width, canvas.height / film.height);
  const scale = fit * view.zoom;
  return {
    scale,
    left: canvas.width / 2 - view.x * film.width * scale,
    top: canvas.height / 2 - view.y * film.height * scale,
    width: film.width * scale,
    height: film.height * scale,
  };
}

// The window of a film under a look.
export function windowOf(film, look) {
  const { own } = film, within = (value, low, high) => Math.min(high, Math.max(low, value));
  return {
    centre: within(own.centre + look.shift * own.width, -0.5, 1.5),
    width: within(own.width * look.factor, 1 / (2 ** film.bits - 1), WIDEST),
  };
}

export function greys(film, look) {
  const count = 2 ** film.bits, table = new Uint8ClampedArray(count), { centre, width } = windowOf(film, look);
  const low = (centre - width / 2) * (count - 1), span = width * (count - 1);
  for (let value = 0; value < count; value++) {
    const grey = Math.min(1, Math.max(0, (value - low) / span)) * 255;
    table[value] = look.inverted ? 255 - grey : grey;
  }
  return table;
}

export function drawFilm(context, film, view, look) {
  const { canvas } = context, place = placed(film, view, canvas);
  const wanted = Math.floor(Math.log2(1 / place.scale));
  const level = film.levels[Math.max(0, Math.min(film.levels.length - 1, wanted))];
  const table = greys(film, look), top = table.length - 1;
  const image = context.createImageData(canvas.width, canvas.height);
  const out = new Uint32Array(image.data.buffer);
  const across = samples(canvas.width, place.left, place.width, level.width);
  const down = samples(canvas.height, place.top, place.height, level.height);
  const { pixels, width } = level;
  for (let y = down.from; y < down.to; y++) {
    const one = down.first[y] * width, two = down.second[y] * width, low = down.share[y];
    for (let x = across.from; x < across.to; x++) {
      const a = across.first[x], b = across.second[x], right = across.share[x];
      const above = pixels[one + a] + (pixels[one + b] - pixels[one + a]) * right;
      const below = pixels[two + a] + (pixels[two + b] - pixels[two + a]) * right;
      const value = above + (below - above) * low + 0.5 | 0;
      out[y * canvas.width + x] = 0xff000000 | table[value > top ? top : value] * 0x010101;
    }
  }
  context.putImageData(image, 0, 0);
  return place;
}

// The cells on both sides of each pixel of the canvas along one axis, and the share of the second.
function samples(count, start, length, cells) {
  const first = new Int32Array(count), second = new Int32Array(count), share = new Float32Array(count);
  const from = Math.max(0, Math.ceil(start - 0.5)), to = Math.min(count, Math.ceil(start + length - 0.5));
  for (let at = from; at < to; at++) {
    const cell = Math.min(cells - 1, Math.max(0, (at + 0.5 - start) / length * cells - 0.5));
    first[at] = Math.floor(cell);
    second[at] = Math.min(cells - 1, first[at] + 1);
    share[at] = cell - first[at];
  }
  return { first, second, share, from, to: Math.max(from, to) };
}

export function zoomed(view, factor, film, canvas, x = canvas.width / 2, y = canvas.height / 2) {
  const zoom = Math.min(MOST_ZOOM, Math.max(0.5, view.zoom * factor));
  const was = placed(film, view, canvas), now = placed(film, { ...view, zoom }, canvas);
  const fixed = (start, size, at) => (at - start) / size;
  const dx = fixed(was.left, was.width, x) - fixed(now.left, now.width, x);
  const dy = fixed(was.top, was.height, y) - fixed(now.top, now.height, y);
  return within({ zoom, x: view.x + dx, y: view.y + dy });
}

export function moved(view, dx, dy, film, canvas) {
  const place = placed(film, view, canvas);
  return within({ ...view, x: view.x - dx / place.width, y: view.y - dy / place.height });
}

function within(view) {
  const inside = (value) => Math.min(1, Math.max(0, value));
  return { ...view, x: inside(view.x), y: inside(view.y) };
}

// A look whose window is 2 ** across as wide, and down of the film's own width higher.
export function windowed(look, across, down, film) {
  const { own } = film;
  const { centre, width } = windowOf(film, { ...look, factor: look.factor * 2 ** across, shift: look.shift + down });
  return { ...look, factor: width / own.width, shift: (centre - own.centre) / own.width };
}
