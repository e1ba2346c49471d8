"""Packs for a recipe: what was recorded elsewhere, or is recorded on this machine, is packed by game."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from reverie.data.game_options import options_of
from reverie.errors import DataError, WorldError
from reverie.train.spatial.plans import Recipe, RecordingPlan
from reverie.train.spatial.stages import Stages
from reverie.types import FPS, ActionSpace
from reverie.worlds import install_command, missing, world_info


@dataclass(frozen=True, slots=True)
class Place:
    """A place of a game that is recorded: options of the game, as `--set` takes them, its levels, or else a seed."""

    game: str
    number: int
    options: tuple[str, ...] = ()
    maps: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.game}-{self.number:02d}"


def place_of_game(game: str, number: int) -> Place:
    """The place of a number.  Raises WorldError for an unknown game."""
    if game == "vizdoom":
        return Place(game, number, ("hands=false",), (f"freedoom2/MAP{1 + number % 24:02d}",))
    if game == "city":
        return Place(game, number, ("view=walk", f"place={number}"))
    return Place(game, number, (f"place={number}",) if "place" in options_of(world_info(game)) else ())


def check_games(games: Sequence[str], resolution: tuple[int, int]) -> None:
    """Checks games before they are recorded.  resolution: (H, W) of the model.

    Raises WorldError, with what to install, for games that this machine cannot play; DataError for games of another
    resolution.
    """
    infos = [world_info(game) for game in games]
    if lacking := [info for info in infos if missing(info)]:
        names = ", ".join(info.name for info in lacking)
        raise WorldError(
            f"there is no data and these games cannot be recorded here: {names}; {install_command(lacking)}, or give "
            "--packs and --held-out, or --data"
        )
    for info in infos:
        size = getattr(info.target, "resolution", None)  # of a game's class; others are seen when they are packed
        if isinstance(size, tuple):
            _check_size(f"the game {info.name}", size, resolution)


def check_datasets(datasets: Sequence[Path], resolution: tuple[int, int], space: ActionSpace) -> list[list[str]]:
    """Checks recordings before anything is made of them; returns name and fingerprint of each.

    resolution: (H, W) of the model; space: its actions.
    Raises DataError for recordings that are missing, of another resolution, or with other keys.
    """
    from reverie.data.dataset import Dataset

    found = []
    for path in datasets:
        dataset = Dataset(path)
        _check_size(str(path), dataset.resolution, resolution)
        if unknown := [key for key in dataset.action_space.keys if key not in space.keys]:
            raise DataError(f"{path} has the key {unknown[0]}, the model has {', '.join(space.keys)}")
        found.append([path.resolve().name, dataset.fingerprint])
    return found


def _check_size(what: str, size: tuple[int, ...], resolution: tuple[int, int]) -> None:
    if size != resolution:
        raise DataError(
            f"{what} is {size[0]}x{size[1]}, the model takes {resolution[0]}x{resolution[1]}; record at that "
            "resolution, or take the preset of this one"
        )


def record_places(
    games: Sequence[str], plan: RecordingPlan, folder: Path, processes: int, stages: Stages, say: Callable[[str], None]
) -> list[Path]:
    """Records place after place of every game by turns until the plan's seconds are used; returns the datasets.

    What an earlier start has recorded counts, and a place that it began is finished.
    """
    from reverie.data.record import RecordConfig, record

    datasets: list[Path] = []
    for number in range(plan.places):
        for game in games:
            if number and stages.used_s >= plan.seconds:
                return datasets
            place = place_of_game(game, number)
            config = RecordConfig(
                world=game,
                out=folder / place.name,
                hours=plan.place_frames / FPS / 3600,
                processes=processes,
                seed=number,
                set=place.options,
                maps=place.maps,
                episode_seconds=plan.episode_seconds,
                min_episode_seconds=min(8.0, plan.episode_seconds),
            )
            frames = record(config)
            datasets.append(config.out)
            say(f"recorded {place.name}: {frames / FPS / 60:.1f} minutes of play, {stages.used_s:.0f} s used")
    return datasets


def pack_games(datasets: Sequence[Path], folder: Path, say: Callable[[str], None]) -> tuple[list[Path], list[Path]]:
    """Packs datasets by game: those to train on in `folder`/packs, those held out in `folder`/held-out.

    A pack that is there already is taken as it is: it is written under another name and renamed.
    """
    from reverie.data.dataset import Dataset
    from reverie.scenes.recordings import game_of
    from reverie.train.spatial.packing import pack

    games: dict[str, list[Path]] = {}
    for path in datasets:
        games.setdefault(game_of(Dataset(path)), []).append(path)
    packs: dict[str, list[Path]] = {"train": [], "held-out": []}
    for game, paths in games.items():
        for part, name in (("train", "packs"), ("held-out", "held-out")):
            target = folder / name / game
            packs[part].append(target)
            if target.is_dir():
                continue
            partial = folder / name / ".partial" / game
            shutil.rmtree(partial.parent, ignore_errors=True)
            episodes, frames = pack(paths, partial, part=part)
            partial.rename(target)
            partial.parent.rmdir()
            say(f"packed {game} ({part}): {episodes} episodes, {frames} frames")
    return packs["train"], packs["held-out"]


def gather_packs(
    recipe: Recipe,
    datasets: Sequence[Path],
    games: Sequence[str],
    output: Path,
    processes: int,
    stages: Stages,
    say: Callable[[str], None],
) -> tuple[list[Path], list[Path]]:
    """Packs to train on and held-out packs, of datasets, or of what is recorded here where there are none."""
    if not datasets:
        folder = output / "recordings"
        if not stages.is_done("record"):
            with stages.stage("record"):
                record_places(games, recipe.recording, folder, processes, stages, say)
        datasets = sorted(path for path in folder.iterdir() if (path / "meta").is_dir())
    if stages.is_done("pack"):
        return _find_packs(output)
    with stages.stage("pack"):
        return pack_games(datasets, output, say)


def _find_packs(output: Path) -> tuple[list[Path], list[Path]]:
    """The packs that an earlier start has made."""
    train, held_out = (sorted((output / name).glob("[!.]*")) for name in ("packs", "held-out"))
    if not (train and held_out):
        raise DataError(f"the packs in {output} are gone; bring them back, or give another folder with -o")
    return train, held_out
