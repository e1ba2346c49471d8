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

from reverie.errors import CheckpointError, DeviceError
from reverie.evaluate.rollout import Dreamer
from reverie.models.pixels import to_frames, to_pixels
from reverie.paths import own_files
from reverie.types import FPS, Frames

CHUNK = 12


@dataclass(frozen=True, slots=True)
class Subject:
    """A model under evaluation.  fingerprint: changes with its weights, its number type and its device."""

    name: str
    fingerprint: str
    dreamer: Dreamer

    @property
    def fps(self) -> int:
        return int(getattr(self.dreamer, "fps", FPS))

    @property
    def block_frames(self) -> int:
        return int(getattr(self.dreamer, "block_frames", 1))

    @property
    def fov_deg(self) -> float | None:
        """Horizontal field of view that a world model of ours takes its turns to be in; None where it has none."""
        bundle = getattr(self.dreamer, "bundle", None)
        return None if bundle is None else bundle.config.mouse_fov_deg

    def rebuild(self, frames: Frames) -> Frames | None:
        """Frames (f, H, W, 3) through its tokenizer and back, as the model itself uses it; None if it has none."""
        bundle = getattr(self.dreamer, "bundle", None)
        tokenizer = bundle.tokenizer if bundle is not None else getattr(self.dreamer, "tokenizer", None)
        if tokenizer is None:
            return None
        device, dtype = getattr(self.dreamer, "device", "cpu"), getattr(self.dreamer, "dtype", torch.float32)
        if bundle is None and self.block_frames == 1:
            return _rebuild_apart(tokenizer, frames, torch.device(device), dtype)
        return rebuild_stream(tokenizer, frames, torch.device(device), dtype)


def open_subject(model: str, device: str = "auto", dtype: str = "auto") -> Subject:
    """`nano`, a model folder, a hub id, or `path/to/rival.py:FOLDER`, whose module has `load(folder, device=...)`.

    Raises CheckpointError, DeviceError.
    """
    script, colon, folder = model.partition(".py:")
    if colon:
        return _open_rival(Path(f"{script}.py"), Path(folder), device)
    from reverie.engine.engine import load

    engine = load(model, device=device, dtype=dtype)
    return Subject(engine.name, engine.fingerprint, engine)


def _open_rival(script: Path, folder: Path, device: str) -> Subject:
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
    name = str(getattr(dreamer, "name", folder.name))
    where = torch.device(getattr(dreamer, "device", "cpu")).type
    return Subject(name, f"{script.stem}/{name}/{_hash(script, folder)}/{where}", dreamer)


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
    from reverie.engine.runtime import hash_files

    weights = own_files(file for file in folder.rglob("*") if file.suffix in {".safetensors", ".json", ".pth"})
    return hashlib.sha256(hash_files([script, *weights]).encode()).hexdigest()[:12]


@torch.inference_mode()
def rebuild_stream(tokenizer: Any, frames: Frames, device: torch.device, dtype: torch.dtype) -> Frames:
    """Frames (f, H, W, 3) through a causal tokenizer as a stream and back; same shape."""
    height, width = frames.shape[1:3]
    encoder = tokenizer.new_encoder_state(1, height, width, device, dtype)
    decoder = tokenizer.new_decoder_state(1, height, width, device, dtype)
    whole = np.concatenate([frames, frames[-1:].repeat(-(len(frames) - 1) % 4, 0)])
    pieces = [
        to_frames(tokenizer.decode(tokenizer.encode(_pixels(whole[first:last], device, dtype), encoder), decoder)[0])
        for first, last in chunk_bounds(len(whole))
    ]
    return np.concatenate(pieces)[: len(frames)]


@torch.inference_mode()
def _rebuild_apart(tokenizer: Any, frames: Frames, device: torch.device, dtype: torch.dtype) -> Frames:
    """Each frame for itself, as models of single frames use the tokenizer."""
    pieces = []
    for first in range(0, len(frames), CHUNK):
        pixels = _pixels(frames[first : first + CHUNK], device, dtype)[0][:, None]
        pieces.append(np.concatenate([to_frames(video) for video in tokenizer.decode(tokenizer.encode(pixels))]))
    return np.concatenate(pieces)


def _pixels(frames: Frames, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    video = torch.from_numpy(np.ascontiguousarray(frames)).to(device)
    return to_pixels(video.permute(0, 3, 1, 2)[None]).to(dtype)


def chunk_bounds(num_frames: int) -> Iterator[tuple[int, int]]:
    """(first, last) of each chunk of a stream of 1 + 4n frames: the first frame alone, then CHUNK at a time."""
    yield 0, 1
    for first in range(1, num_frames, CHUNK):
        yield first, min(first + CHUNK, num_frames)
