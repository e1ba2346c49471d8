"""Long rollouts, measured second by second: a five-minute rollout is never in memory as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reverie.engine.media.video import VideoWriter
from reverie.evaluate import features, metrics, sheets
from reverie.evaluate.collapse import SIGNS, Detector, collapse_of, looks
from reverie.evaluate.plan import DRIFT_S, Judge
from reverie.evaluate.rollout import roll_stream
from reverie.evaluate.store import Unit
from reverie.evaluate.subject import Subject
from reverie.models.idm import InverseDynamics
from reverie.overlay import add_keys
from reverie.types import FPS, Action, ActionSpace, Frames

KEPT = "kept"
LOOKS = ("sharpness", "contrast", "saturation")
WINDOW_S = 4
"""Seconds before each of DRIFT_S whose features are kept, every other frame of them."""

TURNED_DEG = 10.0
SHOWN_S = (1, 5, 10, 20, 30, 60, 120, 300)


def seconds_of(blocks: Iterable[Frames]) -> Iterator[Frames]:
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
    judge: Judge | None,
    start: Frames | None = None,
    *,
    first: Frames | None = None,
    turned: Sequence[bool] = (),
) -> Unit:
    """Curves by second: `sharpness`, `contrast`, `saturation`, `change` (per frame), the `looks`, and with a judge
    the image features of the window before each of DRIFT_S, `window.SECOND` (n, c).

    start: the frame (H, W, 3) of a player who stands still; then also `kept`, the PSNR of a second's last frame
    against it, dB.  first: the first frame of the video, for signs of collapse; turned: seconds in which the
    player turned.
    """
    curves: dict[str, list[float]] = {name: [] for name in (*LOOKS, "change")}
    seen: list[npt.NDArray[np.float64]] = []
    unit = Unit()
    recent: list[Frames] = []
    for second, frames in enumerate(seconds, 1):
        some = frames[::5]
        for name in LOOKS:
            curves[name].append(float(getattr(metrics, name)(some).mean()))
        curves["change"].append(float(metrics.frame_change(frames).mean()))
        if start is not None:
            curves.setdefault(KEPT, []).append(float(metrics.psnr_db(frames[-1:], start[None])[0]))
        seen.append(looks(frames, first, np.array(turned[second - 1 : second] or [False])))
        recent = [*recent[-(WINDOW_S - 1) :], frames[::2].copy()]
        if second in DRIFT_S and judge is not None:
            unit.arrays[f"window.{second}"] = pooled(judge.model, np.concatenate(recent))
    unit.facts["curves"] = curves
    unit.arrays["looks"] = np.concatenate(seen) if seen else np.zeros((0, SIGNS))
    return unit


def pooled(idm: InverseDynamics, frames: Frames) -> npt.NDArray[np.float32]:
    """Features of the judge's image tower for each frame, averaged over the image: `(f, c)`."""
    return features.picture_maps(idm, frames).mean((2, 3)).cpu().numpy()


def play_long(
    subject: Subject,
    picture: Frames,
    actions: Sequence[Action],
    seed: int,
    judge: Judge | None,
    strip_file: Path,
    clip_file: Path | None = None,
    tick: Callable[[], None] = lambda: None,
    stands: bool = False,
) -> Unit:
    """`watch` of a rollout; writes a strip of its frames at SHOWN_S, and a video with the keys.  stands: nothing is
    done, so that the image should not change."""
    start = picture if stands else None
    turned = turned_seconds(actions)
    shown: list[Frames] = []
    blocks = roll_stream(subject.dreamer, picture, actions, seed, tick)
    seconds = _noting(seconds_of(blocks), shown)
    if clip_file is None:
        unit = watch(seconds, judge, start, first=picture, turned=turned)
    else:
        space = subject.dreamer.action_space
        size = add_keys(picture, Action(), space).shape[:2]
        with VideoWriter(clip_file, (size[0], size[1]), {"kind": "reverie.evaluate"}) as writer:
            shown_with_keys = _writing(seconds, actions, space, writer)
            unit = watch(shown_with_keys, judge, start, first=picture, turned=turned)
    if shown:
        sheets.save_jpeg(np.concatenate([picture, *shown], axis=1), strip_file)
    return unit


def turned_seconds(actions: Sequence[Action]) -> list[bool]:
    """Tests each whole second for a camera rotation of TURNED_DEG or more: then the image must change."""
    turns = [abs(action.mouse[0]) + abs(action.mouse[1]) for action in actions]
    return [sum(turns[i : i + FPS]) >= TURNED_DEG for i in range(0, len(turns) - FPS + 1, FPS)]


def _noting(seconds: Iterable[Frames], shown: list[Frames]) -> Iterator[Frames]:
    for second, frames in enumerate(seconds, 1):
        if second in SHOWN_S:
            shown.append(frames[-1].copy())
        yield frames


def _writing(
    seconds: Iterable[Frames], actions: Sequence[Action], space: ActionSpace, writer: VideoWriter
) -> Iterator[Frames]:
    for second, frames in enumerate(seconds):
        held = actions[second * FPS : second * FPS + len(frames)]
        writer.write(np.stack([add_keys(f, a, space) for f, a in zip(frames, held, strict=True)]))
        yield frames


def drift_figures(runs: Sequence[Unit], bank: Unit, bank_features: npt.NDArray | None) -> dict[str, float]:
    """Drift metrics of several runs at each of DRIFT_S.

    They are the looks relative to the bank's mean (1 is equal), the Fréchet distance of the frames' features to the
    bank's, similarity to the start without motion, and the mean change per frame.  Runs that end before are left out.
    """
    row: dict[str, float] = {}
    for s in DRIFT_S:
        lasting = [run for run in runs if len(run.facts["curves"]["sharpness"]) >= s]
        if not lasting:
            continue
        for name in LOOKS:
            usual = max(float(np.mean(bank.facts["curves"][name])), 1e-6)
            row[f"{name}_{s}s"] = float(np.mean([run.facts["curves"][name][s - 1] for run in lasting])) / usual
        kept = [run.facts["curves"][KEPT][s - 1] for run in lasting if KEPT in run.facts["curves"]]
        if kept:
            row[f"{KEPT}_{s}s"] = float(np.mean(kept))
        windows = [run.arrays[f"window.{s}"] for run in lasting if f"window.{s}" in run.arrays]
        if bank_features is not None and windows:
            row[f"pictures_{s}s"] = features.frechet_distance(
                np.concatenate(windows).astype(np.float64), bank_features.astype(np.float64)
            )
    changes = [change for run in runs for change in run.facts["curves"]["change"]]
    if changes:
        row["frame_change"] = float(np.mean(changes))
    return row


def collapse_figures(runs: Sequence[Unit], detectors: Sequence[Detector]) -> dict[str, float]:
    """Share of runs that had collapsed by each of DRIFT_S, of those that last so long."""
    row: dict[str, float] = {}
    ends = [(collapse_of(detectors, run.arrays["looks"]), len(run.arrays["looks"])) for run in runs]
    for s in DRIFT_S:
        lasting = [at for at, length in ends if length >= s]
        if lasting:
            row[f"collapsed_{s}s"] = float(np.mean([at is not None and at < s for at in lasting]))
    return row
