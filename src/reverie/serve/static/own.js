// Own pictures, kept by the browser: they survive a reload, and a server that has forgotten them gets them again.
// Where nothing can be kept (private windows, a full disk) they last for the visit.

const DATABASE = "reverie";
const STORE = "pictures";
const MAX_KEPT = 24; // the oldest go
const MAX_BYTES = 4e6; // larger files are kept smaller
const MAX_EDGE_PX = 2048;
const OPEN_MS = 1500;

/** Entries: {id, name, blob, addedMs}; `id` is the server's. */
export class OwnPictures {
  #database = null;

  /** All that is kept, newest first. */
  async all() {
    try {
      this.#database ??= await open();
      const entries = await done(this.#store("readonly").getAll());
      return entries.sort((a, b) => b.addedMs - a.addedMs);
    } catch {
      return [];
    }
  }

  async add(id, name, file) {
    const blob = await shrunk(file);
    const entry = { id, name, blob, addedMs: Date.now() };
    await this.#try((store) => store.put(entry));
    for (const old of (await this.all()).slice(MAX_KEPT)) await this.remove(old.id);
    return entry;
  }

  async remove(id) {
    await this.#try((store) => store.delete(id));
  }

  /** The server calls it by another name now. */
  async rename(entry, id) {
    await this.remove(entry.id);
    const renamed = { ...entry, id };
    await this.#try((store) => store.put(renamed));
    return renamed;
  }

  async #try(work) {
    try {
      if (this.#database) await done(work(this.#store("readwrite")));
    } catch {
      // it lasts for the visit
    }
  }

  #store(mode) {
    return this.#database.transaction(STORE, mode).objectStore(STORE);
  }
}

const done = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

function open() {
  const request = indexedDB.open(DATABASE, 1);
  request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id" });
  const late = new Promise((_, reject) => setTimeout(() => reject(new Error("no answer")), OPEN_MS));
  return Promise.race([done(request), late]);
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
