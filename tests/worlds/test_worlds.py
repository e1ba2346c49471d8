"""The registry of games: entry points of distributions, games that are added, and games that are not there."""

from __future__ import annotations

import logging
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from reverie import worlds
from reverie.data.policies import policy_for
from reverie.data.policies.explore import ExploringPolicy
from reverie.errors import WorldError
from reverie.types import Action, ExplorableWorld, RecordableWorld
from reverie.worlds import Registry, WorldInfo, open_world

CHESS = WorldInfo("chess", "a board", object)
NO_INFO = "a text"


def point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, worlds.GROUP)


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    """Entry points that are found; empty at first."""
    found: list[EntryPoint] = []
    monkeypatch.setattr(worlds, "entry_points", lambda group: list(found))
    monkeypatch.setitem(sys.modules, "tested_games", sys.modules[__name__])
    return found


def test_games_of_distributions_are_found_at_the_first_use(points: list[EntryPoint]) -> None:
    registry = Registry(WorldInfo("own", "a game", object))
    points.append(point("chess", "tested_games:CHESS"))
    assert list(registry) == ["chess", "own"]
    assert registry["chess"] is CHESS
    assert registry.installed == {"chess"}


def test_an_added_game_goes_before_one_of_a_distribution(points: list[EntryPoint]) -> None:
    points.append(point("chess", "tested_games:CHESS"))
    registry = Registry()
    mine = WorldInfo("chess", "another board", object)
    registry["chess"] = mine
    assert registry["chess"] is mine
    del registry["chess"]
    assert "chess" not in registry
    assert len(registry) == 0


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("no_such_module_of_games:INFO", "cannot be loaded: ModuleNotFoundError"),
        ("tested_games:NO_SUCH_NAME", "cannot be loaded: AttributeError"),
        ("tested_games:NO_INFO", "must be a WorldInfo, got str"),
    ],
)
def test_a_broken_distribution_leaves_the_others_alone(
    points: list[EntryPoint], value: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    points += [point("broken", value), point("chess", "tested_games:CHESS")]
    with caplog.at_level(logging.WARNING, "reverie.worlds"):
        assert list(Registry()) == ["chess"]
    (record,) = caplog.records
    assert f"the game broken ({value})" in record.message
    assert reason in record.message


def test_an_unknown_game_says_how_to_install_the_real_ones(
    points: list[EntryPoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worlds, "WORLDS", Registry(WorldInfo("yard", "a yard", object)))
    with pytest.raises(WorldError) as caught:
        open_world("city")
    assert str(caught.value) == (
        "unknown game 'city'; known games: yard; the real games are not installed here: "
        'pip install "reverie-world[worlds]"'
    )
    points.append(point("chess", "tested_games:CHESS"))
    monkeypatch.setattr(worlds, "WORLDS", Registry())
    with pytest.raises(WorldError, match=r"unknown game 'city'; known games: chess$"):
        open_world("city")


def test_the_yard_needs_nothing() -> None:
    world = open_world("yard")
    world.reset(0)
    assert isinstance(world, RecordableWorld)
    assert not isinstance(world, ExplorableWorld)
    before = world.pose
    world.step(Action(frozenset({"forward"})))
    assert (world.pose[:2] != before[:2]).any()
    assert isinstance(policy_for("yard", 0), ExploringPolicy)
    world.close()


WITHOUT_GAMES = """
import importlib.metadata, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("reverie_worlds", "vizdoom", "panda3d"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block())
found = importlib.metadata.entry_points
importlib.metadata.entry_points = lambda **query: [] if query.get("group") == "reverie.worlds" else found(**query)
from reverie import cli
words = "--hours 0.0006 --episode-seconds 1 --min-episode-seconds 0.5 --processes 0".split()
codes = [cli.main(["record", game, "-o", sys.argv[1] + "/" + game, *words]) for game in ("yard", "city")]
assert codes == [0, 2], codes
"""


def test_the_toy_is_recorded_without_the_games(tmp_path: Path) -> None:
    """Where their distribution is not installed; tests/test_imports.py sees to it that nothing else asks for it."""
    done = subprocess.run([sys.executable, "-c", WITHOUT_GAMES, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "yard/meta/info.json").is_file()
    assert not (tmp_path / "city").exists()
    assert "unknown game 'city'" in done.stderr
    assert 'pip install "reverie-world[worlds]"' in done.stderr
