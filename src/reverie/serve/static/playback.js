// Which frame to show when: a short queue, emptied at the world's frame rate.  It knows no canvas and no clock.
//
// The server begins each block as late as it dares, so the queue holds a few frames at most.  When a world is slower
// than its frame rate, frames are shown evenly at the rate they come, down to MAX_STRETCH, instead of in bursts.

import { FLAG } from "./protocol.js";

const MAX_STRETCH = 2.5;
const STEADY = 1.15; // blocks that come at most this much late are on time
const EARLY_MS = 4; // the screen refreshes when it will: a frame may be this early,
const LATE_MS = 20; // and this late without moving those after it

export class Playback {
  constructor({ fps, blockFrames }) {
    this.frameMs = 1000 / fps;
    this.blockFrames = blockFrames;
    this.reset();
  }

  /** Frames a second from now on. */
  keepTo(fps) {
    this.frameMs = 1000 / fps;
    this.spacingMs = this.frameMs;
    this.blockAtMs = null;
  }

  reset() {
    this.queue = [];
    this.dueMs = 0;
    this.spacingMs = this.frameMs;
    this.blockAtMs = null;
  }

  /** Put a frame in the queue.  It is shown once its `ready` is true. */
  push(frame, nowMs) {
    if (frame.flags & FLAG.BLOCK) {
      if (this.blockAtMs !== null) {
        const spacing = Math.min((nowMs - this.blockAtMs) / this.blockFrames, this.frameMs * 4);
        this.spacingMs += 0.2 * (spacing - this.spacingMs);
      }
      this.blockAtMs = nowMs;
    }
    this.queue.push(frame);
  }

  /** How long each frame is shown at present. */
  get intervalMs() {
    const late = this.spacingMs / this.frameMs;
    if (late <= STEADY || this.queue.length > 1.5 * this.blockFrames) return this.frameMs;
    return this.frameMs * Math.min(late, MAX_STRETCH);
  }

  /** The frame to show now, or null to leave the picture as it is. */
  next(nowMs) {
    if (!this.queue.length || !this.queue[0].ready || nowMs < this.dueMs - EARLY_MS) return null;
    const isBehind = nowMs - this.dueMs > LATE_MS;
    this.dueMs = (isBehind ? nowMs : this.dueMs) + this.intervalMs;
    return this.queue.shift();
  }

  /** After a pause: the time that passed does not count as a late block. */
  resume() {
    this.blockAtMs = null;
  }
}
