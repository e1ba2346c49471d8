from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reverie import cli
from reverie.engine.media.render import rollout, sheet_frames
from reverie.engine.media.video import VideoWriter, read_frames, read_log
from reverie.engine.sessions.script import parse
from reverie.errors import DataError
from reverie.overlay import add_keys, contact_sheet, strip_height
from reverie.types import Action, ActionSpace

SCRIPT = "forward 5f; yaw+3 1s"


@pytest.fixture
def image(tmp_path, picture) -> Path:
    path = tmp_path / "start.png"
    Image.fromarray(picture).save(path)
    return path


def generate(model_folder, image, output, *more: str, actions: str = SCRIPT) -> int:
    options = ["--model", str(model_folder), "--dtype", "float32", "--device", "cpu", "--actions", actions]
    given = [] if image is None else ["--image", str(image)]
    return cli.main(["generate", *options, *given, "-o", str(output), *more])


def test_the_rollout_is_the_sessions(engine, picture) -> None:
    script = parse(SCRIPT)
    session = engine.open(picture, seed=4)
    frames = np.concatenate([frames for frames, _ in rollout(session, script)])
    assert len(frames) == 31
    twin = engine.open(picture, seed=4)
    expected = [twin.first_frame, *(twin.step(actions) for actions in script.blocks(4))]
    assert np.array_equal(frames, np.concatenate(expected)[:31])


def test_the_rollouts_actions_lead_to_its_frames(engine, picture) -> None:
    script = parse(SCRIPT)
    blocks = list(rollout(engine.open(picture), script))
    assert all(len(frames) == len(actions) for frames, actions in blocks)
    assert [action for _, actions in blocks[1:] for action in actions] == list(script.actions())


def test_writes_a_video_that_says_how_it_was_made(model_folder, engine, image, tmp_path) -> None:
    output = tmp_path / "out.mp4"
    assert generate(model_folder, image, output, "--seed", "3") == 0
    log = read_log(output)
    assert (log["seed"], log["fps"], log["image"]) == (3, 25, str(image))
    assert log["model"] == engine.fingerprint
    assert parse(log["actions"]) == parse(SCRIPT)
    frames = read_frames(output).astype(int)
    session = engine.open(image, seed=3)
    expected = np.concatenate([frames for frames, _ in rollout(session, parse(SCRIPT))])
    assert frames.shape == expected.shape
    grey = np.array([0.299, 0.587, 0.114])  # H.264 halves the resolution of colour
    assert abs((frames - expected) @ grey).mean() < 10
    assert abs((frames[1:] - expected[:-1]) @ grey).mean() > 30
    assert [path.name for path in tmp_path.iterdir()] == ["start.png", "out.mp4"]


def test_overlay_scale_and_sheet(model_folder, image, tmp_path) -> None:
    output, sheet = tmp_path / "out.mp4", tmp_path / "sheet.png"
    assert generate(model_folder, image, output, "--overlay", "--scale", "2", "--sheet", str(sheet)) == 0
    assert read_frames(output).shape[1:] == (64 + strip_height(128), 128, 3)
    with Image.open(sheet) as picture:
        assert picture.width >= 64


def test_the_models_own_start_picture(model_folder, picture, tmp_path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_folder, folder)
    (folder / "starts").mkdir()
    Image.fromarray(picture).save(folder / "starts" / "hall.png")
    for image in (None, "hall"):
        assert generate(folder, image, tmp_path / "out.mp4", actions="idle 1f") == 0


def test_bad_input_is_one_line(model_folder, image, tmp_path, capsys) -> None:
    output = tmp_path / "out.mp4"
    cases = [
        (image, output, ["--actions", "fly 1s"], "unknown key 'fly'"),
        (image, output, ["--actions", "walk.json"], "cannot read the action script 'walk.json'"),
        (image, tmp_path / "out.avi", [], "must be a .mp4 or .webm or .gif file"),
        (image, tmp_path / "no" / "out.mp4", [], "folder must exist"),
        (image, output, ["--sheet", "x.jpg"], "must be a .png file"),
        (image, output, ["--scale", "0"], "--scale"),
        (image, output, ["--model", "nothing"], "no model 'nothing'"),
        (None, output, [], "has no start pictures"),
        (tmp_path / "none.png", output, [], "there is no picture"),
    ]
    for source, target, more, message in cases:
        assert generate(model_folder, source, target, *more) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("reverie:")]
        assert len(lines) == 1
        assert message in lines[0]
    assert not output.exists()


def test_a_failed_video_leaves_nothing(tmp_path) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"older")

    def fail() -> None:
        with VideoWriter(path, (32, 64), {}) as video:
            video.write(np.zeros((3, 32, 64, 3), np.uint8))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [path]


def test_logs_of_foreign_files(tmp_path) -> None:
    path = tmp_path / "x.mp4"
    with pytest.raises(DataError):
        read_log(path)
    path.write_bytes(b"garbage")
    with pytest.raises(DataError):
        read_log(path)


def test_keys_light_up() -> None:
    space = ActionSpace(("forward", "back", "left", "right"))
    frame = np.zeros((128, 224, 3), np.uint8)
    idle = add_keys(frame, Action(), space)
    held = add_keys(frame, Action(frozenset({"forward"}), (0.0, 4.0)), space)
    assert idle.shape == held.shape == (128 + strip_height(224), 224, 3)
    assert held.shape[0] % 2 == 0
    assert not idle[:128].any()
    changed = (idle != held).any(axis=(0, 2))
    assert changed[:50].any()
    assert not changed[85:195].any()  # a long word has a wide key
    assert changed[205:].any()


def test_sheets_have_a_place_for_every_picture() -> None:
    assert sheet_frames(51) == [0, 25, 50]
    assert len(sheet_frames(100_000)) <= 24
    pictures = [np.full((32, 64, 3), 50 * i, np.uint8) for i in range(5)]
    sheet = np.asarray(contact_sheet(pictures, ["a very long caption indeed"] * 5))
    for i in range(1, 5):
        assert (sheet == 50 * i).all(axis=2).sum() >= 32 * 64
