"""Matrix-Game 2.0's transformer: its configuration and the names of its weights, as ours.

`python -m reverie.cli.reference_check` compares our numbers with stored ones of the reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reverie.errors import CheckpointError
from reverie.models.actions import WINDOW_FRAMES, ActionModuleConfig
from reverie.models.config import ActionConditioningConfig, ImageAttentionConfig, WorldModelConfig
from reverie.models.schedule import Schedule, shifted
from reverie.models.weights import TensorFile
from reverie.nn.norm import EPS
from reverie.types import STEP_FRAMES, ActionSpace

KEYS: dict[int, tuple[str, ...]] = {
    4: ("forward", "back", "left", "right"),
    2: ("forward", "back"),
    6: ("forward", "back", "left", "right", "turn-left", "turn-right"),
    7: ("still", "jump", "crouch", "turn-left", "turn-right", "left", "right"),
}
"""Keys of the universal, GTA driving, six-key and Temple Run models, by their number.  Temple Run's `still` is down
whenever no other key is; to crouch is to slide, left and right are to lean.  ForgeWM's models have six keys, of which
the last two were never down in its training, and so have some of FastVideo's."""
VARIANTS: dict[tuple[int, bool], str] = {
    (4, True): "universal",
    (2, True): "gta",
    (7, False): "templerun",
    (6, True): "six-key",
}
"""Models by their number of keys and whether they have a mouse: the published ones, and what others trained."""
TIMESTEPS = {"templerun": (1000, 750, 500, 250)}
DEFAULT_TIMESTEPS = (1000, 666, 333)
IDLE_KEY = "still"

BLOCK_STEPS = 3
UNLIMITED_STEPS = 15
"""Window in latent steps of a model without one, in play: the length of the clips that it was trained on."""
TURN_SCALE = 1 / 15
"""Mouse values for one degree, as users of the published models report it; ForgeWM's data has the same."""
PATCH_NAMES = ("patch_embedding.weight", "patch_embedding.proj.weight")
"""Names of the first layer's weight, as published and in FastVideo."""


def variant_of(raw: Mapping[str, Any]) -> str:
    """Identifies the published model that a `config.json` belongs to; `unknown` for none of them."""
    actions = raw.get("action_config") or {}
    return VARIANTS.get((actions.get("keyboard_dim_in", 0), bool(actions.get("enable_mouse"))), "unknown")


def patch_of(file: TensorFile) -> tuple[int, int]:
    """Latent cells of a token, down and across, from the shape of the first layer's weight."""
    shape = next((s for name, s in file.shapes.items() if name.endswith(PATCH_NAMES)), ())
    if len(shape) != 5 or shape[2] != 1:
        raise CheckpointError(
            f"{file.path} is no Matrix-Game 2.0 model: its patch_embedding.weight is {list(shape) or 'missing'}, "
            "expected (width, channels, 1, rows, columns)"
        )
    return shape[3], shape[4]


def read_config(
    raw: Mapping[str, Any],
    latent: tuple[int, int, int],
    image_tokens: int = 257,
    image_dim: int = 1280,
    *,
    patch: tuple[int, int] = (2, 2),
    block: int = BLOCK_STEPS,
    unlimited: int = UNLIMITED_STEPS,
) -> WorldModelConfig:
    """A published `config.json` -> ours.

    What the file leaves open: latent, (c, h, w) of a step (16, 44, 80 at 352x640); image_tokens, image_dim: of the
    image encoder; patch: cells of a token; block: steps generated together; unlimited: the window of a model without.
    Raises CheckpointError for a file that is not one of these.
    """
    try:
        actions = raw["action_config"]
        num_keys = int(actions["keyboard_dim_in"]) if actions.get("enable_keyboard", True) else 0
        keys = KEYS.get(num_keys, tuple(f"key{i}" for i in range(num_keys)))
        window = int(raw["local_attn_size"])
        _check_supported(raw, actions, latent)
        return WorldModelConfig(
            action_space=ActionSpace(keys, mouse=bool(actions["enable_mouse"])),
            latent=latent,
            dim=int(raw["dim"]),
            ffn_dim=int(raw["ffn_dim"]),
            layers=int(raw["num_layers"]),
            heads=int(raw["num_heads"]),
            window=window if window > 0 else max(unlimited, block),
            block=block,
            image=ImageAttentionConfig(dim=image_dim, tokens=image_tokens, blocks=tuple(range(int(raw["num_layers"])))),
            actions=ActionConditioningConfig(
                keyboard=_module(actions, "keyboard_hidden_dim", 1.0) if keys else None,
                mouse=_module(actions, "mouse_hidden_dim", TURN_SCALE) if actions["enable_mouse"] else None,
                idle_key=IDLE_KEY if IDLE_KEY in keys else None,
            ),
            freq_dim=int(raw["freq_dim"]),
            conditioning="first_frame",
            patch=patch,
        )
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        raise CheckpointError(f"not a Matrix-Game 2.0 config.json: {error!r} is missing or wrong") from error


def _module(actions: Mapping[str, Any], width: str, scale: float) -> ActionModuleConfig:
    heads = int(actions["heads_num"])
    return ActionModuleConfig(
        blocks=tuple(actions["blocks"]),
        heads=heads,
        head_dim=int(actions[width]) // heads,
        time_pairs=actions.get("mouse_qk_dim_list", (8, 28, 28))[0] // 2,  # the keyboard's too
        theta=float(actions["rope_theta"]),
        hidden=int(actions["hidden_size"]),
        scale=scale,
        gain=bool(actions.get("norm_gain", False)),  # ours: inferred from the weights, no published config has it
    )


def _check_supported(raw: Mapping[str, Any], actions: Mapping[str, Any], latent: tuple[int, int, int]) -> None:
    """Raise CheckpointError for what no published model has and this code has not either."""
    expected = {
        "model_type": (raw.get("model_type", "i2v"), "i2v"),
        "out_dim": (raw["out_dim"], latent[0]),
        "sink_size": (raw.get("sink_size", 0), 0),
        "eps": (raw.get("eps", EPS), EPS),
        "windows_size": (actions.get("windows_size", WINDOW_FRAMES // STEP_FRAMES), WINDOW_FRAMES // STEP_FRAMES),
        "qk_norm": (actions.get("qk_norm", True), True),
        "qkv_bias": (actions.get("qkv_bias", False), False),
        "vae_time_compression_ratio": (actions.get("vae_time_compression_ratio", STEP_FRAMES), STEP_FRAMES),
        "mouse_dim_in": (actions.get("mouse_dim_in", 2) if actions["enable_mouse"] else 2, 2),
    }
    for name, (got, wanted) in expected.items():
        if got != wanted:
            raise CheckpointError(
                f"not a Matrix-Game 2.0 model that is supported: {name} is {got!r}, expected {wanted!r}"
            )


def schedule(timesteps: tuple[int, ...] = DEFAULT_TIMESTEPS, shift: float = 5.0) -> Schedule:
    """The published few-step schedule: indices into a shifted grid of 1000 levels, fresh noise between passes."""
    return Schedule(tuple(shifted(step / 1000, shift) for step in timesteps), renoise=True)
