"""The run of an evaluation on one game: every unit of work in order, each resumable, and the tables made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reverie.errors import DataError
from reverie.evaluate import clips, held, long, speed, summary
from reverie.evaluate.collapse import Detector, looks
from reverie.evaluate.display import Bars
from reverie.evaluate.features import play_features
from reverie.evaluate.measure import delayed, held_table, pair_names
from reverie.evaluate.plan import HELD_FRAMES, SHORT_S, THERE_FRAMES, TURN_FRAMES, Game, Size
from reverie.evaluate.rollout import Start
from reverie.evaluate.store import Store, Unit
from reverie.evaluate.subject import Subject
from reverie.evaluate.suites import Suite
from reverie.evaluate.tables import COPY, DREAM, REAL, REBUILT, STATIC, Table
from reverie.types import FPS, Action, Frames

Tick = Callable[[], None]
BANK_STRIDE = 4
PLAY_CLIPS = 24
"""Real clips whose play is looked at for the Fréchet distance: flow takes time."""
REBUILT_CLIPS = 24
"""Real clips of 4 s as a reference for the game's looks through the model's tokenizer."""


class Evaluation:
    """One model on one game.  `run` returns the tables, the curves and everything else for a report."""

    def __init__(
        self,
        subject: Subject,
        game: Game,
        size: Size,
        store: Store,
        folder: Path,
        *,
        seed: int,
        progress: Bars,
        videos: bool = True,
        suite: Suite | None = None,
        bench: Path | None = None,
    ) -> None:
        self.subject, self.game, self.size = subject, game, size
        self._store, self._folder, self._seed = store, folder, seed
        self._progress, self._videos, self._suite, self._bench = progress, videos, suite, bench
        (folder / "pictures").mkdir(exist_ok=True, parents=True)
        (folder / "clips").mkdir(exist_ok=True)

    def run(self) -> dict[str, Any]:
        """`tables` (Table), `curves`, `pictures`, `per_start`, `notes`."""
        game, size = self.game, self.size
        bank = self._one("bank", self._bank)
        short = self._compare("short", game.starts, size.clips)
        longer = self._compare("16s", game.long_starts, 0)
        held_units = self._held()
        drift = self._drift(bank, short)
        returns = [self._get("return", k, 2 * THERE_FRAMES + TURN_FRAMES, self._return(k)) for k in range(size.returns)]
        tables = [
            summary.obedience(short, game.judge),
            summary.true_actions(short),
            self._held_table(held_units),
            summary.likeness(short, longer, bank, game.judge),
            drift.pop("table"),
            summary.consistency(short, returns),
            summary.tokenizer(short),
            self._suite_table(),
            speed.speed_table(self._speed()),
        ]
        return {
            "tables": [table for table in tables if table is not None and table.rows],
            "per_start": summary.per_start(short, longer, returns, drift.pop("lasts")),
            "notes": [*game.notes, *summary.idm_notes(game.judge)],
            **drift,
        }

    def _one(self, name: str, make: Callable[[], Unit]) -> Unit:
        return self._store.get(f"{self.game.name}-{name}", make)[0]

    def _get(self, section: str, k: int, num_frames: int, make: Callable[[Tick], Unit]) -> Unit:
        """Unit k of a section, with its line of the progress display."""
        blocks = -(-num_frames // self.subject.block_frames)
        task = self._progress.add_task(f"{self.game.name}: {section} {k + 1}", total=blocks)
        tick: Tick = lambda: self._progress.advance(task)  # noqa: E731  # bound to this task
        unit = self._store.get(f"{self.game.name}-{section}-{k}", lambda: make(tick))[0]
        self._progress.remove_task(task)
        return unit

    def _bank(self) -> Unit:
        """Measures the reference clips: `looks` by second, curves, and the judge's features of every clip."""
        judge = self.game.judge
        units = [long.watch(long.seconds_of([clip[1:]]), None, first=clip[0]) for clip in self.game.bank]
        names = units[0].facts["curves"]
        unit = Unit({"curves": {name: [x for u in units for x in u.facts["curves"][name]] for name in names}})
        unit.arrays["looks"] = np.concatenate([u.arrays["looks"] for u in units])
        if judge is not None:
            clips_seen = self.game.bank
            unit.arrays["pictures"] = np.concatenate([long.pooled(judge.model, c[::BANK_STRIDE]) for c in clips_seen])
            play = [play_features(judge.model, clip) for clip in clips_seen[:PLAY_CLIPS]]
            unit.arrays["play"] = np.stack(play).astype(np.float32)
        return unit

    def _rebuilt_bank(self) -> Unit:
        """The looks of what the game looks like through the model's tokenizer; nothing where it has none."""
        rebuilt = (self.subject.rebuild(clip) for clip in self.game.bank[:REBUILT_CLIPS])
        seen = [looks(clip[1:], clip[0]) for clip in rebuilt if clip is not None]
        return Unit(arrays={"looks": np.concatenate(seen)} if seen else {})

    def _detectors(self, bank: Unit, rebuilt: Sequence[Unit]) -> list[Detector]:
        """One of the real game, and one of the game through the model's tokenizer, each where that is 40 s or more."""
        detectors: list[Detector] = []
        try:
            detectors.append(Detector.of(_by_clip(bank.arrays["looks"])))
        except DataError:
            self.game.notes.append("The recording is too short for the collapse detector (40 s): left out.")
            return detectors
        seen = [array for unit in rebuilt for name, array in unit.arrays.items() if name in ("looks", "looks.rebuilt")]
        if seen:
            with suppress(DataError):
                detectors.append(Detector.of([clip for part in seen for clip in _by_clip(part)]))
        return detectors

    def _compare(self, section: str, starts: Sequence[Start], num_clips: int) -> list[Unit]:
        others = [self.game.fit.actions(s.clip.actions[:-1]) for s in starts]
        if len(starts) == 1:  # there is no other start: actions of another clip, over and over
            other = self.game.starts if starts[0] is not self.game.starts[-1] else self.game.plays
            source = other[-1].clip.actions[:-1]
            times = -(-len(others[0]) // len(source))
            others = [(self.game.fit.actions(source) * times)[: len(others[0])]]
        else:
            others = others[1:] + others[:1]

        def make(k: int) -> Callable[[Tick], Unit]:
            clip_file = self._file("clips", f"{section}-{k}.mp4") if self._videos and k < num_clips else None
            picture_file = self._file("pictures", f"{section}-{k}.jpg")
            return lambda tick: clips.compare(
                self.subject, self.game, starts[k], others[k], self._seed + k, picture_file, clip_file, tick
            )

        return [self._get(section, k, 2 * len(others[k]), make(k)) for k in range(len(starts))]

    def _held(self) -> list[Unit]:
        pairs = pair_names(self.game.fit.common, quick=False)
        starts = self.game.starts[: self.size.held]

        def make(k: int) -> Callable[[Tick], Unit]:
            file = self._file("pictures", f"held-{k}.jpg")
            return lambda tick: held.hold(self.subject, self.game, starts[k], pairs, self._seed + k, file, tick)

        return [self._get("held", k, HELD_FRAMES * 2 * len(pairs), make(k)) for k in range(len(starts) if pairs else 0)]

    def _held_table(self, units: list[Unit]) -> Table:
        table = held_table()
        table.rows.update(held.held_rows(units, self.game.fov_deg))
        return table

    def _return(self, k: int) -> Callable[[Tick], Unit]:
        start = self.game.starts[k % len(self.game.starts)]
        return lambda tick: held.walk_back(self.subject, self.game, start, self._seed + k, tick)

    def _drift(self, bank: Unit, short: Sequence[Unit]) -> dict[str, Any]:
        """The table, the curves and the images of the long rollouts."""
        size, game = self.size, self.game
        play = [self._long("play", k, game.play_rows(k, size.play_s * FPS)) for k in range(size.plays)]
        play += [self._long("endurance", k, game.play_rows(k, size.endurance_s * FPS)) for k in range(size.endurances)]
        idle = [self._long("idle", k, [Action()] * (size.idle_s * FPS)) for k in range(size.idles)]
        plays = range(len(game.plays))
        runs = {DREAM: play, summary.IDLE: idle}
        runs[REAL] = [self._real("real", k, lambda frames: frames) for k in plays]
        runs[REBUILT] = [unit for k in plays if (unit := self._real("rebuilt", k, self.subject.rebuild)).arrays]
        runs[COPY] = [self._real("copy", k, delayed) for k in plays]
        longest_s = max(size.play_s, size.endurance_s * bool(size.endurances))
        runs[STATIC] = [self._one(f"static-{k}", lambda k=k: self._still(k, longest_s)) for k in plays]
        runs = {name: units for name, units in runs.items() if units}
        features = bank.arrays.get("pictures")
        rebuilt_bank = self._one("bank-rebuilt", self._rebuilt_bank)
        detectors = self._detectors(bank, [rebuilt_bank, *short, *runs.get(REBUILT, [])])
        return {
            "table": summary.drift(runs, bank, features, detectors),
            "curves": summary.curves(runs, bank, detectors),
            "lasts": summary.lasts(play, detectors),
        }

    def _long(self, kind: str, k: int, actions: list[Action]) -> Unit:
        start = self.game.plays[k % len(self.game.plays)]
        strip = self._file("pictures", f"{kind}-{k}.jpg")
        clip_file = self._file("clips", f"{kind}-{k}.mp4") if self._videos and kind != "endurance" and not k else None
        return self._get(
            kind,
            k,
            len(actions),
            lambda tick: long.play_long(
                self.subject,
                start.picture,
                actions,
                self._seed + k,
                self.game.judge,
                strip,
                clip_file,
                tick,
                stands=kind == "idle",
            ),
        )

    def _real(self, name: str, k: int, change: Callable[[Frames], Frames | None]) -> Unit:
        def make() -> Unit:
            frames = change(self.game.plays[k].clip.frames)
            if frames is None:
                return Unit()
            return long.watch(long.seconds_of([frames[1:]]), self.game.judge, first=frames[0])

        return self._one(f"{name}-{k}", make)

    def _still(self, k: int, seconds: int) -> Unit:
        """`long.watch` of a frozen video, without measuring it again every second."""
        second = np.repeat(self.game.plays[k].picture[None], FPS, 0)
        unit = long.watch([second] * long.DRIFT_S[0], self.game.judge, second[0], first=second[0])
        unit.facts["curves"] = {name: values[:1] * seconds for name, values in unit.facts["curves"].items()}
        unit.arrays["looks"] = unit.arrays["looks"][:1].repeat(seconds, 0)
        windows = [unit.arrays[name] for name in unit.arrays if name.startswith("window.")]
        for s in long.DRIFT_S:
            if windows and s <= seconds:
                unit.arrays[f"window.{s}"] = windows[0]
        return unit

    def _suite_table(self) -> Table | None:
        suite, judge, starts = self._suite, self.game.judge, self.game.starts
        if suite is None or judge is None:
            return None
        sayable = suite.sayable(self.game.fit.common)

        def make(k: int, actions: list[Action]) -> Callable[[Tick], Unit]:
            clip_file = self._file("clips", f"{suite.name}-{k}.mp4") if self._videos and k < self.size.clips else None
            start = starts[k % len(starts)]
            return lambda tick: held.act_suite(
                self.subject, self.game, judge, start, actions, suite.seed + k, clip_file, tick
            )

        units = [self._get(suite.name, k, len(actions), make(k, actions)) for k, actions in enumerate(sayable.values())]
        return summary.suite(suite, units, judge)

    def _speed(self) -> Unit:
        if self._bench is not None:
            return speed.read_bench(self._bench, self.subject)
        start = self.game.starts[0]
        actions = self.game.fit.actions(start.clip.actions)

        def make() -> Unit:
            return speed.run_speed(self.subject.dreamer.open(start.picture, seed=0), actions, self.size.speed_s)

        return self._one("speed", make)

    def _file(self, kind: str, name: str) -> Path:
        return self._folder / kind / f"{self.game.name}-{name}"


def _by_clip(seen: npt.NDArray[np.float64]) -> list[npt.NDArray[np.float64]]:
    """Looks of clips of SHORT_S seconds one after another, clip by clip; what is left is a clip too."""
    return [seen[i : i + SHORT_S] for i in range(0, len(seen), SHORT_S)]
