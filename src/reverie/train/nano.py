"""`reverie train nano`: every stage from recordings to a model folder, on the clock."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from reverie.errors import TrainError
from reverie.options import alias

BUNDLED = Path(__file__).parents[1] / "weights" / "nano"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainNanoConfig:
    """Train nano from recordings to a model folder within a budget.  Run it again to go on after a kill.

    Example: reverie train nano --recipe cpu-12h -o runs/nano
    Example: reverie train nano --recipe gpu-10min --packs packs/doom --held-out held-out/doom -o runs/nano

    Without data it records on this machine itself, on all cores.
    """

    recipe: str = "cpu-12h"
    """A plan and its budget: cpu-12h, gpu-10min, or the same with another time."""
    output: Annotated[Path, alias("-o")] = Path("runs/nano")
    """Folder of the run; the model is in run/model below it."""
    packs: tuple[Path, ...] = ()
    """Packs to train on (`reverie data pack`)."""
    held_out: tuple[Path, ...] = ()
    """Packs to measure on."""
    data: tuple[Path, ...] = ()
    """Recordings with poses and depth, which are packed first; every eighth episode is held out."""
    games: tuple[str, ...] = ()
    """Games to record where no data is given (default: vizdoom, city on foot, temple)."""
    tokenizer: Path = BUNDLED
    """A model folder whose tokenizer and keys are used."""
    start: Path | None = None
    """A model folder to go on from."""
    limit: int | None = None
    """Episodes of each pack, at most."""
    device: str = "auto"
    """auto, cuda or cpu."""
    compile: bool | None = None
    """Compile the transformer's pieces (default: on a GPU)."""

    def __post_init__(self) -> None:
        if self.data and self.packs:
            raise TrainError("--data are recordings that are packed first, --packs are packs already; give one of them")
        if self.limit is not None and self.limit < 1:
            raise TrainError(f"--limit must be at least 1, got {self.limit}")

    def run(self) -> None:
        from reverie.train.device import pick_device
        from reverie.train.recipes import run
        from reverie.train.spatial.machine import gpu_memory_gib, num_cores
        from reverie.train.spatial.plans import GAMES, recipe_named

        recipe = recipe_named(self.recipe, gpu_memory_gib() or 80.0, num_cores(), refine=self.start is not None)
        if self.limit is not None:
            recipe = replace(recipe, limit=self.limit)
        on_gpu = pick_device(self.device).type == "cuda"
        run(
            recipe,
            self.packs,
            self.held_out,
            self.tokenizer,
            self.output,
            self.device,
            on_gpu if self.compile is None else self.compile,
            start=self.start,
            datasets=self.data,
            games=self.games or GAMES,
        )
