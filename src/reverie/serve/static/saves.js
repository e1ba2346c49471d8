// Saved sessions: on the server, and in this browser, so that a server that has lost one gets it again.

import { Store } from "./database.js";
import { TEXT, clock } from "./strings.js";

const MAX_NAME = 80;

/**
 * Events: `save` (detail: a name), `load` (detail: an id), `problem` and `notice` (detail: one line), `open`, `close`.
 *
 * Entries: {id, title, created_ms, seconds, model}, of this browser with `file` and `thumbnail`, both blobs.
 */
export class Saves extends EventTarget {
  #store = new Store("sessions");
  #entries = [];
  #unkept = []; // saved in this visit, and no room for them in this browser
  model = null; // that files are opened with; null for the server's own choice

  constructor(dialog, button) {
    super();
    this.dialog = dialog;
    this.list = dialog.querySelector("#saves-list");
    this.name = dialog.querySelector("#save-name");
    const file = dialog.querySelector("#save-file");
    button.addEventListener("click", () => this.open());
    dialog.addEventListener("close", () => this.dispatchEvent(new Event("close")));
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close()); // beside it
    dialog.querySelector("#saves-close").addEventListener("click", () => dialog.close());
    dialog.querySelector("#save-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.save(this.name.value);
    });
    dialog.querySelector("#save-import").addEventListener("click", () => file.click());
    file.addEventListener("change", () => {
      if (file.files.length) this.bring(file.files[0]);
      file.value = "";
    });
  }

  get isOpen() {
    return this.dialog.open;
  }

  async open() {
    if (this.isOpen) return;
    this.dispatchEvent(new Event("open"));
    this.dialog.showModal();
    await this.#refresh();
  }

  /** Ask for the session to be saved; an empty name becomes one with the time. */
  save(name = "") {
    const when = new Date().toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    this.dispatchEvent(new CustomEvent("save", { detail: (name.trim() || TEXT.unnamed(when)).slice(0, MAX_NAME) }));
  }

  /** The server has saved a session: keep it here as well. */
  async keep(card) {
    this.name.value = "";
    const [file, thumbnail] = await Promise.all([blobOf(`saves/${card.id}.reverie`), blobOf(`saves/${card.id}.jpg`)]);
    if (!file || !(await this.#store.put({ ...entryOf(card), file, thumbnail }))) {
      this.#unkept.push(entryOf(card));
      this.#tell("notice", TEXT.savedHereOnly);
    }
    if (this.isOpen) await this.#refresh();
  }

  /** Send a session's file to the server, and play it. */
  async bring(file) {
    const card = await this.#send(file);
    if (!card) return;
    await this.keep(card);
    this.#load(card.id);
  }

  /** The server does not know a session that it was asked to load: send the one that is kept here. */
  async revive(id) {
    const kept = (await this.#store.all()).find((entry) => entry.id === id);
    if (!kept?.file) return this.#tell("problem", TEXT.gone);
    const card = await this.#send(kept.file);
    if (!card) return;
    await this.#store.remove(id);
    await this.#store.put({ ...kept, id: card.id });
    this.#load(card.id);
  }

  async #send(file) {
    try {
      const asked = this.model ? `?${new URLSearchParams({ model: this.model })}` : "";
      const response = await fetch(`saves${asked}`, { method: "POST", body: file });
      const answer = await response.json();
      if (answer.type === "saved") return answer;
      this.#tell("problem", answer.message ?? TEXT.notASession);
    } catch {
      this.#tell("problem", TEXT.noServer);
    }
    return null;
  }

  async #refresh() {
    const here = await this.#store.all();
    const listed = await fetch("saves", { cache: "no-store" }).then((answer) => answer.json(), () => []);
    const entries = [...here, ...this.#unkept, ...(Array.isArray(listed) ? listed : [])];
    const first = new Map(entries.toReversed().map((entry) => [entry.id, entry]));
    this.#entries = [...first.values()].sort((a, b) => b.created_ms - a.created_ms);
    for (const picture of this.list.querySelectorAll("img")) URL.revokeObjectURL(picture.src);
    this.list.replaceChildren(...this.#entries.map((entry) => this.#row(entry)));
    if (!this.#entries.length) this.list.append(text("p", TEXT.noSaves));
  }

  #row(entry) {
    const row = document.createElement("li");
    row.dataset.id = entry.id;
    const picture = document.createElement("img");
    picture.src = entry.thumbnail ? URL.createObjectURL(entry.thumbnail) : `saves/${entry.id}.jpg`;
    picture.alt = "";
    const about = document.createElement("div");
    const when = new Date(entry.created_ms).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
    const model = entry.model.split("/")[0];
    about.append(text("b", entry.title), text("span", `${when}, ${clock(entry.seconds)}, ${model}`));
    const load = action(TEXT.load, entry, () => this.#load(entry.id));
    const remove = action(TEXT.remove, entry, () => {
      if (remove.textContent === TEXT.remove) remove.textContent = TEXT.removeSure;
      else this.#remove(entry.id);
    });
    row.append(picture, about, load, action(TEXT.export, entry, () => this.#export(entry)), remove);
    return row;
  }

  #load(id) {
    this.dispatchEvent(new CustomEvent("load", { detail: id }));
    this.dialog.close();
  }

  #export({ id, title, file }) {
    const link = document.createElement("a");
    link.href = file ? URL.createObjectURL(file) : `saves/${id}.reverie?name=${encodeURIComponent(title)}`;
    link.download = `${title.replace(/[^\p{L}\p{N} _-]/gu, "") || "session"}.reverie`;
    link.click();
    if (file) setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  }

  async #remove(id) {
    this.#unkept = this.#unkept.filter((entry) => entry.id !== id);
    await this.#store.remove(id);
    await fetch(`saves/${id}`, { method: "DELETE" }).catch(() => {});
    await this.#refresh();
  }

  #tell(type, line) {
    this.dispatchEvent(new CustomEvent(type, { detail: line }));
  }
}

const entryOf = ({ id, title, created_ms, seconds, model }) => ({ id, title, created_ms, seconds, model });

/** What an address gives, as a blob; null where it gives nothing. */
const blobOf = (address) => fetch(address).then((answer) => (answer.ok ? answer.blob() : null), () => null);

function text(tag, content) {
  const element = document.createElement(tag);
  element.textContent = content;
  return element;
}

function action(words, { title }, act) {
  const button = text("button", words);
  button.type = "button";
  button.setAttribute("aria-label", `${words}: ${title}`);
  button.addEventListener("click", act);
  return button;
}
