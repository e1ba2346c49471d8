"""Model under test: one of ours, or anybody's behind one Python file, and its tokenizer if it has one."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from reverie.engine.engine import Engine, load
from reverie.engine.runtime import hash_files
from reverie.errors import CheckpointError, DeviceError
from reverie.evaluate.rollout import Dreamer
from reverie.paths import own_files
from reverie.types import FPS, Frames
from reverie.vision.pixels import to_frames, to_pixels

CHUNK = 12


@dataclass(frozen=True, slots=True)
class ModelUnderTest:
    """A model under evaluation.

    fingerprint: changes with its weights, its number type and its device.
    fov_deg: horizontal field of view that a world model of ours takes its turns to be in.
    tokenizer: with its device and number type.  is_stream: it encodes videos, not each frame for itself.
    """

    name: str
    fingerprint: str
    dreamer: Dreamer
    fps: int = FPS
    block_frames: int = 1
    fov_deg: float | None = None
    tokenizer: Any = None
    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.float32
    is_stream: bool = True

    @property
    def engine(self) -> Engine:
        """The engine of a model of ours.  Raises CheckpointError for a rival's."""
        if not isinstance(self.dreamer, Engine):
            raise CheckpointError(f"{self.name} is behind a file of its own, so it opens no scenes; leave --scene out")
        return self.dreamer

    @torch.inference_mode()
    def rebuild(self, frames: Frames) -> Frames:
        """Frames (f, H, W, 3) through its tokenizer and back, as the model itself uses it."""
        if self.is_stream:
            return self._rebuild_stream(frames)
        chunks = (frames[i : i + CHUNK] for i in range(0, len(frames), CHUNK))
        return np.concatenate([self._rebuild_each(chunk) for chunk in chunks])

    def _rebuild_stream(self, frames: Frames) -> Frames:
        size = (1, *frames.shape[1:3], self.device, self.dtype)
        encoder, decoder = self.tokenizer.new_encoder_state(*size), self.tokenizer.new_decoder_state(*size)
        whole = np.concatenate([frames, frames[-1:].repeat(-(len(frames) - 1) % 4, 0)])
        latents = (
            self.tokenizer.encode(self._pixels(whole[first:last]), encoder) for first, last in chunk_bounds(len(whole))
        )
        return np.concatenate([to_frames(self.tokenizer.decode(z, decoder)[0]) for z in latents])[: len(frames)]

    def _rebuild_each(self, frames: Frames) -> Frames:
        latents = self.tokenizer.encode(self._pixels(frames)[0][:, None])
        return np.concatenate([to_frames(video) for video in self.tokenizer.decode(latents)])

    def _pixels(self, frames: Frames) -> torch.Tensor:
        video = torch.from_numpy(np.ascontiguousarray(frames)).to(self.device)
        return to_pixels(video.permute(0, 3, 1, 2)[None]).to(self.dtype)


def chunk_bounds(num_frames: int) -> Iterator[tuple[int, int]]:
    """(first, last) of each chunk of a stream of 1 + 4n frames: the first frame alone, then CHUNK at a time."""
    yield 0, 1
    for first in range(1, num_frames, CHUNK):
        yield first, min(first + CHUNK, num_frames)


def open_model(model: str, device: str = "auto", dtype: str = "auto") -> ModelUnderTest:
    """Opens `nano`, a model folder, a hub id, or `path/to/rival.py:FOLDER`, a module with `load(folder, device=...)`.

    Its code runs as it is written: an evaluation opens a session for every clip, and each would be captured anew.
    Raises CheckpointError, DeviceError.
    """
    script, colon, folder = model.partition(".py:")
    if colon:
        return _open_rival(Path(f"{script}.py"), Path(folder), device)
    engine = load(model, device=device, dtype=dtype, mode="eager")
    return ModelUnderTest(
        engine.name,
        engine.fingerprint,
        engine,
        engine.fps,
        engine.block_frames,
        engine.bundle.config.mouse_fov_deg,
        engine.bundle.tokenizer,
        engine.device,
        engine.dtype,
    )


def _open_rival(script: Path, folder: Path, device: str) -> ModelUnderTest:
    if not script.is_file():
        raise CheckpointError(f"there is no {script}; a rival is named as path/to/rival.py:FOLDER")
    if not folder.is_dir():
        raise CheckpointError(f"there is no folder {folder} for {script.name}; train the rival first")
    module = _import(script)
    if not callable(getattr(module, "load", None)):
        raise CheckpointError(f"{script} has no load(folder, device=...); see bench/rivals/oasis.py")
    if device != "auto" and not device.startswith(("cpu", "cuda")):
        raise DeviceError(f"unknown device {device!r}; expected auto, cpu, cuda or cuda:N")
    dreamer: Any = module.load(folder, device=device)
    for name in ("open", "action_space", "resolution"):
        if not hasattr(dreamer, name):
            raise CheckpointError(f"what {script}:load gives has no {name}; see evaluate/rollout.py, Dreamer")
    name, where = str(getattr(dreamer, "name", folder.name)), torch.device(getattr(dreamer, "device", "cpu"))
    block_frames = int(getattr(dreamer, "block_frames", 1))
    return ModelUnderTest(
        name,
        f"{script.stem}/{name}/{_hash(script, folder)}/{where.type}",
        dreamer,
        int(getattr(dreamer, "fps", FPS)),
        block_frames,
        tokenizer=getattr(dreamer, "tokenizer", None),
        device=where,
        dtype=getattr(dreamer, "dtype", torch.float32),
        is_stream=block_frames > 1,
    )


def _import(script: Path) -> ModuleType:
    name = f"reverie_rival_{script.stem}"
    spec = importlib.util.spec_from_file_location(name, script)
    if spec is None or spec.loader is None:
        raise CheckpointError(f"{script} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise CheckpointError(f"{script} cannot be imported: {type(error).__name__}: {error}") from error
    return module


def _hash(script: Path, folder: Path) -> str:
    weights = own_files(file for file in folder.rglob("*") if file.suffix in {".safetensors", ".json", ".pth"})
    return hashlib.sha256(hash_files([script, *weights]).encode()).hexdigest()[:12]
