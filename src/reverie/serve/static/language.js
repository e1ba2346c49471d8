// The page in another language: one file of `languages/` each, with a table for strings.js and one for all other words.
// A new one is such a file and its line in LANGUAGES.

import { setWords } from "./controls.js";
import { remember, remembered } from "./remember.js";
import { TEXT } from "./strings.js";

const KEPT = "reverie.language";
const LANGUAGES = { en: "English", de: "Deutsch" };
const NAMED = ["title", "aria-label", "placeholder", "alt"];

let words = {};

/** A word or a line of the page in its language. */
export const told = (text) => words[text] ?? text;

/** The language that was chosen, else the first of the browser's that is there. */
function wanted() {
  const asked = [remembered(KEPT, "localStorage"), ...(navigator.languages ?? [])];
  return asked.map((one) => one?.slice(0, 2)).find((one) => one in LANGUAGES) ?? "en";
}

/** Puts the page into its language, before anything is said.  select: the <select> to choose another one with. */
export async function speak(select) {
  const code = wanted();
  for (const [value, name] of Object.entries(LANGUAGES)) select.append(new Option(name, value, false, value === code));
  select.addEventListener("change", () => {
    remember(KEPT, select.value, "localStorage");
    location.reload(); // the session goes on
  });
  if (code === "en") return;
  const language = await import(`./languages/${code}.js`);
  Object.assign(TEXT, language.TEXT);
  words = language.WORDS;
  setWords(told);
  document.documentElement.lang = code;
  translate(document.body);
}

function translate(root) {
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.data.trim();
    if (text in words) walker.currentNode.data = words[text];
  }
  for (const element of root.querySelectorAll(NAMED.map((name) => `[${name}]`).join())) {
    for (const name of NAMED) if (element.hasAttribute(name)) element.setAttribute(name, told(element.getAttribute(name)));
  }
}
