"""Videos whose container says more than which frames there are: all readers show them as a player does."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from tests.helpers.import_samples import (
    FRONT,
    SIZE,
    actions_by_frame,
    bring,
    encode,
    lerobot_set,
    numbers,
    pairs,
    scene,
    shaking,
)

from reverie.data.container import frame_times
from reverie.data.dataset import Dataset
from reverie.data.importers.video import fit, numbered_pictures, pictures
from reverie.data.video import read_video, write_video
from reverie.errors import DataError

UP = np.zeros((30, *SIZE, 3), np.uint8)
UP[:, :32, :56], UP[:, :32, 56:] = (40, 90, 220), (220, 200, 40)
UP[:, 32:, :56], UP[:, 32:, 56:] = (40, 160, 40), (200, 40, 40)
ONE = 1 << 16
MATRICES = {
    "90": ((0, ONE, -ONE, 0), lambda x: np.rot90(x, 1, (1, 2))),
    "180": ((-ONE, 0, 0, -ONE), lambda x: np.rot90(x, 2, (1, 2))),
    "270": ((0, -ONE, ONE, 0), lambda x: np.rot90(x, 3, (1, 2))),
    "mirrored": ((-ONE, 0, 0, ONE), lambda x: x[:, :, ::-1]),
    "upside down": ((ONE, 0, 0, -ONE), lambda x: x[:, ::-1]),
    "transposed": ((0, ONE, ONE, 0), lambda x: x.transpose(0, 2, 1, 3)),
}
"""How a display matrix turns the stored frame, and the stored frame that it turns upright."""


def set_matrix(path: Path, a: int, b: int, c: int, d: int) -> None:
    """Write a display matrix into the header of an MP4."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4
    place = at + 4 + (36 if data[at] == 0 else 48)
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def cut(source: Path, target: Path, start_s: float, end_s: float) -> list[int]:
    """Cut without encoding, as `ffmpeg -ss -c copy` does: the lead from the key frame on is hidden by an edit list.

    Returns the numbers of the frames that a player shows.
    """
    target.parent.mkdir(parents=True)
    with av.open(str(source)) as whole, av.open(str(target), "w") as out:
        stream = whole.streams.video[0]
        copy = out.add_stream_from_template(stream)
        whole.seek(int(start_s / stream.time_base), stream=stream)
        shift = int(start_s / stream.time_base)
        for packet in whole.demux(stream):
            if packet.pts is not None and packet.pts * stream.time_base < end_s:
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copy
                out.mux(packet)
    with av.open(str(target)) as shown:
        return numbers(np.stack([frame.to_ndarray(format="rgb24") for frame in shown.decode(video=0)]))


@pytest.mark.parametrize(
    ("container", "options"),
    [
        ({"use_editlist": "0"}, {"bf": "2", "b_strategy": "0", "g": "25"}),
        ({"movflags": "frag_keyframe+empty_moov"}, {"bf": "2", "b_strategy": "0", "g": "25"}),
        ({}, {"bf": "2", "b_strategy": "0", "g": "25"}),
    ],
)
def test_time_counts_from_the_first_frame_wherever_the_clock_begins(
    tmp_path: Path, container: dict[str, str], options: dict[str, str]
) -> None:
    src = lerobot_set(tmp_path / "src", container=container, **options)
    video = src / f"videos/{FRONT}/chunk-000/file-000.mp4"
    assert (frame_times(video)[0] > 0) == bool(container), "the sample's first frame is late, as it should be"
    data, report = bring("lerobot", src, tmp_path / "dst")
    assert pairs(data) == [(i, i) for i in range(150)]
    assert report.notes == []
    direct = Dataset(src)  # as a training reads it: any clip, from key frames and between them
    assert pairs(direct) == [(i, i) for i in range(150)]
    for episode, start, length in ((0, 0, 1), (0, 25, 2), (1, 10, 5), (1, 35, 15), (2, 59, 1)):
        first = (0, 40, 90)[episode] + start
        assert numbers(direct.clip(episode, start, length).frames) == list(range(first, first + length))


@pytest.mark.parametrize(("gop", "start_s", "end_s"), [(50, 2.6, 5.6), (125, 4.8, 7.8)])
def test_what_an_edit_list_hides_is_no_frame(tmp_path: Path, gop: int, start_s: float, end_s: float) -> None:
    encode(tmp_path / "whole.mp4", scene(np.zeros(200)), g=str(gop), sc_threshold="0")
    shown = cut(tmp_path / "whole.mp4", tmp_path / "src/walk.mp4", start_s, end_s)
    assert len(shown) == 75, "a lead as long as the clip, or shorter"
    actions_by_frame(tmp_path / "src/walk.csv", len(shown))
    data, report = bring("folder", tmp_path / "src", tmp_path / "dst")
    assert report.notes == []
    assert pairs(data) == [(number, index) for index, number in enumerate(shown)]
    assert numbers(read_video(tmp_path / "src/walk.mp4", 30, 20, 25, SIZE)) == shown[30:50]


@pytest.mark.parametrize("name", MATRICES)
def test_frames_are_turned_as_the_header_says(tmp_path: Path, name: str) -> None:
    matrix, store = MATRICES[name]
    path = encode(tmp_path / "src/walk.mp4", np.ascontiguousarray(store(UP)))
    set_matrix(path, *matrix)
    actions_by_frame(tmp_path / "src/walk.csv", len(UP))
    data, _ = bring("folder", tmp_path / "src", tmp_path / "dst")
    for frames in (data.clip(0).frames, read_video(path, 3, 4, 25, SIZE)):
        error = np.abs(frames[2, 8::16, 12::16].astype(int) - UP[0, 8::16, 12::16])
        assert error.max() < 12, f"{name}: not upright"


def test_an_angle_that_is_no_quarter_turn_is_refused(tmp_path: Path) -> None:
    path = encode(tmp_path / "src/walk.mp4", UP)
    set_matrix(path, 46341, 46341, -46341, 46341)
    actions_by_frame(tmp_path / "src/walk.csv", len(UP))
    with pytest.raises(DataError, match=r"walk.mp4: .*no quarter turn"):
        bring("folder", tmp_path / "src", tmp_path / "dst")


def wide_pixels(path: Path, turned: bool = False) -> Path:
    """An anamorphic video of 64 x 84 pixels that are 4:3, to be shown as 64 x 112: a white square on grey."""
    frames = np.full((30, 64, 84, 3), 60, np.uint8)
    frames[:, 16:48, 30:54] = 230  # 32 high and 24 wide: shown 32 wide
    frames = np.ascontiguousarray(np.rot90(frames, 1, (1, 2))) if turned else frames
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"crf": "10", "preset": "ultrafast"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        wide, high = (3, 4) if turned else (4, 3)
        stream.codec_context.sample_aspect_ratio = Fraction(wide, high)
        for picture in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode(None))
    if turned:
        set_matrix(path, *MATRICES["90"][0])
    return path


@pytest.mark.parametrize("turned", [False, True])
def test_pixels_that_are_not_square_are_made_so(tmp_path: Path, turned: bool) -> None:
    path = wide_pixels(tmp_path / "src/walk.mp4", turned)
    actions_by_frame(tmp_path / "src/walk.csv", 30)
    data, _ = bring("folder", tmp_path / "src", tmp_path / "dst")
    white = data.clip(0).frames[5, ..., 1] > 140
    rows, columns = white.any(axis=1).sum(), white.any(axis=0).sum()
    assert abs(int(rows) - 32) <= 1
    assert abs(int(columns) - 32) <= 2
    with pytest.raises(DataError, match=r"walk.mp4: its pixels are .* times as wide as high"):
        read_video(path, 0, 1, 25, (64, 84))


@pytest.mark.parametrize("size", [(900, 1600), (719, 1281), (64, 112), (33, 47), (1200, 17)])
@pytest.mark.parametrize("aspect", [1.0, 4 / 3, 0.5])
def test_any_size_is_cut_to_shape(size: tuple[int, int], aspect: float) -> None:
    assert fit(np.zeros((*size, 3), np.uint8), (64, 112), aspect).shape == (64, 112, 3)


def test_frames_whose_times_run_backwards_are_refused(tmp_path: Path) -> None:
    """AVI knows no times of its own: with B-frames the order of decoding is taken for them."""
    encode(tmp_path / "src/walk.avi", scene(np.zeros(60)), bf="2", b_strategy="0")
    actions_by_frame(tmp_path / "src/walk.csv", 60)
    with pytest.raises(DataError, match=r"walk.avi: the times of its frames run backwards"):
        bring("folder", tmp_path / "src", tmp_path / "dst")


def test_frames_that_cannot_be_decoded_are_left_out_and_the_rest_stays_paired(tmp_path: Path) -> None:
    path = encode(tmp_path / "src/walk.mp4", scene(np.zeros(120)), g="30", sc_threshold="0", bf="0")
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    position, size = packets[40]
    data[position + size // 3 : position + size] = bytes(size - size // 3)
    path.write_bytes(data)
    actions_by_frame(tmp_path / "src/walk.csv", 120)
    dataset, report = bring("folder", tmp_path / "src", tmp_path / "dst")
    found = pairs(dataset)
    assert [row for _, row in found] == [*range(40), *range(60, 120)], "up to the damage, and from the next key frame"
    assert all(number == row for number, row in found)
    assert any("walk.mp4: 20 frames cannot be decoded, the first of them frame 40 at 1.60 s" in n for n in report.notes)
    with pytest.raises(DataError, match=r"walk.mp4: not a readable video: frame 45 is damaged"):
        read_video(path, 45, 2, 25, SIZE)
    assert numbers(read_video(path, 60, 30, 25, SIZE)) == list(range(60, 90))


def test_b_frames_before_a_damaged_frame_are_left_out_with_it(tmp_path: Path) -> None:
    """They are shown before the frame that they build on, and come out of the decoder before it."""
    path = encode(tmp_path / "a.mp4", scene(shaking(60)), g="30", sc_threshold="0", bf="2", b_strategy="0")
    with av.open(str(path)) as container:
        packets = [(packet.pts, packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    whole = path.read_bytes()
    tick = min(pts for pts, _, _ in packets[1:] if pts)
    for pts, position, size in packets[4:40]:
        data = bytearray(whole)
        data[position + size // 3 : position + size] = bytes(size - size // 3)
        path.write_bytes(data)
        times = frame_times(path)
        found = list(numbered_pictures(path, times, range(60), SIZE))
        assert all(numbers(picture[None]) == [index] for index, picture in found)
        assert pts // tick not in {index for index, _ in found}


def test_rows_of_frames_that_a_video_has_lost_are_left_out(tmp_path: Path) -> None:
    """A part of a recording that is gone: the frames behind it are not the ones that the table numbers so."""
    encode(tmp_path / "whole.mkv", scene(np.zeros(120)), g="20", sc_threshold="0", bf="0")
    (tmp_path / "src").mkdir()
    with av.open(str(tmp_path / "whole.mkv")) as whole, av.open(str(tmp_path / "src/walk.mkv"), "w") as out:
        copy = out.add_stream_from_template(whole.streams.video[0])
        for number, packet in enumerate(whole.demux(video=0)):
            if packet.size and not 50 <= number < 60:
                packet.stream = copy
                out.mux(packet)
    actions_by_frame(tmp_path / "src/walk.csv", 120)
    data, report = bring("folder", tmp_path / "src", tmp_path / "dst")
    assert pairs(data) == [(i, i) for i in range(50)]
    assert any("walk.mkv: frames are missing before frame 50, at 2.40 s" in note for note in report.notes)


def test_two_frames_at_one_time_are_refused(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", scene(np.zeros(30)), 3000)
    with pytest.raises(DataError, match=r"a.mkv: frames \d+ and \d+ are shown at the same time"):
        frame_times(path)


def test_a_dataset_whose_video_has_another_rate_is_refused(tmp_path: Path) -> None:
    src = lerobot_set(tmp_path / "src")
    video = src / f"videos/{FRONT}/chunk-000/file-000.mp4"
    encode(video, scene(np.zeros(150)), 20)
    with pytest.raises(DataError, match=r"file-000.mp4: not a readable video of 25 frames a second: frame \d+ is miss"):
        Dataset(src).clip(0)
    with pytest.raises(DataError, match=r"file-000.parquet: row \d+: the video shows no frame of its own at its time"):
        bring("lerobot", src, tmp_path / "dst")


def test_paths_with_a_colon_in_their_first_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    encode(tmp_path / "take:1/walk.mp4", scene(np.zeros(40)))
    actions_by_frame(tmp_path / "take:1/walk.csv", 40)
    data, _ = bring("folder", Path("take:1"), Path("set:1"))
    assert pairs(data) == [(i, i) for i in range(40)]
    again, _ = bring("lerobot", Path("set:1"), Path("set:2"))
    assert pairs(again) == [(i, i) for i in range(40)]
    write_video(Path("a:b.mp4"), UP, 25)
    assert read_video(Path("a:b.mp4"), 0, 30, 25, SIZE).shape == UP.shape


@pytest.mark.parametrize("name", ["walk.mp4", "walk.mkv", "walk.avi"])
@pytest.mark.parametrize(
    "text",
    ["#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nprivate.ts\n#EXT-X-ENDLIST\n",
     "ffconcat version 1.0\nfile private.ts\n", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nm=video 9 RTP/AVP 96\n"],
    ids=["playlist", "script", "session"],
)  # fmt: skip
def test_a_text_that_names_other_files_is_no_video(tmp_path: Path, name: str, text: str) -> None:
    """FFmpeg goes by the content of a file, and opens what a playlist lists."""
    encode(tmp_path / "private.ts", scene(np.zeros(30)))
    assert len(frame_times(tmp_path / "private.ts")) == 30
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=f"{name}: not a readable video"):
        frame_times(tmp_path / name)


def test_hdr_is_said(tmp_path: Path) -> None:
    path = tmp_path / "src/walk.mp4"
    path.parent.mkdir()
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace = 9, 18, 9
        for picture in UP:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            frame.color_trc = 18
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    actions_by_frame(tmp_path / "src/walk.csv", 30)
    _, report = bring("folder", tmp_path / "src", tmp_path / "dst")
    assert any("walk.mp4: is HDR" in note for note in report.notes)


def test_colours_of_both_matrices_and_ranges_come_through(tmp_path: Path) -> None:
    colours = ((200, 40, 40), (40, 180, 60), (40, 60, 200), (0, 0, 0), (255, 255, 255), (128, 128, 128))
    for number, (red, blue) in ((6, (0.299, 0.114)), (1, (0.2126, 0.0722))):
        for full in (False, True):
            path = tmp_path / f"{number}-{full}.mp4"
            with av.open(str(path), "w") as out:
                stream = out.add_stream("libx264", rate=25, options={"crf": "5", "preset": "ultrafast"})
                stream.height, stream.width, stream.pix_fmt = 32, 192, "yuv420p"
                context = stream.codec_context
                context.color_range, context.colorspace = 2 if full else 1, number
                context.color_primaries = context.color_trc = number
                for index in range(6):
                    frame = av.VideoFrame(192, 32, "yuv420p")
                    for plane, part, half in zip(frame.planes, range(3), (1, 2, 2), strict=True):
                        line = np.zeros(plane.line_size, np.uint8)
                        for k, colour in enumerate(colours):
                            line[k * 32 // half : (k + 1) * 32 // half] = _yuv(colour, red, blue, full)[part]
                        plane.update(np.tile(line, (plane.height, 1)))
                    frame.pts, frame.color_range, frame.colorspace = index, 2 if full else 1, number
                    out.mux(stream.encode(frame))
                out.mux(stream.encode(None))
            for picture in (
                next(pictures(path, frame_times(path), {3}, (32, 192))),
                read_video(path, 3, 1, 25, (32, 192))[0],
            ):
                assert np.abs(picture[16, 16::32].astype(int) - np.array(colours)).max() <= 3


def _yuv(rgb: tuple[int, int, int], red: float, blue: float, full: bool) -> tuple[int, int, int]:
    r, g, b = (value / 255 for value in rgb)
    y = red * r + (1 - red - blue) * g + blue * b
    u, v = (b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red))
    scale = (255, 255, 0) if full else (219, 224, 16)
    return round(scale[2] + scale[0] * y), round(128 + scale[1] * u), round(128 + scale[1] * v)
