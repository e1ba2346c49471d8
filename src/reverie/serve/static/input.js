// Keyboard, mouse, touch and gamepad -> the codes held and the pixels moved.  What they mean is the server's business.

import { NOTHING, PAD_PAUSE, codesOfPad } from "./controls.js";
import { TouchPads } from "./touch.js";

const MOUSE_EVERY_MS = 8; // mice report up to 8000 times a second; more than 125 messages help nobody
const STICK_DEAD = 0.25;
const STICK_PX_PER_S = 900;
const PRESSES = new Set(["Space", "Enter", "NumpadEnter"]); // what presses the button that has the focus

/**
 * Events: `input` (detail: {seq, codes, mouse}); `held` whenever the set of held codes has changed; `lock` when the mouse
 * is lent or given back; `pause` when the gamepad's start button is pressed.
 */
export class Input extends EventTarget {
  #keyboard = new Set();
  #extra = new Map(); // held by touch and gamepad, by name
  #mouse = [0, 0];
  #mouseTimer = null;
  #mouseSentMs = 0;
  #seq = 0;
  #padAtMs = null;
  #padPauses = false;

  bound = new Set();
  hasMouse = false;
  isEnabled = false;
  controls = NOTHING;
  codeOf = (pressed) => pressed; // a key that is pressed -> the code that the world knows for it
  sensitivity = 1;
  isInverted = false;
  drags = false; // the browser does not lend the mouse out: looking around is by dragging

  constructor(stage) {
    super();
    this.stage = stage;
    addEventListener("keydown", (event) => this.#key(event, true));
    addEventListener("keyup", (event) => this.#key(event, false));
    addEventListener("blur", () => this.release());
    addEventListener("gamepaddisconnected", () => this.poll(performance.now()));
    document.addEventListener("pointerlockchange", () => this.#lockChanged());
    document.addEventListener("pointerlockerror", () => {
      this.drags = true;
      this.dispatchEvent(new Event("lock"));
    });
    stage.addEventListener("mousemove", (event) => this.#moved(event));
    stage.addEventListener("mousedown", (event) => this.isLocked && this.#button(event, true));
    addEventListener("mouseup", (event) => this.#button(event, false));
    stage.addEventListener("contextmenu", (event) => this.isLocked && event.preventDefault());
    this.touch = new TouchPads(stage.parentElement, this);
  }

  /** What the world listens to, from the server's welcome. */
  bind(welcome) {
    const { keys, turns } = welcome.bindings;
    this.bound = new Set([...Object.keys(keys), ...Object.keys(turns)]);
  }

  /** What sticks, crosses and buttons do in the world at hand, as `controlsOf` has it. */
  use(controls) {
    this.controls = controls;
    this.hasMouse = controls.looks;
    this.touch.show(controls);
  }

  get isLocked() {
    return document.pointerLockElement === this.stage;
  }

  /** Ask for the mouse; browsers allow it after a click only, and not too soon after it was given back. */
  lock() {
    if (this.hasMouse && !this.isLocked) this.stage.requestPointerLock?.()?.catch?.(() => {});
  }

  unlock() {
    if (this.isLocked) document.exitPointerLock();
  }

  get codes() {
    const held = new Set([...this.#keyboard].map((code) => this.controls.aliases[code] ?? code));
    for (const codes of this.#extra.values()) for (const code of codes) held.add(code);
    return [...held];
  }

  /** Codes that `who` (a stick, a button on the screen) holds now. */
  hold(who, codes) {
    const wanted = codes.filter((code) => this.bound.has(code));
    if (wanted.join() === (this.#extra.get(who) ?? []).join()) return;
    this.#extra.set(who, wanted);
    this.#changed();
  }

  /** The mouse, or what stands for it, has moved by so many pixels. */
  move(right, down) {
    if (!this.isEnabled || !this.hasMouse || (!right && !down)) return;
    this.#mouse[0] += right * this.sensitivity;
    this.#mouse[1] += down * this.sensitivity * (this.isInverted ? -1 : 1);
    const wait = this.#mouseSentMs + MOUSE_EVERY_MS - performance.now();
    if (wait <= 0) this.#send();
    else this.#mouseTimer ??= setTimeout(() => this.#send(), wait);
  }

  /** Let go of everything. */
  release() {
    const held = this.codes.length;
    this.#keyboard.clear();
    this.#extra.clear();
    if (held) this.#changed();
  }

  /** Read the gamepad; call once a screen refresh. */
  poll(nowMs) {
    const pad = navigator.getGamepads?.().find((one) => one?.connected && one.mapping === "standard");
    const passedS = Math.min((nowMs - (this.#padAtMs ?? nowMs)) / 1000, 0.1);
    this.#padAtMs = nowMs;
    const isDown = (button) => pad?.buttons[button]?.pressed ?? false;
    const [x, y, lookX, lookY] = pad?.axes ?? [0, 0, 0, 0]; // no pad, or not any more: it holds nothing
    this.hold("pad", codesOfPad(this.controls, x, y, STICK_DEAD, isDown));
    if (isDown(PAD_PAUSE) && !this.#padPauses) this.dispatchEvent(new Event("pause"));
    this.#padPauses = isDown(PAD_PAUSE);
    const turn = (value) => (Math.abs(value) < STICK_DEAD ? 0 : value * Math.abs(value) * STICK_PX_PER_S * passedS);
    this.move(turn(lookX), turn(lookY));
  }

  #key(event, isDown) {
    if (PRESSES.has(event.code) && event.target.closest?.("button, summary, a[href]")) {
      if (!isDown && this.#keyboard.delete(this.codeOf(event.code))) this.#changed(); // it was held when the button got the focus
      return;
    }
    const code = this.codeOf(event.code);
    if (!this.bound.has(code) || event.ctrlKey || event.metaKey || event.altKey) {
      if (!isDown && this.#keyboard.delete(code)) this.#changed();
      return;
    }
    if (isDown && (!this.isEnabled || event.target.closest?.("input, dialog"))) return;
    event.preventDefault();
    if (event.repeat) return;
    if (isDown) this.#keyboard.add(code);
    else this.#keyboard.delete(code);
    this.#changed();
  }

  #moved(event) {
    if (this.isLocked || (this.drags && event.buttons & 1)) this.move(event.movementX, event.movementY);
  }

  #button(event, isDown) {
    const code = `Mouse${event.button}`;
    if (!this.bound.has(code) || isDown === this.#keyboard.has(code)) return;
    if (isDown) this.#keyboard.add(code);
    else this.#keyboard.delete(code);
    this.#changed();
  }

  #lockChanged() {
    if (this.isLocked) this.drags = false;
    else this.release();
    this.dispatchEvent(new Event("lock"));
  }

  #changed() {
    this.dispatchEvent(new Event("held"));
    this.#send();
  }

  #send() {
    clearTimeout(this.#mouseTimer);
    this.#mouseTimer = null;
    this.#mouseSentMs = performance.now();
    const detail = { seq: ++this.#seq, codes: this.codes, mouse: this.#mouse };
    this.#mouse = [0, 0];
    this.dispatchEvent(new CustomEvent("input", { detail }));
  }
}
