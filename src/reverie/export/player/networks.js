// The networks: ONNX graphs in onnxruntime-web, on WebGPU where there is one, else in WebAssembly.

const RUNTIMES = {
  webgpu: { module: "ort.webgpu.bundle.min.mjs", wasm: "ort-wasm-simd-threaded.asyncify.wasm.gz" },
  wasm: { module: "ort.wasm.bundle.min.mjs", wasm: "ort-wasm-simd-threaded.wasm.gz" },
};

const MAX_LINE = 120;

/** `webgpu` where a GPU (no emulation) can be had, else `wasm`. */
export async function pickBackend(wanted = null) {
  if (wanted) return wanted;
  try {
    const adapter = await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" });
    return adapter && !adapter.info?.isFallbackAdapter ? "webgpu" : "wasm";
  } catch {
    return "wasm";
  }
}

export class Networks {
  #ort;
  #sessions;

  /** ort: the runtime's module; sessions: its inference sessions, by the graph's name. */
  constructor(ort, sessions) {
    this.#ort = ort;
    this.#sessions = sessions;
  }

  /**
   * graphs: {name: {file, bytes}} of model.json; base: its address; sizes: {file: bytes} of the runtime; backend:
   * `webgpu` or `wasm`; threads: of WebAssembly, where the page is isolated; progress: told the share of bytes that are
   * here, and a text.
   *
   * Returns {networks, backend, problem}: the backend is `wasm` where WebGPU failed, and `problem` says why (else null).
   * Throws an Error with one line for a graph that cannot be loaded.
   */
  static async load({ graphs, base, runtime, sizes, backend, threads, progress }) {
    const wasm = RUNTIMES[backend].wasm;
    const total = Object.values(graphs).reduce((sum, graph) => sum + graph.bytes, sizes[wasm]);
    let done = 0;
    const tell = (count) => {
      done += count;
      progress(done / total, `fetching the model: ${inMiB(done)} of ${inMiB(total)} MiB`);
    };
    const engine = await fetchBytes(new URL(wasm, runtime), tell);
    const files = {};
    for (const [name, { file }] of Object.entries(graphs)) files[name] = await fetchBytes(new URL(file, base), tell);
    const ready = (name) => progress(1, `making the networks ready: ${name}`);
    if (backend === "wasm") return { networks: await make("wasm", engine, runtime, files, threads, ready), backend };
    try {
      if (!(await navigator.gpu?.requestAdapter())) throw new Error("this browser offers no GPU");
      const networks = await make(backend, engine, runtime, files, threads, ready);
      for (const name of Object.keys(files)) await networks.#tryOut(name);
      return { networks, backend };
    } catch (error) {
      const again = await fetchBytes(new URL(RUNTIMES.wasm.wasm, runtime), () => ready("WebAssembly in WebGPU's place"));
      const networks = await make("wasm", again, runtime, files, threads, ready);
      return { networks, backend: "wasm", problem: String(error?.message ?? error).split("\n")[0].slice(0, MAX_LINE) };
    }
  }

  /** Runs a graph on zeros, so that a GPU that cannot run it is found out before anybody plays.  Throws an Error. */
  async #tryOut(name) {
    const inputs = {};
    for (const { name: key, shape } of this.#sessions[name].inputMetadata) {
      const dims = shape.map((size) => (typeof size === "number" ? size : 1));
      inputs[key] = { data: new Float32Array(dims.reduce((a, b) => a * b)), dims };
    }
    for (const [key, data] of Object.entries(await this.run(name, inputs))) {
      if (!data.every(Number.isFinite)) throw new Error(`the GPU gives no numbers for ${key} of ${name}`);
    }
  }

  /** Runs a graph.  inputs: {name: {data, dims}}.  Returns {name: Float32Array}. */
  async run(name, inputs) {
    const session = this.#sessions[name];
    const feeds = {};
    for (const key of session.inputNames) {
      feeds[key] = new this.#ort.Tensor("float32", inputs[key].data, inputs[key].dims);
    }
    const results = await session.run(feeds);
    const out = {};
    for (const [key, tensor] of Object.entries(results)) {
      out[key] = await tensor.getData();
      tensor.dispose();
    }
    return out;
  }
}

const inMiB = (bytes) => (bytes / 2 ** 20).toFixed(0);

/** The networks of graphs' packed `files` {name: bytes} on a backend; engine: its gzipped WebAssembly. */
async function make(backend, engine, runtime, files, threads, ready) {
  const ort = await import(new URL(RUNTIMES[backend].module, runtime));
  ort.env.wasm.numThreads = threads;
  ort.env.wasm.wasmBinary = (await unpacked(engine)).buffer;
  ort.env.logLevel = "error";
  const sessions = {};
  for (const [name, bytes] of Object.entries(files)) {
    ready(name);
    sessions[name] = await ort.InferenceSession.create(await unpackedGraph(bytes), { executionProviders: [backend] });
  }
  return new Networks(ort, sessions);
}

/** The bytes of a gzip file. */
export async function unpacked(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** The bytes of a graph's packed file: all even ones, then all odd ones, gzipped (export/packing.py). */
async function unpackedGraph(packed) {
  const halves = await unpacked(packed);
  const middle = Math.ceil(halves.length / 2);
  return halves.map((_, i) => halves[(i >> 1) + (i & 1 ? middle : 0)]);
}

/** A file's bytes; tell: told how many more there are.  Throws an Error with one line. */
export async function fetchBytes(address, tell = () => {}) {
  const response = await fetch(address).catch(() => null);
  if (!response?.ok) {
    throw new Error(`${address.pathname} cannot be fetched (${response?.status ?? "no connection"}); reload the page`);
  }
  const parts = [];
  let size = 0;
  const reader = response.body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    size += value.length;
    tell(value.length);
  }
  const bytes = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}
