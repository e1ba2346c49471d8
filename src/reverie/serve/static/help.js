// The help: what each key, button and thumb does in the world at hand.

import { PAGE_ROWS, SWAP_ROWS, helpRows } from "./controls.js";
import { told } from "./language.js";

const COLUMNS = [["does", ""], ["keys", "keyboard, mouse"], ["pad", "gamepad"], ["touch", "touch"]];

/** Events: `open`, `close`. */
export class Help extends EventTarget {
  constructor(dialog, button) {
    super();
    this.dialog = dialog;
    this.body = dialog.querySelector("#help-body");
    button.addEventListener("click", () => this.open());
    dialog.addEventListener("close", () => this.dispatchEvent(new Event("close")));
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close()); // beside it
    dialog.querySelector("#help-close").addEventListener("click", () => dialog.close());
  }

  get isOpen() {
    return this.dialog.open;
  }

  open() {
    if (this.isOpen) return;
    this.dispatchEvent(new Event("open"));
    this.dialog.showModal();
  }

  /** Say what can be done; rewinds: whether the source keeps a world's past; swaps: whether there are a game and the
   *  dream of it. */
  show(controls, { rewinds, swaps }) {
    const rows = [...(swaps ? SWAP_ROWS : []), ...PAGE_ROWS.filter((row) => rewinds || !row.rewinds)];
    this.body.replaceChildren(table("this world", helpRows(controls)), table("this page", rows));
  }
}

function table(title, rows) {
  const element = document.createElement("table");
  const head = element.createTHead().insertRow();
  for (const [name, words] of COLUMNS) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = told(name === "does" ? title : words);
    head.append(cell);
  }
  const body = element.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    for (const [name] of COLUMNS) {
      const cell = document.createElement(name === "does" ? "th" : "td");
      if (name === "does") cell.scope = "row";
      cell.textContent = told(row[name]);
      line.append(cell);
    }
  }
  return element;
}
