from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.helpers.import_samples import SIZE, numbers, scene, write

from reverie.data.importers.resample import resample, resample_stretch, stretches
from reverie.data.importers.take import WALKER, Track
from reverie.data.importers.video import fit, frame_times, pictures
from reverie.errors import DataError

KEYS = len(WALKER.keys)


def track(frames: int, seed: int = 0) -> Track:
    rng = np.random.default_rng(seed)
    actions = np.concatenate([rng.random((frames, KEYS)) < 0.2, rng.normal(0, 3, (frames, 2))], axis=1)
    return Track(actions.astype(float), np.ones(frames, np.bool_))


@pytest.mark.parametrize("rate", [10, 16, 20, 24, 25, 29.97, 30, 50, 60, 144])
def test_every_angle_is_kept_at_any_rate(rate: float) -> None:
    source = track(211)
    times = np.arange(211) / rate
    piece = resample_stretch(source, times, 0, 211, KEYS)
    assert len(piece.actions) == int(210 / rate * 25 + 1e-3) + 1
    np.testing.assert_allclose(piece.actions[:, KEYS:].sum(0), source.actions[:, KEYS:].sum(0), atol=1e-3)
    assert np.abs(times[piece.shown] - times[0] - np.arange(len(piece.shown)) / 25).max() <= 0.5 / rate + 1e-6


@pytest.mark.parametrize("rate", [10, 20, 25, 30, 60])
def test_row_k_holds_what_happened_between_the_frames_shown(rate: float) -> None:
    source = track(150)
    heading = np.concatenate([[0.0], np.cumsum(source.actions[:-1, -1])])
    piece = resample_stretch(source, np.arange(150) / rate, 0, 150, KEYS)
    np.testing.assert_allclose(np.diff(heading[piece.shown]), piece.actions[:-1, -1], atol=1e-4)


def test_25_frames_a_second_stay_as_they_are() -> None:
    source = track(60)
    times = np.round(np.arange(60) / 25, 3)
    piece = resample_stretch(source, times, 0, 60, KEYS)
    np.testing.assert_array_equal(piece.shown, np.arange(60))
    np.testing.assert_allclose(piece.actions, source.actions, atol=1e-6)


def test_a_short_press_is_not_lost_and_a_held_key_stays_held() -> None:
    source = track(120)
    source.actions[:, :KEYS] = 0
    source.actions[31, 4] = 1
    source.actions[:, 0] = 1
    fast = resample_stretch(source, np.arange(120) / 60, 0, 120, KEYS)
    assert fast.actions[:, 4].sum() == 1
    slow = resample_stretch(source, np.arange(120) / 20, 0, 120, KEYS)
    assert (slow.actions[:, 0] == 1).all()
    assert slow.actions[:, 4].sum() in (1, 2)


def test_dropped_frames_and_pauses_cut_the_take() -> None:
    source = track(200)
    times = np.arange(200) / 25
    times[120:] += 3.0
    source.drop([50, 51], "with a menu open")
    assert stretches(source.keep, times) == [(0, 50), (52, 120), (120, 200)]
    pieces = resample(source, times, KEYS, max_frames=40, min_frames=5)
    assert [len(piece.shown) for piece in pieces] == [25, 25, 34, 34, 40, 40]
    assert [piece.from_s for piece in pieces] == [0.0, 1.0, 2.08, 3.44, 7.8, 9.4]


def test_short_stretches_are_dropped_and_counted() -> None:
    source = track(100)
    source.drop([4], "malformed")
    pieces = resample(source, np.arange(100) / 25, KEYS, 1000, 25)
    assert [piece.shown[0] for piece in pieces] == [5]
    assert source.dropped == {"malformed": 1, "in a stretch too short": 4}


def test_times_of_a_variable_rate_are_those_of_the_file(tmp_path: Path) -> None:
    times = np.cumsum(np.random.default_rng(0).choice([0.016, 0.033, 0.05], 40))
    times -= times[0]
    for suffix in (".mp4", ".mkv"):
        path = write(tmp_path / f"vfr{suffix}", scene(np.zeros(40)), 30, times.tolist())
        np.testing.assert_allclose(frame_times(path) - frame_times(path)[0], times, atol=2e-3)


def test_only_the_wanted_pictures_are_handed_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", scene(np.zeros(60)), 30)
    got = np.stack(list(pictures(path, frame_times(path), {3, 17, 40, 59}, SIZE)))
    assert numbers(got) == [3, 17, 40, 59]


def test_the_middle_of_another_shape_is_cut_out() -> None:
    wide = np.zeros((100, 400, 3), np.uint8)
    wide[:, 100:300] = 200
    assert (fit(wide, (50, 100)) == 200).all()
    tall = np.zeros((400, 100, 3), np.uint8)
    tall[150:250] = 90
    assert (fit(tall, (100, 100)) == 90).all()
    assert fit(np.full((10, 20, 3), 7, np.uint8), (40, 80)).shape == (40, 80, 3)


def test_what_is_no_video_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the video is missing"):
        frame_times(tmp_path / "none.mp4")
    (tmp_path / "text.mp4").write_text("hello")
    with pytest.raises(DataError, match=r"text.mp4: not a readable video"):
        frame_times(tmp_path / "text.mp4")
