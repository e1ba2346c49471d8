"""Frames a second of an exported page in headless Chromium, beside the engine's on the same machine at the same time.

    reverie export web nano -o site
    OMP_NUM_THREADS=1 python bench/web.py site [--blocks 25] [--threads 1 2] [--backend wasm] [--start doom-halls-0]

Wall times depend on what else runs; processor times (of all of Chromium's processes, of the engine's) less so.  Without
Chromium, with `--blocks 0`, it counts the graphs' operations alone.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import onnx  # pyright: ignore[reportMissingImports]  # an extra

from reverie.export.packing import unpack

PLAY = """async ({ start, place, blocks, backend, threads }) => {
  const at = (path) => String(new URL(path, location.href));
  const model = await (await fetch(at("model/model.json"))).json();
  const worker = new Worker(at("player/worker.js"), { type: "module" });
  let settle = null;
  const ask = (message) => new Promise((resolve, reject) => {
    settle = { resolve, reject };
    worker.postMessage(message);
  });
  worker.onmessage = ({ data }) => {
    if (data.type === "failed") settle.reject(new Error(data.text));
    if (["ready", "opened", "stepped"].includes(data.type)) settle.resolve(data);
  };
  const ready = await ask({ type: "load", base: at("model/"), runtime: at("runtime/"), backend, threads });
  const scene = place && { folder: at(`${place.scene}/`), pose: place.pose };
  await ask({ type: "start", id: 1, image: at(`starts/${start}.png`), scene, seed: 0 });
  const rows = new Float32Array(4 * model.action_size).map((_, i) => (i % model.action_size === 0 ? 1 : 0));
  const costs = [];
  for (let i = 0; i < blocks; i++) {
    if (i === 2) await window.began();
    costs.push((await ask({ type: "step", id: 1, rows, action: 0 })).costMs);
  }
  await window.ended();
  worker.terminate();
  return { costs: costs.slice(2), backend: ready.backend, threads: ready.threads, problem: ready.problem };
}"""


def graph_operations(content: bytes, steps: int) -> tuple[int, int]:
    """Operations (2 for a multiplication and an addition) of a graph's products and convolutions, and its nodes.

    steps: past steps of `pass`.
    """
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(content))
    graph = model.graph
    shapes: dict[str, list[int]] = {one.name: list(one.dims) for one in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        dims = value.type.tensor_type.shape.dim
        shapes.setdefault(value.name, [dim.dim_value if dim.HasField("dim_value") else -1 for dim in dims])
    if "past" in shapes:
        # What depends on the past is counted by running the shapes through with that many steps.
        model = onnx.load_from_string(content)
        for value in model.graph.input:
            if value.name == "past":
                value.type.tensor_type.shape.dim[0].dim_value = steps
        del model.graph.value_info[:]
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        for value in inferred.value_info:
            dims = value.type.tensor_type.shape.dim
            shapes[value.name] = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in dims]
    operations = 0
    for node in graph.node:
        if node.op_type == "MatMul":
            operations += 2 * _size(shapes, node.output[0]) * shapes[node.input[0]][-1]
        elif node.op_type == "Gemm":
            is_turned = any(one.name == "transA" and one.i for one in node.attribute)
            operations += 2 * _size(shapes, node.output[0]) * shapes[node.input[0]][0 if is_turned else -1]
        elif node.op_type == "Conv":
            operations += 2 * _size(shapes, node.output[0]) * prod(shapes[node.input[1]][1:])
    return operations, len(graph.node)


def _size(shapes: dict[str, list[int]], name: str) -> int:
    shape = shapes[name]
    if any(size < 0 for size in shape):
        raise SystemExit(f"the shape of {name} is not known: {shape}")
    return prod(shape)


def count_operations(site: Path) -> dict[str, Any]:
    """Operations and nodes of each graph, and of a whole block of 4 frames."""
    model = json.loads((site / "model" / "model.json").read_text())
    found = {
        name: graph_operations(unpack((site / "model" / graph["file"]).read_bytes()), model["window"] - 1)
        for name, graph in model["graphs"].items()
    }
    times = {"motion": 1, "view": 1, "pass": len(model["schedule"]["sigmas"]) + 1, "decode": 1, "detail": 1, "depth": 1}
    whole = tuple(sum(found[name][i] * count for name, count in times.items()) for i in range(2))
    for name, (operations, nodes) in [*found.items(), ("a block", whole)]:
        print(f"{name:8} {operations / 1e9:8.3f} GFLOP  {nodes:5} nodes  x {times.get(name, 1)}")
    print(f"25 frames a second: {whole[0] / 1e9 / 0.16:.0f} GFLOP/s, and {0.16e6 / whole[1]:.0f} us a node")
    return {"gflop": whole[0] / 1e9, "nodes": whole[1]}


class _Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()


@contextmanager
def served(site: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def descendants_s() -> float:
    """Processor seconds of all processes that this one has started, and theirs."""
    parents, spent = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        pid = int(folder.name)
        parents[pid], spent[pid] = int(fields[1]), (int(fields[11]) + int(fields[12])) / 100
    wanted, new = set(), {int(Path("/proc/self").resolve().name)}
    while new:
        new = {pid for pid, parent in parents.items() if parent in new} - wanted
        wanted |= new
    return sum(spent[pid] for pid in wanted)


def play(site: Path, start: str, place: dict[str, Any] | None, options: argparse.Namespace, threads: int) -> None:
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--mute-audio", "--disable-background-networking"]
    if options.backend == "webgpu":
        flags += ["--enable-unsafe-webgpu", "--enable-features=Vulkan", "--use-webgpu-adapter=swiftshader"]
    marks: list[float] = []
    with served(site) as address, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        page = browser.new_page()
        page.set_default_timeout(0)
        page.expose_function("began", lambda: marks.append(descendants_s()))
        page.expose_function("ended", lambda: marks.append(descendants_s()))
        page.goto(f"{address}/model/model.json")
        page.route("**/blank", lambda route: route.fulfill(
            body="<!doctype html>", content_type="text/html",
            headers={"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"},
        ))  # fmt: skip
        page.goto(f"{address}/blank")
        given = {"start": start, "place": place, "blocks": options.blocks + 2, "backend": options.backend}
        found = page.evaluate(PLAY, {**given, "threads": threads})
        browser.close()
    spent = (marks[1] - marks[0]) / options.blocks
    _print(f"page, {found['backend']}, threads {found['threads']}", [ms / 1000 for ms in found["costs"]], spent)


def play_engine(model: str, scene: str | None, blocks: int) -> None:
    from reverie import Action, load

    world = load(model, device="cpu", dtype="float32")
    session = world.open(scene=scene, start=0, seed=0) if scene else world.open(world.start_frames()[0].file, seed=0)
    for _ in range(2):
        session.step(Action(frozenset({"forward"})))
    times, began = [], time.process_time()
    for _ in range(blocks):
        at = time.perf_counter()
        session.step(Action(frozenset({"forward"})))
        times.append(time.perf_counter() - at)
    _print("engine, one thread", times, (time.process_time() - began) / blocks)


def _print(name: str, times: list[float], processor_s: float) -> None:
    median, least = sorted(times)[len(times) // 2], min(times)
    print(
        f"{name:28} {4 / median:6.1f} frames a second (median block {1000 * median:.0f} ms, least {1000 * least:.0f}), "
        f"{1000 * processor_s:.0f} ms of processor time a block",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("site", type=Path)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--blocks", type=int, default=25)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--backend", default="wasm")
    parser.add_argument("--start", help="the id of one of the page's starts; the first one if left out")
    options = parser.parse_args()
    count_operations(options.site)
    if not options.blocks:
        return
    model = json.loads((options.site / "model" / "model.json").read_text())
    start = options.start or model["welcome"]["starts"][0]["id"]
    place = model["places"].get(start)
    play_engine(options.model, place and place["scene"].split("/")[-1], options.blocks)
    for threads in options.threads:
        play(options.site, start, place, options, threads)


if __name__ == "__main__":
    main()
