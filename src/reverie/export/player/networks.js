// The networks: ONNX graphs in onnxruntime-web, on WebGPU where there is one, else in WebAssembly.

const RUNTIMES = {
  webgpu: { module: "ort.webgpu.bundle.min.mjs", wasm: "ort-wasm-simd-threaded.asyncify.wasm" },
  wasm: { module: "ort.wasm.bundle.min.mjs", wasm: "ort-wasm-simd-threaded.wasm" },
};

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
   * graphs: {name: {file, bytes}} of model.json; base: its address; backend: `webgpu` or `wasm`; threads: of WebAssembly,
   * where the page is isolated; progress: told the share of bytes that are here, and a text.
   * Throws an Error with one line for a graph that cannot be loaded.
   */
  static async load({ graphs, base, runtime, backend, threads, progress }) {
    const files = RUNTIMES[backend];
    const ort = await import(new URL(files.module, runtime));
    ort.env.wasm.numThreads = threads;
    ort.env.wasm.wasmPaths = { wasm: String(new URL(files.wasm, runtime)) };
    ort.env.logLevel = "error";
    const total = Object.values(graphs).reduce((sum, graph) => sum + graph.bytes, 0);
    let done = 0;
    const fetched = [];
    for (const [name, { file }] of Object.entries(graphs)) {
      const tell = (count) => progress((done += count) / total, "fetching the model");
      fetched.push([name, await fetchBytes(new URL(file, base), tell)]);
    }
    const sessions = {};
    while (fetched.length) {
      const [name, bytes] = fetched.shift();
      progress(1, `making the networks ready: ${name}`);
      sessions[name] = await ort.InferenceSession.create(bytes, { executionProviders: [backend] });
    }
    return new Networks(ort, sessions);
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
