"""OpenCS2: Counter-Strike 2 rounds, one player's view each, as loose files.

    rounds/match_id=M/map_name=MAP/round=RR/player=PP/video.mp4       32 frames a second from the round's capture start
    rounds/match_id=M/map_name=MAP/round=RR/player=PP/ticks.parquet   a row a tick, 64 a second

Columns that are read: tick; t, its time in seconds after the video's first frame; active, names of the buttons held;
yaw and pitch in degrees, left and down positive, and delta_yaw and delta_pitch, how far they turned since the tick
before; x, y, z of the feet in units of an inch, z up; is_alive.  A frame shows the tick of its own time, so our row j
is the ticks after frame j up to that of frame j + 1.  Rows are put in order by `tick`.  A tick that is there twice, and
a row whose `t` is not that of its tick, refuse the file; frames of a row whose delta is not what its angles say are
left out, and so is what follows a player's death.

Evidence: the card of huggingface.co/datasets/blanchon/opencs2_dataset (files, rates); the rows that
huggingface.co/datasets/ZiyangYe/WorldCast-data shows of its copies of these files (columns, types, deltas, and by
velocity and yaw which way is left); github.com/Ziyang-Ye/WorldCast, `docs/data.md` and `worldcast/data/controls.py`
(which ticks a frame shows, names of the buttons, pitch, units).  The WebDataset packaging of the same rounds is not
read: how the members of its tar shards are called is documented nowhere that we found.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from reverie.data.dataset import read_parquet
from reverie.data.importers.take import Mask, Source, Table, Take, Track, ordered
from reverie.errors import DataError
from reverie.paths import own_files
from reverie.types import POSE_NAMES, ActionSpace

if TYPE_CHECKING:
    from reverie.data.importers.config import ImportConfig

TICK_RATE = 64.0
METRES = 0.0254
EYE_UNITS = 64.0
"""Height of the eyes above the feet, of a player who stands; how far ducking lowers them is not recorded."""
BUTTONS = (
    "attack", "attack2", "back", "duck", "forward", "jump", "look_at_weapon", "move_left", "move_right", "reload",
    "score", "speed", "use",
)  # fmt: skip
DEFAULT_KEYS = {
    "forward": "forward",
    "back": "back",
    "move_left": "left",
    "move_right": "right",
    "jump": "jump",
    "duck": "crouch",
    "attack": "attack",
    "use": "use",
}
NUMBERS = ("tick", "t", "yaw", "pitch", "delta_yaw", "delta_pitch", "x", "y", "z")
AGREE_DEG = 0.01
SLACK_S = 0.25 / TICK_RATE
"""A tick this much later than a frame is the frame's own: containers round times."""
LONGEST_GAP_S = 1.5 / TICK_RATE


def open_source(config: ImportConfig) -> Source:
    """Every ticks.parquet under the folder with the video.mp4 beside it, or the one file named."""
    tables = [config.src] if config.src.is_file() else own_files(config.src.rglob("ticks.parquet"))
    if not tables:
        tars = " (its .tar shards are not read; fetch the loose files)" if own_files(config.src.rglob("*.tar")) else ""
        raise DataError(f"{config.src}: has no ticks.parquet; OpenCS2 has rounds/match_id=.../player=.../{tars}")
    keymap = parse_keymap(config.map)
    space = ActionSpace(ordered(keymap.values()), mouse=True)

    def takes() -> Iterator[Take | str]:
        for table in tables:
            video = table.with_name("video.mp4")
            if not video.is_file():
                yield f"{table}: its video video.mp4 is missing"
                continue
            about = dict(part.split("=", 1) for part in table.parts if "=" in part)
            names = ("match_id", "map_name", "round", "player")
            name = "-".join(about[one] for one in names if one in about) or str(table.parent)
            meta = {"map": about.get("map_name", ""), "match": about.get("match_id", "")}
            yield Take(name, video, partial(read_track, table, keymap, space), meta=meta, tables=(table,))

    return Source(space, takes, has_poses=True)


def parse_keymap(wishes: tuple[str, ...]) -> dict[str, str]:
    """BUTTON=NAME by button; those that every walker has if none are given."""
    keymap: dict[str, str] = {}
    for wish in wishes:
        theirs, _, ours = wish.partition("=")
        if theirs not in BUTTONS or not ours:
            raise DataError(f"--map {wish}: must be BUTTON=NAME with BUTTON one of {', '.join(BUTTONS)}")
        keymap[theirs] = ours
    return keymap or dict(DEFAULT_KEYS)


def read_track(path: Path, keymap: dict[str, str], space: ActionSpace, times: Table) -> Track:
    """Reads the ticks into the actions between the frames shown at `times`."""
    ticks, row_of, numbers = read_ticks(path)
    shown_s = times - times[0]
    until = np.searchsorted(numbers["t"], shown_s + SLACK_S, side="right")
    track = Track.blank(len(times), space)
    _drop_gaps(track, numbers["t"], until, shown_s, path)
    _drop_contradictions(track, numbers, until, row_of, path)
    alive = ticks.column("is_alive").to_pylist()
    dead = np.array([one is not True for one in alive])
    track.drop(_any(dead, until) | dead[np.maximum(until - 1, 0)], "dead")

    # Ours: up and right.  What is no number is left out already, and must not spread in the sums.
    turns = -np.nan_to_num(np.stack([numbers["delta_pitch"], numbers["delta_yaw"]], axis=1))
    track.actions[:-1, len(space.keys) :] = np.diff(_sums(turns)[until], axis=0)
    held = ticks.column("active").to_pylist()
    for column, key in enumerate(space.keys):
        buttons = {theirs for theirs, ours in keymap.items() if ours == key}
        track.actions[:, column] = _any(np.array([not buttons.isdisjoint(one or ()) for one in held]), until)
    track.poses = _poses(numbers)[np.maximum(until - 1, 0)]
    track.validate(path, space)
    return track


def read_ticks(path: Path) -> tuple[pa.Table, npt.NDArray[np.intp], dict[str, Table]]:
    """The rows by tick, the number that each has in the file, and their numbers.

    Raises DataError, naming file and row, for a tick that is there twice and a time that is not the tick's.
    """
    table = read_parquet(path)
    for name in (*NUMBERS, "active", "is_alive"):
        if name not in table.column_names:
            raise DataError(f"{path}: the column {name} is missing, has {table.column_names}")
    if not table.num_rows:
        raise DataError(f"{path}: has no rows")
    numbers = {name: _column(table, name, path) for name in NUMBERS}
    row_of = np.argsort(numbers["tick"], kind="stable")
    table, numbers = table.take(pa.array(row_of)), {name: values[row_of] for name, values in numbers.items()}
    tick, t = numbers["tick"], numbers["t"]
    for at in np.flatnonzero(np.diff(tick) == 0)[:1]:
        raise DataError(f"{path}: rows {row_of[at]} and {row_of[at + 1]} are both of tick {tick[at]:.0f}; remove one")
    said = (tick - tick[0]) / TICK_RATE
    for at in np.flatnonzero(~(np.abs(t - t[0] - said) <= 0.5 / TICK_RATE))[:1]:
        raise DataError(
            f"{path}: row {row_of[at]}: t is {t[at]:g}, but tick {tick[at]:.0f} is {said[at]:g} s after tick"
            f" {tick[0]:.0f}, which is at {t[0]:g}"
        )
    return table, row_of, numbers


def _column(table: pa.Table, name: str, path: Path) -> Table:
    try:
        return np.array(table.column(name).to_pylist(), np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: {name} should have one number in each of {table.num_rows} rows") from error


def _drop_gaps(track: Track, t: Table, until: npt.NDArray[np.intp], shown_s: Table, path: Path) -> None:
    """Drops the frames whose row ticks do not reach to the next frame, or have a gap."""
    lag = shown_s - np.where(until > 0, t[np.maximum(until - 1, 0)], -np.inf)
    late = np.append(lag[1:] > LONGEST_GAP_S, False) | (lag > LONGEST_GAP_S)
    if late.any():
        first, count = int(np.argmax(late)), int(late.sum())
        track.notes.append(f"{path}: has no tick for {count} frames of the video, the first of them frame {first}")
        track.drop(late, "no action")
    gaps = np.append(False, np.diff(t) > LONGEST_GAP_S)
    track.drop(_any(gaps, until), "after a gap in the ticks")


def _drop_contradictions(
    track: Track, numbers: dict[str, Table], until: npt.NDArray[np.intp], row_of: npt.NDArray[np.intp], path: Path
) -> None:
    """Drops the frames of rows that turn otherwise than their angles do."""
    bad: Mask = np.zeros(len(row_of), np.bool_)
    apart = np.diff(numbers["tick"]) == 1
    for name in ("yaw", "pitch"):
        turned = (np.diff(numbers[name]) + 180.0) % 360.0 - 180.0
        wrong = apart & ~(np.abs((turned - numbers[f"delta_{name}"][1:] + 180.0) % 360.0 - 180.0) <= AGREE_DEG)
        track.note_rows(
            path, (row_of[1:][wrong]).tolist(), f"delta_{name} is not what {name} turned since the tick before"
        )
        bad[1:] |= wrong
    track.drop(_any(bad, until), "rows that contradict themselves")


def _any(of_ticks: Mask, until: npt.NDArray[np.intp]) -> Mask:
    """For each frame, whether any tick after it and up to the next frame's has it; nothing follows the last frame."""
    count = _sums(of_ticks.astype(np.float64))[until]
    return np.append(np.diff(count) > 0, False)


def _sums(values: Table) -> Table:
    """Sums of the first 0, 1, ... rows."""
    return np.concatenate([np.zeros((1, *values.shape[1:])), np.cumsum(values, axis=0)])


def _poses(numbers: dict[str, Table]) -> Table:
    """(ticks, 6): theirs is a right-handed frame with z up too, whose yaw goes from +x to the left."""
    x, y, z = (METRES * numbers[name] for name in "xyz")
    yaw = (90.0 - numbers["yaw"]) % 360.0
    poses = np.stack([x, y, z + METRES * EYE_UNITS, yaw, -numbers["pitch"], np.zeros(len(x))], axis=1)
    assert poses.shape[1] == len(POSE_NAMES)
    return poses
