"""The visual tower in `models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth`, keys prefixed `visual.`; and the same
tower as transformers' CLIPVisionModel, which is `image_encoder/model.safetensors` in the folders of diffusers."""

from __future__ import annotations

import math
import re

from reverie.errors import CheckpointError
from reverie.models.clip_vision import ClipVisionConfig
from reverie.models.weights import Names, TensorFile

HEAD_DIM = 80
"""Head width of ViT-H/14; a file does not hold the number of heads."""

_LAYER = re.compile(r"^(?:visual\.transformer|vision_model\.encoder\.layers)\.(\d+)\.")
_TRANSFORMERS = (
    (r"^cls_embedding$", "embeddings.class_embedding"),
    (r"^patch_embedding\.", "embeddings.patch_embedding."),
    (r"^pos_embedding$", "embeddings.position_embedding.weight"),
    (r"^pre_norm\.", "pre_layrnorm."),  # sic
    (r"^layers\.", "encoder.layers."),
    (r"\.norm([12])\.", r".layer_norm\1."),
    (r"\.mlp\.0\.", ".mlp.fc1."),
    (r"\.mlp\.2\.", ".mlp.fc2."),
    (r"\.proj\.", ".self_attn.out_proj."),
)


def read_config(file: TensorFile, heads: int | None = None) -> ClipVisionConfig:
    """The tower that a file holds, without its last layer, inferred from its tensors' shapes.

    heads: of a tower that is not ViT-H.  Raises CheckpointError for a file that holds another thing.
    """
    names = names_in(file)
    try:
        width, _, patch, _ = file.shapes[names("patch_embedding.weight")[0]]
        num_tokens = file.shapes[names("pos_embedding")[0]][-2]
        hidden = file.shapes[names("layers.0.mlp.0.weight")[0]][0]
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


def names_in(file: TensorFile) -> Names:
    """Our names -> those in a file of either kind."""
    return _transformers_names if "vision_model.embeddings.class_embedding" in file.shapes else names


def _transformers_names(ours: str) -> tuple[str, ...]:
    name = ours
    for pattern, replacement in _TRANSFORMERS:
        name = re.sub(pattern, replacement, name)
    if ".qkv." in name:
        return tuple("vision_model." + name.replace(".qkv.", f".self_attn.{part}_proj.") for part in "qkv")
    return (f"vision_model.{name}",)


def names(ours: str) -> tuple[str, ...]:
    """Our names -> the published ones."""
    name = re.sub(r"^layers\.(\d+)\.(qkv|proj)\.", lambda m: f"layers.{m[1]}.attn.{_ATTENTION[m[2]]}.", ours)
    return ("visual." + re.sub(r"^layers\.", "transformer.", name),)


_ATTENTION = {"qkv": "to_qkv", "proj": "proj"}


def unused(config: ClipVisionConfig) -> str:
    """A pattern of what such a file also holds: the text tower, the last layer and what follows it."""
    layers = r"visual\.transformer|vision_model\.encoder\.layers"
    return (
        rf"^(?!visual\.|vision_model\.)|^({layers})\.{config.layers}\.|^visual\.(post_norm|head)\b"
        r"|^vision_model\.(post_layernorm|embeddings\.position_ids)\b"
    )
