"""Long rollouts, measured second by second: a five-minute rollout is never in memory as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from reverie.engine.media.video import VideoWriter
from reverie.evaluate import metrics, sheets
from reverie.evaluate.collapse import CURVES, SIGNS, Detector, Looks, collapse_of, curve_of, looks
from reverie.evaluate.experiment import Experiment
from reverie.evaluate.idm_scorer import IDMScorer, frechet_distance
from reverie.evaluate.plan import DRIFT_S
from reverie.evaluate.rollout import Start, Tick, roll_blocks
from reverie.evaluate.store import Record
from reverie.evaluate.tables import Metrics
from reverie.overlay import add_keys
from reverie.types import FPS, Action, ActionSpace, Frames

WINDOW_S = 4
"""Seconds before each of DRIFT_S whose features are kept, every other frame of them."""
TURNED_DEG = 10.0
SHOWN_S = (1, 5, 10, 20, 30, 60, 120, 300)

Pooled = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LongResult(Record):
    """A video second by second.

    signs: of collapse, (s, SIGNS).
    change: per frame.
    kept: PSNR of a second's last frame against the start of a player who stands still, dB; else empty.
    windows: the scorer's features before each of DRIFT_S, (n, c).
    """

    signs: Looks
    change: list[float]
    kept: list[float]
    windows: dict[int, Pooled]


@dataclass(frozen=True, slots=True)
class ReferenceResult(Record):
    """Reference clips of the game: their signs, one after another, and the scorer's features of frames and of steps."""

    signs: Looks
    pooled: Pooled | None = None
    play: npt.NDArray[np.float32] | None = None

    def usual(self, name: str) -> float:
        """Mean of one of CURVES, to divide by."""
        return max(float(curve_of(self.signs, name).mean()), 1e-6)


@dataclass(frozen=True, slots=True)
class SignsResult(Record):
    """Signs of collapse by second of some clips, (s, SIGNS) each."""

    clips: list[Looks]


def split_seconds(blocks: Iterable[Frames]) -> Iterator[Frames]:
    """The same frames a second (25) at a time; what is left at the end is dropped."""
    held: list[Frames] = []
    count = 0
    for block in blocks:
        held.append(block)
        count += len(block)
        if count >= FPS:
            whole = np.concatenate(held)
            yield from (whole[i : i + FPS] for i in range(0, count - count % FPS, FPS))
            held, count = [whole[count - count % FPS :]], count % FPS


def watch(
    seconds: Iterable[Frames],
    scorer: IDMScorer | None,
    start: Frames | None = None,
    *,
    first: Frames | None = None,
    turned: Sequence[bool] = (),
) -> LongResult:
    """Measures a video second by second.

    start: the frame (H, W, 3) of a player who stands still.  first: the first frame of the video, for signs of
    collapse.  turned: seconds in which the player turned.
    """
    result = LongResult(np.zeros((0, SIGNS)), [], [], {})
    signs = [result.signs]
    recent: list[Frames] = []
    for second, frames in enumerate(seconds, 1):
        result.change.append(float(metrics.frame_change(frames).mean()))
        if start is not None:
            result.kept.append(float(metrics.psnr_db(frames[-1:], start[None])[0]))
        signs.append(looks(frames, first, np.array(turned[second - 1 : second] or [False])))
        recent = [*recent[-(WINDOW_S - 1) :], frames[::2].copy()]
        if second in DRIFT_S and scorer is not None:
            result.windows[second] = scorer.pool_features(np.concatenate(recent))
    return replace(result, signs=np.concatenate(signs))


def watch_video(frames: Frames, scorer: IDMScorer | None = None) -> LongResult:
    """`watch` of a video that is in memory."""
    return watch(split_seconds([frames[1:]]), scorer, first=frames[0])


def watch_still(image: Frames, scorer: IDMScorer | None, num_seconds: int) -> LongResult:
    """`watch` of a frozen video, without measuring it again every second."""
    short = watch([np.repeat(image[None], FPS, 0)] * DRIFT_S[0], scorer, image, first=image)
    windows = {s: window for s in DRIFT_S if s <= num_seconds for window in short.windows.values()}
    signs = short.signs[:1].repeat(num_seconds, 0)
    return LongResult(signs, short.change[:1] * num_seconds, short.kept[:1] * num_seconds, windows)


def play_long(
    experiment: Experiment,
    start: Start,
    actions: Sequence[Action],
    scorer: IDMScorer | None,
    k: int,
    kind: str,
    has_video: bool,
    tick: Tick,
) -> LongResult:
    """`watch` of a rollout; writes a strip of its frames at SHOWN_S, and a video with the keys.

    kind: in play, or `idle`, where nothing is done, so that the image should not change.
    """
    space, image = experiment.model.dreamer.action_space, start.image
    blocks = roll_blocks(experiment.model.dreamer, image, actions, experiment.seed + k, tick)
    shown = [image]
    with _open_video(experiment, f"{kind}-{k}", image, space) if has_video else nullcontext() as writer:
        seconds = _show(split_seconds(blocks), shown, actions, space, writer)
        still = image if kind == "idle" else None
        result = watch(seconds, scorer, still, first=image, turned=turned_seconds(actions))
    if len(shown) > 1:
        sheets.save_frames(shown, experiment.strip(f"{kind}-{k}"))
    return result


def _open_video(experiment: Experiment, piece: str, image: Frames, space: ActionSpace) -> VideoWriter:
    height, width = add_keys(image, Action(), space).shape[:2]
    return VideoWriter(experiment.clip(piece), (height, width), {"kind": "reverie.evaluate"})


def turned_seconds(actions: Sequence[Action]) -> list[bool]:
    """Tests each whole second for a camera rotation of TURNED_DEG or more: then the image must change."""
    turns = [abs(action.mouse[0]) + abs(action.mouse[1]) for action in actions]
    return [sum(turns[i : i + FPS]) >= TURNED_DEG for i in range(0, len(turns) - FPS + 1, FPS)]


def _show(
    seconds: Iterable[Frames],
    shown: list[Frames],
    actions: Sequence[Action],
    space: ActionSpace,
    writer: VideoWriter | None,
) -> Iterator[Frames]:
    """Passes seconds on: into a list at SHOWN_S, and with their keys into a video."""
    for second, frames in enumerate(seconds):
        if second + 1 in SHOWN_S:
            shown.append(frames[-1].copy())
        if writer is not None:
            held = actions[second * FPS : second * FPS + len(frames)]
            writer.write(np.stack([add_keys(f, a, space) for f, a in zip(frames, held, strict=True)]))
        yield frames


def drift_metrics(runs: Sequence[LongResult], reference: ReferenceResult) -> Metrics:
    """Drift metrics of several runs at each of DRIFT_S.

    They are the looks relative to the reference's mean (1 is equal), the Fréchet distance of the frames' features to
    the reference's, similarity to the start without motion, and the mean change per frame.  Runs that end before are
    left out.
    """
    row: Metrics = {}
    for s in DRIFT_S:
        lasting = [run for run in runs if len(run.signs) >= s]
        if not lasting:
            continue
        for name in CURVES:
            values = [curve_of(run.signs[s - 1], name) for run in lasting]
            row[f"{name}_{s}s"] = float(np.mean(values)) / reference.usual(name)
        kept = [run.kept[s - 1] for run in lasting if run.kept]
        if kept:
            row[f"kept_{s}s"] = float(np.mean(kept))
        windows = [run.windows[s] for run in lasting if s in run.windows]
        if reference.pooled is not None and windows:
            row[f"pictures_{s}s"] = frechet_distance(np.concatenate(windows), reference.pooled)
    changes = [change for run in runs for change in run.change]
    return {**row, "frame_change": float(np.mean(changes))} if changes else row


def collapse_times(runs: Sequence[LongResult], detectors: Sequence[Detector]) -> list[tuple[float | None, int]]:
    """Second of collapse of each run, if any, and its length."""
    return [(collapse_of(detectors, run.signs), len(run.signs)) for run in runs]


def collapse_metrics(runs: Sequence[LongResult], detectors: Sequence[Detector]) -> Metrics:
    """Share of runs that had collapsed by each of DRIFT_S, of those that last so long."""
    ends = collapse_times(runs, detectors) if detectors else []
    lasting = {s: [at for at, length in ends if length >= s] for s in DRIFT_S}
    shares = {s: np.mean([at is not None and at < s for at in found]) for s, found in lasting.items() if found}
    return {f"collapsed_{s}s": float(share) for s, share in shares.items()}


def drift_curves(
    runs: Mapping[str, Sequence[LongResult]], reference: ReferenceResult, detectors: Sequence[Detector]
) -> dict[str, dict[str, list[float]]]:
    """By name of the curve and row, one value a second: looks over the reference's mean, and the share collapsed.

    At every second the mean of the runs that last so long.
    """
    result: dict[str, dict[str, list[float]]] = {}
    for row, results in runs.items():
        for name in CURVES:
            lines = [curve_of(run.signs, name) / reference.usual(name) for run in results]
            result.setdefault(name, {})[row] = _mean_line(lines)
        if detectors:
            ends = collapse_times(results, detectors)
            lines = [np.arange(length) >= (length if at is None else at) for at, length in ends]
            result.setdefault("collapsed", {})[row] = _mean_line(lines)
    return result


def _mean_line(lines: Sequence[npt.NDArray[Any]]) -> list[float]:
    """At every second the mean of the lines that reach it."""
    seconds = range(max(map(len, lines)))
    return [round(float(np.mean([line[i] for line in lines if len(line) > i])), 4) for i in seconds]
