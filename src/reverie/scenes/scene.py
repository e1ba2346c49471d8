"""Scenes on disk: a folder with `scene.json`, `keyframes.parquet` and start images.

scene.json          kind, version, title, game, fov_deg, pixel_aspect, keys, mouse, licence, starts, walls
keyframes.parquet   a row each: colour (WebP), depth (8 bits of its logarithm), hidden (both lossless WebP or PNG), pose
start-00.webp ...   start images, with their poses in scene.json
ego-motion.safetensors   how one moves here; left out, one moves as the model has learnt
ways.parquet        where recorded cameras were, on a track; left out, one may go anywhere near the keyframes
body.parquet        how the player's own body looked; left out, the network paints one, or none is seen
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from reverie.errors import DataError, first_line
from reverie.paths import local_path
from reverie.scenes.ego_motion import EgoMotionNet, for_columns, read_network, write_network
from reverie.scenes.image_rows import MAX_IMAGE_BYTES, decode_image, encode_exactly, encode_image, read_rows
from reverie.scenes.recorded_body import RecordedBody, read_body, write_body
from reverie.scenes.recorded_ways import RecordedWays, read_ways, write_ways
from reverie.types import ActionSpace, Frames
from reverie.vision.depth_codec import decode_depth, encode_depth
from reverie.vision.projection import VIEW_SIZE

KIND, VERSION = "reverie.scene", 1
KEYFRAMES = "keyframes.parquet"
HINT = "build one with `reverie scene build RECORDING -o FOLDER`"
MAX_STARTS = 256
MAX_JSON_BYTES = 2**20
"""Limits on what a scene of a stranger holds, beside those of its images."""
MAX_M = 1e6
"""The largest coordinate of a pose."""
COLOUR_QUALITY = 78


@dataclass(frozen=True, slots=True)
class Start:
    """Start of a session in a scene: title, for people; image (H, W, 3); pose (6,) of its camera."""

    title: str
    image: npt.NDArray[np.uint8]
    pose: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Scene:
    """Keyframes of one place.

    colour: (n, H, W, 3) uint8; depth: (n, h, w) metres; hidden: (n, h, w) bool, pixels that are not drawn; pose:
    (n, 6).  keys, mouse: the controls of the game that it was captured in; ego_motion: how one moves there under them;
    walls: whether surfaces stop the camera, as they do not where it follows a player through gates; ways: where one may
    go, where that is a track; body: how the player's own body looks.
    """

    name: str
    title: str
    game: str
    fov_deg: float
    pixel_aspect: float
    keys: tuple[str, ...]
    mouse: bool
    licence: str
    starts: tuple[Start, ...]
    colour: Frames
    depth: npt.NDArray[np.float32]
    hidden: npt.NDArray[np.bool_]
    pose: npt.NDArray[np.float32]
    ego_motion: EgoMotionNet | None = None
    walls: bool = True
    ways: RecordedWays | None = None
    body: RecordedBody | None = None

    @property
    def resolution(self) -> tuple[int, int]:
        """(H, W) of keyframes."""
        return self.colour.shape[1], self.colour.shape[2]

    def __len__(self) -> int:
        return len(self.pose)

    def start(self, index: int) -> Start:
        """Raises DataError for a start that the scene does not have."""
        return pick_start(self.name, self.starts, index)

    def ego_motion_for(self, space: ActionSpace) -> EgoMotionNet | None:
        """Its own ego-motion network for a model's action rows; None without one, or for a model without its mouse."""
        columns = self.columns_in(space)
        return None if self.ego_motion is None or columns is None else for_columns(self.ego_motion, columns)

    def columns_in(self, space: ActionSpace) -> list[int] | None:
        """Columns of a model's action rows that hold its own numbers; None for a model without its mouse."""
        if self.mouse and not space.mouse:
            return None
        return [space.names.index(name) for name in ActionSpace(self.keys, self.mouse).names]

    def save(self, folder: Path) -> None:
        """Writes the folder; `scene.json`, which makes it a scene, last."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        folder.mkdir(parents=True, exist_ok=True)
        rows = {
            "colour": [encode_image(Image.fromarray(x), quality=COLOUR_QUALITY, method=6) for x in self.colour],
            "depth": [encode_exactly(encode_depth(x)) for x in self.depth],
            "hidden": [encode_exactly(255 * x.astype(np.uint8)) for x in self.hidden],
            "pose": [[float(v) for v in pose] for pose in self.pose],
        }
        temporary = folder / f".{KEYFRAMES}.{os.getpid()}.tmp"
        pq.write_table(pa.table(rows), local_path(temporary), compression="zstd")
        os.replace(temporary, folder / KEYFRAMES)
        write_network(folder, self.ego_motion)
        write_ways(folder, self.ways)
        write_body(folder, self.body)
        starts = []
        for i, start in enumerate(self.starts):
            image = f"start-{i:02d}.webp"
            (folder / image).write_bytes(encode_image(Image.fromarray(start.image), quality=92, method=6))
            starts.append({"title": start.title, "image": image, "pose": [round(float(v), 4) for v in start.pose]})
        raw = {
            "kind": KIND,
            "version": VERSION,
            "title": self.title,
            "game": self.game,
            "fov_deg": self.fov_deg,
            "pixel_aspect": self.pixel_aspect,
            "keys": list(self.keys),
            "mouse": self.mouse,
            "licence": self.licence,
            "starts": starts,
            "walls": self.walls,
        }
        temporary = folder / f".scene.json.{os.getpid()}.tmp"
        temporary.write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, folder / "scene.json")

    @classmethod
    def load(cls, folder: str | Path) -> Scene:
        """Raises DataError, in one line with the file and the row, for a folder that is no sound scene."""
        folder = Path(folder)
        head = read_head(folder)
        action_size = len(head.keys) + 2 * head.mouse
        network = read_network(folder, action_size)
        walls = read_scene_json(folder).get("walls", True) is not False
        keyframes = _read_keyframes(folder / KEYFRAMES)
        body = read_body(folder, keyframes[0].shape[1:3], action_size)
        return cls(folder.resolve().name, *head, *keyframes, network, walls, read_ways(folder), body)


class Head(NamedTuple):
    """A scene's facts and starts, in the order of `Scene`."""

    title: str
    game: str
    fov_deg: float
    pixel_aspect: float
    keys: tuple[str, ...]
    mouse: bool
    licence: str
    starts: tuple[Start, ...]


def read_head(folder: Path) -> Head:
    """Facts and starts of a scene, without its keyframes.  Raises DataError."""
    raw = read_scene_json(folder)
    try:
        if len(raw["starts"]) > MAX_STARTS:
            raise ValueError(f"more than {MAX_STARTS} starts")
        starts = tuple(
            Start(_text(one["title"]), _read_start(folder, one["image"]), _pose(one["pose"])) for one in raw["starts"]
        )
        facts = (_text(raw["title"]), _text(raw["game"]), float(raw["fov_deg"]), float(raw["pixel_aspect"]))
        head = Head(*facts, tuple(map(_text, raw["keys"])), bool(raw["mouse"]), _text(raw["licence"]), starts)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{folder / 'scene.json'}: {error!r} is missing or wrong; {HINT}") from error
    if not 20 <= head.fov_deg <= 150 or not 0.25 <= head.pixel_aspect <= 4:
        raise DataError(
            f"{folder / 'scene.json'}: expected fov_deg in 20..150 and pixel_aspect in 0.25..4, got {facts[2:]}"
        )
    if not starts:
        raise DataError(f"{folder / 'scene.json'}: expected at least one start, got none; {HINT}")
    return head


def pick_start(name: str, starts: Sequence[Start], index: int) -> Start:
    """Start number `index` of the scene `name`.  Raises DataError for one that it does not have."""
    if not 0 <= index < len(starts):
        raise DataError(f"scene {name} has starts 0 to {len(starts) - 1}, got {index}")
    return starts[index]


def read_scene_json(folder: Path) -> dict[str, Any]:
    """`scene.json` of a folder.  Raises DataError."""
    path = folder / "scene.json"
    if not path.is_file():
        raise DataError(f"{folder} is not a scene: {path} is missing; {HINT}")
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ValueError(f"it is larger than {MAX_JSON_BYTES >> 20} MiB")
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(raw, dict) or raw.get("kind") != KIND:
        raise DataError(f'{path} is not a scene (its "kind" must be "{KIND}"); {HINT}')
    if raw.get("version") != VERSION:
        raise DataError(f"{path} has version {raw.get('version')}, this Reverie reads version {VERSION}")
    return raw


def _read_keyframes(
    path: Path,
) -> tuple[Frames, npt.NDArray[np.float32], npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    rows = _read_rows(path, ["colour", "depth", "hidden", "pose"])
    colour, depth, hidden, pose = [], [], [], []
    for i, row in enumerate(rows):
        try:
            colour.append(decode_image(row["colour"], "RGB"))
            depth.append(decode_depth(decode_image(row["depth"], "L")))
            hidden.append(decode_image(row["hidden"], "L") > 0)
            pose.append(_pose(row["pose"]))
        except Exception as error:  # decoders raise nearly anything on a damaged image
            raise DataError(f"{path}, row {i}: a damaged keyframe ({error}); build the scene again") from error
        if colour[i].shape != colour[0].shape or depth[i].shape != VIEW_SIZE or hidden[i].shape != VIEW_SIZE:
            shapes = (colour[i].shape, depth[i].shape, hidden[i].shape)
            raise DataError(f"{path}, row {i}: expected {colour[0].shape} and {VIEW_SIZE} twice, got {shapes}")
    return np.stack(colour), np.stack(depth), np.stack(hidden), np.stack(pose)


def read_keyframe_poses(folder: Path) -> Tensor:
    """The poses (n, 6) of a scene's keyframes, without their images.  Raises DataError."""
    path = folder / KEYFRAMES
    try:
        return torch.from_numpy(np.stack([_pose(row["pose"]) for row in _read_rows(path, ["pose"])]))
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: a damaged keyframe ({error}); build the scene again") from error


def _read_rows(path: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    import pyarrow as pa

    try:
        return read_rows(path, columns)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise DataError(f"{path}: not readable as keyframes ({first_line(error)}); {HINT}") from error


def _read_start(folder: Path, name: str) -> npt.NDArray[np.uint8]:
    if Path(name).name != name:
        raise DataError(f"{folder / 'scene.json'}: start images lie beside it, got {name!r}")
    path = folder / name
    try:
        if not path.is_file():
            raise FileNotFoundError("there is no such file")
        with path.open("rb") as file:
            return decode_image(file.read(MAX_IMAGE_BYTES + 1), "RGB")
    except Exception as error:  # decoders raise nearly anything on a damaged image
        raise DataError(f"{folder / name}: not a readable start image ({error}); build the scene again") from error


def _pose(values: Sequence[float]) -> npt.NDArray[np.float32]:
    pose = np.asarray(values, np.float32)
    is_sound = pose.shape == (6,) and bool((np.abs(pose) <= MAX_M).all())  # false for what is no number, too
    if not is_sound or math.fabs(float(pose[4])) > 90:
        raise ValueError(f"a pose is six finite numbers (x, y, z, yaw, pitch, roll), got {str(values)[:100]}")
    return pose


def _text(value: Any) -> str:
    """A text.  Raises ValueError for one that cannot be written: JSON can hold half of a surrogate pair."""
    text = str(value)
    text.encode()
    return text
