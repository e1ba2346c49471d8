// Start pictures: the bundled ones, and one's own by button or by drag and drop.

/** Events: `choose` (detail: a start {id, name, thumbnail}), `problem` (detail: one line). */
export class Gallery extends EventTarget {
  #starts = [];
  #chosen = null;

  constructor({ list, button, file, drop }) {
    super();
    this.list = list;
    this.button = button;
    this.file = file;
    this.drop = drop;
    button.addEventListener("click", () => file.click());
    file.addEventListener("change", () => {
      if (file.files.length) this.upload(file.files[0]);
      file.value = "";
    });
    list.addEventListener("wheel", (event) => (list.scrollLeft += event.deltaY), { passive: true });
    this.#listenToDrops();
  }

  /** Show what the server offers; own pictures of this visit stay in front. */
  offer(welcome) {
    const own = this.#starts.filter((start) => start.id.startsWith("own-"));
    this.#starts = [...(welcome.uploads ? own : []), ...welcome.starts];
    this.accepts = welcome.uploads;
    this.button.hidden = !welcome.uploads;
    this.#draw();
  }

  get first() {
    return this.#starts.find((start) => start.id === this.#chosen) ?? this.#starts[0] ?? null;
  }

  mark(id) {
    this.#chosen = id;
    for (const tile of this.list.querySelectorAll("[data-id]")) {
      tile.setAttribute("aria-pressed", String(tile.dataset.id === id));
      if (tile.dataset.id === id) tile.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
  }

  forget(id) {
    this.#starts = this.#starts.filter((start) => start.id !== id);
    if (this.#chosen === id) this.#chosen = null;
    this.#draw();
  }

  async upload(file) {
    if (!this.accepts) return this.#problem("this world starts where it wants; pictures cannot be uploaded to it");
    this.button.classList.add("busy");
    try {
      const name = encodeURIComponent(file.name.replace(/\.[^.]*$/, "").slice(0, 40) || "your picture");
      const response = await fetch(`upload?name=${name}`, { method: "POST", body: file });
      const answer = await response.json();
      if (answer.type !== "uploaded") return this.#problem(answer.message ?? "the picture was refused");
      this.#starts.unshift(answer.start);
      this.#draw();
      this.dispatchEvent(new CustomEvent("choose", { detail: answer.start }));
    } catch {
      this.#problem("the picture did not reach the server; is it still running?");
    } finally {
      this.button.classList.remove("busy");
    }
  }

  #problem(text) {
    this.dispatchEvent(new CustomEvent("problem", { detail: text }));
  }

  #draw() {
    for (const tile of this.list.querySelectorAll("[data-id]")) tile.remove();
    this.list.append(...this.#starts.map((start) => this.#tile(start)));
    this.mark(this.#chosen);
  }

  #tile(start) {
    const tile = document.createElement("button");
    tile.className = "tile";
    tile.dataset.id = start.id;
    tile.title = start.name;
    const picture = document.createElement("img");
    picture.src = start.thumbnail;
    picture.alt = start.name;
    picture.draggable = false;
    tile.append(picture);
    tile.addEventListener("click", () => {
      tile.blur(); // else the space bar would press it again
      this.dispatchEvent(new CustomEvent("choose", { detail: start }));
    });
    return tile;
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
      if (event.dataTransfer.files.length) this.upload(event.dataTransfer.files[0]);
    });
  }
}
