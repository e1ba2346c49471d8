"""The server under attack: a good player beside the attackers loses nothing, and the server keeps nothing.

`python -m tests.attacks.table` measures the same in longer runs; `make soak` goes on for an hour.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator

import pytest
from tests.helpers.attacked_server import GoodPlayer, Server, attacked_server
from tests.helpers.attacks import ATTACKS, random_message

from reverie.errors import ProtocolError
from reverie.serve.protocol import parse

SEED = 16
MAX_CALLBACK_MS = 100
"""Processor time of a callback of the event loop: 50 on a quiet machine; what a hypervisor takes away counts too."""
MAX_GROWTH_MIB = 32

Arena = tuple[Server, GoodPlayer]


@pytest.fixture(scope="module")
def arena() -> Iterator[Arena]:
    """A server and a good player, for all attacks.  At the end its log is empty, and its event loop was never held."""
    with attacked_server() as server, GoodPlayer(server.port) as player:
        yield server, player
    assert [line for line in server.errors if "Traceback" in line or "Error" in line] == []
    assert 0 < server.longest_ms < MAX_CALLBACK_MS, server.longest


@pytest.mark.parametrize("name", ATTACKS)
def test_a_good_player_plays_on(arena: Arena, name: str) -> None:
    server, player = arena
    attack, count = ATTACKS[name]
    player.forget()
    attack(server.port, random.Random(SEED), count)
    assert player.num_frames > 0
    player.wait_for_frames(25)
    assert player.outages == []


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_stays_flat(arena: Arena) -> None:
    """After the attacks above the server holds what it needs; the same again adds nothing."""
    server, player = arena
    quick = {
        name: attack for name, (attack, _) in ATTACKS.items() if name not in ("uploads", "players who read nothing")
    }
    for attack in quick.values():
        attack(server.port, random.Random(1), 30)
    before = server.rss_mib
    for attack in quick.values():
        attack(server.port, random.Random(2), 300)
    player.wait_for_frames(25)
    assert before > 0
    assert server.rss_mib - before < MAX_GROWTH_MIB


def test_every_random_message_is_read_or_refused() -> None:
    """The parser alone, on many more messages than a connection lives to carry."""
    rng = random.Random(SEED)
    read = refused = 0
    for _ in range(30_000):
        message = random_message(rng)
        if isinstance(message, bytes):
            continue
        try:
            parse(message)
            read += 1
        except ProtocolError:
            refused += 1
    assert read > 5000
    assert refused > 5000


def test_the_fuzzer_repeats_itself() -> None:
    first, second = random.Random(3), random.Random(3)
    assert [random_message(first) for _ in range(200)] == [random_message(second) for _ in range(200)]
