// A real game and the dream of it: swaps them, shows both side by side with their difference, and how far the dream is
// on the way to a collapse.

import { TEXT } from "./strings.js";

const TRAIL = 120; // blocks whose PSNR the line shows
const DB = [8, 38]; // its lowest and highest

const byId = (id) => document.getElementById(id);

/** Events: `ask` (detail: the view that the player wants). */
export class Views extends EventTarget {
  #offered = [];
  #single = "game"; // what was shown before both
  #trail = [];
  #collapsed = null;

  constructor() {
    super();
    this.view = "game";
    this.difference = byId("difference").getContext("2d", { alpha: false });
    byId("swap").addEventListener("click", () => this.swap());
    byId("split").addEventListener("click", () => this.split());
  }

  /** What the server's welcome says of the world. */
  offer({ views = [] }) {
    this.#offered = views;
    byId("swap").hidden = byId("split").hidden = !this.isOffered;
    document.body.classList.toggle("swaps", this.isOffered);
  }

  get isOffered() {
    return this.#offered.length > 0;
  }

  /** Whether the world that is shown can go back: a real game cannot. */
  get canGoBack() {
    return !this.isOffered || this.view === "dream";
  }

  /** Shows the dream of what is on the screen, or the game where the dream is. */
  swap() {
    this.#ask(this.view === "game" ? "dream" : "game");
  }

  /** Both under the same actions, or one again. */
  split() {
    this.#ask(this.view === "both" ? this.#single : "both");
  }

  #ask(view) {
    if (this.isOffered) this.dispatchEvent(new CustomEvent("ask", { detail: view }));
  }

  /** The server shows this view from now on. */
  begin(view) {
    if (view !== "both") this.#single = view;
    if (this.view === "game" && view !== "game") {
      this.#trail = [];
      this.#draw();
      byId("psnr").textContent = "–";
      byId("judged").textContent = "";
      byId("drift").replaceChildren(...Object.keys(TEXT.collapses).map((kind) => bar(kind, null)));
    }
    this.view = view;
    this.#collapsed = null;
    if (!this.isOffered) return;
    document.body.dataset.view = view;
    byId("kind").textContent = TEXT.views[view];
    byId("compare").hidden = view !== "both";
    this.#mark("swap", view === "dream", view === "game" ? TEXT.toDream : TEXT.toGame);
    this.#mark("split", view === "both", view === "both" ? TEXT.one : TEXT.both);
  }

  #mark(id, isPressed, text) {
    const button = byId(id);
    button.setAttribute("aria-pressed", String(isPressed));
    button.setAttribute("aria-label", text);
    button.querySelector("span").textContent = text;
  }

  /** A frame has come on the screen: the canvas shows the game, and the dream right of it. */
  shown(canvas) {
    if (this.view !== "both") return;
    const [width, height] = [canvas.width / 2, canvas.height];
    const { difference } = this;
    if (difference.canvas.width !== width) Object.assign(difference.canvas, { width, height });
    difference.globalCompositeOperation = "copy";
    difference.drawImage(canvas, 0, 0, width, height, 0, 0, width, height);
    difference.globalCompositeOperation = "difference";
    difference.drawImage(canvas, width, 0, width, height, 0, 0, width, height);
  }

  /** The server's figures.  Returns a line for the player when the dream has come to something, else null. */
  drift(figures) {
    const { psnr_db: psnr, seconds, shares, collapsed, collapsed_s: at, real_s: real, real_needed_s: needed } = figures;
    if (psnr !== null) {
      this.#trail.push(psnr);
      if (this.#trail.length > TRAIL) this.#trail.shift();
      byId("psnr").textContent = psnr.toFixed(1);
      this.#draw();
    }
    byId("drift").replaceChildren(...Object.entries(shares).map(([kind, share]) => bar(kind, share)));
    byId("judged").textContent = real < needed ? TEXT.judging(seconds, real, needed) : TEXT.judged(seconds, real);
    const isNew = collapsed !== null && collapsed !== this.#collapsed;
    this.#collapsed = collapsed;
    return isNew ? TEXT.collapsed(TEXT.collapses[collapsed], at) : null;
  }

  #draw() {
    const context = byId("trail").getContext("2d");
    const { width, height } = context.canvas;
    const place = (value) => height - 2 - ((value - DB[0]) / (DB[1] - DB[0])) * (height - 4);
    context.clearRect(0, 0, width, height);
    context.beginPath();
    this.#trail.forEach((value, i) => context.lineTo((i * width) / (TRAIL - 1), place(Math.min(Math.max(value, DB[0]), DB[1]))));
    context.lineWidth = 2;
    context.strokeStyle = getComputedStyle(context.canvas).color;
    context.stroke();
  }
}

/** One kind of collapse: how near the dream is to it. */
function bar(kind, share) {
  const row = document.createElement("li");
  const name = document.createElement("span");
  name.textContent = TEXT.collapses[kind];
  const gauge = document.createElement("i");
  const percent = share === null ? null : Math.max(0, Math.round(share * 100));
  gauge.setAttribute("role", "meter");
  gauge.setAttribute("aria-label", TEXT.collapses[kind]);
  gauge.setAttribute("aria-valuemin", "0");
  gauge.setAttribute("aria-valuemax", "150");
  gauge.setAttribute("aria-valuenow", String(Math.min(percent ?? 0, 150)));
  gauge.setAttribute("aria-valuetext", percent === null ? TEXT.unknown : `${percent} %`);
  gauge.style.setProperty("--share", String(Math.min(percent ?? 0, 150) / 150));
  gauge.classList.toggle("beyond", percent > 100);
  const value = document.createElement("b");
  value.textContent = percent === null ? "–" : `${percent} %`;
  row.append(name, gauge, value);
  return row;
}
