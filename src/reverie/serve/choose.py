"""Choice of the source that a command plays: a model, a real game, or both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from reverie.data.options import parse_options
from reverie.engine.loading.models import check_model
from reverie.errors import ServeError
from reverie.serve.sources import GameSource, ModelSource, Source
from reverie.serve.swap_source import SwapSource
from reverie.worlds import world_info

MODEL = "nano"
"""The model that is played where neither a model nor a game is named."""


def source_of(
    model: str | None,
    world: str | None,
    device: str,
    record: Path | None = None,
    *,
    settings: Sequence[str] = (),
    scene: str | None = None,
    start: int = 0,
    say: Callable[[str], None] = lambda text: None,
    **options: Any,
) -> Source:
    """The game `world` with `settings` KEY=VALUE, the model with options of `reverie.load`, or a game and its dream.

    scene, start: the scene that the model begins in, and where.
    say: told in one line, before they are read, what large weights will need.

    Raises ServeError if a dream is to be recorded or set up like a game, or a game is to have a preset or a scene;
    WorldError for an unknown game or option; CheckpointError for a model that is not here and cannot be fetched;
    DataError for a scene or start that is not there.
    """
    if world is not None and model is None and options.get("preset") is not None:
        raise ServeError(f"--preset is for models, and {world} is a game; leave one of them out")
    if world is not None and scene is not None:
        raise ServeError(f"--scene is for models, and {world} is a game; leave one of them out")
    if scene is None and start:
        raise ServeError(f"--start {start} is a start of a scene, and none is named; add --scene")
    if world is None and (record is not None or settings):
        asked = "recorded" if record is not None else "set up with --set"
        raise ServeError(f"only a real game is {asked}, and none is named; add --world vizdoom, say")
    if record is not None and model is not None:
        raise ServeError("--record keeps one real game's play, without jumps to where a dream was; leave --model out")
    game = None if world is None else GameSource(world, record=record, **parse_options(world_info(world), settings))
    if game is not None and model is None:
        return game
    model = model or MODEL
    check_model(model, options.get("variant"))
    if scene is not None:
        from reverie.engine.loading.scenes import SceneCard  # torch

        SceneCard.read(scene).start(start)
    dreams = ModelSource(model, device=device, scene=scene, start=start, say=say, **options)
    return dreams if game is None else SwapSource(game, dreams)


def name_of(model: str | None, world: str | None) -> str:
    """Formats the name of the world and the model that are played, for display."""
    return " and ".join(filter(None, (world, model))) or MODEL
