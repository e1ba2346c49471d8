// A session's spatial memory: its own keyframes, its camera, and what advances them.  The same as
// models/conditioning/spatial_memory.py, with what is drawn chosen and rendered here and the networks left to the caller.

import { Erasure, isFarther, matchScale } from "./erasure.js";
import { HISTORY_FRAMES, applyMotion, motionsAlong } from "./ego-motion.js";
import { Ground } from "./ground.js";
import { VIEW, focalLengths, renderViews } from "./projection.js";
import { chooseKeyframes, probe } from "./selection.js";
import { headingPose, stopAtSurfaces } from "./walls.js";

const STEP_FRAMES = 4;
const AHEAD_GRID = [8, 14];
const MAX_AHEAD_M = 400; // of sky

export class SpatialMemory {
  #own = []; // keyframes, by slot
  #erasure = new Erasure();

  /** How many keyframes of its own it has written. */
  written = 0;

  /**
   * config: of the model; size: {width, height} of frames.
   * scene: {fovDeg, pixelAspect, keyframes, egoMotion, walls, ways, body} or null; pose: of the start image's camera.
   * egoMotion: the model's, for scenes that have none of their own; actionSize: numbers of an action row.
   */
  constructor(config, size, scene = null, pose = null, egoMotion = null, actionSize = 0) {
    this.config = config;
    this.size = size;
    this.egoMotion = scene?.egoMotion ?? egoMotion;
    this.actionSize = actionSize;
    this.scene = scene?.keyframes ?? [];
    this.preference = scene ? config.own_preference : 1; // of own keyframes, beside a scene's
    this.walls = scene?.walls ?? true;
    this.ground = scene ? new Ground(scene.keyframes, scene.ways) : null;
    this.focal = focalLengths(scene?.fovDeg ?? config.fov_deg, scene?.pixelAspect ?? config.pixel_aspect);
    this.camera = Float32Array.from(pose ?? [0, 0, 0, 0, 0, 0]);
    this.motion = new Float32Array(HISTORY_FRAMES * 6);
    this.actions = new Float32Array(HISTORY_FRAMES * actionSize);
    this.ahead = null;
    this.body = scene?.body ?? null;
    this.shown = 0; // the recorded frame of the body that was shown last, from 1
  }

  /** Motions (4 x 6 numbers) of the next block under 4 action rows. */
  predictMotion(rows) {
    return this.egoMotion.predict({
      actions: Float32Array.of(...this.actions, ...rows),
      size: this.actionSize,
      motions: this.motion,
      tilt: this.camera.subarray(4, 6),
      ahead: this.ahead,
    });
  }

  /**
   * The next block, of predicted `motions` under 4 action `rows`: its poses, which walls and the end of a scene's ground
   * stop, their motions with the speed ahead that the ground's end takes, the rendered views, the keyframes that are
   * drawn in them, and the player's body before them, of scenes that have recorded it.
   */
  next(motions, rows = []) {
    const path = [];
    for (let i = 0, pose = this.camera; i < STEP_FRAMES; i++) {
      pose = applyMotion(pose, motions.subarray(6 * i, 6 * i + 6));
      path.push(pose);
    }
    const wanted = this.walls ? this.#stopAtWalls(path) : path;
    const step = this.#render(this.ground ? this.ground.hold(this.camera, wanted) : wanted);
    // No game has such an edge: a runner who is stopped there runs on the spot, and leaves it when told to turn.
    const taken = motionsAlong(this.camera, step.poses);
    motionsAlong(this.camera, wanted).forEach(([ahead], i) => (taken[i][0] = ahead));
    const next = { ...step, rows, motions: Float32Array.of(...taken.flat()) };
    if (!this.body) return next;
    const past = [moveOn(this.actions.slice(), rows), moveOn(this.motion.slice(), next.motions)];
    const body = this.body.show(...past, this.shown);
    return { ...next, body, view: body.drawView(next.view) };
  }

  #stopAtWalls(wanted) {
    const surfaces = this.#drawn(this.#choose(headingPose(this.camera, wanted)));
    return stopAtSurfaces(this.camera, wanted, surfaces, this.focal);
  }

  #render(poses) {
    const chosen = this.#choose(poses[2]);
    return { poses, chosen, view: renderViews(this.#drawn(chosen), poses, this.focal, this.size) };
  }

  #choose(pose) {
    const { drawn, scene_drawn: leading } = this.config;
    const all = [...this.scene, ...this.#own];
    return chooseKeyframes(all, pose, this.focal, drawn, this.#erasure, leading, this.scene.length);
  }

  #drawn(chosen) {
    return chosen.map((one) => ({ ...one, hidden: this.hidden(one), fills: one.isGenerated }));
  }

  /** The pixels of a keyframe that are not drawn: a body, and what was seen through. */
  hidden(keyframe) {
    return this.#erasure.hidden(keyframe);
  }

  /** Begins: the start image (RGB bytes) with its measured geometry. */
  open({ depth, hidden }, colour) {
    this.ahead = depthAhead(depth);
    if (this.body) this.shown = this.body.find(colour, hidden);
    this.#write(colour, depth, hidden);
  }

  /** Advances by the block that `next` foresaw; geometry: of its last frame, colour: that frame's RGB bytes. */
  commit({ poses, rows, motions, view, chosen, body }, { depth: measured, hidden }, colour) {
    this.camera = poses.at(-1);
    moveOn(this.motion, motions);
    moveOn(this.actions, rows);
    if (body) this.shown = body.rows.at(-1) + 1;
    const n = measured.length;
    const shown = view.inverseDepth.subarray(-n);
    const cover = view.cover.subarray(-n);
    const depth = matchScale(measured, hidden, shown);
    // What the view shows is known better than what is measured of a generated frame.
    this.ahead = depthAhead(depth.map((value, i) => (cover[i] && !hidden[i] ? 1 / Math.max(shown[i], 1 / MAX_AHEAD_M) : value)));
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
    const slot = this.written < count ? this.written : 1 + ((this.written - 1) % Math.max(1, count - 1));
    const keyframe = { colour, depth, hidden, pose: this.camera, preference: this.preference, isGenerated: slot > 0 };
    this.#erasure.forget(this.#own[slot]);
    this.#own[slot] = { ...keyframe, ...probe(keyframe, this.focal) };
    this.written++;
  }
}

/** Means of log depth on a coarse grid: what is ahead. */
function depthAhead(depth) {
  const [rows, columns] = AHEAD_GRID;
  const [down, across] = [VIEW.h / rows, VIEW.w / columns];
  const means = new Float32Array(rows * columns);
  depth.forEach((value, i) => {
    const [row, column] = [Math.floor(i / VIEW.w / down), Math.floor((i % VIEW.w) / across)];
    means[row * columns + column] += Math.log(value) / (down * across);
  });
  return means;
}

/** Takes new numbers in at the end; the oldest go.  Returns the history. */
function moveOn(history, values) {
  history.copyWithin(0, values.length);
  history.set(values, history.length - values.length);
  return history;
}

