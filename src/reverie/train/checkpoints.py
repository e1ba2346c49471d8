"""Checkpoints of a training, written under another name, then renamed, so that a kill loses none; the folder's lock.

A sharded training's checkpoints are torch's distributed ones: every process writes and reads its own part, in a folder
that all of them see.  Any number of processes, sharded or not, goes on from either kind (from a sharded one: with
AdamW, all that sharded trainings use).  Only load what you trust: a distributed checkpoint's index is a pickle.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import IO

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor, distribute_tensor

from reverie.errors import TrainError
from reverie.locks import lock
from reverie.train.device import is_device_failure

KEPT = 2
"""Checkpoints that stay on disk."""


@dataclass(slots=True)
class Progress:
    """Progress of a training: steps taken, seconds used over all resumes, steps left out for their gradients.

    micro_flops: arithmetic of one micro-batch, forward and backward (0 until counted).  data_size: size of the training
    data, in the task's own unit (0: not known).
    """

    step: int = 0
    elapsed_s: float = 0.0
    skipped: int = 0
    micro_flops: float = 0.0
    data_size: int = 0


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
            lock(self._file.fileno())
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

    def elapsed_s(self) -> float:
        """Seconds of training that the newest one holds; 0 where there is none, or none that can be read."""
        latest = self.latest()
        try:
            return 0.0 if latest is None else float(json.loads((latest / "progress.json").read_text())["elapsed_s"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0.0

    def save(
        self,
        progress: Progress,
        norms: list[float],
        model: nn.Module,
        ema: Sequence[Tensor],
        optimizers: Sequence[torch.optim.Optimizer],
    ) -> Path:
        """Write a checkpoint and drop the oldest beyond `KEPT`.  Raises TrainError if the disk refuses.

        Called by all processes of a sharded training, and by the first one of any other.
        """
        target = self._folder / f"step-{progress.step:09d}"
        if target.exists():
            return target
        sharded = _is_sharded(model)
        is_first = not sharded or dist.get_rank() == 0
        partial = self._folder / f".{target.name}.partial"
        try:
            if is_first:
                shutil.rmtree(partial, ignore_errors=True)
            if sharded:
                dist.barrier()
                save(_named(model, ema, optimizers), checkpoint_id=partial)  # fails in all processes, or in none
            else:
                partial.mkdir(parents=True)
                save_file(_plain(model.state_dict()), partial / "model.safetensors")
                save_file(_plain({str(i): tensor for i, tensor in enumerate(ema)}), partial / "ema.safetensors")
                torch.save([optimizer.state_dict() for optimizer in optimizers], partial / "optimizers.pt")
            if is_first:
                names = [_names(model, optimizer) for optimizer in optimizers]
                saved = asdict(progress) | {"norms": norms, "optimizer_names": names}
                (partial / "progress.json").write_text(json.dumps(saved))
                for path in partial.iterdir():
                    _flush(path)
                partial.rename(target)
        except (OSError, RuntimeError, SafetensorError, CheckpointException) as error:
            if is_device_failure(error):
                raise
            raise TrainError(
                f"cannot write the checkpoint {target}: {_reason(error)} ({_free_mib(self._folder)} there); "
                "free some space and run the same command to go on"
            ) from error
        if is_first:
            for old in self._all()[:-KEPT]:
                shutil.rmtree(old, ignore_errors=True)
        return target

    def load(
        self, path: Path, model: nn.Module, ema: Sequence[Tensor], optimizers: Sequence[torch.optim.Optimizer]
    ) -> tuple[Progress, list[float]]:
        """Restore everything in place.  Raises TrainError for a damaged checkpoint or one of another model."""
        try:
            saved = json.loads((path / "progress.json").read_text())
            if (path / ".metadata").exists():
                _load_distributed(path, model, ema, optimizers)
            else:
                _load_plain(path, saved.get("optimizer_names"), model, ema, optimizers)
        except _Another as error:
            raise TrainError(
                f"the checkpoint {path} is of another model or optimizer ({_reason(error)}); give another folder"
            ) from error
        except (*_DAMAGE, CheckpointException) as error:
            if is_device_failure(error):
                raise
            raise TrainError(
                f"{path} is damaged ({_reason(error)}); delete it to resume from the one before"
            ) from error
        norms = saved.pop("norms")
        saved.pop("optimizer_names", None)
        return Progress(**saved), norms


_DAMAGE = (OSError, SafetensorError, RuntimeError, ValueError, EOFError, UnpicklingError, AttributeError, ImportError)
"""Exceptions that readers raise for a file that was cut short or overwritten."""


class _Another(Exception):
    """A sound checkpoint that does not fit."""


def _load_plain(
    path: Path,
    optimizer_names: list[list[str]] | None,
    model: nn.Module,
    ema: Sequence[Tensor],
    optimizers: Sequence[torch.optim.Optimizer],
) -> None:
    """From whole tensors, of which a sharded model takes its part."""
    weights = load_file(path / "model.safetensors")
    averages = load_file(path / "ema.safetensors")
    states = torch.load(path / "optimizers.pt", map_location="cpu", weights_only=True)
    sharded = _is_sharded(model)
    try:
        if not sharded:
            model.load_state_dict(weights)
        elif (found := model.state_dict()).keys() == weights.keys():
            for name, tensor in found.items():
                _fill(tensor, weights[name])
        else:
            raise _Another(f"its weights are {_first_difference(found, weights)}")
        for i, tensor in enumerate(ema):
            _fill(tensor, averages[str(i)])
        if not sharded:
            for optimizer, state in zip(optimizers, states, strict=True):
                optimizer.load_state_dict(state)
        elif optimizer_names is None or len(optimizer_names) != 1:
            raise _Another("sharded trainings go on from AdamW's alone; resume without --shard")
        else:
            _spread(optimizers, dict(model.named_parameters()), optimizer_names[0], states[0]["state"])
    except (RuntimeError, KeyError, ValueError) as error:
        if is_device_failure(error):
            raise
        raise _Another(_reason(error)) from error


def _spread(
    optimizers: Sequence[torch.optim.Optimizer],
    parameters: dict[str, nn.Parameter],
    names: list[str],
    states: dict[int, dict[str, Tensor]],
) -> None:
    """An unsharded optimizer's state, numbered in the order of `names`, as that of sharded parameters."""
    for number, values in states.items():
        parameter = parameters[names[number]]
        own = {key: torch.zeros_like(parameter if value.ndim else value) for key, value in values.items()}
        for key, value in values.items():
            _fill(own[key], value)
        _adamw_of(optimizers, parameter).state[parameter] = own


def _load_distributed(
    path: Path, model: nn.Module, ema: Sequence[Tensor], optimizers: Sequence[torch.optim.Optimizer]
) -> None:
    """From the parts that the processes of a sharded training wrote, however many there were and are."""
    there = FileSystemReader(path).read_metadata().state_dict_metadata
    wanted = _named(model, ema, [])
    sizes = {
        name: tuple(tensor.size) if isinstance(tensor, TensorStorageMetadata) else () for name, tensor in there.items()
    }
    weights = {name: size for name, size in sizes.items() if not name.startswith("optimizer/")}
    if weights != {name: tuple(tensor.shape) for name, tensor in wanted.items()}:
        raise _Another(f"its weights are {_first_difference(wanted, weights)}")
    states: dict[str, dict[str, Tensor]] = {}
    parameters = dict(model.named_parameters())
    for entry in sizes.keys() - weights.keys():
        _, name, key = entry.split("/")
        like = torch.zeros(()) if key == "step" else torch.zeros_like(parameters[name])
        wanted[entry] = states.setdefault(name, {})[key] = like.detach()
    targets = {name: _adamw_of(optimizers, parameters[name]) for name in states}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one process may well read what several wrote
        load(wanted, checkpoint_id=path)
    for name, state in states.items():
        targets[name].state[parameters[name]] = state


def _adamw_of(optimizers: Sequence[torch.optim.Optimizer], parameter: nn.Parameter) -> torch.optim.Optimizer:
    for optimizer in optimizers:
        if isinstance(optimizer, torch.optim.AdamW):
            for group in optimizer.param_groups:
                if any(p is parameter for p in group["params"]):
                    return optimizer
    raise _Another("it was trained by AdamW alone; resume with --no-muon")


def _names(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """The optimizer's parameters, in the order in which its state numbers them."""
    names = {p: name for name, p in model.named_parameters()}
    return [names[p] for group in optimizer.param_groups for p in group["params"]]


def _named(model: nn.Module, ema: Sequence[Tensor], optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Everything, under names that depend on the model alone."""
    named = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    named |= {f"ema/{i}": tensor for i, tensor in enumerate(ema)}
    for optimizer in optimizers:
        for name, parameter in ((n, p) for n, p in model.named_parameters() if p in optimizer.state):
            named |= {f"optimizer/{name}/{key}": value for key, value in optimizer.state[parameter].items()}
    return named


def _first_difference(ours: Iterable[str], theirs: Iterable[str]) -> str:
    """In words, for a message."""
    missing, unknown = sorted(set(ours) - set(theirs)), sorted(set(theirs) - set(ours))
    if missing:
        return f"without {missing[0]}"
    return f"with {unknown[0]}, which is unknown" if unknown else "of other shapes"


def _is_sharded(model: nn.Module) -> bool:
    return any(isinstance(p, DTensor) for p in model.parameters())


@torch.no_grad()
def _fill(target: Tensor, whole: Tensor) -> None:
    """Copy a whole tensor, or this process's part of it, into `target`.  Raises ValueError for another shape."""
    if target.shape != whole.shape:
        raise ValueError(f"expected shape {tuple(target.shape)}, got {tuple(whole.shape)}")
    if isinstance(target, DTensor):
        mesh = target.device_mesh
        whole = distribute_tensor(whole.to(target.device), mesh, target.placements, src_data_rank=None)
    target.copy_(whole)


def _reason(error: BaseException) -> str:
    """The first line of what went wrong, in the process where it did."""
    if isinstance(error, CheckpointException):
        error = next(iter(error.failures.values()))[0]
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error) or type(error).__name__).splitlines()[0]


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Prepares tensors for safetensors: contiguous, on the CPU, sharing no memory."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }


def _free_mib(folder: Path) -> str:
    """Formats the disk's free space for error messages: those of the tensor writers are hard to read when it is
    full."""
    try:
        return f"{shutil.disk_usage(folder).free / 2**20:.0f} MiB free"
    except OSError:
        return "no such folder"


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
