// The page: puts the parts together.

import { NOTHING, controlsOf } from "./controls.js";
import { Gallery } from "./gallery.js";
import { Help } from "./help.js";
import { Hud } from "./hud.js";
import { Input } from "./input.js";
import { speak } from "./language.js";
import { forgetLink, linkTo, readLink } from "./link.js";
import { MemoryMap } from "./map.js";
import { Meters } from "./meters.js";
import { Models, chosenModel, forgetModel, sessionOf } from "./models.js";
import { Playback } from "./playback.js";
import * as say from "./protocol.js";
import { Saves } from "./saves.js";
import { remember, remembered } from "./remember.js";
import { Screen } from "./screen.js";
import { Settings } from "./settings.js";
import { offerSharp } from "./sharp.js";
import { TEXT } from "./strings.js";
import { openSource } from "./source.js";
import { Timeline } from "./timeline.js";
import { Views } from "./views.js";

const METERS_EVERY_MS = 250;
const STEP_S = 5; // what `[` and `]` go back and on
const TOUCH = matchMedia("(pointer: coarse)");

const byId = (id) => document.getElementById(id);
await speak(byId("language"));
const stage = byId("stage");
const hud = new Hud();
const screen = new Screen(byId("screen"), byId("glow"));
const input = new Input(stage);
const meters = new Meters();
const connection = openSource();
const models = new Models(byId("models"));
const gallery = new Gallery({
  list: byId("gallery"), button: byId("add"), file: byId("file"), drop: byId("drop"),
  upload: (name, blob) => connection.upload(name, blob),
});
const help = new Help(byId("help"), byId("ask"));
const saves = new Saves(byId("saves"), byId("keep"));
const settings = new Settings(byId("settings"), byId("tune"));
const timeline = new Timeline({ bar: byId("timeline"), slider: byId("slider"), time: byId("moment"), fork: byId("fork") });
const views = new Views();
const map = new MemoryMap(byId("map"), () => connection.send(say.map()), (line) => hud.say(line, true));

let playback = new Playback({ fps: 25, blockFrames: 4 });
let world = null; // the server's welcome
let epoch = 0;
let isPaused = false;
let pausedForPanel = false;
let isForking = false;
let begun = null; // {start, seed} of the world that is played
let link = readLink();
connection.model = link?.model ?? chosenModel();
let [shownIndex, shownMs] = [0, 0]; // the frame on the screen, and when it came there
let loading = null; // the saved session that was asked for last
let askedFps = null; // of this connection
let metersAtMs = 0;

// ------------------------------------------------------------------------------------------ what the server says

connection.addEventListener("message", ({ detail }) => answers[detail.type]?.(detail));

const answers = {
  status({ status, progress, message }) {
    if (status === "warming") hud.state("warming", { title: TEXT.warming, text: message, progress });
  },
  queued({ place, waiting }) {
    hud.state("waiting", { title: TEXT.full, text: TEXT.place(place, waiting) });
  },
  welcome(welcome) {
    world = welcome;
    askedFps = null;
    hud.unsay();
    hud.welcome(welcome);
    input.bind(welcome);
    screen.resize(welcome.width, welcome.height);
    playback = new Playback({ fps: welcome.fps, blockFrames: welcome.block_frames });
    gallery.offer(welcome);
    settings.offer(welcome);
    models.offer(welcome);
    connection.model = saves.model = welcome.model_id || null;
    keepToRate();
    timeline.offer(welcome);
    byId("keep").hidden = welcome.rewind_s === 0;
    views.offer(welcome);
    const session = remembered(sessionOf(world.model_id));
    if (link !== null) followLink();
    else if (session) takeUp(session);
    else beginFirst();
  },
  started(started) {
    epoch = started.epoch;
    begun = started;
    loading = null;
    playback.reset();
    meters.reset();
    remember(sessionOf(world.model_id), started.session);
    gallery.mark(started.start);
    showControls(gallery.find(started.start));
    views.begin("game");
    timeline.allow(views.canGoBack);
    timeline.begin(started);
    setSought(false);
    setPaused(false);
    hud.state("playing");
    play();
    if (panelIsOpen()) pausedForPanel = true;
    if (document.hidden || panelIsOpen()) togglePause(); // nobody looks: a place in the queue came up in a hidden tab
  },
  position(position) {
    epoch = position.epoch;
    playback.reset();
    meters.reset();
    setSought(true);
    timeline.begin(position);
  },
  view(answer) {
    epoch = answer.epoch;
    playback.reset();
    meters.reset();
    views.begin(answer.view);
    timeline.allow(views.canGoBack);
    timeline.begin(answer);
  },
  drift(figures) {
    const line = views.drift(figures);
    if (line) hud.say(line, true);
  },
  rate({ fps }) {
    playback.keepTo(fps);
    if (fps < world.fps) hud.say(TEXT.slower(fps, world.fps));
  },
  loading({ progress }) {
    hud.state("opening", { title: TEXT.opening, text: TEXT.loading, progress });
  },
  saved(card) {
    saves.keep(card);
    hud.say(isForking ? TEXT.forked(card.title) : TEXT.saved(card.title));
    if (isForking && isPaused) togglePause();
    isForking = false;
  },
  notice({ message }) {
    hud.say(message);
  },
  map(answer) {
    map.show(answer);
  },
  paused({ paused }) {
    setPaused(paused);
  },
  error({ code, message }) {
    timeline.failed();
    isForking = false;
    if (code === "unknown-start") return lostPicture(message);
    if (code === "unknown-session") {
      remember(sessionOf(world.model_id), null);
      hud.say(TEXT.sessionGone);
      return beginFirst();
    }
    if (loading !== null) {
      const id = loading;
      loading = null;
      hud.state(isPaused ? "paused" : "playing"); // what was played goes on
      if (code === "unknown-save") return saves.revive(id);
    }
    hud.say(message, true);
    if (hud.current === "opening") hud.state("failed", { title: TEXT.notOpened, text: message });
    else if (code === "world-failed" || code === "internal") hud.state("failed", { title: TEXT.brokeOff, text: message });
  },
};

/** Begin where the gallery says. */
function beginFirst() {
  if (gallery.first || !world.uploads) begin(gallery.first);
  else askForPicture();
}

/** Begin where the link says. */
function followLink() {
  const start = gallery.find(link.start);
  if (link.model && link.model !== world.model_id) hud.say(TEXT.noSuchModel(link.model, world.model), true);
  else if (!start) hud.say(TEXT.noSuchStart, true);
  begin(start ?? gallery.first, link.seed);
  link = null;
  forgetLink();
}

async function copyLink() {
  if (!begun) return;
  const address = linkTo({ ...begun, model: world.model_id });
  try {
    await navigator.clipboard.writeText(address);
    hud.say(TEXT.linkCopied);
  } catch {
    prompt(TEXT.linkToCopy, address);
  }
}

/** Go on with the session of before a reload or a lost connection. */
function takeUp(session) {
  epoch = 0;
  hud.state("opening", { title: TEXT.opening, text: "" });
  connection.send(say.resume(session));
}

/** A model without start pictures of its own. */
function askForPicture() {
  showControls(null);
  setChoosing(true);
  hud.state("empty", { title: TEXT.empty, text: TEXT.emptyHint });
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
  frame.receivedMs = performance.now();
  screen.decode(frame);
  playback.push(frame, performance.now());
});

connection.addEventListener("stalled", ({ detail: silentMs }) => {
  hud.say(TEXT.silent(Math.round(silentMs / 1000)), true);
});

connection.addEventListener("lost", ({ detail: { final, reason, code, title } }) => {
  if (code === "taken") remember(sessionOf(world?.model_id), null);
  if (code === "unavailable") {
    forgetModel(); // a reload finds what is there
    forgetLink();
  }
  timeline.failed();
  epoch = 0;
  input.isEnabled = false;
  input.release();
  input.unlock();
  meters.reset();
  const refused = code === "taken" ? TEXT.elsewhere : TEXT.refused;
  if (final) hud.state("failed", { title: title ?? refused, text: reason });
  else hud.state("lost", { title: TEXT.connecting, text: reason ?? TEXT.lost });
});

// ------------------------------------------------------------------------------------------------ what one does

function begin(start, seed = settings.nextSeed) {
  epoch = 0;
  hud.state("opening", { title: TEXT.opening, text: start?.name ?? "" });
  gallery.mark(start?.id ?? null);
  showControls(start);
  play();
  connection.send(say.start(start?.id ?? null, seed, settings.nextPasses));
}

/** Play a saved session on. */
function load(id) {
  if (!connection.isOpen) return;
  loading = id;
  hud.state("opening", { title: TEXT.opening, text: "" });
  connection.send(say.load(id));
}

/** Key caps, help, sticks and buttons for what the game of this picture knows. */
function showControls(start) {
  const controls = world ? controlsOf(world.bindings, world.mouse, start) : NOTHING;
  hud.controls(controls, start?.name ?? "");
  input.use(controls);
  help.show(controls, { rewinds: world?.rewind_s > 0, swaps: views.isOffered });
  settings.show(controls);
}

/** From a button to the world: keys are for it now, the space bar too. */
function play() {
  document.body.classList.remove("choosing");
  byId("pictures").setAttribute("aria-expanded", "false");
  if (document.activeElement?.closest("button, input") && !panelIsOpen()) stage.focus({ preventScroll: true });
}

function restart() {
  if (!["playing", "paused", "failed"].includes(hud.current) || !connection.isOpen) return;
  epoch = 0;
  play();
  connection.send(say.restart(settings.nextSeed, settings.nextPasses));
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
    hud.state("paused", { title: TEXT.paused, text: TOUCH.matches ? TEXT.goOnByTouch : TEXT.goOnByKey });
  } else {
    playback.resume();
    setSought(false);
    if (hud.current === "paused") {
      hud.state("playing");
      play();
    }
  }
  byId("pause").classList.toggle("on", paused);
  byId("pause").setAttribute("aria-label", paused ? TEXT.goOn : TEXT.pause);
  byId("pause").querySelector("span").textContent = paused ? TEXT.goOn : TEXT.pause;
}

/** Another moment is shown, and nothing is played until one goes on from there. */
function setSought(isSought) {
  document.body.classList.toggle("sought", isSought);
}

const panelIsOpen = () => help.isOpen || saves.isOpen || settings.isOpen;

input.addEventListener("input", ({ detail: { seq, codes, mouse } }) => {
  connection.send(say.input(seq, codes, mouse));
  if (hud.current === "playing") meters.sent(seq, performance.now());
});
/** The server is asked for no more frames a second than were chosen. */
function keepToRate() {
  if (settings.maxFps === askedFps) return;
  askedFps = settings.maxFps;
  connection.send(say.rate(askedFps));
}

function useSettings() {
  input.release();
  input.codeOf = (pressed) => settings.codeOf(pressed);
  input.sensitivity = settings.sensitivity;
  input.isInverted = settings.isInverted;
  if (world) showControls(gallery.find(begun?.start));
}
settings.addEventListener("change", () => {
  useSettings();
  if (world) keepToRate();
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
gallery.addEventListener("session", ({ detail }) => saves.bring(detail));
gallery.addEventListener("problem", ({ detail }) => hud.say(detail, true));

stage.addEventListener("click", (event) => {
  if (hud.current === "paused") togglePause();
  if (hud.current === "playing" && event.pointerType !== "touch") input.lock();
});

stage.addEventListener("keydown", (event) => {
  if (event.code === "Enter" && !event.repeat && !input.bound.has("Enter")) stage.click();
});

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input:not([type=range])")) return;
  if (!panelIsOpen() && event.code === "BracketLeft") timeline.back(STEP_S);
  if (!panelIsOpen() && event.code === "BracketRight") timeline.back(-STEP_S);
  if (event.repeat) return;
  if (event.code === "Escape" && !panelIsOpen()) setChoosing(false);
  if (event.key === "?" || (event.code === "KeyH" && !input.bound.has("KeyH"))) {
    if (help.isOpen) help.dialog.close();
    else if (!panelIsOpen()) help.open();
  }
  if (panelIsOpen() || input.bound.has(input.codeOf(event.code))) return;
  if (event.code === "Comma") settings.open();
  if (event.code === "KeyR") restart();
  if (event.code === "KeyP") togglePause();
  if (event.code === "KeyO" && world?.rewind_s) saves.open();
  if (event.code === "KeyM") map.toggle();
  if (event.code === "KeyG") views.swap();
  if (event.code === "KeyV") views.split();
});

for (const panel of [help, saves, settings]) {
  panel.addEventListener("open", () => {
    pausedForPanel = hud.current === "playing";
    if (pausedForPanel) togglePause();
  });
  panel.addEventListener("close", () => {
    if (pausedForPanel && hud.current === "paused") togglePause();
    play();
  });
}

timeline.addEventListener("seek", ({ detail }) => {
  if (!["playing", "paused"].includes(hud.current)) return timeline.failed();
  connection.send(say.seek(detail));
});
views.addEventListener("ask", ({ detail }) => {
  if (hud.current === "paused") togglePause();
  if (hud.current === "playing") connection.send(say.view(detail, epoch, shownIndex));
});
saves.addEventListener("save", ({ detail }) => connection.send(say.save(detail)));
saves.addEventListener("load", ({ detail }) => load(detail));
saves.addEventListener("problem", ({ detail }) => hud.say(detail, true));
saves.addEventListener("notice", ({ detail }) => hud.say(detail));

function fork() {
  isForking = true;
  const when = new Date().toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  connection.send(say.save(TEXT.beforeFork(when), true));
}

addEventListener("hashchange", () => readLink() && location.reload()); // a link that was pasted into this tab

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
button("copy-link", copyLink);
button("fork", fork);
button("back", () => timeline.back(STEP_S));
button("reload", () => location.reload());
button("pause", togglePause);
button("full", () => (document.fullscreenElement ? document.exitFullscreen() : byId("page").requestFullscreen?.()));
button("pictures", () => setChoosing(!document.body.classList.contains("choosing")));
// ---------------------------------------------------------------------------------------------------- the picture

function refresh() {
  const now = performance.now();
  input.poll(now);
  const isStill = isPaused && !document.body.classList.contains("sought");
  const frame = isStill ? null : playback.next(now);
  if (frame) {
    screen.draw(frame, settings.isSmooth);
    views.shown(screen.canvas);
    [shownIndex, shownMs] = [frame.index, now];
    timeline.shown(frame.index);
    meters.shown(frame.action, now, { ...frame, roundTripMs: connection.roundTripMs });
    connection.send(say.played(frame.epoch, frame.index, connection.roundTripMs));
  }
  if (settings.isSmooth && !isStill) screen.blend((now - shownMs) / playback.intervalMs);
  if (hud.current === "playing") map.poll(now);
  if (now - metersAtMs > METERS_EVERY_MS) {
    metersAtMs = now;
    const parts = meters.latencyParts;
    hud.meters(meters.fps(now), meters.latencyMs, meters.latencyP95Ms, parts ? TEXT.latencyParts(parts) : "");
  }
  requestAnimationFrame(refresh);
}

offerSharp(byId("sharp"));
useSettings();
hud.state("connecting", { title: TEXT.connecting, text: "" });
gallery.ready.then(() => connection.open());
requestAnimationFrame(refresh);
