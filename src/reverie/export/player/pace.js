// When to make the next block: as late as it may begin and still arrive in time.  The same as engine/sessions/pace.py, without a
// network in between.  It knows no clock.

const MARGIN_MS = 30;
const LEAD_MS = 120;
const SMOOTHING = 0.125;
const DEVIATION_SMOOTHING = 0.25;

export class Pace {
  #blockFrames;
  #costMs;
  #deviationMs = 0;

  constructor({ fps, blockFrames }) {
    this.#blockFrames = blockFrames;
    this.keepTo(fps);
    this.#costMs = blockFrames * this.frameMs;
    this.begin(0);
  }

  /** Frames a second from now on. */
  keepTo(fps) {
    this.frameMs = 1000 / fps;
    this.leadFrames = Math.max(this.#blockFrames, Math.ceil(LEAD_MS / this.frameMs));
  }

  /** Another world: nothing made, nothing shown; what was learnt about the cost stays. */
  begin(nowMs) {
    [this.made, this.shown, this.dryAtMs] = [0, 0, nowMs];
  }

  frames(count, nowMs) {
    this.made += count;
    this.dryAtMs = Math.max(this.dryAtMs, nowMs) + count * this.frameMs;
  }

  /** A block took so long. */
  cost(ms) {
    const error = ms - this.#costMs;
    this.#costMs += SMOOTHING * error;
    this.#deviationMs += DEVIATION_SMOOTHING * (Math.abs(error) - this.#deviationMs);
  }

  /** Frame number `index` is on the screen. */
  played(index, nowMs) {
    if (index < this.shown) return;
    this.shown = Math.min(index + 1, this.made);
    this.dryAtMs = nowMs + (this.made - this.shown + 1) * this.frameMs;
  }

  /** Milliseconds until the next block is due: 0 now, null when nothing changes before a frame is shown. */
  waitMs(nowMs) {
    if (this.made - this.shown > this.leadFrames) return null;
    return Math.max(0, this.dryAtMs - this.#costMs - 2 * this.#deviationMs - MARGIN_MS - nowMs);
  }
}
