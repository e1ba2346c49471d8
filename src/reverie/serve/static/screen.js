// The picture: decodes frames, draws them, and lets their colours glow behind the page.

import { FLAG, FORMAT } from "./protocol.js";

const GLOW_EVERY_FRAMES = 6;
const GLOW = 0.42; // how much of the picture's light fills the room
const NIGHT = "11, 11, 18"; // the room, as in style.css

export class Screen {
  #drawn = 0;
  #older = document.createElement("canvas"); // the frame before, and the latest: what is blended
  #newer = document.createElement("canvas");
  #blended = 1; // the share of the latest in what is shown

  constructor(canvas, glow) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { alpha: false });
    this.glow = glow.getContext("2d", { alpha: false });
    this.glow.imageSmoothingQuality = "medium";
    this.vignette = vignette(this.glow);
  }

  resize(width, height) {
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    this.canvas.parentElement.style.setProperty("--aspect", `${width} / ${height}`);
    document.documentElement.style.setProperty("--ratio", String(width / height));
  }

  /** Decode a frame in the background; its `ready` turns true.  One that cannot be decoded is left out. */
  async decode(frame) {
    try {
      frame.image = await (frame.format === FORMAT.RGB
        ? fromRgb(frame)
        : createImageBitmap(new Blob([frame.payload], { type: "image/jpeg" })));
    } catch {
      frame.image = null;
    }
    frame.payload = null;
    frame.ready = true;
  }

  /** Show a frame; a smooth one is blended in by `blend`. */
  draw(frame, isSmooth = false) {
    if (!frame.image) return;
    const isCut = frame.width !== this.canvas.width || frame.height !== this.canvas.height || frame.flags & FLAG.FIRST;
    if (isCut) this.resize(frame.width, frame.height);
    this.#blended = 1;
    if (isSmooth) this.#push(frame.image, isCut);
    if (!isSmooth || isCut) this.context.drawImage(frame.image, 0, 0, this.canvas.width, this.canvas.height);
    frame.image.close();
    if (this.#drawn++ % GLOW_EVERY_FRAMES === 0) this.#shine();
  }

  #push(image, isCut) {
    [this.#older, this.#newer] = [this.#newer, this.#older];
    const { width, height } = this.canvas;
    for (const canvas of isCut ? [this.#older, this.#newer] : [this.#newer]) {
      if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
      canvas.getContext("2d", { alpha: false }).drawImage(image, 0, 0, width, height);
    }
    if (!isCut) this.#blended = 0;
  }

  /** Show the frame before and the latest, so much of this (0 to 1): what the screen shows between two frames. */
  blend(share) {
    if (this.#blended >= 1) return;
    this.#blended = Math.min(share, 1);
    this.context.drawImage(this.#older, 0, 0);
    this.context.globalAlpha = this.#blended;
    this.context.drawImage(this.#newer, 0, 0);
    this.context.globalAlpha = 1;
  }

  /** A handful of pixels, so that it costs nothing; the browser's own stretching makes them soft. */
  #shine() {
    const { width, height } = this.glow.canvas;
    this.glow.drawImage(this.canvas, 0, 0, width, height);
    this.glow.save();
    this.glow.scale(width, height);
    this.glow.fillStyle = this.vignette;
    this.glow.fillRect(0, 0, 1, 1);
    this.glow.restore();
  }
}

/** Darkness from the middle of the unit square outwards. */
function vignette(context) {
  const fade = context.createRadialGradient(0.5, 0.5, 0.1, 0.5, 0.5, 0.62);
  fade.addColorStop(0, `rgba(${NIGHT}, ${1 - GLOW})`);
  fade.addColorStop(0.5, `rgba(${NIGHT}, ${1 - GLOW * 0.75})`);
  fade.addColorStop(1, `rgba(${NIGHT}, 1)`);
  return fade;
}

function fromRgb({ payload, width, height }) {
  const rgba = new Uint8ClampedArray(width * height * 4).fill(255);
  for (let from = 0, to = 0; from < payload.length; from += 3, to += 4) {
    rgba[to] = payload[from];
    rgba[to + 1] = payload[from + 1];
    rgba[to + 2] = payload[from + 2];
  }
  return createImageBitmap(new ImageData(rgba, width, height));
}
