"""Recordings as latents: what is encoded, kept and read again."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.evaluate.conftest import write_recording
from tests.evaluate.synthetic import SPACE

from reverie.data.dataset import Dataset
from reverie.errors import DataError
from reverie.models.pixels import to_pixels
from reverie.models.tokenizer import VideoTokenizer, tiny
from reverie.train.latents import LatentClips, load_clips, load_latents

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tokenizer() -> VideoTokenizer:
    torch.manual_seed(0)
    return VideoTokenizer(tiny()).eval().requires_grad_(False)


def test_an_episode_is_encoded_as_a_stream_and_its_openings_alone(tokenizer: VideoTokenizer, tmp_path: Path) -> None:
    data = write_recording(tmp_path / "walk", (32, 64), num_frames=65)  # 17 steps: the last chunk has no opening
    kept = load_latents(data, tokenizer, tmp_path / "kept", CPU)
    steps = 17
    assert len(kept) == steps * Dataset(data).num_episodes
    assert kept.opens[:6].tolist() == [0, 3, 6, 9, 12, 15]
    assert kept.opens[6] == steps
    assert len(kept.still) == len(kept.picture) == len(kept.opens)
    clip = Dataset(data).clip(int(kept.episode[0]), 0, 65)
    video = to_pixels(torch.from_numpy(clip.frames).permute(0, 3, 1, 2))[None]
    np.testing.assert_allclose(kept.z[:steps], tokenizer.encode(video)[0], atol=2e-2)
    latent, picture = kept.opening(6)
    np.testing.assert_allclose(latent, tokenizer.encode(video[:, 24:25])[0, 0], atol=2e-2)
    assert picture.shape == (3, 16, 32)
    assert kept.rows[0].max() == 0
    assert np.array_equal(kept.rows[1:steps].reshape(64, -1), clip.actions[:64])


def test_what_is_kept_is_read_again_until_something_changes(
    tokenizer: VideoTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_recording(tmp_path / "walk", (32, 64), num_frames=30)
    games = load_clips([data], tokenizer, tmp_path / "kept", CPU)
    assert (tmp_path / "kept/walk/latents.json").is_file()
    assert games.action_space == SPACE

    def never(*_: object) -> LatentClips:
        raise AssertionError("encoded again")

    monkeypatch.setattr("reverie.train.latents._encode", never)
    again = load_clips([data], tokenizer, tmp_path / "kept", CPU)
    assert np.array_equal(again.parts[0].z, games.parts[0].z)
    with pytest.raises(AssertionError, match="encoded again"):
        load_clips([data], tokenizer, tmp_path / "kept", CPU, max_hours=0.001)


def test_two_recordings_of_one_name_are_refused(tokenizer: VideoTokenizer, tmp_path: Path) -> None:
    first, second = (write_recording(tmp_path / part / "walk", (32, 64), num_frames=30) for part in "ab")
    with pytest.raises(DataError, match="two recordings are called walk"):
        load_clips([first, second], tokenizer, tmp_path / "kept", CPU)
