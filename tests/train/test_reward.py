"""A learned reward: steps get what was recorded for them, what can be learnt is learnt, wrong data is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tests.helpers.made_up_rewards import SIZE, reward_config, rewarded_steps

from reverie import cli
from reverie.data.dataset import Dataset
from reverie.data.rewards import DONE, REWARD, read_rewards, write_rewards
from reverie.data.video import write_video
from reverie.data.writer import DatasetWriter, picture_statistics
from reverie.errors import CheckpointError, DataError, TrainError
from reverie.models.checkpoint import save_trained
from reverie.models.reward import LearnedReward, RewardNet, load_reward, tokenizer_fingerprint
from reverie.models.tokenizer import VideoTokenizer, tiny
from reverie.train.config import TrainerConfig
from reverie.train.encode import LatentClips
from reverie.train.reward import RewardTask, TrainRewardConfig, load_steps, split_steps
from reverie.train.trainer import Trainer
from reverie.types import ActionSpace, Clip

SPACE = ActionSpace(("forward",))


def save_recording(root: Path, lengths: tuple[int, ...] = (21, 9, 14), size: tuple[int, int] = SIZE) -> Path:
    """Episodes of these numbers of frames, each frame of a grey of its own."""
    with DatasetWriter(root, SPACE, size, 25) as writer:
        for number, length in enumerate(lengths):
            frames = (
                np.full((length, *size, 3), 40 + number, np.uint8)
                + np.arange(length, dtype=np.uint8)[:, None, None, None]
            )
            video = writer.partial / f"{number}.mp4"
            write_video(video, frames, 25)
            writer.add(video, np.zeros((length, SPACE.size), np.float32), None, picture_statistics(frames), {})
    return root


def by_number(clip: Clip) -> tuple[np.ndarray, np.ndarray]:
    """Frame i + 1 is worth i, and the last one ends the episode."""
    number = np.arange(len(clip.actions), dtype=np.float32)
    return number, number == len(number) - 1


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    root = save_recording(tmp_path / "rec")
    write_rewards(root, by_number)
    return root


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    (tmp_path / "tokenizer").mkdir()
    save_trained(tmp_path / "tokenizer", "tokenizer", VideoTokenizer(tiny()), {})
    return tmp_path / "tokenizer"


def test_it_learns_what_latents_show(tmp_path: Path) -> None:
    steps, held_out = rewarded_steps(2000, 0), rewarded_steps(200, 1)
    options = TrainRewardConfig(data=tmp_path, tokenizer=tmp_path, output=tmp_path, batch=64)
    task = RewardTask(RewardNet(reward_config(steps)), options, steps, held_out)
    with torch.inference_mode():
        before = task.validate()
    assert before["reward.mse"] == pytest.approx(before["reward.constant_mse"], rel=1e-4)
    assert abs(before["reward.explained"]) < 1e-3
    trainer = TrainerConfig(folder=tmp_path / "run", steps=120, lr=4e-3, ema=0.9, warmup_steps=5, track="none")
    figures = Trainer(task, trainer).run()
    assert figures["reward.explained"] > 0.6
    assert figures["reward.constant_mse"] == pytest.approx(before["reward.constant_mse"])
    assert figures["end.cross_entropy"] < 0.8 * figures["end.constant_cross_entropy"]
    again, kept = load_reward(tmp_path / "run")
    assert kept["reward.mse"] == pytest.approx(figures["reward.mse"], abs=1e-4)
    assert again.config == task.net.config


def test_a_step_has_the_rewards_that_lead_to_its_frames(recording: Path, tokenizer: Path, tmp_path: Path) -> None:
    from reverie.train.tokenizer import read_tokenizer

    options = TrainRewardConfig(data=recording, tokenizer=tokenizer, output=tmp_path / "run", device="cpu")
    steps = load_steps(recording, options, read_tokenizer(tokenizer), tmp_path / "latents")
    clips = LatentClips(
        **{name: np.load(tmp_path / "latents" / f"{name}.npy") for name in LatentClips.FIELDS}, action_space=SPACE
    )
    assert sorted(np.unique(steps.episode, return_counts=True)[1].tolist()) == [2, 3, 5]
    for episode, length in enumerate((21, 9, 14)):
        own = steps.where(steps.episode == episode)
        firsts = 4 * np.arange(len(own))
        assert own.reward.tolist() == [4 * first + 6 for first in firsts]  # first + (first + 1) + ...
        assert own.ends.tolist() == [first <= length - 1 < first + 4 for first in firsts]
        assert (clips.episode[own.index - 1] == episode).all()
        before, z, reward, ends = own.batch(slice(0, 2))
        assert np.array_equal(before[1], z[0])
        assert np.array_equal(z[0], clips.z[own.index[0]].astype(np.float32))
        assert (reward.shape, ends.dtype) == ((2,), torch.float32)


def test_whole_episodes_are_held_out(recording: Path) -> None:
    steps = replace(rewarded_steps(10, 0), episode=np.array([0] * 4 + [1] * 3 + [2] * 3, np.int32))
    dataset = Dataset(recording)
    train, held = split_steps(steps, dataset)
    assert (set(train.episode), set(held.episode)) == ({0, 1}, {2})
    dataset.episodes[0].meta["heldout"] = True
    train, held = split_steps(steps, dataset)
    assert (set(train.episode), set(held.episode)) == ({1, 2}, {0})
    with pytest.raises(DataError, match="none of its 1 episodes is left"):
        split_steps(steps.where(steps.episode == 1), dataset)


def run(*options: object) -> int:
    return cli.main(["train", "reward", *map(str, options), "--device", "cpu", "--steps", "3", "--track", "none"])


def test_the_command_trains_on_a_recording(recording: Path, tokenizer: Path, tmp_path: Path, capsys) -> None:
    assert run("--data", recording, "--tokenizer", tokenizer, "-o", tmp_path / "run", "--batch", 4) == 0
    assert "of the constant predictor" in capsys.readouterr().out
    model, figures = load_reward(tmp_path / "run")
    assert (model.config.latent, model.config.resolution, model.config.has_ends) == ((16, 4, 6), SIZE, True)
    assert {"reward.mse", "reward.constant_mse", "end.cross_entropy"} <= figures.keys()


def test_bad_input_is_one_line(recording: Path, tokenizer: Path, tmp_path: Path, capsys) -> None:
    bare = save_recording(tmp_path / "bare", (9, 9))
    large = save_recording(tmp_path / "large", (9,), (48, 64))
    write_rewards(large, by_number)
    cases = [
        (("--data", bare), "has no rewards, expected the column next.reward beside action"),
        (("--data", recording, "--held-out", large), "large has frames of (48, 64)"),
        (("--data", recording, "--batch", 0), "--batch must be at least 1, got 0"),
        (("--data", tmp_path / "nothing"), "no dataset at"),
    ]
    for options, message in cases:
        assert run(*options, "--tokenizer", tokenizer, "-o", tmp_path / "run") == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("reverie:")]
        assert message in line
    assert run("--data", recording, "--tokenizer", tmp_path / "none", "-o", tmp_path / "run") == 2
    with pytest.raises(TrainError):
        TrainRewardConfig(data=recording, tokenizer=tokenizer, output=tmp_path, batch=-1)


def test_rewards_of_a_recording(recording: Path) -> None:
    dataset = Dataset(recording)
    rewards, ends = read_rewards(dataset, 1)
    assert rewards.tolist() == list(range(9))
    assert ends is not None
    assert np.flatnonzero(ends).tolist() == [8]
    assert dataset.clip(2).frames.shape == (14, *SIZE, 3)
    features = json.loads((recording / "meta/info.json").read_text())["features"]
    assert features[REWARD] == {"dtype": "float32", "shape": [1], "names": None}
    assert features[DONE]["dtype"] == "bool"
    write_rewards(recording, lambda clip: (-by_number(clip)[0], by_number(clip)[1]))
    assert read_rewards(Dataset(recording), 0)[0].tolist() == [-i for i in range(21)]
    with pytest.raises(DataError, match=r"episode 0 has 21 frames, got rewards \(20,\)"):
        write_rewards(recording, lambda clip: (np.zeros(20), np.zeros(20)))
    file = Dataset(recording).episodes[0].data_file
    table = pq.read_table(file)
    spoiled = table.set_column(table.column_names.index(REWARD), REWARD, [[float("nan")] * len(table)])
    pq.write_table(spoiled, file)
    with pytest.raises(DataError, match="no finite number in row 0"):
        read_rewards(Dataset(recording), 0)


def test_a_folder_that_is_no_reward(tokenizer: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="train one first: reverie train reward"):
        LearnedReward.load(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match=r"expected 'reverie\.reward'"):
        LearnedReward.load(tokenizer)
    torch.manual_seed(1)
    other = VideoTokenizer(tiny())
    assert tokenizer_fingerprint(other) == tokenizer_fingerprint(other.bfloat16())
    learned = LearnedReward(
        RewardNet(replace(reward_config(rewarded_steps(9, 0)), tokenizer=tokenizer_fingerprint(other)))
    )
    learned.check(other, SIZE)
    with pytest.raises(CheckpointError, match="latents of the tokenizer"):
        learned.check(VideoTokenizer(tiny()), SIZE)
    with pytest.raises(CheckpointError, match=r"frames of \(32, 48\), the model makes \(64, 48\)"):
        learned.check(other, (64, 48))
