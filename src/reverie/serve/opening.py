"""Opening worlds for a player: a start, the session of an earlier connection, a saved session, another moment."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from reverie.engine.sessions.session_file import SessionFile
from reverie.errors import ActionError, CheckpointError, DataError
from reverie.serve.host import Host, one_line
from reverie.serve.protocol import ErrorCode, Loading, Refusal
from reverie.serve.saves import SaveCard, SavedState
from reverie.serve.sessions import Held, Rewindable, new_token
from reverie.serve.sources import HasPasses
from reverie.types import Frames, World

if TYPE_CHECKING:
    from reverie.engine.sessions.timeline import Timeline

LOADING_EVERY_S = 0.25


@dataclass(frozen=True, slots=True)
class Opened:
    """A world that is ready.  first: (1, H, W, 3), the frame it stands at; notices: lines for its player."""

    held: Held
    first: Frames
    notices: list[str] = field(default_factory=list)


class Superseded(Exception):
    """Another world was asked for, while this one was being made ready."""


async def open_start(host: Host, reuse: Held | None, start: str | None, seed: int, passes: int | None = None) -> Opened:
    """A world at its first frame.  reuse: a world that is started again; passes: denoising passes of its blocks, None
    for the model's own number.  Raises Refusal for a number that the model does not know."""
    spec = host.spec
    assert spec is not None
    if passes is not None and passes not in spec.passes:
        known = ", ".join(map(str, spec.passes)) or "none"
        raise Refusal(ErrorCode.UNAVAILABLE, f"{spec.name} makes a block in {known} passes, not {passes}")

    def work() -> tuple[World, Frames]:
        world = reuse.world if reuse else host.open(start, seed)
        try:
            if isinstance(world, HasPasses):
                return world, world.reset(seed, passes or spec.own_passes)
            return world, world.reset(seed)
        except Exception:
            if reuse is None:
                world.close()
            raise

    world, first = await host.call(work, close=None if reuse else _close_opened)
    token = reuse.token if reuse else new_token() if isinstance(world, Rewindable) else None
    return Opened(Held(world, start, seed, token), first)


def _close_opened(opened: tuple[World, *tuple[object, ...]], current: Held | None = None) -> None:
    """Closes a world that was opened for a player who has left; not the one that they played before."""
    world = opened[0]
    if current is None or world is not current.world:
        world.close()


async def resume(host: Host, token: str) -> Opened:
    """The session of `token`.  Raises Refusal."""
    held = await host.sessions.take(token)
    world = held.world
    assert isinstance(world, Rewindable)
    try:
        return Opened(held, await host.call(lambda: world.shown))
    except BaseException:  # the player has gone already
        host.sessions.leave(held)
        raise


async def load(
    host: Host,
    save_id: str,
    tell: Callable[[Loading], Awaitable[None]],
    is_wanted: Callable[[], bool],
    current: Held | None = None,
) -> Opened:
    """A saved session at its end: from its state, or where that is not there, by generating it again.

    tell: gets the progress; is_wanted: asked between blocks; current: the player's session.  Raises Refusal, and
    Superseded when it is not wanted any more.
    """
    file = await asyncio.to_thread(host.saves.read, save_id)
    state = await asyncio.to_thread(host.saves.read_state, save_id)
    session, blocks, notices = await host.call(partial(host.open_file, file))
    try:
        if state is None or not await host.call(lambda: _restore(session, file, state)):
            told_s = 0.0
            for number, block in enumerate(blocks):
                if not is_wanted():
                    raise Superseded
                if time.monotonic() - told_s > LOADING_EVERY_S:
                    told_s = time.monotonic()
                    await tell(Loading(number / len(blocks)))
                await host.call(partial(session.step, block))
        opening = partial(_open_beside, host, file, session, current)
        world, first, lines = await host.call(opening, close=lambda opened: _close_opened(opened, current))
    except BaseException:
        host.later(session.close)
        raise
    token = current.token if current and world is current.world else new_token()
    return Opened(Held(world, host.start_of(file), world.seed, token), first, notices + lines)


def _open_beside(
    host: Host, file: SessionFile, session: Timeline, current: Held | None
) -> tuple[Rewindable, Frames, list[str]]:
    """The world of a saved session, the frame that it stands at, and lines for its player."""
    world, lines = host.open_beside(file, session, current.world if current else None)
    return world, world.shown, lines


def _restore(session: Timeline, file: SessionFile, state: SavedState) -> bool:
    """Resumes the session from `state`; returns False if the state does not fit, such as that of another model."""
    try:
        session.resume(file, state.snapshot, state.frame)
    except CheckpointError:
        return False
    return True


async def save(host: Host, world: World, name: str, whole: bool) -> SaveCard:
    """Saves a session; it is played on as it was.  Raises Refusal."""
    if not isinstance(world, Rewindable):
        raise Refusal(ErrorCode.UNAVAILABLE, f"{host.name} is a real game, which cannot be saved")

    def describe() -> tuple[SessionFile, SavedState | None]:
        here, width = world.frame, world.resolution[1]
        if whole:
            world.seek(world.last)
        try:
            snapshot = world.snapshot()
            frame = world.shown[0][:, -width:]  # of two views, the session's
            return world.describe(name), None if snapshot is None else SavedState(snapshot, frame)
        finally:
            if whole:
                world.seek(here)

    try:
        file, state = await host.call(describe)
    except (ActionError, CheckpointError, DataError) as error:  # one that is longer than a script can be, for example
        raise Refusal(ErrorCode.SAVE_FAILED, one_line(error)) from None
    return await asyncio.to_thread(host.saves.add, file, state)
