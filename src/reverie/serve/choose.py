"""Choice of the source that a command plays: a model, a real game, or both."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from reverie.data.game_options import parse_options
from reverie.engine.loading.models import check_model
from reverie.errors import ServeError
from reverie.serve.protocol import MAX_MODEL_ID
from reverie.serve.sources import GameSource, ModelSource, Source
from reverie.serve.swap_source import SwapSource
from reverie.worlds import world_info

MODEL = "nano"
"""The model that is played where neither a model nor a game is named."""

CONFIG = "config.json"
"""The file that makes a folder a model."""


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


def sources_of(
    models: Sequence[str],
    world: str | None,
    device: str,
    record: Path | None = None,
    *,
    settings: Sequence[str] = (),
    **options: Any,
) -> Source | dict[str, Source]:
    """Does as `source_of`, for any number of models: the sources of several by the ids that the page chooses with.

    models: a folder of models stands for all of them.  Raises as `source_of` does, and ServeError where several models
    are given a scene or a game.
    """
    found = models_of(models)
    if len(found) < 2:
        return source_of(found[0] if found else None, world, device, record, settings=settings, **options)
    if world is not None or options.get("scene") is not None:
        raise ServeError(
            f"{len(found)} models are named ({', '.join(found)}), and a game or a scene is for one; give --model once"
        )
    ids = [Path(model).name if Path(model).is_dir() else model for model in found]
    ids = [one[-MAX_MODEL_ID:] if ids.count(one) == 1 else f"{i + 1}-{one}"[:MAX_MODEL_ID] for i, one in enumerate(ids)]
    made = [source_of(model, world, device, record, settings=settings, **options) for model in found]
    return dict(zip(ids, made, strict=True))


def models_of(models: Sequence[str]) -> list[str]:
    """The models that are named, with those in a folder of models each for itself."""
    return [one for model in models for one in _in_folder(model)]


def _in_folder(model: str) -> list[str]:
    """The models that lie in a folder, by name; the model alone where it is none of models."""
    if not Path(model).is_dir() or (Path(model) / CONFIG).is_file():
        return [model]
    return sorted(str(file.parent) for file in Path(model).glob(f"*/{CONFIG}") if _is_model(file)) or [model]


def _is_model(config: Path) -> bool:
    try:
        found = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and "world" in found and "tokenizer" in found


def name_of(models: Sequence[str], world: str | None) -> str:
    """Formats the name of the world and the models that are played, for display."""
    return " and ".join(filter(None, (world, ", ".join(models)))) or MODEL
