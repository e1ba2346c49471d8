"""Time that going back, saving and loading take with nano, and the server's memory over many of them.

    python bench/sessions.py --seconds 60 --rewinds 100 --saves 20

Prints milliseconds by the clock and of this process's processor, median and largest.  A rewind goes to a random moment
of what was played; a save writes the folder of a server; a load opens it and shows its last frame.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median

from reverie.engine.sessions.timeline import Timeline
from reverie.serve.host import Host
from reverie.serve.opening import load, save
from reverie.serve.saves import SaveFolder
from reverie.serve.sources import ModelSource
from reverie.types import FPS, Action

PAGE_BYTES = 4096
Times = list[tuple[float, float]]
"""Milliseconds: by the clock, and of the processor."""


async def timed(work: Callable[[], Awaitable[object]], times: Times) -> None:
    began = time.perf_counter(), time.process_time()
    await work()
    times.append((1000 * (time.perf_counter() - began[0]), 1000 * (time.process_time() - began[1])))


def show(name: str, times: Times) -> None:
    wall, cpu = zip(*times, strict=True)
    print(f"| {name} | {len(times)} | {median(wall):.0f} / {max(wall):.0f} | {median(cpu):.0f} / {max(cpu):.0f} |")


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES / 2**20


async def measure(seconds: float, num_rewinds: int, num_saves: int, folder: Path) -> None:
    host = Host(ModelSource("nano", dtype="float32"), saves=SaveFolder(folder))
    await host.warm_up()
    assert host.spec is not None, host.status.message
    world = await host.call(lambda: host.open(None, 0))
    assert isinstance(world, Timeline)
    rng = random.Random(0)
    for _ in range(round(seconds * FPS / world.block_frames)):
        action = Action(frozenset({"forward"}), (0.0, rng.uniform(-3, 3)))
        await host.call(lambda action=action: world.step(action))
    rewinds: Times = []
    saves: Times = []
    loads: Times = []
    memory = [resident_mib()]
    for number in range(max(num_rewinds, num_saves)):
        if number < num_rewinds:
            frame = rng.randint(world.earliest, world.last)
            await timed(lambda frame=frame: host.call(lambda: world.seek(frame)), rewinds)
        if number < num_saves:
            await timed(lambda: save(host, world, "a walk", whole=False), saves)
            card = host.saves.cards()[0]

            async def open_again(save_id: str = card.id) -> None:
                opened = await load(host, save_id, tell, lambda: True)
                host.later(opened.held.world.close)

            await timed(open_again, loads)
            host.saves.remove(card.id)
        if (number + 1) % max(1, max(num_rewinds, num_saves) // 4) == 0:
            memory.append(resident_mib())
    print(f"{seconds:g} s played, {world.num_bytes / 2**20:.0f} MiB on disk\n")
    print("| | times | ms, median / largest | processor |\n|---|---:|---|---|")
    show("rewind", rewinds)
    show("save", saves)
    show("load", loads)
    print("\nresident, MiB, from before to after each quarter:", " ".join(f"{mib:.0f}" for mib in memory))
    await host.call(world.close)
    await asyncio.to_thread(host.close)


async def tell(message: object) -> None:
    """Nobody is told of the progress."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rewinds", type=int, default=100)
    parser.add_argument("--saves", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(options.seconds, options.rewinds, options.saves, Path(folder)))


if __name__ == "__main__":
    main()
