// A session: a generated world being played.  The data flow of one block:
//
//   memory   actions, last motions, depth ahead -> poses of the next 4 frames, the keyframes that promise most, rendered into the views
//   view     views, last latent -> condition channels and the latent that the output is a residual to
//   pass     noise -> clean latent, once for each noise level of the schedule
//   decode   clean latent -> 4 frames
//   depth    last frame -> its depth and body
//   behind   frames, views at full size -> frames without the body that was painted, in scenes that have recorded one
//   detail   frames, views at full size -> frames with what is fine in the views, which are handed out at once
//   pass     the clean latent with a little noise, whose keys and values are the block's row of the past
//   memory   keeps the last frame and its depth where they are new, and deletes what is seen through

import { SpatialMemory } from "./memory.js";
import { gaussian } from "./noise.js";

const STEP_FRAMES = 4;

/** A ring of the last rows of the past; `sink`: how many of the first rows stay for good.  Order does not matter. */
class Past {
  #rows;
  #count = 0;

  constructor(steps, sink, width) {
    [this.steps, this.sink, this.width] = [steps, sink, width];
    this.#rows = new Float32Array(steps * width);
  }

  get tensor() {
    const steps = Math.min(this.#count, this.steps);
    return { data: this.#rows.subarray(0, steps * this.width), dims: [steps, this.width] };
  }

  commit(row) {
    const step = this.#count++;
    if (!this.steps) return;
    const slot = step < this.sink ? step : this.sink + ((step - this.sink) % (this.steps - this.sink));
    this.#rows.set(row, slot * this.width);
  }
}

export class Session {
  /** model: model.json; networks: its graphs; egoMotion: its own, for scenes that have none. */
  constructor(model, networks, egoMotion) {
    this.model = model;
    this.networks = networks;
    this.egoMotion = egoMotion;
    this.size = model.width * model.height;
  }

  /**
   * Begins.  image: RGB bytes of a frame; scene: {fovDeg, pixelAspect, keyframes} with the image's pose, or null; draw:
   * a function that returns so many numbers of noise.  Returns the first frame, RGB bytes.
   */
  async open({ image, scene = null, pose = null, seed = 0, draw = gaussian(seed) }) {
    const { model, networks } = this;
    this.draw = draw;
    this.step = 0;
    this.rows = new Float32Array((model.action_frames - STEP_FRAMES) * model.action_size);
    this.past = new Past(model.window - 1, model.sink, model.past_row);
    this.carries = model.carries.map((dims) => new Float32Array(dims.reduce((a, b) => a * b)));
    const opened = await networks.run("open", { picture: this.#picture(image) });
    this.image = opened.image ?? null;
    const zero = (channels) => new Float32Array(channels * model.latent[1] * model.latent[2]);
    const condition = { channels: zero(model.cond_channels), base: zero(model.latent[0]) };
    const idle = new Float32Array(model.action_frames * model.action_size);
    await this.#commit(opened.latent, idle, condition, draw(opened.latent.length));
    const first = (await this.#decode(opened.latent)).at(-1);
    this.memory = new SpatialMemory(model.memory, model, scene, pose, this.egoMotion, model.action_size);
    this.memory.open(await this.#measure(first), first);
    return first;
  }

  /**
   * Generates the next block.  rows: 4 action rows; show: handed its frames (RGB bytes) as soon as they are there.
   * Settles once the state has been advanced too.
   */
  async play(rows, show) {
    const { networks, memory, model } = this;
    const actions = Float32Array.of(...this.rows, ...rows);
    const next = memory.next(memory.predictMotion(rows), rows);
    const planes = (data, ...channels) => ({ data, dims: [1, STEP_FRAMES, ...channels, ...model.view] });
    const condition = await networks.run("view", {
      colour: planes(next.view.colour, 3),
      cover: planes(next.view.cover),
      inverse_depth: planes(next.view.inverseDepth),
      last: this.#latent(this.last),
      drawn: { data: Float32Array.of(next.chosen.length > 0), dims: [1] },
    });
    const noise = this.#noise();
    const z = await this.#denoise(noise, actions, condition);
    const decoded = await this.#decode(z);
    const geometry = await this.#measure(decoded.at(-1));
    const painted = geometry.hidden;
    if (next.body) geometry.hidden = next.body.hides(painted);
    const frames = await this.#withView(decoded, next, painted, geometry.hidden);
    show(frames);
    await this.#commit(z, actions, condition, noise.at(-1));
    memory.commit(next, geometry, frames.at(-1));
  }

  /** All noise of a block: its own, that of each pass but the last where the schedule renoises, and the context's. */
  #noise() {
    const { sigmas, renoise, context_sigma } = this.model.schedule;
    const count = 1 + (renoise ? sigmas.length - 1 : 0) + (context_sigma > 0 ? 1 : 0);
    return Array.from({ length: count }, () => this.draw(this.last.length));
  }

  async #denoise(noise, actions, condition) {
    const { sigmas, renoise } = this.model.schedule;
    let x = noise[0];
    for (const [i, sigma] of sigmas.entries()) {
      const { out } = await this.#pass(x, i, actions, condition);
      const predictsClean = this.model.predicts === "clean";
      const clean = predictsClean ? out : x.map((value, j) => value - sigma * out[j]);
      if (i + 1 === sigmas.length) return clean;
      const following = sigmas[i + 1];
      const velocity = (j) => (predictsClean ? (x[j] - out[j]) / Math.max(sigma, 0.02) : out[j]);
      x = renoise ? mixed(clean, noise[i + 1], following) : x.map((value, j) => value + (following - sigma) * velocity(j));
    }
    throw new Error("a schedule without noise levels");
  }

  /** Lets a clean latent into the past, with the context's noise; the actions move on. */
  async #commit(z, actions, condition, noise) {
    const { sigmas, context_sigma } = this.model.schedule;
    const { present } = await this.#pass(mixed(z, noise, context_sigma), sigmas.length, actions, condition);
    this.past.commit(present);
    this.rows = actions.slice(STEP_FRAMES * this.model.action_size);
    this.last = z;
    this.step++;
  }

  #pass(x, level, actions, { channels, base }) {
    const { model } = this;
    const [, ...cells] = model.latent;
    const inputs = {
      x: this.#latent(x),
      level: { data: Float32Array.from(model.levels[level]), dims: [1, model.dim] },
      actions: this.#actions(actions),
      channels: { data: channels, dims: [1, model.cond_channels, ...cells] },
      base: this.#latent(base),
      past: this.past.tensor,
      tokens: rotaryTable(this.step, model.rotary.tokens),
      keyboard: model.rotary.keyboard && rotaryTable(this.step, model.rotary.keyboard),
      mouse: model.rotary.mouse && rotaryTable(this.step, model.rotary.mouse),
      image: this.image && { data: this.image, dims: [this.image.length] },
    };
    return this.networks.run("pass", inputs);
  }

  /**
   * Frames (RGB bytes) with the fine detail of the views, but for the body (h w), and with the recorded body, where there
   * is one, in the place of the one that was painted (h w).
   */
  async #withView(decoded, { view, body: recorded }, painted, body) {
    const { width, height, view: [h, w] } = this.model;
    const block = new Float32Array(3 * this.size * decoded.length);
    decoded.forEach((frame, i) => block.set(this.#picture(frame).data, 3 * this.size * i));
    const frames = { data: block, dims: [1, STEP_FRAMES, 3, height, width] };
    const detail = { data: view.detail(), dims: [1, STEP_FRAMES, 3, 2 * h, 2 * w] };
    const planes = (data) => ({ data, dims: [1, STEP_FRAMES, h, w] });
    const mask = (data) => ({ data: Float32Array.from(data), dims: [1, h, w] });
    if (recorded) {
      const inputs = { frames, detail, found: planes(view.found), painted: mask(painted) };
      frames.data = (await this.networks.run("behind", inputs)).shown;
    }
    const inputs = { frames, detail, cover: planes(view.cover), inverse_depth: planes(view.inverseDepth), body: mask(body) };
    const shown = this.#frames((await this.networks.run("detail", inputs)).shown);
    recorded?.draw(shown);
    return shown;
  }

  async #decode(latent) {
    const inputs = { latent: this.#latent(latent) };
    this.carries.forEach((data, i) => (inputs[`carry_${i}`] = { data, dims: this.model.carries[i] }));
    const out = await this.networks.run("decode", inputs);
    this.carries = this.carries.map((_, i) => out[`new_carry_${i}`]);
    return this.#frames(out.frames);
  }

  /** A block of [-1, 1] as RGB bytes, frame by frame. */
  #frames(planes) {
    return Array.from({ length: STEP_FRAMES }, (_, i) => toBytes(planes, 3 * this.size * i, this.size));
  }

  /** Depth and hidden pixels of a frame. */
  #measure(frame) {
    return this.networks.run("depth", { frame: this.#picture(frame) });
  }

  #picture(bytes) {
    const data = new Float32Array(3 * this.size);
    for (let i = 0; i < this.size; i++) {
      for (let c = 0; c < 3; c++) data[c * this.size + i] = Math.fround(bytes[3 * i + c] / 127.5) - 1;
    }
    return { data, dims: [1, 3, this.model.height, this.model.width] };
  }

  #latent(data) {
    return { data, dims: [1, ...this.model.latent] };
  }

  #actions(data) {
    return { data, dims: [1, this.model.action_frames, this.model.action_size] };
  }
}

/** A clean latent with a share `sigma` of noise. */
function mixed(z, eps, sigma) {
  return z.map((value, i) => (1 - sigma) * value + sigma * eps[i]);
}

/** Three planes of [-1, 1] to RGB bytes, rounded half to even as a clamped array rounds. */
function toBytes(planes, from, size) {
  const bytes = new Uint8ClampedArray(3 * size);
  for (let i = 0; i < size; i++) {
    for (let c = 0; c < 3; c++) bytes[3 * i + c] = (planes[from + c * size + i] + 1) * 127.5;
  }
  return bytes;
}

/** Cosines and sines that turn number pairs to a step's positions; pairs: how many for each axis; grid: [down, across]
 * of tokens, where cells have positions too. */
function rotaryTable(step, { pairs, theta, grid = null }) {
  const count = pairs.reduce((a, b) => a + b);
  const cells = grid ? grid[0] * grid[1] : 1;
  const data = new Float32Array(2 * cells * count);
  for (let cell = 0, i = 0; cell < cells; cell++) {
    const position = grid ? [step, Math.floor(cell / grid[1]), cell % grid[1]] : [step];
    for (const [axis, number] of pairs.entries()) {
      for (let pair = 0; pair < number; pair++) {
        const angle = position[axis] * theta ** (-pair / Math.max(number, 1));
        data[i++] = Math.cos(angle);
        data[i++] = Math.sin(angle);
      }
    }
  }
  return { data, dims: grid ? [1, 1, cells, count, 2] : [1, count, 2] };
}
