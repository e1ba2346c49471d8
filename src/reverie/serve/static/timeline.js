// The slider over a session's past: goes to any moment that is still kept, and there the world can be played on or forked.

import { TEXT, clock } from "./strings.js";

/**
 * Events: `seek` (detail: a frame's number); the page pauses there.
 *
 * elements: {bar, slider, time, fork}.
 */
export class Timeline extends EventTarget {
  #fps = 25;
  #rewindFrames = 0;
  #base = 1; // number of the frame with index 0 of this epoch
  #earliest = 1;
  #frame = 1;
  #last = 1;
  #isAsking = false;
  #wanted = null; // the slider has moved on while an answer is on its way

  constructor({ bar, slider, time, fork }) {
    super();
    Object.assign(this, { bar, slider, time, fork });
    slider.addEventListener("input", () => this.seek(Number(slider.value)));
  }

  /** What the server's welcome says of the world. */
  offer({ rewind_s: rewindS, fps }) {
    this.#fps = fps;
    this.#rewindFrames = rewindS * fps;
    this.allow(true);
  }

  /** The world that is shown can go back, or it cannot. */
  allow(canGoBack) {
    this.bar.hidden = this.#rewindFrames === 0 || !canGoBack;
  }

  /** A world is open, or another moment has been gone to: the server's `started` or `position`. */
  begin({ frame, earliest, last }) {
    this.#base = frame;
    this.#earliest = earliest;
    this.#frame = frame;
    this.#last = last;
    this.#isAsking = false;
    const wanted = this.#wanted;
    this.#wanted = null;
    if (wanted !== null) this.seek(wanted);
    this.#show();
  }

  /** A frame has come on the screen; index: its place in this epoch. */
  shown(index) {
    this.#frame = this.#base + index;
    if (index > 0) this.#last = this.#frame; // it is played on: there is no later moment any more
    this.#earliest = Math.max(this.#earliest, this.#last - this.#rewindFrames);
    this.#show();
  }

  /** The server did not do as it was asked. */
  failed() {
    this.#isAsking = false;
    this.#wanted = null;
    this.#show();
  }

  get isAtEnd() {
    return this.#frame >= this.#last;
  }

  /** Go to a frame, by its number. */
  seek(frame) {
    if (this.bar.hidden) return;
    if (this.#isAsking) {
      this.#wanted = frame;
      return;
    }
    this.#isAsking = true;
    this.slider.ariaBusy = "true";
    this.dispatchEvent(new CustomEvent("seek", { detail: Math.round(frame) }));
  }

  /** Go back by so many seconds, or on where that is negative. */
  back(seconds) {
    const from = this.#wanted ?? this.#frame;
    this.seek(Math.min(Math.max(from - seconds * this.#fps, this.#earliest), this.#last));
  }

  #show() {
    this.slider.ariaBusy = String(this.#isAsking);
    this.slider.min = String(this.#earliest);
    this.slider.max = String(Math.max(this.#last, this.#earliest + 1));
    if (!this.#isAsking) this.slider.value = String(this.#frame);
    const seconds = (frame) => clock((frame - 1) / this.#fps);
    this.time.textContent = `${seconds(this.#frame)} / ${seconds(this.#last)}`;
    this.slider.setAttribute("aria-valuetext", TEXT.at(seconds(this.#frame), seconds(this.#last)));
    this.fork.disabled = this.isAtEnd;
  }
}
