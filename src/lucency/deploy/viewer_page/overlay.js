// What lies over a film: heat maps, their contours, boxes of the ground truth.

const FIELD = 128; // places of a heat map's side between which contours are straight
const CONTOURS = [0.25, 0.5, 0.75]; // shares of the largest value
const RAMP = [[40, 60, 140], [150, 50, 150], [235, 90, 80], [255, 190, 60], [255, 250, 200]];
const BOX = "#7fe0a3";
const GROUND = "#10161a"; // below the names of boxes, on films of any brightness
const CONTOUR = "#ffd27a";

// A map on FIELD x FIELD places, 0 to 1 of its largest value, bilinear between the centres of its
// cells and level outside them; null where it is the same everywhere or nowhere above 0.
export function fieldOf(map) {
  const values = map.grid.flat(), most = Math.max(...values), least = Math.min(...values);
  if (!(most > 0) || most === least) return null;
  const rows = weights(map.down), columns = weights(map.across);
  const field = new Float32Array(FIELD * FIELD);
  for (let y = 0; y < FIELD; y++) {
    const [r0, r1, down] = rows[y];
    for (let x = 0; x < FIELD; x++) {
      const [c0, c1, right] = columns[x];
      const above = map.grid[r0][c0] * (1 - right) + map.grid[r0][c1] * right;
      const below = map.grid[r1][c0] * (1 - right) + map.grid[r1][c1] * right;
      field[y * FIELD + x] = Math.max(0, above * (1 - down) + below * down) / most;
    }
  }
  return field;
}

function weights(centres) {
  return Array.from({ length: FIELD }, (_, at) => {
    const place = (at + 0.5) / FIELD;
    const next = centres.findIndex((centre) => centre > place);
    if (next === 0) return [0, 0, 0];
    if (next < 0) return [centres.length - 1, centres.length - 1, 0];
    return [next - 1, next, (place - centres[next - 1]) / (centres[next] - centres[next - 1])];
  });
}

export function heatImage(field) {
  const canvas = new OffscreenCanvas(FIELD, FIELD), context = canvas.getContext("2d");
  const image = context.createImageData(FIELD, FIELD);
  field.forEach((value, at) => {
    const place = Math.min(1, value) * (RAMP.length - 1), one = Math.min(RAMP.length - 2, Math.floor(place));
    const colour = RAMP[one].map((low, k) => low + (RAMP[one + 1][k] - low) * (place - one));
    image.data.set([...colour, 255 * Math.min(1, value * 1.25)], 4 * at);
  });
  context.putImageData(image, 0, 0);
  return canvas;
}

// Marching squares: the line segments [x, y, x, y] along which a field of side x side values has
// `level`, in places of the field; saddles are cut by the mean of their corners.
export function contour(field, side, level) {
  const lines = [];
  const cross = (a, b) => (level - a) / (b - a);
  for (let y = 0; y + 1 < side; y++) {
    for (let x = 0; x + 1 < side; x++) {
      const at = y * side + x;
      const [a, b, c, d] = [field[at], field[at + 1], field[at + side + 1], field[at + side]];
      const kind = (a >= level) + 2 * (b >= level) + 4 * (c >= level) + 8 * (d >= level);
      if (kind === 0 || kind === 15) continue;
      const north = () => [x + cross(a, b), y], east = () => [x + 1, y + cross(b, c)];
      const south = () => [x + cross(d, c), y + 1], west = () => [x, y + cross(a, d)];
      const high = (a + b + c + d) / 4 >= level;
      for (const [from, to] of pairs(kind, high, { north, east, south, west })) {
        lines.push([...from(), ...to()]);
      }
    }
  }
  return lines;
}

function pairs(kind, high, { north, east, south, west }) {
  switch (kind) {
    case 1: case 14: return [[west, north]];
    case 2: case 13: return [[north, east]];
    case 4: case 11: return [[east, south]];
    case 8: case 7: return [[south, west]];
    case 3: case 12: return [[west, east]];
    case 6: case 9: return [[north, south]];
    case 5: return high ? [[north, east], [south, west]] : [[west, north], [east, south]];
    default: return high ? [[west, north], [east, south]] : [[north, east], [south, west]]; // 10
  }
}

export function heatOf(map) {
  const field = fieldOf(map);
  if (!field) return null;
  const lines = CONTOURS.map((level) => contour(field, FIELD, level));
  return { image: heatImage(field), lines };
}

export function drawHeat(context, place, heat, opacity) {
  context.save();
  context.globalAlpha = opacity;
  context.imageSmoothingQuality = "high";
  context.drawImage(heat.image, place.left, place.top, place.width, place.height);
  context.restore();
}

export function drawContours(context, place, heat) {
  const x = (at) => place.left + (at + 0.5) / FIELD * place.width;
  const y = (at) => place.top + (at + 0.5) / FIELD * place.height;
  context.save();
  context.strokeStyle = CONTOUR;
  context.lineCap = "round";
  heat.lines.forEach((lines, number) => {
    context.lineWidth = (1 + 0.5 * number) * devicePixelRatio;
    context.beginPath();
    for (const [x0, y0, x1, y1] of lines) {
      context.moveTo(x(x0), y(y0));
      context.lineTo(x(x1), y(y1));
    }
    context.stroke();
  });
  context.restore();
}

export function drawBoxes(context, place, boxes, finding) {
  context.save();
  context.font = `${12 * devicePixelRatio}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  const high = 17 * devicePixelRatio, aside = 4 * devicePixelRatio;
  for (const box of boxes) {
    const left = place.left + box.x * place.width, top = place.top + box.y * place.height;
    context.globalAlpha = box.finding === finding ? 1 : 0.55;
    context.strokeStyle = BOX;
    context.lineWidth = (box.finding === finding ? 2 : 1) * devicePixelRatio;
    context.strokeRect(left, top, box.w * place.width, box.h * place.height);
    const name = box.finding.replaceAll("_", " "), wide = context.measureText(name).width + 2 * aside;
    const x = Math.max(0, Math.min(left, context.canvas.width - wide));
    const y = top >= high ? top - high : Math.max(0, top); // above the box, or in it where there is no room
    context.globalAlpha = 1;
    context.fillStyle = GROUND;
    context.fillRect(x, y, wide, high);
    context.fillStyle = BOX;
    context.fillText(name, x + aside, y + high / 2);
  }
  context.restore();
}
