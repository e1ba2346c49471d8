"""Localisation of a game's frame, whose camera is known: the scene that shows the same place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from reverie.engine.engine import Engine
from reverie.engine.loading.scenes import LoadedScene, bundled_scenes
from reverie.errors import CheckpointError, DataError
from reverie.scenes.scene import read_scene_json
from reverie.types import Camera
from reverie.vision.pixels import psnr_db, shrink_frames
from reverie.vision.projection import focal_lengths

MIN_COVER = 0.5
"""Share of the frame that a scene's keyframes must show."""
MIN_PSNR_DB = 14.0
"""Likeness of what they show to the frame: below, it is another place with the same coordinates."""
FOV_SLACK_DEG = 0.5


def scenes_of(engine: Engine, game: str) -> dict[Path, LoadedScene]:
    """The bundled scenes of `game` that the model can play in, by folder."""
    found = {}
    for folder in bundled_scenes():
        try:
            if read_scene_json(folder).get("game") == game:
                found[folder] = engine.load_scene(folder)
        except (CheckpointError, DataError):
            continue
    return found


def find_scene_at(
    engine: Engine, scenes: Mapping[Path, LoadedScene], frame: npt.NDArray[np.uint8], camera: Camera
) -> Path | None:
    """The folder of the scene that shows what `frame` (H, W, 3) shows, seen from `camera`; None where none does."""
    best, found = MIN_PSNR_DB, None
    for folder, loaded in scenes.items():
        if abs(loaded.scene.fov_deg - camera.fov_deg) > FOV_SLACK_DEG:
            continue
        cover, psnr_db = compare_view(engine, loaded, frame, camera)
        if cover >= MIN_COVER and psnr_db >= best:
            best, found = psnr_db, folder
    return found


@torch.inference_mode()
def compare_view(
    engine: Engine, loaded: LoadedScene, frame: npt.NDArray[np.uint8], camera: Camera
) -> tuple[float, float]:
    """Renders a scene from `camera` and compares it: covered share of the view, 0 to 1, and PSNR there against `frame`,
    dB."""
    memory = engine.bundle.memory
    assert memory is not None, "a scene is loaded for models with a memory only"
    state = memory.init_state(1, engine.resolution, engine.device, len(loaded.candidates.keyframes))
    state.focal.copy_(focal_lengths(torch.tensor([camera.fov_deg]), camera.pixel_aspect))
    pose = torch.from_numpy(camera.pose).to(engine.device)
    view, _ = memory.render(state, pose.expand(1, 4, 6), loaded.candidates)
    small = shrink_frames(torch.from_numpy(np.array(frame)).to(engine.device).permute(2, 0, 1)[None])[0]
    cover = view.cover[0, 0].float()
    share = float(cover.mean())
    error = ((view.colour[0, 0].clamp(-1, 1) - small).square().mean(0) * cover).mean() / max(share, 1e-6)
    return share, psnr_db(float(error))
