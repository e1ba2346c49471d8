"""The doctor tells which games are there, and the one line that installs the rest."""

from __future__ import annotations

import pytest

from reverie import cli
from reverie.cli import doctor
from reverie.errors import WorldError
from reverie.worlds import WORLDS, WorldInfo, open_world


def test_games_that_are_there_and_games_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    games = {
        "here": WorldInfo("here", "a game of nothing", object, programs=("sh",), packages=("numpy",)),
        "apt": WorldInfo("apt", "a game", object, programs=("no-such-game", "sh"), debian=("game", "game-data")),
        "pip": WorldInfo("pip", "a game", object, packages=("no_such_package",), pip="pip install it"),
    }
    monkeypatch.setattr(doctor, "WORLDS", games)
    rows = dict(doctor.games())
    assert rows["here"] == "ready: a game of nothing"
    assert rows["apt"] == "missing no-such-game"
    assert rows["to install them"] == "sudo apt install game game-data && pip install it"
    monkeypatch.setattr(doctor, "WORLDS", {"here": games["here"]})
    assert list(dict(doctor.games())) == ["here"]


def test_opening_a_missing_game_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    info = WorldInfo("apt", "a game", object, programs=("no-such-game",), debian=("game",))
    monkeypatch.setitem(WORLDS, "apt", info)
    with pytest.raises(WorldError, match="needs no-such-game, not installed here; sudo apt install game"):
        open_world("apt")


def test_the_doctor_tells(capsys) -> None:
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    for word in ("python", "torch", "cores", "memory free", "float32", "bfloat16", "yard", "chromium", "models"):
        assert word in out


def test_the_doctor_finds_what_is_missing(monkeypatch, capsys) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    monkeypatch.setattr(doctor, "chromium", lambda: None)
    rows = dict(doctor.extras())
    assert 'pip install "reverie-world[cluster]"' in rows["ray"]
    assert rows["chromium"].startswith("missing")
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.main(["doctor"]) == 0
    assert 'pip install "reverie-world[cluster]"' in capsys.readouterr().out  # brackets are no markup
