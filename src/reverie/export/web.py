"""A model as a static folder that plays it in a browser, without a server of ours.

index.html, static/    the page, as the server has it, but for its source of worlds
player/                the local source: a worker with the session, the spatial memory and the networks
model/                 model.json and the graphs (`reverie.export.graphs`), packed
scenes/, starts/       keyframes and start images
runtime/               onnxruntime-web
sw.js                  keeps all of it for use offline, and isolates the page for threads
"""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from reverie.engine.engine import Engine
from reverie.engine.loading.scenes import find_scene
from reverie.errors import CheckpointError, DeviceError
from reverie.export.graphs import graphs_of, level_vectors, onnx_bytes, past_layers
from reverie.export.packing import pack
from reverie.export.runtime import find_archive, unpack_runtime
from reverie.models.actions import WINDOW_FRAMES
from reverie.models.checkpoint import ModelBundle
from reverie.models.config import WorldModelConfig
from reverie.models.tokenizer import VideoTokenizer
from reverie.nn.rope import split_pairs
from reverie.paths import local_path
from reverie.scenes import recorded_body
from reverie.scenes.body_matching import Body
from reverie.scenes.ego_motion import EgoMotionNet
from reverie.scenes.recorded_body import RecordedBody
from reverie.scenes.recorded_ways import RecordedWays
from reverie.scenes.scene import KEYFRAMES, Scene
from reverie.serve import protocol
from reverie.serve.host import describe, welcome
from reverie.serve.sources import ModelSource, StartPicture, WorldSpec
from reverie.types import ActionSpace
from reverie.vision.depth_codec import encode_depth
from reverie.vision.projection import VIEW_SIZE

STATIC = Path(protocol.__file__).parent / "static"
PLAYER = Path(__file__).parent / "player"
SOURCE = '// Worlds come from the player beside this page.\n\nexport { openSource } from "../player/source.js";\n'
MODEL = "model/model.json"
MAX_MODEL_BYTES = 60 * 2**20
"""Size limit of a model's packed graphs, bytes: the page waits for their download."""

Progress = Callable[[float, str], None]
"""Callback for the progress, from 0 to 1, and the name of the current part."""


def check_packages() -> None:
    """Raises DeviceError where the packages that write ONNX are not installed."""
    try:
        import onnx  # noqa: F401  # pyright: ignore[reportMissingImports]  # an extra
        import onnxscript  # noqa: F401  # pyright: ignore[reportMissingImports]  # an extra
    except ModuleNotFoundError as error:
        raise DeviceError(f'exports need {error.name}; pip install "reverie-world[web]"') from None


def check_target(folder: Path) -> None:
    """Raises CheckpointError for a folder that holds something else than an earlier export."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / MODEL).is_file()):
        raise CheckpointError(f"{folder} is there already and no exported page; give an empty or a new folder")


def export_web(
    engine: Engine,
    folder: Path,
    *,
    scene: str | Path | None = None,
    scenes: Iterable[str] | None = None,
    archive: Path | None = None,
    tell: Progress,
) -> int:
    """Writes the folder, whole or not at all, in the place of an earlier export.  Returns the bytes of its files.

    engine: a float32 model on a CPU; scene: one of any kind, by name or folder, that the page begins in; scenes: names
    of the bundled scenes to take along, None for all; archive: of onnxruntime-web, None for the cached one.
    Raises CheckpointError for a model that cannot be played so or that weighs more than `MAX_MODEL_BYTES`, DataError
    for a scene that is missing or does not fit, DeviceError for missing packages.
    """
    check_packages()
    check_target(folder)
    spec = ModelSource(engine, scene=scene).load(lambda share, text: None)
    starts = _taken(spec.starts, scene, scenes)
    tell(0.0, "looking for onnxruntime-web")
    found = find_archive(archive)
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        page = Path(temporary) / "page"
        places = _write_starts(page, starts, engine.action_space)
        runtime = unpack_runtime(found, page / "runtime")
        _write_model(page, engine.bundle, replace(spec, starts=starts), places, runtime, tell)
        _write_page(page)
        num_bytes = sum(path.stat().st_size for path in page.rglob("*") if path.is_file())
        if folder.is_dir():
            shutil.rmtree(folder)
        page.chmod(0o755)
        shutil.move(page, folder)
    tell(1.0, "done")
    return num_bytes


def _taken(
    starts: tuple[StartPicture, ...], scene: str | Path | None, scenes: Iterable[str] | None
) -> tuple[StartPicture, ...]:
    """The starts without those of scenes that are not taken along.  Raises CheckpointError for unknown scenes."""
    names = {start.place.folder.name for start in starts if start.place is not None}
    own = set() if scene is None else {find_scene(scene).name}
    wanted = names if scenes is None else own | set(scenes)
    if unknown := sorted(wanted - names):
        raise CheckpointError(
            f"there is no scene {unknown[0]!r} for this model; expected {', '.join(sorted(names)) or 'none'}"
        )
    return tuple(start for start in starts if start.place is None or start.place.folder.name in wanted)


def _write_starts(page: Path, starts: tuple[StartPicture, ...], space: ActionSpace) -> dict[str, Any]:
    """Writes start images and scenes, for actions of a model.

    Returns for starts in scenes the scene's folder and the camera's pose, by id.
    """
    (page / "starts").mkdir(parents=True)
    places: dict[str, Any] = {}
    scenes: dict[Path, Scene] = {}
    for start in starts:
        Image.fromarray(start.picture).save(page / _image_of(start), optimize=True)
        if start.place is None:
            continue
        source = start.place.folder
        name = f"scenes/{source.name}"
        if source not in scenes:
            scenes[source] = Scene.load(source)
            write_scene(scenes[source], source, page / name, space)
        pose = scenes[source].start(start.place.start).pose
        places[start.id] = {"scene": name, "pose": [float(value) for value in pose]}
    return places


def _image_of(start: StartPicture) -> str:
    return f"starts/{start.id}.png"


def write_scene(scene: Scene, source: Path, folder: Path, space: ActionSpace) -> None:
    """Writes a scene, read from `source`, as the player reads it.

    The keyframes' WebP colours one after another, with their offsets; in one gzip file the depth (8 bits of its
    logarithm) and hidden pixels (0 or 1) of each.  space: of the model's actions.
    """
    import pyarrow.parquet as pq

    folder.mkdir(parents=True)
    # The files themselves, not what they show: written again they would lose a little more.
    colours = pq.read_table(local_path(source / KEYFRAMES), columns=["colour"])["colour"].to_pylist()
    (folder / "colour.bin").write_bytes(b"".join(colours))
    offsets, geometry = [0, *accumulate(map(len, colours))], []
    for depth, hidden in zip(scene.depth, scene.hidden, strict=True):
        geometry += [encode_depth(depth).tobytes(), hidden.astype(np.uint8).tobytes()]
    (folder / "geometry.bin.gz").write_bytes(gzip.compress(b"".join(geometry), mtime=0))
    head = {
        "title": scene.title,
        "licence": scene.licence,
        "fov_deg": scene.fov_deg,
        "pixel_aspect": scene.pixel_aspect,
        "offsets": offsets,
        "poses": [[float(value) for value in pose] for pose in scene.pose],
        "walls": scene.walls,
        "ways": describe_ways(scene.ways),
        "body": write_body_images(folder, source, scene.body, scene.columns_in(space), space.size),
        "ego_motion": write_ego_motion(folder, scene.ego_motion_for(space)),
    }
    (folder / "scene.json").write_text(json.dumps(head), encoding="utf-8")


def describe_ways(ways: RecordedWays | None) -> dict[str, Any] | None:
    """Recorded ways as the player reads them, to the centimetre."""
    if ways is None:
        return None
    rows = np.column_stack([ways.poses, ways.heading]).astype(np.float64).round(2)
    return {"poses": rows.tolist(), "radius": ways.radius}


def write_body_images(
    folder: Path, source: Path, recorded: RecordedBody | None, columns: list[int] | None, action_size: int
) -> dict[str, Any] | None:
    """Writes the images of a scene's body, as they are stored.  Returns what the player needs beside them."""
    import pyarrow.parquet as pq

    if recorded is None or columns is None:
        return None
    images = pq.read_table(local_path(source / recorded_body.FILE), columns=["image"])["image"].to_pylist()
    (folder / "body.bin").write_bytes(b"".join(images))
    body = Body.of(recorded, columns, action_size)
    (top, left), (height, width) = body.corner, body.image.shape[-2:]
    return {
        "box": {"top": top, "left": left, "width": width, "height": height},
        "offsets": [0, *accumulate(map(len, images))],
        **{name: _numbers(getattr(body, name)) for name in ("embedding", "ends", "after", "mean", "weights")},
    }


def _numbers(tensor: Tensor) -> list[Any]:
    return tensor.double().numpy().round(6).tolist()


def write_ego_motion(folder: Path, network: EgoMotionNet | None) -> dict[str, Any] | None:
    """Writes a network's weights, float32 one after another.  Returns what the player needs beside them."""
    if network is None:
        return None
    numbers = np.concatenate([tensor.float().numpy().ravel() for tensor in network.state_dict().values()])
    (folder / "ego-motion.bin.gz").write_bytes(gzip.compress(numbers.astype("<f4").tobytes(), mtime=0))
    return {"columns": network.columns, "width": network.width}


def _write_model(
    page: Path, bundle: ModelBundle, spec: WorldSpec, places: dict[str, Any], runtime: dict[str, int], tell: Progress
) -> None:
    """Writes the graphs and `model.json`.  runtime: sizes of its files."""
    graphs = graphs_of(bundle)
    (page / "model").mkdir()
    sizes = {}
    for number, (name, graph) in enumerate(graphs.items()):
        tell(0.05 + 0.9 * number / len(graphs), f"exporting the graph {name}")
        packed = pack(onnx_bytes(graph))
        sizes[name] = {"file": f"{name}.onnx.gz", "bytes": len(packed)}
        (page / "model" / sizes[name]["file"]).write_bytes(packed)
    num_bytes = sum(one["bytes"] for one in sizes.values())
    if num_bytes > MAX_MODEL_BYTES:
        raise CheckpointError(
            f"the graphs of {spec.name} weigh {num_bytes / 2**20:.0f} MiB; expected at most "
            f"{MAX_MODEL_BYTES / 2**20:.0f}: play it with `reverie play`"
        )
    assert bundle.memory is not None
    ego_motion = write_ego_motion(page / "model", bundle.memory.ego_motion)
    described = {
        **model_json(bundle),
        "ego_motion": ego_motion,
        **_welcome_json(spec),
        "graphs": sizes,
        "places": places,
        "runtime": runtime,
    }
    (page / MODEL).write_text(json.dumps(described), encoding="utf-8")


def model_json(bundle: ModelBundle) -> dict[str, Any]:
    """Settings that a session needs beside the graphs: sizes, schedule, positions, the memory's settings."""
    world, tokenizer, memory = bundle.config.world, bundle.tokenizer, bundle.config.memory
    assert isinstance(tokenizer, VideoTokenizer)
    assert memory is not None
    height, width = bundle.config.resolution
    carries = tokenizer.new_decoder_state(1, height, width).carries
    return {
        "name": bundle.config.name,
        "width": width,
        "height": height,
        "latent": list(world.latent),
        "view": list(VIEW_SIZE),
        "dim": world.dim,
        "window": world.window,
        "sink": world.sink,
        "action_frames": WINDOW_FRAMES,
        "action_size": world.action_space.size,
        "cond_channels": world.cond_channels,
        "past_row": sum(layer.size for layer in past_layers(bundle.model)),
        "carries": [list(carry.shape) for carry in carries],
        "predicts": world.predicts,
        "schedule": asdict(bundle.config.schedule),
        "levels": level_vectors(bundle.model, bundle.config.schedule).tolist(),
        "rotary": _rotary_json(world),
        "memory": asdict(memory),
    }


def _rotary_json(world: WorldModelConfig) -> dict[str, Any]:
    tokens = {"pairs": list(split_pairs(world.head_dim)), "theta": world.positions.theta, "grid": list(world.grid)}
    modules = {"keyboard": world.actions.keyboard, "mouse": world.actions.mouse}
    clocks = {
        name: None if module is None else {"pairs": [module.time_pairs], "theta": module.theta}
        for name, module in modules.items()
    }
    return {"tokens": tokens, **clocks}


def _welcome_json(spec: WorldSpec) -> dict[str, Any]:
    """The welcome that a server would give."""
    starts = tuple(replace(describe(start), thumbnail=_image_of(start)) for start in spec.starts)
    told = replace(welcome(spec), starts=starts, rewind_s=0.0, passes=())  # the page's own player cannot do that
    return {"welcome": json.loads(protocol.to_json(told)), "max_turn_deg": list(spec.bindings.max_turn_deg)}


def _write_page(page: Path) -> None:
    """Writes the page's own files; the service worker, which names them and a digest of everything, last."""
    shutil.copytree(STATIC, page / "static", ignore=shutil.ignore_patterns("index.html"))
    shutil.copyfile(STATIC / "index.html", page / "index.html")
    (page / "static" / "source.js").write_text(SOURCE, encoding="utf-8")
    shutil.copytree(PLAYER, page / "player", ignore=shutil.ignore_patterns("sw.js"))
    files = sorted(path.relative_to(page) for path in page.rglob("*") if path.is_file())
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"\n{file.as_posix()}\n".encode() + hashlib.sha256((page / file).read_bytes()).digest())
    own = ["./", *(file.as_posix() for file in files if file.parts[0] in ("index.html", "static", "player"))]
    worker = (PLAYER / "sw.js").read_text(encoding="utf-8")
    worker = worker.replace('const DIGEST = "";', f'const DIGEST = "{digest.hexdigest()[:16]}";')
    (page / "sw.js").write_text(
        worker.replace("const PAGE = [];", f"const PAGE = {json.dumps(own)};"), encoding="utf-8"
    )
