// The page: puts the parts together.

import { NOTHING, controlsOf } from "./controls.js";
import { Gallery } from "./gallery.js";
import { Help } from "./help.js";
import { Hud } from "./hud.js";
import { Input } from "./input.js";
import { MemoryMap } from "./map.js";
import { Meters } from "./meters.js";
import { Playback } from "./playback.js";
import * as say from "./protocol.js";
import { Screen } from "./screen.js";
import { openSource } from "./source.js";

const METERS_EVERY_MS = 250;
const MAX_SEED = 2 ** 31 - 1;
const TOUCH = matchMedia("(pointer: coarse)");

const byId = (id) => document.getElementById(id);
const stage = byId("stage");
const hud = new Hud();
const screen = new Screen(byId("screen"), byId("glow"));
const input = new Input(stage);
const meters = new Meters();
const connection = openSource();
const gallery = new Gallery({
  list: byId("gallery"), button: byId("add"), file: byId("file"), drop: byId("drop"),
  upload: (name, blob) => connection.upload(name, blob),
});
const help = new Help(byId("help"), byId("ask"));
const map = new MemoryMap(byId("map"), () => connection.send(say.map()), (line) => hud.say(line, true));

let playback = new Playback({ fps: 25, blockFrames: 4 });
let world = null; // the server's welcome
let epoch = 0;
let isPaused = false;
let pausedForHelp = false;
let metersAtMs = 0;

const randomSeed = () => Math.floor(Math.random() * MAX_SEED);

// ------------------------------------------------------------------------------------------ what the server says

connection.addEventListener("message", ({ detail }) => answers[detail.type]?.(detail));

const answers = {
  status({ status, progress, message }) {
    if (status === "warming") hud.state("warming", { title: "Waking up", text: message, progress });
  },
  queued({ place, waiting }) {
    const text = place === 1 ? "you are next" : `you are number ${place} of ${waiting} in the queue`;
    hud.state("waiting", { title: "All places are taken", text: `${text}; it begins by itself` });
  },
  welcome(welcome) {
    world = welcome;
    hud.unsay();
    hud.welcome(welcome);
    input.bind(welcome);
    screen.resize(welcome.width, welcome.height);
    playback = new Playback({ fps: welcome.fps, blockFrames: welcome.block_frames });
    gallery.offer(welcome);
    if (gallery.first || !welcome.uploads) begin(gallery.first);
    else askForPicture();
  },
  started(started) {
    epoch = started.epoch;
    playback.reset();
    meters.reset();
    gallery.mark(started.start);
    setPaused(false);
    hud.state("playing");
    if (help.isOpen) pausedForHelp = true;
    if (document.hidden || help.isOpen) togglePause(); // nobody looks: a place in the queue came up in a hidden tab
  },
  map(answer) {
    map.show(answer);
  },
  paused({ paused }) {
    setPaused(paused);
  },
  error({ code, message }) {
    if (code === "unknown-start") return lostPicture(message);
    hud.say(message, true);
    if (hud.current === "opening") hud.state("failed", { title: "This did not open", text: message });
    else if (code === "world-failed" || code === "internal") hud.state("failed", { title: "The world broke off", text: message });
  },
};

/** A model without start pictures of its own. */
function askForPicture() {
  showControls(null);
  setChoosing(true);
  hud.state("empty", { title: "Give it a picture", text: "it has none of its own: drop one here, or press +" });
}

/** The server has forgotten a picture (it was restarted): bring it again, or go on with one that it has. */
async function lostPicture(message) {
  const lost = gallery.first;
  const start = await gallery.revive();
  if (start?.name !== lost?.name) hud.say(message, true); // else it is the same picture, brought again
  if (start || !world.uploads) begin(start);
  else askForPicture();
}

connection.addEventListener("frame", ({ detail: frame }) => {
  if (frame.epoch !== epoch) return;
  screen.decode(frame);
  playback.push(frame, performance.now());
});

connection.addEventListener("stalled", ({ detail: silentMs }) => {
  hud.say(`the server has not answered for ${Math.round(silentMs / 1000)} s`, true);
});

connection.addEventListener("lost", ({ detail: { final, reason } }) => {
  epoch = 0;
  input.isEnabled = false;
  input.release();
  input.unlock();
  meters.reset();
  if (final) hud.state("failed", { title: "The server says no", text: reason });
  else hud.state("lost", { title: "Connecting", text: reason ?? "the connection is lost; waiting for the server" });
});

// ------------------------------------------------------------------------------------------------ what one does

function begin(start) {
  epoch = 0;
  hud.state("opening", { title: "Opening", text: start?.name ?? "" });
  gallery.mark(start?.id ?? null);
  showControls(start);
  play();
  connection.send(say.start(start?.id ?? null, randomSeed()));
}

/** Key caps, help, sticks and buttons for what the game of this picture knows. */
function showControls(start) {
  const controls = world ? controlsOf(world.bindings, world.mouse, start) : NOTHING;
  hud.controls(controls, start?.name ?? "");
  input.use(controls);
  help.show(controls);
}

/** From a button to the world: keys are for it now, the space bar too. */
function play() {
  document.body.classList.remove("choosing");
  byId("pictures").setAttribute("aria-expanded", "false");
  if (document.activeElement?.closest("button") && !help.isOpen) stage.focus({ preventScroll: true });
}

function restart() {
  if (!["playing", "paused", "failed"].includes(hud.current) || !connection.isOpen) return;
  epoch = 0;
  play();
  connection.send(say.restart(randomSeed()));
}

function togglePause() {
  if (!["playing", "paused"].includes(hud.current)) return;
  setPaused(!isPaused);
  connection.send(say.pause(isPaused));
}

function setPaused(paused) {
  isPaused = paused;
  input.isEnabled = !paused;
  if (paused) {
    input.release();
    input.unlock();
    meters.pause();
    hud.state("paused", { title: "Paused", text: TOUCH.matches ? "tap to go on" : "click, or press P, to go on" });
  } else {
    playback.resume();
    if (hud.current === "paused") {
      hud.state("playing");
      play();
    }
  }
  byId("pause").classList.toggle("on", paused);
  byId("pause").setAttribute("aria-label", paused ? "Go on" : "Pause");
  byId("pause").querySelector("span").textContent = paused ? "Go on" : "Pause";
}

input.addEventListener("input", ({ detail: { seq, codes, mouse } }) => {
  connection.send(say.input(seq, codes, mouse));
  if (hud.current === "playing") meters.sent(seq, performance.now());
});
input.addEventListener("held", () => hud.held(input.codes));
input.addEventListener("pause", togglePause);
input.addEventListener("lock", () => {
  document.body.classList.toggle("locked", input.isLocked);
  document.body.classList.toggle("drags", input.drags);
});

gallery.addEventListener("choose", ({ detail }) => {
  hud.unsay();
  begin(detail);
});
gallery.addEventListener("problem", ({ detail }) => hud.say(detail, true));

stage.addEventListener("click", (event) => {
  if (hud.current === "paused") togglePause();
  if (hud.current === "playing" && event.pointerType !== "touch") input.lock();
});

stage.addEventListener("keydown", (event) => {
  if (event.code === "Enter" && !event.repeat && !input.bound.has("Enter")) stage.click();
});

addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.code === "Escape" && !help.isOpen) setChoosing(false);
  if (event.key === "?" || (event.code === "KeyH" && !input.bound.has("KeyH"))) {
    if (help.isOpen) help.dialog.close();
    else help.open();
  }
  if (help.isOpen || input.bound.has(event.code)) return;
  if (event.code === "KeyR") restart();
  if (event.code === "KeyP") togglePause();
  if (event.code === "KeyM") map.toggle();
});

help.addEventListener("open", () => {
  pausedForHelp = hud.current === "playing";
  if (pausedForHelp) togglePause();
});
help.addEventListener("close", () => {
  if (pausedForHelp && hud.current === "paused") togglePause();
  play();
});

document.addEventListener("visibilitychange", () => {
  if (document.hidden && hud.current === "playing") togglePause();
});

// Who clicks a button goes back to the world, so the space bar must not press it again.  Who came to it with the keyboard
// stays there, until the world begins or goes on.
addEventListener("click", (event) => {
  if (event.detail > 0) event.target.closest?.("button")?.blur();
});

function button(id, act) {
  byId(id).addEventListener("click", act);
}

function setChoosing(isChoosing) {
  document.body.classList.toggle("choosing", isChoosing);
  byId("pictures").setAttribute("aria-expanded", String(isChoosing));
  if (isChoosing) gallery.mark(gallery.first?.id ?? null); // scrolls it into view
}

button("restart", restart);
button("reload", () => location.reload());
button("pause", togglePause);
button("full", () => (document.fullscreenElement ? document.exitFullscreen() : byId("page").requestFullscreen?.()));
button("pictures", () => setChoosing(!document.body.classList.contains("choosing")));
button("sharp", () => setSharp(!document.body.classList.contains("sharp")));

function setSharp(isSharp) {
  document.body.classList.toggle("sharp", isSharp);
  byId("sharp").setAttribute("aria-pressed", String(isSharp));
  try {
    localStorage.setItem("reverie.sharp", isSharp ? "1" : "0");
  } catch {
    // private windows may have no storage; the choice then lasts for the visit
  }
}

function rememberedSharp() {
  try {
    return localStorage.getItem("reverie.sharp") === "1";
  } catch {
    return false;
  }
}

// ---------------------------------------------------------------------------------------------------- the picture

function refresh() {
  const now = performance.now();
  input.poll(now);
  const frame = isPaused ? null : playback.next(now);
  if (frame) {
    screen.draw(frame);
    meters.shown(frame.action, now);
    connection.send(say.played(frame.epoch, frame.index, connection.roundTripMs));
  }
  if (hud.current === "playing") map.poll(now);
  if (now - metersAtMs > METERS_EVERY_MS) {
    metersAtMs = now;
    hud.meters(meters.fps(now), meters.latencyMs);
  }
  requestAnimationFrame(refresh);
}

setSharp(rememberedSharp());
hud.state("connecting", { title: "Connecting", text: "" });
gallery.ready.then(() => connection.open());
requestAnimationFrame(refresh);
