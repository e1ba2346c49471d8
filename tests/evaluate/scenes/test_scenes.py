"""`reverie evaluate --scene` from end to end, on a model of toy size in a yard, and its parts one by one."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.helpers.yard_scene import YardWorld, record_yard, save_yard_scene

from reverie.cli import main
from reverie.cli.evaluate import EvaluateConfig, evaluate
from reverie.data.dataset import Dataset
from reverie.data.depth import DepthRecord
from reverie.data.video import write_video
from reverie.data.writer import DatasetWriter, picture_statistics
from reverie.engine.engine import Engine, load
from reverie.errors import CheckpointError, DataError
from reverie.evaluate import run
from reverie.evaluate.action_mapping import match_actions
from reverie.evaluate.display import Silent
from reverie.evaluate.experiment import Experiment
from reverie.evaluate.model_under_test import ModelUnderTest
from reverie.evaluate.scenes import tables, units
from reverie.evaluate.scenes.batch import Batch, shrink
from reverie.evaluate.scenes.streamed import MORE_STEPS, streaming_differences
from reverie.evaluate.scenes.walks import IDLE_FRAMES, TURN_FRAMES, WALK_S, Place, SceneSize, Walk, pick_place
from reverie.evaluate.store import Store
from reverie.models.checkpoint import ModelBundle, ModelConfig, save_model
from reverie.models.presets import tiny_memory
from reverie.sampling import Schedule
from reverie.scenes.recordings import is_held_out, read_footage
from reverie.scenes.scene import Scene
from reverie.types import FPS, POSE_NAMES, Action, ActionSpace
from reverie.worlds.yard import FOV_DEG

RESOLUTION = (64, 112)
KEYS = ("forward", "back", "left", "right")
SIZE = SceneSize(walks=2, turns=3, returns=1, out_s=1, plays=2, play_s=6, real=12, speed_s=0)
WALKS = 105
"""Frames of a walk: a little more than the shortest that is taken."""


def record_walks(root: Path, heldout: tuple[int, ...], poses: bool = True, episodes: int = 13) -> Path:
    """Walks through the yard that turn now and then."""
    world, space = YardWorld(), ActionSpace(KEYS)
    notes = {"world": "yard", "fov_deg": FOV_DEG, "pixel_aspect": 1.0}
    options = {"pose_names": POSE_NAMES if poses else (), "notes": notes, "depth_every": 4}
    with DatasetWriter(root, space, RESOLUTION, 25, **options) as writer:
        for seed in range(episodes):
            rng = np.random.default_rng(seed)
            shown, actions, cameras, depth = [world.reset(seed)[0]], [], [], []
            for i in range(WALKS):
                yaw = 4.0 * ((i // 20 + seed) % 3 - 1)
                actions.append(Action(frozenset({KEYS[int(rng.integers(2))]}), mouse=(0.0, yaw)))
                cameras.append(world.pose)
                if i % 4 == 0:
                    depth.append(DepthRecord.of(i, world.geometry()))
                shown.append(world.step(actions[-1])[0])
            frames = np.stack(shown[:-1])
            video = writer.partial / f"{seed}.mp4"
            write_video(video, frames, 25)
            meta = {"seed": seed, "map": "yard", "heldout": seed in heldout}
            rows = np.stack(cameras) if poses else None
            writer.add(video, space.encode(actions), rows, picture_statistics(frames), meta, depth)
    return root


def poses_of(dataset: Dataset, episode: int) -> np.ndarray:
    poses = dataset.poses(episode)
    assert poses is not None
    return poses


@pytest.fixture(scope="module")
def walks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record_walks(tmp_path_factory.mktemp("data") / "walks", heldout=(3, 8))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "yard"
    save_yard_scene(folder, RESOLUTION, KEYS)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model whose network changes what the memory shows a little."""
    torch.manual_seed(0)
    preset = tiny_memory()
    world = dataclasses.replace(preset.world, latent=(16, 8, 14))
    bundle = ModelBundle.new(
        ModelConfig(
            name="toy",
            resolution=RESOLUTION,
            schedule=Schedule((1.0,), context_sigma=0.05),
            world=world,
            tokenizer=preset.tokenizer,
            image_encoder=preset.image_encoder,
            memory=preset.memory,
        )
    )
    with torch.no_grad():
        for parameter in bundle.model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape)
    folder = tmp_path_factory.mktemp("model") / "toy"
    save_model(folder, bundle)
    return folder


@pytest.fixture(scope="module")
def engine(model: Path) -> Engine:
    return load(model, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def place(engine: Engine, walks: Path, scene: Path) -> Place:
    dataset = Dataset(walks)
    mapping = match_actions(engine.action_space, dataset.action_space)
    return pick_place("yard", dataset, engine.load_scene(scene), engine, mapping, None, SIZE, seed=0)


@pytest.fixture(scope="module")
def finished(model: Path, walks: Path, scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run.SceneSize, "of", lambda quick, starts, long_s: SIZE)
        folder = tmp_path_factory.mktemp("report") / "toy"
        options = ["--data", str(walks), "--scene", str(scene), "-o", str(folder), "--dtype", "float32"]
        assert main(["evaluate", str(model), *options, "--device", "cpu"]) == 0
    return folder


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


@pytest.mark.parametrize("in_scene", [True, False])
def test_a_batch_of_one_is_a_session_to_a_rounding(engine: Engine, place: Place, scene: Path, in_scene: bool) -> None:
    loaded = Scene.load(scene)
    start = loaded.start(1)
    session = engine.open(scene=loaded, start=1, seed=5) if in_scene else engine.open(start.image, seed=5)
    there = {"scene": place.scene, "poses": start.pose[None]} if in_scene else {}
    batch = Batch(engine, start.image[None], 5, **there)
    actions = [Action(frozenset({"forward"}), (0.0, 2.0))] * 8 + [Action(frozenset({"left"}))] * 4
    played = batch.play([actions])
    assert np.array_equal(played.frames[0, :1], session.first_frame)
    own = np.concatenate([session.step(actions[i : i + 4]) for i in range(0, 12, 4)])
    assert np.abs(played.frames[0, 1:].astype(int) - own).max() <= 1
    assert session.camera is not None
    assert np.array_equal(played.poses[0, -1], session.camera)


def open_batch(engine: Engine, place: Place, walks: list[Walk], row: str) -> Batch:
    model = ModelUnderTest(engine.name, engine.fingerprint, engine)
    store, folder, display = Store.__new__(Store), Path(), Silent()
    experiment = Experiment(name="yard", model=model, store=store, folder=folder, display=display)
    return units.SceneExperiment(experiment, place, SIZE).open(walks, row)


def test_a_led_camera_goes_where_it_is_led(engine: Engine, place: Place) -> None:
    walk = place.walks[0]
    batch = open_batch(engine, place, [walk], units.LED)
    played = batch.play([place.mapping.map_rows(walk.clip.actions[:10])], walk.poses[None, 1:11])
    assert played.frames.shape == (1, 11, *RESOLUTION, 3)
    assert np.array_equal(played.poses[0], walk.poses[:11])


def test_the_memory_alone_shows_the_scene_and_nothing_else(engine: Engine, place: Place) -> None:
    """Where a keyframe was taken the view is that keyframe, however long one has walked before."""
    scene = place.scene.scene
    batch = open_batch(engine, place, place.walks[:1], units.MEMORY)
    path = np.repeat(scene.pose[None, [3, 7]], 4, 1)
    frames = batch.play([[Action()] * 8], path, first=False).frames[0]
    for shown, keyframe in ((frames[3], scene.colour[3]), (frames[7], scene.colour[7])):
        error = np.square(shown.astype(np.float32) - shrink(keyframe[None])[0]).mean()
        assert tables.decibel(error) > 30


def test_streamed_equals_whole_past_the_window_and_a_broken_law_is_seen(
    engine: Engine, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk = place.walks[0]
    steps = engine.bundle.config.world.window + MORE_STEPS
    actions = place.play_actions(0, 4 * steps)
    frames = np.concatenate([walk.clip.frames] * 2)[: 4 * steps + 1]
    found = streaming_differences(engine, frames, actions, place.scene, walk.poses[0])
    assert max(found.values()) < 1e-3
    true = engine.bundle.model.forward
    monkeypatch.setattr(engine.bundle.model, "forward", lambda x, *a, **k: true(x, *a, **k) + 0.1 * (x.shape[1] == 1))
    assert streaming_differences(engine, frames, actions)["network"] > 0.05


def test_walks_start_at_the_first_frame_of_held_out_episodes(place: Place, walks: Path) -> None:
    assert [walk.label for walk in place.walks] == ["episode 3", "episode 8"]
    dataset = Dataset(walks)
    assert np.array_equal(place.walks[1].poses, poses_of(dataset, 8)[:101])
    assert len(place.real) == 11, "the other episodes say what the game looks like"


def test_a_scene_holds_out_the_episodes_that_evaluation_takes(tmp_path: Path) -> None:
    dataset = Dataset(record_yard(tmp_path / "unmarked", episodes=9, frames=33))
    assert [i for i in range(9) if is_held_out(dataset, i)] == [7]
    footage = read_footage([dataset.path])
    own = {pose.tobytes() for pose in poses_of(dataset, 7)}
    assert {pose.numpy().tobytes() for pose in footage.held_out.pose} <= own
    assert not {pose.numpy().tobytes() for pose in footage.frames.pose} & own


def test_the_nearest_recorded_views_are_of_the_half_that_was_asked(place: Place) -> None:
    library = place.library
    pose = library.poses[(library.episode == 5) & (library.frame == 40)]
    exact = shrink(library.dataset.clip(5, 40, 1, depth=False).frames)
    assert np.array_equal(library.nearest(pose, 1), exact)
    assert not np.array_equal(library.nearest(pose, 0), exact)
    alone = library.episode == 5
    one = dataclasses.replace(
        library, poses=library.poses[alone], episode=library.episode[alone], frame=library.frame[alone]
    )
    assert np.array_equal(one.nearest(pose, 0), exact), "of one episode the halves follow each other"
    assert not np.array_equal(one.nearest(pose, 1), exact)


def pick(engine: Engine, dataset: Path, scene: Path) -> Place:
    opened = Dataset(dataset)
    mapping = match_actions(engine.action_space, opened.action_space)
    return pick_place("yard", opened, engine.load_scene(scene), engine, mapping, None, SIZE, 0)


def test_recordings_without_poses_are_refused(engine: Engine, scene: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no camera poses"):
        pick(engine, record_walks(tmp_path / "blind", (0,), poses=False, episodes=1), scene)


def test_a_scene_of_another_place_or_camera_is_refused(
    engine: Engine, walks: Path, scene: Path, tmp_path: Path
) -> None:
    yard = Scene.load(scene)
    away = yard.pose + np.array([500, 0, 0, 0, 0, 0], np.float32)
    depth = np.full_like(yard.depth, 2.0)
    dataclasses.replace(yard, pose=away, depth=depth).save(tmp_path / "away")
    with pytest.raises(DataError, match=r"covers \d+% of the best held-out start .*, expected 50% or more"):
        pick(engine, walks, tmp_path / "away")
    dataclasses.replace(yard, fov_deg=60.0).save(tmp_path / "narrow")
    with pytest.raises(DataError, match=r"its camera sees 80 degrees .*, that of the scene narrow 60"):
        pick(engine, walks, tmp_path / "narrow")


def test_a_scene_made_of_the_held_out_walks_is_refused(
    engine: Engine, walks: Path, scene: Path, tmp_path: Path
) -> None:
    yard, dataset = Scene.load(scene), Dataset(walks)
    pose = yard.pose.copy()
    pose[0] = poses_of(dataset, 3)[50]
    dataclasses.replace(yard, pose=pose).save(tmp_path / "one")
    found = pick(engine, walks, tmp_path / "one")
    assert [walk.label for walk in found.walks] == ["episode 8"]
    assert "1 held-out episodes have frames in the scene" in " ".join(found.notes)
    pose[1] = poses_of(dataset, 8)[10]
    dataclasses.replace(yard, pose=pose).save(tmp_path / "both")
    with pytest.raises(DataError, match="was built from every held-out episode"):
        pick(engine, walks, tmp_path / "both")


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
