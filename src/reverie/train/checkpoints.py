"""Checkpoints of a training, written under another name, then renamed, so that a kill loses none; the folder's lock."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import IO

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from reverie.errors import TrainError

KEPT = 2
"""Checkpoints that stay on disk."""


@dataclass(slots=True)
class Progress:
    """How far a training is: steps taken, seconds used over all resumes, steps left out for their gradients."""

    step: int = 0
    elapsed_s: float = 0.0
    skipped: int = 0


class FolderLock:
    """One training in a folder at a time.  The system drops the lock when the process ends, however it ends."""

    def __init__(self, folder: Path, held: bool = True) -> None:
        self._folder, self._held = folder, held
        self._file: IO[str] | None = None

    def __enter__(self) -> FolderLock:
        if not self._held:
            return self
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = (self._folder / ".lock").open("a+")
        except OSError as error:
            raise TrainError(f"cannot write to {self._folder}: {error.strerror}; give another folder") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.seek(0)
            owner = self._file.read().strip() or "unknown"
            self._file.close()
            raise TrainError(
                f"{self._folder} is being trained already by process {owner}; wait for it, or give another folder"
            ) from error
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


class Checkpoints:
    """The checkpoints of one training, in `folder/checkpoints/step-<number>`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "checkpoints"

    def _all(self) -> list[Path]:
        if not self._folder.is_dir():
            return []
        return sorted(path for path in self._folder.iterdir() if re.fullmatch(r"step-\d{9}", path.name))

    def latest(self) -> Path | None:
        """The newest one, or None."""
        found = self._all()
        return found[-1] if found else None

    def save(
        self,
        progress: Progress,
        norms: list[float],
        model: nn.Module,
        ema: Sequence[Tensor],
        optimizers: Sequence[torch.optim.Optimizer],
    ) -> Path:
        """Write a checkpoint and drop the oldest beyond `KEPT`.  Raises TrainError if the disk refuses."""
        target = self._folder / f"step-{progress.step:09d}"
        if target.exists():
            return target
        partial = self._folder / f".{target.name}.partial"
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            save_file(_plain(model.state_dict()), partial / "model.safetensors")
            save_file(_plain({str(i): tensor for i, tensor in enumerate(ema)}), partial / "ema.safetensors")
            torch.save([optimizer.state_dict() for optimizer in optimizers], partial / "optimizers.pt")
            (partial / "progress.json").write_text(json.dumps(asdict(progress) | {"norms": norms}))
            for path in partial.iterdir():
                _flush(path)
            partial.rename(target)
        except OSError as error:
            raise TrainError(
                f"cannot write the checkpoint {target}: {error.strerror or error}; free some space"
            ) from error
        for old in self._all()[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)
        return target

    def load(
        self, path: Path, model: nn.Module, ema: Sequence[Tensor], optimizers: Sequence[torch.optim.Optimizer]
    ) -> tuple[Progress, list[float]]:
        """Restore everything in place.  Raises TrainError for a damaged checkpoint or one of another model."""
        try:
            weights = load_file(path / "model.safetensors")
            averages = load_file(path / "ema.safetensors")
            states = torch.load(path / "optimizers.pt", map_location="cpu", weights_only=True)
            saved = json.loads((path / "progress.json").read_text())
        except (OSError, SafetensorError, RuntimeError, ValueError, EOFError, UnpicklingError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise TrainError(f"{path} is damaged ({reason}); delete it to resume from the one before") from error
        try:
            model.load_state_dict(weights)
            with torch.no_grad():
                for i, tensor in enumerate(ema):
                    tensor.copy_(averages[str(i)])
            for optimizer, state in zip(optimizers, states, strict=True):
                optimizer.load_state_dict(state)
        except (RuntimeError, KeyError, ValueError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise TrainError(
                f"the checkpoint {path} is of another model or optimizer ({reason}); give another folder"
            ) from error
        norms = saved.pop("norms")
        return Progress(**saved), norms


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What safetensors takes: contiguous, on the CPU, sharing no memory."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
