"""A tiny model with a spatial memory, shaken, a scene of its own, and the page that is exported of both, once."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.helpers.small_model import save_small_model

from reverie.engine.engine import Engine, load
from reverie.export.runtime import cached_archive
from reverie.models import presets
from reverie.models.schedule import Schedule
from reverie.models.start_frames import NewStartFrame, write_start_frames
from reverie.scenes.recorded_body import RecordedBody
from reverie.scenes.scene import Scene, Start
from reverie.vision.projection import VIEW_SIZE


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """Every part of nano, with weights that let the past, actions and noise reach its frames."""
    folder = tmp_path_factory.mktemp("web") / "tiny"
    save_small_model(folder, presets.tiny_memory(), Schedule((1.0, 0.5), context_sigma=0.06), noise=0.05, card="")
    write_start_frames(folder, [NewStartFrame(_image(1), "a patch"), NewStartFrame(_image(2), "another")])
    return load(folder, device="cpu", dtype="float32")


def _image(seed: int) -> np.ndarray:
    coarse = torch.rand(1, 3, 4, 6, generator=torch.Generator().manual_seed(seed))
    image = torch.nn.functional.interpolate(coarse, presets.tiny().resolution, mode="bilinear", align_corners=True)
    return (image[0].permute(1, 2, 0) * 255).round().byte().numpy()


@pytest.fixture(scope="session")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene of four keyframes that look to all sides, with a player who is seen."""
    pose = np.zeros((4, 6), np.float32)
    pose[:, 3] = [0, 90, 180, 270]
    scene = Scene(
        name="yard",
        title="The yard",
        game="yard",
        fov_deg=80.0,
        pixel_aspect=1.0,
        keys=("forward", "left"),
        mouse=True,
        licence="MIT",
        starts=(Start("looking north", _image(3), pose[0]),),
        colour=np.stack([_image(4 + i) for i in range(4)]),
        depth=np.full((4, *VIEW_SIZE), 6.0, np.float32),
        hidden=np.zeros((4, *VIEW_SIZE), bool),
        pose=pose,
        body=_body(),
    )
    folder = tmp_path_factory.mktemp("scenes") / "yard"
    scene.save(folder)
    return folder


def _body() -> RecordedBody:
    """Two clips of a patch near the bottom of the frame, told apart by what was done before."""
    height, width = presets.tiny().resolution
    rand = np.random.default_rng(9)
    image = np.stack([_image(20 + i)[: height // 3, : width // 4] for i in range(12)])
    opacity = np.zeros((*image.shape[:3], 1), np.uint8)
    opacity[:, 1:-1, 1:-1] = 255
    past = 6 * (len(("forward", "left", "pitch", "yaw")) + 6)
    return RecordedBody(
        np.concatenate([image, opacity], -1),
        (height // 2, width // 3),
        np.repeat([0, 1], 6),
        rand.normal(size=(12, 5)).astype(np.float32),
        np.zeros(past, np.float32),
        rand.normal(size=(past, 5)).astype(np.float32),
    )


@pytest.fixture(scope="session")
def export_web() -> Callable[..., int]:
    """The exporter; skips where the packages for it are not installed or the runtime was never fetched."""
    from reverie.export.web import export_web

    for name in ("onnx", "onnxscript"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f'{name} is not installed: pip install "reverie-world[web]"')
    if not cached_archive().is_file():
        pytest.skip("onnxruntime-web is not here: `reverie export web nano -o DIR` fetches it")
    return partial(export_web, tell=lambda share, text: None)


@pytest.fixture(scope="session")
def page(export_web: Callable[..., int], engine: Engine, yard: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported folder."""
    folder = tmp_path_factory.mktemp("pages") / "page"
    export_web(engine, folder, scene=yard)
    return folder
