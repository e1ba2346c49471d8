// What the browser keeps from visit to visit, in IndexedDB: own pictures and saved sessions, a store for each.
// Where nothing can be kept (private windows, a full disk) entries last for the visit.

const DATABASE = "reverie";
const VERSION = 2;
const STORES = ["pictures", "sessions"];
const OPEN_MS = 1500;

let opening = null;

/** Entries of one kind, by their `id`. */
export class Store {
  constructor(name) {
    this.name = name;
  }

  /** All entries; none where the browser keeps nothing. */
  async all() {
    try {
      return await done((await this.#store("readonly")).getAll());
    } catch {
      return [];
    }
  }

  /** Whether the entry is kept now. */
  async put(entry) {
    return this.#try((store) => store.put(entry));
  }

  async remove(id) {
    return this.#try((store) => store.delete(id));
  }

  async #try(work) {
    try {
      await done(work(await this.#store("readwrite")));
      return true;
    } catch {
      return false;
    }
  }

  async #store(mode) {
    opening ??= open();
    return (await opening).transaction(this.name, mode).objectStore(this.name);
  }
}

const done = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
    if (request.transaction) request.transaction.onabort = () => reject(request.transaction.error); // a full disk
  });

function open() {
  const request = indexedDB.open(DATABASE, VERSION);
  request.onupgradeneeded = () => {
    for (const name of STORES) {
      if (!request.result.objectStoreNames.contains(name)) request.result.createObjectStore(name, { keyPath: "id" });
    }
  };
  const late = new Promise((_, reject) => setTimeout(() => reject(new Error("no answer")), OPEN_MS));
  const opened = Promise.race([done(request), late]);
  opened.then((database) => (database.onversionchange = () => database.close()), () => {});
  return opened;
}
