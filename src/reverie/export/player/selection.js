// Choice of the keyframes that a view is rendered from.  The same as scenes/view_sources.py, which describes it.

import { FAR, VIEW, projector, unproject } from "./projection.js";

const GRID = { rows: 6, columns: 10 };
const CELLS = { rows: 4, columns: 7 };
const NUM_CELLS = CELLS.rows * CELLS.columns;
const ANGLE_SCALE_DEG = 25;
const DISTANCE_SCALE = 0.3;
const MIN_GAIN = 1e-3;
const PIXELS = Array.from({ length: GRID.rows * GRID.columns }, (_, i) => {
  const row = Math.floor(((Math.floor(i / GRID.columns) + 0.5) * VIEW.h) / GRID.rows);
  return row * VIEW.w + Math.floor((((i % GRID.columns) + 0.5) * VIEW.w) / GRID.columns);
});

/** Probes (world points), `seen` (0 where hidden) and `reach` (metres, NaN where nothing is near) of a keyframe. */
export function probe({ depth, hidden, pose }, focal) {
  const probes = unproject(depth, pose, focal, PIXELS);
  const seen = Uint8Array.from(PIXELS, (pixel) => (hidden[pixel] ? 0 : 1));
  const distances = [];
  for (let i = 0; i < seen.length; i++) {
    const distance = Math.fround(
      Math.hypot(probes[3 * i] - pose[0], probes[3 * i + 1] - pose[1], probes[3 * i + 2] - pose[2]),
    );
    if (seen[i] && distance < FAR) distances.push(distance);
  }
  return { probes, seen, reach: median(distances) };
}

/** The lower median; NaN of nothing. */
function median(values) {
  const sorted = values.filter((value) => !Number.isNaN(value)).sort((a, b) => a - b);
  return sorted.length ? sorted[(sorted.length - 1) >> 1] : NaN;
}

/**
 * At most `count` of `keyframes` ({probes, seen, reach, pose, preference}), those that promise most, best first; erasure:
 * of what is deleted; leading, first: the first so many picks are of the first so many keyframes, while those add anything.
 */
export function chooseKeyframes(keyframes, pose, focal, count, erasure = null, leading = 0, first = 0) {
  const typical = median(keyframes.map((one) => one.reach));
  const reach = Number.isNaN(typical) ? 1 : typical;
  const project = projector(pose, focal);
  const promises = keyframes.map((one) => promiseOf(one, pose, project, reach, erasure));
  const best = new Float32Array(NUM_CELLS);
  const chosen = [];
  for (let taken = 0; taken < Math.min(count, keyframes.length); taken++) {
    let [top, index] = taken < leading ? largestGain(promises.slice(0, first), best) : [0, -1];
    if (!(top > MIN_GAIN)) [top, index] = largestGain(promises, best);
    if (!(top > MIN_GAIN)) break;
    chosen.push(index);
    for (let cell = 0; cell < NUM_CELLS; cell++) best[cell] = Math.max(best[cell], promises[index][cell]);
  }
  const quality = (index) => {
    const held = promises[index].filter((value) => value > 0);
    return held.reduce((sum, value) => sum + value, 0) / Math.max(held.length, 1);
  };
  return chosen
    .map((index) => ({ index, quality: Math.fround(quality(index)) }))
    .sort((a, b) => b.quality - a.quality)
    .map(({ index }) => keyframes[index]);
}

/** The most that one of the promises adds to the best so far, and its number. */
function largestGain(promises, best) {
  let [top, index] = [-1, -1];
  for (let i = 0; i < promises.length; i++) {
    let gain = 0;
    for (let cell = 0; cell < NUM_CELLS; cell++) gain += Math.max(promises[i][cell] - best[cell], 0);
    if (gain > top) [top, index] = [gain, i];
  }
  return [top, index];
}

/** How well a keyframe shows each cell of a view, times its preference. */
function promiseOf(keyframe, pose, project, reach, erasure) {
  const { probes, seen, pose: own, preference } = keyframe;
  const { h, w } = VIEW;
  const promise = new Float32Array(NUM_CELLS);
  const away = Math.hypot(own[0] - pose[0], own[1] - pose[1], own[2] - pose[2]);
  const near = Math.exp(-away / Math.max(DISTANCE_SCALE * reach, 1e-3));
  const out = new Float32Array(3);
  for (let i = 0; i < seen.length; i++) {
    if (!seen[i] || erasure?.isGone(keyframe, PIXELS[i])) continue;
    const [x, y, z] = [probes[3 * i], probes[3 * i + 1], probes[3 * i + 2]];
    project(x, y, z, out);
    if (!(out[2] > 0.3 && out[0] > -0.5 && out[0] < w - 0.5 && out[1] > -0.5 && out[1] < h - 0.5)) continue;
    const row = Math.min(Math.floor((out[1] + 0.5) * (CELLS.rows / h)), CELLS.rows - 1);
    const column = Math.min(Math.floor((out[0] + 0.5) * (CELLS.columns / w)), CELLS.columns - 1);
    const [ax, ay, az] = [x - own[0], y - own[1], z - own[2]];
    const [bx, by, bz] = [x - pose[0], y - pose[1], z - pose[2]];
    const [farOwn, farView] = [Math.hypot(ax, ay, az), Math.hypot(bx, by, bz)];
    const cosine = (ax * bx + ay * by + az * bz) / Math.max(farOwn * farView, 1e-6);
    const angle = (Math.acos(Math.min(Math.max(cosine, -1), 1)) * 180) / Math.PI;
    const scale = Math.min(farView / Math.max(farOwn, 1e-3), 1);
    promise[row * CELLS.columns + column] += Math.exp(-angle / ANGLE_SCALE_DEG) * scale * near;
  }
  for (let cell = 0; cell < NUM_CELLS; cell++) promise[cell] = Math.min(promise[cell] / 2, 1) * preference;
  return promise;
}
