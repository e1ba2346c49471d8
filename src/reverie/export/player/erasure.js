// Deletion of what is seen through.  The same as models/conditioning/erasure.py and vision/visibility.py, which describe
// it: a scene's keyframes are shared, so a session counts for itself how often each of their points was seen through.

import { VIEW, projector, unproject } from "./projection.js";

const GONE = 3;
const [FACTOR, METRES] = [1.8, 0.5];
const MAX_SCALE_ERROR = 1.25;
const NEAREST = 0.3;

/** Depth brought to the scale of what the memory shows there.  shown: inverse depth of the view. */
export function matchScale(depth, hidden, shown) {
  const ratios = [];
  for (let i = 0; i < depth.length; i++) if (!hidden[i] && depth[i] * shown[i] > 0) ratios.push(depth[i] * shown[i]);
  ratios.sort((a, b) => a - b);
  const ratio = ratios.length ? ratios[(ratios.length - 1) >> 1] : 1;
  const scale = Math.min(Math.max(ratio, 1 / MAX_SCALE_ERROR), MAX_SCALE_ERROR);
  return depth.map((value) => value / scale);
}

/** Whether a frame is clearly farther at a pixel than what the view shows there. */
export const isFarther = (depth, shown) => shown > 0 && depth * shown > FACTOR + METRES * shown;

export class Erasure {
  #counts = new Map(); // by keyframe: for each point, times in succession that it was seen through

  /** The keyframe's hidden pixels, and those that are deleted. */
  hidden(keyframe) {
    const counts = this.#counts.get(keyframe);
    return counts ? keyframe.hidden.map((value, i) => (value || counts[i] === GONE ? 1 : 0)) : keyframe.hidden;
  }

  /** Whether a point of a keyframe is deleted. */
  isGone(keyframe, pixel) {
    return this.#counts.get(keyframe)?.[pixel] === GONE;
  }

  forget(keyframe) {
    this.#counts.delete(keyframe);
  }

  /** Counts the points of keyframes that a frame (depth, hidden, its camera) sees through. */
  count(keyframes, depth, hidden, camera, focal) {
    const { h, w } = VIEW;
    const near = lowered(depth);
    const project = projector(camera, focal);
    const out = new Float32Array(3);
    for (const keyframe of keyframes) {
      const points = unproject(keyframe.depth, keyframe.pose, focal);
      const counts = this.#counts.get(keyframe) ?? new Uint8Array(h * w);
      this.#counts.set(keyframe, counts);
      for (let i = 0; i < counts.length; i++) {
        project(points[3 * i], points[3 * i + 1], points[3 * i + 2], out);
        const isInside = out[2] > NEAREST && out[0] >= 0 && out[0] <= w - 1 && out[1] >= 0 && out[1] <= h - 1;
        if (!isInside || counts[i] === GONE) continue;
        const place = Math.round(out[1]) * w + Math.round(out[0]);
        if (!hidden[place]) counts[i] = near[place] > out[2] * FACTOR + METRES ? counts[i] + 1 : 0;
      }
    }
  }
}

/** The nearest of 3 x 3 depths: a point at an edge is not seen through. */
function lowered(depth) {
  const { h, w } = VIEW;
  const across = new Float32Array(h * w);
  const out = new Float32Array(h * w);
  for (let i = 0; i < h * w; i++) {
    const column = i % w;
    across[i] = Math.min(depth[i], column > 0 ? depth[i - 1] : Infinity, column + 1 < w ? depth[i + 1] : Infinity);
  }
  for (let i = 0; i < h * w; i++) {
    out[i] = Math.min(across[i], i >= w ? across[i - w] : Infinity, i + w < h * w ? across[i + w] : Infinity);
  }
  return out;
}
