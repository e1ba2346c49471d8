// The player's own body in play: of the recorded clips, the one whose past is most like the player's.  The same as
// scenes/body_matching.py, which describes it, with looks and pasts as in scenes/recorded_body.py.

import { VIEW } from "./projection.js";

const STEP_FRAMES = 4;
const MOTION_SIZE = 6;
const CONTINUITY = 0.1;
const LOOK_CELL = 8;
const OPACITY_WEIGHT = 2;

export class Body {
  #looks;

  /**
   * box: of the frame, {top, left, width, height}; embedding: of the past of each frame that ends a block, ends: their
   * numbers; after: what follows each frame; mean, weights: of the embedding.  images: RGBA bytes of the box, by number;
   * size: {width, height} of frames.
   */
  constructor({ box, embedding, ends, after, mean, weights }, images, size) {
    Object.assign(this, { box, embedding, ends, after, mean, weights, images, size });
    this.#looks = images.map((image) => describeLook(image, box));
  }

  /** The number, from 1, of the image that looks most like a frame (RGB bytes) with a body (h w). */
  find(frame, body) {
    const { top, left, width, height } = this.box;
    const image = new Float32Array(4 * width * height);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const from = 3 * ((top + y) * this.size.width + left + x);
        const to = 4 * (y * width + x);
        for (let c = 0; c < 3; c++) image[to + c] = frame[from + c];
        image[to + 3] = 255 * this.#opacity(body, top + y, left + x);
      }
    }
    const look = describeLook(image, this.box);
    return 1 + leastOf(this.#looks, (other) => squaredDistance(look, other));
  }

  /** A mask (h w) at a frame's pixel, between its four nearest. */
  #opacity(mask, row, column) {
    const [y, x] = [
      [row, this.size.height, VIEW.h],
      [column, this.size.width, VIEW.w],
    ].map(([at, full, small]) => Math.max(((at + 0.5) * small) / full - 0.5, 0));
    const [y0, x0] = [Math.floor(y), Math.floor(x)];
    const [y1, x1] = [Math.min(y0 + 1, VIEW.h - 1), Math.min(x0 + 1, VIEW.w - 1)];
    const [fy, fx] = [y - y0, x - x0];
    const along = (r) => mask[r * VIEW.w + x0] * (1 - fx) + mask[r * VIEW.w + x1] * fx;
    return along(y0) * (1 - fy) + along(y1) * fy;
  }

  /** The body in the last four of 24 frames' actions and motions.  shown: the number shown last, from 1; 0 for none. */
  show(actions, motions, shown) {
    const past = describePast(actions, motions);
    const embedding = this.weights[0].map((_, k) => past.reduce((sum, value, p) => sum + (value - this.mean[p]) * this.weights[p][k], 0));
    const expected = shown ? this.#looks[this.after[shown - 1]] : null;
    const best = leastOf(this.ends, (end, i) => {
      const change = expected ? squaredDistance(expected, this.#looks[end - STEP_FRAMES + 1]) : 0;
      return squaredDistance(embedding, this.embedding[i]) + CONTINUITY * change;
    });
    const rows = Array.from({ length: STEP_FRAMES }, (_, i) => this.ends[best] - STEP_FRAMES + 1 + i);
    return new BodyLayer(rows, rows.map((row) => this.images[row]), this.box, this.size);
  }
}

/** The body in a block.  rows: numbers of the recorded frames. */
class BodyLayer {
  #small;

  constructor(rows, images, box, size) {
    Object.assign(this, { rows, images, box, size });
    this.#small = images.map((image) => this.#shrink(image));
  }

  /** Views with the body before them; found: their cover without it. */
  drawView(view) {
    const n = VIEW.h * VIEW.w;
    const [colour, cover] = [view.colour.slice(), view.cover.slice()];
    this.#small.forEach((small, v) => {
      for (let i = 0; i < n; i++) {
        const opacity = small[3 * n + i];
        if (!opacity) continue;
        for (let c = 0; c < 3; c++) {
          const at = 3 * n * v + c * n + i;
          colour[at] = colour[at] * (1 - opacity) + small[c * n + i];
        }
        cover[n * v + i] = Math.max(cover[n * v + i], opacity);
      }
    });
    return { ...view, colour, cover, found: view.cover };
  }

  /** Draws the body over frames (RGB bytes). */
  draw(frames) {
    const { top, left, width, height } = this.box;
    frames.forEach((frame, v) => {
      const image = this.images[v];
      for (let y = 0, from = 0; y < height; y++) {
        for (let x = 0, to = 3 * ((top + y) * this.size.width + left); x < width; x++, from += 4, to += 3) {
          const opacity = image[from + 3] / 255;
          if (!opacity) continue;
          for (let c = 0; c < 3; c++) frame[to + c] = Math.round(frame[to + c] * (1 - opacity) + image[from + c] * opacity);
        }
      }
    });
  }

  /** A mask (h w) with the pixels of the last frame that show the body. */
  hides(mask) {
    const n = VIEW.h * VIEW.w;
    const opacity = this.#small.at(-1).subarray(3 * n);
    return Uint8Array.from(mask, (value, i) => (value || opacity[i] > 0 ? 1 : 0));
  }

  /** At the size of views, by area: colour in [-1, 1] times opacity, and opacity in 0..1, (4 h w). */
  #shrink(image) {
    const { top, left, width, height } = this.box;
    const n = VIEW.h * VIEW.w;
    const small = new Float32Array(4 * n);
    const rows = spans(VIEW.h, this.size.height, top, height);
    const columns = spans(VIEW.w, this.size.width, left, width);
    for (const [row, y0, y1, tall] of rows) {
      for (const [column, x0, x1, wide] of columns) {
        const to = row * VIEW.w + column;
        for (let y = y0; y < y1; y++) {
          for (let x = x0; x < x1; x++) {
            const from = 4 * (y * width + x);
            const opacity = image[from + 3] / 255 / (tall * wide);
            for (let c = 0; c < 3; c++) small[c * n + to] += (image[from + c] / 127.5 - 1) * opacity;
            small[3 * n + to] += opacity;
          }
        }
      }
    }
    return small;
  }
}

/** The cells of `cells` along an axis that show a part of a box: their number, its first and last pixel, and their size. */
function spans(cells, pixels, start, length) {
  return Array.from({ length: cells }, (_, cell) => {
    const [from, to] = [Math.floor((cell * pixels) / cells), Math.ceil(((cell + 1) * pixels) / cells)];
    return [cell, Math.max(from - start, 0), Math.min(to - start, length), to - from];
  }).filter(([, from, to]) => from < to);
}

/** Means of four frames each, of the last frames' actions and motions. */
function describePast(actions, motions) {
  const frames = motions.length / MOTION_SIZE;
  const size = actions.length / frames;
  const past = [];
  for (let first = 0; first < frames; first += STEP_FRAMES) {
    for (const [values, count] of [[actions, size], [motions, MOTION_SIZE]]) {
      for (let c = 0; c < count; c++) {
        let sum = 0;
        for (let i = first; i < first + STEP_FRAMES; i++) sum += values[i * count + c];
        past.push(sum / STEP_FRAMES);
      }
    }
  }
  return past;
}

/** Coarse opacity of an image (RGBA numbers), and colour where it is opaque. */
function describeLook(image, { width, height }) {
  const [columns, rows] = [Math.ceil(width / LOOK_CELL), Math.ceil(height / LOOK_CELL)];
  const look = new Float32Array(4 * rows * columns);
  for (let y = 0, from = 0; y < height; y++) {
    const [row, down] = [Math.floor(y / LOOK_CELL), Math.min(LOOK_CELL, height - Math.floor(y / LOOK_CELL) * LOOK_CELL)];
    for (let x = 0; x < width; x++, from += 4) {
      if (!image[from + 3]) continue;
      const column = Math.floor(x / LOOK_CELL);
      const share = image[from + 3] / 255 / (down * Math.min(LOOK_CELL, width - column * LOOK_CELL));
      const to = row * columns + column;
      look[to] += OPACITY_WEIGHT * share;
      for (let c = 0; c < 3; c++) look[(1 + c) * rows * columns + to] += (image[from + c] / 127.5 - 1) * share;
    }
  }
  return look;
}

/** The number of the value whose cost is least, the first of several. */
function leastOf(values, cost) {
  let [least, best] = [Infinity, 0];
  values.forEach((value, i) => {
    const at = cost(value, i);
    if (at < least) [least, best] = [at, i];
  });
  return best;
}

function squaredDistance(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i] - b[i]) ** 2;
  return sum;
}
