"""The visual tower in `models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth`, keys prefixed `visual.`."""

from __future__ import annotations

import math
import re

from reverie.errors import CheckpointError
from reverie.models.clip_vision import ClipVisionConfig
from reverie.models.weights import TensorFile

HEAD_DIM = 80
"""Of ViT-H/14; a file does not tell the number of heads."""

_LAYER = re.compile(r"^visual\.transformer\.(\d+)\.")


def read_config(file: TensorFile, heads: int | None = None) -> ClipVisionConfig:
    """The tower that a file holds, without its last layer, told from its tensors' shapes.

    heads: of a tower that is not ViT-H.  Raises CheckpointError for a file that holds another thing.
    """
    try:
        width, _, patch, _ = file.shapes["visual.patch_embedding.weight"]
        num_tokens = file.shapes["visual.pos_embedding"][-2]
        hidden = file.shapes["visual.transformer.0.mlp.0.weight"][0]
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(
            f"{file.path} holds no CLIP visual tower ({error} is missing); "
            "expected models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
        ) from error
    layers = 1 + max(int(m[1]) for name in file.shapes if (m := _LAYER.match(name)))
    if heads is None:
        heads = max(1, width // HEAD_DIM)
    return ClipVisionConfig(
        size=patch * math.isqrt(num_tokens - 1),
        patch=patch,
        width=width,
        heads=heads,
        layers=layers - 1,
        hidden=hidden,
    )


def names(ours: str) -> tuple[str, ...]:
    """Our names -> the published ones."""
    name = re.sub(r"^layers\.(\d+)\.(qkv|proj)\.", lambda m: f"layers.{m[1]}.attn.{_ATTENTION[m[2]]}.", ours)
    return ("visual." + re.sub(r"^layers\.", "transformer.", name),)


_ATTENTION = {"qkv": "to_qkv", "proj": "proj"}


def unused(config: ClipVisionConfig) -> str:
    """A pattern of what such a file also holds: the text tower, the last layer and what follows it."""
    return rf"^(?!visual\.)|^visual\.transformer\.{config.layers}\.|^visual\.(post_norm|head)\b"
