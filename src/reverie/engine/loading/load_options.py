"""Options of loading a model, as commands hand them on (`LoadOptions`)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadOptions:
    """A model and how it is loaded: arguments of `reverie.engine.engine.load`, which explains each."""

    model: str
    variant: str | None = None
    decoder: str = "auto"
    preset: str | None = None
    weights: str = "auto"
    mode: str = "auto"
    device: str = "auto"
    dtype: str = "auto"
