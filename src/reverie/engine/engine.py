"""The engine: a model, loaded and warm, that opens sessions."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from reverie.engine.device import pick_device, pick_dtype, set_threads
from reverie.engine.images import ImageSource, load_image
from reverie.engine.models import find_model
from reverie.engine.session import Session
from reverie.models.checkpoint import WEIGHTS, ModelBundle, load_model
from reverie.types import Action, ActionSpace

Progress = Callable[[float, str], None]
"""Told how much of the loading is done, from 0 to 1, and what is being done."""

STARTS = "starts"
"""The folder of start pictures in a model folder."""


def load(
    model: str | Path = "nano", *, device: str = "auto", dtype: str = "auto", progress: Progress | None = None
) -> Engine:
    """Load a model and warm it up.

    model: the name of a bundled model, or a model folder.  device: auto, cpu, cuda, cuda:N.  dtype: auto (measured
    on a CPU), float32, bfloat16, and float16 on a GPU.
    Raises CheckpointError for a folder that is missing or broken, DeviceError for what this machine does not have.
    """
    tell = progress or (lambda share, text: None)
    folder = find_model(model)
    tell(0.0, "looking at the machine")
    picked_device = pick_device(device)
    set_threads()
    picked_dtype = pick_dtype(dtype, picked_device)
    tell(0.2, "reading the weights")
    bundle = load_model(folder, picked_device, picked_dtype)
    engine = Engine(bundle, folder=folder, device=picked_device, dtype=picked_dtype)
    engine.warm_up(lambda share, text: tell(0.4 + 0.6 * share, text))
    return engine


class Engine:
    """A loaded model.  Sessions share its weights; `lock` lets one block be made at a time, on all cores."""

    def __init__(self, bundle: ModelBundle, *, folder: Path, device: torch.device, dtype: torch.dtype) -> None:
        self.bundle = bundle
        self.folder = folder
        self.device = device
        self.dtype = dtype
        self.weights_hash = hash_weights(folder)
        self.lock = threading.RLock()

    @property
    def name(self) -> str:
        return self.bundle.config.name

    @property
    def action_space(self) -> ActionSpace:
        return self.bundle.config.action_space

    @property
    def resolution(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.bundle.config.resolution

    @property
    def fps(self) -> int:
        """Frames per second."""
        return self.bundle.config.fps

    @property
    def block_frames(self) -> int:
        """Frames that one step of a session returns."""
        return self.bundle.config.world.block_frames

    @property
    def fingerprint(self) -> str:
        """Equal for engines whose snapshots can be exchanged: same name, weights, number type and kind of device."""
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self.name}/{self.weights_hash}/{dtype}/{self.device.type}"

    def start_images(self) -> list[tuple[str, Image.Image]]:
        """The start pictures that came with the model, by name; empty where there are none."""
        folder = self.folder / STARTS
        files = sorted(file for file in folder.glob("*") if file.suffix.lower() in {".png", ".jpg", ".webp"})
        return [(file.stem, Image.fromarray(load_image(file, self.resolution))) for file in files]

    def open(self, image: ImageSource, seed: int = 0) -> Session:
        """Start a world in `image` (a path, the bytes of a file, PIL, or an array of any size).

        Raises ImageError for a picture that cannot be used.
        """
        return Session(self, load_image(image, self.resolution), seed)

    def warm_up(self, progress: Progress) -> None:
        """Run until every shape that a session meets has been seen: kernels are chosen, memory is taken."""
        ramp = np.linspace(64, 192, self.resolution[1], dtype=np.uint8)[None, :, None]
        progress(0.0, "warming up")
        session = self.open(np.broadcast_to(ramp, (*self.resolution, 3)))
        num_blocks = self.bundle.config.world.window // self.bundle.config.world.block + 2
        for block in range(num_blocks):
            session.step(Action())
            progress((block + 1) / num_blocks, "warming up")
        session.close()


def hash_weights(folder: Path) -> str:
    """A short hash of a model folder's weights and configuration: 12 hexadecimal digits."""
    digest = hashlib.sha256()
    for name in ("config.json", *sorted(WEIGHTS.values())):
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:12]
