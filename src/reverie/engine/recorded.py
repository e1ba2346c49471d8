"""Work of a session that is the same for every block, recorded once and played again: CUDA graphs.

A block of a large model is thousands of small launches; Python needs longer for them than a fast card for the work.
Once the window is full, every block does the same to the same memory: only what goes in differs, and which slots of the
ring it writes.  So the passes are recorded once for each place in the ring (`window / block` of them), decoding once,
and from then on a block is two launches.  What comes before, a session's first blocks, runs as it is written.

    passes = RecordedPasses(record, warm)      # does what `flow.passes` does
    frames = RecordedDecode(decoder, state, record, warm)(z)

`record` makes a Tape of some work; `cuda_tapes` gives the one for CUDA.  `warm` holds the kinds of work that have run
before, in any session of an engine: compilers and libraries set themselves up at a first run, which cannot be recorded.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from reverie import flow
from reverie.models.dit import WorldModel
from reverie.models.pixels import to_stored
from reverie.models.schedule import Schedule
from reverie.models.state import Condition, RotaryTables, WorldState
from reverie.models.tiny_decoder import TinyDecoder
from reverie.models.tokenizer import DecoderState, VideoTokenizer
from reverie.models.wan_vae import WanVAE
from reverie.nn.cache import ring_slot


class Tape(Protocol):
    """Recorded work.  replay: do it again, on the same memory; output: what it gives, overwritten each time."""

    output: Tensor

    def replay(self) -> None: ...


Record = Callable[[Callable[[], Tensor]], Tape]
"""Records work without doing it."""


class CudaTape:
    """A CUDA graph.  Tapes of one pool share memory, so they must not run at the same time."""

    def __init__(self, work: Callable[[], Tensor], pool: Any) -> None:
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            self.output = work()

    def replay(self) -> None:
        self._graph.replay()


def cuda_tapes() -> Record:
    """A recorder of CUDA graphs that share one pool of memory."""
    pool = torch.cuda.graph_pool_handle()
    return lambda work: CudaTape(work, pool)


class Recorder:
    """Records work at its second run and plays it from then on.

    Inputs are copied to memory of their own, outputs from it; both are small beside what lies between.
    """

    def __init__(self, record: Record, warm: set[Hashable]) -> None:
        self._record: Record | None = record
        self._warm = warm
        self._inputs: list[Tensor] = []
        self._tapes: dict[Hashable, Tape] = {}

    @property
    def num_tapes(self) -> int:
        return len(self._tapes)

    def run(self, kind: str, key: Hashable, work: Callable[[list[Tensor]], Tensor], inputs: Sequence[Tensor]) -> Tensor:
        """`work(inputs)`, done or played.

        kind: what is warm after one run; key: work of one key launches the same on the same memory.
        """
        shapes = tuple((x.shape, x.dtype) for x in inputs)
        if self._record is None or (kind, shapes) not in self._warm:
            self._warm.add((kind, shapes))
            return work(list(inputs))
        if not self._inputs:
            self._inputs = [x.clone() for x in inputs]
        for mine, x in zip(self._inputs, inputs, strict=True):
            mine.copy_(x)
        if key not in self._tapes:
            try:
                self._tapes[key] = self._record(lambda: work(self._inputs))
            except RuntimeError as error:
                warnings.warn(f"{kind} cannot be recorded as a CUDA graph, and runs without: {error}", stacklevel=2)
                self._record = None
                return work(list(inputs))
        tape = self._tapes[key]
        tape.replay()
        return tape.output.clone()


class RecordedPasses:
    """`flow.passes` for one session's state."""

    def __init__(self, record: Record | None, warm: set[Hashable]) -> None:
        """record: None to record nothing, and only have what is told of noise levels worked out once."""
        self.recorder = None if record is None else Recorder(record, warm)
        self._levels: flow.Embeddings | None = None
        self._has_levels = False

    def __call__(
        self, model: WorldModel, cond: Condition, schedule: Schedule, state: WorldState, noise: Sequence[Tensor]
    ) -> Tensor:
        if not self._has_levels:
            self._levels, self._has_levels = flow.constant_embeddings(model, schedule, state), True
        config, step = model.config, state.step
        if self.recorder is None or step + config.block < config.window:
            return flow.passes(model, cond, schedule, state, noise, self._levels)
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
            return flow.passes(model, captured, schedule, state, rest, self._levels)

        base = [] if cond.base is None else [cond.base]
        inputs = [cond.channels, cond.actions, *base, *tables, *noise]
        z = self.recorder.run("passes", ring_slot(step, config.window, config.sink), work, inputs)
        set_step(state, step + config.block)
        return z


def set_step(state: WorldState, step: int) -> None:
    """Let a state and its rings stand at `step`: a tape moves no Python numbers."""
    state.step = step
    for cache in state.caches:
        cache.step = step


class RecordedDecode:
    """Latents to frames for one session's stream."""

    def __init__(
        self,
        decoder: VideoTokenizer | WanVAE | TinyDecoder,
        state: DecoderState,
        record: Record | None,
        warm: set[Hashable],
    ) -> None:
        self.recorder = None if record is None else Recorder(record, warm)
        self._decoder, self._state = decoder, state

    def __call__(self, z: Tensor) -> Tensor:
        """(1, t, c, h, w) -> (f, H, W, 3) uint8, on the same device."""
        steps = self._state.steps
        if self.recorder is None or steps == 0:
            return self._decode([z])

        def work(inputs: list[Tensor]) -> Tensor:
            self._state.steps = steps
            return self._decode(inputs)

        frames = self.recorder.run("decode", z.shape[1], work, [z])
        self._state.steps = steps + z.shape[1]
        return frames

    def _decode(self, inputs: list[Tensor]) -> Tensor:
        return to_stored(self._decoder.decode(inputs[0], self._state)[0])
