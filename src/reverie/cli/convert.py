"""`reverie convert`: published weights -> a model folder of our own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from reverie.argument_markers import positional


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvertConfig:
    """Turn published Matrix-Game 2.0 weights, or others' training of it, into a model folder that loads like any other.

    The folder is half as large (bfloat16, without the text encoder), needs no .pth file, and can be put on a hub.

    Example: reverie convert Skywork/Matrix-Game-2.0 models/matrix-game --variant universal
    """

    source: Annotated[str, positional()]
    """A folder in the published layout, or a hub id."""
    target: Annotated[Path, positional()]
    """The folder to write; it must not exist, or be empty."""
    variant: str | None = None
    """universal, gta or templerun; the default is the one that is there, or universal."""
    resolution: tuple[int, int] | None = None
    """Height and width in pixels, multiples of 16; the default is what the models were trained at, 352 640."""
    tiny_decoder: Path | None = None
    """A TAEHV decoder, taew2_1.pth, to take along."""
    dtype: str = "bfloat16"
    """bfloat16 or float32."""
    max_shard_mb: float | None = None
    """Largest file of weights; larger ones are sharded as on the Hugging Face Hub."""


def convert(config: ConvertConfig) -> None:
    """Converts the weights and prints the folder's size."""
    from rich.console import Console

    from reverie.engine.loading import convert as converting

    console = Console(stderr=True)
    with console.status("looking at the files") as status:
        converting.convert(
            config.source,
            config.target,
            variant=config.variant,
            resolution=config.resolution,
            tiny_decoder=config.tiny_decoder,
            dtype=config.dtype,
            max_shard_mb=config.max_shard_mb,
            tell=status.update,
        )
    size_mib = sum(file.stat().st_size for file in config.target.iterdir()) / 2**20
    console.print(f"{config.target}: {size_mib:,.0f} MiB; play it with: reverie play --model {config.target}")
