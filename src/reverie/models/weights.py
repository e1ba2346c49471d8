"""Weight files, read a piece at a time straight into a module: what is read is never in memory twice.

A file is safetensors, or a `.pth` that holds tensors and nothing else.  Foreign files have names of their own: a
`Names` function says which stored tensors make up one of ours, stacked along the first axis.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from reverie.errors import CheckpointError

PIECE_BYTES = 256 * 2**20
"""How much of a file may be mapped at once: mapped pages count as memory of the process."""

Names = Callable[[str], tuple[str, ...]]
"""One of our tensors' names -> the names under which a file holds it: one, or several to be stacked."""

Shape = tuple[int, ...]


def same_name(name: str) -> tuple[str, ...]:
    """The names of our own files."""
    return (name,)


class TensorFile:
    """The tensors of one file.  shapes: of every tensor, by name, in the file's order; known before any is read.

    Raises CheckpointError for a file that is missing, damaged, cut off, or that holds anything but tensors.
    """

    def __init__(self, path: str | Path, hint: str = "") -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise CheckpointError(f"{self.path} is missing{'; ' + hint if hint else ''}")
        self.is_pickle = self.path.suffix in {".pth", ".pt", ".bin"}
        if self.is_pickle:
            self.shapes: dict[str, Shape] = {name: tuple(t.shape) for name, t in self._unpickle().items()}
        else:
            self.shapes = self._read_shapes()

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor, mapped and not copied: copy what you keep before you ask for the next."""
        names = list(self.shapes)
        while names:
            piece, size = self._map(), 0
            while names and size < PIECE_BYTES:
                name = names.pop(0)
                tensor = piece(name)
                size += tensor.nbytes
                yield name, tensor
                del tensor
            del piece  # unmapped; what comes next is mapped anew

    def read(self, name: str) -> Tensor:
        """One tensor, as it is stored."""
        return self._map()(name).clone()

    def _map(self) -> Callable[[str], Tensor]:
        if self.is_pickle:
            return self._unpickle().__getitem__
        try:
            file = safe_open(str(self.path), "pt")  # type: ignore[no-untyped-call]
            return file.get_tensor
        except (SafetensorError, OSError, ValueError) as error:
            raise self._damaged(error) from error

    def _read_shapes(self) -> dict[str, Shape]:
        """From the header.  `safe_open` compares it with the file's length, so a cut file is found out here."""
        self._map()
        with self.path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        places = {name: place for name, place in header.items() if name != "__metadata__"}
        return {name: tuple(p["shape"]) for name, p in sorted(places.items(), key=lambda x: x[1]["data_offsets"])}

    def _unpickle(self) -> dict[str, Tensor]:
        try:
            content = self._torch_load(mmap=True)
        except pickle.UnpicklingError as error:
            raise CheckpointError(
                f"{self.path} holds more than tensors ({_reason(error)}); it will not be opened: "
                "get the file from where the model was published, or convert it to safetensors"
            ) from error
        except (RuntimeError, OSError, ValueError, EOFError, KeyError) as error:
            raise self._damaged(error) from error
        if not isinstance(content, dict) or not all(
            isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items()
        ):
            raise CheckpointError(
                f"{self.path} holds more than tensors by name; expected a state dict and nothing else"
            )
        return content

    def _torch_load(self, mmap: bool) -> object:
        try:
            return torch.load(self.path, map_location="cpu", mmap=mmap, weights_only=True)
        except RuntimeError as error:
            if mmap and "mmap" in str(error):  # torch's format of before 2020 cannot be mapped
                return self._torch_load(mmap=False)
            raise

    def _damaged(self, error: Exception) -> CheckpointError:
        kind = "weight file" if self.is_pickle else "safetensors file"
        return CheckpointError(
            f"{self.path} is not a readable {kind} ({_reason(error)}); it may have been cut off: copy or fetch it again"
        )


def fill(
    module: nn.Module,
    file: TensorFile,
    *,
    names: Names = same_name,
    ignore: str | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Fill every tensor of `module` from `file`, piece by piece.

    Tensors on the meta device are made on `device` (default: the CPU) as `dtype` (default: as stored); others are
    filled in place.  ignore: a pattern of stored names that are not wanted.  Shapes agree if they differ by axes of
    length 1, or where a convolution without overlap becomes a linear layer.
    Raises CheckpointError that names the missing, unknown or misshaped tensors, before anything is read.
    """
    wanted = module.state_dict()
    places = {stored: (ours, part) for ours in wanted for part, stored in enumerate(names(ours))}
    parts = {ours: len(names(ours)) for ours in wanted}
    _check(wanted, file, places, parts, re.compile(ignore) if ignore else None)
    made = {ours: tensor for ours, tensor in wanted.items() if not tensor.is_meta}
    with torch.no_grad():
        for stored, tensor in file:
            if stored not in places:
                continue
            ours, part = places[stored]
            if ours not in made:
                kind = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
                made[ours] = torch.empty_like(wanted[ours], device=device or "cpu", dtype=kind)
            piece = made[ours].chunk(parts[ours])[part] if parts[ours] > 1 else made[ours]
            piece.copy_(tensor.reshape(piece.shape))
    if any(tensor.is_meta for tensor in wanted.values()):
        module.load_state_dict(made, assign=True)
    if device is not None or dtype is not None:
        module.to(device=device, dtype=dtype)  # constants that no file holds


def _check(
    wanted: dict[str, Tensor],
    file: TensorFile,
    places: dict[str, tuple[str, int]],
    parts: dict[str, int],
    ignore: re.Pattern[str] | None,
) -> None:
    misshaped = []
    for stored, (ours, _) in places.items():
        expected = tuple(wanted[ours].shape)
        if parts[ours] > 1:
            expected = (expected[0] // parts[ours], *expected[1:])
        if stored in file.shapes and not _fits(file.shapes[stored], expected):
            misshaped.append(f"{stored} {list(file.shapes[stored])}, not {list(expected)}")
    problems = {
        "missing": [stored for stored in places if stored not in file.shapes],
        "unknown": [s for s in file.shapes if s not in places and not (ignore and ignore.search(s))],
        "misshaped": misshaped,
    }
    said = [f"{len(found)} {word} ({_some(found)})" for word, found in problems.items() if found]
    if said:
        raise CheckpointError(f"{file.path} does not fit the model in config.json: tensors {'; '.join(said)}")


def _fits(stored: Shape, expected: Shape) -> bool:
    if [n for n in stored if n != 1] == [n for n in expected if n != 1]:
        return True
    return len(stored) > 2 and expected == (stored[0], prod(stored[1:]))


def _some(found: list[str]) -> str:
    return ", ".join(sorted(found)[:3]) + (", ..." if len(found) > 3 else "")


def _reason(error: Exception) -> str:
    """The first sentence of torch's essay."""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return first.split(". ")[0][:160]
