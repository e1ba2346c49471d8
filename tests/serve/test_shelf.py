"""Several models on one server: loaded when chosen, one at a time where memory is short, and players go on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from tests.helpers.fake_source import Sized
from tests.helpers.server_client import OPEN, Client, connected
from tests.helpers.small_model import small_engine

from reverie.cli.serve import ServeConfig, serve
from reverie.engine.engine import load
from reverie.engine.loading.hardware_check import WORKING_BYTES
from reverie.errors import CheckpointError, ServeError
from reverie.models.presets import tiny
from reverie.serve.app import create_app
from reverie.serve.choose import models_of, name_of, sources_of
from reverie.serve.host import Limits
from reverie.serve.protocol import VERSION
from reverie.serve.sources import ModelSource


@pytest.fixture
def loaded() -> dict[str, float]:
    return {}


@pytest.fixture
def sources(loaded: dict[str, float]) -> dict[str, Sized]:
    """Any two of a, b and c fit, but not with `huge`."""
    return {name: Sized(name, size, loaded) for name, size in (("a", 40), ("b", 40), ("c", 40), ("huge", 101))}


@pytest.fixture
def http(sources: dict[str, Sized]) -> Iterator[TestClient]:
    with TestClient(create_app(sources, Limits(max_players=8), access=OPEN)) as http:
        yield http


def hello(client: Client, model: str | None = None) -> dict[str, Any]:
    client.say("hello", version=VERSION, format="rgb", **({} if model is None else {"model": model}))
    return client.expect("welcome")


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_first_is_loaded_and_the_others_when_they_are_chosen(http: TestClient, sources: dict[str, Sized], loaded):
    with connected(http) as client:
        welcome = hello(client)
        assert (welcome["model"], welcome["model_id"]) == ("a", "a")
        assert [model["id"] for model in welcome["models"]] == ["a", "b", "c", "huge"]
        assert list(loaded) == ["a"]
    with connected(http) as client, connected(http) as again:
        assert hello(client, "b")["model"] == "b"
        thumbnail = hello(again, "b")["starts"][0]["thumbnail"]
        assert thumbnail == "starts/start-0.jpg?model=b"
        assert http.get(f"/{thumbnail}").status_code == 200
        assert sources["b"].threads == sources["b"].threads[:1], "loaded once"
        client.play()
        assert (len(sources["a"].worlds), len(sources["b"].worlds)) == (0, 1)
    with connected(http) as client:
        assert hello(client, "gone")["model"] == "a", "what is not here any more"


def test_players_go_on_while_another_model_is_loaded(sources: dict[str, Sized]):
    sources["b"].gate = threading.Event()
    with (
        TestClient(create_app(sources, access=OPEN)) as http,
        connected(http) as player,
        connected(http) as chooser,
    ):
        hello(player)
        player.play()
        chooser.say("hello", version=VERSION, format="rgb", model="b")
        while chooser.expect("status")["message"] != "half awake":
            pass
        before = sources["a"].worlds[0].num_steps
        for _ in range(24):
            player.frame()
        assert sources["a"].worlds[0].num_steps >= before + 4
        assert not sources["b"].threads[0].startswith("reverie-generate")
        sources["b"].gate.set()
        assert chooser.expect("welcome")["model"] == "b"
        chooser.play()
        player.frame()


def test_a_model_that_nobody_plays_makes_room(http: TestClient, sources: dict[str, Sized], loaded):
    with connected(http) as player:
        hello(player, "b")
        player.play()
        with connected(http) as client:
            assert hello(client, "c")["model"] == "c"
            assert sorted(loaded) == ["b", "c"]
            with connected(http) as third:
                third.say("hello", version=VERSION, model="a")
                error, code = third.closed()
                assert (error["code"], code) == ("unavailable", 4504)
                assert error["message"] == (
                    "a needs about 0.0 GiB of memory, and 0.0 GiB is free while b, c is played; choose it again when "
                    "its players have gone"
                )
            with connected(http) as third:
                assert hello(third)["model"] in ("b", "c"), "what is loaded, for those who choose none"
            client.play()
        player.frame()
        until(lambda: http.app.state.shelf.pick("c").num_here == 0)  # type: ignore[attr-defined]
        with connected(http) as client:
            assert hello(client, "a")["model"] == "a"
            assert sorted(loaded) == ["a", "b"]
            client.play()
        player.frame()


def test_one_that_never_fits_and_one_that_does_not_load_leave_the_others_alone(http: TestClient, sources, loaded):
    with connected(http) as player:
        hello(player)
        player.play()
        with connected(http) as client:
            client.say("hello", version=VERSION, model="huge")
            assert client.closed()[0]["message"].startswith("huge needs about")
        sources["b"].load_failure = CheckpointError("its weights are damaged; copy them again")
        for _ in range(2):
            with connected(http) as client:
                client.say("hello", version=VERSION, model="b")
                assert client.closed()[0]["message"] == "its weights are damaged; copy them again"
        sources["b"].load_failure = None
        with connected(http) as client:
            assert hello(client, "b")["model"] == "b", "it is tried again"
        player.frame()
        assert http.get("/health").json()["status"] == "ready"


def test_an_upload_is_of_the_model_that_it_is_for(http: TestClient, sources):
    with connected(http) as client:
        hello(client, "b")
        picture = http.get("/starts/start-1.jpg?model=b").content
        own = http.post("/upload?name=mine&model=b", content=picture).json()["start"]
        assert own["thumbnail"].endswith("?model=b")
        client.say("start", start=own["id"])
        client.expect("started")
        assert http.get(f"/starts/{own['id']}.jpg?model=a").status_code == 404


@pytest.mark.parametrize("model", [3, "x" * 81, ["a"]])
def test_what_is_no_model_id(http: TestClient, model: object):
    with connected(http) as client:
        client.say("hello", version=VERSION, model=model)
        assert client.closed()[1] == 4400


def test_a_folder_of_models_is_all_of_them(tmp_path: Path):
    for name in ("dusk", "dawn"):
        small_engine(tmp_path / name, tiny())
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "config.json").write_text("[1]")
    assert models_of([str(tmp_path), "nano"]) == [str(tmp_path / "dawn"), str(tmp_path / "dusk"), "nano"]
    found = sources_of([str(tmp_path)], None, "cpu")
    assert isinstance(found, dict)
    assert list(found) == ["dawn", "dusk"]
    assert name_of(["a", "b"], None) == "a, b"
    assert isinstance(sources_of([], None, "cpu"), ModelSource)
    with pytest.raises(ServeError, match="2 models are named"):
        sources_of([str(tmp_path)], "yard", "cpu")
    with pytest.raises(ServeError, match="replicas serve one model each"):
        serve(ServeConfig(model=(str(tmp_path),), replicas=2))
    memory = found["dusk"].memory()  # type: ignore[union-attr]
    assert memory is not None
    assert WORKING_BYTES < memory[0] < WORKING_BYTES + 2**24 < memory[1]


def test_models_are_let_go_and_loaded_again(tmp_path: Path):
    for name in ("dusk", "dawn"):
        small_engine(tmp_path / name, tiny())
    source = ModelSource(str(tmp_path / "dusk"), device="cpu")
    assert load(tmp_path / "dawn", device="cpu").name == "dawn"
    for _ in range(2):
        source.load(lambda share, text: None)
        assert source.engine.name == "dusk"
        source.close()
        with pytest.raises(Exception, match="is not loaded yet"):
            _ = source.engine
