"""Matrix-Game 2.0's transformer weights and configuration, as ours (the published layout, keys prefixed `model.`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from reverie.errors import CheckpointError
from reverie.models.actions import ActionModuleConfig
from reverie.models.dit import WorldModelConfig
from reverie.models.schedule import Schedule, shifted
from reverie.types import ActionSpace

KEYS: dict[int, tuple[str, ...]] = {
    4: ("forward", "back", "left", "right"),
    2: ("forward", "back"),
    7: ("still", "jump", "slide", "turn-left", "turn-right", "lean-left", "lean-right"),
}
"""Keys of the universal, GTA driving and Temple Run models, by their number."""
BLOCK_STEPS = 3
TURN_SCALE = 1 / 15
"""Mouse values for one degree, as users of the published models report it."""

_RENAMED = (
    (r"^model\.", ""),
    (r"^patch_embedding\.weight$", "patch_embedding.weight"),
    (r"^time_projection\.1\.", "time_projection."),
    (r"^img_emb\.proj\.", "img_emb."),
    (r"^head\.head\.", "head."),
    (r"^head\.modulation$", "head_modulation"),
    (r"\.norm3\.", ".cross_attn.norm."),
    (r"\.action_model\.(mouse_mlp|t_qkv|proj_mouse)\.", r".mouse.\1."),
    (r"\.action_model\.(keyboard_embed|keyboard_attn_kv|mouse_attn_q|proj_keyboard)\.", r".keyboard.\1."),
)
_UNUSED = re.compile(r"\.action_model\.(img|key)_attn_[qk]_norm\.weight$")
"""Stored, but never applied by the reference."""


def read_config(
    raw: Mapping[str, Any], latent: tuple[int, int, int], image_tokens: int = 257, image_dim: int = 1280
) -> WorldModelConfig:
    """A published `config.json` -> ours.

    latent: (c, h, w) of a step, which the published file leaves to the caller (16, 44, 80 at 352x640).
    Raises CheckpointError for a file that is not one of these.
    """
    try:
        actions, dim = raw["action_config"], int(raw["dim"])
        blocks, heads = tuple(actions["blocks"]), int(actions["heads_num"])
        num_keys, mouse = int(actions["keyboard_dim_in"]), bool(actions["enable_mouse"])
        time_pairs, theta = actions["rope_dim_list"][0] // 2, float(actions["rope_theta"])

        def module(width: int, scale: float) -> ActionModuleConfig:
            return ActionModuleConfig(
                blocks=blocks,
                heads=heads,
                head_dim=width // heads,
                time_pairs=time_pairs,
                theta=theta,
                hidden=int(actions["hidden_size"]),
                scale=scale,
            )

        return WorldModelConfig(
            action_space=ActionSpace(KEYS.get(num_keys, tuple(f"key{i}" for i in range(num_keys))), mouse=mouse),
            latent=latent,
            dim=dim,
            ffn_dim=int(raw["ffn_dim"]),
            layers=int(raw["num_layers"]),
            heads=int(raw["num_heads"]),
            window=int(raw["local_attn_size"]),
            block=BLOCK_STEPS,
            image_dim=image_dim,
            image_tokens=image_tokens,
            image_blocks=tuple(range(int(raw["num_layers"]))),
            keyboard=module(int(actions["keyboard_hidden_dim"]), 1.0),
            mouse=module(int(actions["mouse_hidden_dim"]), TURN_SCALE) if mouse else None,
            cond_channels=int(raw["in_dim"]) - int(raw["out_dim"]),
            freq_dim=int(raw["freq_dim"]),
            generates_start=True,
            before_start="repeat",
        )
    except (KeyError, TypeError, IndexError) as error:
        raise CheckpointError(f"not a Matrix-Game 2.0 config.json: {error!r} is missing or wrong") from error


def convert_weights(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published tensors -> a state dict for `WorldModel`: renamed, with queries, keys and values joined."""
    weights: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        if _UNUSED.search(name):
            continue
        for pattern, replacement in _RENAMED:
            name = re.sub(pattern, replacement, name)
        if name == "patch_embedding.weight":
            tensor = tensor.flatten(1)
        elif name == "head_modulation" or name.endswith(".modulation"):
            tensor = tensor.squeeze(0)
        weights[name] = tensor
    for name in [n for n in weights if re.search(r"(self_attn|cross_attn)\.v\.(weight|bias)$", n)]:
        stem, kind = name.rsplit(".v.", 1)
        parts = ("q", "k", "v") if stem.endswith("self_attn") else ("k", "v")
        joined = [weights.pop(f"{stem}.{part}.{kind}") for part in parts]
        weights[f"{stem}.{''.join(parts)}.{kind}"] = torch.cat(joined)
    return weights


def schedule(timesteps: tuple[int, ...] = (1000, 666, 333), shift: float = 5.0) -> Schedule:
    """The published few-step schedule: indices into a shifted grid of 1000 levels, fresh noise between passes."""
    return Schedule(tuple(shifted(step / 1000, shift) for step in timesteps), renoise=True)
