// Cameras and view synthesis: keyframes with depth are splatted into new views.  The same as vision/projection.py and
// vision/rendering.py, which describe it; a view is rendered from the keyframes in order of preference, one source a
// pixel.
//
// Layouts: a pose is [x, y, z, yaw, pitch, roll]; depth images are h x w floats, colours RGB bytes.

export const VIEW = { h: 64, w: 112 };
export const FAR = 95;
const SKY = 3000;
const NEAR = 0.15;
const [FACTOR, SLACK] = [1.07, 0.12];
const GAP_REACHES = [8, 8, 2];
const [SMALL_GAP, GAP_SPREAD, SAME_SURFACE] = [3, 4, 1.4];
const [LOG_LEVELS, DISTANCE_BITS, DISTANCE_MASK] = [1024, 4, 15];
const PER_PIXEL = (30 << DISTANCE_BITS) + 1; // a point counts as three percent farther for each pixel that it is away
const [NO_LEVEL, BEYOND_LEVEL] = [1e12, 1e6].map((depth) => Math.round(Math.log(depth) * LOG_LEVELS));
const RENEWED_FROM = 2;
const EMPTY = 0x7fffffff;
const POINT_BITS = 21;
const RANK_SHIFT = 26;
const HALF_EVEN = 6755399441055744; // 1.5 * 2^52: what is added to it is rounded, halves to even

/** Rows right, up, forward of a camera in world coordinates, 9 numbers. */
export function rotation(pose) {
  const [yaw, pitch, roll] = [pose[3], pose[4], pose[5]].map((degrees) => (degrees * Math.PI) / 180);
  const [sy, cy, sp, cp] = [Math.sin(yaw), Math.cos(yaw), Math.sin(pitch), Math.cos(pitch)];
  const forward = [sy * cp, cy * cp, sp];
  const right = [cy, -sy, 0];
  const up = [
    right[1] * forward[2] - right[2] * forward[1],
    right[2] * forward[0] - right[0] * forward[2],
    right[0] * forward[1] - right[1] * forward[0],
  ];
  const [c, s] = [Math.cos(roll), Math.sin(roll)];
  const turned = (a, b, i) => c * a[i] + s * b[i];
  return [
    ...[0, 1, 2].map((i) => c * right[i] - s * up[i]),
    ...[0, 1, 2].map((i) => turned(up, right, i)),
    ...forward,
  ];
}

/** Focal lengths [across, down] in pixels of a view. */
export function focalLengths(fovDeg, pixelAspect = 1) {
  const across = VIEW.w / 2 / Math.tan((fovDeg * Math.PI) / 360);
  return [across, across * pixelAspect];
}

/** World points of pixels (all, or the indices in `pixels`) of a depth image, three numbers each. */
export function unproject(depth, pose, focal, pixels = null) {
  const { h, w } = VIEW;
  const axes = rotation(pose);
  const count = pixels?.length ?? h * w;
  const points = new Float32Array(3 * count);
  for (let i = 0; i < count; i++) {
    const pixel = pixels ? pixels[i] : i;
    const far = depth[pixel] > FAR ? SKY : depth[pixel];
    const right = (((pixel % w) + 0.5 - w / 2) / focal[0]) * far;
    const up = (-(Math.floor(pixel / w) + 0.5 - h / 2) / focal[1]) * far;
    for (let c = 0; c < 3; c++) points[3 * i + c] = right * axes[c] + up * axes[3 + c] + far * axes[6 + c] + pose[c];
  }
  return points;
}

/** A function of a world point that writes its pixel [x, y] and depth in the view of `pose` to `out`. */
export function projector(pose, focal) {
  const { h, w } = VIEW;
  const a = rotation(pose);
  const [x0, y0, z0] = [0, 3, 6].map((i) => -(pose[0] * a[i] + pose[1] * a[i + 1] + pose[2] * a[i + 2]));
  return (x, y, z, out) => {
    const depth = x * a[6] + y * a[7] + z * a[8] + z0;
    const nearest = depth > NEAR ? depth : NEAR;
    out[0] = ((x * a[0] + y * a[1] + z * a[2] + x0) * focal[0]) / nearest + (w - 1) / 2;
    out[1] = (-(x * a[3] + y * a[4] + z * a[5] + y0) * focal[1]) / nearest + (h - 1) / 2;
    out[2] = depth;
  };
}

/** Pixels of a keyframe that one pixel of a view spans at most. */
const MAX_SCALE = 4;

/**
 * Renders keyframes {colour, depth, hidden, pose, fills}, best first, into views of `poses`.  fills: it is drawn only
 * where the others leave holes.  size: {width, height} of colours.
 *
 * Returns Float32Arrays colour (v 3 h w) in [-1, 1], cover and inverseDepth (v h w); of the last view known (h w), 1
 * where a keyframe saw the surface from at most twice as far, and keyframe (h w), the number of the one that shows it;
 * and detail, a function that returns the colours at full size, (v 3 2h 2w), holes black.
 */
export function renderViews(keyframes, poses, focal, size) {
  const n = VIEW.h * VIEW.w;
  const views = poses.length;
  const colour = new Float32Array(3 * n * views);
  const cover = new Float32Array(n * views);
  const inverseDepth = new Float32Array(n * views);
  const points = keyframes.map((one) => unproject(one.depth, one.pose, focal));
  const beside = keyframes.map((one) => dilated(one.hidden));
  const known = new Uint8Array(n);
  const keyframe = new Uint8Array(n);
  const found = poses.map((pose) => nearestPoints(keyframes, points, pose, focal));
  for (let v = 0; v < views; v++) {
    const shown = found[v];
    const rgb = colour.subarray(3 * n * v, 3 * n * (v + 1));
    const isFound = cover.subarray(n * v, n * (v + 1));
    sampleColour(keyframes, beside, shown, size, rgb);
    for (let i = 0; i < n; i++) {
      if (shown.index[i] < 0) continue;
      isFound[i] = 1;
      if (shown.depth[i] < SKY / 2) inverseDepth[n * v + i] = 1 / Math.max(shown.depth[i], 0.3);
      if (v + 1 < views) continue;
      keyframe[i] = Math.floor(shown.index[i] / n);
      known[i] = shown.sourceDepth[i] <= RENEWED_FROM * shown.depth[i] ? 1 : 0;
    }
    rgb.set(pushPull(rgb, isFound));
  }
  const detail = () => {
    const fine = new Float32Array(12 * n * views);
    found.forEach((shown, v) => sampleColour(keyframes, beside, shown, size, fine.subarray(12 * n * v, 12 * n * (v + 1)), 2));
    return fine;
  };
  return { colour, cover, inverseDepth, known, keyframe, detail };
}

/** For each pixel the point that it shows (-1: none), its depth here and in its keyframe, and the pixel's place less the
 * point's own. */
function nearestPoints(keyframes, points, pose, focal) {
  const { h, w } = VIEW;
  const n = h * w;
  const wide = w + 2; // what lies outside goes to a border of one pixel
  const count = keyframes.length * n;
  const [px, py, pz] = [new Float32Array(count), new Float32Array(count), new Float32Array(count)];
  const place = new Int32Array(count).fill(-1);
  const recorded = new Uint8Array((h + 2) * wide);
  const project = projector(pose, focal);
  const out = new Float32Array(3);
  for (let k = 0, i = 0; k < keyframes.length; k++) {
    const { hidden, fills } = keyframes[k];
    for (let p = 0; p < n; p++, i++) {
      project(points[k][3 * p], points[k][3 * p + 1], points[k][3 * p + 2], out);
      px[i] = out[0];
      py[i] = out[1];
      pz[i] = out[2];
      if (hidden[p] || !(out[2] >= NEAR)) continue;
      const column = Math.min(Math.max(out[0] + HALF_EVEN - HALF_EVEN, -1), w);
      const row = Math.min(Math.max(out[1] + HALF_EVEN - HALF_EVEN, -1), h);
      place[i] = (row + 1) * wide + column + 1;
      if (!fills) recorded[place[i]] = 1;
    }
  }
  // What was generated in front of what was recorded would hide it for good: it fills holes, and not their rims.
  const taken = keyframes.some((one) => one.fills) ? dilated(recorded, h + 2, wide) : null;
  const nearest = new Float32Array(recorded.length).fill(Infinity);
  for (let k = 0, i = 0; k < keyframes.length; k++) {
    const { fills } = keyframes[k];
    for (let p = 0; p < n; p++, i++) {
      const at = place[i];
      if (at < 0) continue;
      if (fills && taken[at]) place[i] = -1;
      else if (pz[i] < nearest[at]) nearest[at] = pz[i];
    }
  }
  const best = new Int32Array(recorded.length).fill(EMPTY);
  for (let i = 0; i < count; i++) {
    const at = place[i];
    if (at < 0 || pz[i] > nearest[at] * FACTOR + SLACK) continue;
    const distance = Math.min(((at % wide) - 1 - px[i]) ** 2 + (Math.floor(at / wide) - 1 - py[i]) ** 2, 0.5);
    const key = ((Math.floor(i / n) << RANK_SHIFT) | i) + (Math.trunc(distance * 62) << POINT_BITS);
    if (key < best[at]) best[at] = key;
  }
  const index = new Int32Array(n);
  const depth = new Float32Array(n);
  for (let row = 0, p = 0; row < h; row++) {
    for (let column = 0; column < w; column++, p++) {
      const key = best[(row + 1) * wide + column + 1];
      index[p] = key === EMPTY ? -1 : key & ((1 << POINT_BITS) - 1);
      depth[p] = key === EMPTY ? Infinity : pz[index[p]];
    }
  }
  const depthOf = (i) => {
    const own = keyframes[Math.floor(i / n)].depth[i % n];
    return own > FAR ? SKY : own;
  };
  for (const reach of GAP_REACHES) closeGaps(index, depth, depthOf, reach);
  const [offset, sourceDepth, scale] = [new Float32Array(2 * n), new Float32Array(n), new Float32Array(n)];
  for (let p = 0; p < n; p++) {
    const i = index[p];
    if (i < 0) continue;
    sourceDepth[p] = depthOf(i);
    scale[p] = Math.min(depth[p] / sourceDepth[p], MAX_SCALE);
    offset[2 * p] = ((p % w) - px[i]) * scale[p];
    offset[2 * p + 1] = (Math.floor(p / w) - py[i]) * scale[p];
  }
  return { index, depth, sourceDepth, offset, scale };
}

/** The pixels of a mask and those beside them. */
export function dilated(mask, h = VIEW.h, w = VIEW.w) {
  const across = new Uint8Array(h * w);
  const out = new Uint8Array(h * w);
  for (let i = 0; i < h * w; i++) {
    const column = i % w;
    across[i] = mask[i] || (column > 0 && mask[i - 1]) || (column + 1 < w && mask[i + 1]) ? 1 : 0;
  }
  for (let i = 0; i < h * w; i++) out[i] = across[i] || (i >= w && across[i - w]) || across[i + w] ? 1 : 0;
  return out;
}

/**
 * Fills the gaps of a surface that has come nearer, between its points to the left and right, then above and below.  A
 * gap is a pixel without a point, or with one far behind, between points of one surface that are as far apart as coming
 * nearer has drawn them.  sourceDepth: of a point in its keyframe.
 */
function closeGaps(index, depth, sourceDepth, reach) {
  const { h, w } = VIEW;
  const levelOf = (best) => (best - (best & DISTANCE_MASK) * PER_PIXEL) >> DISTANCE_BITS;
  for (const [step, size] of [[1, w], [w, h]]) {
    const [oldDepth, oldIndex] = [depth.slice(), index.slice()];
    const levels = new Int32Array(h * w);
    for (let p = 0; p < h * w; p++) levels[p] = oldIndex[p] < 0 ? NO_LEVEL : Math.round(Math.log(oldDepth[p]) * LOG_LEVELS);
    const [before, after] = [nearestBeside(levels, step, size, 1, reach), nearestBeside(levels, step, size, -1, reach)];
    const spread = (p) => sourceDepth(oldIndex[p]) / oldDepth[p]; // pixels from one point to the next
    for (let p = 0; p < h * w; p++) {
      const [one, other] = [levelOf(before[p]), levelOf(after[p])];
      if (Math.max(one, other) >= levels[p] || Math.max(one, other) >= BEYOND_LEVEL) continue;
      const far = Math.exp(Math.max(one, other) / LOG_LEVELS);
      if (!(far * FACTOR + SLACK < oldDepth[p])) continue;
      const [left, right] = [before[p] & DISTANCE_MASK, after[p] & DISTANCE_MASK];
      const [i, j] = [p - left * step, p + right * step];
      if (left + right > SMALL_GAP) {
        if (far > Math.exp(Math.min(one, other) / LOG_LEVELS) * SAME_SURFACE) continue;
        if (left + right > 1 + GAP_SPREAD * Math.min(spread(i), spread(j))) continue;
      }
      const at = left <= right ? i : j;
      depth[p] = oldDepth[at];
      index[p] = oldIndex[at];
    }
  }
}

/**
 * The nearest of the `reach` points before each pixel (sign 1) or after it (-1) along an axis: the level of its depth,
 * which grows with its distance, and the distance, as one integer, so that a minimum finds both.
 */
function nearestBeside(levels, step, size, sign, reach) {
  const n = levels.length;
  const best = new Int32Array(n);
  const take = (p, from, pixels, kept) => {
    const place = step === 1 ? p % size : Math.floor(p / step);
    const inside = sign > 0 ? place >= pixels : place + pixels < size;
    best[p] = Math.min(kept, (inside ? from[p - sign * pixels * step] : NO_LEVEL << DISTANCE_BITS) + pixels * PER_PIXEL);
  };
  const packed = levels.map((level) => level << DISTANCE_BITS);
  for (let p = 0; p < n; p++) take(p, packed, 1, EMPTY);
  // Of twice as many pixels each time, in the order in which what is read has not been written yet.
  for (let pixels = 1; pixels < reach; pixels *= 2) {
    if (sign > 0) for (let p = n - 1; p >= 0; p--) take(p, best, pixels, best[p]);
    else for (let p = 0; p < n; p++) take(p, best, pixels, best[p]);
  }
  return best;
}

/** Bilinear samples of the keyframes' colours, (3 h w) in [-1, 1]; at the point itself where hidden pixels, and those
 * `beside` them, would have a share.  zoom: how many samples a pixel has, across and down. */
function sampleColour(keyframes, beside, { index, offset, scale }, { width, height }, rgb, zoom = 1) {
  const { h, w } = VIEW;
  const n = h * w;
  const [sx, sy] = [width / w, height / h];
  const clamp = (value, high) => Math.min(Math.max(value, 0), high);
  const part = (i) => ((i % zoom) + 0.5) / zoom - 0.5; // of a pixel
  const wide = zoom * w;
  const plane = zoom * zoom * n;
  for (let at = 0; at < plane; at++) {
    const [ay, ax] = [Math.floor(at / wide), at % wide];
    const p = Math.floor(ay / zoom) * w + Math.floor(ax / zoom);
    if (index[p] < 0) continue;
    const k = Math.floor(index[p] / n);
    const { colour } = keyframes[k];
    const [column, row] = [index[p] % w, Math.floor((index[p] % n) / w)];
    const right = offset[2 * p] + part(ax) * scale[p];
    const down = offset[2 * p + 1] + part(ay) * scale[p];
    const [toRow, toColumn] = [row + (down + HALF_EVEN - HALF_EVEN), column + (right + HALF_EVEN - HALF_EVEN)];
    const target = clamp(toRow, h - 1) * w + clamp(toColumn, w - 1);
    const free = beside[k][target] ? 0 : 1;
    const x = clamp((column + right * free + 0.5) * sx - 0.5, width - 1.001);
    const y = clamp((row + down * free + 0.5) * sy - 0.5, height - 1.001);
    const [x0, y0] = [Math.floor(x), Math.floor(y)];
    const [fx, fy] = [x - x0, y - y0];
    const corner = 3 * (y0 * width + x0);
    for (let c = 0; c < 3; c++) {
      const i = corner + c;
      const above = colour[i] * (1 - fx) + colour[i + 3] * fx;
      const below = colour[i + 3 * width] * (1 - fx) + colour[i + 3 * width + 3] * fx;
      rgb[c * plane + at] = (above * (1 - fy) + below * fy) / 127.5 - 1;
    }
  }
}

/** Fills holes of (3 h w) from coarser and coarser averages; weight: (h w), 0 in holes. */
export function pushPull(image, weight) {
  const { h, w } = VIEW;
  const levels = [{ h, w, total: image.map((value, i) => value * weight[i % (h * w)]), count: weight }];
  while (levels.at(-1).w > 4) {
    const { h, w, total, count } = levels.at(-1);
    levels.push({ h: (h + 1) >> 1, w: (w + 1) >> 1, total: halved(total, h, w), count: halved(count, h, w) });
  }
  let out = null;
  let below = null;
  for (const level of levels.reverse()) {
    const n = level.h * level.w;
    const filled = new Float32Array(3 * n);
    const above = out && enlarged(out, below, level);
    for (let i = 0; i < 3 * n; i++) {
      const count = level.count[i % n];
      const mean = level.total[i] / Math.max(count, 1e-4);
      const known = above ? Math.min(count * 4, 1) : 1;
      filled[i] = above ? mean * known + above[i] * (1 - known) : mean;
    }
    out = filled;
    below = level;
  }
  return out;
}

/** Means of 2x2 cells, of fewer at odd edges, of planes of h x w. */
function halved(planes, h, w) {
  const [H, W] = [(h + 1) >> 1, (w + 1) >> 1];
  const count = planes.length / (h * w);
  const out = new Float32Array(count * H * W);
  for (let c = 0, to = 0; c < count; c++) {
    for (let y = 0; y < H; y++) {
      for (let x = 0; x < W; x++, to++) {
        let sum = 0;
        let cells = 0;
        for (let j = 2 * y; j < Math.min(2 * y + 2, h); j++) {
          for (let i = 2 * x; i < Math.min(2 * x + 2, w); i++, cells++) sum += planes[(c * h + j) * w + i];
        }
        out[to] = sum / cells;
      }
    }
  }
  return out;
}

/** Bilinear enlargement of three planes to another level's size; corners not aligned. */
function enlarged(planes, from, to) {
  const out = new Float32Array(3 * to.h * to.w);
  const [ys, xs] = [taps(from.h, to.h), taps(from.w, to.w)];
  for (let c = 0, i = 0; c < 3; c++) {
    const base = c * from.h * from.w;
    for (let y = 0; y < to.h; y++) {
      const [top, bottom] = [base + ys.first[y] * from.w, base + ys.second[y] * from.w];
      const fy = ys.share[y];
      for (let x = 0; x < to.w; x++, i++) {
        const [left, right, fx] = [xs.first[x], xs.second[x], xs.share[x]];
        const above = planes[top + left] * (1 - fx) + planes[top + right] * fx;
        out[i] = above * (1 - fy) + (planes[bottom + left] * (1 - fx) + planes[bottom + right] * fx) * fy;
      }
    }
  }
  return out;
}

function taps(from, to) {
  const first = new Int32Array(to);
  const second = new Int32Array(to);
  const share = new Float32Array(to);
  for (let i = 0; i < to; i++) {
    const at = Math.max(((i + 0.5) * from) / to - 0.5, 0);
    first[i] = Math.floor(at);
    second[i] = Math.min(first[i] + 1, from - 1);
    share[i] = at - first[i];
  }
  return { first, second, share };
}
