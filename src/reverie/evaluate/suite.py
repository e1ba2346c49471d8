"""The run of an evaluation: rolls the model out from every start, measures the frames, draws the sheets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from reverie.evaluate import measure, metrics, sheets
from reverie.evaluate.rollout import Dreamer, Recording, Start, num_blocks, pick_starts, roll
from reverie.evaluate.scripts import PAIRS, player_actions
from reverie.evaluate.tables import Column, Table
from reverie.models.pixels import to_frames, to_pixels
from reverie.types import FPS, Action, Frames

if TYPE_CHECKING:
    from reverie.models.checkpoint import ModelBundle

CLIP_FRAMES = 32
"""Frames that an action is held: 1.3 s."""

REAL_FRAMES = max(measure.LIKENESS_S) * FPS + 1
NUM_SHOWN = 4
"""Starts that the sheets show."""

RECONSTRUCTION_CHUNK = 12


class Engine(Dreamer, Protocol):
    """A dreamer whose tokenizer can be asked."""

    @property
    def block_frames(self) -> int: ...
    @property
    def bundle(self) -> ModelBundle: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def dtype(self) -> torch.dtype: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """How much is measured.

    starts: for obedience.  likeness_starts: compared with the real clip.  plays, idles: long rollouts of `drift_s`
    seconds.
    """

    starts: int
    likeness_starts: int
    plays: int
    idles: int
    drift_s: int = max(measure.DRIFT_S)
    quick: bool = False


def full_size(starts: int) -> Size:
    return Size(starts=starts, likeness_starts=starts, plays=min(4, starts), idles=min(2, starts))


def quick_size(starts: int) -> Size:
    return Size(starts=min(8, starts), likeness_starts=min(4, starts), plays=1, idles=1, quick=True)


class Suite:
    """One evaluation.  `run` answers the four questions of `measure`, in order, and returns their tables."""

    def __init__(
        self,
        engine: Engine,
        recording: Recording,
        size: Size,
        folder: Path,
        *,
        seed: int,
        fov_deg: float,
        write_videos: bool = False,
    ) -> None:
        self._engine = engine
        self._recording = recording
        self._size = size
        self._folder = folder
        self._seed = seed
        self._fov_deg = fov_deg
        self._write_videos = write_videos
        self._progress: Progress | None = None

    def run(self, console: Console | None = None) -> list[Table]:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as self._progress:
            with self._stage("reading the recording", self._size.starts) as tick:
                starts = pick_starts(self._recording, self._size.starts, REAL_FRAMES, self._seed, tick)
            compared = starts[: self._size.likeness_starts]
            rebuilt = self._rebuild(compared)
            return [
                self._obedience(starts),
                self._likeness(compared, rebuilt),
                self._drift(starts),
                self._tokenizer(compared, rebuilt),
            ]

    def _obedience(self, starts: list[Start]) -> Table:
        space = self._engine.action_space
        pairs = measure.pair_names(space, self._size.quick)
        dream, real, still = (measure.Obedience(self._fov_deg) for _ in range(3))
        rows: list[sheets.Row] = []
        blocks = self._blocks(CLIP_FRAMES) * 2 * len(pairs) * len(starts)
        with self._stage("held actions", blocks) as tick:
            for k, start in enumerate(starts):
                row = sheets.Row([start.picture], [f"start, {start.label}"])
                for pair in pairs:
                    for side, held in enumerate(PAIRS[pair]):
                        video = roll(self._engine, start.picture, [held.action] * CLIP_FRAMES, self._seed + k, tick)
                        dream.add(pair, side, video)
                        row.add(video[CLIP_FRAMES // 2], f"{held.label} {CLIP_FRAMES / 2 / FPS:.1f} s")
                        still.add(pair, side, video[[0] * 3])
                rows.append(row)
                for pair, side, frames in measure.real_windows(start.clip, space):
                    real.add(pair, side, frames)
        sheets.save(rows[:NUM_SHOWN], self._folder / "obedience.png")
        table = measure.obedience_table()
        table.rows["the dream"] = dream.figures()
        table.rows["real recording"] = real.figures(paired=False)
        table.rows["static picture"] = still.figures()
        return table

    def _likeness(self, starts: list[Start], rebuilt: list[Frames]) -> Table:
        space = self._engine.action_space
        scripts = [space.decode(start.clip.actions[: REAL_FRAMES - 1]) for start in starts]
        with self._stage("recorded actions", 2 * self._blocks(REAL_FRAMES - 1) * len(starts)) as tick:
            dreams = [
                roll(self._engine, start.picture, script, self._seed + k, tick)
                for k, (start, script) in enumerate(zip(starts, scripts, strict=True))
            ]
            shuffled = [
                roll(self._engine, start.picture, script, self._seed + k, tick)
                for k, (start, script) in enumerate(zip(starts, scripts[1:] + scripts[:1], strict=True))
            ]
        table = measure.likeness_table()
        real = [start.clip.frames for start in starts]
        videos = {
            "the dream": dreams,
            "its tokenizer alone": rebuilt,
            "actions of another clip": shuffled,
            "static picture": [measure.static(frames) for frames in real],
            "copy of the true frame before": [measure.delayed(frames) for frames in real],
        }
        for name, candidates in videos.items():
            table.rows[name] = measure.likeness_figures(candidates, starts)
        rows = []
        for start, video, clip in list(zip(starts, dreams, real, strict=True))[:NUM_SHOWN]:
            rows.append(sheets.timeline(clip, f"real {start.label}", (0.2, 1, 2, 4)))
            rows.append(sheets.timeline(video, "dream", (0.2, 1, 2, 4)))
        sheets.save(rows, self._folder / "likeness.png")
        return table

    def _drift(self, starts: list[Start]) -> Table:
        num_frames = self._size.drift_s * FPS
        space = self._engine.action_space
        plays = [player_actions(space, num_frames, self._seed + k) for k in range(self._size.plays)]
        idles = [[Action()] * num_frames for _ in range(self._size.idles)]
        table = measure.drift_table()
        with self._stage("long rollouts", self._blocks(num_frames) * (len(plays) + len(idles))) as tick:
            for name, label, scripts in (("play", "play-like actions", plays), ("idle", "standing still", idles)):
                videos = [
                    roll(self._engine, starts[k].picture, script, self._seed + k, tick)
                    for k, script in enumerate(scripts)
                ]
                real = [start.clip.frames[::5] for start in starts[: len(videos)]]
                table.rows[label] = measure.drift_figures(videos, real)
                self._show_drift(name, starts, videos, scripts)
        real = [start.clip.frames for start in starts]
        change = float(np.mean([metrics.frame_change(frames).mean() for frames in real]))
        table.rows["real recording"] = {"frame_change": change}
        table.rows["static picture"] = measure.drift_figures(
            [np.broadcast_to(start.picture, (num_frames + 1, *start.picture.shape)) for start in starts[:4]],
            [start.clip.frames[::5] for start in starts[:4]],
        )
        return table

    def _show_drift(self, name: str, starts: list[Start], videos: list[Frames], scripts: list[list[Action]]) -> None:
        space = self._engine.action_space
        times = (0, *(s for s in (1, 2, 5, 10, 15, 20) if s <= self._size.drift_s))
        rows = [
            sheets.timeline(video, starts[k].label, times, script, space)
            for k, (video, script) in enumerate(zip(videos, scripts, strict=True))
        ]
        sheets.save(rows, self._folder / f"{name}.png")
        if self._write_videos:
            for k, (video, script) in enumerate(zip(videos, scripts, strict=True)):
                sheets.save_video(video, script, space, self._folder / f"{name}-{k}.mp4")

    def _rebuild(self, starts: list[Start]) -> list[Frames]:
        with self._stage("tokenizer", len(starts)) as tick:
            rebuilt = []
            for start in starts:
                rebuilt.append(reconstruct(self._engine, start.clip.frames))
                tick()
            return rebuilt

    def _tokenizer(self, starts: list[Start], rebuilt: list[Frames]) -> Table:
        table = Table(
            "tokenizer",
            "Tokenizer on held-out frames",
            (Column("psnr_db", "PSNR dB"), Column("ssim", "SSIM", "{:.3f}"), Column("sharpness", "sharpness / real")),
            "Encoded and decoded as a stream, averaged over all frames.",
        )
        pairs = [(video, start.clip.frames) for video, start in zip(rebuilt, starts, strict=True)]
        table.rows["reconstruction"] = {
            "psnr_db": float(np.mean([metrics.psnr_db(a, b).mean() for a, b in pairs])),
            "ssim": float(np.mean([metrics.ssim(a, b).mean() for a, b in pairs])),
            "sharpness": float(np.mean([metrics.sharpness(a).mean() / metrics.sharpness(b).mean() for a, b in pairs])),
        }
        return table

    def _blocks(self, num_frames: int) -> int:
        return num_blocks(num_frames, self._engine.block_frames)

    @contextmanager
    def _stage(self, name: str, total: int) -> Iterator[Callable[[], None]]:
        """A line of the progress display; yields the function that moves it on by one."""
        assert self._progress is not None
        task = self._progress.add_task(name, total=total)
        progress = self._progress
        yield lambda: progress.advance(task)


@torch.inference_mode()
def reconstruct(engine: Engine, frames: Frames) -> Frames:
    """Frames (f, H, W, 3) through the model's tokenizer as a stream and back; same shape."""
    tokenizer = engine.bundle.tokenizer
    height, width = frames.shape[1:3]
    encoder = tokenizer.new_encoder_state(1, height, width, engine.device, engine.dtype)
    decoder = tokenizer.new_decoder_state(1, height, width, engine.device, engine.dtype)
    whole = np.concatenate([frames, frames[-1:].repeat(-(len(frames) - 1) % 4, 0)])
    pieces = []
    for first, last in chunk_bounds(len(whole)):
        video = torch.from_numpy(np.ascontiguousarray(whole[first:last])).to(engine.device)
        video = to_pixels(video.permute(0, 3, 1, 2)[None]).to(engine.dtype)
        pieces.append(to_frames(tokenizer.decode(tokenizer.encode(video, encoder), decoder)[0]))
    return np.concatenate(pieces)[: len(frames)]


def chunk_bounds(num_frames: int) -> Iterator[tuple[int, int]]:
    """(first, last) of each chunk of a stream of 1 + 4n frames: the first frame alone, then RECONSTRUCTION_CHUNK at a
    time.
    """
    yield 0, 1
    for first in range(1, num_frames, RECONSTRUCTION_CHUNK):
        yield first, min(first + RECONSTRUCTION_CHUNK, num_frames)
