"""Sessions that are sought through, left and taken up again, saved and loaded, over the server's own WebSocket."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient
from tests.helpers.server_client import OPEN, Client, connected
from tests.helpers.small_model import small_engine

from reverie.engine.engine import Engine
from reverie.engine.sessions.script import parse_json
from reverie.engine.sessions.session import Snapshot
from reverie.engine.sessions.session_file import SessionFile, hash_frame
from reverie.engine.sessions.timeline import Timeline
from reverie.errors import ActionError, CheckpointError
from reverie.models.presets import tiny
from reverie.serve.app import create_app
from reverie.serve.host import Limits
from reverie.serve.protocol import FrameMessage
from reverie.serve.saves import SaveFolder
from reverie.serve.sources import ModelSource
from reverie.types import Action


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return small_engine(tmp_path_factory.mktemp("models") / "tiny", tiny())


@pytest.fixture
def saves(tmp_path: Path) -> SaveFolder:
    return SaveFolder(tmp_path / "saves", is_listed=True)


@pytest.fixture
def http(engine: Engine, saves: SaveFolder) -> Iterator[TestClient]:
    with TestClient(create_app(ModelSource(engine), Limits(start_burst=100), access=OPEN, saves=saves)) as http:
        yield http


@pytest.fixture
def client(http: TestClient) -> Iterator[Client]:
    with connected(http) as client:
        client.hello()
        yield client


def play(client: Client, num_frames: int, codes: list[str] | None = None) -> dict[int, bytes]:
    """Plays on; the last `num_frames` frames by their index."""
    client.input(codes or [])
    return {frame.index: frame.payload for frame in (client.frame() for _ in range(num_frames))}


def paused(client: Client) -> None:
    client.say("pause", paused=True)
    while not client.expect("paused")["paused"]:
        pass


def begin(client: Client, seed: int = 5) -> dict:
    client.say("start", start=None, seed=seed)
    started = client.expect("started")
    client.frame()
    return started


def seek(client: Client, frame: int) -> tuple[dict, bytes]:
    client.say("seek", frame=frame)
    position = client.expect("position")
    shown = client.frame()
    assert shown.epoch == position["epoch"]
    return position, shown.payload


def test_seeking_shows_the_frame_that_was_there_and_pauses(client: Client):
    assert begin(client)["frame"] == 1
    seen = play(client, 24, ["KeyW"]) | play(client, 24, ["ArrowRight"])
    position, payload = seek(client, 1 + 20)
    assert position["frame"] == 21
    assert position["earliest"] == 1
    assert position["last"] >= 49
    assert payload == seen[20]
    position, payload = seek(client, 1 + 38)
    assert (position["frame"], payload) == (41, seen[40])
    client.say("pause", paused=False)
    assert client.frame().epoch == position["epoch"]
    again, _ = seek(client, 10**6)
    assert 45 <= again["last"] < position["last"] + 40


def test_a_slider_that_is_moved_on_while_a_block_is_made_ends_where_it_was_left(client: Client):
    begin(client)
    seen = play(client, 48, ["KeyW"])
    for frame in (9, 33, 17, 25):  # frames are still being made and sent
        client.say("seek", frame=frame)
    position = client.expect("position")
    while position["frame"] != 25:
        position = client.expect("position")
    shown = client.frame()
    while shown.epoch != position["epoch"]:
        shown = client.frame()
    assert shown.payload == seen[24]
    client.say("pause", paused=False)
    assert client.frame().epoch == position["epoch"], "it goes on from there"


def test_a_session_is_made_in_as_many_passes_as_were_asked_for(client: Client, engine: Engine, saves: SaveFolder):
    client.say("start", seed=3, passes=1)
    assert client.expect("started")["passes"] == 1
    client.frame()
    seen = play(client, 12, ["KeyW"])
    paused(client)
    client.say("save", name="fast")
    card = client.expect("saved")
    file = saves.read(card["id"])
    assert file.passes == 1
    client.say("restart", seed=3)
    assert client.expect("started")["passes"] == 2
    client.frame()
    assert play(client, 12, ["KeyW"])[12] != seen[12]
    client.say("restart", seed=3, passes=5)
    error = client.expect("error")
    assert (error["message"], error["fatal"]) == ("tiny makes a block in 1, 2 passes, not 5", False)
    client.frame()  # it goes on
    (saves.folder / card["id"] / "state.safetensors").unlink()
    client.say("load", save=card["id"])
    assert client.expect("started")["passes"] == 1
    shown = client.frame()
    assert hash_frame(np.frombuffer(shown.payload, np.uint8).reshape(shown.height, shown.width, 3)) == file.last_frame


def test_welcome_tells_the_passes(http: TestClient):
    with connected(http) as client:
        welcome = client.hello()
        assert (welcome["passes"], welcome["own_passes"]) == ([1, 2], 2)


def test_a_lost_connection_goes_on_where_it_was(http: TestClient):
    with connected(http) as client:
        client.hello()
        started = begin(client)
        seen = play(client, 16, ["KeyW"])
    with connected(http) as client:
        client.hello()
        client.say("resume", session=started["session"])
        resumed = client.expect("started")
        assert (resumed["session"], resumed["seed"]) == (started["session"], 5)
        assert resumed["frame"] == resumed["last"] >= 17
        assert client.frame().index == 0
        assert client.frame().index == 1
        assert seek(client, 13)[1] == seen[12]


def test_a_session_is_in_one_tab_at_a_time(http: TestClient):
    with connected(http) as first, connected(http) as second:
        first.hello()
        second.hello()
        token = begin(first)["session"]
        second.say("resume", session=token)
        error, code = first.closed()
        assert (error["code"], code) == ("taken", 4409)
        assert "another tab" in error["message"]
        assert second.expect("started")["session"] == token
        second.frame()
    with connected(http) as third:
        third.hello()
        third.say("resume", session="never-was")
        error = third.expect("error")
        assert (error["code"], error["fatal"]) == ("unknown-session", False)
        begin(third)


def test_sessions_that_wait_are_few_and_closed_in_time(engine: Engine):
    limits = Limits(max_kept=1, kept_s=0.3, start_burst=100)
    with TestClient(create_app(ModelSource(engine), limits, access=OPEN)) as http:
        tokens = []
        for _ in range(2):
            with connected(http) as client:
                client.hello()
                tokens.append(begin(client)["session"])
        until_waiting(http, 1)
        with connected(http) as client:
            client.hello()
            client.say("resume", session=tokens[0])
            assert client.expect("error")["code"] == "unknown-session"
        until_waiting(http, 0)


def until_waiting(http: TestClient, number: int) -> None:
    end = time.monotonic() + 20
    while http.app.state.host.sessions.num_waiting != number:  # type: ignore[attr-defined]
        assert time.monotonic() < end
        time.sleep(0.02)


def test_saving_and_loading(http: TestClient, client: Client, saves: SaveFolder):
    begin(client)
    seen = play(client, 16, ["KeyW"])
    paused(client)
    position, payload = seek(client, 13)
    assert payload == seen[12]
    client.say("save", name="by the door")
    card = client.expect("saved")
    assert (card["title"], card["seconds"]) == ("by the door", 12 / 25)
    client.say("save", name="whole", whole=True)
    whole = client.expect("saved")
    assert whole["seconds"] == (position["last"] - 1) / 25
    client.say("pause", paused=False)
    client.frame()
    client.say("load", save=card["id"])
    started = client.expect("started")
    assert (started["frame"], started["last"], started["seed"]) == (13, 13, 5)
    assert client.frame().payload == seen[12]
    assert [one["id"] for one in http.get("/saves").json()] == [whole["id"], card["id"]]
    assert http.get(f"/saves/{card['id']}.jpg").headers["content-type"] == "image/jpeg"
    answer = http.get(f"/saves/{card['id']}.reverie", params={"name": 'a "quoted"\r\nname'})
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''a%20quotedname.reverie"
    file = SessionFile.from_bytes(answer.content)
    assert file.last_frame == hash_frame(np.frombuffer(seen[12], np.uint8).reshape(file_shape(http)))
    assert http.delete(f"/saves/{card['id']}").status_code == 204
    assert http.delete(f"/saves/{card['id']}").status_code == 404
    client.say("load", save=card["id"])
    assert client.expect("error")["code"] == "unknown-save"
    assert isinstance(client.frame(), FrameMessage), "the session that is played goes on"
    assert len(list(saves.folder.iterdir())) == 1


def file_shape(http: TestClient) -> tuple[int, int, int]:
    return (*http.app.state.host.spec.resolution, 3)  # type: ignore[attr-defined]


def test_a_file_that_was_brought_along_is_generated_again(http: TestClient, client: Client, saves: SaveFolder):
    begin(client)
    seen = play(client, 12, ["KeyW"])
    seek(client, 13)
    client.say("save", name="walk")
    data = http.get(f"/saves/{client.expect('saved')['id']}.reverie").content
    answer = http.post("/saves", content=data).json()
    assert (answer["type"], answer["title"]) == ("saved", "walk")
    assert not (saves.folder / answer["id"] / "state.safetensors").exists()
    client.say("load", save=answer["id"])
    started = client.expect("started")
    assert (started["frame"], started["earliest"]) == (13, 1)
    assert client.frame().payload == seen[12]
    for bad, message in ((data[:-30], "cut short"), (b"x", "cut short"), (b"", "no session came")):
        answer = http.post("/saves", content=bad)
        assert answer.status_code == 400
        assert message in answer.json()["message"]
    assert len(http.get("/saves").json()) == 2


def test_a_file_of_another_model_plays_on_with_a_notice(http: TestClient, client: Client):
    begin(client)
    play(client, 8)
    client.say("save", name="walk")
    file = http.app.state.host.saves.read(client.expect("saved")["id"])  # type: ignore[attr-defined]
    other = replace(file, model="tiny/000000000000/float32/cpu")
    client.say("load", save=http.post("/saves", content=other.to_bytes()).json()["id"])
    assert "its frames will differ" in client.expect("notice")["message"]
    client.frame()
    script = parse_json(f'[{{"keys": ["fly"], "frames": {file.num_frames - 1}}}]')
    flying = replace(other, model="bird/0/float32/cpu", script=script)
    client.say("load", save=http.post("/saves", content=flying.to_bytes()).json()["id"])
    assert "played with bird; load that model" in client.expect("error")["message"]
    client.frame()


def test_a_full_folder_and_a_full_disk_lose_nothing(http: TestClient, client: Client, saves: SaveFolder, monkeypatch):
    begin(client)
    play(client, 8)
    saves.max_saves = 0
    client.say("save", name="walk")
    assert "delete one first" in client.expect("error")["message"]
    saves.max_saves = 9

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    client.say("save", name="walk")
    error = client.expect("error")
    assert error["code"] == "save-failed"
    assert "No space left on device" in error["message"]
    assert list(saves.folder.iterdir()) == []

    def full_too(_: object, path: Path) -> None:
        raise CheckpointError(f"cannot write the snapshot {str(path)!r}: I/O error")

    monkeypatch.setattr(Snapshot, "save", full_too)
    client.say("save", name="walk")
    message = client.expect("error")["message"]
    assert "cannot write the snapshot 'state.safetensors'" in message
    assert str(saves.folder) not in message
    assert list(saves.folder.iterdir()) == []

    def too_long(*_: object) -> None:
        raise ActionError("an action script lasts at most 86400 s, got 90000 s")

    monkeypatch.setattr(Timeline, "describe", too_long)
    epoch = client.frame().epoch
    client.say("save", name="walk")
    assert client.expect("error")["code"] == "save-failed"
    assert client.frame().epoch == epoch
    client.frame()


def test_a_name_cut_in_the_middle_of_an_emoji(client: Client):
    """A browser's field takes 80 UTF-16 units: JSON can say the half that is left, UTF-8 cannot."""
    begin(client)
    play(client, 8)
    client.say("save", name="by the sea \ud83d")
    assert client.expect("saved")["title"] == "by the sea ?"
    client.frame()


def test_a_session_that_takes_too_long_to_generate_again_is_not_kept(engine: Engine, saves: SaveFolder):
    with (
        TestClient(create_app(ModelSource(engine), Limits(max_session_s=0.4), access=OPEN, saves=saves)) as http,
        connected(http) as client,
    ):
        client.hello()
        begin(client)
        play(client, 12)
        client.say("save", name="long")
        data = http.get(f"/saves/{client.expect('saved')['id']}.reverie").content
        answer = http.post("/saves", content=data)
        assert answer.status_code == 400
        assert "one of at most 0.4 s is generated again here" in answer.json()["message"]
        assert len(http.get("/saves").json()) == 1


def test_what_a_killed_server_had_under_way_goes_with_a_later_save(tmp_path: Path):
    folder = tmp_path / "saves"
    left, fresh = (folder / f".{letter * 32}.partial" for letter in "ab")
    for partial in (left, fresh):
        partial.mkdir(parents=True)
        (partial / "session.reverie").write_bytes(b"x")
    then_s = time.time() - 7200
    os.utime(left, (then_s, then_s))
    file = SessionFile(model="tiny/0", seed=1, keys=(), mouse=False, start=b"x")
    card = SaveFolder(folder).add(file)
    assert {path.name for path in folder.iterdir()} == {card.id, fresh.name}  # another server may be writing that


def test_saves_are_listed_only_where_that_is_allowed(engine: Engine, tmp_path: Path):
    folder = SaveFolder(tmp_path / "saves")
    with (
        TestClient(create_app(ModelSource(engine), access=OPEN, saves=folder)) as http,
        connected(http) as client,
    ):
        client.hello()
        begin(client)
        client.say("save", name="mine")
        card = client.expect("saved")
        assert http.get("/saves").json() == []
        assert http.get(f"/saves/{card['id']}.jpg").status_code == 200
        for guess in ("../x", "0" * 32, "%2e%2e"):
            assert http.get(f"/saves/{guess}.reverie").status_code == 404


def test_memory_is_flat_over_saves_and_rewinds(http: TestClient, client: Client):
    begin(client)
    play(client, 40)
    sizes = []
    for number in range(12):
        seek(client, 5 + 4 * (number % 8))
        client.say("save", name=str(number))
        client.expect("saved")
        (held,) = http.app.state.host.sessions.played  # type: ignore[attr-defined]
        sizes.append(held.world.num_bytes)
    assert len(set(sizes[2:])) == 1


def test_players_of_a_batch_end_alone(http: TestClient, engine: Engine):
    """One leaves, the numbers of one are no longer finite: each time the others play what they would play alone."""
    alone = engine.open(engine.start_images()[0][1], seed=7)
    with connected(http) as stays, connected(http) as leaves, connected(http) as breaks:
        for client, seed in ((stays, 7), (leaves, 8), (breaks, 9)):
            client.hello()
            begin(client, seed)
        seen = play(stays, 8)
        play(leaves, 4)
        leaves.socket.close()
        play(breaks, 4)
        (broken,) = [one.world for one in http.app.state.host.sessions.played if one.seed == 9]  # type: ignore[attr-defined]
        assert isinstance(broken, Timeline)

        def spoil() -> None:
            with torch.inference_mode():
                broken.session.state["world"].last.fill_(float("nan"))

        http.app.state.host.later(spoil)  # type: ignore[attr-defined]
        error = breaks.expect("error")
        assert (error["code"], error["fatal"]) == ("world-failed", False)
        assert "no longer finite" in error["message"]
        seen |= play(stays, 24)
        assert begin(breaks, 9)["frame"] == 1, "and may begin again"
    frames = [frame for _ in range(8) for frame in alone.step(Action())]
    for index in range(1, max(seen) + 1):
        if index in seen:
            shown = np.frombuffer(seen[index], np.uint8).reshape(frames[0].shape)
            assert np.abs(shown.astype(int) - frames[index - 1]).max() <= 2
