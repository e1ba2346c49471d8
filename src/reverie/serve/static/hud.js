// What lies around and over the picture: the veil with the state, the keys, the read-outs, one-line messages.

import { label, words } from "./controls.js";
import { TEXT } from "./strings.js";

const TOAST_MS = 7000;
const CLUSTER = [["KeyW"], ["KeyA", "KeyS", "KeyD"]];
const TURNS = ["ArrowLeft", "ArrowRight"];

const byId = (id) => document.getElementById(id);

export class Hud {
  #toast = null;

  /** The state of the page: `connecting`, `waiting`, `warming`, `empty`, `opening`, `playing`, `paused`, `lost`, `failed`. */
  state(name, { title = "", text = "", progress = null } = {}) {
    document.body.dataset.state = name;
    byId("veil-title").textContent = title;
    byId("veil-text").textContent = text;
    const bar = byId("progress");
    bar.hidden = progress === null;
    if (progress !== null) {
      bar.style.setProperty("--done", String(progress));
      bar.setAttribute("aria-valuenow", String(Math.round(progress * 100)));
    }
  }

  get current() {
    return document.body.dataset.state;
  }

  welcome(welcome) {
    byId("model").textContent = welcome.model;
    byId("kind").textContent = TEXT.kinds[welcome.kind];
    document.body.dataset.kind = welcome.kind;
  }

  /** Show the keys of the world at hand, as `controlsOf` has them; `name`: of the picture that it began in. */
  controls(controls, name) {
    document.body.classList.toggle("no-mouse", !controls.looks);
    const moves = controls.entries.filter((entry) => entry.isMove);
    const cluster = document.createElement("div");
    for (const codes of CLUSTER) cluster.append(row(codes.map((code) => clusterCap(code, moves, controls.turns))));
    const inCluster = new Set(CLUSTER.flat());
    const others = controls.entries
      .filter((entry) => !entry.isMove || !entry.codes.some((code) => inCluster.has(code)))
      .map(({ meaning, codes }) => cap(codes, words(meaning), !codes[0].startsWith("Arrow")));
    const turns = TURNS.filter((code) => code in controls.turns).map((code) => cap([code], controls.turns[code]));
    byId("keys").replaceChildren(cluster, row(turns), row(others));
    const world = `${byId("model").textContent}, ${byId("kind").textContent}`;
    byId("screen").setAttribute("aria-label", name ? `${name}: ${world}` : world);
  }

  held(codes) {
    for (const one of byId("keys").querySelectorAll("kbd")) {
      one.classList.toggle("held", one.dataset.codes.split(" ").some((code) => codes.includes(code)));
    }
  }

  /** parts: what the latency is made of, in words. */
  meters(fps, latencyMs, p95Ms, parts) {
    const whole = (ms) => (ms === null ? "–" : String(Math.round(ms)));
    byId("fps").textContent = fps ? fps.toFixed(1) : "–";
    byId("latency").textContent = whole(latencyMs);
    byId("latency-p95").textContent = whole(p95Ms);
    byId("latency-parts").textContent = parts;
    byId("latency").parentElement.title = parts || TEXT.latency;
  }

  /** One line that goes away by itself. */
  say(text, isProblem = false) {
    const toast = byId("message");
    toast.textContent = text;
    toast.classList.toggle("problem", isProblem);
    toast.classList.add("shown");
    clearTimeout(this.#toast);
    this.#toast = setTimeout(() => toast.classList.remove("shown"), TOAST_MS);
  }

  unsay() {
    byId("message").classList.remove("shown");
  }
}

function row(caps) {
  const line = document.createElement("div");
  line.append(...caps.filter(Boolean));
  return line;
}

/** A key of the cluster: of the move that it makes, or the turn; null if neither. */
function clusterCap(code, moves, turns) {
  const move = moves.find((entry) => entry.codes.includes(code));
  if (move) return cap([code, ...move.codes.filter((other) => other !== code)], words(move.meaning));
  return code in turns ? cap([code], turns[code]) : null;
}

/** A key cap: lit while one of `codes` is held, named for screen readers, with its meaning beside it if `isTold`. */
function cap(codes, meaning, isTold = false) {
  const element = document.createElement("kbd");
  element.dataset.code = codes[0];
  element.dataset.codes = codes.join(" ");
  element.title = meaning;
  element.setAttribute("role", "listitem");
  element.setAttribute("aria-label", `${label(codes[0])}: ${meaning}`);
  element.textContent = label(codes[0]);
  if (isTold) {
    const told = document.createElement("small");
    told.textContent = meaning;
    element.append(told);
  }
  return element;
}
