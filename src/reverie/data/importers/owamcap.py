"""OWAMcap: what `ocap` records of a desktop, `NAME.mcap` (JSON messages) with the video `NAME.mkv`.

Topics: `screen` {"utc_ns": ..., "media_ref": {"uri": "NAME.mkv", "pts_ns": ...}} (older: "path" and "pts"), a message a
frame; `keyboard` {"event_type": "press" or "release", "vk": Windows key code}; `mouse` {"event_type": "click",
"button": "left", "pressed": true}; `mouse/raw` {"last_x": counts, "last_y": counts, "us_flags": 0}, right and down
positive (older: "dx", "dy"); `keyboard/state` and `mouse/state` {"buttons": [...]}.

Events and frames share one clock.  Row j holds what happened after frame j was captured and before the next: it
shows in frame j + 1 at the earliest (`--late-frames` if the game and the capture were slower).  How far a count of the
mouse turns the camera is the game's affair: `--degrees-per-count`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reverie.data.importers.take import Source, Table, Take, Track, ordered, parse_json
from reverie.errors import DataError
from reverie.paths import is_inside, own_files
from reverie.types import ActionSpace

if TYPE_CHECKING:
    from reverie.data.importers.config import ImportConfig

TOPICS = ("screen", "keyboard", "keyboard/state", "mouse", "mouse/raw", "mouse/state")
DEFAULT_KEYS = {
    "w": "forward",
    "s": "back",
    "a": "left",
    "d": "right",
    "space": "jump",
    "ctrl": "crouch",
    "mouse.left": "attack",
    "mouse.right": "use",
}
NAMED_CODES = {
    "shift": (0x10, 0xA0, 0xA1),
    "ctrl": (0x11, 0xA2, 0xA3),
    "alt": (0x12, 0xA4, 0xA5),
    "space": (0x20,),
    "tab": (0x09,),
    "enter": (0x0D,),
    "escape": (0x1B,),
    "left": (0x25,),
    "up": (0x26,),
    "right": (0x27,),
    "down": (0x28,),
}
"""Windows' virtual key codes; letters and digits have the code of their capital."""
MOUSE_BUTTONS = ("left", "right", "middle", "x1", "x2")
RAW_ABSOLUTE = 0x01
PRESSED = {"press": True, "release": False}


@dataclass(slots=True)
class Events:
    """The messages of one file, by time in nanoseconds."""

    screen: list[tuple[int, int, str]] = field(default_factory=list)
    """(when captured, place in the video in ns, the video)."""
    keys: list[tuple[int, str | int, bool]] = field(default_factory=list)
    """(when, Windows key code or button of the mouse, pressed)."""
    turns: list[tuple[int, float, float]] = field(default_factory=list)
    """(when, counts to the right, counts down)."""
    malformed: list[str] = field(default_factory=list)


def open_source(config: ImportConfig) -> Source:
    """Every .mcap of the folder, or the one named, with its video."""
    files = [config.src] if config.src.is_file() else own_files(config.src.rglob("*.mcap"))
    if not files:
        raise DataError(f"{config.src}: has no .mcap; ocap records NAME.mcap with NAME.mkv")
    if config.degrees_per_count is None:
        raise DataError("owamcap: say how far the mouse turns the camera, --degrees-per-count 0.15 (0: not at all)")
    per_count = float(config.degrees_per_count)
    keymap = parse_keymap(config.map)
    root = config.src if config.src.is_dir() else config.src.parent
    space = ActionSpace(ordered(keymap.values()), mouse=per_count != 0.0)

    def takes() -> Iterator[Take | str]:
        for path in files:
            try:
                events = read_events(path)
                video = _video(path, events)
            except DataError as error:
                yield str(error)
                continue
            name = str(path.relative_to(root).with_suffix(""))
            read = partial(read_track, path, events, keymap, space, per_count)
            yield Take(name, video, read, tables=(path,))

    return Source(space, takes)


def parse_keymap(wishes: tuple[str, ...]) -> dict[str, str]:
    """KEY=NAME by key; the usual ones (w, a, s, d, space, ctrl and the mouse) if none are given."""
    if not wishes:
        return dict(DEFAULT_KEYS)
    keymap: dict[str, str] = {}
    for wish in wishes:
        theirs, _, ours = wish.lower().partition("=")
        known = theirs in NAMED_CODES or (len(theirs) == 1 and theirs.isalnum())
        known |= theirs.removeprefix("mouse.") in MOUSE_BUTTONS and theirs.startswith("mouse.")
        if not (known and ours):
            names = ", ".join(NAMED_CODES)
            raise DataError(f"--map {wish}: must be KEY=NAME with KEY a letter, a digit, mouse.left, {names}")
        keymap[theirs] = ours
    return keymap


def read_events(path: Path) -> Events:
    """The messages of a file.  Raises DataError for another kind of file, one cut short, and without a screen."""
    try:
        from mcap.reader import make_reader
    except ImportError as error:
        raise DataError('owamcap needs the package mcap; pip install "reverie-world[import]"') from error
    events = Events()
    try:
        with path.open("rb") as file:
            for _, channel, message in make_reader(file, validate_crcs=True).iter_messages(topics=TOPICS):
                _take_in(events, channel.topic, message.log_time, message.data, path)
    except Exception as error:  # the reader and its decompressors raise whatever a damaged byte leads to
        raise DataError(f"{path}: not a readable mcap file, cut short perhaps ({error})") from error
    if len(events.screen) < 2:
        raise DataError(f"{path}: has {len(events.screen)} messages of the topic screen, needs one for each frame")
    for one in (events.screen, events.keys, events.turns):
        one.sort(key=lambda event: event[0])
    return events


def read_track(
    path: Path, events: Events, keymap: dict[str, str], space: ActionSpace, per_count: float, times: Table
) -> Track:
    """Converts input events to the actions between the captures of frames."""
    track = Track.blank(len(times), space)
    track.notes += [f"{path}: {line}" for line in events.malformed[:8]]
    places = np.array([place for _, place, _ in events.screen], np.float64)
    places, first = np.unique(places, return_index=True)
    clock = np.array([when for when, _, _ in events.screen], np.float64)[first]
    moments = np.interp(times * 1e9, places, clock)
    half = 0.5e9 * float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    outside = (times * 1e9 < places[0] - half) | (times * 1e9 > places[-1] + half)
    if outside.any():
        track.notes.append(f"{path}: {int(outside.sum())} frames of the video have no message of the topic screen")
    track.drop(outside, "no screen message")
    if (np.diff(clock) <= 0).any():
        raise DataError(f"{path}: the clock of the topic screen runs backwards; it cannot be aligned")
    if space.mouse:
        if not events.turns:
            raise DataError(f"{path}: has no topic mouse/raw, so turns are unknown; --degrees-per-count 0 does without")
        track.actions[:, -2:] = _turns(events, moments, per_count)
    for column, key in enumerate(space.keys):
        codes = {code for theirs, ours in keymap.items() if ours == key for code in _codes(theirs)}
        track.actions[:, column] = _held(events, codes, moments)
    track.validate(path, space)
    return track


def _turns(events: Events, moments: Table, per_count: float) -> Table:
    """(pitch, yaw) degrees from each frame's moment to the next; the last frame's is unknown: 0."""
    when = np.array([event[0] for event in events.turns], np.float64)
    counts = np.array([(-down, right) for _, right, down in events.turns], np.float64)
    sums = np.concatenate([np.zeros((1, 2)), np.cumsum(counts, axis=0)])
    until = sums[np.searchsorted(when, moments)]
    return per_count * np.concatenate([np.diff(until, axis=0), np.zeros((1, 2))])


def _held(events: Events, codes: set[str | int], moments: Table) -> Table:
    """1 for frames during which any of the keys was down."""
    held = np.zeros(len(moments), np.bool_)
    for code in codes:
        presses = [(when, down) for when, one, down in events.keys if one == code]
        if not presses:
            continue
        when = np.array([moment for moment, _ in presses], np.float64)
        down = np.array([is_down for _, is_down in presses])
        # A release as the first thing known of a key: it was down before.
        at = np.searchsorted(when, moments)
        held |= np.where(at > 0, down[np.maximum(at - 1, 0)], not down[0])
        total = np.concatenate([[0], np.cumsum(down)])
        held[:-1] |= total[at[1:]] > total[at[:-1]]
    return held.astype(np.float64)


def _take_in(events: Events, topic: str, log_time: int, data: bytes, path: Path) -> None:
    try:
        message = parse_json(data.decode("utf-8"))
        if topic == "screen":
            media = message.get("media_ref") or message
            place = media["pts_ns"] if "pts_ns" in media else media["pts"]
            where = str(media.get("uri") or media.get("path") or "")
            events.screen.append((_nanoseconds(message.get("utc_ns") or log_time), _nanoseconds(place), where))
            return
        when = _nanoseconds(message.get("timestamp") or log_time)
        if topic == "keyboard":
            events.keys.append((when, int(message["vk"]), PRESSED[message["event_type"]]))
        elif topic == "mouse" and message["event_type"] == "click":
            if not isinstance(message["pressed"], bool):
                raise ValueError(f"pressed must be true or false, got {message['pressed']!r}")
            events.keys.append((when, f"mouse.{message['button']}", message["pressed"]))
        elif topic == "mouse/raw":
            _take_in_raw(events, when, message)
        elif topic in ("keyboard/state", "mouse/state") and not events.keys:
            prefix = "" if topic == "keyboard/state" else "mouse."
            events.keys += [(when, f"{prefix}{one}" if prefix else int(one), True) for one in message["buttons"]]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        events.malformed.append(f"a malformed message of the topic {topic} at {log_time} ({error!r})")


def _take_in_raw(events: Events, when: int, message: dict[str, Any]) -> None:
    right = message["last_x"] if "last_x" in message else message["dx"]
    down = message["last_y"] if "last_y" in message else message["dy"]
    if not int(message.get("us_flags") or 0) & RAW_ABSOLUTE and (right or down):
        if not abs(float(right)) + abs(float(down)) < 1e6:
            raise ValueError(f"a motion of fewer than a million counts, got {right!r}, {down!r}")
        events.turns.append((when, float(right), float(down)))


def _nanoseconds(value: Any) -> int:
    found = int(value)
    if not abs(found) < 2**63:
        raise ValueError(f"a time of 64 bits in nanoseconds, got {found}")
    return found


def _codes(key: str) -> tuple[str | int, ...]:
    if key.startswith("mouse."):
        return (key,)
    return NAMED_CODES.get(key) or (ord(key.upper()),)


def _video(path: Path, events: Events) -> Path:
    """The video that the screen messages name, or the one beside the file."""
    names = sorted({where for _, _, where in events.screen})
    if len(names) > 1:
        raise DataError(f"{path}: its screen messages name several videos, {names[:3]}; split it into one for each")
    name = names[0].removeprefix("file://")
    for video in (path.parent / name, path.parent / Path(name).name):
        if name and is_inside(video, path.parent) and video.is_file():
            return video
    return path.with_suffix(".mkv")
