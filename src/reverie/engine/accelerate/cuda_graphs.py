"""Work of a session that is the same for every block, captured once and replayed: CUDA graphs.

A block of a large model is thousands of small launches; Python needs longer for them than a fast card for the work.
Once the window is full, every block does the same to the same memory: only what goes in differs, and which slots of the
ring it writes.  So the passes are captured once for each place in the ring (`window / block` of them), decoding once,
and from then on a block is two launches.  What comes before, a session's first blocks, runs as it is written.

    passes = CapturedPasses(capture, warm)      # does what `sampling.passes` does
    frames = CapturedDecode(decoder, state, capture, warm)(z)

`capture` makes a CapturedGraph of some work; `cuda_graph_capture` gives the one for CUDA.  `warm` holds the kinds of
work that have run before, in any session of an engine: compilers and libraries set themselves up at a first run, which
cannot be captured, and some of them (cuBLAS, cuDNN) once for each thread.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from reverie import sampling
from reverie.models.dit import WorldModel
from reverie.models.schedule import Schedule
from reverie.models.state import Condition, RotaryTables, WorldState
from reverie.models.tiny_decoder import TinyDecoder
from reverie.models.tokenizer import DecoderState, VideoTokenizer
from reverie.models.wan_vae import WanVAE
from reverie.nn.cache import ring_slot
from reverie.vision.pixels import to_stored


class CapturedGraph(Protocol):
    """Captured work.  replay: do it again, on the same memory; output: its result, overwritten each time."""

    output: Tensor

    def replay(self) -> None: ...


Capture = Callable[[Callable[[], Tensor]], CapturedGraph]
"""Captures work without doing it."""


class CountedCapture:
    """A `Capture` that keeps count of what it did.

    num_captured: graphs made so far; failure: why a session gave capturing up and went on without, None while none has.
    """

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self.num_captured = 0
        self.failure: str | None = None

    def __call__(self, work: Callable[[], Tensor]) -> CapturedGraph:
        graph = self._capture(work)
        self.num_captured += 1
        return graph


class CudaGraph:
    """A CUDA graph.  Graphs of one pool share memory, so they must not run at the same time.

    stream: what it is captured on; where the capture fails, the stream of before is the current one again.
    """

    def __init__(self, work: Callable[[], Tensor], pool: Any, stream: Any) -> None:
        self._graph = torch.cuda.CUDAGraph()
        before = torch.cuda.current_stream()
        try:
            with torch.cuda.graph(self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                self.output = work()
        except BaseException:
            torch.cuda.set_stream(before)  # `torch.cuda.graph` leaves its stream only where all went well
            with contextlib.suppress(Exception):  # the allocator may still be giving out of the pool
                torch._C._cuda_endAllocateToPool(before.device_index, pool)
            raise

    def replay(self) -> None:
        self._graph.replay()


class CudaGraphCapture:
    """Captures CUDA graphs that share one pool of memory, on a stream of their own.

    The stream and the pool are made at the first capture, on the device that is then the current one:
    - cuBLAS takes a workspace for each stream at its first product there and keeps it for good.  Taken inside a capture
      it would lie in the pool, and be shared with whoever else captures on the same stream while the two are replayed
      side by side.  So a stream of one's own, and a product on it beforehand, in every thread that captures: threads
      have handles of their own.
    - When a session is closed its graphs die.  A pool that no graph uses any more but that still holds memory can never
      be captured into again (torch 2.11: an assertion).  So one tiny graph, the anchor, stays.
    """

    device = "cuda"

    def __init__(self) -> None:
        self._stream: Any = None
        self._pool: Any = None
        self._anchor: CudaGraph | None = None
        self._threads: set[object] = set()

    def __call__(self, work: Callable[[], Tensor]) -> CudaGraph:
        if self._stream is None:
            self._stream, self._pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()
        if this_thread() not in self._threads:
            self._take_workspaces()
            self._threads.add(this_thread())
        if self._anchor is None:
            self._anchor = CudaGraph(lambda: torch.ones(1, device=self.device) + 1, self._pool, self._stream)
        return CudaGraph(work, self._pool, self._stream)

    def _take_workspaces(self) -> None:
        with torch.cuda.stream(self._stream):
            a = torch.randn(64, 64, device=self.device).bfloat16()
            torch.mm(a, a)
            torch.nn.functional.linear(a, a, a[0])  # cublasLt's workspace is another
        torch.cuda.synchronize()


def cuda_graph_capture() -> CountedCapture:
    """Returns a capture of CUDA graphs with a stream and a pool of its own."""
    return CountedCapture(CudaGraphCapture())


_thread = threading.local()


def this_thread() -> object:
    """The same for all calls in one thread, and never that of another, dead or alive."""
    if not hasattr(_thread, "token"):
        _thread.token = object()
    return _thread.token


RECOMPILES = "fail_on_recompile"
"""torch's stance in which what is not compiled yet raises an error that names this word, instead of being compiled."""


class GraphRunner:
    """Captures work at its second run and replays it from then on.

    Inputs are copied to memory of their own, outputs from it; both are small beside what lies between.  The first run
    is done on the copies too, so that compiled code meets the same shapes and strides as while capturing.  Nothing is
    ever compiled while capturing: kernels are timed when they first run, and that ends a capture.  What would have to
    be compiled is done once more first, and then captured.
    """

    def __init__(self, capture: Capture, warm: set[Hashable]) -> None:
        self._capture: Capture | None = capture
        self._warm = warm
        self._inputs: dict[Hashable, list[Tensor]] = {}
        self._graphs: dict[Hashable, CapturedGraph] = {}
        self._done_again: set[Hashable] = set()

    @property
    def num_graphs(self) -> int:
        return len(self._graphs)

    def run(self, kind: str, key: Hashable, work: Callable[[list[Tensor]], Tensor], inputs: Sequence[Tensor]) -> Tensor:
        """Returns `work(inputs)`, done or replayed.

        kind: what is warm after one run; key: work of one key launches the same on the same memory.
        """
        capture = self._capture
        if capture is None:
            return work(list(inputs))
        shapes = tuple((x.shape, x.dtype) for x in inputs)
        if shapes not in self._inputs:
            self._inputs[shapes] = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in inputs]
        own = self._inputs[shapes]
        for mine, x in zip(own, inputs, strict=True):
            mine.copy_(x)
        warm = (kind, shapes, this_thread())
        if warm not in self._warm:
            self._warm.add(warm)
            return work(own)
        if key not in self._graphs:
            try:
                with torch.compiler.set_stance(RECOMPILES), _current(own[0].device):
                    self._graphs[key] = capture(lambda: work(own))
            except RuntimeError as error:
                if RECOMPILES in str(error) and key not in self._done_again:
                    self._done_again.add(key)
                else:
                    self._give_up(kind, error)
                return work(own)
        graph = self._graphs[key]
        graph.replay()
        return graph.output.clone()

    def _give_up(self, kind: str, error: RuntimeError) -> None:
        warnings.warn(f"{kind} cannot be recorded as a CUDA graph, and runs without: {error}", stacklevel=3)
        if isinstance(self._capture, CountedCapture):
            self._capture.failure = f"{kind}: {str(error).splitlines()[0]}"
        self._capture = None


def _current(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """`device` as the current one, where it is a GPU."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


class CapturedPasses:
    """`sampling.passes` for one session's state."""

    def __init__(self, capture: Capture | None, warm: set[Hashable]) -> None:
        """capture: None to capture nothing, and only embed the noise levels once."""
        self.runner = None if capture is None else GraphRunner(capture, warm)
        self._levels: sampling.Embeddings | None = None
        self._has_levels = False

    def __call__(
        self, model: WorldModel, cond: Condition, schedule: Schedule, state: WorldState, noise: Sequence[Tensor]
    ) -> Tensor:
        if not self._has_levels:
            self._levels, self._has_levels = sampling.constant_embeddings(model, schedule, state), True
        config, step = model.config, state.step
        if self.runner is None or step + config.block < config.window:
            return sampling.passes(model, cond, schedule, state, noise, self._levels)
        rotary = model.with_rotary(cond).rotary
        assert rotary is not None
        tables = [x for x in (rotary.tokens, rotary.keyboard, rotary.mouse) if x is not None]
        has_base = cond.base is not None
        has_keys, has_mouse = rotary.keyboard is not None, rotary.mouse is not None

        def work(inputs: list[Tensor]) -> Tensor:
            set_step(state, step)
            channels, actions, *rest = inputs
            base = rest.pop(0) if has_base else None
            tokens = rest.pop(0)
            keyboard = rest.pop(0) if has_keys else None
            mouse = rest.pop(0) if has_mouse else None
            tables = RotaryTables(tokens, keyboard, mouse)
            captured = Condition(channels, actions, cond.time, base, rotary=tables)
            return sampling.passes(model, captured, schedule, state, rest, self._levels)

        base = [] if cond.base is None else [cond.base]
        inputs = [cond.channels, cond.actions, *base, *tables, *noise]
        z = self.runner.run("passes", ring_slot(step, config.window, config.sink), work, inputs)
        set_step(state, step + config.block)
        return z


def set_step(state: WorldState, step: int) -> None:
    """Let a state and its rings stand at `step`: a graph moves no Python numbers."""
    state.step = step
    for cache in state.caches:
        cache.step = step


class CapturedDecode:
    """Latents to frames for one session's stream."""

    def __init__(
        self,
        decoder: VideoTokenizer | WanVAE | TinyDecoder,
        state: DecoderState,
        capture: Capture | None,
        warm: set[Hashable],
    ) -> None:
        self.runner = None if capture is None else GraphRunner(capture, warm)
        self._decoder, self._state = decoder, state

    def __call__(self, z: Tensor) -> Tensor:
        """(1, t, c, h, w) -> (f, H, W, 3) uint8, on the same device."""
        steps = self._state.steps
        if self.runner is None or steps == 0:
            return self._decode([z])

        def work(inputs: list[Tensor]) -> Tensor:
            self._state.steps = steps
            return self._decode(inputs)

        frames = self.runner.run("decode", z.shape[1], work, [z])
        self._state.steps = steps + z.shape[1]
        return frames

    def _decode(self, inputs: list[Tensor]) -> Tensor:
        return to_stored(self._decoder.decode(inputs[0], self._state)[0])
