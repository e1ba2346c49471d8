"""The run of an evaluation in a scene: every unit of work in order, each resumable, and the tables made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from reverie.engine.engine import Engine
from reverie.errors import DataError
from reverie.evaluate import speed
from reverie.evaluate.collapse import Detector
from reverie.evaluate.display import Bars
from reverie.evaluate.scenes import tables, units
from reverie.evaluate.scenes.streamed import MORE_STEPS, streaming_differences
from reverie.evaluate.scenes.units import GAME, IMAGE, LED, MEMORY, OWN, REBUILT, Tick
from reverie.evaluate.scenes.walks import IDLE_FRAMES, TURN_FRAMES, Place, SceneSize
from reverie.evaluate.store import Store, Unit
from reverie.evaluate.subject import Subject
from reverie.models.tokenizer import FRAMES
from reverie.types import FPS

OWN_CAMERA = (MEMORY, OWN, IMAGE)


class SceneEvaluation:
    """One model in one scene.  `run` returns the tables, the curves and everything else for a report."""

    def __init__(
        self,
        subject: Subject,
        engine: Engine,
        place: Place,
        size: SceneSize,
        store: Store,
        folder: Path,
        *,
        seed: int,
        progress: Bars,
        bench: Path | None = None,
    ) -> None:
        self.subject, self.game, self.size = subject, place, size
        self._engine, self._store, self._seed, self._bench = engine, store, seed, bench
        self._progress, self._pictures = progress, folder / "pictures"
        self._pictures.mkdir(exist_ok=True, parents=True)

    def run(self) -> dict[str, Any]:
        """`tables` (Table), `curves`, `per_start`, `notes`."""
        engine, place, size, seed, folder = self._engine, self.game, self.size, self._seed, self._pictures
        blocks = place.num_frames // FRAMES
        walks = self._each("walk", blocks, (GAME, REBUILT, MEMORY, LED, OWN, IMAGE), self._walk)
        turning = OWN_CAMERA if place.fit.common.mouse else ()
        if not turning:
            place.notes.append("The game has no mouse: nobody turns away, and no half turns are seen.")
        turns = self._each(
            "turn",
            2 * (IDLE_FRAMES + TURN_FRAMES) // FRAMES,
            turning,
            lambda row, tick: units.turn_back(engine, place, row, size.turns, seed, folder, tick),
        )
        views = self._each(
            "views", 2, turning, lambda row, tick: units.real_views(place, turns[row].arrays["poses"], tick)
        )
        ways = self._each(
            "way",
            2 * size.out_s * FPS // FRAMES,
            OWN_CAMERA,
            lambda row, tick: units.out_and_back(engine, place, row, size.returns, size.out_s, seed, folder, tick),
        )
        plays = self._each(
            "long",
            size.play_s * FPS // FRAMES,
            OWN_CAMERA,
            lambda row, tick: units.play_long(engine, place, row, size.plays, size.play_s, seed, folder, tick),
        )
        real = self._get("real", 1, lambda tick: units.real_looks(place))
        detectors = self._detectors(real, walks[REBUILT])
        ruined = self._get("ruined", 1, lambda tick: units.ruined(place))
        found = [
            tables.likeness(walks),
            tables.returns(turns, ways, views, size, place.judge is not None),
            tables.plays(plays, real, detectors, size.play_s),
            tables.detector(ruined, detectors, len(place.walks)),
            tables.actions(walks, place.judge),
            self._streamed(),
            speed.speed_table(self._speed()),
        ]
        return {
            "tables": [table for table in found if table is not None and table.rows],
            "curves": tables.curves(walks),
            "per_start": {"scene": tables.per_start(walks[OWN]), "image": tables.per_start(walks[IMAGE])},
            "notes": self._notes(),
        }

    def _each(
        self, section: str, num_blocks: int, rows: Sequence[str], make: Callable[[str, Tick], Unit]
    ) -> dict[str, Unit]:
        """A unit of the section for each row."""
        return {row: self._get(f"{section}-{units.ROWS[row]}", num_blocks, partial(make, row)) for row in rows}

    def _get(self, section: str, num_blocks: int, make: Callable[[Tick], Unit]) -> Unit:
        """The unit of a section, with its line of the progress display."""
        task = self._progress.add_task(f"{self.game.name}: {section}", total=num_blocks)
        unit = self._store.get(f"{self.game.name}-{section}", lambda: make(lambda: self._progress.advance(task)))[0]
        self._progress.remove_task(task)
        return unit

    def _walk(self, row: str, tick: Tick) -> Unit:
        if row in (GAME, REBUILT):
            return units.real_along(self.subject, self.game, row, self._pictures, tick)
        return units.along(self._engine, self.game, row, self._seed, self._pictures, tick)

    def _detectors(self, real: Unit, rebuilt: Unit) -> list[Detector]:
        """One of other real clips, and one of the game through the model's tokenizer, where that is 40 s or more."""
        detectors: list[Detector] = []
        try:
            detectors.append(Detector.of([x for name, x in real.arrays.items() if name.startswith("looks.")]))
        except DataError:
            self.game.notes.append("The recording is too short for the collapse detector (40 s): left out.")
            return detectors
        with suppress(DataError):
            detectors.append(Detector.of(list(rebuilt.arrays["looks"])))
        return detectors

    def _streamed(self) -> tables.Table:
        engine, place = self._engine, self.game
        num_frames = 4 * (engine.bundle.config.world.window + MORE_STEPS)
        actions = place.play_actions(0, num_frames)
        walk = place.walks[0]
        times = -(-(num_frames + 1) // len(walk.clip.frames))
        frames = np.concatenate([walk.clip.frames] * times)[: num_frames + 1]

        def make(tick: Tick) -> Unit:
            whole = {IMAGE: streaming_differences(engine, frames, actions)}
            whole[OWN] = streaming_differences(engine, frames, actions, place.scene, walk.poses[0])
            return Unit({"differences": whole})

        unit = self._get("streamed", 1, make)
        return tables.streamed(unit.facts["differences"], str(engine.dtype).removeprefix("torch."))

    def _speed(self) -> Unit:
        if self._bench is not None:
            return speed.read_bench(self._bench, self.subject)
        place = self.game
        actions = place.fit.actions(place.walks[0].clip.actions)

        def make(tick: Tick) -> Unit:
            return speed.run_speed(self._engine.open(scene=place.scene.scene), actions, self.size.speed_s)

        return self._get("speed", 1, make)

    def _notes(self) -> list[str]:
        if self.game.judge is not None:
            return self.game.notes
        return [
            *self.game.notes,
            "No inverse-dynamics model (--idm) of this game: obedience to recorded actions and picture features are "
            "left out. Train one with `reverie train idm`.",
        ]
