"""Takes into episodes: each is read, resampled, judged and written; what is dropped is counted, and said why."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from rich.table import Table

from reverie.data.checks import judge
from reverie.data.importers.resample import Piece, resample
from reverie.data.importers.take import Source, Take, Track
from reverie.data.importers.video import frame_times, pictures
from reverie.data.video import write_video
from reverie.data.writer import DatasetWriter, picture_statistics
from reverie.errors import DataError
from reverie.types import FPS, Frames

if TYPE_CHECKING:
    from reverie.data.importers.command import ImportConfig


@dataclass(slots=True)
class Outcome:
    """What became of one take."""

    name: str
    frames_in: int = 0
    episodes: int = 0
    frames: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Report:
    """What became of every take, and a line for everything that was wrong."""

    outcomes: list[Outcome] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def episodes(self) -> int:
        return sum(outcome.episodes for outcome in self.outcomes)

    @property
    def frames(self) -> int:
        return sum(outcome.frames for outcome in self.outcomes)

    def table(self) -> Table:
        """A row a take."""
        table = Table("take", "frames", "episodes", "frames at 25/s", "dropped", box=None, pad_edge=False)
        for one in self.outcomes:
            dropped = ", ".join(f"{count} {reason}" for reason, count in one.dropped.items())
            table.add_row(one.name, str(one.frames_in), str(one.episodes), str(one.frames), dropped or "nothing")
        return table


class Transfer:
    """One run of an importer: `source` to `writer`, with a `report` of what happened."""

    def __init__(self, config: ImportConfig, source: Source, writer: DatasetWriter) -> None:
        self.config, self.source, self.writer = config, source, writer
        self.report = Report()
        known = (*writer.rows, *writer.rejected)
        self._done = {(row.get("source"), row.get("source_from_s")) for row in known}

    def run(self) -> None:
        """Bring in every take; one that cannot be read is noted and passed over."""
        for number, take in enumerate(self.source.takes()):
            if self.config.limit is not None and number >= self.config.limit:
                break
            if isinstance(take, str):
                self.report.notes.append(take)
                continue
            outcome = Outcome(take.name)
            self.report.outcomes.append(outcome)
            try:
                self._bring(take, outcome)
            except DataError as error:
                self.report.notes.append(str(error))

    def _bring(self, take: Take, outcome: Outcome) -> None:
        times, first = frame_times(take.video), 0
        track_times = times
        if take.window is not None:
            inside = np.flatnonzero((times >= take.window[0] - 1e-3) & (times < take.window[1] - 1e-3))
            first, track_times = (int(inside[0]) if len(inside) else 0), times[inside]
        if not len(track_times):
            raise DataError(f"{take.video}: the video ends before {take.name} begins")
        track = take.read(track_times)
        outcome.frames_in, outcome.dropped = len(track_times), track.dropped
        self.report.notes += track.notes
        pieces = self._pieces(take, track, track_times)
        wanted = {int(index) + first for piece in pieces for index in piece.shown}
        pictured = _Pictured(pictures(take.video, times, wanted, self.config.resolution))
        for piece in pieces:
            frames = pictured.take(piece.shown)
            lacking = len(piece.shown) - len(frames)
            if lacking:
                at = piece.from_s + len(frames) / FPS
                self.report.notes.append(f"{take.video}: the video breaks off at {at:.2f} s; the rest is dropped")
                outcome.dropped["after the video broke off"] += lacking
            self._add(take, piece, frames, outcome)
            if lacking:
                break

    def _pieces(self, take: Take, track: Track, times: npt.NDArray[np.float64]) -> list[Piece]:
        """The pieces of a take that the dataset does not have yet."""
        config, late = self.config, self.config.late_frames
        if late:
            track.actions = np.roll(track.actions, late, axis=0)
            track.keep &= np.roll(track.keep, late)
            track.drop(slice(None, late) if late > 0 else slice(late, None), "no action")
        longest, shortest = round(config.episode_seconds * FPS), round(config.min_episode_seconds * FPS)
        pieces = resample(track, times, len(self.source.space.keys), longest, shortest)
        return [piece for piece in pieces if (take.name, piece.from_s) not in self._done]

    def _add(self, take: Take, piece: Piece, frames: list[Frames], outcome: Outcome) -> None:
        """Judge one piece and write what is good of it."""
        length, cut = len(frames), ""
        if self.config.checks and length:
            poses = None if piece.poses is None else piece.poses[:length]
            verdict = judge(np.stack(frames), piece.actions[:length], poses, None, self.source.space, "imported")
            if verdict.reasons:
                cut = "; ".join(verdict.reasons)
                self.report.notes.append(f"{take.name} at {piece.from_s:.2f} s: {cut}")
                outcome.dropped["failed a check"] += length - verdict.length
                length = verdict.length
        if length < self.config.min_episode_seconds * FPS:
            outcome.dropped["in a stretch too short"] += length
            if cut:
                self.writer.reject(seed=-1, reason=cut, source=take.name, source_from_s=piece.from_s)
            return
        self._write(take, piece, np.stack(frames[:length]), cut)
        outcome.episodes += 1
        outcome.frames += length

    def _write(self, take: Take, piece: Piece, frames: Frames, cut: str) -> None:
        video = self.writer.partial / f"import-{os.getpid()}.mp4"
        write_video(video, frames, FPS)
        meta = {"seed": -1, "map": "", "heldout": self.config.heldout, **take.meta}
        meta |= {"cut": cut, "source": take.name, "source_from_s": piece.from_s}
        poses = None if piece.poses is None else piece.poses[: len(frames)]
        self.writer.add(video, piece.actions[: len(frames)], poses, picture_statistics(frames), meta)


class _Pictured:
    """Hands out decoded pictures in order; one that several frames show is decoded once."""

    def __init__(self, decoded: Iterator[Frames]) -> None:
        self._decoded = decoded
        self._index, self._picture = -1, np.zeros(0, np.uint8)

    def take(self, shown: npt.NDArray[np.intp]) -> list[Frames]:
        """The pictures of the source frames `shown`, fewer where the video ends."""
        frames: list[Frames] = []
        for index in shown:
            if index != self._index:
                picture = next(self._decoded, None)
                if picture is None:
                    break
                self._index, self._picture = int(index), picture
            frames.append(self._picture)
        return frames
