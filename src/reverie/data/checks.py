"""Quality checks of recorded play, from which frame on it is bad: stuck, frozen, teleported, blank, out of step.

`judge` is the one entry: `reverie record` calls it on each episode before it is encoded, the importers on what they
bring, `reverie data check` on what lies on disk.  Standing still without keys is no fault: it must be in the data.

The thresholds are a game's `Limits`, which come with the game; changes are counted in levels of 0 to 255.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reverie.data import signals
from reverie.types import FPS, MAX_TURN_DEG, ActionSpace, Frames
from reverie.worlds import WORLDS
from reverie.worlds.limits import USUAL, Limits

Rows = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

IMPORTED = Limits(stuck_s=None, cell_travel=None, jump_travel=None, blank_s=2.0, duplicates=None, still=0.9)
"""Limits of what people play elsewhere: they stand, dig, read signs and look at walls, and a source with fewer than 25
frames a second repeats frames."""

FLAT = 1.0
"""A frame whose brightness deviates less than this, in levels, has one colour."""
SAME = 0.25
"""Frames that differ by less than this on average, in levels, are the same: H.264 at our quality adds less."""
TEXTURE = 4.0
"""Only frames that deviate more than this, in levels, must change when the player turns."""
FLASH = 24.0
"""One frame that differs by this from both neighbours, while they differ little from one another, is broken."""
CLEAR_TURN_DEG = (1.0, 15.0)
"""Range of rotations, degrees a frame, whose image motion can be measured."""
PAIRS = 40
"""Pairs of frames whose motion is measured; enough for a share, few enough to cost nothing."""
MIN_PAIRS = 12
LAG_GAIN = 0.6
"""Turns fit the image motion one frame earlier or later: the error there is less than this part of the one in step."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Result of the checks: frames worth keeping from the start, and the faults after them; no reasons: all is well."""

    length: int
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong from frame `start` on; 0 spoils the whole episode."""

    start: int
    reason: str


def limits_of(world: str) -> Limits:
    """The limits of a game by its name, or of `imported` play; USUAL for a game that is not installed here."""
    if world == "imported":
        return IMPORTED
    info = WORLDS.get(world)
    return USUAL if info is None else info.limits


def judge(
    frames: Frames | None,
    actions: Rows,
    poses: Rows | None,
    depths: Rows | None,
    space: ActionSpace,
    world: str = "",
) -> Verdict:
    """Finds the frame from which an episode is bad, and the reasons.

    frames: `(f, H, W, 3)` uint8, or None to skip the checks of frames; actions: `(f, size)` rows of `space`; poses:
    `(f, 6)` camera poses or None; depths: `(f,)` distance of the view's middle or None; world: a game, or `imported`.
    """
    limits = limits_of(world)
    length, reasons = len(actions), []
    for fault in _faults(frames, actions, poses, depths, space, limits):
        reasons.append(fault.reason)
        length = min(length, fault.start)
    if frames is not None and length > 0:
        for fault in _turn_faults(frames[:length], actions[:length], poses, space, limits):
            reasons.append(fault.reason)
            length = 0
    return Verdict(length, tuple(reasons))


def _faults(
    frames: Frames | None,
    actions: Rows,
    poses: Rows | None,
    depths: Rows | None,
    space: ActionSpace,
    limits: Limits,
) -> Iterator[Fault]:
    if fault := bad_actions(actions, space):
        yield fault
        return
    moving = held(actions, space, limits.keys)
    if poses is not None:
        if not np.isfinite(poses).all():
            start = int(np.argmin(np.isfinite(poses).all(axis=1)))
            yield Fault(start, f"the pose is not a number from frame {start}")
            poses = poses[:start]
        yield from _pose_faults(poses, moving[: len(poses)], limits)
    if depths is not None and limits.stare_depth is not None:
        start = first_run(depths < limits.stare_depth, round(limits.stare_s * FPS))
        if start < len(depths):
            yield Fault(start, f"stares at a wall from frame {start}")
    if frames is not None:
        turned = np.abs(actions[:, len(space.keys) :]).sum(axis=1)
        yield from _picture_faults(frames, turned, _steps(poses), limits)


def bad_actions(actions: Rows, space: ActionSpace) -> Fault | None:
    """Actions that are not numbers, keys that are neither 0 nor 1, turns beyond any player's."""
    keys, turns = actions[:, : len(space.keys)], actions[:, len(space.keys) :]
    for bad, what in (
        (~np.isfinite(actions), "actions that are not numbers"),
        (~np.isin(keys, (0.0, 1.0)), "keys that are neither 0 nor 1"),
        (np.abs(turns) > MAX_TURN_DEG, f"turns of more than {MAX_TURN_DEG:g} degrees a frame"),
    ):
        if bad.any():
            return Fault(0, f"has {what}, first at frame {int(np.argmax(bad.any(axis=1)))}")
    return None


def held(actions: Rows, space: ActionSpace, keys: tuple[str, ...]) -> Mask:
    """Frames `(f,)` in which `keys` ask for motion: held, and not cancelled by their opposites.  Always if none."""
    down = {key: actions[:, i] > 0.5 for i, key in enumerate(space.keys)}
    known = [key for key in keys if key in down]
    if not known:
        return np.full(len(actions), not keys)
    opposite = {"forward": "back", "back": "forward", "left": "right", "right": "left"}
    never = np.zeros(len(actions), np.bool_)
    return np.any([down[key] & ~down.get(opposite.get(key, ""), never) for key in known], axis=0)


def first_run(mask: Mask, length: int) -> int:
    """Finds the first run of `length` True; returns the index of its start, len(mask) if there is none."""
    if len(mask) < length:
        return len(mask)
    total = np.concatenate([[0], np.cumsum(mask)])
    full = total[length:] - total[:-length] == length
    return int(np.argmax(full)) if full.any() else len(mask)


def usual_travel(steps: Rows, moving: Mask) -> float:
    """The way of one frame at the episode's own full speed: the 90th percentile of the steps under keys of motion."""
    under_keys = steps[moving[: len(steps)]]
    return float(np.percentile(under_keys, 90)) if len(under_keys) else 0.0


def _steps(poses: Rows | None) -> Rows | None:
    """Distance moved in each frame, `(f - 1,)`, in the pose's units."""
    return None if poses is None else np.linalg.norm(np.diff(poses[:, :3], axis=0), axis=1)


def _pose_faults(poses: Rows, moving: Mask, limits: Limits) -> Iterator[Fault]:
    steps = _steps(poses)
    if steps is None or not len(steps):
        return
    travel = usual_travel(steps, moving) if limits.travel is None else limits.travel
    if limits.jump_travel is not None and (steps > limits.jump_travel * travel).any() and travel > 0:
        start = int(np.argmax(steps > limits.jump_travel * travel)) + 1
        yield Fault(start, f"jumps {steps[start - 1]:.3g} units at frame {start}, goes {travel:.3g} a frame")
    if limits.stuck_s is not None:
        start = first_stuck(poses, moving, round(limits.stuck_s * FPS), limits.stuck_share * travel)
        if start < len(poses):
            yield Fault(start, f"is stuck from frame {start}: keys held for {limits.stuck_s:g} s without effect")
    if limits.cell_travel is not None and len(poses) >= 10 * FPS:
        reach = float(np.linalg.norm(poses[: 10 * FPS, :3] - poses[0, :3], axis=1).max())
        if reach < limits.cell_travel * travel:
            yield Fault(0, f"comes no further than {reach:.3g} units in ten seconds: in a cell, or idle")


def first_stuck(poses: Rows, moving: Mask, window: int, least_step: float) -> int:
    """Finds the first `window` frames of held keys with less than `window * least_step` of motion.

    Returns the index of their start, len(poses) if there are none.
    """
    if len(poses) < window:
        return len(poses)
    places = np.lib.stride_tricks.sliding_window_view(poses[:, :3], window, axis=0)
    here = np.ptp(places, axis=-1).max(axis=-1) <= window * least_step
    asked = np.convolve(moving, np.ones(window, np.int64), "valid") == window
    return int(np.argmax(here & asked)) if (here & asked).any() else len(poses)


def _picture_faults(frames: Frames, turned_deg: Rows, steps: Rows | None, limits: Limits) -> Iterator[Fault]:
    """Finds faults in the frames alone, and in the frames against camera rotations and distances moved.

    turned_deg: `(f,)` degrees of mouse rotation in each row; steps: `(f - 1,)` distance moved, or None.
    """
    thumbs = signals.thumbnails(frames)
    if len(thumbs) < 3:
        return
    depth = thumbs.std(axis=(1, 2), dtype=np.float32)
    start = first_run(depth < FLAT, round(limits.blank_s * FPS))
    if start < len(thumbs):
        colour = "black" if thumbs[start].mean() < 16 else "blank"
        yield Fault(start, f"is {colour} from frame {start}")
    changed = signals.change(thumbs)
    far = (np.minimum(changed[:-1], changed[1:]) > FLASH) & (turned_deg[:-2] + turned_deg[1:-1] < CLEAR_TURN_DEG[0])
    if far.any():
        near = signals.change(thumbs, 2)[far] < FLASH / 4
        if near.any():
            start = int(np.flatnonzero(far)[np.argmax(near)]) + 1
            yield Fault(start, f"has a broken picture at frame {start}, unlike both neighbours")
    same = (changed < SAME) & (depth[1:] > TEXTURE)
    should = turned_deg[:-1] > CLEAR_TURN_DEG[0]
    if steps is not None and len(steps) == len(same) and (travel := np.percentile(steps, 90)) > 0:
        should |= steps > 0.5 * travel
    yield from _repeated(same, should, limits)
    still = float((changed < SAME).mean())
    if still > limits.still and len(changed) > 2 * FPS:
        yield Fault(0, f"hardly changes: {still:.0%} of the pictures are like the one before")


def _repeated(same: Mask, should: Mask, limits: Limits) -> Iterator[Fault]:
    """Frames that stay the same although they should have changed: in one stretch (frozen), or all over."""
    start = first_run(same & should, round(limits.frozen_s * FPS))
    if start < len(same):
        yield Fault(start + 1, f"is frozen from frame {start + 1}: the player moves, the picture does not")
    elif limits.duplicates is not None and should.sum() >= FPS:
        share = float((same & should).sum() / should.sum())
        if share > limits.duplicates:
            yield Fault(0, f"repeats pictures: {share:.0%} of those that should have changed")


def _turn_faults(
    frames: Frames, actions: Rows, poses: Rows | None, space: ActionSpace, limits: Limits
) -> Iterator[Fault]:
    """Tests that the frames move with the recorded camera rotations: with the right sign, and in the right frame."""
    if limits.agree is None:
        return
    keys = len(space.keys)
    if space.mouse:
        pitch, yaw = actions[:-1, keys], actions[:-1, keys + 1]
        turns = {"yaw": yaw, "pitch": np.where(np.abs(pitch) > np.abs(yaw), pitch, 0.0)}
    elif poses is not None and poses.shape[1] > 3:
        turns = {"yaw": (np.diff(poses[: len(frames), 3]) + 180.0) % 360.0 - 180.0}
    else:
        turns = {}
    for name, turn in turns.items():
        share = agreement(frames, turn, name)
        if share is not None and share < limits.agree:
            yield Fault(0, f"turns the wrong way: the picture follows {share:.0%} of the recorded {name}")
        elif name == "yaw" and space.mouse and (lag := out_of_step(frames, turn)):
            yield Fault(0, f"is out of step: the picture turns {'after' if lag > 0 else 'before'} its row, by a frame")


def agreement(frames: Frames, turn_deg: Rows, name: str) -> float | None:
    """The share of clear turns `(f - 1,)` with image motion of the right sign; None if there are too few.

    name: yaw, which moves the image against its sign, or pitch, which moves it with its sign (up: it slides down).
    """
    low, high = CLEAR_TURN_DEG
    clear = np.flatnonzero((np.abs(turn_deg) >= low) & (np.abs(turn_deg) <= high))
    clear = np.random.default_rng(0).permutation(clear)[:PAIRS]
    moved = _moved(frames, clear, name)
    sure = np.abs(moved) > 0.5
    if sure.sum() < MIN_PAIRS:
        return None
    return float((np.sign(moved[sure]) == np.sign(turn_deg[clear[sure]])).mean())


def out_of_step(frames: Frames, turn_deg: Rows) -> int:
    """+1 where the image motion shows turns a frame later than it should, -1 a frame earlier, 0 in step or unknown.

    Looks where the turn differs most from both frames around it: a steady swing looks the same a frame off.
    """
    sudden = np.minimum(np.abs(turn_deg[1:-1] - turn_deg[:-2]), np.abs(turn_deg[1:-1] - turn_deg[2:]))
    chosen = np.argsort(-sudden)[:PAIRS]
    chosen = chosen[sudden[chosen] >= 0.5] + 1
    moved = _moved(frames, chosen, "yaw")
    size = np.abs(turn_deg[chosen]) > 0.5
    if size.sum() < 2 * MIN_PAIRS:
        return 0
    ratios = [_fit(moved, turn_deg[chosen + step]) for step in (0, -1, 1)]
    best = min((1, 2), key=lambda i: ratios[i])
    return (0, 1, -1)[best] if ratios[best] < LAG_GAIN * ratios[0] else 0


def _fit(moved: Rows, turn: Rows) -> float:
    """The median error, in degrees, of turns estimated from the image motion, its scale fitted."""
    sure = np.abs(turn) > 0.5
    scale = float(np.median(moved[sure] / turn[sure])) if sure.sum() >= MIN_PAIRS else 0.0
    return float(np.median(np.abs(moved / scale - turn))) if scale > 0.1 else float(np.inf)


def _moved(frames: Frames, pairs: npt.NDArray[np.intp], name: str) -> Rows:
    """The image motion after frames `pairs`, in pixels, with the sign of the turn that makes it."""
    if not len(pairs):
        return np.zeros(0, np.float32)
    if name == "yaw":
        return -signals.slide(frames[pairs], frames[pairs + 1], signals.SIDEWAYS)
    return signals.slide(frames[pairs], frames[pairs + 1], signals.UPRIGHT)
