"""The attacks, measured:  python -m tests.attacks.table [FACTOR]

Each attack runs against a fresh server with a good player beside it.  FACTOR makes the attacks longer.
"""

from __future__ import annotations

import random
import sys
import time

from tests.helpers.attacked_server import GoodPlayer, attacked_server
from tests.helpers.attacks import ATTACKS, Attack

QUIET_S = 10.0


def row(name: str, attack: Attack, count: int) -> str:
    """One line of the table."""
    with attacked_server() as server, GoodPlayer(server.port) as player:
        before, began_s = server.rss_mib, time.monotonic()
        sent = attack(server.port, random.Random(16), count)
        seconds = time.monotonic() - began_s
        frames, gaps, outages = player.num_frames, sorted(player.gaps_s), len(player.outages)
        after = server.rss_mib
    gap = f"{1000 * gaps[int(0.99 * len(gaps))]:.0f} / {1000 * gaps[-1]:.0f}" if gaps else "-"
    log = sum("Traceback" in line for line in server.errors)
    return (
        f"| {name} | {sent:,} in {seconds:.0f} s | {outages} | {frames / seconds:.1f} | {gap} | "
        f"{before:.0f} / {after:.0f} | {server.longest_ms:.1f} | {log} |"
    )


def quiet(port: int, rng: random.Random, count: int) -> int:
    """Nobody attacks."""
    time.sleep(QUIET_S)
    return 0


def main() -> None:
    factor = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    print(
        "| attack | messages | outages | frames a second | gap p99 / longest, ms | RSS before / after, MiB "
        "| longest callback, ms | tracebacks |"
    )
    print("|---|---|---|---|---|---|---|---|")
    print(row("none", quiet, 0), flush=True)
    for name, (attack, count) in ATTACKS.items():
        print(row(name, attack, int(count * factor)), flush=True)


if __name__ == "__main__":
    main()
