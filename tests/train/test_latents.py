"""Recordings as latents: what is encoded, kept and read again."""

import dataclasses
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tests.helpers.latent_clips import recording
from tests.helpers.small_model import save_untrained_model
from tests.helpers.synthetic_recordings import SPACE, write_recording

from reverie.cli import main
from reverie.data.dataset import Dataset
from reverie.errors import DataError
from reverie.models.tokenizer import VideoTokenizer, tiny
from reverie.train import encode
from reverie.train.encode import LatentClips, decoding_threads, load_latents
from reverie.train.latents import Clips, load_clips
from reverie.train.tokenizer import read_tokenizer
from reverie.vision.pixels import to_pixels

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
    opening = kept.opening(6)
    np.testing.assert_allclose(kept.still[opening], tokenizer.encode(video[:, 24:25])[0, 0], atol=2e-2)
    assert kept.picture[opening].shape == (3, 16, 32)
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

    monkeypatch.setattr("reverie.train.encode._encode", never)
    again = load_clips([data], tokenizer, tmp_path / "kept", CPU)
    assert np.array_equal(again.parts[0].z, games.parts[0].z)
    with pytest.raises(AssertionError, match="encoded again"):
        load_clips([data], tokenizer, tmp_path / "kept", CPU, max_hours=0.001)


def test_threads_read_ahead_and_change_nothing(tokenizer: VideoTokenizer, tmp_path: Path) -> None:
    data = write_recording(tmp_path / "walk", (32, 64), num_frames=81)
    one, four = (load_latents(data, tokenizer, tmp_path / str(n), CPU, threads=n) for n in (1, 4))
    for field in LatentClips.FIELDS:
        assert np.array_equal(getattr(one, field), getattr(four, field)), field


def test_a_recording_that_cannot_be_read_stops_the_encoding(
    tokenizer: VideoTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_recording(tmp_path / "walk", (32, 64), num_frames=81)

    def broken(*_: object, **__: object) -> None:
        raise DataError("the shard is cut short")

    monkeypatch.setattr(Dataset, "clip", broken)
    with pytest.raises(DataError, match="the shard is cut short"):
        load_latents(data, tokenizer, tmp_path / "kept", CPU, threads=2)
    assert not (tmp_path / "kept/latents.json").exists()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("name", ["z.npy", "latents.json"])
@pytest.mark.parametrize("damage", [cut, Path.unlink])
def test_damaged_latents_are_made_again(
    tokenizer: VideoTokenizer, tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    data = write_recording(tmp_path / "walk", (32, 64), num_frames=30)
    before = np.array(load_latents(data, tokenizer, tmp_path / "kept", CPU).z)
    damage(tmp_path / "kept" / name)
    assert np.array_equal(load_latents(data, tokenizer, tmp_path / "kept", CPU).z, before)
    assert not list((tmp_path / "kept").glob("*partial*"))


def test_a_kill_between_two_encodings_leaves_no_mixture(
    tokenizer: VideoTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Latents of another tokenizer, half written over, are never taken for those of the one before."""
    data = write_recording(tmp_path / "walk", (32, 64), num_frames=30)
    before = np.array(load_latents(data, tokenizer, tmp_path / "kept", CPU).z)
    torch.manual_seed(1)
    other = VideoTokenizer(tiny()).eval().requires_grad_(False)
    with monkeypatch.context() as patch:
        patch.setattr("reverie.train.kept_arrays.write_json_atomic", failing(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            load_latents(data, other, tmp_path / "kept", CPU)
    assert not np.array_equal(np.load(tmp_path / "kept/z.npy"), before)
    assert np.array_equal(load_latents(data, tokenizer, tmp_path / "kept", CPU).z, before)


def test_one_of_several_processes_encodes(
    tokenizer: VideoTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of torchrun, here threads: each opens the lock's file for itself."""
    data = write_recording(tmp_path / "walk", (32, 64), num_frames=30)
    real, calls = encode._encode, []

    def slow(*given: Any) -> Any:
        calls.append(None)
        time.sleep(0.3)
        return real(*given)

    monkeypatch.setattr(encode, "_encode", slow)
    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(load_latents, data, tokenizer, tmp_path / "kept", CPU) for _ in range(3)]
        found = [job.result() for job in jobs]
    assert len(calls) == 1
    assert all(np.array_equal(one.z, found[0].z) for one in found)


def failing(error: BaseException) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("function", "error", "said"),
    [
        ("reverie.train.kept_arrays.np.save", OSError(28, "No space left on device"), "No space left .*; free some"),
        (
            "reverie.train.encode._EncodedRows.add",
            torch.AcceleratorError("CUDA error: unspecified launch failure\nmore"),
            r"the GPU failed in reverie encode \(CUDA error: unspecified launch failure\); what was finished is kept",
        ),
    ],
)
def test_an_encoding_that_fails_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    function: str,
    error: BaseException,
    said: str,
) -> None:
    data = write_recording(tmp_path / "walk", (32, 64), num_frames=30)
    words = ["encode", str(data), "--tokenizer", str(save_untrained_model(tmp_path / "model", SPACE))]
    with monkeypatch.context() as patch:
        patch.setattr(function, failing(error))
        assert main([*words, "-o", str(tmp_path / "latents")]) == 2
    told = capsys.readouterr().err
    assert re.search(said, told)
    assert told.count("\n") == 1
    assert main([*words, "-o", str(tmp_path / "latents")]) == 0


def test_encoding_in_half_precision_as_on_a_gpu(
    tokenizer: VideoTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_recording(tmp_path / "walk", (32, 64), num_frames=81)
    whole = load_latents(data, tokenizer, tmp_path / "whole", CPU)
    monkeypatch.setattr(encode, "fast_autocast", lambda _: torch.autocast("cpu", torch.bfloat16))
    half = load_latents(data, tokenizer, tmp_path / "half", CPU, threads=1)
    assert 0 < np.abs(whole.z.astype(np.float32) - half.z).max() < 0.1
    assert decoding_threads() >= 2


def test_encode_keeps_what_a_training_then_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_recording(tmp_path / "walk", (32, 64), num_frames=30)
    folder, kept = save_untrained_model(tmp_path / "model", SPACE), tmp_path / "latents"
    words = ["encode", str(data), "--tokenizer", str(folder), "-o", str(kept)]
    assert main([*words, "--threads", "3"]) == 0
    assert f"{kept / 'walk'}: {8 * Dataset(data).num_episodes} steps" in capsys.readouterr().out
    monkeypatch.setattr("reverie.train.encode._encode", lambda *_: pytest.fail("encoded again"))
    assert load_clips([data], read_tokenizer(folder), kept, CPU).num_steps == 8 * Dataset(data).num_episodes
    assert main([*words, "--threads", "0"]) == 2
    assert "--threads must be at least 1, got 0" in capsys.readouterr().err
    assert main(["encode", str(tmp_path / "none"), *words[2:]]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_two_recordings_of_one_name_are_refused(tokenizer: VideoTokenizer, tmp_path: Path) -> None:
    first, second = (write_recording(tmp_path / part / "walk", (32, 64), num_frames=30) for part in "ab")
    with pytest.raises(DataError, match="two recordings are called walk"):
        load_clips([first, second], tokenizer, tmp_path / "kept", CPU)


def test_clips_can_be_chosen_by_a_rare_key() -> None:
    """A key that is held in one clip of fifty is in a good third of those that are chosen by one of two keys."""
    part = recording(episodes=1, length=200)
    part.rows[..., 0] = 1.0
    part.rows[100:103, :, 1] = 1.0
    games, rng = Clips([part]), np.random.default_rng(0)
    shares = [
        games.draw(rng, 200, 4, by_key=by_key)[1][..., 1].mean(1).ge(0.25).float().mean().item()
        for by_key in (0.0, 1.0)
    ]
    assert shares[0] < 0.1
    assert shares[1] > 0.4
    only = Clips([dataclasses.replace(part, rows=np.zeros_like(part.rows))])
    assert len(only.draw(rng, 3, 4, by_key=1.0)[0]) == 3  # nothing is ever held there


def test_another_dataset_of_as_many_frames_is_encoded_anew(tokenizer: VideoTokenizer, tmp_path: Path) -> None:
    """A recording that was imported again with a corrected option has the same name and as many frames."""
    data = write_recording(tmp_path / "walk", (32, 64), num_frames=30)
    before = np.array(load_latents(data, tokenizer, tmp_path / "kept", CPU).rows)
    rows = next((data / "data").glob("*/file-000.parquet"))
    table = pq.read_table(rows)
    turned = pa.FixedSizeListArray.from_arrays(pa.array(np.ones(30 * SPACE.size, np.float32)), SPACE.size)
    pq.write_table(table.set_column(table.column_names.index("action"), "action", turned), rows)
    after = load_latents(data, tokenizer, tmp_path / "kept", CPU)
    assert not np.array_equal(before, after.rows)


def test_a_training_from_kept_latents_needs_no_ffmpeg(tokenizer: VideoTokenizer, tmp_path: Path) -> None:
    data = write_recording(tmp_path / "walk", (32, 64), num_frames=30)
    kept = load_clips([data], tokenizer, tmp_path / "kept", CPU)
    code = f"""
import sys
sys.modules["av"] = None  # any import of it fails
import torch
import reverie.cli, reverie.data.loader, reverie.train.trainer, reverie.train.world
from pathlib import Path
from reverie.data.dataset import Dataset
from reverie.models.tokenizer import VideoTokenizer, tiny
from reverie.train.latents import load_clips
torch.manual_seed(0)
tokenizer = VideoTokenizer(tiny()).eval()
clips = load_clips([Path({str(data)!r})], tokenizer, Path({str(tmp_path / "kept")!r}), torch.device("cpu"))
print(clips.num_steps, Dataset({str(data)!r}).rows(0).num_rows)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.split() == [str(kept.num_steps), "30"]
