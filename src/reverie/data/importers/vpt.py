"""OpenAI's VPT contractor data: `NAME.mp4` at 20 Hz and `NAME.jsonl`, a line a frame, in one folder.

A line: {"mouse": {"dx": px, "dy": px, "buttons": [0], "newButtons": []}, "keyboard": {"keys": ["key.keyboard.w"]},
"isGuiOpen": false, "xpos": ..., "ypos": ..., "zpos": ..., "yaw": deg, "pitch": deg, ...}.  A pixel of the mouse is
360/2400 degrees, down and right positive; button 0 attacks, 1 uses.  Line i is what was done on seeing frame i.  Frames
with a menu open (isGuiOpen) are left out; the hotbar, sprinting and dropping have no key here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reverie.data.importers.take import WALKER, Source, Table, Take, Track
from reverie.errors import DataError
from reverie.types import POSE_NAMES

if TYPE_CHECKING:
    from reverie.data.importers.command import ImportConfig

DEGREES_PER_PX = 360.0 / 2400.0

KEYS = {
    "key.keyboard.w": "forward",
    "key.keyboard.s": "back",
    "key.keyboard.a": "left",
    "key.keyboard.d": "right",
    "key.keyboard.space": "jump",
    "key.keyboard.left.shift": "crouch",
}
ATTACK, USE = 0, 1
POSE = ("xpos", "zpos", "ypos", "yaw", "pitch")
EYE_M = 1.62
"""How high a player's eyes are above the feet, which the recordings tell."""


def open_source(config: ImportConfig) -> Source:
    """Every .jsonl of the folder, or the one named, with the video beside it."""
    tables = [config.src] if config.src.is_file() else sorted(config.src.rglob("*.jsonl"))
    if not tables:
        raise DataError(f"{config.src}: has no .jsonl; VPT's recordings are NAME.mp4 with NAME.jsonl")
    has_poses = all(name in _first_line(tables[0]) for name in POSE)

    def takes() -> Iterator[Take | str]:
        for table in tables:
            video = table.with_suffix(".mp4")
            if video.is_file():
                yield Take(table.stem, video, partial(read_track, table, has_poses))
            else:
                yield f"{table}: its video {video.name} is missing"

    return Source(WALKER, takes, has_poses)


def read_track(table: Path, has_poses: bool, times: Table) -> Track:
    """What the lines of `table` say was done during each frame."""
    track = Track.blank(len(times), WALKER)
    track.poses = np.zeros((len(times), len(POSE_NAMES))) if has_poses else None
    lines = _lines(table)
    track.match(len(lines), table)
    bad: list[int] = []
    stuck = False
    for row, line in enumerate(lines[: len(times)]):
        try:
            step = json.loads(line)
            pressed = 0 in step["mouse"].get("newButtons", ())
            # Some recordings begin with attack held down until the player first presses it.
            stuck = pressed if row == 0 else stuck and not pressed
            track.actions[row] = _action(step, stuck)
            if track.poses is not None:
                track.poses[row] = _pose(step)
            if step.get("isGuiOpen", False):
                track.drop([row], "with a menu open")
        except (ValueError, KeyError, TypeError, AttributeError):
            bad.append(row)
    track.note_rows(table, [row + 1 for row in bad], "malformed")
    track.drop(bad, "malformed")
    track.validate(table, WALKER, first_row=1)
    return track


def _action(step: dict[str, Any], attack_is_stuck: bool) -> list[float]:
    mouse, held = step["mouse"], {KEYS.get(key) for key in step["keyboard"]["keys"]}
    if ATTACK in mouse["buttons"] and not attack_is_stuck:
        held.add("attack")
    if USE in mouse["buttons"]:
        held.add("use")
    turn = [-DEGREES_PER_PX * float(mouse["dy"]), DEGREES_PER_PX * float(mouse["dx"])]
    return [float(key in held) for key in WALKER.keys] + turn


def _pose(step: dict[str, Any]) -> list[float]:
    """Our pose of a step: Minecraft's z points south and its y up, yaw 0 looks south and pitch grows downwards."""
    east, south, up, yaw, pitch = (float(step[name]) for name in POSE)
    return [east, -south, up + EYE_M, (yaw + 180.0) % 360.0, -pitch, 0.0]


def _lines(table: Path) -> list[str]:
    try:
        return table.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{table}: not a text file ({error})") from error


def _first_line(table: Path) -> dict[str, Any]:
    try:
        found = json.loads(_lines(table)[0])
    except (IndexError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
