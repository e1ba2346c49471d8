"""Presets for Matrix-Game 2.0: what fits a class of card, as one word.

    preset   numbers    decoder   image encoder
    24gb     bfloat16   full      stays in memory: a new session opens at once
    12gb     bfloat16   full      parked on the disk after a session's start
    8gb      bfloat16   tiny      parked on the disk after a session's start
    fast     bfloat16   tiny      stays in memory

A number type or a decoder that is asked for by name holds against the preset.  Smaller weights (int8, int4, fp8) are
not built yet: asking for them is an error that says so.
"""

from __future__ import annotations

from dataclasses import dataclass

from reverie.errors import CheckpointError, DeviceError


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How a model is loaded.  dtype, decoder: `auto` for what the machine and the model say; keeps_encoder: whether
    the image encoder stays in memory."""

    dtype: str = "auto"
    decoder: str = "auto"
    keeps_encoder: bool = False


PRESETS = {
    "24gb": Settings(dtype="bfloat16", decoder="full", keeps_encoder=True),
    "12gb": Settings(dtype="bfloat16", decoder="full"),
    "8gb": Settings(dtype="bfloat16", decoder="tiny"),
    "fast": Settings(dtype="bfloat16", decoder="tiny", keeps_encoder=True),
}
BY_SIZE = ("24gb", "12gb", "8gb")
"""Those that are named after a card, the most comfortable first."""
PLANNED = ("int8", "int4", "fp8")


def settings(preset: str | None, dtype: str = "auto", decoder: str = "auto") -> Settings:
    """What a preset sets, where `dtype` and `decoder` leave it open; None sets nothing.

    Raises DeviceError for a preset that is unknown or not built, CheckpointError for an unknown decoder.
    """
    if decoder not in ("auto", "full", "tiny"):
        raise CheckpointError(f"there is no decoder {decoder!r}; expected full or tiny")
    if preset is None:
        chosen = Settings()
    elif preset in PRESETS:
        chosen = PRESETS[preset]
    elif preset in PLANNED:
        raise DeviceError(f"{preset} weights are not built yet; the smallest preset today is 8gb (bfloat16 weights)")
    else:
        raise DeviceError(f"there is no preset {preset!r}; expected {', '.join(PRESETS)}")
    return Settings(
        dtype=chosen.dtype if dtype == "auto" else dtype,
        decoder=chosen.decoder if decoder == "auto" else decoder,
        keeps_encoder=chosen.keeps_encoder,
    )
