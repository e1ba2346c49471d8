// The worker that plays: it holds the networks and one session, and does one thing after another.
//
// It takes {type: load | start | step} and answers {type: progress | ready | opened | frames | stepped | failed}.

import { readEgoMotion, readImage, readScene } from "./files.js";
import { Networks, pickBackend } from "./networks.js";
import { Session } from "./session.js";

const MAX_THREADS = 8;

let model = null;
let networks = null;
let egoMotion = null;
let session = null;
let scenes = {}; // the one that was played last, by name
let last = Promise.resolve();

const acts = {
  /** base: the model folder's address; runtime: onnxruntime-web's; backend, threads: as asked for, or null. */
  async load({ base, runtime, backend, threads }) {
    const progress = (share, text) => postMessage({ type: "progress", share, text });
    model = await (await fetch(new URL("model.json", base))).json();
    const picked = await pickBackend(backend);
    const used = crossOriginIsolated ? Math.min(threads ?? navigator.hardwareConcurrency ?? 1, MAX_THREADS) : 1;
    const { graphs, runtime: sizes } = model;
    const loaded = await Networks.load({ graphs, base, runtime, sizes, backend: picked, threads: used, progress });
    networks = loaded.networks;
    egoMotion = await readEgoMotion(model.ego_motion, base);
    postMessage({ type: "ready", backend: loaded.backend, threads: used, problem: loaded.problem ?? null });
  },

  /** image: an address or a Blob; scene: {folder, pose} or null; noise: numbers to draw from, for tests. */
  async start({ id, image, scene, seed, noise }) {
    const size = { width: model.width, height: model.height };
    const bytes = await readImage(image, size);
    if (scene && !scenes[scene.folder]) scenes = { [scene.folder]: await readScene(new URL(scene.folder, self.location), size) };
    session = new Session(model, networks, egoMotion);
    let at = 0;
    const draw = noise && ((count) => noise.slice(at, (at += count)));
    const opening = { image: bytes, seed, scene: scene && scenes[scene.folder], pose: scene?.pose ?? null };
    const frame = await session.open(draw ? { ...opening, draw } : opening);
    postMessage({ type: "opened", id, frames: [frame] });
  },

  /** rows: 4 action rows. */
  async step({ id, rows, action }) {
    const beganMs = performance.now();
    await session.play(rows, (frames) => postMessage({ type: "frames", id, action, frames }));
    postMessage({ type: "stepped", id, costMs: performance.now() - beganMs });
  },
};

addEventListener("message", ({ data }) => {
  last = last
    .then(() => acts[data.type](data))
    .catch((error) => postMessage({ type: "failed", id: data.id ?? null, during: data.type, text: lineOf(error) }));
});

/** One line about an error.  Browsers and the runtime word a lack of memory in many ways. */
function lineOf(error) {
  const line = String(error?.message ?? error).split("\n")[0];
  return /memory|alloc/i.test(line) ? `this browser has too little memory for the model (${line}); close other tabs` : line;
}
