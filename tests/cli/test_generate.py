from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reverie import cli
from reverie.engine.media.render import rollout
from reverie.engine.media.video import read_frames, read_log
from reverie.engine.sessions.script import parse
from reverie.overlay import strip_height

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
