"""One batched engine as a vector environment, beside the single environment in Gymnasium's own vector environments."""

from __future__ import annotations

import json
import pickle
import sys
import types
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import RecordVideo
from gymnasium.wrappers.vector import RecordVideo as RecordVectorVideo
from tests.helpers.counting_world import CountingWorld

import reverie.env
from reverie.bench.players import random_engine
from reverie.env import DreamEnv, Step, to_action
from reverie.env_vector import DreamVectorEnv
from reverie.errors import ActionError, CheckpointError, WorldError
from reverie.models.checkpoint import save_trained
from reverie.models.reward import RewardConfig, RewardNet, load_reward, tokenizer_fingerprint


def brightness(step: Step) -> float:
    return float(step.frames[-1].mean())


def is_third(step: Step) -> bool:
    return step.num_steps == 3


@pytest.fixture
def options(model_folder, picture) -> dict[str, Any]:
    return {"model": str(model_folder), "image": picture, "device": "cpu", "dtype": "float32"}


def make_vec(options: dict[str, Any], **kwargs: Any) -> Any:
    assert reverie.env  # importing it registers
    return gymnasium.make_vec("Reverie/Dream-v0", **options, **kwargs)


def walk(num_envs: int, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "keys": random.integers(0, 2, (num_envs, 4)).astype(np.int8),
        "mouse": random.uniform(-5, 5, (num_envs, 2)).astype(np.float32),
    }


def assert_close(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert ours.shape == theirs.shape
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 2  # as in sessions/test_batch.py


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_is_as_gymnasiums_own_vector_environment(options, mode) -> None:
    """Observations, rewards, ends, infos and new episodes, step for step, in every mode of new episodes."""
    hooks = {"reward": brightness, "terminated": is_third, "max_steps": 5}
    ours = make_vec(options, num_envs=3, autoreset_mode=mode, **hooks)
    make = partial(DreamEnv, **options, **hooks)
    theirs = SyncVectorEnv([make] * 3, autoreset_mode=mode)
    assert isinstance(ours, DreamVectorEnv)
    assert ours.metadata["autoreset_mode"] is mode
    for space in ("observation_space", "action_space", "single_observation_space", "single_action_space"):
        assert getattr(ours, space) == getattr(theirs, space)
    assert_close(ours.reset(seed=[4, 5, 9])[0], theirs.reset(seed=[4, 5, 9])[0])
    for number in range(8):
        mine, yours = (envs.step(walk(3, number)) for envs in (ours, theirs))
        assert_close(mine[0], yours[0])
        assert np.allclose(mine[1], yours[1], atol=2)
        assert np.array_equal(mine[2], yours[2])
        assert np.array_equal(mine[3], yours[3])
        assert mine[4].keys() == yours[4].keys()
        if "frames" in mine[4]:
            assert_close(mine[4]["frames"], yours[4]["frames"])
        if "final_obs" in mine[4]:
            assert_close(np.stack(mine[4]["final_obs"]), np.stack(yours[4]["final_obs"]))
        if mode is AutoresetMode.DISABLED and mine[2].any():
            with pytest.raises(WorldError, match="have ended; reset them first"):
                ours.step(walk(3))
            mask = np.array([True, True, True])
            first = ours.reset(options={"reset_mask": mask.copy()})[0]
            assert_close(first, theirs.reset(options={"reset_mask": mask.copy()})[0])
    ours.close()
    theirs.close()


def test_episodes_that_end_at_different_times(options) -> None:
    """One environment begins again while the others go on."""
    envs = make_vec(options, num_envs=2, terminated=lambda step: bool(step.action["keys"][0]))
    envs.reset(seed=3)
    idle = {"keys": np.zeros((2, 4), np.int8), "mouse": np.zeros((2, 2), np.float32)}
    end = {"keys": np.array([[1, 0, 0, 0], [0, 0, 0, 0]], np.int8), "mouse": np.zeros((2, 2), np.float32)}
    *_, terminated, _, infos = envs.step(end)
    assert terminated.tolist() == [True, False]
    assert infos["_frames"].tolist() == [True, True]
    before = envs.step(idle)
    assert before[2].tolist() == [False, False]
    assert before[4]["_frames"].tolist() == [True, True]
    frames = before[4]["frames"]
    assert np.array_equal(frames[0], frames[0, :1].repeat(4, 0)), "the first only began again"
    assert not np.array_equal(frames[1], frames[1, :1].repeat(4, 0))


def test_async_environments_play(options) -> None:
    envs = make_vec(options, num_envs=2, vectorization_mode="async", vector_kwargs={"context": "spawn"}, max_steps=2)
    ours = make_vec(options, num_envs=2, max_steps=2)
    try:
        assert_close(ours.reset(seed=1)[0], envs.reset(seed=1)[0])
        for number in range(4):  # a new episode among them
            mine, theirs = ours.step(walk(2, number)), envs.step(walk(2, number))
            assert_close(mine[0], theirs[0])
            assert np.array_equal(mine[3], theirs[3])
    finally:
        envs.close()


@pytest.mark.filterwarnings("ignore:.*symmetric and normalized")  # our turns are in degrees, on purpose
@pytest.mark.filterwarnings("ignore:.*Not able to test alternative render modes")
def test_a_dream_passes_gymnasiums_checker(options) -> None:
    check_env(DreamEnv(**options, render_mode="rgb_array", reward=brightness, terminated=is_third))


class FilmReel:
    """Takes moviepy's place, which is not among our packages: what RecordVideo would write, and at which rate."""

    films: ClassVar[list[tuple[int, float]]] = []

    def __init__(self, frames: list[np.ndarray], fps: float) -> None:
        self.films.append((len(frames), fps))

    def write_videofile(self, *args: Any, **kwargs: Any) -> None:
        """Writes nothing."""


@pytest.mark.parametrize("num_envs", [None, 2])
def test_record_video_lasts_as_long_as_the_play(options, tmp_path, monkeypatch, num_envs) -> None:
    names = ("moviepy", "moviepy.video", "moviepy.video.io", "moviepy.video.io.ImageSequenceClip")
    for name in names:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setattr(sys.modules[names[-1]], "ImageSequenceClip", FilmReel, raising=False)
    monkeypatch.setattr(FilmReel, "films", [])
    kwargs: dict[str, Any] = {"step_trigger": lambda step: step == 0, "video_length": 6}
    if num_envs is None:
        envs: Any = RecordVideo(DreamEnv(**options, render_mode="rgb_array"), str(tmp_path / "videos"), **kwargs)
    else:
        many = make_vec(options, num_envs=num_envs, render_mode="rgb_array")
        envs = RecordVectorVideo(many, str(tmp_path / "videos"), **kwargs)
    envs.reset(seed=1)
    num_frames = 0
    for _ in range(8):
        *_, infos = envs.step(envs.action_space.sample())
        num_frames += infos["frames"].shape[-4]
    envs.close()
    (pictures, rate), *_ = FilmReel.films
    assert pictures >= 6
    assert pictures / rate == pytest.approx(pictures * (num_frames / 8) / 25), "a picture a step, for a block's time"


@pytest.mark.parametrize("kind", [DreamEnv, partial(DreamVectorEnv, 2)])
def test_a_pickled_environment_is_made_anew(options, kind) -> None:
    env = kind(**options, reward=brightness)
    twin = pickle.loads(pickle.dumps(env))
    action = env.action_space.sample()
    assert np.array_equal(env.reset(seed=2)[0], twin.reset(seed=2)[0])
    for mine, theirs in zip(env.step(action)[:2], twin.step(action)[:2], strict=True):
        assert np.array_equal(mine, theirs)


def test_per_frame_actions(options) -> None:
    ours = make_vec(options, num_envs=2, per_frame=True)
    single = DreamEnv(**options, per_frame=True)
    ours.reset(seed=[7, 8])
    single.reset(seed=8)
    actions = ours.action_space.sample()
    assert_close(ours.step(actions)[0][1], single.step({name: rows[1] for name, rows in actions.items()})[0])


def test_a_dream_that_is_not_finite_is_truncated_and_begins_again(options) -> None:
    envs = make_vec(options, num_envs=2)
    envs.reset(seed=1)
    envs.step(walk(2))
    with torch.inference_mode():
        envs._batch.sessions[1].state["world"].last.fill_(float("nan"))
    _, _, terminated, truncated, infos = envs.step(walk(2))
    assert (terminated.tolist(), truncated.tolist()) == ([False, False], [False, True])
    assert "no longer finite" in infos["error"][1]
    assert infos["_error"].tolist() == [False, True]
    envs.step(walk(2))
    *_, truncated, infos = envs.step(walk(2))
    assert not truncated.any()
    assert infos["_frames"].all()


def test_bad_input(options, engine, picture) -> None:
    with pytest.raises(ValueError, match="num_envs must be at least 1, got 0"):
        DreamVectorEnv(0, engine=engine, image=picture)
    with pytest.raises(ValueError, match="render_mode"):
        DreamVectorEnv(1, engine=engine, image=picture, render_mode="human")
    envs = DreamVectorEnv(2, engine=engine, image=picture)
    with pytest.raises(ValueError, match="one for each of 2"):
        envs.reset(seed=[1])
    with pytest.raises(ValueError, match="at least one True"):
        envs.reset(options={"reset_mask": np.zeros(2, np.bool_)})
    first, _ = envs.reset(seed=1)
    with pytest.raises(ActionError):
        envs.step({"keys": np.zeros((2, 4), np.int8), "mouse": np.full((2, 2), 999.0)})
    assert envs._num_steps.tolist() == [0, 0]
    other, _ = envs.reset(seed=1, options={"image": picture[::-1].copy()})
    assert not np.array_equal(first, other)


def test_hooks_see_the_camera_before_and_after() -> None:
    """Of a game as of a dream: what the reward of a walk is made of."""
    steps: list[Step] = []

    class Walk(CountingWorld):
        pose = np.zeros(6, np.float32)

        def step(self, action: Any) -> Any:
            self.pose = self.pose + np.float32(1)
            return super().step(action)

    def keep(step: Step) -> float:
        steps.append(step)
        return 0.0

    env = DreamEnv(Walk(), reward=keep)
    env.reset(seed=0)
    for _ in range(2):
        env.step(env.action_space.sample())
    assert [(step.before[0], step.camera[0]) for step in steps] == [(0, 1), (1, 2)]  # type: ignore[index]


def test_a_dreams_camera_moves_between_the_two() -> None:
    """The pose before a block is not overwritten by the block."""
    engine = random_engine("tiny-memory", "cpu", "float32")
    moved: list[float] = []

    def keep(step: Step) -> float:
        assert step.before is not None
        assert step.camera is not None
        moved.append(float(np.abs(step.camera - step.before).max()))
        return 0.0

    picture = np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    envs = DreamVectorEnv(2, engine=engine, image=picture, reward=keep)
    envs.reset(seed=0)
    envs.step(walk(2))
    assert min(moved) > 0


@pytest.fixture
def learned(engine, tmp_path) -> Path:
    """A made-up reward of the model's latents."""
    torch.manual_seed(0)
    world = engine.bundle.config.world
    config = RewardConfig(
        latent=world.latent, resolution=engine.resolution, tokenizer=tokenizer_fingerprint(engine.bundle.tokenizer),
        mean=0.3, scale=2.0, has_ends=True,
    )  # fmt: skip
    net = RewardNet(config)
    torch.nn.init.normal_(net.head.weight)
    save_trained(tmp_path / "reward", "reward", net, {})
    return tmp_path / "reward"


def test_a_learned_reward_judges_the_latents(options, engine, picture, learned) -> None:
    """In the single environment and in the vector environment alike, by the latents of the session itself."""
    single = DreamEnv(**options, reward=str(learned))
    envs = make_vec(options, num_envs=2, reward=learned)
    seed = int(np.random.default_rng(5).integers(100))
    single.reset(seed=seed)
    envs.reset(seed=seed)
    session = engine.open(picture, seed=single.unwrapped._world.seed)
    net = load_reward(learned)[0].eval()
    seen = []
    for number in range(4):
        action = {name: values[0] for name, values in walk(2, number).items()}
        before = session.last_latent
        session.step(to_action(action, engine.action_space))
        with torch.inference_mode():
            reward, end = net.rewards(torch.cat([before, session.latents[0]])[:-1], session.latents[0])
        _, value, terminated, _, _ = single.step(action)
        assert (value, terminated) == (pytest.approx(float(reward.sum()), rel=1e-4), bool((end > 0.5).any()))
        _, values, ended, _, _ = envs.step(walk(2, number))
        if not any(seen):
            assert values[0] == pytest.approx(value, rel=1e-2)
            assert bool(ended[0]) == terminated
        seen.append(terminated)
    single.close()
    envs.close()


def test_a_learned_reward_that_does_not_fit(options, learned, tmp_path) -> None:
    with pytest.raises(CheckpointError, match="train one first"):
        DreamEnv(**options, reward=str(tmp_path / "nothing"))
    with pytest.raises(WorldError, match="judges dreams, and this world is none"):
        DreamEnv(CountingWorld(), reward=learned)
    config = json.loads((learned / "config.json").read_text())
    config["reward"]["tokenizer"] = "0" * 16
    (learned / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="latents of the tokenizer 0000000000000000"):
        make_vec(options, num_envs=2, reward=learned)
