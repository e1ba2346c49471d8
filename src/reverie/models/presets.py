"""Named sizes.  A preset states everything; variants are `dataclasses.replace` of one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from reverie.models import tokenizer
from reverie.models.actions import ActionModuleConfig
from reverie.models.camera import Camera
from reverie.models.dit import WorldModelConfig
from reverie.models.image_encoder import ImageEncoderConfig
from reverie.models.tokenizer import TokenizerConfig
from reverie.types import ActionSpace

WALKER = ActionSpace(("forward", "back", "left", "right"), mouse=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """The parts of one model that fit together.  resolution: (H, W) in pixels."""

    resolution: tuple[int, int]
    tokenizer: TokenizerConfig
    image_encoder: ImageEncoderConfig
    world: WorldModelConfig


def tiny(action_space: ActionSpace = WALKER, fov_deg: float = 90.0) -> Preset:
    """For tests: seconds on a CPU, every part present."""
    encoder = ImageEncoderConfig(size=(16, 32), width=16)
    return Preset(
        resolution=(32, 64),
        tokenizer=tokenizer.tiny(),
        image_encoder=encoder,
        world=WorldModelConfig(
            action_space=action_space,
            latent=(16, 4, 8),
            dim=48,
            ffn_dim=96,
            layers=2,
            heads=2,
            window=4,
            block=1,
            image_dim=encoder.width,
            image_tokens=encoder.num_tokens,
            image_blocks=(1,),
            keyboard=ActionModuleConfig(blocks=(0,), heads=2, head_dim=16, hidden=8),
            mouse=ActionModuleConfig(blocks=(0,), heads=2, head_dim=16, scale=0.25) if action_space.mouse else None,
            freq_dim=32,
            theta=100.0,
            camera=Camera(fov_deg=fov_deg),
            cond_channels=36,
            motion=8,
            action_modulation=True,
            learned_positions=True,
            local_start=True,
            predicts_clean=True,
            mouse_scale=0.25,
        ),
    )


def _walker(action_space: ActionSpace, fov_deg: float, dim: int, layers: int, window: int) -> Preset:
    encoder = ImageEncoderConfig(size=(64, 112), width=128)
    middle = layers // 2
    return Preset(
        resolution=(128, 224),
        tokenizer=tokenizer.nano(),
        image_encoder=encoder,
        world=WorldModelConfig(
            action_space=action_space,
            latent=(16, 16, 28),
            dim=dim,
            ffn_dim=4 * dim,
            layers=layers,
            heads=dim // 64,
            window=window,
            block=1,
            image_dim=encoder.width,
            image_tokens=encoder.num_tokens,
            image_blocks=(1, middle + 1),
            keyboard=ActionModuleConfig(blocks=(0, middle), heads=dim // 64, head_dim=64),
            mouse=ActionModuleConfig(blocks=(0,), heads=dim // 64, head_dim=64, scale=0.25)
            if action_space.mouse
            else None,
            theta=100.0,
            camera=Camera(fov_deg=fov_deg),
            cond_channels=36,
            motion=64,
            action_modulation=True,
            learned_positions=True,
            local_start=True,
            predicts_clean=True,
            mouse_scale=0.25,
        ),
    )


def nano(action_space: ActionSpace = WALKER, fov_deg: float = 105.4) -> Preset:
    """The bundled size: what two CPU cores can both play in real time and train in an hour or two."""
    return _walker(action_space, fov_deg, dim=256, layers=7, window=5)


def nano_wide(action_space: ActionSpace = WALKER, fov_deg: float = 105.4) -> Preset:
    """The same design with about 25M parameters: still real time on two fast cores, worth it when a GPU trains it."""
    return _walker(action_space, fov_deg, dim=448, layers=10, window=8)


def nano_embedded(action_space: ActionSpace = WALKER, fov_deg: float = 105.4) -> Preset:
    """nano without its mouse and keyboard modules and its camera: actions come through the timestep embedding alone, as
    in MIND-World.  For comparison: it says what those parts are worth."""
    full = nano(action_space, fov_deg)
    world = replace(full.world, keyboard=None, mouse=None, camera=None, cond_channels=20, motion=0)
    return replace(full, world=world)


PRESETS = {"tiny": tiny, "nano": nano, "nano-wide": nano_wide, "nano-embedded": nano_embedded}
