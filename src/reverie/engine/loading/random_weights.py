"""Matrix-Game 2.0's published sizes, known without its files: for a bench and for what a model will need.

Source: arXiv 2508.13009 and the published `config.json` of each variant.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from reverie.errors import CheckpointError
from reverie.models.adapters import matrix_game
from reverie.models.adapters.published import DEFAULT_VARIANT, FOLDERS, RESOLUTION
from reverie.models.checkpoint import ModelBundle, ModelConfig
from reverie.models.clip_vision import ClipVision, ClipVisionConfig
from reverie.models.lazy_module import LazyModule
from reverie.models.tiny_decoder import TinyDecoderConfig
from reverie.models.tokenizer import CELL
from reverie.models.wan_vae import WanVAEConfig

HUB_NAMES = ("Skywork/Matrix-Game-2.0",)
NAMES = ("matrix-game-2", *HUB_NAMES)
"""Names of the published model, here and on the hub."""
KEYS = {"universal": 4, "gta": 2, "templerun": 7}
WINDOWS = {"gta": 4}
DEFAULT_WINDOW = 6

M = TypeVar("M", bound=nn.Module)


def matrix_game_2(
    variant: str | None = None, resolution: tuple[int, int] | None = None, *, tiny_decoder: bool = True
) -> ModelConfig:
    """The model that the published files of `variant` (default: universal) make.

    resolution: (H, W) in pixels.  tiny_decoder: as if `taew2_1.pth` were there.  Raises CheckpointError for an unknown
    variant.
    """
    variant = variant or DEFAULT_VARIANT
    if variant not in FOLDERS:
        raise CheckpointError(f"there is no variant {variant!r}; expected {', '.join(FOLDERS)}")
    height, width = resolution or RESOLUTION
    vae, tower = WanVAEConfig(), ClipVisionConfig()
    world = matrix_game.read_config(
        _raw(variant), (vae.channels, height // CELL, width // CELL), tower.num_tokens, tower.width
    )
    timesteps = matrix_game.TIMESTEPS.get(variant, matrix_game.DEFAULT_TIMESTEPS)
    return ModelConfig(
        name=f"matrix-game-2-{variant}",
        resolution=(height, width),
        schedule=matrix_game.schedule(timesteps),
        world=world,
        tokenizer=vae,
        image_encoder=tower,
        tiny_decoder=TinyDecoderConfig() if tiny_decoder else None,
    )


def _raw(variant: str) -> dict[str, Any]:
    """Builds the fields of a published config.json that decide the shapes."""
    mouse = variant != "templerun"
    return {
        "out_dim": 16,
        "in_dim": 36,
        "dim": 1536,
        "ffn_dim": 8960,
        "freq_dim": 256,
        "num_heads": 12,
        "num_layers": 30,
        "local_attn_size": WINDOWS.get(variant, DEFAULT_WINDOW),
        "action_config": {
            "blocks": list(range(15)),
            "enable_mouse": mouse,
            "heads_num": 16,
            "hidden_size": 128,
            "keyboard_dim_in": KEYS[variant],
            "keyboard_hidden_dim": 1024,
            "mouse_hidden_dim": 1024,
            "mouse_qk_dim_list": [8, 28, 28],
            "rope_theta": 256,
        },
    }


@dataclass(frozen=True, slots=True)
class RandomWeights:
    """A model whose weights are made up: as large and as fast as a real one.  Nothing is read."""

    config: ModelConfig

    @property
    def files(self) -> tuple[Path, ...]:
        return ()

    def load(self, device: torch.device | str, dtype: torch.dtype) -> ModelBundle:
        """Made on the meta device, which takes no memory, then filled as `dtype`: nothing is there twice."""
        with torch.device("meta"):
            bundle = ModelBundle.new(self.config)
        for module in (bundle.model, bundle.tokenizer, bundle.tiny_decoder, bundle.memory):
            if module is not None:
                fill_random(module, device, dtype)
        if isinstance(bundle.image_encoder, ClipVision):
            config = bundle.image_encoder.config

            def make() -> ClipVision:
                with torch.device("meta"):
                    tower = ClipVision(config)
                return fill_random(tower, device, dtype)

            bundle.image_encoder = LazyModule(make)
        elif isinstance(bundle.image_encoder, nn.Module):
            fill_random(bundle.image_encoder, device, dtype)
        return bundle


@torch.no_grad()
def fill_random(module: M, device: torch.device | str, dtype: torch.dtype) -> M:
    """Fill a module of the meta device in place: gains 1, offsets 0, matrices that keep the scale of what they turn."""
    made = {}
    for name, like in module.state_dict().items():
        tensor = torch.empty_like(like, device=device, dtype=dtype)
        if tensor.ndim > 1:
            width = (3 / max(1, tensor[0].numel())) ** 0.5
            tensor.uniform_(-width, width)
        else:
            tensor.fill_(0.0 if name.endswith("bias") else 1.0)
        made[name] = tensor
    module.load_state_dict(made, assign=True)
    module.to(device=device, dtype=dtype)  # constants that no file holds
    return module.eval().requires_grad_(False)  # type: ignore[return-value]
