"""Start frames for a trained model: of the model that it goes on from, or chosen from its recordings.

add_start_frames(run / "model", data=[Path("data/vizdoom")], start=Path("runs/teacher/model"))
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from reverie.data.dataset import Dataset, Episode
from reverie.errors import DataError
from reverie.models.start_frames import NewStartFrame, copy_start_frames, read_start_frames, write_start_frames

log = logging.getLogger("reverie.train")

NUM_STARTS = 6
"""Start frames of a model; with more recordings than that, one of each."""
MOMENTS = (0.2, 0.45, 0.7)
"""Candidate moments of an episode for a start frame, as parts of its length; the clearest is taken."""
TRIES = 4
"""Episodes looked at for each start frame, where some are damaged or flat."""
MIN_DETAIL = 2.0
"""The least mean gradient (grey levels a pixel) of a start frame: a loading screen or a wall has less."""


def add_start_frames(
    folder: Path, data: Sequence[Path], *, start: Path | None = None, count: int = NUM_STARTS
) -> list[str]:
    """Give the model in `folder` start frames, and return their titles.

    start: the folder of the model that it goes on from, whose start frames are kept if it has any.
    data: recordings to choose from, each as often, from episodes spread over each.
    A recording that cannot be read is left out with a warning: a training is not lost for want of a start frame.
    """
    if start is not None and any(copy_start_frames(place, folder) for place in (start, start / "model")):
        return [frame.title for frame in read_start_frames(folder)]
    frames = choose_start_frames(data, count)
    write_start_frames(folder, frames)
    if not frames:
        log.warning("%s has no start frames: none of its recordings could be read; play it with an image", folder)
    return [frame.title for frame in frames]


def choose_start_frames(data: Sequence[Path], count: int = NUM_STARTS) -> list[NewStartFrame]:
    """About `count` frames of these recordings, at least one of each, with titles that differ."""
    chosen: list[NewStartFrame] = []
    for number, path in enumerate(data):
        share = max(1, count // len(data) + (number < count % len(data)))
        try:
            chosen += _choose(Dataset(path), share)
        except DataError as error:
            log.warning("no start frames from %s: %s", path, error)
    return _with_own_titles(chosen)


def _choose(dataset: Dataset, count: int) -> list[NewStartFrame]:
    """Frames of `count` different episodes (all of them where there are fewer), of different maps while they last."""
    space, game = dataset.action_space, _game(dataset)
    used: set[int] = set()
    frames: list[NewStartFrame] = []
    for _ in range(min(count, dataset.num_episodes)):
        best: tuple[float, npt.NDArray[np.uint8], Episode] | None = None
        for position in _candidates(dataset, used):
            used.add(position)
            found = _clearest(dataset, position)
            if found is not None and (best is None or found[0] > best[0]):
                best = (*found, dataset.episodes[position])
            if best is not None and best[0] >= MIN_DETAIL:
                break
        if best is not None:
            place = str(best[2].meta.get("map") or "").strip()
            title = ", ".join(part for part in (game, place) if part)
            frames.append(NewStartFrame(best[1], title, tuple(space.keys), space.mouse))
    return frames


def _candidates(dataset: Dataset, used: set[int]) -> Iterator[int]:
    """Positions of episodes to look at next: of maps not used yet first, and far from those used."""
    maps = {str(dataset.episodes[position].meta.get("map")) for position in used}

    def order(position: int) -> tuple[bool, float, int]:
        distance = min((abs(position - other) for other in used), default=0)
        return str(dataset.episodes[position].meta.get("map")) in maps, -distance, position

    left = [position for position in range(dataset.num_episodes) if position not in used]
    yield from sorted(left, key=order)[:TRIES]


def _clearest(dataset: Dataset, position: int) -> tuple[float, npt.NDArray[np.uint8]] | None:
    """The moment of an episode with the most detail, and how much; None if it cannot be read."""
    length = dataset.episodes[position].length
    found: list[tuple[float, npt.NDArray[np.uint8]]] = []
    for moment in MOMENTS:
        try:
            image = dataset.clip(position, int(moment * (length - 1)), 1).frames[0]
        except DataError as error:
            log.warning("no start frame from this episode: %s", error)
            return None
        found.append((_detail(image), image))
    return max(found, key=lambda one: one[0])


def _detail(image: npt.NDArray[np.uint8]) -> float:
    """The mean absolute gradient of an image, in grey levels a pixel."""
    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY).astype(np.float32)
    return float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean())


def _game(dataset: Dataset) -> str:
    """The name of the game, or else of the recording's folder."""
    try:
        notes = json.loads((dataset.path / "meta/reverie.json").read_text())
        name = notes["recorder"]["world"] if "recorder" in notes else notes["world"]
    except (OSError, ValueError, KeyError, TypeError):
        name = ""
    return name if isinstance(name, str) and name else dataset.path.resolve().name


def _with_own_titles(frames: list[NewStartFrame]) -> list[NewStartFrame]:
    """The same frames; a title that occurs several times is numbered."""
    titles = [re.sub(r"\s+", " ", frame.title) for frame in frames]
    seen: dict[str, int] = {}
    result: list[NewStartFrame] = []
    for frame, title in zip(frames, titles, strict=True):
        seen[title] = seen.get(title, 0) + 1
        own = f"{title} {seen[title]}" if titles.count(title) > 1 else title
        result.append(NewStartFrame(frame.image, own, frame.keys, frame.mouse))
    return result
