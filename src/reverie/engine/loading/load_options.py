"""Options of loading a model, which commands share (`LoadOptions`), each documented here alone."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSettings:
    """Settings with which a model is loaded: arguments of `reverie.engine.engine.load`."""

    variant: str | None = None
    """Variant of Matrix-Game 2.0: universal, gta or templerun."""
    decoder: str = "auto"
    """full, or tiny where the model has one: faster, a little coarser; auto takes the preset's, else full."""
    preset: str | None = None
    """Memory preset of Matrix-Game 2.0, by the card's memory: 24gb, 12gb, 8gb; or fast."""
    weights: str = "auto"
    """Weights of the transformer: full, int8, int4 or fp8; auto takes the preset's, else full."""
    mode: str = "auto"
    """eager, or compiled (on a GPU with CUDA graphs); auto compiles on a GPU."""
    device: str = "auto"
    """auto, cpu, mps, cuda or cuda:N."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadOptions(ModelSettings):
    """A model, and how it is loaded."""

    model: str
    """A bundled model's name, a model folder, published Matrix-Game 2.0 weights, or a hub id of either."""
    dtype: str = "auto"
    """auto, float32, bfloat16 or, on a GPU, float16."""
