// Own pictures, kept by the browser: they survive a reload, and a server that has forgotten them gets them again.

import { Store } from "./database.js";

const MAX_KEPT = 24; // the oldest go
const MAX_BYTES = 4e6; // larger files are kept smaller
const MAX_EDGE_PX = 2048;

/** Entries: {id, name, blob, addedMs}; `id` is the server's. */
export class OwnPictures {
  #store = new Store("pictures");

  /** All that is kept, newest first. */
  async all() {
    return (await this.#store.all()).sort((a, b) => b.addedMs - a.addedMs);
  }

  async add(id, name, file) {
    const entry = { id, name, blob: await shrunk(file), addedMs: Date.now() };
    await this.#store.put(entry);
    for (const old of (await this.all()).slice(MAX_KEPT)) await this.remove(old.id);
    return entry;
  }

  async remove(id) {
    await this.#store.remove(id);
  }

  /** The server calls it by another name now. */
  async rename(entry, id) {
    await this.remove(entry.id);
    const renamed = { ...entry, id };
    await this.#store.put(renamed);
    return renamed;
  }
}

/** The file itself, or, if it is large, a JPEG of it with at most MAX_EDGE_PX a side. */
async function shrunk(file) {
  if (file.size <= MAX_BYTES) return file;
  try {
    const image = await createImageBitmap(file);
    const scale = Math.min(1, MAX_EDGE_PX / Math.max(image.width, image.height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.round(image.width * scale);
    canvas.height = Math.round(image.height * scale);
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    image.close();
    return (await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92))) ?? file;
  } catch {
    return file;
  }
}
