"""Blocks of several sessions made together: one pass of the network for all of them.

The transformer reads its weights once for the whole batch.  What each session has of its own (its spatial memory's
view, the decoder's stream) is worked on by one thread a session, which wastes less than all threads on each in turn.
Every session keeps its own state, so it may be saved, split, or played alone between two blocks, and batches may be of
other sessions each time.

Legend: b batch (one row a session), c h w a latent step.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import torch
from torch import Tensor

from reverie import sampling
from reverie.engine.accelerate.decode_stream import FrameFuture
from reverie.engine.sessions.session import BlockPlan, Session
from reverie.errors import WorldError
from reverie.models.schedule import Schedule
from reverie.models.state import BatchedState, ConditionChannels, WorldState
from reverie.types import Action, Frames

Actions = Action | Sequence[Action]
"""Actions of one session's block: one for the whole block, or one a frame."""

T = TypeVar("T")
R = TypeVar("R")


class Batch:
    """Sessions of one engine that are played together.  `Engine.open_batch` makes one.

    sessions: may be changed between two steps, by players who come and go.
    """

    def __init__(self, sessions: Sequence[Session]) -> None:
        self.sessions = list(sessions)

    def __len__(self) -> int:
        return len(self.sessions)

    @property
    def num_bytes(self) -> int:
        """Memory that the states of all open sessions take."""
        return sum(session.num_bytes for session in self.sessions if session.is_open)

    def step(self, actions: Sequence[Actions]) -> list[Frames | Exception]:
        """The next block of every session, (next_frames, H, W, 3) each.

        actions: of each session, as `Session.step` takes them.  Where one session fails, its place holds the error, and
        the others go on: ActionError for an action that is not valid, with nothing changed; WorldError for a session
        that is closed, or whose numbers are no longer finite, which ends it.
        """
        return make_blocks(self.sessions, actions)

    def close(self) -> None:
        """Closes every session."""
        for session in self.sessions:
            session.close()


@dataclass(slots=True)
class _Row:
    """One session's part in a batch.  index: its place in the results."""

    index: int
    session: Session
    plan: BlockPlan
    parts: ConditionChannels | None = None
    z: Tensor | None = None

    @property
    def state(self) -> WorldState:
        return self.session.state["world"]


def make_blocks(sessions: Sequence[Session], actions: Sequence[Actions]) -> list[Frames | Exception]:
    """Makes the next block of each of these sessions of one engine.  As `Batch.step`.

    Raises WorldError for sessions of different engines, for one that is there twice, or another number of actions.
    """
    _check(sessions, actions)
    if not sessions:
        return []
    with sessions[0].engine.lock:  # a session that is closed meanwhile is closed after its block
        return _make_all(sessions, actions)


def _make_all(sessions: Sequence[Session], actions: Sequence[Actions]) -> list[Frames | Exception]:
    made: dict[int, Frames | Exception] = {}
    rows: list[_Row] = []
    for index, (session, action) in enumerate(zip(sessions, actions, strict=True)):
        try:
            rows.append(_Row(index, session, session.plan(action)))
        except Exception as error:
            made[index] = error
    # The first block of a model that makes its start frame too takes fewer actions: batches of their own.
    parts: dict[tuple[bool, Schedule], list[_Row]] = {}
    for row in rows:
        parts.setdefault((row.state.step == 0, row.session.schedule), []).append(row)
    for part in parts.values():
        made.update(_make(part))
    return [made[index] for index in range(len(sessions))]


def _check(sessions: Sequence[Session], actions: Sequence[Actions]) -> None:
    if len(actions) != len(sessions):
        raise WorldError(f"a batch of {len(sessions)} sessions takes as many actions, got {len(actions)}")
    if len({id(session) for session in sessions}) < len(sessions):
        raise WorldError("a session is in a batch twice; give each session once")
    if len({id(session.engine) for session in sessions}) > 1:
        raise WorldError("a batch is of sessions of one engine, got several; make one batch for each engine")


@torch.inference_mode()
def _make(rows: list[_Row]) -> dict[int, Frames | Exception]:
    """Blocks, or errors, by index."""
    device = rows[0].session.engine.device
    made: dict[int, Frames | Exception] = {}
    rows = _going_on(rows, made, _each(device, _condition, rows))
    if rows:
        _advance(rows)
        rows = _going_on(rows, made, [None if bool(ok) else _not_finite(row) for row, ok in _finite(rows)])
    shown = _each(device, _show, rows)
    rows = _going_on(rows, made, shown)
    coming = [x for x in shown if not isinstance(x, Exception)]
    made.update({row.index: frames.frames() for row, frames in zip(rows, coming, strict=True)})
    return made


def _going_on(rows: list[_Row], made: dict[int, Frames | Exception], results: Sequence[object]) -> list[_Row]:
    """The rows without an error.  Sessions with one are closed: they stand between two states."""
    for row, result in zip(rows, results, strict=True):
        if isinstance(result, Exception):
            row.session.close()
            made[row.index] = result
    return [row for row in rows if row.index not in made]


def _condition(row: _Row) -> None:
    memory = row.state.memory
    numbers = [row.state.last, *([] if memory is None else [memory.camera])]
    if not all(bool(torch.isfinite(x).all()) for x in numbers):  # no view can be drawn of these
        raise _not_finite(row)
    row.parts = row.session.condition(row.plan)


def _show(row: _Row) -> FrameFuture:
    assert row.z is not None
    return row.session.show(row.plan, row.z)


def _advance(rows: list[_Row]) -> None:
    """One pass after another over all rows' blocks; each row's state is advanced, and has its latents."""
    bundle = rows[0].session.engine.bundle
    state = BatchedState.of([row.state for row in rows])

    def noise() -> Tensor:
        return torch.cat([row.session.noise() for row in rows])

    actions = torch.cat([row.plan.actions for row in rows])
    parts = _join([row.parts for row in rows])
    z = sampling.advance_with(bundle.model, actions, rows[0].session.schedule, state, noise, parts)
    state.split()
    for i, row in enumerate(rows):
        row.z = z[i : i + 1]


def _join(parts: Sequence[ConditionChannels | None]) -> ConditionChannels | None:
    given = [part for part in parts if part is not None]
    if not given:
        return None
    bases = [part.base for part in given if part.base is not None]
    return ConditionChannels(torch.cat([part.channels for part in given]), torch.cat(bases) if bases else None)


def _finite(rows: list[_Row]) -> list[tuple[_Row, Tensor]]:
    z = torch.cat([row.z for row in rows if row.z is not None])
    return list(zip(rows, torch.isfinite(z).flatten(1).all(1).cpu(), strict=True))


def _not_finite(row: _Row) -> WorldError:
    return WorldError(
        f"this world's numbers are no longer finite after {row.session.num_frames} frames, so it has ended; start it "
        "again, or load a save of before"
    )


def _each(device: torch.device, work: Callable[[T], R], rows: Sequence[T]) -> list[R | Exception]:
    """`work` of every row, one thread a row on a CPU; of rows that are left over, one after another with all threads.
    An error is the row's result."""

    def caught(row: T) -> R | Exception:
        try:
            with torch.inference_mode():
                return work(row)
        except Exception as error:
            return error

    num_threads = torch.get_num_threads() if device.type == "cpu" else 1
    num_shared = len(rows) - len(rows) % num_threads if num_threads > 1 else 0
    shared = list(_workers(num_threads).map(caught, rows[:num_shared])) if num_shared else []
    return [*shared, *map(caught, rows[num_shared:])]


@lru_cache(maxsize=4)
def _workers(num_threads: int) -> ThreadPoolExecutor:
    """Threads whose tensor operations use one core each."""
    workers = ThreadPoolExecutor(num_threads, "reverie-row", initializer=torch.set_num_threads, initargs=(1,))
    barrier = threading.Barrier(num_threads)  # so that every thread is there
    list(workers.map(lambda _: barrier.wait(), range(num_threads)))
    torch.set_num_threads(num_threads)  # torch gives the number that was set last, by any thread, to new threads
    return workers
