"""Recorded ways: thinned, measured on walks that were held out, written and read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from reverie.errors import DataError
from reverie.scenes.recorded_ways import (
    COLUMNS,
    MIN_HEADING_DEG,
    RecordedWays,
    measure_distances,
    measure_ways,
    read_ways,
    write_ways,
)

Poses = npt.NDArray[np.float32]


def measure(recorded: list[Poses], held_out: list[Poses]) -> RecordedWays:
    ways = measure_ways(recorded, held_out, 5.0)
    assert ways is not None
    return ways


def walk(offset: float = 0.0, length: float = 20.0, yaw: float = 0.0) -> Poses:
    """North, a frame every 10 cm, so many metres beside the middle."""
    y = np.arange(0, length, 0.1)
    return np.stack([np.full_like(y, offset), y, 0 * y + 1.5, 0 * y + yaw, 0 * y, 0 * y], 1).astype(np.float32)


def test_its_radius_is_how_far_other_walks_strayed() -> None:
    ways = measure([walk(0.0), walk(0.4)], [walk(1.2), walk(-0.7)])
    assert ways.radius == pytest.approx(0.8, abs=0.1)
    assert len(ways.poses) < 150, "thinned"
    assert float(ways.heading.max()) == MIN_HEADING_DEG
    away = measure_distances(torch.from_numpy(walk(0.2)[:, :3]), torch.from_numpy(ways.poses[:, :3])).amin(1)
    assert float(away.max()) < 0.6, "what was recorded is on it"


def test_where_walks_go_anywhere_there_are_no_ways() -> None:
    assert measure_ways([walk()], [walk(4.0)], 5.0) is not None
    assert measure_ways([walk()], [walk(4.0)], 3.0) is None
    assert measure_ways([walk()], [walk()[:0]], 3.0) is None
    assert measure_ways([walk()[:0]], [walk()], 3.0) is None


def test_headings_are_as_free_as_they_were_in_bends() -> None:
    bend = walk(length=2.0)
    bend[:, 3] = np.linspace(0, 90, len(bend))
    bend[:, 1] += 20
    ways = measure([np.concatenate([walk(), bend])], [walk(0.2)])
    straight, turning = ways.poses[:, 1] < 18, ways.poses[:, 1] > 20.5
    assert ways.heading[straight].max() == MIN_HEADING_DEG
    assert ways.heading[turning].min() > 2 * MIN_HEADING_DEG


def test_what_led_to_a_fall_is_no_way() -> None:
    off = walk(length=30.0)
    off[200:, 0] += 50.0  # it was put elsewhere
    turned = walk(length=30.0)
    turned[200:, 3] += 90.0  # it was put there, but turned
    for fall in (off, turned):
        ways = measure([fall], [walk(length=10.0)])
        y = np.sort(ways.poses[:, 1])
        assert y[y < 19.9].max() < 15.1
        assert y.max() > 29, "it goes on from there"


def test_there_are_never_more_than_a_scene_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reverie.scenes.recorded_ways.MAX_WAYS", 20)
    assert len(measure([walk()], [walk(0.5)]).poses) <= 20


def test_they_are_read_as_written(tmp_path: Path) -> None:
    ways = measure([walk()], [walk(0.5)])
    write_ways(tmp_path, ways)
    found = read_ways(tmp_path)
    assert found is not None
    np.testing.assert_array_equal(found.poses, ways.poses)
    np.testing.assert_array_equal(found.heading, ways.heading)
    assert found.radius == pytest.approx(ways.radius, abs=1e-4)
    assert [path.name for path in tmp_path.iterdir()] == ["ways.parquet"]
    write_ways(tmp_path, None)
    assert read_ways(tmp_path) is None


def sound() -> dict[str, list[float]]:
    return {name: [1.0, 2.0] for name in COLUMNS}


@pytest.mark.parametrize(
    ("columns", "radius", "says"),
    [
        ({**sound(), "yaw": [0.0, float("nan")]}, "1.0", "not those of poses"),
        ({**sound(), "x": [0.0, 1e9]}, "1.0", "not those of poses"),
        ({**sound(), "heading": [0.0, 5.0]}, "1.0", "not those of poses"),
        (sound(), "-2", "not those of poses"),
        (sound(), "far", "could not convert"),
        (sound(), None, "no radius"),
        ({name: values for name, values in sound().items() if name != "heading"}, "1.0", "no heading"),
        ({name: [] for name in COLUMNS}, "1.0", "expected 1 to 16384 rows, got 0"),
        ({**sound(), "y": ["a", "b"]}, "1.0", "could not convert"),
    ],
)
def test_a_damaged_file_is_told_in_one_line(
    tmp_path: Path, columns: dict[str, list[float]], radius: str | None, says: str
) -> None:
    table = pa.table(columns).replace_schema_metadata({} if radius is None else {"radius": radius})
    pq.write_table(table, tmp_path / "ways.parquet")
    with pytest.raises(DataError, match=says) as error:
        read_ways(tmp_path)
    assert str(tmp_path / "ways.parquet") in str(error.value)
    assert "\n" not in str(error.value)


def test_a_foreign_file(tmp_path: Path) -> None:
    (tmp_path / "ways.parquet").write_bytes(b"PAR1 no parquet at all")
    with pytest.raises(DataError, match="not readable as recorded ways"):
        read_ways(tmp_path)
