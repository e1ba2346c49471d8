"""The compiled and recorded path, as far as a CPU can show it: the same numbers by another road."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from tests.helpers.captured_play import BACK, FORWARD, NUM_BLOCKS, Again, Captured, capture_again, picture_for, play
from torch import Tensor

from reverie.engine.accelerate.cuda_graphs import (
    CountedCapture,
    CudaGraph,
    CudaGraphCapture,
    GraphRunner,
    cuda_graph_capture,
)
from reverie.engine.engine import load
from reverie.models.compiled_blocks import compile_pieces, num_compiled


@pytest.mark.parametrize("fresh", ["own", "matrix-game-2", "matrix-game-2-tiny"], indirect=True)
def test_recorded_equals_done(fresh) -> None:
    picture = picture_for(fresh)
    expected = play(fresh.open(picture, seed=4))
    graphs = capture_again(fresh)
    first = play(fresh.open(picture, seed=4))  # its first run of each kind is done: that is the warm-up
    assert np.array_equal(first, expected)
    graphs.clear()
    assert np.array_equal(play(fresh.open(picture, seed=4)), expected)
    world = fresh.bundle.config.world
    places = world.window // np.gcd(world.window, world.block)
    assert len(graphs) == places + 1  # one for each place in the ring, and one that decodes
    is_first_step_given = not world.generates_start
    filling = -(
        -(world.window - world.block - is_first_step_given) // world.block
    )  # blocks that see less than the rest
    plays = [NUM_BLOCKS - filling, NUM_BLOCKS - int(world.generates_start)]  # of passes; of decoding
    assert sum(graph.plays for graph in graphs) == sum(plays)


@pytest.mark.parametrize("fresh", ["own", "matrix-game-2-tiny"], indirect=True)
def test_recorded_sessions_can_be_rewound_split_and_saved(fresh) -> None:
    picture = picture_for(fresh)
    expected = play(fresh.open(picture, seed=4), 11)
    capture_again(fresh)
    play(fresh.open(picture))
    session = fresh.open(picture, seed=4)
    num_frames = len(play(session, 5))
    twin, snapshot = session.fork(), session.snapshot()
    wanted = expected[num_frames:]
    for one in (session, twin):  # each on its own memory
        assert np.array_equal(play(one, 6, start=5), wanted[: 6 * one.block_frames])
    session.restore(snapshot)
    assert np.array_equal(play(session, 3, start=5), wanted[: 3 * session.block_frames])
    session.reset(4)
    assert np.array_equal(play(session, 9), expected[: len(play(fresh.open(picture, seed=4), 9))])


@pytest.mark.parametrize("fresh", ["own", "matrix-game-2-tiny"], indirect=True)
def test_the_mouses_attention_as_a_gpu_does_it(fresh, monkeypatch) -> None:
    picture = picture_for(fresh)
    expected = play(fresh.open(picture), 5)
    calls = []
    monkeypatch.setattr("reverie.models.actions.is_few", lambda q: calls.append(q.shape[-2]) or True)
    got = play(fresh.open(picture), 5)
    assert set(calls) == {fresh.bundle.config.world.block}
    assert np.abs(got.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("fresh", ["own"], indirect=True)
def test_what_cannot_be_recorded_is_done(fresh) -> None:
    def refuse(work: Callable[[], Tensor]) -> Again:
        raise RuntimeError("operation not permitted when stream is capturing")

    picture = picture_for(fresh)
    expected = play(fresh.open(picture))
    fresh._captures = {"passes": refuse}
    with pytest.warns(UserWarning, match="passes cannot be recorded as a CUDA graph, and runs without: operation not"):
        assert np.array_equal(play(fresh.open(picture)), expected)


@pytest.mark.parametrize("fresh", ["own", "matrix-game-2-tiny"], indirect=True)
def test_frames_may_be_fetched_later(fresh) -> None:
    picture = picture_for(fresh)
    expected = play(fresh.open(picture), 4)
    session = fresh.open(picture)
    coming = [session.submit((FORWARD, BACK)[i % 2]) for i in range(4)]
    assert session.num_frames == 1 + len(expected)
    assert np.array_equal(np.concatenate([block.frames() for block in coming]), expected)


@pytest.mark.gpu
def test_cuda_graphs_make_the_same_frames(model_folder) -> None:
    """In bfloat16: of compiled float32 inductor warns that tensor cores are left idle, which here is an error."""
    picture = np.zeros((32, 64, 3), np.uint8)
    eager = load(model_folder, device="cuda", dtype="bfloat16", mode="eager")
    engine = load(model_folder, device="cuda", dtype="bfloat16", mode="compiled")
    expected = play(eager.open(picture, seed=4))
    for _ in range(2):  # the second session's graphs go into a pool that the first one's have left
        session = engine.open(picture, seed=4)
        got = play(session)
        assert np.abs(got.astype(int) - expected).mean() < 4
        assert session._passes.runner.num_graphs > 1
        assert session._decode.runner.num_graphs == 1
        session.close()
    assert all(engine.new_capture(name).failure is None for name in ("passes", "decode"))


@pytest.mark.parametrize("fresh", ["own", "matrix-game-2"], indirect=True)
def test_nothing_is_compiled_while_recording(fresh, monkeypatch) -> None:
    monkeypatch.setattr("reverie.models.actions.is_few", lambda q: True)  # as on a GPU
    picture = picture_for(fresh)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compile_pieces(fresh.bundle.model, fresh.decoder, backend="aot_eager")
    compiled_in: list[int] = []

    def record(work: Callable[[], Tensor]) -> Captured:
        before = num_compiled()
        graph = Captured(work)
        compiled_in.append(num_compiled() - before)
        return graph

    captures = {name: CountedCapture(record) for name in ("passes", "decode")}
    fresh._captures = captures  # type: ignore[assignment]
    play(fresh.open(picture))
    before = num_compiled()
    assert before > 0
    session = fresh.open(picture)
    play(session)
    assert num_compiled() == before
    assert len(compiled_in) >= 3
    assert not any(compiled_in)
    world = fresh.bundle.config.world
    assert captures["passes"].num_captured >= world.window // np.gcd(world.window, world.block)
    assert captures["decode"].num_captured >= 1
    assert all(capture.failure is None for capture in captures.values())
    assert all(len(done) == 0 for done in (session._passes.runner._done_again, session._decode.runner._done_again))
    assert session._passes.runner.num_graphs == world.window // np.gcd(world.window, world.block)


def test_what_must_be_compiled_is_done_again_and_then_recorded() -> None:
    """A capture that meets a shape that was never compiled is put off by one run, and nothing is warned of."""
    torch._dynamo.reset()
    double = torch.compile(lambda x: 2 * x, dynamic=False, backend="aot_eager")
    capture = CountedCapture(Captured)
    runner = GraphRunner(capture, set())

    def work(inputs: list[Tensor]) -> Tensor:
        return double(inputs[0][:size])

    x, graphs = torch.arange(6.0), []
    for size in (6, 6, 5, 5, 5):
        assert torch.equal(runner.run("doubling", size, work, [x]), 2 * x[:size])
        graphs.append(runner.num_graphs)
    assert graphs == [0, 1, 1, 2, 2]  # the first run warms up; 5 is met while capturing, compiled, captured, replayed
    assert capture.num_captured == 2
    assert capture.failure is None


def test_inputs_of_any_strides_are_one_shape_to_compiled_code() -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    double = torch.compile(lambda x: 2 * x, dynamic=False, backend="aot_eager")
    runner = GraphRunner(CountedCapture(Captured), set())
    windows = torch.arange(8.0).unfold(0, 4, 2)  # they overlap
    for x in (windows, windows.contiguous(), windows.t().contiguous().t()):
        assert torch.equal(runner.run("doubling", 0, lambda inputs: double(inputs[0]), [x]), 2 * x)
    assert runner.num_graphs == 1
    assert num_compiled() == 1


def test_what_is_given_up_is_told_of_once() -> None:
    def refuse(work: Callable[[], Tensor]) -> Again:
        raise RuntimeError("operation not permitted when stream is capturing\nmore lines")

    capture = CountedCapture(refuse)
    runner = GraphRunner(capture, set())
    x = torch.ones(2)
    runner.run("passes", 0, lambda inputs: inputs[0] + 1, [x])
    with pytest.warns(UserWarning, match="passes cannot be recorded"):
        assert torch.equal(runner.run("passes", 0, lambda inputs: inputs[0] + 1, [x]), x + 1)
    assert torch.equal(runner.run("passes", 0, lambda inputs: inputs[0] + 1, [x]), x + 1)  # and now without a word
    assert capture.failure == "passes: operation not permitted when stream is capturing"
    assert capture.num_captured == 0


class FakeCuda:
    """What `CudaGraphCapture` asks of torch.cuda, written down."""

    def __init__(self, monkeypatch) -> None:
        self.log: list[str] = []
        self.stream, self.num_streams, self.refuse = "the caller's", 0, False
        log, cuda = self.log, self

        class Stream:
            def __init__(self) -> None:
                cuda.num_streams += 1
                self.name = f"stream {cuda.num_streams}"

        class graph:
            def __init__(self, graph, pool, stream, capture_error_mode) -> None:
                self.pool, self.stream = pool, stream

            def __enter__(self) -> None:
                cuda.stream = self.stream.name

            def __exit__(self, *_) -> None:
                if cuda.refuse:  # as torch does: it raises before it leaves its stream
                    raise RuntimeError("operation failed due to a previous error during capture")
                log.append(f"captured on {self.stream.name} into {self.pool}")
                cuda.stream = "the caller's"

        @contextlib.contextmanager
        def on(stream):
            before, cuda.stream = cuda.stream, stream.name
            yield
            cuda.stream = before

        def mm(a, b):
            log.append(f"product on {cuda.stream}")
            return a

        pools = iter(range(1, 9))
        monkeypatch.setattr(torch, "mm", mm)
        for name, fake in {
            "Stream": Stream,
            "stream": on,
            "graph": graph,
            "CUDAGraph": object,
            "graph_pool_handle": lambda: f"pool {next(pools)}",
            "synchronize": lambda: log.append("waited"),
            "current_stream": lambda: self.stream,
            "set_stream": lambda stream: setattr(self, "stream", stream),
        }.items():
            monkeypatch.setattr(torch.cuda, name, fake)
        monkeypatch.setattr(CudaGraphCapture, "device", "cpu")


def test_each_recorder_has_a_warm_stream_a_pool_and_an_anchor(monkeypatch) -> None:
    cuda = FakeCuda(monkeypatch)
    passes, decode = cuda_graph_capture(), cuda_graph_capture()
    assert cuda.log == []  # nothing before there is something to record
    passes(lambda: torch.ones(1))
    decode(lambda: torch.ones(1))
    passes(lambda: torch.ones(1))
    assert cuda.log == [
        "product on stream 1", "waited", "captured on stream 1 into pool 1", "captured on stream 1 into pool 1",
        "product on stream 2", "waited", "captured on stream 2 into pool 2", "captured on stream 2 into pool 2",
        "captured on stream 1 into pool 1",
    ]  # fmt: skip
    assert (passes.num_captured, decode.num_captured) == (2, 1)  # anchors are not counted
    cuda.log.clear()
    in_thread(lambda: passes(lambda: torch.ones(1)))
    assert cuda.log == ["product on stream 1", "waited", "captured on stream 1 into pool 1"]
    assert isinstance(passes._capture._anchor, CudaGraph)  # type: ignore[attr-defined]


def in_thread(work: Callable[[], object]) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()


def test_every_thread_warms_up_for_itself() -> None:
    """Libraries set themselves up once a thread, which cannot be recorded."""
    runner, x = GraphRunner(CountedCapture(Captured), set()), torch.ones(2)

    def run() -> None:
        runner.run("passes", len(graphs), lambda inputs: inputs[0] + 1, [x])
        graphs.append(runner.num_graphs)

    graphs: list[int] = []
    for work in (run, run, lambda: in_thread(run), run):
        work()
    assert graphs == [0, 1, 1, 2]


def test_a_failed_capture_leaves_the_callers_stream(monkeypatch) -> None:
    cuda = FakeCuda(monkeypatch)
    passes = cuda_graph_capture()
    passes(lambda: torch.ones(1))
    cuda.refuse = True
    with pytest.raises(RuntimeError, match="previous error during capture"):
        passes(lambda: torch.ones(1))
    assert cuda.stream == "the caller's"
    assert passes.num_captured == 1
