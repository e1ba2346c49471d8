"""Takes into episodes: each is read, resampled, judged and written; what is dropped is counted, with the reason."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reverie.data.checks import judge
from reverie.data.container import frame_times, packet_digest, video_head
from reverie.data.importers.config import ImportConfig
from reverie.data.importers.resample import Piece, resample
from reverie.data.importers.take import Source, Take, Track, file_digest
from reverie.data.importers.video import numbered_pictures
from reverie.data.video import write_video
from reverie.data.writer import DatasetWriter, picture_statistics
from reverie.errors import DataError
from reverie.types import FPS, Frames


@dataclass(slots=True)
class Outcome:
    """Result of importing one take."""

    name: str
    frames_in: int = 0
    episodes: int = 0
    frames: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Report:
    """Results of importing all takes, and one line for each fault."""

    outcomes: list[Outcome] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def episodes(self) -> int:
        return sum(outcome.episodes for outcome in self.outcomes)

    @property
    def frames(self) -> int:
        return sum(outcome.frames for outcome in self.outcomes)


class Transfer:
    """One run of an importer: `source` to `writer`, with a `report` of what happened.

    A take is identified by its files' contents and by the options of its import, whatever its name: the same
    again is passed over, and once it is in with other options, what came of it before is taken out.
    """

    def __init__(self, config: ImportConfig, source: Source, writer: DatasetWriter) -> None:
        self.config, self.source, self.writer = config, source, writer
        self.report = Report()
        self.options = json.dumps(config.options(), sort_keys=True)
        self._names: dict[str, str] = {}
        known = (*writer.rows, *writer.rejected)
        if any(not row.get("source_content") for row in writer.rows):
            raise DataError(
                f"{writer.root}: has episodes that an older version imported, which did not note what it had read;"
                " import into another folder"
            )
        self._done = {(row.get("source_content"), row.get("source_options"), row.get("source_from_s")) for row in known}

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
        self._replace()

    def _bring(self, take: Take, outcome: Outcome) -> None:
        times, first = frame_times(take.video), 0
        track_times = times
        if take.window is not None:
            since = times - times[0]
            early = 0.5 * float(np.median(np.diff(times))) if len(times) > 1 else 0.0
            inside = np.flatnonzero((since >= take.window[0] - early) & (since < take.window[1] - early))
            first, track_times = (int(inside[0]) if len(inside) else 0), since[inside]
        if video_head(take.video).is_hdr:
            self.report.notes.append(
                f"{take.video}: is HDR, so that its colours come out dull; convert it to SDR first"
            )
        if not len(track_times):
            raise DataError(f"{take.video}: the video ends before {take.name} begins")
        content = content_of(take, times[first], times[first + len(track_times) - 1])
        if copies := sum(name.partition("-")[0] == content for name in self._names):
            self.report.notes.append(f"{take.video}: {take.name} holds the same as {self._names[content]}")
            content = f"{content}-{copies}"
        self._names[content] = take.name
        track = take.read(track_times)
        if take.window is None:
            drop_after_lost_frames(track, track_times, take.video)
        outcome.frames_in, outcome.dropped = len(track_times), track.dropped
        self.report.notes += track.notes
        pieces = self._pieces(content, track, track_times, outcome)
        wanted = {int(index) + first for piece in pieces for index in piece.shown}
        pictured = _Pictured(numbered_pictures(take.video, times, wanted, self.config.resolution))
        for piece in pieces:
            frames = pictured.take(piece.shown + first)
            self._note_lacking(take, piece, frames, times[first:], pictured.is_over, outcome)
            for start, end in _runs(frames):
                self._add(
                    take, content, piece.part(start, end), [f for f in frames[start:end] if f is not None], outcome
                )

    def _note_lacking(
        self,
        take: Take,
        piece: Piece,
        frames: list[Frames | None],
        times: npt.NDArray[np.float64],
        is_over: bool,
        outcome: Outcome,
    ) -> None:
        """Notes which frames of a piece could not be decoded, if any."""
        lacking = [index for index, frame in enumerate(frames) if frame is None]
        if not lacking:
            return
        if is_over and lacking == list(range(lacking[0], len(frames))):
            at = piece.from_s + lacking[0] / FPS
            self.report.notes.append(f"{take.video}: the video breaks off at {at:.2f} s; the rest is dropped")
            outcome.dropped["after the video broke off"] += len(lacking)
            return
        numbers = np.unique(piece.shown[lacking])
        self.report.notes.append(
            f"{take.video}: {len(numbers)} frames cannot be decoded, the first of them frame {numbers[0]} at"
            f" {times[numbers[0]]:.2f} s; they are left out"
        )
        outcome.dropped["damaged"] += len(lacking)

    def _pieces(self, content: str, track: Track, times: npt.NDArray[np.float64], outcome: Outcome) -> list[Piece]:
        """The pieces of a take that the dataset does not have yet."""
        config, late = self.config, self.config.late_frames
        if late:
            track.actions = np.roll(track.actions, late, axis=0)
            track.keep &= np.roll(track.keep, late)
            track.drop(slice(None, late) if late > 0 else slice(late, None), "no action")
        longest, shortest = round(config.episode_seconds * FPS), round(config.min_episode_seconds * FPS)
        pieces = resample(track, times, len(self.source.space.keys), longest, shortest)
        new = [piece for piece in pieces if (content, self.options, piece.from_s) not in self._done]
        if len(new) < len(pieces):
            outcome.dropped["there already"] += sum(len(one.shown) for one in pieces) - sum(
                len(one.shown) for one in new
            )
        return new

    def _add(self, take: Take, content: str, piece: Piece, frames: list[Frames], outcome: Outcome) -> None:
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
        about = {
            "source": take.name,
            "source_from_s": piece.from_s,
            "source_content": content,
            "source_options": self.options,
        }
        if length < self.config.min_episode_seconds * FPS:
            outcome.dropped["in a stretch too short"] += length
            if cut:
                self.writer.reject(seed=-1, reason=cut, **about)
            return
        self._write(take, piece, np.stack(frames[:length]), {"cut": cut, **about})
        outcome.episodes += 1
        outcome.frames += length

    def _write(self, take: Take, piece: Piece, frames: Frames, about: dict[str, Any]) -> None:
        video = self.writer.partial / f"import-{os.getpid()}.mp4"
        write_video(video, frames, FPS)
        meta = {"seed": -1, "map": "", "heldout": self.config.heldout, **take.meta, **about}
        poses = None if piece.poses is None else piece.poses[: len(frames)]
        self.writer.add(video, piece.actions[: len(frames)], poses, picture_statistics(frames), meta)

    def _replace(self) -> None:
        """Take out what other options made of the takes that are in now with these."""
        ours: set[str] = set()
        others: dict[str, list[int]] = {}
        for row in self.writer.rows:
            content = row["source_content"]
            if row["source_options"] == self.options:
                ours.add(content)
            elif content in self._names:
                others.setdefault(content, []).append(row["episode_index"])
        out = [index for content in others for index in others[content] if content in ours]
        for content, indices in others.items():
            count = len(indices)
            note = (
                f"replaces {count} episodes imported with other options"
                if content in ours
                else f"none of it could be imported with these options; {count} episodes with others are kept"
            )
            self.report.notes.append(f"{self._names[content]}: {note}")
        if out:
            self.writer.remove(out)


def content_of(take: Take, begin_s: float, end_s: float) -> str:
    """A hash of what a take holds: its video, or the part shown from `begin_s` to `end_s`, and its actions."""
    digest = hashlib.sha256()
    if take.window is None:
        digest.update(file_digest(take.video))
    else:
        digest.update(packet_digest(take.video, begin_s - 1e-6, end_s + 1e-6))
    for table in take.tables:
        digest.update(file_digest(table))
    if take.rows is not None:
        digest.update(hashlib.sha256(take.rows()).digest())
    return digest.hexdigest()[:32]


def drop_after_lost_frames(track: Track, times: npt.NDArray[np.float64], video: Path) -> None:
    """Drops what follows a gap in a video of constant rate, where a table of more rows shows that frames were lost.

    Rows that are numbered by frame would each be with a later frame than their own.
    """
    apart = np.diff(times)
    usual = float(np.median(apart)) if len(apart) else 0.0
    if not usual > 0 or np.mean(np.abs(apart - usual) < 0.1 * usual) < 0.95:
        return
    lost = np.maximum(np.round(apart / usual) - 1, 0)
    if 0 < lost.sum() <= track.dropped["rows without a frame"]:
        first = int(np.flatnonzero(lost)[0]) + 1
        track.notes.append(
            f"{video}: frames are missing before frame {first}, at {times[first]:.2f} s; the rest is dropped"
        )
        track.drop(slice(first, None), "after frames that are missing")


def _runs(frames: list[Frames | None]) -> Iterator[tuple[int, int]]:
    """Stretches [start, end) of frames that are there."""
    start = 0
    for index, frame in enumerate([*frames, None]):
        if frame is None:
            if index > start:
                yield start, index
            start = index + 1


class _Pictured:
    """Hands out decoded frames by their number, in growing order; one that is shown twice is decoded once."""

    def __init__(self, decoded: Iterator[tuple[int, Frames]]) -> None:
        self._decoded = decoded
        self._index, self._picture = -1, np.zeros(0, np.uint8)
        self.is_over = False

    def take(self, shown: npt.NDArray[np.intp]) -> list[Frames | None]:
        """The source frames numbered `shown`, None where one could not be decoded."""
        frames: list[Frames | None] = []
        for index in shown.tolist():
            while self._index < index and not self.is_over:
                self._index, self._picture = next(self._decoded, (-1, self._picture))
                self.is_over = self._index < 0
            frames.append(self._picture if self._index == index else None)
        return frames
