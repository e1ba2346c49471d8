"""Action scripts: what the player does over time, written down.  Torch-free.

Inline, segments are separated by `;` (or a line end), words by spaces:

    forward 2s; forward yaw+3 1s; yaw-5 1s; idle 1s

    word            meaning
    forward, ...    a key held during the segment, by its name in the action space
    yaw+3 pitch-0.5 the camera's turn in degrees per frame; right and up are positive
    idle            nothing held; only needed where a segment has neither keys nor turns
    2s 0.4s 10f     the duration in seconds (25 frames each) or frames; last in its segment, 1s where there is none

As JSON, a list of segments, or an object that holds one as `segments` (and may set `"fps": 25`):

    [{"keys": ["forward"], "mouse": [0, 3], "frames": 25}, {"seconds": 1}]

`keys` and `mouse` (pitch, yaw in degrees per frame) may be left out; the duration is `frames` or `seconds`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from reverie.errors import ActionError
from reverie.types import FPS, MAX_TURN_DEG, Action, ActionSpace

MAX_FRAMES = 24 * 3600 * FPS
"""The longest script: a day."""

_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(s|f)", re.ASCII)
_TURN = re.compile(r"(pitch|yaw)([+-].*)")
_DEGREES = re.compile(r"[+-](\d+(?:\.\d*)?|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_SPECIAL = re.compile(rf"idle|pitch|yaw|(pitch|yaw)[+-].*|{_DURATION.pattern}|.*[\s;].*|", re.DOTALL)
"""Names that a key cannot have, because a word of the inline form is something else."""
_FIELDS = {"keys", "mouse", "frames", "seconds"}


@dataclass(frozen=True, slots=True)
class Segment:
    """One action, held for `frames` frames (at least 1)."""

    action: Action
    frames: int

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise ActionError(f"a segment lasts at least one frame (1/{FPS} s), got {self.frames} frames")


@dataclass(frozen=True, slots=True)
class ActionScript:
    """A list of segments.  `str(script)` is its inline form, and `parse(str(script)) == script`."""

    segments: tuple[Segment, ...]

    def __post_init__(self) -> None:
        if not self.segments:
            raise ActionError('an action script has at least one segment, such as "forward 2s", got an empty one')
        if self.num_frames > MAX_FRAMES:
            raise ActionError(f"an action script lasts at most {MAX_FRAMES // FPS} s, got {self.num_frames / FPS:g} s")

    @property
    def num_frames(self) -> int:
        return sum(segment.frames for segment in self.segments)

    @property
    def seconds(self) -> float:
        return self.num_frames / FPS

    def actions(self) -> Iterator[Action]:
        """One action per frame."""
        for segment in self.segments:
            for _ in range(segment.frames):
                yield segment.action

    def blocks(self, block_frames: int) -> Iterator[list[Action]]:
        """The actions in blocks of `block_frames`, the last one filled up with its last action."""
        block: list[Action] = []
        for action in self.actions():
            block.append(action)
            if len(block) == block_frames:
                yield block
                block = []
        if block:
            yield block + [block[-1]] * (block_frames - len(block))

    def check(self, space: ActionSpace) -> None:
        """Raise ActionError, with the segment's number, if `space` cannot express the script."""
        for number, segment in enumerate(self.segments, 1):
            try:
                space.check(segment.action)
            except ActionError as error:
                raise ActionError(f"segment {number} of the action script: {error}") from None

    def __str__(self) -> str:
        return "; ".join(map(_format_segment, self.segments))

    def to_json(self) -> str:
        """The JSON form, one segment a line."""
        lines = (
            json.dumps({"keys": sorted(s.action.keys), "mouse": list(s.action.mouse), "frames": s.frames})
            for s in self.segments
        )
        return "[\n  " + ",\n  ".join(lines) + "\n]\n"

    @classmethod
    def from_actions(cls, actions: Iterable[Action]) -> ActionScript:
        """The script of `actions`, one per frame; equal neighbours share a segment."""
        return cls(tuple(Segment(action, sum(1 for _ in run)) for action, run in groupby(actions)))


def load_script(source: str | Path, space: ActionSpace | None = None) -> ActionScript:
    """Read a script given inline or as a file (`.json`, or text in the inline form), checked against `space`.

    Raises ActionError for a missing file, a broken script, or a key that `space` has not.
    """
    script = _read(source)
    if space is not None:
        script.check(space)
    return script


def parse(text: str) -> ActionScript:
    """Read the inline form.  Raises ActionError naming the segment and the word that cannot be read."""
    parts = [part.strip() for part in re.split(r"[;\n]", text)]
    return ActionScript(tuple(_parse_segment(part) for part in parts if part))


def parse_json(text: str) -> ActionScript:
    """Read the JSON form.  Raises ActionError naming the segment and the field that cannot be read."""
    try:
        data = json.loads(text, object_pairs_hook=_unique_names)
    except (ValueError, RecursionError) as error:
        raise ActionError(f"the action script is not valid JSON: {error}") from None
    if isinstance(data, dict):
        if unknown := sorted(data.keys() - {"fps", "segments"}):
            raise ActionError(f"an action script has a list of segments and may have fps, got {unknown[0]!r}")
        if data.get("fps", FPS) != FPS:
            raise ActionError(f"action scripts are written at {FPS} frames a second, got fps {data['fps']!r}")
        data = data.get("segments")
    if not isinstance(data, list):
        raise ActionError('a JSON action script is a list of segments such as {"keys": ["forward"], "frames": 50}')
    return ActionScript(tuple(_segment_from_json(item, number) for number, item in enumerate(data, 1)))


def _read(source: str | Path) -> ActionScript:
    path = Path(source)
    is_named_file = isinstance(source, Path) or (";" not in source and path.suffix.lower() in {".json", ".txt"})
    if not is_named_file:
        return parse(str(source))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # a name with a NUL is a ValueError, and so is text that is not UTF-8
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ActionError(f"cannot read the action script {str(path)!r}: {reason}") from None
    return parse_json(text) if text.lstrip().startswith(("[", "{")) else parse(text)


def _parse_segment(text: str) -> Segment:
    words = text.split()
    frames = FPS
    if match := _DURATION.fullmatch(words[-1]):
        frames = _to_frames(float(match[1]) * (FPS if match[2] == "s" else 1), text, is_whole=match[2] == "f")
        words = words[:-1]
    keys: set[str] = set()
    turned: set[str] = set()
    turn = {"pitch": 0.0, "yaw": 0.0}
    for word in words:
        if _DURATION.fullmatch(word):
            raise ActionError(f"in {text!r} the duration {word} must come last; separate segments by ';'")
        if match := _TURN.fullmatch(word):
            if match[1] in turned:
                raise ActionError(f"in {text!r} {match[1]} is there twice; say it once")
            turned.add(match[1])
            turn[match[1]] = _degrees(match[2], word)
        elif word in turn:
            raise ActionError(f"in {text!r} {word} needs a signed angle per frame, such as {word}+3")
        elif not re.fullmatch(r"[A-Za-z_][\w-]*", word):
            raise ActionError(
                f"cannot read {word!r} in {text!r}; expected a key, yaw+3, pitch-1, or a time like 2s or 10f"
            )
        elif word != "idle":
            keys.add(word)
    if "idle" in words and (keys or any(turn.values())):
        raise ActionError(f"in {text!r} idle stands alone: it means no keys and no turn")
    return Segment(Action(frozenset(keys), (turn["pitch"], turn["yaw"])), frames)


def _degrees(number: str, word: str) -> float:
    degrees = float(number) if _DEGREES.fullmatch(number) else math.nan
    if not abs(degrees) <= MAX_TURN_DEG:
        raise ActionError(f"cannot read {word!r}; a turn is an angle of at most {MAX_TURN_DEG:g} degrees per frame")
    return degrees


def _to_frames(frames: float, where: str, *, is_whole: bool) -> int:
    """Seconds are rounded to frames; a number of frames (`is_whole`) is one already."""
    if not 0.5 <= frames <= MAX_FRAMES:
        raise ActionError(f"{where!r} must last from one frame (1/{FPS} s) to {MAX_FRAMES // FPS} s")
    if is_whole and frames != round(frames):
        raise ActionError(f"{where!r} must last a whole number of frames, got {frames:g}")
    return round(frames)


def _segment_from_json(item: Any, number: int) -> Segment:
    where = f"segment {number} of the action script"
    if not isinstance(item, dict) or item.keys() - _FIELDS:
        raise ActionError(f"{where} must be an object with {', '.join(sorted(_FIELDS))}, got {json.dumps(item)[:80]}")
    keys, mouse = item.get("keys", []), item.get("mouse", [0, 0])
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ActionError(f"{where}: keys must be a list of names, got {json.dumps(keys)[:80]}")
    for key in keys:
        if _SPECIAL.fullmatch(key):
            raise ActionError(f"{where}: {key!r} cannot be a key: in the inline form it means something else")
    if not isinstance(mouse, list) or len(mouse) != 2 or not all(map(_is_number, mouse)):
        raise ActionError(f"{where}: mouse must be [pitch, yaw] in degrees per frame, got {json.dumps(mouse)[:80]}")
    if not all(abs(degrees) <= MAX_TURN_DEG for degrees in mouse):  # false for what is not a number, too
        raise ActionError(
            f"{where}: a turn is an angle of at most {MAX_TURN_DEG:g} degrees per frame, got {json.dumps(mouse)[:80]}"
        )
    given = [name for name in ("frames", "seconds") if name in item]
    if len(given) != 1 or not _is_number(item[given[0]]):
        raise ActionError(f"{where}: give its duration as a number, either frames or seconds")
    duration = item[given[0]] * (FPS if given == ["seconds"] else 1)
    frames = _to_frames(duration, where, is_whole=given == ["frames"])
    return Segment(Action(frozenset(keys), (float(mouse[0]), float(mouse[1]))), frames)


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise ValueError(f"the name {next(name for name in names if names.count(name) > 1)!r} is there twice")
    return dict(pairs)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _format_segment(segment: Segment) -> str:
    action = segment.action
    turns = [f"{axis}{_signed(d)}" for axis, d in zip(("pitch", "yaw"), action.mouse, strict=True) if d]
    words = sorted(action.keys) + turns or ["idle"]
    seconds, rest = divmod(segment.frames, FPS)
    return " ".join([*words, f"{segment.frames}f" if rest else f"{seconds}s"])


def _signed(degrees: float) -> str:
    return f"{degrees:+.0f}" if degrees == int(degrees) else ("+" if degrees > 0 else "") + repr(float(degrees))
