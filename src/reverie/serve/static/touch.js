// Touch: a thumb on the left half walks, one on the right half looks around, on the picture or below it; what else can
// be done has a button of its own.

import { codesOfStick, words } from "./controls.js";

const STICK_PX = 46; // how far the stick goes
const DEAD = 0.3;
const LOOK_GAIN = 3.2;

export class TouchPads {
  #walk = null;
  #look = null;

  constructor(area, input) {
    this.area = area;
    this.input = input;
    this.stick = area.querySelector("#stick");
    this.actions = area.querySelector("#actions");
    area.addEventListener("pointerdown", (event) => this.#down(event));
    area.addEventListener("pointermove", (event) => this.#move(event));
    for (const type of ["pointerup", "pointercancel"]) area.addEventListener(type, (event) => this.#up(event));
  }

  /** A button for each action of the world at hand. */
  show(controls) {
    for (const button of this.actions.children) this.input.hold(`touch ${button.textContent}`, []);
    const actions = controls.entries.filter((entry) => !entry.isMove);
    this.actions.replaceChildren(...actions.map(({ meaning, codes }) => this.#button(meaning, codes[0])));
  }

  #button(meaning, code) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = words(meaning);
    const hold = (codes) => {
      button.classList.toggle("held", codes.length > 0);
      this.input.hold(`touch ${words(meaning)}`, codes);
    };
    button.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      if (!this.input.isEnabled) return;
      button.setPointerCapture?.(event.pointerId);
      hold([code]);
    });
    for (const type of ["pointerup", "pointercancel", "lostpointercapture"]) button.addEventListener(type, () => hold([]));
    button.addEventListener("contextmenu", (event) => event.preventDefault()); // a long press is a long press
    button.addEventListener("click", (event) => event.stopPropagation()); // and not one on the picture
    return button;
  }

  #down(event) {
    if (event.target.closest?.("button")) return;
    if (event.pointerType !== "touch" || !this.input.isEnabled) return;
    document.body.classList.add("touched");
    const box = this.area.getBoundingClientRect();
    const finger = { id: event.pointerId, x: event.clientX, y: event.clientY };
    const isLeft = event.clientX < box.left + box.width / 2;
    if ((isLeft || !this.input.hasMouse) && !this.#walk) {
      this.#walk = finger;
      this.stick.style.left = `${event.clientX - box.left}px`;
      this.stick.style.top = `${event.clientY - box.top}px`;
      this.stick.classList.add("held");
    } else if (!this.#look) this.#look = finger;
  }

  #move(event) {
    if (event.pointerId === this.#walk?.id) this.#steer(event.clientX - this.#walk.x, event.clientY - this.#walk.y);
    if (event.pointerId === this.#look?.id) {
      this.input.move((event.clientX - this.#look.x) * LOOK_GAIN, (event.clientY - this.#look.y) * LOOK_GAIN);
      this.#look = { id: event.pointerId, x: event.clientX, y: event.clientY };
    }
  }

  #steer(x, y) {
    const length = Math.hypot(x, y) || 1;
    const reach = Math.min(1, STICK_PX / length);
    this.stick.style.setProperty("--x", `${x * reach}px`);
    this.stick.style.setProperty("--y", `${y * reach}px`);
    this.input.hold("stick", codesOfStick(this.input.controls, x / STICK_PX, y / STICK_PX, DEAD));
  }

  #up(event) {
    if (event.pointerId === this.#look?.id) this.#look = null;
    if (event.pointerId !== this.#walk?.id) return;
    this.#walk = null;
    this.stick.classList.remove("held");
    this.#steer(0, 0);
  }
}
