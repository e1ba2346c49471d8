"""GF-Minecraft of GameFactory: `data_*/metadata/NAME.json` and `data_*/video/NAME.mp4`.

The JSON: {"biome": ..., "initial_weather": ..., "start_time": ..., "actions": {"0": {"ws": 0, "ad": 0, "scs": 0,
"pitch_delta": 0.0, "yaw_delta": 0.0, "yaw": ..., ...}, "1": ...}}.  ws: 1 forward, 2 back; ad: 1 left, 2 right; scs: 1
jump, 2 sneak, 3 sprint (no key here).  A delta of 1 is 15 degrees; yaw grows to the right, and pitch downwards, the
opposite of ours.  Action 0 is to be ignored: action k made frame k out of frame k - 1, so it is our row k - 1.  Where
the file gives the yaw itself, that is looked up rather than believed.

Evidence: github.com/KwaiVGI/GameFactory, `README.md` (files, codes, units, the parts to be joined and unpacked) and the
card of huggingface.co/datasets/KlingTeam/GameFactory-Dataset, where the set has moved.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reverie.data.importers.take import WALKER, Source, Table, Take, Track, read_json
from reverie.errors import DataError
from reverie.paths import own_files

if TYPE_CHECKING:
    from reverie.data.importers.config import ImportConfig

DEGREES_PER_DELTA = 15.0
CODES = {
    "ws": {0: "", 1: "forward", 2: "back"},
    "ad": {0: "", 1: "left", 2: "right"},
    "scs": {0: "", 1: "jump", 2: "crouch", 3: ""},
}
ABOUT = {"biome": "map", "initial_weather": "weather", "start_time": "time"}


def open_source(config: ImportConfig) -> Source:
    """Every metadata/*.json under the folder with its video, or the one file named."""
    tables = [config.src] if config.src.is_file() else own_files(config.src.rglob("metadata/*.json"))
    if not tables:
        packed = sorted({path.name for kind in ("part_??", "*.zip") for path in own_files(config.src.rglob(kind))})
        way = (
            f"; join and unpack {', '.join(packed[:3])} first: cat part_* > data.zip, unzip data.zip" if packed else ""
        )
        raise DataError(f"{config.src}: has no metadata/*.json; GF-Minecraft has data_*/metadata and data_*/video{way}")

    def takes() -> Iterator[Take | str]:
        for table in tables:
            video = table.parent.parent / "video" / f"{table.stem}.mp4"
            if not video.is_file():
                yield f"{table}: its video video/{video.name} is missing"
                continue
            try:
                content = read_json(table)
                actions = {int(key): value for key, value in content["actions"].items()}
            except (DataError, KeyError, TypeError, ValueError, AttributeError) as error:
                yield f"{table}: needs a JSON object with numbered actions ({error})"
                continue
            about = {ours: str(content.get(theirs, "")) for theirs, ours in ABOUT.items()}
            name = f"{table.parent.parent.name}/{table.stem}"
            yield Take(name, video, partial(read_track, table, actions), meta=about, tables=(table,))

    return Source(WALKER, takes)


def read_track(table: Path, actions: dict[int, Any], times: Table) -> Track:
    """Converts the numbered actions to the actions of each frame."""
    track = Track.blank(len(times), WALKER)
    first = first_action(actions)
    track.match(max(actions, default=-1) + 1, table)
    missing: list[int] = []
    malformed: list[int] = []
    for row in np.flatnonzero(track.keep).tolist():
        number = row + first
        if number not in actions and number > max(actions):
            continue  # nothing was done after the last frame
        try:
            track.actions[row] = _action(actions[number])
        except KeyError:
            missing.append(number)
        except (TypeError, ValueError, AttributeError, OverflowError):
            malformed.append(number)
    for rows, what in ((missing, "missing or without a code"), (malformed, "malformed")):
        track.note_rows(table, rows, what)
        track.drop([number - first for number in rows], what)
    track.validate(table, WALKER, first_row=first)
    return track


def first_action(actions: dict[int, Any]) -> int:
    """The number of the action that follows frame 0: 1, unless the yaw recorded with the actions is 0."""
    try:
        numbers = sorted(actions)
        delta = np.array([float(actions[number]["yaw_delta"]) for number in numbers])
        turned = np.diff([float(actions[number]["yaw"]) for number in numbers])
    except (KeyError, TypeError, ValueError, OverflowError):
        return 1
    with np.errstate(all="ignore"):
        turned = (turned + 180.0) % 360.0 - 180.0
        # Medians of what turns, so that a few values that are wrong do not decide for all.
        turns = (np.abs(turned) > 0.1) | (np.abs(delta[1:]) > 0.1 / DEGREES_PER_DELTA)
        own, next_one = (np.abs(turned - DEGREES_PER_DELTA * one)[turns] for one in (delta[:-1], delta[1:]))
    return 0 if turns.any() and np.nanmedian(own) < 0.5 * np.nanmedian(next_one) else 1


def _action(step: dict[str, Any]) -> list[float]:
    held = set()
    for name, codes in CODES.items():
        code = int(step[name])
        if code != step[name] or code not in codes:
            raise ValueError(f"{name} must be one of {list(codes)}, got {step[name]!r}")
        held.add(codes[code])
    pitch, yaw = float(step["pitch_delta"]), float(step["yaw_delta"])
    return [float(key in held) for key in WALKER.keys] + [-DEGREES_PER_DELTA * pitch, DEGREES_PER_DELTA * yaw]
