"""Weight files, read a piece at a time straight into a module: what is read is never in memory twice.

A file is safetensors, or a `.pth` that holds tensors and nothing else (a training's may hold them under a name, see
SECTIONS).  Large weights may be sharded as on the Hugging Face hub: `NAME-00001-of-0000N.safetensors`, and
`NAME.safetensors.index.json`, which gives the shard of each tensor; both are read by the name of the whole,
`NAME.safetensors`.  Foreign files have names of their own: a `Names` function lists which stored tensors make up one of
ours, stacked along the first axis.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, TypeGuard

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from reverie.errors import CheckpointError

PIECE_BYTES = 256 * 2**20
"""Bytes of a file that may be mapped at once: mapped pages count as memory of the process."""

SECTIONS = ("generator_ema", "generator", "ema", "model", "state_dict")
"""Sections of training `.pt` files that hold a model's tensors, best first: a moving average before the model
itself."""

Names = Callable[[str], tuple[str, ...]]
"""One of our tensors' names -> the names under which a file holds it: one, or several to be stacked."""

Shape = tuple[int, ...]


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """A short name for what these tensors hold."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def same_name(name: str) -> tuple[str, ...]:
    """The names of our own files."""
    return (name,)


def index_of(path: Path) -> Path:
    """The index that stands for `path` where its weights are sharded."""
    return path.with_name(path.name + ".index.json")


def files_of(path: Path) -> tuple[Path, ...]:
    """The files that hold what `path` names: itself, or an index and its shards, in order.  Raises CheckpointError for
    an index that cannot be read."""
    index = index_of(path)
    if path.is_file() or not index.is_file():
        return (path,)
    return (index, *(index.parent / name for name in sorted(set(read_index(index).places.values()))))


@dataclass(frozen=True, slots=True)
class Index:
    """Content of a shard index.  places: the shard of every tensor; num_bytes, save: of all shards together, and the
    mark of the save that they are of; None where the index has none."""

    places: dict[str, str]
    num_bytes: int | None
    save: str | None


def read_index(path: Path) -> Index:
    """Raises CheckpointError for an index that is damaged, or that names files anywhere but beside itself."""
    try:
        raw = json.loads(path.read_text())
        places, metadata = raw["weight_map"], raw.get("metadata") or {}
        if not places or not all(isinstance(x, str) for pair in places.items() for x in pair):
            raise ValueError("its weight_map does not name a shard for each tensor")
        for shard in set(places.values()):
            if Path(shard).name != shard:
                raise ValueError(f"it names {shard!r}, which is not a file beside it")
        return Index(dict(places), metadata.get("total_size"), metadata.get("save"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is not a readable index of shards ({_reason(error)}); copy or fetch it again"
        ) from error


class TensorFile:
    """The tensors of one file, or of the shards that stand for it.  shapes: of every tensor, by name, in the file's
    order; known before any is read.

    Raises CheckpointError for a file or a shard that is missing, damaged, cut off, of another save than its index, or
    that holds anything but tensors.
    """

    def __init__(self, path: str | Path, hint: str = "") -> None:
        self.path = Path(path)
        self._shards: list[TensorFile] = []
        if not self.path.is_file() and index_of(self.path).is_file():
            self.is_pickle = False
            self.shapes = self._open_shards()
            return
        if not self.path.is_file():
            raise CheckpointError(f"{self.path} is missing{'; ' + hint if hint else ''}")
        self.is_pickle = self.path.suffix in {".pth", ".pt", ".bin"}
        if self.is_pickle:
            self.shapes: dict[str, Shape] = {name: tuple(t.shape) for name, t in self._unpickle().items()}
        else:
            self.shapes = self._read_shapes()

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor, mapped and not copied: copy what you keep before you ask for the next."""
        for shard in self._shards:
            yield from shard
        if self._shards:
            return
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
        for shard in self._shards:
            if name in shard.shapes:
                return shard.read(name)
        return self._map()(name).clone()

    def _map(self) -> Callable[[str], Tensor]:
        if self.is_pickle:
            return self._unpickle().__getitem__
        try:
            file = safe_open(str(self.path), "pt")  # type: ignore[no-untyped-call]
            return file.get_tensor
        except (SafetensorError, OSError, ValueError) as error:
            raise self._damaged(error) from error

    def _open_shards(self) -> dict[str, Shape]:
        path = index_of(self.path)
        index = read_index(path)
        names = sorted(set(index.places.values()))
        shapes: dict[str, Shape] = {}
        num_bytes = 0
        for name in names:
            file = path.parent / name
            if not file.is_file():
                raise CheckpointError(
                    f"{file} is missing, one of {len(names)} shards that {path.name} names; copy or fetch it again"
                )
            shard = TensorFile(file)
            expected = {tensor for tensor, place in index.places.items() if place == name}
            if expected != shard.shapes.keys():
                odd = sorted(expected ^ shard.shapes.keys())[0]
                where = "without" if odd in expected else "with"
                raise CheckpointError(f"{file} is {where} {odd}, other than {path.name} says; copy or fetch both again")
            header = shard._header()
            save = (header.get("__metadata__") or {}).get("save")
            if index.save is not None and save != index.save:
                raise CheckpointError(f"{file} is of another save than {path.name}; save or copy all of them again")
            num_bytes += sum(place["data_offsets"][1] - place["data_offsets"][0] for place in _places(header).values())
            self._shards.append(shard)
            shapes |= shard.shapes
        if index.num_bytes is not None and index.num_bytes != num_bytes:
            raise CheckpointError(
                f"the shards of {path} hold {num_bytes:,} bytes of weights, it says {index.num_bytes:,}; "
                "copy or fetch them again"
            )
        return shapes

    def _read_shapes(self) -> dict[str, Shape]:
        """From the header.  `safe_open` compares it with the file's length, so a cut file is found out here."""
        self._map()
        places = _places(self._header())
        return {name: tuple(p["shape"]) for name, p in sorted(places.items(), key=lambda x: x[1]["data_offsets"])}

    def _header(self) -> dict[str, Any]:
        with self.path.open("rb") as file:
            return json.loads(file.read(int.from_bytes(file.read(8), "little")))

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
        if _is_state_dict(content):
            return content
        sections = [content[name] for name in SECTIONS if name in content] if isinstance(content, dict) else []
        if sections and _is_state_dict(sections[0]):
            return sections[0]
        raise CheckpointError(
            f"{self.path} holds more than tensors by name; expected a state dict, alone or under one of "
            f"{', '.join(SECTIONS)}"
        )

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


def _is_state_dict(content: object) -> TypeGuard[dict[str, Tensor]]:
    return isinstance(content, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())


def _places(header: dict[str, Any]) -> dict[str, Any]:
    """Returns the tensors' entries of a safetensors header."""
    return {name: place for name, place in header.items() if name != "__metadata__"}


def write_tensors(path: Path, tensors: dict[str, Tensor], shard_bytes: int | None = None) -> tuple[Path, ...]:
    """Write safetensors, `path` itself, or where they take more than `shard_bytes` its shards and their index; what was
    there under that name before goes.  Returns the files.

    Every file is there whole or not at all, and the index comes last; a reader distinguishes shards of two saves.
    """
    shards = _split(tensors, shard_bytes)
    old = {path, index_of(path), *path.parent.glob(f"{path.stem}-?????-of-?????{path.suffix}")}
    if len(shards) == 1:
        _save(path, shards[0], None)
        files = (path,)
    else:
        save = uuid.uuid4().hex
        names = [f"{path.stem}-{i + 1:05d}-of-{len(shards):05d}{path.suffix}" for i in range(len(shards))]
        for name, shard in zip(names, shards, strict=True):
            _save(path.with_name(name), shard, {"save": save})
        index = {
            "metadata": {"total_size": sum(t.nbytes for t in tensors.values()), "save": save},
            "weight_map": {key: name for name, shard in zip(names, shards, strict=True) for key in shard},
        }
        temporary = path.with_name(index_of(path).name + ".tmp")
        temporary.write_text(json.dumps(index, indent=1) + "\n")
        os.replace(temporary, index_of(path))
        files = (index_of(path), *(path.with_name(name) for name in names))
    for file in old - set(files):
        file.unlink(missing_ok=True)
    return files


def _split(tensors: dict[str, Tensor], shard_bytes: int | None) -> list[dict[str, Tensor]]:
    """In order, each of at most `shard_bytes`, or of one tensor that is larger.  Raises CheckpointError for a size that
    is none."""
    if shard_bytes is not None and shard_bytes < 1:
        raise CheckpointError(f"a shard holds at least 1 byte, got {shard_bytes}")
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if shard_bytes is not None and shards[-1] and size + tensor.nbytes > shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    return shards


def _save(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None) -> None:
    temporary = path.with_name(path.name + ".tmp")
    save_file(tensors, temporary, metadata={"format": "pt", **metadata} if metadata else None)
    os.replace(temporary, path)


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
    def expected(ours: str) -> Shape:
        shape = tuple(wanted[ours].shape)
        return (shape[0] // parts[ours], *shape[1:]) if parts[ours] > 1 else shape

    there = {s: (file.shapes[s], expected(ours)) for s, (ours, _) in places.items() if s in file.shapes}
    problems = {
        "missing": [stored for stored in places if stored not in there],
        "unknown": [s for s in file.shapes if s not in places and not (ignore and ignore.search(s))],
        "misshaped": [
            f"{s} {list(got)}, not {list(wants)}" for s, (got, wants) in there.items() if not _fits(got, wants)
        ],
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
