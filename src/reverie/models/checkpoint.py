"""Model folders: `config.json`, `dit.safetensors`, `tokenizer.safetensors`, `image_encoder.safetensors`, `README.md`.

Filenames and folder names mean nothing: what a model is stands in its config.
"""

from __future__ import annotations

import dataclasses
import json
import os
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from reverie.errors import CheckpointError, ReverieError
from reverie.models.dit import WorldModel, WorldModelConfig
from reverie.models.image_encoder import ImageEncoder, ImageEncoderConfig
from reverie.models.schedule import Schedule
from reverie.models.tokenizer import TokenizerConfig, VideoTokenizer
from reverie.types import FPS, ActionSpace

KIND = "reverie.world"
VERSION = 1
WEIGHTS = {
    "model": "dit.safetensors",
    "tokenizer": "tokenizer.safetensors",
    "image_encoder": "image_encoder.safetensors",
}
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """`config.json` of a model folder.  resolution: (H, W); summary: figures of the training, for people."""

    name: str
    resolution: tuple[int, int]
    schedule: Schedule
    world: WorldModelConfig
    tokenizer: TokenizerConfig
    image_encoder: ImageEncoderConfig
    fps: int = FPS
    licence: str = "MIT"
    summary: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def action_space(self) -> ActionSpace:
        return self.world.action_space


@dataclass(slots=True)
class ModelBundle:
    """The three networks of a model folder, and its configuration."""

    config: ModelConfig
    model: WorldModel
    tokenizer: VideoTokenizer
    image_encoder: ImageEncoder

    @classmethod
    def new(cls, config: ModelConfig) -> ModelBundle:
        """Fresh, untrained networks."""
        return cls(
            config, WorldModel(config.world), VideoTokenizer(config.tokenizer), ImageEncoder(config.image_encoder)
        )

    def modules(self) -> dict[str, nn.Module]:
        return {"model": self.model, "tokenizer": self.tokenizer, "image_encoder": self.image_encoder}

    def to(self, device: torch.device | str, dtype: torch.dtype) -> ModelBundle:
        for module in self.modules().values():
            module.to(device, dtype)
        return self


def write_json_atomic(path: Path, content: Any) -> None:
    """A file is there whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(temporary, path)


def save_weights(path: Path, module: nn.Module, dtype: torch.dtype | None = None) -> None:
    """Write a module's tensors, floating ones as `dtype` where it is given; atomic."""
    tensors = {
        name: (t.to(dtype) if dtype is not None and t.is_floating_point() else t).detach().cpu().contiguous().clone()
        for name, t in module.state_dict().items()
    }
    temporary = path.with_name(path.name + ".tmp")
    save_file(tensors, temporary)
    os.replace(temporary, path)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.  Raises CheckpointError for a missing or damaged one."""
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; a model folder holds config.json and {', '.join(WEIGHTS.values())}")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file ({error}); copy it again") from error


def load_weights(path: Path, module: nn.Module) -> None:
    """Fill a module from a safetensors file.  Raises CheckpointError that names missing, extra or misshaped tensors."""
    stored, wanted = load_tensors(path), module.state_dict()
    missing, extra = sorted(wanted.keys() - stored.keys()), sorted(stored.keys() - wanted.keys())
    misshaped = [n for n in wanted.keys() & stored.keys() if wanted[n].shape != stored[n].shape]
    problems = [
        f"{len(names)} {word} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for word, names in (("missing", missing), ("unknown", extra), ("misshaped", sorted(misshaped)))
        if names
    ]
    if problems:
        raise CheckpointError(f"{path} does not fit the model in config.json: tensors {'; '.join(problems)}")
    module.load_state_dict(stored)


def save_model(
    folder: Path, bundle: ModelBundle, *, dtype: torch.dtype | None = torch.bfloat16, card: str = ""
) -> None:
    """Write a model folder; the weights as `dtype` (None keeps theirs), `card` as its README.md."""
    folder.mkdir(parents=True, exist_ok=True)
    modules = bundle.modules()
    for name, filename in WEIGHTS.items():
        save_weights(folder / filename, modules[name], dtype)
    if card:
        (folder / "README.md").write_text(card)
    write_json_atomic(folder / "config.json", {"kind": KIND, "version": VERSION, **to_json(bundle.config)})


def read_config(folder: Path) -> ModelConfig:
    """Read and check a model folder's `config.json`.  Raises CheckpointError."""
    path = folder / "config.json"
    if not folder.is_dir():
        raise CheckpointError(f"no model folder at {folder}; `reverie models` lists the bundled ones")
    if not path.is_file():
        raise CheckpointError(
            f"{folder} has no config.json, so it is no model folder; `reverie models` lists the bundled ones"
        )
    try:
        raw = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise CheckpointError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(raw, dict) or raw.pop("kind", None) != KIND:
        raise CheckpointError(f'{path} is not the config of a Reverie model (its "kind" must be "{KIND}")')
    if (version := raw.pop("version", None)) != VERSION:
        raise CheckpointError(f"{path} has version {version}, this Reverie reads version {VERSION}; update one of them")
    try:
        return from_json(ModelConfig, raw)
    except (TypeError, KeyError, ValueError, ReverieError) as error:
        raise CheckpointError(f"{path} is not a valid model config: {error}") from error


def load_model(
    folder: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> ModelBundle:
    """Read a model folder.  Raises CheckpointError, in one line, for whatever is wrong with it."""
    folder = Path(folder)
    config = read_config(folder)
    bundle = ModelBundle.new(config)
    for name, module in bundle.modules().items():
        load_weights(folder / WEIGHTS[name], module)
        module.eval().requires_grad_(False)
    return bundle.to(device, dtype)


def to_json(value: Any) -> Any:
    """A configuration dataclass as plain JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    return value


def from_json(kind: type[T], raw: Any) -> T:
    """The inverse of `to_json`.  Raises TypeError that names an unknown or missing field."""
    if not isinstance(raw, dict):
        raise TypeError(f"{kind.__name__} must be an object, got {raw!r}")
    hints = typing.get_type_hints(kind)
    fields = {f.name for f in dataclasses.fields(kind) if f.init}  # type: ignore[arg-type]
    if unknown := sorted(raw.keys() - fields):
        raise TypeError(f"{kind.__name__} has no field {unknown[0]!r}")
    return kind(**{name: _field(hints[name], value) for name, value in raw.items()})


def _field(hint: Any, value: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        hint = next(a for a in arguments if a is not type(None))
        return _field(hint, value)
    if dataclasses.is_dataclass(hint):
        return from_json(hint, value)  # type: ignore[arg-type]
    if origin is tuple:
        inner = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(inner) != len(value):
            raise TypeError(f"expected {len(inner)} values, got {value!r}")
        return tuple(_field(i, v) for i, v in zip(inner, value, strict=True))
    if hint in (int, float, str, bool) and not isinstance(value, (int, float) if hint is float else hint):
        raise TypeError(f"expected {hint.__name__}, got {value!r}")
    return value
