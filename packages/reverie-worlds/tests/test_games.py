"""Every game is found by its entry point, with its player and its limits, and says what it needs."""

from __future__ import annotations

import pickle
import tomllib
from pathlib import Path

import pytest

from reverie.data.checks import limits_of
from reverie.data.policies import policy_for
from reverie.data.poses import OLD_WORLDS
from reverie.data.record import RecordConfig, make_job
from reverie.train.spatial.gather import place_of_game
from reverie.train.spatial.plans import GAMES
from reverie.worlds import GROUP, WORLDS, WorldInfo, install_command, missing
from reverie.worlds.limits import USUAL

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NAMES = sorted(PROJECT["entry-points"][GROUP])


@pytest.fixture(params=NAMES)
def info(request: pytest.FixtureRequest) -> WorldInfo:
    return WORLDS[request.param]


def test_all_are_installed_by_the_names_they_have() -> None:
    """If this fails after an update, the metadata of the installed distribution is older: make setup."""
    assert set(NAMES) <= WORLDS.installed
    assert all(WORLDS[name].name == name for name in NAMES)


def test_each_brings_its_own_player_and_limits(info: WorldInfo) -> None:
    own = info.name != "vizdoom"
    assert type(policy_for(info.name, 0)).__module__.startswith("reverie_worlds.") == own
    assert limits_of(info.name) is info.limits
    assert info.limits != USUAL


def test_what_is_missing_can_be_installed(info: WorldInfo) -> None:
    assert info.debian if info.programs else info.pip
    assert bool(missing(info)) == bool(install_command([info]))


def test_it_travels_to_worker_processes(info: WorldInfo) -> None:
    assert pickle.loads(pickle.dumps(info)) == info


def test_older_recordings_of_each_can_be_converted() -> None:
    assert set(OLD_WORLDS) == set(NAMES)


@pytest.mark.parametrize("game", GAMES)
@pytest.mark.parametrize("number", [0, 23, 24])
def test_a_place_of_every_game_can_be_asked_for(game: str, number: int, tmp_path: Path) -> None:
    place = place_of_game(game, number)
    job = make_job(RecordConfig(world=game, out=tmp_path, set=place.options, maps=place.maps))
    assert job.options.get("place", number) == number
    assert job.options.get("maps") or "place" in job.options, "one place, not all"
