"""A server's memory after many saves and rewinds is what it was after a few."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.helpers.small_model import small_engine

from reverie.engine.sessions.chunks import Chunks
from reverie.engine.sessions.session import Snapshot
from reverie.engine.sessions.timeline import Timeline
from reverie.models.presets import tiny
from reverie.serve.host import Host
from reverie.serve.opening import load, save
from reverie.serve.saves import SaveFolder
from reverie.serve.sources import ModelSource
from reverie.types import Action

REWINDS = 5
"""For each save."""
MAX_GROWTH_BYTES, MAX_GROWTH_RSS = 2**17, 2**24
"""Less than one of the small model's snapshots of tensors; of the process what its allocator may need."""
PAGE_BYTES = 4096


def held(timeline: Timeline) -> tuple[int, int, int, int]:
    """Bytes of all tensors, snapshots and their chunks, places of the timeline's file, and bytes of the process (0
    where /proc is not)."""
    gc.collect()
    things = gc.get_objects()
    tensors = [thing for thing in things if type(thing) in (torch.Tensor, torch.nn.Parameter)]
    kept = sum(type(thing) in (Snapshot, Chunks) for thing in things)
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    statm = Path("/proc/self/statm")
    pages = int(statm.read_text().split()[1]) if statm.is_file() else 0
    file = timeline._history._file
    return sum(storages.values()), kept, file.num_places - file.free_places().size, pages * PAGE_BYTES


@pytest.mark.parametrize("num_saves", [40, pytest.param(200, marks=pytest.mark.slow)])
def test_memory_is_flat_over_saves_and_rewinds(tmp_path: Path, num_saves: int) -> None:
    engine = small_engine(tmp_path / "tiny", tiny())

    async def nothing(message: object) -> None:
        """Nobody is told of the progress."""

    async def play() -> None:
        host = Host(ModelSource(engine, rewind_s=2.0), saves=SaveFolder(tmp_path / "saves"))
        await host.warm_up()
        world = Timeline(engine.open(engine.start_images()[0][1], seed=3), rewind_s=2.0, snapshot_s=0.16)
        for _ in range(20):
            world.step(Action())
        sizes = []
        for number in range(num_saves):
            for step in range(REWINDS - 1):
                world.seek(world.last - 4 * ((number + 3 * step) % 10))
            world.seek(world.last - 8)
            for _ in range(2):
                world.step(Action(frozenset({"forward"})))
            card = await save(host, world, f"save {number}", whole=False)
            if number % 10 == 0:
                opened = await load(host, card.id, nothing, lambda: True)
                assert np.array_equal(opened.first, world.shown)
                opened.held.world.close()
            host.saves.remove(card.id)
            if number + 1 in (num_saves // 4, num_saves // 2, num_saves):
                sizes.append(held(world))
        tensors, kept, places, process = (np.array(part) for part in zip(*sizes, strict=True))
        assert np.ptp(tensors) < MAX_GROWTH_BYTES, sizes
        assert np.ptp(kept) <= 4, sizes
        assert np.ptp(places) < world._history._packed[-1].chunks.places.size, sizes
        assert process[-1] - process[0] < MAX_GROWTH_RSS, sizes
        world.close()
        await asyncio.to_thread(host.close)

    asyncio.run(play())
