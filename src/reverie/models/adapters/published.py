"""A folder of published Matrix-Game 2.0 weights, read as a model.

    FOLDER/base_distilled_model/       config.json, base_distill.safetensors              universal
    FOLDER/gta_distilled_model/        config.json, gta_keyboard2dim.safetensors          gta
    FOLDER/templerun_distilled_model/  config.json, templerun_7dim_onlykey.safetensors    templerun
    FOLDER/Wan2.1_VAE.pth              or vae/config.json and vae/diffusion_pytorch_model.safetensors
    FOLDER/models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth
    FOLDER/taew2_1.pth                 if you have it: the tiny decoder

Which variant a subfolder holds stands in its config.json; FOLDER may also be one of the subfolders.

What others trained from it is read too, under whichever names `layouts.py` lists:

    FOLDER/model.pt                    of ForgeWM's few-step stage, without a config
    FOLDER/transformer/                FastVideo: config.json, diffusion_pytorch_model.safetensors, whole or sharded
    FOLDER/generator_ema.safetensors   FastVideo's moving average, without a config
    FOLDER/vae/, FOLDER/image_encoder/ as diffusers has them

The VAE and the image encoder may lie in FOLDER, beside it, or in MG2-base beside it, where ForgeWM has them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from reverie.errors import CheckpointError, ShapeError
from reverie.models.adapters import clip, layouts, matrix_game, taehv, wan_vae
from reverie.models.checkpoint import ModelBundle, ModelConfig
from reverie.models.clip_vision import ClipVision
from reverie.models.dit import WorldModel
from reverie.models.lazy_module import LazyModule
from reverie.models.tiny_decoder import TinyDecoder
from reverie.models.tokenizer import CELL
from reverie.models.wan_vae import WanVAE
from reverie.models.weights import TensorFile, fill
from reverie.paths import own_files

RESOLUTION = (352, 640)
"""Training resolution of the published models, (H, W); their files do not hold it."""
DEFAULT_VARIANT = "universal"
VAE_FILES = ("Wan2.1_VAE.pth", "vae/diffusion_pytorch_model.safetensors", "Wan2.1_VAE.safetensors")
CLIP_FILES = (
    "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",
    "models_clip_open-clip-xlm-roberta-large-vit-huge-14.safetensors",
    "image_encoder/model.safetensors",
)
TINY_FILES = ("taew2_1.pth", "taew2_1.safetensors")
FOLDERS = {
    "universal": ("base_distilled_model", "base_distill.safetensors"),
    "gta": ("gta_distilled_model", "gta_keyboard2dim.safetensors"),
    "templerun": ("templerun_distilled_model", "templerun_7dim_onlykey.safetensors"),
}
"""Folder and weights file of each variant in the published repository."""
PUBLISHED = "Skywork/Matrix-Game-2.0 (arXiv 2508.13009)"
TRAINED = "a training of Matrix-Game 2.0 (arXiv 2508.13009)"
"""Origin of a model that others trained, for its summary."""
CONFIGS = ("config.json", "base_config.json")
BARE_FILES = ("model.pt", "generator_ema.safetensors")
"""File names of training checkpoints, which have no config."""
FORGE_BASE = "MG2-base"
FORGE_TIMESTEPS = (1000, 750, 500, 250)
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.safetensors$")

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A subfolder with a Matrix-Game 2.0 config, `raw`, in the published fields.  bare: weights without a config, which
    `raw` was inferred from."""

    folder: Path
    raw: dict[str, Any]
    bare: Path | None = None

    @property
    def variant(self) -> str:
        return matrix_game.variant_of(self.raw)

    @property
    def is_distilled(self) -> bool:
        """Few-step models have a window; the foundation model looks back without end and takes dozens of steps."""
        return int(self.raw.get("local_attn_size", -1)) > 0


def is_published(folder: Path) -> bool:
    """Returns whether `folder` holds weights in the published layout, or in a layout of other training code."""
    return bool(_candidates(folder)) or _bare_file(folder) is not None


@dataclass(frozen=True, slots=True)
class Published:
    """The files of one variant, their headers read, and the model that they make."""

    config: ModelConfig
    weights: TensorFile
    vae: TensorFile
    clip: TensorFile
    tiny: TensorFile | None

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(file.path for file in (self.weights, self.vae, self.clip, self.tiny) if file is not None)

    @property
    def num_parameters(self) -> int:
        """Numbers in the model's own tensors, without what the files hold besides."""
        unused = re.compile(clip.unused(clip.read_config(self.clip)))
        tower = sum(prod(shape) for name, shape in self.clip.shapes.items() if not unused.search(name))
        others = [file for file in (self.weights, self.vae, self.tiny) if file is not None]
        return tower + sum(prod(shape) for file in others for shape in file.shapes.values())

    def read_model(self, device: torch.device | str, dtype: torch.dtype) -> WorldModel:
        stored = layouts.Stored(self.weights)
        names, ignore = stored.to_stored, stored.ignored
        return _read(lambda: WorldModel(self.config.world), self.weights, device, dtype, names=names, ignore=ignore)

    def read_vae(self, device: torch.device | str, dtype: torch.dtype) -> WanVAE:
        config, names = wan_vae.read_layout(self.vae)
        return _read(lambda: WanVAE(config), self.vae, device, dtype, names=names)

    def read_clip(self, device: torch.device | str, dtype: torch.dtype) -> ClipVision:
        config, names = clip.read_config(self.clip), clip.names_in(self.clip)
        return _read(lambda: ClipVision(config), self.clip, device, dtype, names=names, ignore=clip.unused(config))

    def read_tiny(self, device: torch.device | str, dtype: torch.dtype) -> TinyDecoder | None:
        if self.tiny is None:
            return None
        config = taehv.read_config(self.tiny)
        names = taehv.names(config)
        return _read(lambda: TinyDecoder(config), self.tiny, device, dtype, names=names, ignore=taehv.UNUSED)

    def load(self, device: torch.device | str, dtype: torch.dtype) -> ModelBundle:
        """Every network; the image encoder stays in its file until it is used."""
        return ModelBundle(
            self.config,
            self.read_model(device, dtype),
            self.read_vae(device, dtype),
            LazyModule(lambda: self.read_clip(device, dtype)),
            self.read_tiny(device, dtype),
        )


def open_published(
    folder: Path,
    variant: str | None = None,
    resolution: tuple[int, int] | None = None,
    tiny_decoder: Path | None = None,
) -> Published:
    """Look at the files of a variant; no weights are read yet.

    variant: None where there is but one, or the universal one is meant.  resolution: (H, W), multiples of 16.
    tiny_decoder: a TAEHV file from elsewhere.
    Raises CheckpointError for a variant that is not there, and for a file that is missing, cut off or another thing.
    """
    height, width = resolution or RESOLUTION
    if height < 16 or width < 16 or height % 16 or width % 16:
        raise ShapeError(f"a resolution is two multiples of 16, height and width; got {height}x{width}")
    found = _choose(folder, variant)
    weights = TensorFile(found.bare or _weights_in(found.folder))
    stored = layouts.Stored(weights)
    raw = found.raw
    if stored.has_gain:
        raw = {**raw, "action_config": {**raw["action_config"], "norm_gain": True}}
    vae = TensorFile(_find(folder, found.folder, VAE_FILES, "the VAE"))
    tower = TensorFile(_find(folder, found.folder, CLIP_FILES, "the CLIP image encoder"))
    tiny_path = tiny_decoder or _look(folder, found.folder, TINY_FILES)
    tiny = TensorFile(tiny_path) if tiny_path else None
    vae_config, _ = wan_vae.read_layout(vae)
    encoder = clip.read_config(tower)
    is_theirs = weights.path.name in {name for _, name in FOLDERS.values()}
    is_forge = stored.layout == "original" and found.variant == "six-key"
    timesteps = matrix_game.TIMESTEPS.get(found.variant, matrix_game.DEFAULT_TIMESTEPS)
    config = ModelConfig(
        name=f"matrix-game-2-{found.variant}",
        resolution=(height, width),
        schedule=matrix_game.schedule(FORGE_TIMESTEPS if is_forge else timesteps),
        world=matrix_game.read_config(
            raw,
            (vae_config.channels, height // CELL, width // CELL),
            encoder.num_tokens,
            encoder.width,
            patch=matrix_game.patch_of(weights),
        ),
        tokenizer=vae_config,
        image_encoder=encoder,
        summary={"source": PUBLISHED if is_theirs else TRAINED, "variant": found.variant},
        tiny_decoder=taehv.read_config(tiny) if tiny else None,
    )
    if found.bare or stored.layout != "original" or not stored.names.keys() & {"blocks.0.self_attn.q.weight"}:
        layouts.check_names(weights, config.world, found.variant)
    return Published(config, weights, vae, tower, tiny)


def _read(make: Callable[[], M], file: TensorFile, device: Any, dtype: torch.dtype, **options: Any) -> M:
    with torch.device("meta"):
        module = make()
    fill(module, file, device=device, dtype=dtype, **options)
    return module.eval().requires_grad_(False)


def _candidates(folder: Path) -> list[Candidate]:
    places = [folder, *sorted(p for p in folder.iterdir() if p.is_dir())] if folder.is_dir() else []
    found = []
    for path in (place / name for place in places for name in CONFIGS):
        try:
            raw = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        if isinstance(raw, dict) and isinstance(raw.get("action_config"), dict):
            found.append(Candidate(path.parent, layouts.normalise(raw)))
    return found


def _bare_file(folder: Path) -> Path | None:
    """A checkpoint without a config; a folder with one is something else."""
    if (folder / "config.json").is_file():
        return None
    return next((folder / name for name in BARE_FILES if (folder / name).is_file()), None)


def _choose(folder: Path, variant: str | None) -> Candidate:
    candidates = _candidates(folder)
    if not candidates and (bare := _bare_file(folder)):
        candidates = [Candidate(folder, layouts.infer_config(TensorFile(bare)), bare)]
    there = ", ".join(dict.fromkeys(c.variant for c in candidates)) or "none"
    known = tuple(matrix_game.VARIANTS.values())
    if variant is not None and variant not in known:
        raise CheckpointError(f"there is no variant {variant!r}; expected {', '.join(known)}")
    wanted = [c for c in candidates if c.variant == variant] if variant else candidates
    wanted = [c for c in wanted if c.is_distilled] or wanted
    if variant is None and len(wanted) > 1:
        wanted = [c for c in wanted if c.variant == DEFAULT_VARIANT]
    if not wanted:
        asked = f"the variant {variant!r}" if variant else "a Matrix-Game 2.0 model"
        raise CheckpointError(
            f"{folder} does not hold {asked}; it holds {there} (choose with --variant, or give the folder of one)"
        )
    return _require_distilled(wanted[0])


def _require_distilled(found: Candidate) -> Candidate:
    if not found.is_distilled:
        raise CheckpointError(
            f"{found.folder} is the foundation model, which needs dozens of steps and has no window; "
            f"use a distilled one: {', '.join(place for place, _ in FOLDERS.values())}"
        )
    return found


def _weights_in(folder: Path) -> Path:
    """The transformer's file, or the name of the whole that an index of shards stands for."""
    whole = [file for file in own_files(folder.glob("*.safetensors")) if not _SHARD.search(file.name)]
    indices = own_files(folder.glob("*.safetensors.index.json"))
    files = [*whole, *(file.with_name(file.name.removesuffix(".index.json")) for file in indices)]
    known = [file for file in files if file.name in {name for _, name in FOLDERS.values()}]
    files = files or [file for kind in ("*.pt", "*.bin") for file in own_files(folder.glob(kind))]
    own = [file for file in files if file.name not in VAE_FILES + CLIP_FILES + TINY_FILES]
    if len(known) == 1 or len(own) == 1:
        return (known if len(known) == 1 else own)[0]
    got = ", ".join(file.name for file in files) or "none"
    raise CheckpointError(f"{folder} must hold one .safetensors file with the transformer's weights, got {got}")


def _find(folder: Path, place: Path, names: tuple[str, ...], what: str) -> Path:
    path = _look(folder, place, names)
    if path is None:
        raise CheckpointError(f"{folder} has no file for {what}: expected {' or '.join(names[:2])}")
    return path


def _look(folder: Path, place: Path, names: tuple[str, ...]) -> Path | None:
    """The first of `names` in the model's folder, the variant's own, the one above that, or ForgeWM's beside it."""
    places = dict.fromkeys([folder, place, place.parent, place.parent / FORGE_BASE])
    return next((p / name for name in names for p in places if (p / name).is_file()), None)
