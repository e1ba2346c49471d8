// Settings: the mouse, the keys by their place on the keyboard (`event.code`), the frame rate, the passes and the seed of
// new worlds.  They stay in this browser.

import { label, setKeyNames, words } from "./controls.js";
import { remember, remembered } from "./remember.js";
import { TEXT } from "./strings.js";

const KEPT = "reverie.settings";
const MAX_SEED = 2 ** 31 - 1;
const RATES = [12, 25];
const DEFAULTS = { sensitivity: 1, invert: false, smooth: false, rate: null, passes: null, seed: null, keys: {} };

/** What was kept, without what it cannot be. */
function kept() {
  let found = {};
  try {
    found = JSON.parse(remembered(KEPT, "localStorage") ?? "{}") ?? {};
  } catch {
    // another version's, or somebody's own
  }
  const { sensitivity, invert, smooth, rate, passes, seed, keys } = { ...DEFAULTS, ...found };
  const isCode = ([from, to]) => typeof from === "string" && typeof to === "string";
  return {
    sensitivity: sensitivity >= 0.1 && sensitivity <= 5 ? sensitivity : DEFAULTS.sensitivity,
    invert: invert === true,
    smooth: smooth === true,
    rate: RATES.includes(rate) ? rate : null,
    passes: Number.isInteger(passes) && passes > 0 ? passes : null,
    seed: Number.isInteger(seed) && seed >= 0 && seed <= MAX_SEED ? seed : null,
    keys: Object.fromEntries(Object.entries(keys ?? {}).filter(isCode)),
  };
}

/**
 * Events: `change` whenever a setting is another one; `open`, `close`.
 *
 * keys: {a code of the world: the code that is pressed for it}.
 */
export class Settings extends EventTarget {
  #values = kept();
  #controls = null;
  #passes = []; // the numbers that the world at hand knows
  #waiting = null; // the button that waits for a key

  constructor(dialog, button) {
    super();
    this.dialog = dialog;
    const find = (id) => dialog.querySelector(`#${id}`);
    for (const name of ["sensitivity", "invert", "smooth", "seed"]) this[name === "sensitivity" ? "speed" : name] = find(name);
    this.rate = find("rate");
    this.passes = find("passes");
    this.rows = find("key-rows");
    button.addEventListener("click", () => this.open());
    dialog.addEventListener("close", () => {
      this.#waitFor(null);
      this.dispatchEvent(new Event("close"));
    });
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close()); // beside it
    find("settings-close").addEventListener("click", () => dialog.close());
    this.speed.addEventListener("input", () => this.#set({ sensitivity: Number(this.speed.value) }));
    this.invert.addEventListener("change", () => this.#set({ invert: this.invert.checked }));
    this.smooth.addEventListener("change", () => this.#set({ smooth: this.smooth.checked }));
    this.rate.addEventListener("change", () => this.#set({ rate: Number(this.rate.value) || null }));
    this.passes.addEventListener("change", () => this.#set({ passes: Number(this.passes.value) || null }));
    this.seed.addEventListener("change", () => {
      const seed = this.seed.value === "" ? null : Math.min(Math.max(Math.round(Number(this.seed.value)), 0), MAX_SEED);
      this.#set({ seed: Number.isFinite(seed) ? seed : null });
    });
    find("settings-reset").addEventListener("click", () => this.#set(DEFAULTS));
    dialog.addEventListener("keydown", (event) => this.#key(event), true);
    this.#apply();
    navigator.keyboard?.getLayoutMap?.().then((layout) => {
      this.layout = layout; // a key is called what is printed on it here
      this.#apply();
    }, () => {});
  }

  get isOpen() {
    return this.dialog.open;
  }

  get sensitivity() {
    return this.#values.sensitivity;
  }

  get isInverted() {
    return this.#values.invert;
  }

  /** Whether frames are blended at the screen's own rate. */
  get isSmooth() {
    return this.#values.smooth;
  }

  /** Frames a second at most; null for as many as the world has and the screen shows. */
  get maxFps() {
    return this.#values.rate;
  }

  /** Denoising passes of new worlds; null for the model's own number. */
  get nextPasses() {
    return this.#passes.includes(this.#values.passes) ? this.#values.passes : null;
  }

  /** The seed of new worlds. */
  get nextSeed() {
    return this.#values.seed ?? Math.floor(Math.random() * MAX_SEED);
  }

  /** The code that the world knows for a key that is pressed; "" for one that has been given away. */
  codeOf(pressed) {
    for (const [code, key] of Object.entries(this.#values.keys)) if (key === pressed) return code;
    return pressed in this.#values.keys ? "" : pressed;
  }

  open() {
    if (this.isOpen) return;
    this.dispatchEvent(new Event("open"));
    this.dialog.showModal();
  }

  /** What the source lets one choose, by its welcome. */
  offer({ kind, passes = [], own_passes: own }) {
    this.#passes = passes;
    const others = passes.filter((count) => count !== own);
    const text = kind === "game" && !passes.length ? TEXT.noPasses : TEXT.onlyPasses(own || 1);
    this.passes.disabled = !others.length;
    this.passes.replaceChildren(
      new Option(others.length ? TEXT.ownPasses(own) : text, ""),
      ...others.map((count) => new Option(String(count))),
    );
    this.#apply();
  }

  /** The controls of the world at hand. */
  show(controls) {
    this.#controls = controls;
    this.#draw();
  }

  #set(changes) {
    this.#values = { ...this.#values, ...changes };
    remember(KEPT, JSON.stringify(this.#values), "localStorage");
    this.#apply();
    this.dispatchEvent(new Event("change"));
  }

  #apply() {
    this.speed.value = String(this.#values.sensitivity);
    this.invert.checked = this.#values.invert;
    this.smooth.checked = this.#values.smooth;
    this.rate.value = String(this.#values.rate ?? "");
    this.passes.value = String(this.nextPasses ?? "");
    this.seed.value = this.#values.seed === null ? "" : String(this.#values.seed);
    setKeyNames(this.#values.keys, this.layout);
    this.#draw();
  }

  #draw() {
    if (!this.#controls) return;
    const { entries, turns } = this.#controls;
    const keys = entries.map(({ meaning, codes }) => [words(meaning), codes[0]]);
    const looks = Object.entries(turns).map(([code, does]) => [does, code]);
    const rows = [...keys, ...looks].filter(([, code]) => !code.startsWith("Mouse"));
    this.rows.replaceChildren(...rows.map(([does, code]) => this.#row(does, code)));
  }

  #row(does, code) {
    const row = document.createElement("div");
    row.className = "row";
    const name = document.createElement("span");
    name.textContent = does;
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.code = code;
    button.textContent = label(code);
    button.setAttribute("aria-label", `${does}: ${label(code)}`);
    button.addEventListener("click", () => this.#waitFor(button));
    row.append(name, button);
    return row;
  }

  #waitFor(button) {
    this.#waiting = button;
    this.#draw();
    if (!button) return;
    this.#waiting = this.rows.querySelector(`[data-code="${button.dataset.code}"]`);
    this.#waiting.textContent = TEXT.pressKey;
    this.#waiting.focus();
  }

  #key(event) {
    if (!this.#waiting) return;
    event.preventDefault();
    event.stopPropagation();
    if (event.code === "Escape") return this.#waitFor(null);
    const { code } = this.#waiting.dataset;
    const keys = { ...this.#values.keys };
    const before = keys[code] ?? code;
    for (const [other, key] of Object.entries(keys)) if (key === event.code && other !== code) keys[other] = before;
    if (this.#knows(event.code) && !(event.code in keys) && event.code !== code) keys[event.code] = before; // they swap
    keys[code] = event.code;
    for (const [one, key] of Object.entries(keys)) if (one === key) delete keys[one];
    this.#waiting = null;
    this.#set({ keys });
    this.rows.querySelector(`[data-code="${code}"]`)?.focus();
  }

  #knows(code) {
    return Boolean(this.rows.querySelector(`[data-code="${CSS.escape(code)}"]`));
  }
}
