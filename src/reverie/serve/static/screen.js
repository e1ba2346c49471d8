// The picture: decodes frames, draws them, and lets their colours glow behind the page.

import { FORMAT } from "./protocol.js";

const GLOW_EVERY_FRAMES = 5;

export class Screen {
  #drawn = 0;

  constructor(canvas, glow) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { alpha: false });
    this.glow = glow.getContext("2d", { alpha: false });
  }

  resize(width, height) {
    this.canvas.width = width;
    this.canvas.height = height;
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

  draw(frame) {
    if (!frame.image) return;
    this.context.drawImage(frame.image, 0, 0, this.canvas.width, this.canvas.height);
    frame.image.close();
    if (this.#drawn++ % GLOW_EVERY_FRAMES === 0) {
      this.glow.drawImage(this.canvas, 0, 0, this.glow.canvas.width, this.glow.canvas.height);
    }
  }
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
