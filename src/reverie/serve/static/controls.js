// What can be done in the world at hand, and with what: the one source of key caps, help, touch buttons and gamepad.
// It knows no document, so that it can be tested without one.

const CODES = [
  "KeyW", "KeyS", "KeyA", "KeyD", "Space", "ShiftLeft", "KeyC", "KeyQ", "KeyE", "KeyT", "KeyF", "Mouse0", "Mouse2",
  "ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight", "PageUp", "PageDown",
]; // the order in which they are named
const LABELS = {
  Space: "space", ShiftLeft: "shift", Mouse0: "click", Mouse2: "right click", ArrowUp: "↑", ArrowDown: "↓",
  ArrowLeft: "←", ArrowRight: "→", PageUp: "page up", PageDown: "page down",
};
const DIRECTIONS = {
  up: ["forward", "jump"],
  down: ["back", "crouch", "slide"],
  left: ["left", "lean-left", "turn-left"],
  right: ["right", "lean-right", "turn-right"],
}; // what a stick, a cross or a thumb holds: the first that the world knows
const ARROWS = { ArrowUp: "up", ArrowDown: "down", ArrowLeft: "left", ArrowRight: "right" };
const MOVES = new Set(["forward", "back", "left", "right", "lean-left", "lean-right"]);
const PAD = { jump: 0, handbrake: 1, crouch: 1, slide: 1, use: 2, trick: 3, "turn-left": 4, "turn-right": 5, attack: 7 };
const PAD_NAMES = ["A", "B", "X", "Y", "LB", "RB", "LT", "RT"];
export const PAD_PAUSE = 9;
export const PAD_CROSS = { up: 12, down: 13, left: 14, right: 15 };

let keyNames = {};
let told = (text) => text;

/** A function that says a word or a line in the page's language. */
export function setWords(translate) {
  told = translate;
}

/** keys: {a code of the world: the code that is pressed for it}; layout: {code: what is printed there}, where known. */
export function setKeyNames(keys, layout = new Map()) {
  const printed = (code) => (LABELS[code] && told(LABELS[code])) ?? layout.get?.(code)?.toUpperCase() ?? code.replace(/^(Key|Digit)/, "");
  keyNames = { of: (code) => printed(keys[code] ?? code) };
}
setKeyNames({});

/** The key that is pressed for a code of the world, as it is printed. */
export const label = (code) => keyNames.of(code);

/** A key of an action space in words. */
export const words = (meaning) => told(meaning.replaceAll("-", " "));

/**
 * The controls of a world.  bindings: of the server's welcome ({keys: {code: meaning}, turns: {code: [pitch, yaw]}}).
 * start: the start picture, whose `keys` and `mouse` say what its game knows (null: all that the model knows).
 *
 * looks: whether the camera turns.  entries: {meaning, codes, isMove, pad (a button's number, or null)}, in the order of
 * the keyboard.  turns: {code: what it does}.  directions: {up, down, left, right}: a code, or null.  aliases: {code:
 * the code that is meant}: where the game at hand has no camera, the arrows steer, though the model would turn one.
 */
export function controlsOf({ keys, turns }, hasMouse, start = null) {
  const isKnown = (meaning) => meaning !== "" && (!start?.keys || start.keys.includes(meaning));
  const looks = hasMouse && start?.mouse !== false;
  const found = new Map();
  for (const code of order(Object.keys(keys))) {
    const meaning = keys[code];
    if (!isKnown(meaning)) continue;
    if (!found.has(meaning)) found.set(meaning, []);
    found.get(meaning).push(code);
  }
  const entries = [...found].map(([meaning, codes]) => ({
    meaning, codes, isMove: MOVES.has(meaning), pad: PAD[meaning] ?? null,
  }));
  const turning = Object.fromEntries(
    looks ? order(Object.keys(turns)).map((code) => [code, words(direction(turns[code]))]) : [],
  );
  const directions = {};
  for (const [name, meanings] of Object.entries(DIRECTIONS)) {
    const meaning = meanings.find((one) => found.has(one));
    directions[name] = meaning ? found.get(meaning)[0] : null;
  }
  directions.left ??= "KeyA" in turning ? "KeyA" : null; // a car that is steered by turning
  directions.right ??= "KeyD" in turning ? "KeyD" : null;
  const aliases = {};
  for (const [code, way] of Object.entries(looks ? {} : ARROWS)) {
    const meant = directions[way];
    if (!meant || isKnown(keys[code] ?? "")) continue; // it says something of its own
    aliases[code] = meant;
    entries.find((entry) => entry.codes.includes(meant))?.codes.push(code);
  }
  return { looks, entries, turns: turning, directions, aliases };
}

/** No world: nothing can be done. */
export const NOTHING = controlsOf({ keys: {}, turns: {} }, false);

/** Codes that a stick holds; x and y from -1 to 1, right and down positive. */
export function codesOfStick({ directions }, x, y, dead) {
  const names = [y < -dead && "up", y > dead && "down", x < -dead && "left", x > dead && "right"];
  return names.map((name) => name && directions[name]).filter(Boolean);
}

/** Codes that a gamepad of the standard layout holds; isDown: (a button's number) => whether it is pressed. */
export function codesOfPad(controls, x, y, dead, isDown) {
  const codes = codesOfStick(controls, x, y, dead);
  for (const [name, button] of Object.entries(PAD_CROSS)) {
    if (isDown(button) && controls.directions[name]) codes.push(controls.directions[name]);
  }
  for (const { pad, codes: [code] } of controls.entries) if (pad !== null && isDown(pad)) codes.push(code);
  return [...new Set(codes)];
}

/** Rows of the help: {does, keys, pad, touch}, each a text, "" where there is nothing. */
export function helpRows(controls) {
  const name = Object.fromEntries(Object.entries(controls.directions).map(([way, code]) => [code, way]));
  const rows = controls.entries.map(({ meaning, codes, isMove, pad }) => {
    const way = codes.map((code) => name[code]).find(Boolean);
    const buttons = [way && `${told("stick")} ${told(way)}`, pad !== null && PAD_NAMES[pad]].filter(Boolean);
    const thumbs = [way && `${told("left thumb")} ${told(way)}`, !isMove && `${told("button")} ${words(meaning)}`].filter(Boolean);
    return { does: words(meaning), keys: either(codes.map(label)), pad: either(buttons), touch: either(thumbs) };
  });
  if (controls.looks) {
    const codes = Object.keys(controls.turns).filter((code) => !code.startsWith("Key")).map(label).join(", ");
    rows.push({ does: "look around", keys: `${told("mouse")}, ${told("or")} ${codes}`, pad: "right stick", touch: "right thumb" });
    rows.push({ does: "take the mouse, give it back", keys: "click, Esc", pad: "", touch: "" });
  }
  return rows;
}

/** Keys of the page itself. */
export const PAGE_ROWS = [
  { does: "pause, go on", keys: "P", pad: "start", touch: "tap when paused" },
  { does: "begin again", keys: "R", pad: "", touch: "" },
  { does: "back, on by 5 seconds", keys: "[ and ]", pad: "", touch: "slider", rewinds: true },
  { does: "saved sessions", keys: "O", pad: "", touch: "button Saved", rewinds: true },
  { does: "settings", keys: ",", pad: "", touch: "button Settings" },
  { does: "map of what is remembered", keys: "M", pad: "", touch: "", rewinds: true },
  { does: "this help", keys: "H or ?", pad: "", touch: "" },
];

/** Keys of the page where there are a game and the dream of it. */
export const SWAP_ROWS = [
  { does: "the real game, or its dream", keys: "G", pad: "", touch: "button Dream it" },
  { does: "both side by side", keys: "V", pad: "", touch: "button Both" },
];

const either = (ways) => ways.join(` ${told("or")} `);

function order(codes) {
  const rank = (code) => (CODES.includes(code) ? CODES.indexOf(code) : CODES.length);
  return [...codes].sort((a, b) => rank(a) - rank(b));
}

function direction([pitch, yaw]) {
  if (yaw) return yaw > 0 ? "look right" : "look left";
  return pitch > 0 ? "look up" : "look down";
}
