"""Model folders: `config.json`, `dit.safetensors`, `tokenizer.safetensors`, `image_encoder.safetensors`, `README.md`.

Any of the weights may be sharded as on the Hugging Face hub (`reverie.models.weights`).
Filenames and folder names mean nothing: what a model is stands in its config.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import shutil
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from reverie.errors import CheckpointError, ReverieError
from reverie.models.clip_vision import ClipVision, ClipVisionConfig
from reverie.models.conditioning.spatial_memory import SpatialMemory, SpatialMemoryConfig
from reverie.models.config import WorldModelConfig
from reverie.models.dit import WorldModel
from reverie.models.image_encoder import ImageEncoder, ImageEncoderConfig
from reverie.models.lazy_module import LazyModule
from reverie.models.schedule import Schedule
from reverie.models.tiny_decoder import TinyDecoder, TinyDecoderConfig
from reverie.models.tokenizer import TokenizerConfig, VideoTokenizer
from reverie.models.version_2 import convert_world
from reverie.models.wan_vae import WanVAE, WanVAEConfig
from reverie.models.weights import TensorFile, fill, write_tensors
from reverie.types import FPS, ActionSpace

KIND = "reverie.world"
VERSION = 3
WEIGHTS = {
    "model": "dit.safetensors",
    "tokenizer": "tokenizer.safetensors",
    "image_encoder": "image_encoder.safetensors",
}
TINY_DECODER = "tiny_decoder.safetensors"
"""A second, faster decoder, which few models have."""
GEOMETRY = "geometry.safetensors"
"""The networks of a spatial memory: view encoder, depth, ego-motion."""
OPTIONAL = {"tiny_decoder": TINY_DECODER, "memory": GEOMETRY}
HINT = f"a model folder holds config.json and {', '.join(WEIGHTS.values())}"
T = TypeVar("T")
N = TypeVar("N", bound=nn.Module)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """`config.json` of a model folder.  resolution: (H, W); summary: figures of the training, for people; tiny_decoder:
    of the same latents, where there is one; memory: of models that are conditioned on a spatial memory;
    mouse_fov_deg: horizontal field of view that mouse rotations were scaled to in training, None for as recorded."""

    name: str
    resolution: tuple[int, int]
    schedule: Schedule
    world: WorldModelConfig
    tokenizer: TokenizerConfig | WanVAEConfig
    image_encoder: ImageEncoderConfig | ClipVisionConfig
    fps: int = FPS
    licence: str = "MIT"
    summary: dict[str, Any] = dataclasses.field(default_factory=dict)
    tiny_decoder: TinyDecoderConfig | None = None
    memory: SpatialMemoryConfig | None = None
    mouse_fov_deg: float | None = None

    def __post_init__(self) -> None:
        if (self.memory is not None) != (self.world.conditioning == "spatial_memory"):
            raise CheckpointError(
                f"a model has a spatial memory exactly if it is conditioned on one; got conditioning "
                f"{self.world.conditioning!r} and memory {self.memory}"
            )

    @property
    def action_space(self) -> ActionSpace:
        return self.world.action_space


@dataclass(slots=True)
class ModelBundle:
    """The networks of a model folder, and its configuration.

    A large image encoder is loaded lazily: it is needed for a moment at the start of a session, and takes much memory.
    """

    config: ModelConfig
    model: WorldModel
    tokenizer: VideoTokenizer | WanVAE
    image_encoder: ImageEncoder | ClipVision | LazyModule
    tiny_decoder: TinyDecoder | None = None
    memory: SpatialMemory | None = None

    @classmethod
    def new(cls, config: ModelConfig) -> ModelBundle:
        """Fresh, untrained networks."""
        return cls(
            config,
            WorldModel(config.world),
            new_tokenizer(config.tokenizer),
            new_image_encoder(config.image_encoder),
            TinyDecoder(config.tiny_decoder) if config.tiny_decoder else None,
            new_memory(config),
        )

    def modules(self) -> dict[str, nn.Module]:
        encoder = self.image_encoder
        encoder = encoder.read() if isinstance(encoder, LazyModule) else encoder
        modules: dict[str, nn.Module] = {"model": self.model, "tokenizer": self.tokenizer, "image_encoder": encoder}
        if self.tiny_decoder is not None:
            modules["tiny_decoder"] = self.tiny_decoder
        if self.memory is not None:
            modules["memory"] = self.memory
        return modules

    def to(self, device: torch.device | str, dtype: torch.dtype) -> ModelBundle:
        for module in self.modules().values():
            module.to(device, dtype)
        return self


def new_tokenizer(config: TokenizerConfig | WanVAEConfig) -> VideoTokenizer | WanVAE:
    return WanVAE(config) if isinstance(config, WanVAEConfig) else VideoTokenizer(config)


def new_image_encoder(config: ImageEncoderConfig | ClipVisionConfig) -> ImageEncoder | ClipVision:
    return ClipVision(config) if isinstance(config, ClipVisionConfig) else ImageEncoder(config)


def new_memory(config: ModelConfig) -> SpatialMemory | None:
    return SpatialMemory(config.memory, config.action_space, config.world.latent) if config.memory else None


def write_json_atomic(path: Path, content: Any) -> None:
    """A file is there whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(temporary, path)


def save_weights(
    path: Path, module: nn.Module, dtype: torch.dtype | None = None, *, shard_bytes: int | None = None
) -> tuple[Path, ...]:
    """Write a module's tensors, floating ones as `dtype` where it is given; atomic.  Returns the files.

    shard_bytes: where they take more than that, they are sharded as on the Hugging Face hub: files of at most so many
    bytes (or of one tensor), and an index.
    """
    tensors = {
        name: (t.to(dtype) if dtype is not None and t.is_floating_point() else t).detach().cpu().contiguous()
        for name, t in module.state_dict().items()
    }
    return write_tensors(path, tensors, shard_bytes)


def load_weights(path: Path, module: nn.Module) -> None:
    """Fill a module from a file.  Raises CheckpointError that names missing, unknown or misshaped tensors."""
    fill(module, TensorFile(path, HINT))


def save_model(
    folder: Path,
    bundle: ModelBundle,
    *,
    dtype: torch.dtype | None = torch.bfloat16,
    card: str = "",
    shard_bytes: int | None = None,
) -> None:
    """Write a model folder; the weights as `dtype` (None keeps theirs), in shards where `shard_bytes` is given and they
    take more, `card` as its README.md."""
    folder.mkdir(parents=True, exist_ok=True)
    modules = bundle.modules()
    for name, module in modules.items():
        save_weights(folder / file_of(name), module, dtype, shard_bytes=shard_bytes)
    save_config(folder, bundle.config, card)


def replace_model(folder: Path, bundle: ModelBundle, **options: Any) -> None:
    """Writes a model folder beside `folder` and puts it in place: a reader, or a kill, never meets parts of two.

    options: of `save_model`.
    """
    partial, old = folder.with_name(f".{folder.name}.partial"), folder.with_name(f".{folder.name}.old")
    for rest in (partial, old):
        shutil.rmtree(rest, ignore_errors=True)
    save_model(partial, bundle, **options)
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def shard_bytes_of(max_shard_mb: float | None) -> int | None:
    """Bytes of the largest shard, of an option in MB.  Raises CheckpointError for a size that is none."""
    if max_shard_mb is not None and not max_shard_mb > 0:
        raise CheckpointError(f"--max-shard-mb must be above zero, got {max_shard_mb:g}")
    return None if max_shard_mb is None else max(1, round(max_shard_mb * 10**6))


def save_config(folder: Path, config: ModelConfig, card: str = "") -> None:
    """Write `config.json`, which makes a folder a model folder, and `card` as its README.md."""
    if card:
        (folder / "README.md").write_text(card)
    write_json_atomic(folder / "config.json", {"kind": KIND, "version": VERSION, **to_json(config)})


def file_of(part: str) -> str:
    """The file that holds one of `ModelBundle.modules`."""
    return OPTIONAL.get(part) or WEIGHTS[part]


def _find_config(folder: Path) -> Path:
    path = folder / "config.json"
    if not folder.is_dir():
        raise CheckpointError(f"no model folder at {folder}; `reverie models` lists the bundled ones")
    if not path.is_file():
        raise CheckpointError(
            f"{folder} has no config.json, so it is no model folder; `reverie models` lists the bundled ones"
        )
    return path


def read_config(folder: Path) -> ModelConfig:
    """Read and check a model folder's `config.json`.  Raises CheckpointError."""
    path = _find_config(folder)
    try:
        raw = json.loads(path.read_text())
    except (ValueError, OSError, RecursionError) as error:
        raise CheckpointError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(raw, dict) or raw.pop("kind", None) != KIND:
        raise CheckpointError(f'{path} is not the config of a Reverie model (its "kind" must be "{KIND}")')
    if (version := raw.pop("version", None)) not in (2, VERSION):
        raise CheckpointError(f"{path} has version {version}, this Reverie reads version {VERSION}; update one of them")
    try:
        if version == 2:
            raw["world"] = convert_world(raw["world"])
        return from_json(ModelConfig, raw)
    except (TypeError, KeyError, ValueError, ReverieError) as error:
        raise CheckpointError(f"{path} is not a valid model config: {error}") from error


def load_model(
    folder: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> ModelBundle:
    """Read a model folder.  Raises CheckpointError, in one line, for whatever is wrong with it."""
    folder = Path(folder)
    config = read_config(folder)

    def read(part: str, module: T) -> T:
        fill(module, TensorFile(folder / file_of(part), HINT), device=device, dtype=dtype)  # type: ignore[arg-type]
        return module.eval().requires_grad_(False)  # type: ignore[attr-defined]

    with torch.device("meta"):
        bundle = ModelBundle.new(config)
    read("model", bundle.model)
    read("tokenizer", bundle.tokenizer)
    if bundle.tiny_decoder is not None:
        read("tiny_decoder", bundle.tiny_decoder)
    if bundle.memory is not None:
        read("memory", bundle.memory)
    if isinstance(bundle.image_encoder, ClipVision):
        encoder = bundle.image_encoder
        TensorFile(folder / file_of("image_encoder"), HINT)  # if it is missing or damaged, say so now
        bundle.image_encoder = LazyModule(lambda: read("image_encoder", copy.deepcopy(encoder)))
    else:
        read("image_encoder", bundle.image_encoder)
    return bundle


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
        kinds = [a for a in arguments if a is not type(None)]
        fitting = [kind for kind in kinds if len(kinds) > 1 and _could_be(kind, value)]
        return _field((fitting or kinds)[0], value)
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


def _could_be(kind: Any, value: Any) -> bool:
    """Returns whether all of an object's fields are fields of this dataclass."""
    return (
        dataclasses.is_dataclass(kind)
        and isinstance(value, dict)
        and value.keys() <= {f.name for f in dataclasses.fields(kind)}
    )


def save_trained(folder: Path, part: str, network: nn.Module, summary: dict[str, Any]) -> None:
    """Writes a network that `reverie train PART` made into `folder`, which is made: `config.json`, PART.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(folder / f"{part}.safetensors", network)
    config = {"kind": f"reverie.{part}", part: to_json(network.config), "training": summary}
    write_json_atomic(folder / "config.json", config)


def load_trained(folder: Path, part: str, what: str, build: Callable[[Any], N]) -> tuple[N, dict[str, float]]:
    """Reads what `save_trained` wrote.  Returns the network, in eval mode, and its figures on held-out data.

    what: name of such a network; build: makes it, of its config as JSON.  Raises CheckpointError for files that are
    missing, of another kind, or that do not fit.
    """
    path, kind = folder / "config.json", f"reverie.{part}"
    try:
        raw = json.loads(path.read_text())
        if raw["kind"] != kind:
            raise CheckpointError(f"{path} is of kind {raw['kind']!r}, expected {kind!r}; give the folder of {what}")
        network, figures = build(raw[part]), raw["training"].get("metrics", {})
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; train one first: reverie train {part} -o {folder}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is not the config of {what}: {error}") from error
    load_weights(folder / f"{part}.safetensors", network)
    return network.eval(), figures
