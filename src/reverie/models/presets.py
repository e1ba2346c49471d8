"""Named sizes.  A preset states everything; variants are `dataclasses.replace` of one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from reverie.models import tokenizer
from reverie.models.actions import ActionModuleConfig
from reverie.models.conditioning.spatial_memory import SpatialMemoryConfig
from reverie.models.config import ActionConditioningConfig, ImageAttentionConfig, PositionConfig, WorldModelConfig
from reverie.models.image_encoder import ImageEncoderConfig
from reverie.models.tokenizer import TokenizerConfig
from reverie.types import ActionSpace

WALKER = ActionSpace(("forward", "back", "left", "right"), mouse=True)
POSITIONS = PositionConfig(theta=100.0, learned=True, local_start=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """The parts of one model that fit together.  resolution: (H, W) in pixels; memory: of models that have a spatial
    memory."""

    resolution: tuple[int, int]
    tokenizer: TokenizerConfig
    image_encoder: ImageEncoderConfig
    world: WorldModelConfig
    memory: SpatialMemoryConfig | None = None


def tiny(action_space: ActionSpace = WALKER) -> Preset:
    """For tests and tutorials: seconds on a CPU, conditioned on the previous latent."""
    encoder = ImageEncoderConfig(size=(16, 32), width=16)
    mouse = ActionModuleConfig(blocks=(0,), heads=2, head_dim=16, scale=0.25)
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
            image=ImageAttentionConfig(dim=encoder.width, tokens=encoder.num_tokens, blocks=(1,)),
            actions=ActionConditioningConfig(
                keyboard=ActionModuleConfig(blocks=(0,), heads=2, head_dim=16, hidden=8),
                mouse=mouse if action_space.mouse else None,
                modulation=True,
            ),
            positions=POSITIONS,
            predicts="clean",
            freq_dim=32,
        ),
    )


def tiny_memory(action_space: ActionSpace = WALKER) -> Preset:
    """`tiny` with a spatial memory, step sizes and a refining network: every part of nano, in seconds."""
    preset = tiny(action_space)
    world = replace(preset.world, conditioning="spatial_memory", refine=16, step_sizes=3)
    return replace(preset, world=world, memory=SpatialMemoryConfig(keyframes=4, drawn=3))


def _walker(action_space: ActionSpace, dim: int, layers: int, window: int) -> Preset:
    encoder = ImageEncoderConfig(size=(64, 112), width=128)
    middle, heads = layers // 2, dim // 64
    mouse = ActionModuleConfig(blocks=(0,), heads=heads, head_dim=64, scale=0.25)
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
            heads=heads,
            window=window,
            block=1,
            image=ImageAttentionConfig(dim=encoder.width, tokens=encoder.num_tokens, blocks=(1, middle + 1)),
            actions=ActionConditioningConfig(
                keyboard=ActionModuleConfig(blocks=(0, middle), heads=heads, head_dim=64),
                mouse=mouse if action_space.mouse else None,
                modulation=True,
            ),
            positions=POSITIONS,
            conditioning="spatial_memory",
            predicts="clean",
            patch=(4, 4),
            refine=96,
            step_sizes=4,
        ),
        memory=SpatialMemoryConfig(),
    )


def nano(action_space: ActionSpace = WALKER) -> Preset:
    """The bundled size, 20M weights: plays in real time on two CPU cores."""
    return _walker(action_space, dim=384, layers=8, window=12)


def memory_only(action_space: ActionSpace = WALKER) -> Preset:
    """A spatial memory with hardly a network: untrained, its head is zero, and what is shown is the memory's view.

    What the bundled nano is until a GPU has trained its network (docs/LOG.md).
    """
    preset = nano(action_space)
    world = replace(
        preset.world,
        dim=64,
        ffn_dim=128,
        layers=1,
        heads=1,
        window=2,
        image=replace(preset.world.image, blocks=()),
        actions=replace(preset.world.actions, keyboard=None, mouse=None),
        refine=0,
        step_sizes=0,
    )
    return replace(preset, world=world)


def small(action_space: ActionSpace = WALKER) -> Preset:
    """The same design with 47M weights, for a GPU."""
    return _walker(action_space, dim=512, layers=12, window=16)


def nano_plain(action_space: ActionSpace = WALKER) -> Preset:
    """nano without a spatial memory, conditioned on the previous latent: for recordings without poses, and for
    comparison."""
    preset = nano(action_space)
    return replace(preset, world=replace(preset.world, conditioning="previous_latent"), memory=None)


PRESETS = {
    "tiny": tiny,
    "tiny-memory": tiny_memory,
    "nano": nano,
    "nano-plain": nano_plain,
    "memory-only": memory_only,
    "small": small,
}
