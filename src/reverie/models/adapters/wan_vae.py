"""Wan 2.1's VAE files: the original `.pth`, and diffusers' AutoencoderKLWan."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reverie.errors import CheckpointError
from reverie.models.wan_vae import MEAN, STD, WanVAEConfig
from reverie.models.weights import Names, Shape, TensorFile, same_name

_ORIGINAL = (
    (r"^(en|de)coder\.conv_in\.", r"\1coder.conv1."),
    (r"^(en|de)coder\.norm_out\.", r"\1coder.head.0."),
    (r"^(en|de)coder\.conv_out\.", r"\1coder.head.2."),
    (r"^quant_conv\.", "conv1."),
    (r"^post_quant_conv\.", "conv2."),
    (r"\.mid_block\.resnets\.0\.", ".middle.0."),
    (r"\.mid_block\.attentions\.0\.", ".middle.1."),
    (r"\.mid_block\.resnets\.1\.", ".middle.2."),
    (r"\.down_blocks\.", ".downsamples."),
    (r"(\.|^)norm1\.", r"\1residual.0."),
    (r"(\.\d+)\.conv1\.", r"\1.residual.2."),
    (r"(\.|^)norm2\.", r"\1residual.3."),
    (r"(\.\d+)\.conv2\.", r"\1.residual.6."),
    (r"\.conv_shortcut\.", ".shortcut."),
)
_UP = re.compile(r"^decoder\.up_blocks\.(\d+)\.(resnets|upsamplers)\.(\d+)\.")


def original_names(config: WanVAEConfig) -> Names:
    """Our names (diffusers') -> those of `Wan2.1_VAE.pth`."""

    def flat(match: re.Match[str]) -> str:
        """Up blocks are one list there: the residual blocks of a grid, then its upsampling."""
        level, kind, index = int(match[1]), match[2], int(match[3])
        place = level * (config.blocks + 2) + (index if kind == "resnets" else config.blocks + 1)
        return f"decoder.upsamples.{place}."

    def names(ours: str) -> tuple[str, ...]:
        name = _UP.sub(flat, ours)
        for pattern, replacement in _ORIGINAL:
            name = re.sub(pattern, replacement, name)
        return (name,)

    return names


def read_layout(file: TensorFile) -> tuple[WanVAEConfig, Names]:
    """The VAE that a file holds, inferred from its tensors' names and shapes, and the names in it.

    Raises CheckpointError for a file that holds another thing.
    """
    if "encoder.conv_in.weight" in file.shapes:
        first, out, post, down = "encoder.conv_in", "encoder.conv_out", "post_quant_conv", "encoder.down_blocks"
        block = "conv1"
    else:
        first, out, post, down = "encoder.conv1", "encoder.head.2", "conv2", "encoder.downsamples"
        block = "residual.2"
    try:
        dim, channels = file.shapes[f"{first}.weight"][0], file.shapes[f"{post}.weight"][0]
        widths, blocks, halves = _grids(file.shapes, down, block)
        coarsest = file.shapes[f"{out}.weight"][1]
    except (KeyError, IndexError, ValueError) as error:
        raise CheckpointError(f"{file.path} is not Wan 2.1's VAE: {error} is missing") from error
    if any(width % dim for width in widths) or widths[-1] != coarsest or channels != len(MEAN) or len(widths) != 4:
        raise CheckpointError(
            f"{file.path} is not Wan 2.1's VAE: expected 4 grids and {len(MEAN)} latent channels, "
            f"got widths {widths} and {channels} channels"
        )
    mean, std = _statistics(file.path)
    config = WanVAEConfig(
        dim=dim,
        multipliers=tuple(width // dim for width in widths),
        blocks=blocks,
        halves_time=halves,
        mean=mean,
        std=std,
    )
    return config, same_name if first == "encoder.conv_in" else original_names(config)


def _grids(shapes: Mapping[str, Shape], down: str, block: str) -> tuple[list[int], int, tuple[bool, ...]]:
    """Widths of the grids, residual blocks of each, and which way down halves time."""
    count = 1 + max(int(m[1]) for name in shapes if (m := re.match(rf"{re.escape(down)}\.(\d+)\.", name)))
    widths, halves, blocks = [], [], 0
    for i in range(count):
        if f"{down}.{i}.resample.1.weight" in shapes:
            halves.append(f"{down}.{i}.time_conv.weight" in shapes)
            widths.append(shapes[f"{down}.{i}.resample.1.weight"][0])
            blocks = blocks or i
    widths.append(shapes[f"{down}.{count - 1}.{block}.weight"][0])
    return widths, blocks, tuple(halves)


def _statistics(path: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of the latents: diffusers keeps them in a config.json beside the weights."""
    beside = path.with_name("config.json")
    if not beside.is_file():
        return MEAN, STD
    try:
        raw: Any = json.loads(beside.read_text())
        if not isinstance(raw, dict) or raw.get("_class_name") != "AutoencoderKLWan":
            return MEAN, STD
        mean = tuple(float(x) for x in raw.get("latents_mean", MEAN))
        return mean, tuple(float(x) for x in raw.get("latents_std", STD))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{beside} is not a readable config of an AutoencoderKLWan ({error})") from error
