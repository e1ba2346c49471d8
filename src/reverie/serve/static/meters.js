// The read-outs: frames shown a second, and the time from an input to the first frame on the screen that obeys it.

const WINDOW_MS = 2000;
const NUM_LATENCIES = 15;
const MAX_PENDING = 256;

export class Meters {
  #shownAt = [];
  #pending = [];
  #latencies = [];

  /** Another world, another epoch: inputs that no frame has answered will never be. */
  reset() {
    this.#shownAt = [];
    this.#pending = [];
  }

  /** Nothing is shown for a while: an input that is answered only afterwards says nothing about the latency. */
  pause() {
    this.#pending = [];
  }

  /** An input has been sent. */
  sent(seq, nowMs) {
    this.#pending.push({ seq, nowMs });
    if (this.#pending.length > MAX_PENDING) this.#pending.shift();
  }

  /** A frame that obeys the inputs up to `action` has come on the screen. */
  shown(action, nowMs) {
    this.#shownAt.push(nowMs);
    const answered = this.#pending.findLastIndex((input) => input.seq <= action) + 1;
    if (!answered) return;
    this.#latencies.push(nowMs - this.#pending[0].nowMs);
    this.#pending.splice(0, answered);
    if (this.#latencies.length > NUM_LATENCIES) this.#latencies.shift();
  }

  /** Frames shown a second, over the last two seconds. */
  fps(nowMs) {
    while (this.#shownAt.length && nowMs - this.#shownAt[0] > WINDOW_MS) this.#shownAt.shift();
    const [first, last] = [this.#shownAt[0], this.#shownAt.at(-1)];
    if (this.#shownAt.length < 2 || nowMs - last > 1000) return 0;
    return ((this.#shownAt.length - 1) * 1000) / (last - first);
  }

  /** Milliseconds from input to screen, the median of the latest ones (each the oldest input of its block), or null. */
  get latencyMs() {
    if (!this.#latencies.length) return null;
    const sorted = [...this.#latencies].sort((a, b) => a - b);
    return sorted[sorted.length >> 1];
  }
}
