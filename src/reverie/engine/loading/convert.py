"""Conversion of published weights to a model folder of our own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from reverie.errors import CheckpointError

if TYPE_CHECKING:
    from reverie.models.checkpoint import ModelConfig


def convert(
    source: str,
    target: Path,
    *,
    variant: str | None = None,
    resolution: tuple[int, int] | None = None,
    tiny_decoder: Path | None = None,
    dtype: str = "bfloat16",
    max_shard_mb: float | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> None:
    """Writes the model folder, one network after another.  Raises CheckpointError before anything large is read.

    source: a folder in the published layout, or a hub id; target: a folder that does not exist, or is empty.
    variant: universal, gta or templerun; resolution: (H, W) in pixels, multiples of 16; tiny_decoder: a TAEHV decoder
    to take along; dtype: bfloat16 or float32; max_shard_mb: largest file of weights; tell: gets a line for each
    step.
    """
    import torch

    from reverie.engine.loading.models import find_model
    from reverie.models.adapters.published import is_published, open_published
    from reverie.models.checkpoint import file_of, save_config, save_weights, shard_bytes_of

    dtypes = {"bfloat16": torch.bfloat16, "float32": torch.float32}
    if dtype not in dtypes:
        raise CheckpointError(f"unknown dtype {dtype!r}; expected {' or '.join(dtypes)}")
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise CheckpointError(f"{target} is there already; give a folder that is empty or does not exist")
    shard_bytes = shard_bytes_of(max_shard_mb)
    folder = find_model(source, variant, tell)
    if not is_published(folder):
        raise CheckpointError(f"{folder} holds no published Matrix-Game 2.0 weights, so there is nothing to convert")
    published = open_published(folder, variant, resolution, tiny_decoder)
    target.mkdir(parents=True, exist_ok=True)
    _check_space(target, 4 * published.num_parameters if dtype == "float32" else 2 * published.num_parameters)
    parts = {
        "model": published.read_model,
        "tokenizer": published.read_vae,
        "image_encoder": published.read_clip,
        "tiny_decoder": published.read_tiny,
    }
    for name, read in parts.items():
        tell(f"converting the {name.replace('_', ' ')}")
        module = read("cpu", dtypes[dtype])
        if module is not None:
            save_weights(target / file_of(name), module, shard_bytes=shard_bytes)
        del module
    save_config(target, published.config, _card(published.config, source, dtype))


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise CheckpointError(
            f"{folder} has {free / 2**30:.1f} GiB free, {needed / 2**30:.1f} GiB are needed; make room or go elsewhere"
        )


def _card(model: ModelConfig, source: str, dtype: str) -> str:
    from reverie.models.adapters.published import PUBLISHED

    is_published = model.summary.get("source") == PUBLISHED
    what = "Matrix-Game 2.0 (arXiv 2508.13009, Skywork, MIT licence)"
    if not is_published:
        what = "A training of Matrix-Game 2.0 (arXiv 2508.13009; its licence is that of whoever trained it)"
    return (
        f"# {model.name}\n\n{what}, converted by `reverie convert` from {source} as {dtype}.\n\n"
        "Play it: `reverie play --model FOLDER`.\n"
    )
