"""A whole recipe at tiny size: packs of a made-up room to a model that opens scenes and images and plays."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.helpers.made_up_packs import PRESET, SIZE, SPACE, Given
from tests.helpers.rendered_room import keyframes

from reverie.engine.engine import load
from reverie.errors import TrainError
from reverie.models import presets
from reverie.models.checkpoint import load_model
from reverie.scenes.scene import Scene, Start
from reverie.train import recipes
from reverie.train.recipes import new_bundle, run
from reverie.train.spatial.plans import (
    Recipe,
    RecordingPlan,
    cpu_hours,
    gpu_minutes,
    gpu_refining_minutes,
    rehearsal,
    tiny,
)
from reverie.train.spatial.task import SpatialPlan
from reverie.types import Action

RECIPE = Recipe(
    preset="tiny-memory",
    seconds=3600.0,
    depth_seconds=2.0,
    ego_seconds=3.0,
    tail_seconds=4.0,
    keyframes=12,
    plan=SpatialPlan(
        batch=2,
        clip_steps=4,
        own_sessions=2,
        own_steps=6,
        own_times=2,
        own_from=0.05,
        own_share=0.9,
        shortcut_from=0.0,
        shortcut_share=0.5,
        adversarial_from=0.6,
        adversarial_full=0.8,
    ),
    recording=RecordingPlan(seconds=1.0),
    steps=12,
    sheet_steps=5,
)


@pytest.mark.parametrize("has_amx", [False, True])
def test_every_line_of_a_recipe_runs_and_its_model_plays(
    given: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: None, has_amx: bool
) -> None:
    """In float32, and in bfloat16."""
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_amx)
    lines: list[str] = []
    figures = run(RECIPE, [given.packs], [given.held_out], given.tokenizer, tmp_path, "cpu", say=lines.append)
    said = "\n".join(lines)
    for stage in ("depth room", "ego-motion room", "view encoder", "views, scene", "own rollouts", "held out", "done"):
        assert stage in said, said
    assert (tmp_path / "sheet.jpg").is_file()
    assert set(figures) >= {"scene", "scene-own-camera", "image", "still", "frames"}
    assert all(np.isfinite(one["psnr"]).all() for one in figures["scene"])
    engine = load(tmp_path / "run/model", device="cpu", dtype="float32")
    assert engine.bundle.config.world == PRESET.world
    session = engine.open(np.full((*SIZE, 3), 90, np.uint8))
    assert session.step(Action(frozenset({"forward"}), (0.0, 2.0))).shape == (4, *SIZE, 3)
    room = keyframes(np.zeros((1, 6), np.float32), SIZE)
    picture = room.colour[0].permute(1, 2, 0).numpy()
    scene = Scene(
        name="room",
        title="room",
        game="test",
        fov_deg=90.0,
        pixel_aspect=1.0,
        keys=SPACE.keys,
        mouse=True,
        licence="CC0-1.0",
        starts=(Start("middle", picture, np.zeros(6, np.float32)),),
        colour=picture[None],
        depth=room.depth.numpy(),
        hidden=room.hidden.numpy(),
        pose=room.pose.numpy(),
    )
    inside = engine.open(scene=scene)
    assert np.isfinite(inside.step(Action()).astype(float)).all()
    assert inside.camera is not None


def test_a_budget_that_leaves_nothing_to_train_is_refused(
    given: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("train_depth_of", "train_ego_motion_of", "SpatialTask"):
        monkeypatch.setattr(recipes, name, lambda *_: None)
    monkeypatch.setattr(recipes, "standard_views", lambda *_: ([], {}, None))
    short = dataclasses.replace(RECIPE, seconds=6.0, steps=None, limit=1, max_frames=9)
    with pytest.raises(TrainError, match=r"a budget of 6 s leaves .* s for training; give more minutes"):
        run(short, [given.packs], [given.held_out], given.tokenizer, tmp_path, "cpu")
    assert "steps to train on" in (tmp_path / "log.txt").read_text()


def test_recipes_fit_their_budgets(given: Given) -> None:
    for recipe in (
        gpu_minutes(8),
        gpu_minutes(2),
        gpu_refining_minutes(5),
        cpu_hours(1.5),
        cpu_hours(12),
        rehearsal(2),
        tiny(),
    ):
        spent = recipe.depth_seconds + recipe.ego_seconds + recipe.tail_seconds + recipe.recording.seconds
        assert spent < 0.65 * recipe.seconds
        assert recipe.preset in presets.PRESETS
        assert recipe.plan.own_steps >= recipe.plan.clip_steps or not recipe.plan.own_share
    bundle = new_bundle(RECIPE, given.tokenizer)
    assert bundle.config.action_space == SPACE
    expected = load_model(given.tokenizer).tokenizer.state_dict()
    assert all(torch.equal(x, expected[name]) for name, x in bundle.tokenizer.state_dict().items())
