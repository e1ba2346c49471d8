"""The WebSocket: what a client may do, and what happens to those that do what they may not."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest
from starlette.testclient import TestClient
from tests.helpers.fake_source import RESOLUTION, FakeSource
from tests.helpers.server_client import OPEN, Client, connected, served, still_plays

from reverie.errors import CheckpointError
from reverie.serve.app import create_app
from reverie.serve.host import Limits
from reverie.serve.protocol import MAX_MESSAGE_BYTES, VERSION, Flags, Format, FrameMessage

HEIGHT, WIDTH = RESOLUTION


def pixels(frame: FrameMessage) -> np.ndarray:
    return np.frombuffer(frame.payload, np.uint8).reshape(HEIGHT, WIDTH, 3)


@pytest.fixture
def source() -> FakeSource:
    return FakeSource()


@pytest.fixture
def http(source: FakeSource) -> Iterator[TestClient]:
    with served(source) as client:
        yield client


@pytest.fixture
def client(http: TestClient) -> Iterator[Client]:
    with connected(http) as client:
        yield client


# ---------------------------------------------------------------------------------------------------------- play


def test_welcome_tells_what_can_be_played(client: Client):
    welcome = client.hello()
    assert (welcome["version"], welcome["model"], welcome["kind"]) == (VERSION, "fake", "dream")
    assert (welcome["width"], welcome["height"], welcome["fps"], welcome["block_frames"]) == (WIDTH, HEIGHT, 25, 4)
    assert [start["id"] for start in welcome["starts"]] == ["start-0", "start-1"]
    assert welcome["bindings"]["keys"]["KeyW"] == "forward"


def test_frames_follow_one_another(client: Client):
    client.hello()
    first = client.play()
    assert (first.index, first.flags, first.format) == (0, Flags.FIRST, Format.RGB)
    frames = [client.frame() for _ in range(12)]
    assert [frame.index for frame in frames] == list(range(1, 13))
    assert [bool(frame.flags & Flags.BLOCK) for frame in frames] == [True, False, False, False] * 3
    assert {(frame.epoch, frame.width, frame.height) for frame in frames} == {(1, WIDTH, HEIGHT)}
    assert all(frame.sent_ms >= frame.sampled_ms for frame in frames)


def test_keys_and_mouse_reach_the_world(client: Client, source: FakeSource):
    client.hello()
    before = pixels(client.play()).mean()
    client.input(["KeyW"], mouse=(40, 0))
    frame = client.frame()
    while frame.action < 1:
        frame = client.frame()
    assert pixels(frame).mean() > before
    turned = next(action for action in source.actions if action.mouse[1])
    assert turned.keys == {"forward"}
    assert turned.mouse[1] == pytest.approx(40 * 0.12 / 4)


def test_jpeg_is_the_default(client: Client):
    client.say("hello", version=VERSION)
    client.expect("welcome")
    frame = client.play()
    assert frame.format == Format.JPEG
    assert frame.payload.startswith(b"\xff\xd8")


def test_restart_begins_a_new_epoch_in_the_same_picture(client: Client, source: FakeSource):
    client.hello()
    first = client.play("start-1", seed=3)
    client.input(["KeyW"])
    client.frame()
    client.say("restart", seed=4)
    began = client.expect("started")
    assert began["session"] is None, "this fake world cannot be left and taken up again"
    assert {name: began[name] for name in ("epoch", "start", "seed", "frame")} == {
        "epoch": 2, "start": "start-1", "seed": 4, "frame": 1,
    }  # fmt: skip
    again = client.frame()
    assert (again.epoch, again.index, again.payload) == (2, 0, first.payload)
    assert len(source.worlds) == 1


def test_another_start_closes_the_old_world(client: Client, source: FakeSource):
    client.hello()
    first = client.play("start-0")
    second = client.play("start-1")
    assert first.payload != second.payload
    client.frame()
    assert [world.is_closed for world in source.worlds] == [True, False]


def test_a_pause_stops_the_work(client: Client, source: FakeSource):
    client.hello()
    client.play()
    client.frame()
    client.say("pause", paused=True)
    client.expect("paused")
    client.say("ping", time_ms=1)
    client.expect("pong")
    done = len(source.actions)
    client.say("ping", time_ms=2)
    client.expect("pong")
    assert len(source.actions) <= done + 1
    client.say("pause", paused=False)
    assert client.frame().index > 0


def test_a_client_that_shows_nothing_gets_no_more_than_the_lead(client: Client, source: FakeSource):
    client.hello()
    client.say("start")
    while True:
        event = client.socket.receive()
        if event.get("bytes"):
            break
    for wait_ms in range(20):
        client.say("ping", time_ms=wait_ms)
        while "pong" not in (client.socket.receive().get("text") or ""):
            pass
        threading.Event().wait(0.03)
    assert len(source.actions) <= 2


def test_players_take_turns_and_keep_apart(http: TestClient, source: FakeSource):
    with connected(http) as one, connected(http) as two:
        one.hello()
        two.hello()
        one.play("start-0")
        two.play("start-1")
        one.input(["KeyW"])
        for _ in range(8):
            one.frame()
            two.frame()
    assert len(source.worlds) == 2
    assert source.worlds[1].light == 0


def test_a_rate_is_kept_to_and_the_other_players_keep_theirs(http: TestClient, source: FakeSource):
    with connected(http) as slow, connected(http) as quick:
        slow.say("hello", version=VERSION, format="rgb")
        slow.say("rate", fps=6)  # before it is known what the world's is
        assert slow.expect("welcome")["fps"] == 25
        quick.hello()
        slow.play("start-0")
        quick.play("start-1")
        slow.input()
        quick.input()
        for _ in range(60):
            quick.frame()
        steps = [world.num_steps for world in source.worlds]
        assert steps[1] >= 15 > 2 * steps[0] > 0
        for asked, kept in ((12.5, 12.5), (60, 25), (None, 25)):
            slow.say("rate", fps=asked)
            assert slow.expect("rate")["fps"] == kept
        before = source.worlds[0].num_steps
        for _ in range(60):
            slow.frame()
        assert source.worlds[0].num_steps >= before + 13
        for wrong in ("fast", 0, True, 1e9):
            with connected(http) as bad:
                bad.hello()
                bad.say("rate", fps=wrong)
                assert bad.closed()[1] == 4400
            with connected(http) as again:
                again.hello()


def test_a_world_without_passes_takes_none(client: Client):
    welcome = client.hello()
    assert (welcome["passes"], welcome["own_passes"]) == ([], 0)
    client.say("start", passes=2)
    error = client.expect("error")
    assert (error["code"], error["fatal"]) == ("unavailable", False)
    assert error["message"] == "fake makes a block in none passes, not 2"
    client.play()


def test_worlds_are_closed_when_players_leave(source: FakeSource):
    with served(source) as http, connected(http) as client:
        client.hello()
        client.play()
    assert all(world.is_closed for world in source.worlds)


# ------------------------------------------------------------------------------------------------------- warm-up


def test_the_warm_up_is_told_and_waited_for():
    gate = threading.Event()
    with served(FakeSource(gate=gate)) as http, connected(http) as client:
        health = http.get("/health")
        assert health.status_code == 503
        assert health.json()["status"] == "warming"
        client.say("hello", version=VERSION)
        while client.expect("status")["message"] != "half awake":
            pass
        assert http.get("/starts").status_code == 503
        assert http.post("/upload", content=b"x").status_code == 409
        client.say("start", seed=1)
        gate.set()
        client.expect("welcome")
        client.expect("started")
        assert http.get("/health").status_code == 200
        assert http.get("/health").json()["status"] == "ready"


def test_a_warm_up_that_fails_is_told():
    failures: list[Exception] = []
    source = FakeSource(load_failure=CheckpointError("no such model"))
    app = create_app(source, access=OPEN, on_failure=failures.append)
    with TestClient(app) as http, connected(http) as client:
        client.say("hello", version=VERSION)
        error, code = client.closed()
        assert (error["message"], code) == ("no such model", 4504)
        assert http.get("/health").json()["status"] == "failed"
    assert [str(error) for error in failures] == ["no such model"]


def test_the_end_of_the_warm_up_is_told_once():
    """By then all is loaded: a server's own process freezes its memory."""
    told: list[str] = []
    gate = threading.Event()
    source = FakeSource(gate=gate)
    app = create_app(source, access=OPEN, on_ready=lambda: told.append("ready"))
    with TestClient(app) as http, connected(http) as client:
        assert told == []
        gate.set()
        client.hello()
        http.get("/health")
        assert told == ["ready"]


# ------------------------------------------------------------------------------------------------------ bad input


def test_garbage_closes_the_one_who_sent_it(http: TestClient):
    with connected(http) as good:
        good.hello()
        good.play()
        with connected(http) as bad:
            bad.hello()
            bad.socket.send_text("\x00garbage{{{")
            error, code = bad.closed()
            assert (error["code"], error["fatal"], code) == ("bad-message", True, 4400)
        assert good.frame().index > 0
    still_plays(http)


def test_binary_garbage(client: Client):
    client.hello()
    client.socket.send_bytes(b"\x01\x02\x03")
    assert client.closed()[1] == 4400


def test_garbage_before_hello(client: Client):
    client.socket.send_text("GET / HTTP/1.1")
    assert client.closed()[1] == 4400


def test_hello_comes_first_and_once(http: TestClient):
    with connected(http) as early:
        early.say("start")
        assert early.closed()[1] == 4400
    with connected(http) as twice:
        twice.hello()
        twice.say("hello", version=VERSION)
        assert twice.closed()[1] == 4400


def test_another_version_is_told_to_reload(client: Client):
    client.say("hello", version=VERSION + 1)
    error, code = client.closed()
    assert code == 4426
    assert "reload the page" in error["message"]


def test_an_oversized_message(client: Client):
    client.hello()
    client.socket.send_text("x" * (MAX_MESSAGE_BYTES + 1))
    error, code = client.closed()
    assert (error["code"], code) == ("too-large", 4413)


def test_a_flood(source: FakeSource):
    limits = Limits(messages_per_s=5, message_burst=50)  # a flood on the slowest machine too
    with served(source, limits) as http:
        with connected(http) as flooder:
            flooder.hello()
            for seq in range(1000):
                flooder.say("input", seq=seq, codes=["KeyW"])
            error, code = flooder.closed()
            assert (error["code"], code) == ("flood", 4429)
        still_plays(http)


def test_a_client_that_says_nothing(source: FakeSource):
    with served(source, Limits(hello_s=0.05)) as http, connected(http) as silent:
        error, code = silent.closed()
        assert (error["code"], code) == ("timeout", 4408)


def test_a_client_that_vanishes_while_frames_flow(http: TestClient, source: FakeSource):
    for _ in range(3):
        with connected(http) as client:
            client.hello()
            client.play()
            client.frame()
    still_plays(http)
    assert http.get("/health").json()["players"] == 0


def test_a_full_server(source: FakeSource):
    with served(source, Limits(max_players=1, max_waiting=0)) as http:
        with connected(http) as first:
            first.hello()
            with connected(http) as second:
                second.say("hello", version=VERSION)
                error, code = second.closed()
                assert (error["code"], code) == ("full", 4503)
            first.play()
        still_plays(http)


def test_an_unknown_start_is_no_reason_to_part(client: Client):
    client.hello()
    client.say("start", start="start-99")
    error = client.expect("error")
    assert (error["code"], error["fatal"]) == ("unknown-start", False)
    assert client.play("start-0").index == 0


@pytest.mark.parametrize("failure", [None, RuntimeError("a bug")])
def test_a_world_that_fails_can_be_started_again(source: FakeSource, failure: Exception | None):
    source.fail_at_step = 2
    source.failure = failure or source.failure
    with served(source) as http, connected(http) as client:
        client.hello()
        client.play()
        error = client.expect("error")
        assert not error["fatal"]
        assert error["code"] == ("world-failed" if failure is None else "internal")
        assert "a bug" not in error["message"]
        source.fail_at_step = None
        client.say("restart", seed=5)
        client.expect("started")
        assert client.frame().index == 0
        assert source.worlds[0].is_closed
