from pathlib import Path

import av
import numpy as np
import pytest

from reverie.data.video import KEY_EVERY_FRAMES, read_video, write_video
from reverie.errors import DataError

SIZE = (32, 48)
COLOURS = [
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (255, 255, 0),
    (0, 255, 255),
    (0, 0, 0),
    (255, 255, 255),
    (90, 140, 60),
]


def flat(colours: list[tuple[int, int, int]]) -> np.ndarray:
    return np.stack([np.full((*SIZE, 3), colour, np.uint8) for colour in colours])


def moving(length: int) -> np.ndarray:
    """A smooth pattern that slides: easy for H.264, different in each frame."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    frames = [
        np.stack([128 + 100 * np.sin((x + 2 * i) / 9), 128 + 90 * np.cos((y + i) / 7), np.full(SIZE, 100 + i)], -1)
        for i in range(length)
    ]
    return np.stack(frames).astype(np.uint8)


@pytest.mark.parametrize("layout", ["pixels", "planes"])
def test_colours_come_back_as_they_were(tmp_path: Path, layout: str) -> None:
    frames = flat([colour for colour in COLOURS for _ in range(4)])
    if layout == "planes":
        frames = np.ascontiguousarray(frames.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    write_video(tmp_path / "a.mp4", frames, 25)
    back = read_video(tmp_path / "a.mp4", 0, len(frames), 25, SIZE)
    assert np.abs(back.astype(int) - frames).max() <= 4


def test_a_trip_through_a_file_shifts_no_colour(tmp_path: Path) -> None:
    frames = moving(50)
    write_video(tmp_path / "a.mp4", frames, 25)
    error = read_video(tmp_path / "a.mp4", 0, 50, 25, SIZE).astype(float) - frames
    assert np.abs(error.mean(axis=(0, 1, 2))).max() < 0.5
    assert 10 * np.log10(255**2 / (error**2).mean()) > 33


def test_the_file_says_what_its_colours_mean(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", moving(3), 25)
    with av.open(str(tmp_path / "a.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.color_range, context.colorspace) == (1, 6)
        assert (context.color_primaries, context.color_trc, context.pix_fmt) == (6, 6, "yuv420p")
        frame = next(container.decode(video=0))
        plain = frame.to_ndarray(format="rgb24")  # as any other reader would
    assert np.abs(plain.astype(int) - moving(1)[0]).mean() < 4


@pytest.mark.parametrize(("start", "length"), [(0, 60), (1, 5), (24, 3), (25, 1), (26, 33), (59, 1)])
def test_any_stretch_is_read(tmp_path: Path, start: int, length: int) -> None:
    frames = moving(60)
    write_video(tmp_path / "a.mp4", frames, 25)
    clip = read_video(tmp_path / "a.mp4", start, length, 25, SIZE)
    whole = read_video(tmp_path / "a.mp4", 0, 60, 25, SIZE)
    np.testing.assert_array_equal(clip, whole[start : start + length])


def test_key_pictures_come_as_often_as_promised(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", moving(80), 25)
    with av.open(str(tmp_path / "a.mp4")) as container:
        keys = [i for i, frame in enumerate(container.decode(video=0)) if frame.key_frame]
    assert keys == list(range(0, 80, KEY_EVERY_FRAMES))


def test_bad_files_are_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with pytest.raises(DataError, match="the video is missing"):
        read_video(path, 0, 1, 25, SIZE)
    write_video(path, moving(10), 25)
    with pytest.raises(DataError, match="ends after 10 frames, needs 12"):
        read_video(path, 0, 12, 25, SIZE)
    with pytest.raises(DataError, match=r"pictures of 32x48, meta/info.json says 64x48"):
        read_video(path, 0, 3, 25, (64, 48))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match="not a readable video"):
        read_video(path, 0, 1, 25, SIZE)
