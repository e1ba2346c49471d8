import struct
from pathlib import Path

import numpy as np
import pytest

from reverie.errors import WorldError
from reverie_worlds.doom.level import LINE, SECTOR, SIDE, SIGHT_UNITS, THING, VERTEX, Level, read_level
from reverie_worlds.doom.wad import Wad, write_palette

SLOPES = np.array([-1.0, -0.5, 0.0, 0.5, 1.0], np.float32)


def write_wad(path: Path, lumps: dict[str, bytes]) -> Wad:
    data, entries = b"", b""
    for name, content in lumps.items():
        entries += struct.pack("<ii8s", 12 + len(data), len(content), name.encode())
        data += content
    path.write_bytes(struct.pack("<4sii", b"IWAD", len(lumps), 12 + len(data)) + data + entries)
    return Wad(path)


@pytest.fixture
def room(tmp_path: Path) -> Level:
    """A room from (0, 0) to (200, 200), its right wall a door (line 2) to a corridor that goes on to x = 600; in the
    corridor a step of 32 units up at x = 400."""
    corners = [(0, 0), (0, 200), (200, 200), (200, 0), (400, 0), (400, 200), (600, 200), (600, 0), (208, 0), (208, 200)]
    walls = [(0, 1), (1, 2), (2, 9), (9, 5), (5, 6), (6, 7), (7, 4), (4, 8), (8, 3), (3, 0)]
    lines = [(a, b, 1, 0, 0, 0, -1) for a, b in walls]
    lines += [(2, 3, 4, 1, 0, 0, 3), (8, 9, 4, 1, 0, 1, 3), (5, 4, 4, 0, 0, 1, 2)]
    sides = [((0, 0), (b"-", b"-", b"-"), sector) for sector in (0, 1, 2, 3)]
    sectors = [(0, 128, b""), (0, 128, b""), (32, 128, b""), (0, 0, b"")]
    things = [(50, 60, 0, 2014, 7), (70, 80, 0, 3001, 7), (90, 90, 0, 2007, 16)]
    wad = write_wad(
        tmp_path / "room.wad",
        {
            "MAP01": b"",
            "THINGS": np.array(things, THING).tobytes(),
            "LINEDEFS": np.array(lines, LINE).tobytes(),
            "SIDEDEFS": np.array(sides, SIDE).tobytes(),
            "VERTEXES": np.array(corners, VERTEX).tobytes(),
            "SECTORS": np.array(sectors, SECTOR).tobytes(),
        },
    )
    return read_level(wad, "MAP01")


def test_walls_are_as_far_as_the_map_says(room: Level) -> None:
    sight = room.look(100, 100, 180.0, SLOPES)  # yaw grows clockwise from east: west
    np.testing.assert_allclose(sight.free, [100, 100, 100, 100, 100], atol=0.01)
    assert sight.view == pytest.approx(100)
    assert sight.use == np.inf
    south = room.look(50, 150, 90.0, np.array([0.0], np.float32).repeat(3))
    assert south.free[0] == pytest.approx(150)


def test_a_closed_door_stops_and_can_be_used_until_it_is_open(room: Level) -> None:
    sight = room.look(100, 100, 0.0, SLOPES)
    assert sight.free[2] == pytest.approx(100)
    assert (sight.use, sight.use_slope) == (pytest.approx(100), 0.0)
    through = room.look(100, 100, 0.0, SLOPES, is_open=True)
    assert through.free[2] == pytest.approx(300), "as far as the high step in the corridor"
    assert through.use == np.inf
    assert (sight.view, through.view) == (pytest.approx(100), pytest.approx(200)), "one sees the corridor's sides"


def test_a_high_step_stops_from_below_and_not_from_above(room: Level) -> None:
    assert room.look(300, 100, 0.0, SLOPES).free[2] == pytest.approx(100)
    assert room.look(300, 100, 0.0, SLOPES).view == pytest.approx(200), "but one sees over it"
    assert room.look(500, 100, 180.0, SLOPES).free[2] == pytest.approx(292)


def test_free_places_are_what_one_can_walk_to(room: Level) -> None:
    places = room.free_places(100, 100, 40.0, 1000.0)
    xs, ys = places.T
    assert (xs.min(), xs.max(), ys.min(), ys.max()) == (40, 160, 40, 160), "the door is closed, the walls are near"
    assert len(places) == 16
    assert len(room.free_places(100, 100, 40.0, 50.0)) == 4
    corridor = room.free_places(300, 100, 40.0, 1000.0)
    assert corridor[:, 0].min() > 208
    assert corridor[:, 0].max() < 400, "up no high step"
    down = room.free_places(500, 100, 40.0, 1000.0)
    assert down[:, 0].min() < 400 < down[:, 0].max(), "but down it"


def test_nothing_in_sight(room: Level) -> None:
    sight = room.look(5000, 5000, 0.0, SLOPES)
    assert (sight.free == SIGHT_UNITS).all()
    assert sight.use == np.inf


def test_spots_are_where_items_of_a_single_player_lie(room: Level) -> None:
    assert room.spots == [(50, 60)]


def test_a_palette_is_brightened(tmp_path: Path) -> None:
    wad = write_wad(tmp_path / "game.wad", {"PLAYPAL": bytes(range(256)) * 3})
    write_palette(tmp_path / "bright.wad", wad, 2.0)
    found = np.frombuffer(Wad(tmp_path / "bright.wad").read("PLAYPAL"), np.uint8)[:256]
    assert (found[0], found[64], found[255]) == (0, 128, 255)
    assert (np.diff(found.astype(int)) >= 0).all()


def test_a_file_that_is_no_wad_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "game.wad"
    with pytest.raises(WorldError, match="not a readable WAD file"):
        Wad(path)
    path.write_bytes(b"RIFF" + bytes(20))
    with pytest.raises(WorldError, match="not a WAD file, it begins with b'RIFF'"):
        Wad(path)
    with pytest.raises(WorldError, match="has no MAP07 THINGS"):
        write_wad(path, {"MAP01": b""}).read("THINGS", after="MAP07")
