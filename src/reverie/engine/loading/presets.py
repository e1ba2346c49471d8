"""Presets for Matrix-Game 2.0: what fits a class of card, as one word.

    preset   numbers    weights   decoder   image encoder
    24gb     bfloat16   full      full      stays in memory: a new session opens at once
    12gb     bfloat16   full      full      parked on the disk after a session's start
    8gb      bfloat16   int8      tiny      parked on the disk after a session's start
    fast     bfloat16   full      tiny      stays in memory

What is asked for by name, a number type, a decoder, weights (`reverie.engine.accelerate.quantise`), holds against the
preset.
"""

from __future__ import annotations

from dataclasses import dataclass

from reverie.engine.accelerate.quantise import KINDS
from reverie.errors import CheckpointError, DeviceError


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Load settings of a model.  dtype, decoder: `auto` takes the machine's and the model's default; weights: of the
    transformer, full or one of `reverie.engine.accelerate.quantise.KINDS`; keeps_encoder: whether the image encoder
    stays in memory."""

    dtype: str = "auto"
    decoder: str = "auto"
    weights: str = "full"
    keeps_encoder: bool = False


PRESETS = {
    "24gb": Settings(dtype="bfloat16", decoder="full", keeps_encoder=True),
    "12gb": Settings(dtype="bfloat16", decoder="full"),
    "8gb": Settings(dtype="bfloat16", decoder="tiny", weights="int8"),
    "fast": Settings(dtype="bfloat16", decoder="tiny", keeps_encoder=True),
}
BY_SIZE = ("24gb", "12gb", "8gb")
"""Those that are named after a card, the most comfortable first."""


def _preset_named(name: str) -> Settings:
    if name in KINDS:
        raise DeviceError(f"{name} is no preset but a kind of weights: say --weights {name}")
    if name not in PRESETS:
        raise DeviceError(f"there is no preset {name!r}; expected {', '.join(PRESETS)}")
    return PRESETS[name]


def settings(preset: str | None, dtype: str = "auto", decoder: str = "auto", weights: str = "auto") -> Settings:
    """Resolves a preset and explicit options to load settings; explicit options win, and None is no preset.

    Raises DeviceError for an unknown preset or kind of weights, CheckpointError for an unknown decoder.
    """
    if decoder not in ("auto", "full", "tiny"):
        raise CheckpointError(f"there is no decoder {decoder!r}; expected full or tiny")
    if weights not in ("auto", "full", *KINDS):
        raise DeviceError(f"there are no {weights} weights; expected full, {', '.join(KINDS)}")
    chosen = Settings() if preset is None else _preset_named(preset)
    return Settings(
        dtype=chosen.dtype if dtype == "auto" else dtype,
        decoder=chosen.decoder if decoder == "auto" else decoder,
        weights=chosen.weights if weights == "auto" else weights,
        keeps_encoder=chosen.keeps_encoder,
    )
