// The ground of a scene: the places near to where it was recorded, which are all that a session in it can go to.  The
// same as scenes/ground.py, which describes it.

import { applyMotion, motionsAlong } from "./ego-motion.js";

const REACH = 2;
const SAME_PLACE = 0.3;
const SPACING = 1;
const HEIGHT_FACTOR = 2;
const RARE = 0.02;
const TURN_SLACK = 0.5;
const ANY_HEADING = Infinity;

export class Ground {
  /**
   * keyframes: of the scene, with a pose each.
   * ways: {poses, radius}, where recorded cameras were (x, y, z, yaw, and how far one may turn from there), or null.
   */
  constructor(keyframes, ways = null) {
    const poses = keyframes.map((one) => one.pose);
    this.poses = ways?.poses ?? poses;
    this.heading = this.poses.map((pose) => (ways ? pose[4] : ANY_HEADING));
    this.radius = ways?.radius ?? keyframeRadius(poses);
    const usual = [4, 5].map((i) => {
      const turns = poses.map((pose) => pose[i]).sort((a, b) => a - b);
      return [quantile(turns, RARE), quantile(turns, 1 - RARE)];
    });
    this.low = usual.map(([low, high]) => low - TURN_SLACK * (high - low));
    this.high = usual.map(([low, high]) => high + TURN_SLACK * (high - low));
  }

  /** The next poses of a camera, brought back to the ground where they leave it. */
  hold(camera, poses) {
    const { away, turn, heading } = this.#nearest(camera);
    const [radius, share] = [Math.max(away, this.radius), Math.max(Math.abs(turn) / heading, 1)];
    const held = [camera];
    for (const [i, motion] of motionsAlong(camera, poses).entries()) {
      const next = this.#hold(applyMotion(held[i], motion), radius, share);
      for (const j of [0, 1]) {
        const [low, high] = [Math.min(this.low[j], camera[4 + j]), Math.max(this.high[j], camera[4 + j])];
        next[4 + j] = Math.min(Math.max(poses[i][4 + j], low), high);
      }
      held.push(next);
    }
    return held.slice(1);
  }

  /** A pose with its place and yaw within a radius and a share of the heading. */
  #hold(pose, radius, share) {
    const { centre, away, turn, heading } = this.#nearest(pose);
    if (away > radius) for (let i = 0; i < 3; i++) pose[i] = centre[i] + ((pose[i] - centre[i]) * radius) / away;
    const limit = share * heading;
    pose[3] += Math.min(Math.max(turn, -limit), limit) - turn;
    return pose;
  }

  /** The pose that a camera is nearest to in place and heading, how far and how far turned, and how far it may be. */
  #nearest(camera) {
    let found = 0;
    let least = Infinity;
    for (let i = 0; i < this.poses.length; i++) {
      const [away, turn] = [distance(this.poses[i], camera), wrapDegrees(camera[3] - this.poses[i][3])];
      const apart = Math.hypot(away / this.radius, turn / this.heading[i]);
      if (apart < least) [least, found] = [apart, i];
    }
    const centre = this.poses[found];
    return { centre, away: distance(centre, camera), turn: wrapDegrees(camera[3] - centre[3]), heading: this.heading[found] };
  }
}

/** A few distances between one keyframe's place and the next. */
function keyframeRadius(poses) {
  const nearest = poses
    .map((pose) => Math.min(...poses.map((other) => distance(pose, other)).filter((away) => away >= SAME_PLACE)))
    .filter(Number.isFinite)
    .sort((a, b) => a - b);
  return REACH * (nearest.length ? nearest[(nearest.length - 1) >> 1] : SPACING);
}

/** The quantile of sorted numbers, between the two nearest. */
function quantile(sorted, share) {
  const at = share * (sorted.length - 1);
  const [below, above] = [sorted[Math.floor(at)], sorted[Math.ceil(at)]];
  return below + (at - Math.floor(at)) * (above - below);
}

/** The same turn within half a circle to either side. */
function wrapDegrees(degrees) {
  return ((((degrees + 180) % 360) + 360) % 360) - 180;
}

function distance(a, b) {
  return Math.hypot(a[0] - b[0], a[1] - b[1], HEIGHT_FACTOR * (a[2] - b[2]));
}
