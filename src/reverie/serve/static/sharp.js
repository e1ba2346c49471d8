// Pixels as they are, or smoothed: a button that the browser remembers.

import { remember, remembered } from "./remember.js";

const KEPT = "reverie.sharp";

export function offerSharp(button) {
  const set = (isSharp) => {
    document.body.classList.toggle("sharp", isSharp);
    button.setAttribute("aria-pressed", String(isSharp));
    remember(KEPT, isSharp ? "1" : "0", "localStorage");
  };
  button.addEventListener("click", () => set(!document.body.classList.contains("sharp")));
  set(remembered(KEPT, "localStorage") === "1");
}
