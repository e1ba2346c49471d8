"""A whole recipe at tiny size: packs of a made-up room to a model that opens scenes and images and plays."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.helpers.made_up_packs import SIZE, SPACE, write_pack
from tests.helpers.rendered_room import keyframes
from tests.helpers.small_model import save_untrained_model

from reverie.engine.engine import load
from reverie.errors import TrainError
from reverie.models import presets
from reverie.models.checkpoint import ModelBundle, ModelConfig, load_model
from reverie.models.schedule import Schedule
from reverie.models.tokenizer import VideoTokenizer
from reverie.scenes.scene import Scene, Start
from reverie.train import recipes
from reverie.train.recipes import new_bundle, run
from reverie.train.spatial import geometry
from reverie.train.spatial.geometry import check_depth, fit_view_encoder, train_depth
from reverie.train.spatial.plans import (
    Recipe,
    RecordingPlan,
    cpu_hours,
    gpu_minutes,
    gpu_refining_minutes,
    recipe_named,
    rehearsal,
    tiny,
)
from reverie.train.spatial.store import Store
from reverie.train.spatial.task import SpatialPlan
from reverie.train.spatial.views import ScenePool, ViewPlan, ViewSet, cut_sessions, with_previous
from reverie.types import Action

PRESET = presets.tiny_memory(SPACE)
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


@dataclass
class Given:
    packs: Path
    held_out: Path
    tokenizer: Path


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    folder = tmp_path_factory.mktemp("packs")
    save_untrained_model(folder / "tokenizer", SPACE)
    packs, held_out = write_pack(folder / "room", 4), write_pack(folder / "held" / "room", 1, seed=1)
    return Given(packs, held_out, folder / "tokenizer")


@pytest.fixture(scope="module")
def store(given: Given) -> Store:
    tokenizer = load_model(given.tokenizer).tokenizer
    assert isinstance(tokenizer, VideoTokenizer)
    return Store([given.packs], tokenizer, SPACE, torch.device("cpu"))


def test_a_store_holds_every_step_of_every_episode(store: Store) -> None:
    assert store.count == 4 * 11
    assert store.first == [0, 11, 22, 33, 44]
    assert store.z.shape == (44, *PRESET.world.latent)
    assert store.last.shape == (44, 3, *SIZE)
    assert store.actions[0].abs().max() == 0, "nothing leads to the first frame"
    assert store.actions[1:11, :, 0].max() == 1
    assert sorted(store.places) == ["room/room 0", "room/room 1"]
    assert len(store.key_step) == len(store.key_depth) == 4 * 6
    assert store.key_step[:6].tolist() == [0, 2, 4, 6, 8, 10]
    # motions are those of the poses, and none leads across episodes
    assert store.motion[[0, 11, 22, 33]].abs().max() == 0
    assert store.motion[1:11, :, 0].amax() == pytest.approx(0.06, abs=1e-3)


def test_a_whole_clip_is_encoded_as_it_is_streamed(store: Store, given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reverie.train.spatial.store.ENCODED_STEPS", 3)
    again = Store([given.packs], store.tokenizer, SPACE, torch.device("cpu"), group=1)
    torch.testing.assert_close(again.z, store.z, atol=5e-3, rtol=1e-2)
    torch.testing.assert_close(again.still, store.still, atol=5e-3, rtol=1e-2)
    assert (again.last.int() - store.last.int()).abs().max() <= 2
    assert torch.equal(again.views, store.views)


def test_the_depth_network_learns_the_room(store: Store, counted: None) -> None:
    memory = ModelBundle.new(load_model_config(store)).memory
    assert memory is not None
    torch.manual_seed(0)
    before = check_depth(memory.depth, store)["room"]["depth_error"]
    assert train_depth(memory.depth, store, 16.0, batch=1) == 15
    assert check_depth(memory.depth, store)["room"]["depth_error"] < before


def load_model_config(store: Store) -> ModelConfig:
    return ModelConfig(
        name="tiny",
        resolution=SIZE,
        schedule=Schedule((1.0,)),
        world=PRESET.world,
        tokenizer=store.tokenizer.config,
        image_encoder=PRESET.image_encoder,
        memory=PRESET.memory,
    )


def test_views_are_of_other_episodes_or_of_the_sessions_own_frames(store: Store) -> None:
    memory = ModelBundle.new(load_model_config(store)).memory
    assert memory is not None
    with torch.no_grad():
        assert memory.depth.out.bias is not None
        memory.depth.out.bias[1] = -9.0  # an untrained network must not take everything for the player's body
    store.measure_depth(memory.depth.eval())
    assert fit_view_encoder(memory.view_encoder, store) < 1
    pool = ScenePool(store, per_place=5)
    assert len(pool.keyframes) == 10
    candidates = pool.candidates(["room/room 0", "room/room 1", "elsewhere"], torch.tensor([0, 1, 0]))
    for row, (place, episode) in enumerate((("room/room 0", 0), ("room/room 1", 1))):
        taken = candidates.members[row][candidates.usable[row]].tolist()
        assert {pool.place[i] for i in taken} <= {place}
        assert episode not in {int(pool.episode[i]) for i in taken}
    assert not candidates.usable[2].any()
    whole = ViewSet(store, memory, pool, ViewPlan(scene=1.0, own=True, spoil=False, whole=True))
    assert not whole.drawn[[0, 11, 22, 33]].any(), "a session's first step is given"
    assert whole.cover[whole.drawn].mean() > 0.02
    alone = ViewSet(store, memory, pool, ViewPlan(scene=0.0, own=True, spoil=False, whole=True))
    assert alone.drawn[1:11].all(), "own frames show something, from the second step on"
    assert torch.isfinite(whole.parts).all()
    context = store.z[:11].float()[None]
    parts = with_previous(whole.parts[None, :11], whole.drawn[None, :11], context)
    assert parts.channels.shape == (1, 11, PRESET.world.cond_channels, *PRESET.world.latent[1:])
    assert parts.channels[:, 0].abs().max() == 0
    c = PRESET.world.latent[0]
    torch.testing.assert_close(parts.channels[:, 1:, 4 + c : 4 + 2 * c], context[:, :-1])


def test_sessions_are_cut_within_episodes(store: Store) -> None:
    start = cut_sessions(store, np.random.default_rng(0), whole=False)
    assert (store.episode[start] == store.episode).all()
    assert (start <= np.arange(store.count)).all()
    assert (cut_sessions(store, np.random.default_rng(0), whole=True) == 11 * store.episode).all()


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Geometry's clock goes on by a second an update: as many updates on every machine."""
    seconds = itertools.count()
    monkeypatch.setattr(geometry, "time", SimpleNamespace(monotonic=lambda: float(next(seconds))))


def test_every_line_of_a_recipe_runs_and_its_model_plays(
    given: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: None
) -> None:
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


def test_recipes_are_named_by_their_budgets() -> None:
    assert recipe_named("cpu-12h") == cpu_hours(12)
    assert recipe_named("cpu-90min") == cpu_hours(1.5)
    assert recipe_named("gpu-10min", memory_gib=24, cores=8) == gpu_minutes(10, 24, 8)
    assert recipe_named("gpu-10min", refine=True, cores=4) == gpu_refining_minutes(10, cores=4)
    batches = [gpu_minutes(10, memory).plan.batch for memory in (16, 24, 80)]
    assert batches == sorted(set(batches))
    for name in ("cpu", "gpu-0min", "tpu-3h", "gpu-10", ""):
        with pytest.raises(TrainError, match=r"unknown recipe .* expected cpu-12h, gpu-10min"):
            recipe_named(name)
