// The read-outs: frames shown a second, and the time from an input to the first frame on the screen that obeys it.

const WINDOW_MS = 2000;
const NUM_LATENCIES = 40;
const MAX_PENDING = 256;

export class Meters {
  #shownAt = [];
  #pending = [];
  #latencies = [];
  #parts = []; // {waitMs, makeMs, networkMs, showMs} of each latency

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

  /**
   * A frame that obeys the inputs up to `action` has come on the screen.  times: {sampledMs, sentMs} on the server's
   * clock, receivedMs on ours, and roundTripMs, or null; what the latency is made of follows from them.
   */
  shown(action, nowMs, times = null) {
    this.#shownAt.push(nowMs);
    const answered = this.#pending.findLastIndex((input) => input.seq <= action) + 1;
    if (!answered) return;
    const totalMs = nowMs - this.#pending[0].nowMs;
    this.#latencies.push(totalMs);
    this.#pending.splice(0, answered);
    if (this.#latencies.length > NUM_LATENCIES) this.#latencies.shift();
    if (times === null) return;
    const makeMs = times.sentMs - times.sampledMs;
    const networkMs = times.roundTripMs ?? 0;
    const showMs = nowMs - times.receivedMs;
    this.#parts.push({ waitMs: Math.max(0, totalMs - makeMs - networkMs - showMs), makeMs, networkMs, showMs });
    if (this.#parts.length > NUM_LATENCIES) this.#parts.shift();
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
    return quantile(this.#latencies, 0.5);
  }

  /** As `latencyMs`, the 95th percentile. */
  get latencyP95Ms() {
    return quantile(this.#latencies, 0.95);
  }

  /** Medians of what latencies are made of, whole milliseconds, or null. */
  get latencyParts() {
    if (!this.#parts.length) return null;
    const names = Object.keys(this.#parts[0]);
    return Object.fromEntries(
      names.map((name) => [name, Math.round(quantile(this.#parts.map((parts) => parts[name]), 0.5))]),
    );
  }
}

function quantile(values, share) {
  if (!values.length) return null;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
}
