"""Latents near the network: on a GPU where they fit, else read from files and moved ahead; always the same clips."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.helpers.latent_clips import recording, task
from tests.helpers.pretend_gpu import is_there, pretended_gpu
from torch import Tensor

from reverie.train import batches, tables
from reverie.train.batches import Batches, move
from reverie.train.config import TrainerConfig
from reverie.train.latents import Clips
from reverie.train.parallel import Ranks
from reverie.train.tables import GPU_SHARE, Rows, Table

CPU = torch.device("cpu")
TWO = [recording(episodes=2, seed=0), recording(episodes=3, seed=1)]
LATENT_BYTES = sum(part.z.nbytes + part.still.nbytes for part in TWO)
PICTURE_BYTES = sum(part.picture.nbytes for part in TWO)


def with_free_memory(monkeypatch: pytest.MonkeyPatch, tables_bytes: float) -> None:
    """A GPU with room for so many bytes of tables."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (tables_bytes / GPU_SHARE, 2**40))


def test_rows_of_several_files_are_one_table(tmp_path: Path) -> None:
    whole = np.random.default_rng(0).standard_normal((10, 2, 3)).astype(np.float16)
    arrays = []
    for i, part in enumerate((whole[:4], whole[4:4], whole[4:])):  # an empty one among them
        np.save(tmp_path / f"{i}.npy", part)
        arrays.append(np.load(tmp_path / f"{i}.npy", mmap_mode="r" if len(part) else None))
    table, index = Table(arrays), np.array([[9, 0, 3], [4, 4, 8]])
    assert table.first.tolist() == [0, 4, 4, 10]
    taken = table.take(index)
    assert isinstance(taken, Tensor)
    assert taken.dtype == torch.float32
    assert np.array_equal(taken, whole[index].astype(np.float32))
    assert Table([np.arange(4, dtype=np.uint8)]).read(np.array([2])).dtype == torch.uint8
    with pytest.raises(IndexError):
        table.read(np.array([10]))


@pytest.mark.parametrize("room", ["latents and pictures", "latents", "nothing"])
def test_a_gpu_gets_the_clips_of_a_cpu(room: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = Clips(TWO), Clips(TWO)
    given: dict[str, Any] = {"count": 20, "num_steps": 5, "by_key": 0.5, "still": 0.3}
    expected = here.draw(np.random.default_rng(3), **given)
    most = {"latents and pictures": LATENT_BYTES + PICTURE_BYTES, "latents": LATENT_BYTES, "nothing": 1000}[room]
    with_free_memory(monkeypatch, most)
    monkeypatch.setattr(tables, "CHUNK_BYTES", 30_000)  # several copies
    with pretended_gpu(monkeypatch) as gpu:
        there.serve(gpu)
        on_gpu = {name: table.is_on_gpu for name, table in there._tables.items()}
        assert on_gpu == {"latents": room != "nothing", "picture": room == "latents and pictures"}
        made = there.draw(np.random.default_rng(3), **given)
        z, _, picture, _ = made
        assert isinstance(z, Rows)
        assert isinstance(picture, Rows)
        # What crosses over: numbers of rows, or the rows as they are kept.
        assert z.values.dtype == (torch.float16 if room == "nothing" else torch.int64)
        assert not is_there(z.values)
        moved = move(made, gpu)
        assert all(map(is_there, moved[:3]))
        for one, other in zip(expected[:3], (x.cpu() for x in moved[:3]), strict=True):
            assert one.dtype == other.dtype
            assert torch.equal(one, other)
        first = move(there.play(np.random.default_rng(5), 6, 4).z, gpu).cpu()
        assert all(type(x) is Tensor and not is_there(x) for x in there.spread(4, 5)[:3])
    assert torch.equal(first, here.play(np.random.default_rng(5), 6, 4).z)


class Streams:
    """Streams and events of torch.cuda that note what is done where."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self.stream, log, owner = "main", self.log, self

        class Stream:
            def __init__(self, device: Any = None, name: str = "copies") -> None:
                self.name = name

            def wait_event(self, event: Event) -> None:
                log.append(f"{self.name} waits for {event.number}")

        class Event:
            made = 0

            def record(self, stream: Stream) -> None:
                self.number = Event.made
                Event.made += 1
                log.append(f"{self.number} recorded on {stream.name}")

        @contextmanager
        def on(stream: Stream) -> Iterator[None]:
            owner.stream, before = stream.name, owner.stream
            yield
            owner.stream = before

        def noted(batch: Any, device: torch.device) -> Any:
            log.append(f"moved on {owner.stream}")
            return move(batch, device)

        def pin(tensor: Tensor) -> Tensor:
            log.append("pinned")
            return tensor

        monkeypatch.setattr(torch.cuda, "Stream", Stream)
        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "stream", on)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: Stream(name="main"))
        monkeypatch.setattr(Tensor, "record_stream", lambda self, stream: log.append(f"kept for {stream.name}"))
        monkeypatch.setattr(Tensor, "pin_memory", pin)
        monkeypatch.setattr(batches, "move", noted)


@pytest.mark.parametrize("fits", [True, False])
def test_batches_are_moved_ahead_on_a_stream_of_their_own(
    fits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = task(tmp_path)
    config = TrainerConfig(folder=tmp_path, steps=9, workers=2, track="none")
    with Batches(world, config, 0, Ranks(), CPU) as made:
        expected = [made.next() for _ in range(5)]
    with_free_memory(monkeypatch, 2**30 if fits else 0)
    streams = Streams(monkeypatch)
    asked: list[Any] = []
    real = world.batch
    monkeypatch.setattr(world, "batch", lambda rng: asked.append(None) or real(rng))
    with pretended_gpu(monkeypatch) as gpu:
        world.train.serve(gpu)
        with Batches(world, config, 0, Ranks(), gpu) as made:
            for number, batch in enumerate(expected):
                before = len(streams.log)
                found = made.next()
                assert all(map(is_there, found[:3]))
                for one, other in zip(batch[:3], found[:3], strict=True):
                    assert torch.equal(one, other.cpu())
                since = [line for line in streams.log[before:] if line != "pinned"]
                # Two batches lie on the GPU, the one in use and the next; 2 for each worker are made on the CPU.
                assert since.count("moved on copies") == (2 if number == 0 else 1)
                assert since[-4:] == [f"main waits for {number}", *["kept for main"] * 3]
                assert len(asked) <= number + 2 + 2 * config.workers
    assert "moved on main" not in streams.log
    assert streams.log.count("pinned") >= 3 * len(expected)
    assert isinstance(real(np.random.default_rng(0))[0], Rows)


def test_a_cpu_keeps_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: pytest.fail("asked a GPU that is not there"))
    clips = Clips(TWO)
    clips.serve(CPU)
    assert not any(table.is_on_gpu for table in clips._tables.values())
    assert all(isinstance(x, Tensor) for x in clips.draw(np.random.default_rng(0), 2, 5)[:3])
