"""`reverie convert`: published weights -> a model folder of our own."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from reverie.errors import CheckpointError

if TYPE_CHECKING:
    from reverie.models.checkpoint import ModelConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvertConfig:
    """Turn published Matrix-Game 2.0 weights, or others' training of it, into a model folder that loads like any other.

    The folder is half as large (bfloat16, without the text encoder), needs no .pth file, and can be put on a hub.

    Example: reverie convert Skywork/Matrix-Game-2.0 models/matrix-game --variant universal
    """

    source: Annotated[str, tyro.conf.Positional]
    """A folder in the published layout, or a hub id."""
    target: Annotated[Path, tyro.conf.Positional]
    """The folder to write; it must not exist, or be empty."""
    variant: str | None = None
    """universal, gta or templerun; the default is the one that is there, or universal."""
    resolution: tuple[int, int] | None = None
    """Height and width in pixels, multiples of 16; the default is what the models were trained at, 352 640."""
    tiny_decoder: Path | None = None
    """A TAEHV decoder, taew2_1.pth, to take along."""
    dtype: str = "bfloat16"
    """bfloat16 or float32."""

    def run(self) -> None:
        from rich.console import Console

        console = Console(stderr=True)
        with console.status("looking at the files") as status:
            convert(self, status.update)
        size_mib = sum(file.stat().st_size for file in self.target.iterdir()) / 2**20
        console.print(f"{self.target}: {size_mib:,.0f} MiB; play it with: reverie play --model {self.target}")


def convert(config: ConvertConfig, tell=lambda text: None) -> None:
    """Write the model folder, one network after another.  Raises CheckpointError before anything large is read."""
    import torch

    from reverie.engine.loading.models import find_model
    from reverie.models.adapters.published import is_published, open_published
    from reverie.models.checkpoint import file_of, save_config, save_weights

    dtypes = {"bfloat16": torch.bfloat16, "float32": torch.float32}
    if config.dtype not in dtypes:
        raise CheckpointError(f"unknown dtype {config.dtype!r}; expected {' or '.join(dtypes)}")
    if config.target.is_file() or (config.target.is_dir() and any(config.target.iterdir())):
        raise CheckpointError(f"{config.target} is there already; give a folder that is empty or does not exist")
    folder = find_model(config.source, config.variant, tell)
    if not is_published(folder):
        raise CheckpointError(f"{folder} holds no published Matrix-Game 2.0 weights, so there is nothing to convert")
    published = open_published(folder, config.variant, config.resolution, config.tiny_decoder)
    config.target.mkdir(parents=True, exist_ok=True)
    _check_space(
        config.target, 4 * published.num_parameters if config.dtype == "float32" else 2 * published.num_parameters
    )
    parts = {
        "model": published.read_model,
        "tokenizer": published.read_vae,
        "image_encoder": published.read_clip,
        "tiny_decoder": published.read_tiny,
    }
    for name, read in parts.items():
        tell(f"converting the {name.replace('_', ' ')}")
        module = read("cpu", dtypes[config.dtype])
        if module is not None:
            save_weights(config.target / file_of(name), module)
        del module
    save_config(config.target, published.config, _card(published.config, config))


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise CheckpointError(
            f"{folder} has {free / 2**30:.1f} GiB free, {needed / 2**30:.1f} GiB are needed; make room or go elsewhere"
        )


def _card(model: ModelConfig, config: ConvertConfig) -> str:
    from reverie.models.adapters.published import PUBLISHED

    is_published = model.summary.get("source") == PUBLISHED
    what = "Matrix-Game 2.0 (arXiv 2508.13009, Skywork, MIT licence)"
    if not is_published:
        what = "A training of Matrix-Game 2.0 (arXiv 2508.13009; its licence is that of whoever trained it)"
    return (
        f"# {model.name}\n\n{what}, converted by `reverie convert` from {config.source} as {config.dtype}.\n\n"
        "Play it: `reverie play --model FOLDER`.\n"
    )
