"""Every training task, at the size of tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.helpers.distillation import common, students_turn
from tests.helpers.latent_clips import clips, task
from tests.helpers.made_up_looks import SPACE as IDM_SPACE
from tests.helpers.made_up_looks import made_up
from tests.helpers.made_up_rewards import reward_config, rewarded_steps
from tests.helpers.moving_waves import make_clips, make_config

from reverie.models.checkpoint import ModelBundle, load_model
from reverie.models.idm import IDMConfig, InverseDynamics
from reverie.models.reward import RewardNet
from reverie.models.tokenizer import VideoTokenizer, tiny
from reverie.train.distill_decoder import DecoderTask, DistillDecoderConfig
from reverie.train.distill_dmd import DistillDmdConfig, DmdTask
from reverie.train.distill_init import DistillInitConfig, InitTask
from reverie.train.idm import IdmTask, TrainIdmConfig
from reverie.train.reward import RewardTask, TrainRewardConfig
from reverie.train.task import Task
from reverie.train.tokenizer import TokenizerTask


def teacher(folder: Path) -> ModelBundle:
    """An untrained one."""
    task(folder / "teacher").export(folder / "teacher", {})
    return load_model(folder / "teacher/model")


def world(folder: Path) -> Task:
    return task(folder, self_context=1.0, self_context_from=0.0, self_context_rounds=1, action_dropout=0.5)


def init(folder: Path, method: str) -> Task:
    config = DistillInitConfig(**common(folder), method=method, teacher_steps=3)  # type: ignore[arg-type]
    return InitTask(config, teacher(folder), clips(), clips(seed=1))


def dmd(folder: Path, is_students: bool) -> Task:
    config = DistillDmdConfig(**common(folder), rollout_blocks=3, critic_first=0.0)  # type: ignore[arg-type]
    made = DmdTask(config, teacher(folder), clips(), clips(seed=1))
    students_turn(made)
    if not is_students:
        made.progress = -1.0
    return made


def decoder(folder: Path) -> Task:
    config = DistillDecoderConfig(
        teacher=folder, data=(folder,), output=folder, coarse=8, middle=8, fine=8, crop=(16, 32), clip_frames=5
    )
    return DecoderTask(config, teacher(folder), make_clips(2), make_clips(1))


def idm(folder: Path) -> Task:
    model = InverseDynamics(IDMConfig(action_space=IDM_SPACE, width=32, layers=2))
    config = TrainIdmConfig(data=folder, output=folder, batch=4, clip_frames=25)
    return IdmTask(model, config, made_up(8, 0), made_up(4, 1))


def reward(folder: Path) -> Task:
    steps = rewarded_steps(40, 0)
    config = TrainRewardConfig(data=folder, tokenizer=folder, output=folder, batch=4)
    return RewardTask(RewardNet(reward_config(steps)), config, steps, rewarded_steps(10, 1))


TASKS: dict[str, Callable[[Path], Task]] = {
    "world": world,
    "init-ode": lambda folder: init(folder, "ode"),
    "init-consistency": lambda folder: init(folder, "consistency"),
    "dmd-student": lambda folder: dmd(folder, True),
    "dmd-critic": lambda folder: dmd(folder, False),
    "tokenizer": lambda folder: TokenizerTask(
        VideoTokenizer(tiny()), make_config(folder), make_clips(2), make_clips(1)
    ),
    "decoder": decoder,
    "idm": idm,
    "reward": reward,
}
