// What lies around and over the picture: the veil with the state, the keys, the read-outs, one-line messages.

const TOAST_MS = 7000;
const LABELS = { Space: "space", ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Mouse0: "click", Mouse2: "right click", ShiftLeft: "shift" };
const ROWS = [
  ["KeyW"],
  ["KeyA", "KeyS", "KeyD"],
];
const OTHERS = ["ArrowLeft", "ArrowRight", "Space", "ShiftLeft", "KeyC", "KeyQ", "KeyE", "KeyT", "KeyF", "Mouse2"];

const byId = (id) => document.getElementById(id);

export class Hud {
  #toast = null;

  /** The state of the page: `connecting`, `waiting`, `warming`, `opening`, `playing`, `paused`, `lost`, `failed`. */
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
    byId("kind").textContent = welcome.kind === "dream" ? "dreamt live" : "the real game";
    document.body.dataset.kind = welcome.kind;
    document.body.classList.toggle("no-mouse", !welcome.mouse);
    const { keys, turns } = welcome.bindings;
    const known = (code) => code in keys || code in turns;
    const row = (codes) => {
      const line = document.createElement("div");
      line.append(...codes.filter(known).map((code) => this.#cap(code, keys[code] ?? "turn")));
      return line;
    };
    const walk = document.createElement("div");
    walk.append(...ROWS.map(row));
    byId("keys").replaceChildren(walk, row(OTHERS));
  }

  #cap(code, meaning) {
    const cap = document.createElement("kbd");
    cap.dataset.code = code;
    cap.title = meaning;
    cap.textContent = LABELS[code] ?? code.replace(/^Key/, "");
    return cap;
  }

  held(codes) {
    for (const cap of byId("keys").querySelectorAll("kbd")) {
      cap.classList.toggle("held", codes.includes(cap.dataset.code));
    }
  }

  meters(fps, latencyMs) {
    byId("fps").textContent = fps ? fps.toFixed(1) : "–";
    byId("latency").textContent = latencyMs === null ? "–" : String(Math.round(latencyMs));
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
