"""Recorded body: clips chosen, pasts embedded, written and read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from tests.helpers.damage import ANY, Damage, examples
from tests.helpers.player_body import BOTTOM, CENTRE, HALF, LEAN, SIZE, TOP, recorded, walk

from reverie.errors import DataError
from reverie.scenes.body_matching import Body
from reverie.scenes.recorded_body import (
    CLIP_FRAMES,
    FILE,
    RecordedBody,
    choose_clips,
    describe_past,
    read_body,
    record_body,
    write_body,
)


@pytest.fixture(scope="module")
def body() -> RecordedBody:
    return recorded()


def test_a_body_is_clips_of_the_box_that_it_is_in(body: RecordedBody) -> None:
    assert len(body.image) == 240
    assert np.bincount(body.clip).tolist() == [CLIP_FRAMES] * 10
    assert body.corner == (2 * TOP, 2 * (CENTRE - LEAN - HALF))
    assert body.image.shape[1:] == (2 * (BOTTOM - TOP), 2 * (2 * LEAN + 2 * HALF), 4)
    opaque = body.image[..., 3] == 255
    assert 0.2 < opaque.mean() < 0.3, "a box of 12 columns of 52"
    assert body.image[opaque][:, 2].min() == 220, "its own colours alone"
    assert (body.image[..., 2][body.image[..., 3] > 0] > 150).all(), "what is behind its rim is not kept"


def test_pasts_are_alike_where_the_looks_that_they_led_to_are(body: RecordedBody) -> None:
    middle = (body.image[..., 3].astype(float).mean(1) * np.arange(body.image.shape[2])).sum(1)
    place = middle / body.image[..., 3].astype(float).mean(1).sum(1)
    settled = np.arange(len(place)) % CLIP_FRAMES > 8
    sides = [settled & (place < 30), settled & (place > 75), settled & (np.abs(place - 51.5) < 5)]
    centres = [body.embedding[side].mean(0) for side in sides]
    for side, own in zip(sides, centres, strict=True):
        apart = [np.linalg.norm(body.embedding[side] - centre, axis=1) for centre in centres]
        nearest = np.linalg.norm(body.embedding[side] - own, axis=1)
        assert (nearest <= np.min(apart, 0) + 1e-6).mean() > 0.9


def test_a_past_is_means_of_four_frames_actions_and_motions() -> None:
    actions, motions = torch.zeros(1, 24, 2), torch.zeros(1, 24, 6)
    actions[0, -2:, 1] = 1
    motions[0, :4, 0] = 0.2
    past = describe_past(actions, motions).view(6, 8)
    assert past[5, 1] == 0.5
    assert past[0, 2] == pytest.approx(0.2)
    assert past.count_nonzero() == 2


def test_clips_are_chosen_for_what_the_others_do_not_show() -> None:
    told = [torch.zeros(96, 2), torch.cat([torch.zeros(48, 2), torch.ones(48, 2)])]
    usable = [torch.ones(96, dtype=torch.bool) for _ in told]
    assert len(choose_clips(told, 1, usable)) == 1
    shown = torch.cat([told[walk][at + 4 : at + CLIP_FRAMES] for walk, at in choose_clips(told, 2, usable)])
    assert shown.unique().tolist() == [0, 1]
    usable[1][80] = False
    assert all(walk == 0 or not at <= 80 < at + CLIP_FRAMES for walk, at in choose_clips(told, 9, usable))


def test_a_body_that_something_hides_is_not_shown() -> None:
    seen = walk([None] * 8)
    half_hidden = seen.body.copy()
    half_hidden[40:60, TOP : BOTTOM - 8] = False
    found = record_body([seen._replace(body=half_hidden)], 240)
    assert found is not None
    assert (found.image[..., 3] > 0).mean((1, 2)).min() > 0.9


def test_where_nobody_is_seen_there_is_no_body() -> None:
    seen = walk([None] * 4)
    assert record_body([], 240) is None
    assert record_body([walk([None], CLIP_FRAMES - 1)], 240) is None, "too short"
    assert record_body([seen._replace(body=np.zeros_like(seen.body))], 240) is None
    assert record_body([seen._replace(body=np.ones_like(seen.body))], 240) is None
    assert record_body([seen], 240) is not None
    blinking = seen.body.copy()
    blinking[::12] = False
    assert record_body([seen._replace(body=blinking)], 240) is None, "never for a second"


def test_a_written_body_is_the_body(body: RecordedBody, tmp_path: Path) -> None:
    assert read_body(tmp_path, SIZE, 2) is None
    write_body(tmp_path, body)
    found = read_body(tmp_path, SIZE, 2)
    assert found is not None
    assert found.corner == body.corner
    np.testing.assert_array_equal(found.clip, body.clip)
    for name in ("embedding", "mean", "weights"):
        np.testing.assert_allclose(getattr(found, name), getattr(body, name), rtol=1e-4, atol=1e-6)
    opaque = body.image[..., 3] > 0
    assert np.abs(found.image[..., 3].astype(int) - body.image[..., 3]).mean() < 4
    assert np.abs(found.image[opaque].astype(int) - body.image[opaque]).mean() < 12
    assert [file.name for file in tmp_path.iterdir()] == [FILE]
    write_body(tmp_path, None)
    assert read_body(tmp_path, SIZE, 2) is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"rows": 0}, "expected 1 to 4096 rows, got 0"),
        ({"corner": [120, 0]}, "lie outside of the frame"),
        ({"corner": None}, "not readable"),
        ({"mean": [0.0]}, "not those of actions of 2 numbers"),
        ({"weights": [[1e9] * 24] * 48}, "out of range"),
        ({"clip": 1}, "no clip has 4 frames"),
        ({"image": b"RIFF"}, "cannot identify image file"),
        ({"image": None}, "not readable"),
    ],
)
def test_a_damaged_or_foreign_body(body: RecordedBody, tmp_path: Path, change: dict[str, Any], says: str) -> None:
    write_body(tmp_path, body)
    table = pq.read_table(tmp_path / FILE)
    told = {key.decode(): json.loads(text) for key, text in table.schema.metadata.items()}
    told |= {name: value for name, value in change.items() if name in told}
    if "rows" in change:
        table = table.slice(0, 0)
    if "clip" in change:
        table = table.set_column(1, "clip", pa.array(np.arange(len(table))))
    if "image" in change:
        images = [*table["image"].to_pylist()[1:], change["image"]]
        table = table.set_column(0, "image", pa.array(images, pa.binary()))
    metadata = {name: json.dumps(value) for name, value in told.items()}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / FILE)
    with pytest.raises(DataError) as caught:
        read_body(tmp_path, SIZE, 2)
    assert says in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def stored(body: RecordedBody, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stored")
    write_body(folder, body)
    return folder / FILE


@examples(100)
@given(damage=ANY)
def test_a_damaged_body_is_a_body_or_one_line(
    stored: Path, tmp_path_factory: pytest.TempPathFactory, damage: Damage
) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged-body"
    folder.mkdir(exist_ok=True)
    (folder / FILE).write_bytes(damage.apply(stored.read_bytes()))
    found = _read(folder)
    assert "\n" not in found if isinstance(found, str) else len(Body.of(found, [0, 1], 2).ends) > 0


def _read(folder: Path) -> RecordedBody | str:
    """The body, or why it is none."""
    try:
        found = read_body(folder, SIZE, 2)
    except DataError as error:
        return str(error)
    assert found is not None
    return found


def test_a_body_of_another_game_or_no_parquet_at_all(body: RecordedBody, tmp_path: Path) -> None:
    write_body(tmp_path, body)
    with pytest.raises(DataError, match="not those of actions of 3 numbers"):
        read_body(tmp_path, SIZE, 3)
    with pytest.raises(DataError, match="lie outside of the frame"):
        read_body(tmp_path, (64, 112), 2)
    (tmp_path / FILE).write_bytes(b"no")
    with pytest.raises(DataError, match="not readable as a recorded body"):
        read_body(tmp_path, SIZE, 2)
