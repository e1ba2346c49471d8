"""`reverie evaluate --scene` from end to end, on a model of toy size in a yard, and its parts one by one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from tests.helpers.yard_walks import SIZE

from reverie.cli.evaluate import EvaluateConfig, evaluate
from reverie.errors import CheckpointError, DataError
from reverie.evaluate import run
from reverie.evaluate.scenes import tables, units
from reverie.evaluate.scenes.walks import IDLE_FRAMES, TURN_FRAMES, WALK_S, SceneSize
from reverie.types import FPS


def test_a_report_has_every_row_beside_the_memory_alone(finished: Path) -> None:
    game = json.loads((finished / "report.json").read_text())["games"]["walks"]
    rows = {name: table["rows"] for name, table in game["tables"].items()}
    every = {units.GAME, units.REBUILT, units.MEMORY, units.LED, units.OWN, units.IMAGE, units.STILL}
    assert set(rows["scene"]) == every
    assert set(rows["scene_returns"]) == {units.MEMORY, units.OWN, units.IMAGE, tables.BLURRED}
    assert set(rows["scene_play"]) == {units.MEMORY, units.OWN, units.IMAGE}
    assert set(rows["scene_streamed"]) == {units.OWN, units.IMAGE}
    assert set(rows["scene_detector"]) == set(units.RUINS)
    assert rows["speed"]["the dream"]["frames_per_s"] > 0
    likeness = rows["scene"]
    assert likeness[units.GAME]["sharp_4s"] == 1
    assert likeness[units.MEMORY]["psnr_db_4s"] > likeness[units.STILL]["psnr_db_4s"] + 2, "the memory knows the yard"
    assert likeness[units.LED]["psnr_db_4s"] < likeness[units.MEMORY]["psnr_db_4s"], "the tokenizer is untrained"
    assert max(max(row.values()) for row in rows["scene_streamed"].values()) < 1e-3
    assert len(game["curves"]["walk_psnr_db"][units.OWN]) == 4
    assert "covers" in " ".join(game["notes"])
    assert "4 s: later figures are left out" in " ".join(game["notes"])


def test_the_detector_finds_what_is_ruined_and_leaves_the_game_alone(finished: Path) -> None:
    rows = json.loads((finished / "report.json").read_text())["games"]["walks"]["tables"]["scene_detector"]["rows"]
    assert rows["as recorded"]["collapsed"] == 0
    for ruin in set(units.RUINS) - {"as recorded"}:
        assert rows[ruin]["collapsed"] == 1, ruin


def test_the_page_shows_the_game_the_memory_and_the_model_under_each_other(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    figure = page[page.index("<figure>") : page.index("One held-out walk")]
    named = re.findall(r"<b>([^<]+)</b>", figure)
    assert named[:5] == [units.GAME, units.MEMORY, units.LED, units.OWN, units.IMAGE]
    assert "PSNR along held-out walks" in page
    assert len(page) < 3e6


def test_stopped_it_goes_on_where_it_was(
    finished: Path, model: Path, walks: Path, scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run.SceneSize, "of", lambda quick, starts, long_s: SIZE)
    monkeypatch.setattr(units.SceneExperiment, "play_long", lambda *a: pytest.fail("it was there"))
    settings = {"model": str(model), "data": (walks,), "output": finished, "device": "cpu", "dtype": "float32"}
    before = json.loads((finished / "report.json").read_text())
    report = evaluate(EvaluateConfig(scene=(str(scene),), **settings))
    assert report["games"]["walks"]["tables"] == before["games"]["walks"]["tables"]
    with pytest.raises(DataError, match="holds another evaluation"):
        evaluate(EvaluateConfig(scene=(str(scene),), seed=1, **settings))


def test_a_model_without_a_memory_opens_no_scene(tiny_model: Path, walks: Path, scene: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has no spatial memory, so it opens no scenes"):
        evaluate(EvaluateConfig(model=str(tiny_model), data=(walks,), scene=(str(scene),), output=tmp_path / "r"))
    with pytest.raises(DataError, match="one scene for each --data, got 2 for 1"):
        EvaluateConfig(data=(walks,), scene=("a", "b"))


def test_the_distance_of_views_is_one_for_the_game_and_grows_with_haze() -> None:
    rng = np.random.default_rng(0)
    first, second, third = (rng.normal(size=(60, 5)) for _ in range(3))
    assert tables.relative_distance(third, first, second) == pytest.approx(1, abs=0.5)
    assert tables.relative_distance(third * 0.3 + 1, first, second) > 4
    few = tables.relative_distance(third[:12], first, second)
    assert few == tables.relative_distance(third[:12], first[:12], second[:12]), "as many on each side"


def num_blocks(size: SceneSize) -> int:
    """Blocks of sessions that the model generates, the memory alone and the tokenizer left out."""
    frames = 3 * size.walks * WALK_S[0] * FPS + 2 * size.turns * 2 * (IDLE_FRAMES + TURN_FRAMES)
    frames += 2 * FPS * (size.returns * 2 * size.out_s + size.plays * size.play_s)
    return frames // 4


def test_sizes_keep_their_promise_of_time() -> None:
    """At 9 blocks a core and second (nano, bfloat16, with a network): 11 and 5 minutes on two idle cores."""
    assert num_blocks(SceneSize.of(False)) / 18 < 11 * 60
    assert num_blocks(SceneSize.of(True)) / 18 < 5 * 60
    assert SceneSize.of(True, starts=2).plays == SceneSize.of(True, starts=2).walks == 2
    assert SceneSize.of(False, long_s=20).play_s == 20


def test_drift_is_that_of_the_worst_window() -> None:
    errors = np.full((2, 101), 10.0)
    worst = errors.copy()
    worst[:, 50:61] = 1000.0
    one, other = (tables._errors(x)["psnr_worst"] for x in (errors, worst))
    assert one == pytest.approx(tables.decibel(10.0))
    assert other == pytest.approx(tables.decibel(1000.0), abs=0.5)
