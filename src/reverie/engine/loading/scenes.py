"""Scenes by name, and on the device: what a session that opens in one shares with the others there."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from reverie.engine.loading.models import WEIGHTS
from reverie.errors import CheckpointError, DataError
from reverie.models.checkpoint import ModelConfig
from reverie.models.weights import fingerprint as weights_fingerprint
from reverie.scenes.body_matching import Body
from reverie.scenes.ground import Ground
from reverie.scenes.keyframes import Candidates, Keyframes
from reverie.scenes.scene import Scene, Start, pick_start, read_head
from reverie.vision.projection import focal_lengths

BUNDLED = WEIGHTS / "scenes"
"""Folder of the bundled scenes."""


def bundled_scenes() -> list[Path]:
    """Folders of the bundled scenes, by name."""
    return sorted(file.parent for file in BUNDLED.glob("*/scene.json"))


def find_scene(scene: str | Path) -> Path:
    """The folder of a bundled scene, or a folder as it is.  Raises DataError, naming what there is."""
    path = Path(scene)
    if path.is_dir():
        return path
    names = [folder.name for folder in bundled_scenes()]
    if str(scene) in names:
        return BUNDLED / str(scene)
    raise DataError(
        f"there is no scene {str(scene)!r}; expected a bundled one ({', '.join(names) or 'none'}) or a folder that "
        f"`reverie scene build` has made"
    )


@dataclass(frozen=True, slots=True)
class SceneCard:
    """A scene without its keyframes: what choosers show.  folder: where it lies."""

    folder: Path
    title: str
    keys: tuple[str, ...]
    mouse: bool
    starts: tuple[Start, ...]

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @classmethod
    def read(cls, scene: str | Path) -> SceneCard:
        """Reads the card of a bundled scene, or of a folder.  Raises DataError."""
        folder = find_scene(scene)
        head = read_head(folder)
        return cls(folder, head.title, head.keys, head.mouse, head.starts)

    def start(self, index: int) -> Start:
        """Raises DataError for a start that the scene does not have."""
        return pick_start(self.name, self.starts, index)

    def check(self, config: ModelConfig) -> None:
        """Raises CheckpointError for a model without a spatial memory, DataError for a scene that does not fit it."""
        check_scene(self.name, self.starts[0].image.shape[:2], self.keys, config)


def check_scene(name: str, resolution: tuple[int, ...], keys: tuple[str, ...], config: ModelConfig) -> None:
    """Raises CheckpointError for a model without a spatial memory, DataError for a scene that does not fit it."""
    if config.memory is None:
        raise CheckpointError(f"{config.name} has no spatial memory, so it opens no scenes; give it an image")
    if tuple(resolution) != tuple(config.resolution):
        got, wanted = ("x".join(map(str, size)) for size in (resolution, config.resolution))
        raise DataError(f"scene {name} has keyframes of {got} pixels, {config.name} takes {wanted}")
    if unknown := sorted(set(keys) - set(config.action_space.keys)):
        raise DataError(
            f"scene {name} is of a game with the key {unknown[0]!r}; {config.name} knows "
            f"{', '.join(config.action_space.keys)}"
        )


@dataclass(frozen=True, slots=True)
class LoadedScene:
    """A scene on the device, for one model."""

    scene: Scene
    candidates: Candidates
    fingerprint: str

    @classmethod
    def new(cls, scene: Scene, config: ModelConfig, device: torch.device) -> LoadedScene:
        """Raises CheckpointError for a model without a spatial memory, DataError for a scene that does not fit it."""
        check_scene(scene.name, scene.resolution, scene.keys, config)
        focal = focal_lengths(torch.tensor([scene.fov_deg]), scene.pixel_aspect)[0]
        keyframes = Keyframes.new(
            torch.from_numpy(np.ascontiguousarray(scene.colour.transpose(0, 3, 1, 2))),
            torch.from_numpy(scene.depth),
            torch.from_numpy(scene.hidden),
            torch.from_numpy(scene.pose),
            focal,
        )
        digest = hashlib.sha256(scene.pose.tobytes() + scene.depth.tobytes() + scene.colour.tobytes())
        if (network := scene.ego_motion_for(config.action_space)) is not None:
            network = network.to(device)
            digest.update(weights_fingerprint(network.state_dict()).encode())
        if scene.ways is not None:
            digest.update(scene.ways.poses.tobytes())
        body = None
        if scene.body is not None and (columns := scene.columns_in(config.action_space)) is not None:
            body = Body.of(scene.body, columns, config.action_space.size).to(device)
            digest.update(scene.body.image.tobytes() + scene.body.embedding.tobytes() + scene.body.weights.tobytes())
        ground = Ground.of(keyframes.pose.to(device), scene.ways)
        candidates = Candidates.of_scene(keyframes.to(device), ground=ground)
        candidates = candidates._replace(ego_motion=network, walls=scene.walls, body=body)
        return cls(scene, candidates, f"{scene.name}/{digest.hexdigest()[:12]}")


@dataclass(frozen=True, slots=True)
class Opening:
    """The scene that a session begins in.  number: of its start; None for an image of the player's own."""

    loaded: LoadedScene
    number: int | None
