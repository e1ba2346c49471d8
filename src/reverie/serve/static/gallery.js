// Starts: those in scenes, the model's images, then one's own by button or by drag and drop.  Own ones survive a reload.

import { OwnPictures } from "./own.js";
import { remember, remembered } from "./remember.js";
import { TEXT } from "./strings.js";

const CHOSEN = "reverie.start";
const TILE = { width: 238, height: 136 };

const SESSION = /\.reverie$/i;

/**
 * Events: `choose` (detail: a start {id, name, thumbnail, keys, mouse, scene}), `problem` (detail: one line), `session`
 * (detail: the file of a saved session that was dropped on the page).
 */
export class Gallery extends EventTarget {
  #offered = [];
  #own = []; // {id, name, blob}, newest first
  #kept = new OwnPictures();
  #chosen = remembered(CHOSEN);

  /** upload: a function of a name and a Blob that hands an image to the source, and returns its answer. */
  constructor({ list, button, file, drop, upload }) {
    super();
    this.uploadTo = upload;
    this.list = list;
    this.button = button;
    this.file = file;
    this.drop = drop;
    this.accepts = false;
    /** Own pictures of earlier visits are there once this is settled. */
    this.ready = this.#kept.all().then((entries) => (this.#own = entries));
    button.addEventListener("click", () => file.click());
    file.addEventListener("change", () => {
      this.uploadAll(file.files);
      file.value = "";
    });
    list.addEventListener("wheel", (event) => (list.scrollLeft += event.deltaY), { passive: true });
    this.#listenToDrops();
  }

  /** Show what the server offers; own pictures come after it. */
  offer(welcome) {
    this.#offered = welcome.starts;
    this.accepts = welcome.uploads;
    this.button.hidden = !welcome.uploads;
    this.#draw();
  }

  get #starts() {
    return [...this.#offered, ...(this.accepts ? this.#own : [])];
  }

  find(id) {
    return this.#starts.find((start) => start.id === id) ?? null;
  }

  /** The picture to begin in: the one that was chosen last, else the first bundled one. */
  get first() {
    return this.find(this.#chosen) ?? this.#offered[0] ?? this.#starts[0] ?? null;
  }

  mark(id) {
    this.#chosen = id;
    if (id) remember(CHOSEN, id);
    for (const tile of this.list.querySelectorAll("[data-id]")) {
      tile.setAttribute("aria-pressed", String(tile.dataset.id === id));
      if (tile.dataset.id === id) tile.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
  }

  /**
   * The server does not know the chosen picture any more: bring an own one again, leave out one of the server's.
   * Returns the start to go on with, or null.
   */
  async revive() {
    const own = this.#own.find((entry) => entry.id === this.#chosen);
    const start = own && (await this.#send(own.name, own.blob));
    if (start) {
      const renamed = await this.#kept.rename(own, start.id);
      this.#own = this.#own.map((entry) => (entry === own ? renamed : entry));
      this.#chosen = start.id;
    } else {
      this.#offered = this.#offered.filter((one) => one.id !== this.#chosen);
      this.#chosen = null;
    }
    this.#draw();
    return this.first;
  }

  /** Takes in pictures; the world begins in the first of them. */
  async uploadAll(files) {
    for (const [i, file] of [...files].entries()) await this.upload(file, i === 0);
  }

  async upload(file, isChosen = true) {
    if (!this.accepts) return this.#problem(TEXT.noUploads);
    const name = file.name.replace(/\.[^.]*$/, "").slice(0, 40) || TEXT.yourPicture;
    const start = await this.#send(name, file);
    if (!start) return;
    this.#own.unshift(await this.#kept.add(start.id, start.name, file));
    this.#draw();
    if (isChosen) this.dispatchEvent(new CustomEvent("choose", { detail: start }));
  }

  /** Send a picture to the server; returns its start, or tells the problem and returns null. */
  async #send(name, blob) {
    this.button.classList.add("busy");
    try {
      const answer = await this.uploadTo(name, blob);
      if (answer.type === "uploaded") return answer.start;
      this.#problem(answer.message ?? TEXT.pictureRefused);
    } catch {
      this.#problem(TEXT.pictureLost);
    } finally {
      this.button.classList.remove("busy");
    }
    return null;
  }

  async #remove(id) {
    this.#own = this.#own.filter((entry) => entry.id !== id);
    await this.#kept.remove(id);
    this.#draw();
  }

  #problem(text) {
    this.dispatchEvent(new CustomEvent("problem", { detail: text }));
  }

  #draw() {
    for (const place of this.list.querySelectorAll(".place")) place.remove();
    this.list.append(...this.#starts.map((start) => this.#place(start)));
    this.mark(this.#chosen);
  }

  #place(start) {
    const place = document.createElement("div");
    place.className = "place";
    place.append(this.#tile(start));
    if (start.blob) place.append(this.#remover(start));
    return place;
  }

  #tile(start) {
    const tile = document.createElement("button");
    tile.type = "button";
    tile.className = "tile";
    tile.dataset.id = start.id;
    tile.title = start.name;
    tile.setAttribute("aria-label", TEXT.startIn(start.name));
    tile.append(start.blob ? painted(start.blob) : pictured(start.thumbnail));
    if (start.scene) tile.append(caption(start.scene));
    tile.addEventListener("click", () => this.dispatchEvent(new CustomEvent("choose", { detail: start })));
    return tile;
  }

  #remover(start) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "remove";
    button.textContent = "×";
    button.title = TEXT.forget(start.name);
    button.setAttribute("aria-label", button.title);
    button.addEventListener("click", () => this.#remove(start.id));
    return button;
  }

  #listenToDrops() {
    let depth = 0;
    const show = (isOver) => this.drop.classList.toggle("shown", isOver && this.accepts);
    addEventListener("dragenter", (event) => {
      event.preventDefault();
      show(++depth > 0 && event.dataTransfer.types.includes("Files"));
    });
    addEventListener("dragleave", () => show(--depth > 0));
    addEventListener("dragover", (event) => event.preventDefault());
    addEventListener("drop", (event) => {
      event.preventDefault();
      depth = 0;
      show(false);
      const { files } = event.dataTransfer;
      if (files.length && SESSION.test(files[0].name)) this.dispatchEvent(new CustomEvent("session", { detail: files[0] }));
      else this.uploadAll(files);
    });
  }
}

/** A thumbnail from the server; the tile says what it shows. */
function pictured(address) {
  const picture = document.createElement("img");
  picture.src = address;
  picture.alt = "";
  picture.draggable = false;
  return picture;
}

/** The title of a scene, on its tiles. */
function caption(text) {
  const line = document.createElement("span");
  line.className = "caption";
  line.textContent = text;
  return line;
}

/** A thumbnail of an own picture, without the server: cut to the tile's shape. */
function painted(blob) {
  const canvas = document.createElement("canvas");
  canvas.width = TILE.width;
  canvas.height = TILE.height;
  createImageBitmap(blob).then(
    (image) => {
      const scale = Math.max(TILE.width / image.width, TILE.height / image.height);
      const [width, height] = [image.width * scale, image.height * scale];
      const context = canvas.getContext("2d");
      context.imageSmoothingQuality = "high";
      context.drawImage(image, (TILE.width - width) / 2, (TILE.height - height) / 2, width, height);
      image.close();
    },
    () => {}, // the browser cannot show it, though the server can: an empty tile with its name
  );
  return canvas;
}
