// What the next four frames' actions do to the camera; the same as scenes/ego_motion.py, whose weights it takes.

const MOTION_SCALE = [0.1, 0.1, 0.05, 1, 1, 1];
const STEP_FRAMES = 4;
export const HISTORY_FRAMES = 24;

export class EgoMotion {
  #layers;

  /** columns: the numbers of an action row that count; width: of the hidden layers; bytes: float32 weights and biases
   * of three layers and the skip, one after another. */
  constructor({ columns, width }, bytes) {
    const numbers = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
    this.columns = columns;
    const told = (HISTORY_FRAMES + STEP_FRAMES) * columns.length + HISTORY_FRAMES * 6;
    const out = STEP_FRAMES * 6;
    let at = 0;
    const take = (length) => numbers.subarray(at, (at += length));
    const layer = (outputs, inputs) => ({ weight: take(outputs * inputs), bias: take(outputs) });
    const [skip, mlp] = [() => layer(out, told), (inputs) => [layer(width, inputs), layer(width, width), layer(out, width)]];
    const inputs = (numbers.length - out * (told + 1) - width * (width + 2) - out * (width + 1)) / width;
    this.#layers = [...mlp(inputs), skip()];
  }

  /**
   * Motions of the next four frames, 24 numbers.  actions: 28 rows of `size` numbers; motions: of the last 24 frames;
   * tilt: pitch and roll now; ahead: log depth of the last frame on a coarse grid.
   */
  predict({ actions, size, motions, tilt, ahead }) {
    const told = [];
    for (let row = 0; row < actions.length; row += size) for (const column of this.columns) told.push(actions[row + column]);
    motions.forEach((value, i) => told.push(0.3 * Math.min(Math.max(value / MOTION_SCALE[i % 6], -30), 30)));
    const inputs = Float32Array.of(...told, ...Array.from(tilt, (value) => value / 20), ...Array.from(ahead, (value) => value - 2));
    const [first, second, last, skip] = this.#layers;
    const hidden = silu(linear(second, silu(linear(first, inputs))));
    const direct = linear(skip, inputs);
    return linear(last, hidden).map((value, i) => (value + direct[i]) * MOTION_SCALE[i % 6]);
  }
}

/** Takes as many of the inputs as the layer has, the first ones. */
function linear({ weight, bias }, inputs) {
  const count = weight.length / bias.length;
  return bias.map((sum, row) => {
    for (let i = 0, at = row * count; i < count; i++, at++) sum += weight[at] * inputs[i];
    return sum;
  });
}

function silu(values) {
  return values.map((value) => value / (1 + Math.exp(-value)));
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

/** The motion from one pose to another, as 6 numbers. */
export function relativeMotion(before, after) {
  const yaw = (before[3] * Math.PI) / 180;
  const [s, c] = [Math.sin(yaw), Math.cos(yaw)];
  const step = Array.from(after, (value, i) => value - before[i]);
  const turn = (((step[3] + 180) % 360) + 360) % 360;
  return [step[0] * s + step[1] * c, step[0] * c - step[1] * s, step[2], turn - 180, step[4], step[5]];
}

/** Motions of a camera along poses. */
export function motionsAlong(camera, poses) {
  return poses.map((pose, i) => relativeMotion(i ? poses[i - 1] : camera, pose));
}
