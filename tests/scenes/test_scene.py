"""Scenes on disk: what is saved is what is loaded, and whatever is wrong is one clear line."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from tests.helpers import player_body
from tests.helpers.damage import ANY, Damage, examples
from tests.helpers.rendered_room import around, look

from reverie.errors import DataError
from reverie.scenes import image_rows
from reverie.scenes.ego_motion import FILE, EgoMotionNet
from reverie.scenes.recorded_ways import RecordedWays
from reverie.scenes.scene import COLOUR_QUALITY, KEYFRAMES, Scene, Start
from reverie.types import ActionSpace

COUNT = 4


def make_scene() -> Scene:
    poses = around(COUNT, 0.5)
    poses[:, 2] = 0.25
    seen = [look(pose, (128, 224)) for pose in poses]
    hidden = np.zeros((COUNT, 64, 112), bool)
    hidden[:, 50:, 40:70] = True
    return Scene(
        name="room",
        title="A made-up room",
        game="test",
        fov_deg=90.0,
        pixel_aspect=1.2,
        keys=("forward", "left"),
        mouse=True,
        licence="CC0-1.0",
        starts=(Start("by the door", seen[0][0], poses[0]), Start("at the window", seen[2][0], poses[2])),
        colour=np.stack([colour for colour, _ in seen]),
        depth=np.stack([look(pose)[1] for pose in poses]),
        hidden=hidden,
        pose=poses,
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "room"
    make_scene().save(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    copy = tmp_path / "room"
    copy.mkdir()
    for file in saved.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def refusal(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        Scene.load(folder)
    text = str(caught.value)
    assert "\n" not in text, "an error is one line"
    assert str(folder) in text, "an error names the file"
    return text


def test_a_saved_scene_is_the_scene(saved: Path) -> None:
    made, loaded = make_scene(), Scene.load(saved)
    for name in ("name", "title", "game", "fov_deg", "pixel_aspect", "keys", "mouse", "licence"):
        assert getattr(loaded, name) == getattr(made, name), name
    assert len(loaded) == COUNT
    assert loaded.resolution == (128, 224)
    assert np.abs(loaded.colour.astype(int) - made.colour).mean() < 4, COLOUR_QUALITY
    assert np.abs(loaded.depth / made.depth - 1).max() < 0.018
    assert np.array_equal(loaded.hidden, made.hidden)
    np.testing.assert_allclose(loaded.pose, made.pose, atol=1e-6)
    assert [start.title for start in loaded.starts] == ["by the door", "at the window"]
    np.testing.assert_allclose(loaded.start(1).pose, made.starts[1].pose, atol=1e-4)
    assert np.abs(loaded.start(1).image.astype(int) - made.starts[1].image).mean() < 4


def test_its_ego_motion_is_saved_with_it(folder: Path) -> None:
    assert Scene.load(folder).ego_motion is None, "a scene without is sound"
    torch.manual_seed(0)
    network = EgoMotionNet(4, 8)
    torch.nn.init.normal_(network.last.weight)
    made = dataclasses.replace(make_scene(), ego_motion=network)
    made.save(folder)
    found = Scene.load(folder).ego_motion
    assert found is not None
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], tensor, atol=1e-3, rtol=1e-3)
    make_scene().save(folder)
    assert Scene.load(folder).ego_motion is None, "what is saved again is what is there"


def test_a_scene_says_whether_it_has_walls(folder: Path) -> None:
    assert Scene.load(folder).walls
    dataclasses.replace(make_scene(), walls=False).save(folder)
    assert not Scene.load(folder).walls
    raw = json.loads((folder / "scene.json").read_text())
    del raw["walls"]
    (folder / "scene.json").write_text(json.dumps(raw))
    assert Scene.load(folder).walls, "older ones do not say"


def test_its_recorded_ways_are_saved_with_it(folder: Path) -> None:
    assert Scene.load(folder).ways is None, "a scene without is sound"
    poses = np.array([[0, 1, 2, 350], [0, 2, 2, 10]], np.float32)
    made = dataclasses.replace(make_scene(), ways=RecordedWays(poses, np.array([10, 30], np.float32), 0.75))
    made.save(folder)
    found = Scene.load(folder).ways
    assert found is not None
    np.testing.assert_array_equal(found.poses, poses)
    assert (found.heading.tolist(), found.radius) == ([10, 30], 0.75)
    (folder / "ways.parquet").write_bytes(b"no")
    assert "ways.parquet: not readable as recorded ways" in refusal(folder)
    make_scene().save(folder)
    assert Scene.load(folder).ways is None, "what is saved again is what is there"


def test_its_recorded_body_is_saved_with_it(folder: Path) -> None:
    assert Scene.load(folder).body is None, "a scene without is sound"
    recorded = player_body.recorded()
    made = dataclasses.replace(make_scene(), keys=player_body.KEYS, mouse=False, body=recorded)
    made.save(folder)
    found = Scene.load(folder).body
    assert found is not None
    np.testing.assert_array_equal(found.clip, recorded.clip)
    (folder / "body.parquet").write_bytes(b"no")
    assert "body.parquet: not readable as a recorded body" in refusal(folder)
    make_scene().save(folder)
    assert Scene.load(folder).body is None, "what is saved again is what is there"


def test_its_ego_motion_reads_its_own_controls_of_a_models_actions() -> None:
    made = dataclasses.replace(make_scene(), ego_motion=EgoMotionNet(4, 8))
    found = made.ego_motion_for(ActionSpace(("back", "left", "forward", "jump")))
    assert found is not None
    assert found.columns == [2, 1, 4, 5]
    assert made.ego_motion_for(ActionSpace(("left", "forward"), mouse=False)) is None, "it could not be told to turn"
    assert make_scene().ego_motion_for(ActionSpace(("left", "forward"))) is None


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        (b"no tensors", "no ego-motion network of 4 action numbers"),
        ({"hidden.0.weight": torch.zeros(3, 3)}, "hidden.0.bias"),
        (EgoMotionNet(5, 8).state_dict(), "size mismatch|loading state_dict"),
        ({name: x * float("nan") for name, x in EgoMotionNet(4, 8).state_dict().items()}, "not those of a network"),
        ({**EgoMotionNet(4, 8).state_dict(), "more": torch.zeros(1)}, "loading state_dict"),
        ({**EgoMotionNet(4, 8).state_dict(), "hidden.0.bias": torch.zeros(2_000)}, "not those of a network"),
        ({"hidden.0.bias": torch.zeros(3 * 2**20)}, "larger than 8 MiB"),
    ],
)
def test_a_damaged_or_foreign_ego_motion(folder: Path, weights: bytes | dict[str, torch.Tensor], says: str) -> None:
    path = folder / FILE
    if isinstance(weights, bytes):
        path.write_bytes(weights)
    else:
        save_file(weights, path)
    with pytest.raises(DataError, match=says) as caught:
        Scene.load(folder)
    assert "\n" not in str(caught.value)
    assert "reverie scene ego-motion" in str(caught.value)


def test_nothing_else_is_left_in_the_folder(saved: Path) -> None:
    assert sorted(file.name for file in saved.iterdir()) == [
        KEYFRAMES,
        "scene.json",
        "start-00.webp",
        "start-01.webp",
    ]


def test_saving_again_replaces(folder: Path) -> None:
    make_scene().save(folder)
    assert len(Scene.load(folder)) == COUNT


def test_a_start_that_is_not_there(saved: Path) -> None:
    scene = Scene.load(saved)
    for index in (-1, 2):
        with pytest.raises(DataError, match=f"starts 0 to 1, got {index}"):
            scene.start(index)


def test_a_folder_that_is_no_scene(tmp_path: Path) -> None:
    assert "scene.json is missing" in refusal(tmp_path)
    assert "reverie scene build" in refusal(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not readable JSON"),
        (b"{", "not readable JSON"),
        (b"\xff\xfe{}", "not readable JSON"),
        (b"[" * 100_000, "not readable JSON"),
        (b"[]", "is not a scene"),
        (b'{"kind": "reverie.world", "version": 1}', "is not a scene"),
        (b'{"kind": "reverie.scene", "version": 99}', "version 99, this Reverie reads version 1"),
        (b'{"kind": "reverie.scene", "version": 1}', "missing or wrong"),
    ],
)
def test_a_bad_json(folder: Path, content: bytes, says: str) -> None:
    (folder / "scene.json").write_bytes(content)
    assert says in refusal(folder)


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    raw = json.loads((folder / "scene.json").read_text())
    edit(raw)
    (folder / "scene.json").write_text(json.dumps(raw))


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda raw: raw.update(fov_deg="wide"), "missing or wrong"),
        (lambda raw: raw.update(fov_deg=None), "missing or wrong"),
        (lambda raw: raw.update(fov_deg=5), "fov_deg in 20..150"),
        (lambda raw: raw.update(pixel_aspect=0), "pixel_aspect in 0.25..4"),
        (lambda raw: raw.update(fov_deg=float("nan")), "fov_deg in 20..150"),
        (lambda raw: raw.update(starts=[]), "at least one start"),
        (lambda raw: raw.update(starts=3), "missing or wrong"),
        (lambda raw: raw.update(keys=7), "missing or wrong"),
        (lambda raw: raw["starts"][0].pop("title"), "missing or wrong"),
        (lambda raw: raw["starts"][0].update(pose=[0, 0, 0]), "six finite numbers"),
        (lambda raw: raw["starts"][0].update(pose=[0, 0, 0, 0, 95, 0]), "six finite numbers"),
        (lambda raw: raw["starts"][0].update(pose=[0, float("inf"), 0, 0, 0, 0]), "six finite numbers"),
        (lambda raw: raw["starts"][0].update(image="../secret.png"), "start images lie beside it"),
        (lambda raw: raw["starts"][0].update(image=5), "missing or wrong"),
        (lambda raw: raw["starts"][0].update(image="gone.webp"), "not a readable start image"),
        (lambda raw: raw["starts"][0].update(image=".."), "not a readable start image"),
        (lambda raw: raw["starts"][0].update(image="a\0b"), "not a readable start image"),
        (lambda raw: raw["starts"][0].update(image="."), "start images lie beside it"),
        (lambda raw: raw["starts"][0].update(pose=[10**400, 0, 0, 0, 0, 0]), "missing or wrong"),
        (lambda raw: raw["starts"][0].update(pose=[1e30, 0, 0, 0, 0, 0]), "six finite numbers"),
        (lambda raw: raw.update(starts=raw["starts"] * 200), "more than 256 starts"),
        (lambda raw: raw.update(fov_deg=10**400), "missing or wrong"),
        (lambda raw: raw.update(title="half of an emoji: \ud83d"), "missing or wrong"),
        (lambda raw: raw["starts"][0].update(title="\udc00"), "missing or wrong"),
        (lambda raw: raw.update(keys=["\udc00"]), "missing or wrong"),
        (lambda raw: raw.update(padding="x" * 2**20), "larger than 1 MiB"),
    ],
)
def test_a_wrong_field(folder: Path, edit: Callable[[dict[str, Any]], object], says: str) -> None:
    change(folder, edit)
    assert says in refusal(folder)


def test_a_damaged_start_image(folder: Path) -> None:
    content = (folder / "start-01.webp").read_bytes()
    for damaged in (b"", b"garbage", content[: len(content) // 2]):
        (folder / "start-01.webp").write_bytes(damaged)
        assert "start-01.webp: not a readable start image" in refusal(folder)


def test_missing_and_foreign_keyframes(folder: Path) -> None:
    path = folder / KEYFRAMES
    content = path.read_bytes()
    for damaged in (b"", b"PAR1", content[:-40], content[: len(content) // 2]):
        path.write_bytes(damaged)
        assert "not readable as keyframes" in refusal(folder)
    pq.write_table(pa.table({"image": [b"x"]}), path)
    assert "not readable as keyframes" in refusal(folder)
    path.unlink()
    assert "not readable as keyframes" in refusal(folder)


def replace(folder: Path, column: str, row: int, value: object) -> None:
    table = pq.read_table(folder / KEYFRAMES).to_pydict()
    table[column][row] = value
    pq.write_table(pa.table(table), folder / KEYFRAMES)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("colour", b"no image"),
        ("colour", b""),
        ("colour", None),
        ("depth", b"no image"),
        ("hidden", b"no image"),
        ("pose", [0.0, 0.0, 0.0, 0.0, 0.0]),
        ("pose", [0.0, 0.0, float("nan"), 0.0, 0.0, 0.0]),
        ("pose", None),
    ],
)
def test_a_damaged_keyframe_is_named(folder: Path, column: str, value: object) -> None:
    replace(folder, column, 2, value)
    assert f"{KEYFRAMES}, row 2: a damaged keyframe" in refusal(folder)


def test_an_image_as_large_as_a_file_can_say_is_not_decoded(folder: Path) -> None:
    """A few kilobytes that become gigabytes."""
    bomb = _bomb((20_000, 20_000))
    replace(folder, "colour", 1, bomb)
    assert "row 1: a damaged keyframe" in refusal(folder)
    replace(folder, "colour", 1, _bomb((3000, 3000)))
    assert "row 1: a damaged keyframe (an image of 3000x3000 pixels)" in refusal(folder)
    replace(folder, "colour", 1, bytes(image_rows.MAX_IMAGE_BYTES + 1))
    assert "an image of more than 8 MiB" in refusal(folder)
    (folder / "start-00.webp").write_bytes(bomb)
    assert "start-00.webp: not a readable start image" in refusal(folder)


def _bomb(size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("1", size).save(buffer, "PNG")
    return buffer.getvalue()


def test_more_keyframes_than_a_scene_has_are_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_rows, "MAX_ROWS", 3)
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", None)
    assert "expected 1 to 3 rows, got 4" in refusal(folder)


@examples(150)
@given(damage=ANY, name=st.sampled_from(["scene.json", KEYFRAMES, "start-00.webp"]))
def test_a_damaged_scene_is_a_scene_or_one_line(saved: Path, tmp_path_factory, damage: Damage, name: str) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged-scene"
    shutil.copytree(saved, folder, dirs_exist_ok=True)
    (folder / name).write_bytes(damage.apply((folder / name).read_bytes()))
    loaded = _read(folder)
    if isinstance(loaded, str):
        assert "\n" not in loaded
        assert str(folder) in loaded
    else:
        assert np.isfinite(loaded.pose).all()
        assert np.isfinite(loaded.depth).all()
        loaded.title.encode()


def _read(folder: Path) -> Scene | str:
    """The scene, or why it is none."""
    try:
        return Scene.load(folder)
    except DataError as error:
        return str(error)


def test_a_truncated_image_is_a_damaged_keyframe(folder: Path) -> None:
    colour = pq.read_table(folder / KEYFRAMES).to_pydict()["colour"][1]
    replace(folder, "colour", 1, colour[: len(colour) // 2])
    assert "row 1: a damaged keyframe" in refusal(folder)


def test_a_keyframe_of_another_size(folder: Path) -> None:
    table = pq.read_table(folder / KEYFRAMES).to_pydict()
    replace(folder, "depth", 3, table["colour"][0])
    assert "row 3: expected" in refusal(folder)
    replace(folder, "depth", 3, table["depth"][3])
    replace(folder, "colour", 1, table["depth"][1])
    assert "row 1: expected" in refusal(folder)


def test_no_keyframes_at_all(folder: Path) -> None:
    pq.write_table(pq.read_table(folder / KEYFRAMES).slice(0, 0), folder / KEYFRAMES)
    assert "expected 1 to 4096 rows, got 0" in refusal(folder)
