// The ground of a scene: the places near to where it was recorded, which are all that a session in it can go to.  The
// same as scenes/ground.py, which describes it.

const REACH = 2;
const SAME_PLACE = 0.3;
const SPACING = 1;
const HEIGHT_FACTOR = 2;
const RARE = 0.02;
const TURN_SLACK = 0.5;

export class Ground {
  /** keyframes: of the scene, with a pose each. */
  constructor(keyframes) {
    const poses = keyframes.map((one) => one.pose);
    this.places = poses.map(scaled);
    const nearest = this.places
      .map((place) => Math.min(...this.places.map((other) => distance(place, other)).filter((away) => away >= SAME_PLACE)))
      .filter(Number.isFinite)
      .sort((a, b) => a - b);
    this.radius = REACH * (nearest.length ? nearest[(nearest.length - 1) >> 1] : SPACING);
    const usual = [4, 5].map((i) => {
      const turns = poses.map((pose) => pose[i]).sort((a, b) => a - b);
      return [quantile(turns, RARE), quantile(turns, 1 - RARE)];
    });
    this.low = usual.map(([low, high]) => low - TURN_SLACK * (high - low));
    this.high = usual.map(([low, high]) => high + TURN_SLACK * (high - low));
  }

  /** The next poses of a camera, brought back to the ground where they leave it. */
  hold(camera, poses) {
    const limit = Math.max(this.#nearest(scaled(camera)).away, this.radius);
    return poses.map((pose) => {
      const held = Float32Array.from(pose);
      const { place, away } = this.#nearest(scaled(pose));
      if (away > limit) {
        const at = scaled(pose);
        for (let i = 0; i < 3; i++) held[i] = place[i] + ((at[i] - place[i]) * limit) / away;
        held[2] /= HEIGHT_FACTOR;
      }
      for (const i of [0, 1]) {
        const [low, high] = [Math.min(this.low[i], camera[4 + i]), Math.max(this.high[i], camera[4 + i])];
        held[4 + i] = Math.min(Math.max(held[4 + i], low), high);
      }
      return held;
    });
  }

  #nearest(at) {
    let found = { place: null, away: Infinity };
    for (const place of this.places) {
      const away = distance(place, at);
      if (away < found.away) found = { place, away };
    }
    return found;
  }
}

/** The quantile of sorted numbers, between the two nearest. */
function quantile(sorted, share) {
  const at = share * (sorted.length - 1);
  const [below, above] = [sorted[Math.floor(at)], sorted[Math.ceil(at)]];
  return below + (at - Math.floor(at)) * (above - below);
}

function scaled(pose) {
  return [pose[0], pose[1], HEIGHT_FACTOR * pose[2]];
}

function distance(a, b) {
  return Math.hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]);
}
