"""Training the tokenizer: the closed-form start, the losses, the folder it ends with, and refusals."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.helpers.moving_waves import H, W, make_clips, make_config, moving_waves
from torch import Tensor

from reverie.errors import CheckpointError, DataError, TrainError
from reverie.models.checkpoint import save_trained
from reverie.models.tokenizer import VideoTokenizer, tiny
from reverie.train import tokenizer as training
from reverie.train.pca import fit_components, fit_linear
from reverie.train.tokenizer import (
    TokenizerTask,
    edge_error,
    load_tokenizer,
    normalise,
    read_pool,
    to_pixels,
    train_tokenizer,
)
from reverie.types import Clip, Frames


@dataclass
class FakeEpisode:
    length: int


class FakeDataset:
    """What `read_pool` needs of a dataset."""

    path = Path("fake")
    resolution = (H, W)

    def __init__(self, lengths: list[int]) -> None:
        self.episodes = [FakeEpisode(length) for length in lengths]
        self.info = {"fps": 25}

    def clip(self, episode: int, start: int, length: int, *, depth: bool = True) -> Clip:
        assert start + length <= self.episodes[episode].length
        frames = moving_waves(episode, self.episodes[episode].length)[start : start + length]
        return Clip(frames, np.zeros((length, 0), np.float32))


def video(clip: Frames) -> Tensor:
    return to_pixels(torch.from_numpy(clip[None]).permute(0, 1, 4, 2, 3))


def psnr(a: Tensor, b: Tensor) -> float:
    return -10 * float(torch.log10((a - b).square().mean() / 4))


@torch.no_grad()
def test_the_linear_start_reconstructs_without_training() -> None:
    clips = [video(clip) for clip in make_clips(12)]
    tokenizer = VideoTokenizer(tiny())
    fit_linear(tokenizer, clips[:10], noise=0.01)
    z = tokenizer.encode(clips[10])
    assert psnr(tokenizer.decode(z), clips[10]) > 25
    every = torch.cat([tokenizer.encode(clip) for clip in clips[:10]])
    assert every.std().item() == pytest.approx(1, abs=0.1)


def test_coarse_components_are_louder_but_tempered() -> None:
    weight, bias = fit_components([video(clip) for clip in make_clips(8)])
    assert weight.shape == (16, 768)
    assert bias.shape == (16,)
    gains = weight.norm(dim=1)
    assert torch.all(gains[1:] >= gains[:-1] * 0.999)  # quiet components are amplified ...
    assert gains[-1] / gains[0] < 1e4  # ... by the square root only


def test_edge_error_is_blind_to_a_constant() -> None:
    assert edge_error(torch.full((1, 3, 16, 16), 0.7)).item() == pytest.approx(0, abs=1e-6)
    assert edge_error(torch.rand(1, 3, 16, 16)).item() > 0


@torch.no_grad()
def test_normalised_latents_have_unit_deviation_and_decode_alike() -> None:
    clips = make_clips(6)
    tokenizer = VideoTokenizer(tiny())
    fit_linear(tokenizer, [video(clip) for clip in clips], noise=0.05)
    tokenizer.encoder.linear.weight.mul_(3)
    before = tokenizer.decode(tokenizer.encode(video(clips[0])))
    normalise(tokenizer, clips, torch.device("cpu"))
    z = torch.cat([tokenizer.encode(video(clip)) for clip in clips])
    assert z.std(correction=0).item() == pytest.approx(1, abs=1e-3)
    torch.testing.assert_close(z.mean((0, 1, 3, 4)), torch.zeros(16), atol=1e-4, rtol=0)
    torch.testing.assert_close(tokenizer.decode(tokenizer.encode(video(clips[0]))), before, atol=1e-4, rtol=1e-4)


def test_training_ends_in_a_folder_that_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets: Callable[[Path], FakeDataset] = lambda path: FakeDataset([40, 10, 36])  # noqa: E731
    monkeypatch.setattr(training, "Dataset", datasets)
    metrics = training.train_tokenizer(make_config(tmp_path, steps=6))
    assert metrics["psnr"] > 20
    assert {"psnr_first", "psnr_rest", "psnr_worst_clip", "latent_std"} <= metrics.keys()
    tokenizer = load_tokenizer(tmp_path / "run")
    clip = video(moving_waves(0, 17))
    with torch.no_grad():
        assert psnr(tokenizer.decode(tokenizer.encode(clip)), clip) > 20
    assert len(list((tmp_path / "run/samples").glob("*.png"))) == 2


def test_a_training_goes_on_from_another_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "Dataset", lambda path: FakeDataset([40, 36]))
    train_tokenizer(make_config(tmp_path / "first", steps=8))
    before = load_tokenizer(tmp_path / "first/run")
    monkeypatch.setattr(training, "fit_linear", lambda *_: pytest.fail("a start is not fitted anew"))
    train_tokenizer(make_config(tmp_path / "second", steps=1, lr=1e-6, start=tmp_path / "first/run"))
    after = load_tokenizer(tmp_path / "second/run")
    clip = video(moving_waves(0, 17))
    with torch.no_grad():
        again, once = (tokenizer.decode(tokenizer.encode(clip)) for tokenizer in (after, before))
    torch.testing.assert_close(again, once, atol=0.02, rtol=0)


def test_batches_follow_from_their_random_stream(tmp_path: Path) -> None:
    task = TokenizerTask(VideoTokenizer(tiny()), make_config(tmp_path), make_clips(3), make_clips(1))
    batch = task.batch(np.random.default_rng(5))
    assert batch.shape == (2, 13, 3, 16, 32)
    assert batch.dtype == torch.uint8
    assert torch.equal(batch, task.batch(np.random.default_rng(5)))
    assert not torch.equal(batch, task.batch(np.random.default_rng(6)))


def test_the_pool_takes_long_enough_episodes_only() -> None:
    dataset: Any = FakeDataset([20, 5, 18])
    pool = read_pool([dataset], 6, 17, seed=0)
    assert pool.shape == (6, 17, H, W, 3)
    short: Any = FakeDataset([5])
    with pytest.raises(DataError, match="no episode has 17 frames"):
        read_pool([short], 6, 17, seed=0)
    wide: Any = FakeDataset([20])
    wide.resolution = (H, 2 * W)
    with pytest.raises(DataError, match="record them at one resolution"):
        read_pool([dataset, wide], 6, 17, seed=0)
    assert len(read_pool([dataset, dataset, dataset], 5, 17, seed=0)) == 6  # as many of each


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip_frames": 12}, r"1 \+ 4n"),
        ({"batch": 0}, "at least 1"),
        ({"crop": (24, 32)}, "multiples of 16, got 24x32"),
    ],
)
def test_odd_settings_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainError, match=message):
        make_config(tmp_path, **changes)


def test_a_crop_larger_than_the_data_is_refused(tmp_path: Path) -> None:
    config = make_config(tmp_path, crop=(64, 64))
    with pytest.raises(TrainError, match="crop 64x64 is larger than the data's 32x48"):
        TokenizerTask(VideoTokenizer(tiny()), config, make_clips(1), make_clips(1))


def test_a_missing_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no dataset at"):
        training.train_tokenizer(make_config(tmp_path))


def test_odd_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        load_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text('{"kind": "other"}')
    with pytest.raises(CheckpointError, match="of kind 'other'"):
        load_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not the config of a tokenizer"):
        load_tokenizer(tmp_path)
    save_trained(tmp_path, "tokenizer", VideoTokenizer(tiny()), {})
    (tmp_path / "tokenizer.safetensors").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load_tokenizer(tmp_path)
