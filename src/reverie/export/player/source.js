// The source of worlds of an exported page: networks in a worker, in place of a server.  It takes the messages of
// static/protocol.js and answers as a server does, so that the page cannot tell them apart.
//
// The address may ask for ?backend=webgpu or wasm, and for ?threads=N.

import { FLAG, FORMAT } from "../static/protocol.js";
import { InputBox } from "./bindings.js";
import { readImage } from "./files.js";
import { Pace } from "./pace.js";

const RELOADED = "reverie.isolated";
const BASE = new URL("..", import.meta.url);

export function openSource() {
  return new LocalSource();
}

class LocalSource extends EventTarget {
  #worker = null;
  #model = null;
  #pace = null;
  #box = null;
  #uploads = new Map(); // id -> Blob
  #world = null; // {id: the epoch, start, index} of the world at hand, once it is open
  #epoch = 0;
  #start = null;
  #seed = 0;
  #isPaused = false;
  #isBusy = false;
  #timer = null;

  roundTripMs = 0;

  get isOpen() {
    return this.#model !== null;
  }

  async open() {
    this.#say({ type: "status", status: "warming", progress: 0, message: "starting" });
    await isolated();
    const asked = new URLSearchParams(location.search);
    this.#worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    this.#worker.onmessage = ({ data }) => this.#heard[data.type](data);
    this.#worker.onerror = () => this.#lose("this browser cannot run module workers; use a newer one");
    const threads = Number(asked.get("threads")) || null;
    const [base, runtime] = ["model/", "runtime/"].map((folder) => String(new URL(folder, BASE)));
    this.#worker.postMessage({ type: "load", base, runtime, backend: asked.get("backend"), threads });
  }

  /** Takes a client's message. */
  send(text) {
    const message = JSON.parse(text);
    this.#takes[message.type]?.(message);
  }

  /** Keeps an image for `start`; the answer is a server's. */
  async upload(name, blob) {
    try {
      await readImage(blob, this.#model);
    } catch (error) {
      return { type: "error", message: error.message };
    }
    const id = `upload-${this.#uploads.size}-${Date.now().toString(36)}`;
    this.#uploads.set(id, blob);
    const start = { id, name, thumbnail: URL.createObjectURL(blob), keys: null, mouse: null, scene: null };
    return { type: "uploaded", start };
  }

  #takes = {
    start: ({ start, seed }) => this.#open(start ?? this.#model.welcome.starts[0]?.id, seed),
    restart: ({ seed }) => this.#open(this.#start, seed),
    pause: ({ paused }) => {
      this.#isPaused = paused;
      this.#box.flush();
      this.#say({ type: "paused", paused });
      this.#go();
    },
    rate: ({ fps }) => {
      const kept = Math.min(fps ?? Infinity, this.#model.welcome.fps);
      this.#pace.keepTo(kept);
      this.#say({ type: "rate", fps: kept });
      this.#go();
    },
    input: (message) => this.#box.put(message),
    map: () => this.#say({ type: "map", image: null, reason: "a page without a server draws no map" }),
    played: ({ epoch, index }) => {
      if (epoch !== this.#world?.id) return;
      this.#pace.played(index, performance.now());
      this.#go();
    },
  };

  #heard = {
    progress: ({ share, text }) => this.#say({ type: "status", status: "warming", progress: share, message: text }),
    ready: async ({ backend, threads, problem }) => {
      this.#model = await (await fetch(new URL("model/model.json", BASE))).json();
      const { welcome, max_turn_deg } = this.#model;
      this.#box = new InputBox({ ...welcome.bindings, max_turn_deg }, welcome.keys, welcome.mouse);
      this.#pace = new Pace({ fps: welcome.fps, blockFrames: welcome.block_frames });
      document.body.dataset.backend = backend;
      document.body.dataset.threads = threads;
      this.#say({ type: "welcome", ...welcome });
      if (problem) this.#say({ type: "notice", message: `WebGPU failed, so it plays in WebAssembly: ${problem}` });
    },
    opened: ({ id, frames }) => {
      if (id !== this.#epoch) return;
      this.#world = { id, index: 0 };
      this.#isBusy = false;
      this.#isPaused = false;
      this.#pace.begin(performance.now());
      this.#box.flush();
      this.#say({ type: "started", epoch: id, start: this.#start, seed: this.#seed });
      this.#show(frames, 0, FLAG.FIRST);
      this.#go();
    },
    frames: ({ id, action, frames }) => {
      if (id === this.#world?.id) this.#show(frames, action, FLAG.BLOCK);
    },
    stepped: ({ id, costMs }) => {
      if (id !== this.#world?.id) return;
      this.#isBusy = false;
      this.#pace.cost(costMs);
      this.#go();
    },
    failed: ({ id, during, text }) => {
      if (during === "load") this.#lose(text);
      else if (id === this.#epoch) this.#say({ type: "error", code: "world-failed", message: text, fatal: false });
    },
  };

  #open(id, seed) {
    const known = this.#model.welcome.starts.find((one) => one.id === id);
    const place = this.#model.places[id] ?? null;
    const image = known ? String(new URL(known.thumbnail, BASE)) : this.#uploads.get(id);
    if (!image) {
      this.#say({ type: "error", code: "unknown-start", message: "this image is not here any more", fatal: false });
      return;
    }
    this.#world = null;
    [this.#start, this.#seed] = [id, seed];
    const scene = place && { folder: String(new URL(`${place.scene}/`, BASE)), pose: place.pose };
    this.#worker.postMessage({ type: "start", id: ++this.#epoch, image, scene, seed });
  }

  /** Makes the next block if it is time, else looks again when it is. */
  #go() {
    clearTimeout(this.#timer);
    if (!this.#world || this.#isPaused || this.#isBusy) return;
    const waitMs = this.#pace.waitMs(performance.now());
    if (waitMs === null) return;
    if (waitMs > 0) {
      this.#timer = setTimeout(() => this.#go(), waitMs);
      return;
    }
    this.#isBusy = true;
    this.#worker.postMessage({ type: "step", id: this.#world.id, ...this.#box.take(this.#model.welcome.block_frames) });
  }

  #show(frames, action, flag) {
    const nowMs = performance.now();
    this.#pace.frames(frames.length, nowMs);
    for (const [i, payload] of frames.entries()) {
      const { width, height } = this.#model;
      const head = { format: FORMAT.RGB, flags: i ? 0 : flag, epoch: this.#world.id, index: this.#world.index++ };
      const detail = { ...head, action, width, height, sampledMs: nowMs, sentMs: nowMs, payload };
      this.dispatchEvent(new CustomEvent("frame", { detail }));
    }
  }

  #say(detail) {
    this.dispatchEvent(new CustomEvent("message", { detail }));
  }

  #lose(reason) {
    this.#model = null;
    this.dispatchEvent(new CustomEvent("lost", { detail: { final: true, title: "It did not start", reason } }));
  }
}

/**
 * Installs the service worker, which keeps the folder for use offline and isolates the page, so that WebAssembly may use
 * threads.  The page is loaded once more through it, the first time.
 */
async function isolated() {
  try {
    if (!navigator.serviceWorker) return;
    await navigator.serviceWorker.register(new URL("sw.js", BASE));
    await navigator.serviceWorker.ready;
    if (crossOriginIsolated || sessionStorage.getItem(RELOADED)) return;
    sessionStorage.setItem(RELOADED, "1");
  } catch {
    return; // a private window, or a page that is not secure: it plays with one thread, and only online
  }
  location.reload();
  await new Promise(() => {});
}
