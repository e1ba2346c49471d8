"""Plan of an evaluation: its sizes, and the starts in one game."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reverie.data.dataset import Dataset
from reverie.errors import DataError
from reverie.evaluate.action_mapping import ActionMapping
from reverie.evaluate.idm_scorer import IDMScorer
from reverie.evaluate.rollout import Start, pick_starts, repeat_actions, usable_episodes
from reverie.types import FPS, Action, Frames

SHORT_S, LONG_S = 4, 16
LIKENESS_S = (1, SHORT_S, LONG_S)
DRIFT_S = (5, 20, 60, 300)
HELD_FRAMES = 32
"""Frames that an action is held: 1.3 s."""
THERE_FRAMES = 50
"""Frames walked away before the same way back: 2 s."""
TURN_FRAMES = 90


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """Numbers of rollouts.

    starts: of 4 s under recorded actions, each also under the actions of another start.  long_starts: the same of 16 s.
    held: starts for held actions.  returns: there and back, and once round.  plays, idles, endurances: long ones.
    bank: real clips of 4 s as a reference for the game's looks.  clips: MP4 files of the 4 s rollouts.
    """

    starts: int = 20
    long_starts: int = 5
    held: int = 12
    returns: int = 8
    plays: int = 4
    play_s: int = 60
    idles: int = 2
    idle_s: int = 60
    endurances: int = 1
    endurance_s: int = 300
    bank: int = 72
    clips: int = 8
    speed_s: int = 10


def size_of(quick: bool, starts: int | None = None, long_s: int | None = None) -> Size:
    """Full: about 29,000 frames, which nano makes in 16 to 21 minutes on two idle cores.  Quick: about 2,250.

    starts: another number of 4 s starts; what cannot be more than that shrinks along.  long_s: seconds of play and of
    standing still, instead.  Raises DataError if that is too short to be called long.
    """
    size = Size()
    if quick:
        size = Size(
            starts=4, long_starts=0, held=1, returns=1, plays=1, play_s=20, idles=1, idle_s=20, endurances=0,
            bank=48, clips=4, speed_s=3,
        )  # fmt: skip
    if long_s is not None:
        if long_s < DRIFT_S[0]:
            raise DataError(f"long rollouts are watched for {DRIFT_S[0]} seconds or more, got --long-s {long_s}")
        size = replace(size, play_s=long_s, idle_s=long_s)
    if starts is None:
        return size
    capped = ("long_starts", "held", "returns", "plays", "idles", "clips")
    return replace(size, starts=starts, **{name: min(getattr(size, name), starts) for name in capped})


@dataclass(frozen=True, slots=True)
class Game:
    """One recording to evaluate on.

    long_starts, plays: fewer, or none, where the recording's episodes are too short.  reference: real clips of 4 s.
    """

    name: str
    path: Path
    mapping: ActionMapping
    scorer: IDMScorer | None
    starts: list[Start]
    long_starts: list[Start]
    plays: list[Start]
    reference: list[Frames]
    notes: list[str]
    fov_deg: float

    def play_actions(self, k: int, num_frames: int) -> list[Action]:
        """Actions of play `k`: its own clip's, then those of the others, over and over."""
        starts = (*self.plays[k:], *self.plays[:k], *self.long_starts, *self.starts)
        actions = [action for start in starts for action in self.mapping.map_rows(start.clip.actions[:-1])]
        return repeat_actions(actions, num_frames)


def pick_game(
    name: str,
    path: Path,
    recording: Dataset,
    mapping: ActionMapping,
    scorer: IDMScorer | None,
    size: Size,
    seed: int,
    *,
    fov_deg: float = 90.0,
    any_split: bool = False,
) -> Game:
    """Choose and read all real clips.  Raises DataError for too short a recording, or one without held-out episodes."""
    if not any_split and not any(episode.meta.get("heldout") for episode in recording.episodes):
        raise DataError(
            f"{path} has no held-out episodes; record some with `reverie record WORLD --heldout`, or say --any-split "
            "to measure on what the model may have been trained on"
        )
    longest = max((recording.episodes[i].length for i in usable_episodes(recording)), default=0)
    short_frames = SHORT_S * FPS + 1
    notes = mapping.notes()
    starts = pick_starts(recording, size.starts, short_frames, seed)
    long_starts: list[Start] = []
    if longest > LONG_S * FPS:
        long_starts = pick_starts(recording, size.long_starts, LONG_S * FPS + 1, seed + 1)
    else:
        notes.append(f"No episode lasts {LONG_S} s: likeness at {LONG_S} s is left out.")
    seconds = next(s for s in (20, 16, 10, 5, SHORT_S) if longest > s * FPS)
    plays = pick_starts(recording, max(size.plays, size.endurances, 1), seconds * FPS + 1, seed + 2)
    reference = [start.clip.frames for start in pick_starts(recording, size.bank, short_frames, seed + 3)]
    return Game(name, path, mapping, scorer, starts, long_starts, plays, reference, notes, fov_deg)


def game_names(paths: Sequence[Path]) -> list[str]:
    """A short name for each recording: its folder's, made unique."""
    names: list[str] = []
    for path in paths:
        name = path.resolve().name
        while name in names:
            name += "+"
        names.append(name)
    return names
