// A session's spatial memory: its own keyframes, its camera, and what advances them.  The same as
// models/conditioning/spatial_memory.py, with what is drawn chosen and rendered here and the networks left to the caller.

import { Erasure, isFarther, matchScale } from "./erasure.js";
import { focalLengths, renderViews } from "./projection.js";
import { chooseKeyframes, probe } from "./selection.js";

const STEP_FRAMES = 4;
const MOTION_FRAMES = 8;

export class SpatialMemory {
  #own = []; // keyframes, by slot
  #written = 0;
  #erasure = new Erasure();

  /**
   * config: of the model; size: {width, height} of frames.
   * scene: {fovDeg, pixelAspect, keyframes} or null; pose: of the start image's camera.
   */
  constructor(config, size, scene = null, pose = null) {
    this.config = config;
    this.size = size;
    this.scene = scene?.keyframes ?? [];
    this.preference = scene ? config.own_preference : 1; // of own keyframes, beside a scene's
    this.focal = focalLengths(scene?.fovDeg ?? config.fov_deg, scene?.pixelAspect ?? config.pixel_aspect);
    this.camera = Float32Array.from(pose ?? [0, 0, 0, 0, 0, 0]);
    this.motion = new Float32Array(MOTION_FRAMES * 6);
    this.ahead = null;
  }

  /** What the next views are: poses after `motions` (4 x 6 numbers), the rendered views, the keyframes drawn. */
  next(motions) {
    const poses = [];
    for (let i = 0, pose = this.camera; i < STEP_FRAMES; i++) {
      pose = applyMotion(pose, motions.subarray(6 * i, 6 * i + 6));
      poses.push(pose);
    }
    const candidates = [...this.scene, ...this.#own];
    const chosen = chooseKeyframes(candidates, poses[2], this.focal, this.config.drawn, this.#erasure);
    const drawn = chosen.map((one) => ({ ...one, hidden: this.#erasure.hidden(one), fills: one.isGenerated }));
    return { poses, motions, chosen, view: renderViews(drawn, poses, this.focal, this.size) };
  }

  /** Begins: the start image (RGB bytes) with its measured geometry. */
  open({ depth, hidden, ahead }, colour) {
    this.ahead = ahead;
    this.#write(colour, depth, hidden);
  }

  /** Advances by the block that `next` foresaw; geometry: of its last frame, colour: that frame's RGB bytes. */
  commit({ poses, motions, view, chosen }, { depth: measured, hidden, ahead }, colour) {
    this.ahead = ahead;
    this.camera = poses.at(-1);
    this.motion.copyWithin(0, motions.length);
    this.motion.set(motions, this.motion.length - motions.length);
    const n = measured.length;
    const shown = view.inverseDepth.subarray(-n);
    const cover = view.cover.subarray(-n);
    const depth = matchScale(measured, hidden, shown);
    this.#erasure.count(chosen, depth, hidden, this.camera, this.focal);
    // What was generated is renewed from less than half as far; what was recorded is never hidden by it.
    const unseen = Uint8Array.from(hidden);
    let fresh = 0;
    for (let i = 0; i < n; i++) {
      const stays = cover[i] > 0 && !chosen[view.keyframe[i]].isGenerated;
      const isKnown = (view.known[i] || stays) && !isFarther(depth[i], shown[i]);
      if (!isKnown && !hidden[i]) fresh++;
      if (isKnown && stays) unseen[i] = 1;
    }
    if (fresh / n > 1 - this.config.write_below) this.#write(colour, depth, unseen);
  }

  /** A frame becomes a keyframe. */
  #write(colour, depth, hidden) {
    const count = this.config.keyframes;
    // The first keyframe, the start image, is never overwritten.
    const slot = this.#written < count ? this.#written : 1 + ((this.#written - 1) % Math.max(1, count - 1));
    const keyframe = { colour, depth, hidden, pose: this.camera, preference: this.preference, isGenerated: slot > 0 };
    this.#erasure.forget(this.#own[slot]);
    this.#own[slot] = { ...keyframe, ...probe(keyframe, this.focal) };
    this.#written++;
  }
}

/** The pose after a frame's motion [forward, right, up, yaw, pitch, roll]. */
export function applyMotion(pose, motion) {
  const yaw = (pose[3] * Math.PI) / 180;
  const [s, c] = [Math.sin(yaw), Math.cos(yaw)];
  return Float32Array.of(
    pose[0] + motion[0] * s + motion[1] * c,
    pose[1] + motion[0] * c - motion[1] * s,
    pose[2] + motion[2],
    ...[3, 4, 5].map((i) => pose[i] + motion[i]),
  );
}
