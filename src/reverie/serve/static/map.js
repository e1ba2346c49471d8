// The map: what the world's memory holds, from above.  Asked for once a second while it is shown.

const EVERY_MS = 1000;

export class MemoryMap {
  #askedMs = -Infinity;

  /** image: an <img>; ask: sends the request; problem: takes a line for the player. */
  constructor(image, ask, problem) {
    this.image = image;
    this.ask = ask;
    this.problem = problem;
  }

  get isOpen() {
    return this.image.classList.contains("open");
  }

  toggle() {
    this.image.classList.toggle("open");
    this.image.hidden = true; // until the first answer has come
    this.#askedMs = -Infinity;
  }

  /** Ask again if it is time. */
  poll(nowMs) {
    if (!this.isOpen || nowMs - this.#askedMs < EVERY_MS) return;
    this.#askedMs = nowMs;
    this.ask();
  }

  /** The source's answer: an image, or null and why there is none. */
  show({ image, reason }) {
    if (!this.isOpen) return;
    if (image === null) {
      this.toggle();
      this.problem(reason ?? "this world has no memory to draw a map of");
      return;
    }
    this.image.src = image;
    this.image.hidden = false;
  }
}
