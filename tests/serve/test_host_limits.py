"""What one client may take: places, time, memory and work, and who gets what it gives up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
import tracemalloc
import urllib.error
import urllib.request
from collections.abc import Callable

import pytest
from tests.helpers.fake_source import SPACE, FakeSource, FakeWorld, running
from tests.helpers.image_files import file_of
from tests.helpers.raw_clients import HELLO, close_code, expect, is_closed, is_ready, raw, until, websocket
from tests.helpers.server_client import Client, connected, served, still_plays

from reverie.serve.bindings import InputBox, bindings_for
from reverie.serve.host import Host, Limits
from reverie.serve.opening import open_start
from reverie.serve.player import MAX_REST_S, Player
from reverie.serve.protocol import MAX_REASON_BYTES, VERSION, ErrorCode, Input, Refusal, close_reason
from reverie.serve.sources import Picture

# --------------------------------------------------------------------------------------------------------- places


def test_whoever_comes_late_waits_in_a_queue():
    with served(FakeSource(), Limits(max_players=1, max_waiting=2)) as http, contextlib.ExitStack() as all_clients:
        first = all_clients.enter_context(connected(http))
        first.hello()
        waiting = []
        for place in (1, 2):
            client = all_clients.enter_context(connected(http))
            client.say("hello", version=VERSION, format="rgb")
            assert client.expect("queued") == {"type": "queued", "place": place, "waiting": place}
            waiting.append(client)
        assert waiting[0].expect("queued")["waiting"] == 2
        with connected(http) as late:
            late.say("hello", version=VERSION)
            error, code = late.closed()
            assert (error["code"], code) == ("full", 4503)
        assert (http.get("/health").json()["players"], http.get("/health").json()["waiting"]) == (1, 2)
        waiting[0].say("ping", time_ms=7)
        assert waiting[0].expect("pong")["time_ms"] == 7
        first.socket.close()
        waiting[0].expect("welcome")
        assert waiting[0].play().index == 0
        assert waiting[1].expect("queued") == {"type": "queued", "place": 1, "waiting": 1}


def test_whoever_leaves_the_queue_lets_the_others_move_up():
    with served(FakeSource(), Limits(max_players=1)) as http, connected(http) as first:
        first.hello()
        with connected(http) as gone, connected(http) as last:
            gone.say("hello", version=VERSION)
            gone.expect("queued")
            last.say("hello", version=VERSION, format="rgb")
            assert last.expect("queued")["place"] == 2
            gone.socket.close()
            assert last.expect("queued")["place"] == 1
            first.socket.close()
            last.expect("welcome")


@pytest.mark.parametrize(
    ("says", "limits", "code"),
    [
        ([], Limits(hello_s=0.3), 4408),
        (["hello"], Limits(start_s=0.3), 4408),
        (["hello", "start"], Limits(silence_s=0.3), 4408),
    ],
    ids=["nothing", "hello alone", "hello and start, then nothing"],
)
def test_a_place_is_not_for_those_who_are_silent(says: list[str], limits: Limits, code: int):
    with served(FakeSource(), limits) as http:
        with connected(http) as silent:
            for one in says:
                silent.say(one, **({"version": VERSION} if one == "hello" else {}))
            while True:
                event = silent.socket.receive()
                if event["type"] == "websocket.close":
                    break
            assert event["code"] == code
        until(lambda: http.get("/health").json()["players"] == 0, "the place to be free")


def test_a_pause_keeps_the_place_until_somebody_waits():
    with served(FakeSource(), Limits(max_players=1, silence_s=1.5, idle_s=0.8)) as http, connected(http) as away:
        away.hello()
        away.play()
        away.say("pause", paused=True)
        away.expect("paused")
        time.sleep(2.5)
        away.say("ping", time_ms=1)
        away.expect("pong")  # nobody waits: it may stay
        with connected(http) as other:
            other.hello()
            error, code = away.closed()
            assert (error["code"], code) == ("idle", 4410)
            assert other.play().index == 0


def test_silent_connections_make_room_for_new_ones():
    with running(FakeSource(), Limits(max_greeting=3)) as port, contextlib.ExitStack() as stack:
        until(lambda: is_ready(port), "the warm-up")
        silent = [stack.enter_context(websocket(port)) for _ in range(6)]
        assert [close_code(ws) for ws in silent[:3]] == [4408] * 3
        with websocket(port) as good:
            good.send(HELLO)
            expect(good, "welcome")


def test_worlds_cannot_be_opened_without_end():
    """Opening one takes long, and the others wait for it: only the first few come at once."""
    source = FakeSource()
    with served(source, Limits(start_burst=3, starts_per_s=0.01)) as http, connected(http) as hasty:
        hasty.hello()
        for _ in range(40):
            hasty.say("start", seed=1)
        for _ in range(5):
            hasty.say("ping", time_ms=1)
            hasty.expect("pong")
            time.sleep(0.05)
        assert 1 <= len(source.worlds) <= 3
        still_plays(http)


def test_whoever_seeks_or_saves_rests_as_long_as_that_took(monkeypatch: pytest.MonkeyPatch):
    """Both keep the world's thread, and may be asked for again at once: in between it is the others' turn."""
    now_s, rests = [0.0], []

    async def sleep(seconds: float) -> None:
        rests.append(seconds)

    host = Host(FakeSource())
    player = Player(None, host, clock=lambda: now_s[0])  # type: ignore[arg-type]
    monkeypatch.setattr(asyncio, "sleep", sleep)
    places = [host.seats.enter()]
    for took_s in (0.5, 60.0):
        with player._tiring():
            now_s[0] += took_s
        asyncio.run(player._rest())
    assert rests == []  # nobody else is here
    places.append(host.seats.enter())
    for took_s in (0.5, 60.0):
        with player._tiring():
            now_s[0] += took_s
        asyncio.run(player._rest())
    assert rests == [0.5, MAX_REST_S]
    host.close()


async def leave_while_it_opens(source: FakeSource, begun: threading.Event, go_on: threading.Event) -> None:
    """A player leaves between `begun` and `go_on`, which the source's `open` sets and waits for; then the host ends."""
    host = Host(source)
    await host.warm_up()
    opening = asyncio.create_task(open_start(host, None, "start-0", seed=1))
    assert await asyncio.to_thread(begun.wait, 20)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    go_on.set()
    await asyncio.to_thread(host.close)


def test_a_world_that_is_opened_for_a_player_who_has_left_is_closed():
    """A game that nobody plays would run on, with its window, until the server ends."""
    begun, go_on = threading.Event(), threading.Event()

    class Slow(FakeSource):
        def open(self, picture: Picture | None, seed: int) -> FakeWorld:
            world = super().open(picture, seed)
            begun.set()
            assert go_on.wait(20)
            return world

    source = Slow()

    asyncio.run(leave_while_it_opens(source, begun, go_on))
    assert [world.is_closed for world in source.worlds] == [True]


def test_nothing_is_logged_where_a_player_has_left_before_the_start_was_refused(caplog: pytest.LogCaptureFixture):
    begun, go_on = threading.Event(), threading.Event()

    class Slow(FakeSource):
        def open(self, picture: Picture | None, seed: int) -> FakeWorld:
            begun.set()
            assert go_on.wait(20)
            raise Refusal(ErrorCode.UNKNOWN_START, "no longer there")

    asyncio.run(leave_while_it_opens(Slow(), begun, go_on))
    assert not caplog.records


# ------------------------------------------------------------------------------------------------------- messages


def test_a_refusal_in_any_language(caplog: pytest.LogCaptureFixture):
    """A close reason has 123 bytes at most; one that was cut in the middle of a letter ended in two tracebacks."""
    for text in ("ä" * 200, "x" + "ä" * 200, "日本語" * 80, "🌍" * 60, "short", "\ud800"):
        assert len(close_reason(text).encode()) <= MAX_REASON_BYTES
        assert text.encode("utf-8", "replace").decode().startswith(close_reason(text))
    with running(FakeSource()) as port, websocket(port) as ws:
        ws.send(HELLO)
        ws.send(json.dumps({"type": "ä日🌍" * 60}))
        assert close_code(ws) == 4400
        assert ws.protocol.close_rcvd is not None
        assert "ä" in ws.protocol.close_rcvd.reason
    assert caplog.records == []


def test_only_keys_that_the_world_binds_are_kept():
    box = InputBox(bindings_for(SPACE))
    for seq in range(2000):
        box.put(Input(seq, frozenset(f"Key{seq}x{i}" for i in range(32)) | {"KeyW"}))
    tracemalloc.start()
    for seq in range(2000, 20_000):
        box.put(Input(seq, frozenset({f"Key{seq}", "KeyW"})))
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert grown < 20_000
    assert box.take(4)[0].keys == {"forward"}


def test_codes_of_another_keyboard_do_no_harm(client_of: Callable[..., Client]):
    client = client_of()
    client.hello()
    client.play()
    for seq in range(400):
        client.say("input", seq=seq + 1, codes=[f"Odd{seq}n{i}" for i in range(30)] + ["KeyW"])
    while client.frame().action < 400:
        pass


@pytest.fixture
def client_of():
    with contextlib.ExitStack() as stack:
        http = stack.enter_context(served(FakeSource(), Limits(messages_per_s=1e6, message_burst=1e6)))
        yield lambda: stack.enter_context(connected(http))


# --------------------------------------------------------------------------------------------------------- sockets


# --------------------------------------------------------------------------------------------------------- uploads


def upload_head(length: int) -> bytes:
    return b"POST /upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % length


def test_uploads_that_are_held_open_make_room():
    limits = Limits(uploads_at_once=2, upload_slow_s=0.5)
    with running(FakeSource(), limits) as port:
        until(lambda: is_ready(port), "the warm-up")
        held = [raw(port, upload_head(10**6) + b"x" * 1000) for _ in range(4)]
        data = file_of(size=(300, 200))
        request = urllib.request.Request(f"http://127.0.0.1:{port}/upload", data, method="POST")
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert json.load(answer)["type"] == "uploaded"
        answers = [client.recv(20) for client in held]
        assert all(answer.startswith(b"HTTP/1.1 408") for answer in answers)
        assert all(is_closed(client) for client in held)


def test_too_many_uploads_are_told_to_come_again():
    with running(FakeSource(), Limits(uploads_at_once=1, upload_wait_s=0.2)) as port:
        until(lambda: is_ready(port), "the warm-up")
        raw(port, upload_head(10**6) + b"x" * 1000)
        time.sleep(0.2)
        answers = [raw(port, upload_head(100) + b"x" * 100) for _ in range(2)]
        assert all(client.recv(20).startswith(b"HTTP/1.1 503") for client in answers)


def test_an_upload_too_large_is_refused_by_its_head():
    with running(FakeSource()) as port:
        until(lambda: is_ready(port), "the warm-up")
        client = raw(port, upload_head(10**10))
        assert client.recv(20).startswith(b"HTTP/1.1 413")
        assert is_closed(client)


def test_an_image_that_decodes_without_end_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch):
    """One that hangs holds one of two turns; the next goes through, and the server ends at once."""
    from reverie.serve import host

    real, hung = host.load_untrusted, threading.Event()

    async def load(data: bytes, resolution: tuple[int, int]):
        if data == b"endless":
            hung.set()
            import asyncio

            await asyncio.sleep(3600)
        return await real(data, resolution)

    monkeypatch.setattr(host, "load_untrusted", load)
    with running(FakeSource()) as port:
        until(lambda: is_ready(port), "the warm-up")
        raw(port, upload_head(7) + b"endless")
        assert hung.wait(20)
        request = urllib.request.Request(f"http://127.0.0.1:{port}/upload", file_of(size=(300, 200)), method="POST")
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert json.load(answer)["type"] == "uploaded"
