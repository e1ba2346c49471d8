"""One connection: what it wants, where its world stands, and the two loops that serve it.

The reading loop takes messages in as they come and never waits for the world.  The playing loop asks `engine.pace`
when to begin the next block, has it made on the host's generation thread, and sends it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from starlette.websockets import WebSocket, WebSocketDisconnect

from reverie.engine.sessions.pace import PaceConfig, PaceState, begin, decide, made, played
from reverie.errors import ReverieError
from reverie.serve.allowance import Allowance
from reverie.serve.bindings import InputBox
from reverie.serve.block import Block, make_block
from reverie.serve.host import Host, one_line, welcome
from reverie.serve.memory_map import MapRequests, draw_map
from reverie.serve.opening import Opened, Superseded, load, open_start, resume, save
from reverie.serve.protocol import (
    CLOSE_CODES,
    VERSION,
    ClientMessage,
    Error,
    ErrorCode,
    Flags,
    Format,
    FrameMessage,
    Hello,
    Input,
    Load,
    MapRequest,
    Notice,
    Pause,
    Paused,
    Ping,
    Played,
    Pong,
    Position,
    Queued,
    Rate,
    Rated,
    Refusal,
    Restart,
    Resume,
    Save,
    Saved,
    Seek,
    ServerMessage,
    Start,
    Started,
    View,
    Viewed,
    close_reason,
    parse,
    to_json,
)
from reverie.serve.seats import Ticket
from reverie.serve.sessions import Held, Rewindable
from reverie.serve.shelf import Shelf
from reverie.serve.sources import HasPasses, WorldSpec
from reverie.serve.swap import Swappable
from reverie.serve.together import Together
from reverie.types import World

log = logging.getLogger("reverie.serve")

STATUS_EVERY_S = 0.2
WATCH_EVERY_S = 0.5
MAX_REST_S = 2.0
"""The longest pause between two seeks or saves of one player."""


class Player:
    """A client from hello to goodbye.  `run` returns when it has gone, whatever it did; other players go on."""

    def __init__(
        self, socket: WebSocket, host: Host, clock: Callable[[], float] = time.monotonic, shelf: Shelf | None = None
    ) -> None:
        """host: whose world is played, unless another of `shelf` is chosen."""
        self._socket = socket
        self._host, self._shelf = host, shelf
        self._clock = clock
        self._sending = asyncio.Lock()
        self._wake = asyncio.Event()
        self._format = Format.JPEG
        self._box: InputBox | None = None  # none until it is known what the world listens to
        self._command: Start | Restart | Resume | Load | Seek | View | None = None
        self._save: Save | None = None
        self._starts = Allowance(host.limits.starts_per_s, host.limits.start_burst, clock())
        self._heard_s = self._acted_s = clock()
        self._welcomed_s: float | None = None
        self._has_asked = False
        self._map = MapRequests()
        self._rested_s = clock()
        self._is_paused = False
        self._held: Held | None = None
        self._taken = asyncio.Event()
        self._epoch = 0
        self._index = 0
        self._config = PaceConfig(block_frames=1)
        self._max_fps: float | None = None
        self._pace = PaceState()

    async def run(self) -> None:
        try:
            await self._serve()
        except Refusal as refusal:
            await self._refuse(refusal)
        except WebSocketDisconnect:
            pass

    def leave(self) -> None:
        """The session goes on in another connection."""
        self._taken.set()

    async def _serve(self) -> None:
        await self._greet()
        ticket = self._host.seats.enter()
        self._host.num_here += 1
        try:
            await self._run_loops(ticket)
        finally:
            self._host.num_here -= 1
            self._host.seats.leave(ticket)

    async def _run_loops(self, ticket: Ticket) -> None:
        loops = [asyncio.create_task(loop) for loop in (self._read(), self._play(ticket), self._watch(), self._end())]
        try:
            done, _ = await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
            errors = [loop.exception() for loop in done]  # all are looked at, one is told
            raise next(error for error in errors if error is not None)
        finally:
            for loop in loops:
                loop.cancel()
            try:
                await asyncio.wait(loops)
            finally:  # the server may be ending, and this task with it
                if self._held is not None:
                    self._host.sessions.leave(self._held)

    # ------------------------------------------------------------------------------------------------- messages

    async def _greet(self) -> None:
        """Hello first, of our version, and soon."""
        try:
            await self._socket.accept()  # outside of the time limit: a refusal can be told only after it
            async with self._host.greeted_in_time():
                message = await self._receive()
        except TimeoutError:
            raise Refusal(
                ErrorCode.TIMEOUT, f"no hello within {self._host.limits.hello_s:g} s of connecting; connect again"
            ) from None
        if not isinstance(message, Hello):
            raise Refusal(ErrorCode.BAD_MESSAGE, f"the first message is hello; got {message.TYPE}")
        if message.version != VERSION:
            raise Refusal(
                ErrorCode.VERSION,
                f"this server speaks version {VERSION}, the client {message.version}; reload the page",
            )
        self._format = message.format
        if self._shelf is not None:
            self._host = self._shelf.pick(message.model)
        self._heard_s = self._acted_s = self._clock()

    async def _receive(self) -> ClientMessage:
        event = await self._socket.receive()
        if event["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(event.get("code", 1005))
        if event.get("text") is None:
            raise Refusal(ErrorCode.BAD_MESSAGE, "clients send text messages only; got a binary one")
        return parse(event["text"])

    async def _read(self) -> None:
        limits = self._host.limits
        allowance = Allowance(limits.messages_per_s, limits.message_burst, self._clock())
        while True:
            message = await self._receive()
            if not allowance.spend(self._clock()):
                raise Refusal(ErrorCode.FLOOD, f"more than {limits.messages_per_s:g} messages a second; slow down")
            self._heard_s = self._clock()
            if not isinstance(message, Ping):
                self._acted_s = self._heard_s
            await self._take(message)
            await asyncio.sleep(0)  # a client that sends without pause must not keep the others from their turn

    async def _watch(self) -> None:
        """End the visit of a client that has a place and does nothing with it."""
        limits = self._host.limits
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            now_s = self._clock()
            if not self._is_paused and now_s - self._heard_s > limits.silence_s:
                raise Refusal(ErrorCode.TIMEOUT, f"nothing was heard for {limits.silence_s:g} s; connect again")
            if self._welcomed_s is None:
                continue
            if not self._has_asked and now_s - self._welcomed_s > limits.start_s:
                raise Refusal(ErrorCode.TIMEOUT, f"no world was asked for within {limits.start_s:g} s; connect again")
            if self._host.seats.num_waiting and now_s - max(self._acted_s, self._welcomed_s) > limits.idle_s:
                raise Refusal(
                    ErrorCode.IDLE,
                    f"you did nothing for {limits.idle_s:g} s and others were waiting; reload the page to play on",
                )

    async def _end(self) -> None:
        """Ends the visit when the session is taken up elsewhere."""
        await self._taken.wait()
        raise Refusal(ErrorCode.TAKEN, "this session goes on in another tab; reload the page to begin a new one")

    async def _take(self, message: ClientMessage) -> None:
        match message:
            case Input():
                if self._box is not None:
                    self._box.put(message)
            case Played(epoch, index, round_trip_ms):
                self._take_played(epoch, index, round_trip_ms)
            case MapRequest():
                self._map.ask()
                self._wake.set()
            case Rate(fps):
                self._max_fps = fps
                await self._keep_to_rate()
            case Ping(time_ms):
                await self._send(Pong(time_ms))
            case Pause(paused):
                self._is_paused = paused
                if self._box is not None:
                    self._box.flush()
                await self._send(Paused(paused))
                self._wake.set()
            case Save():
                self._save = message
                self._wake.set()
            case Start() | Restart() | Resume() | Load() | Seek() | View():
                self._command = message
                self._has_asked = True
                self._wake.set()
            case Hello():
                raise Refusal(ErrorCode.BAD_MESSAGE, "hello is said once")

    async def _keep_to_rate(self) -> None:
        if self._welcomed_s is not None and self._host.spec is not None:
            self._config = _pace_of(self._host.spec, self._max_fps)
            await self._send(Rated(self._config.fps))
            self._wake.set()

    def _take_played(self, epoch: int, index: int, round_trip_ms: float | None) -> None:
        if epoch != self._epoch:
            return
        round_trip_s = None if round_trip_ms is None else round_trip_ms / 1000
        self._pace = played(self._config, self._pace, index + 1, self._clock(), round_trip_s=round_trip_s)
        self._wake.set()

    async def _send(self, message: ServerMessage | FrameMessage) -> None:
        """Send one message.  A client that does not read what it is sent for `send_s` has gone."""
        try:
            async with asyncio.timeout(self._host.limits.send_s), self._sending:
                if isinstance(message, FrameMessage):
                    await self._socket.send_bytes(message.encode())
                else:
                    await self._socket.send_text(to_json(message))
        except (TimeoutError, RuntimeError, OSError):  # gone, or closed from our side
            raise WebSocketDisconnect(1006) from None

    async def _refuse(self, refusal: Refusal) -> None:
        """Say why, then close."""
        code = CLOSE_CODES.get(refusal.code, 4400)
        try:
            await self._send(Error(refusal.code, str(refusal), fatal=True))
            await self._socket.close(code, close_reason(str(refusal)))
        except (WebSocketDisconnect, RuntimeError, OSError):
            pass

    # -------------------------------------------------------------------------------------------------- playing

    async def _play(self, ticket: Ticket) -> None:
        await self._be_seated(ticket)
        spec = await self._ready()
        self._box = box = InputBox(spec.bindings)
        self._config = _pace_of(spec, self._max_fps)
        self._pace = begin(self._config, self._clock())
        await self._send(welcome(spec, self._shelf.models if self._shelf else (), self._host.key))
        self._welcomed_s = self._clock()
        while True:
            self._wake.clear()
            if self._command is not None:
                await self._guard(self._run_command(box))
            elif self._save is not None:
                await self._guard(self._keep())
            elif self._held is not None and self._map.take(self._clock()):
                await self._guard(self._send_map(self._held.world))
            elif self._held is None or self._is_paused:
                await self._wake.wait()
            else:
                await self._guard(self._go_on(spec, box, self._held.world))

    async def _be_seated(self, ticket: Ticket) -> None:
        """Report the place in the queue until there is a free one."""
        told = None
        while not ticket.is_seated:
            ticket.changed.clear()
            queued = Queued(self._host.seats.place(ticket), self._host.seats.num_waiting)
            if queued != told:
                await self._send(queued)
                told = queued
            await ticket.changed.wait()

    async def _ready(self) -> WorldSpec:
        """Report the warm-up until it is over."""
        if self._shelf is not None:
            self._shelf.wake(self._host)
        reported = None
        while True:
            status = self._host.status
            if status != reported:
                await self._send(status)
                reported = status
            if self._host.spec is not None:
                return self._host.spec
            if status.status == "failed":
                raise Refusal(ErrorCode.UNAVAILABLE, status.message)
            await asyncio.sleep(STATUS_EVERY_S)

    async def _guard(self, work: Awaitable[None]) -> None:
        """A world that fails is closed and the player told; the connection stays, to start another."""
        try:
            await work
            return
        except WebSocketDisconnect:
            raise
        except Refusal as refusal:
            code, text = refusal.code, str(refusal)
        except ReverieError as error:
            code, text = ErrorCode.WORLD_FAILED, one_line(error)
            self._close_world()
        except Exception as error:
            log.exception("a world failed")
            code, text = ErrorCode.INTERNAL, one_line(error)
            self._close_world()
        await self._send(Error(code, text, fatal=False))

    async def _run_command(self, box: InputBox) -> None:
        """Carry out the latest command: its first frame opens a new epoch."""
        if isinstance(self._command, Seek | View):
            await self._rest()
        if isinstance(self._command, Seek | View):
            command, self._command = self._command, None
            with self._tiring():
                await (self._seek(box, command.frame) if isinstance(command, Seek) else self._show(box, command))
            return
        while not self._starts.spend(self._clock()):  # opening a world takes long, and the other players wait for it
            await asyncio.sleep(self._starts.wait_s(self._clock()))
        command, self._command = self._command, None
        assert command is not None
        began_s = self._clock()
        with suppress(Superseded):
            await self._begin(box, await self._open(command), began_s)

    async def _rest(self) -> None:
        """Give the other players their turns: who seeks or saves waits for as long as that took the last time."""
        if self._host.num_players > 1:
            await asyncio.sleep(max(0.0, self._rested_s - self._clock()))

    @contextmanager
    def _tiring(self) -> Iterator[None]:
        """Work that keeps the other players waiting, and that a client may ask for again at once."""
        began_s = self._clock()
        try:
            yield
        finally:
            now_s = self._clock()
            self._rested_s = now_s + min(now_s - began_s, MAX_REST_S)

    async def _open(self, command: Start | Restart | Resume | Load | Seek | View) -> Opened:
        held = self._held
        match command:
            case Resume(session):
                return await resume(self._host, session)
            case Load(save_id):
                return await load(self._host, save_id, self._send, lambda: self._command is None, held)
            case Start(start, seed, passes):
                return await open_start(self._host, None, start, seed, passes)
            case _:
                assert isinstance(command, Restart)
                return await open_start(self._host, held, held.start if held else None, command.seed, command.passes)

    async def _begin(self, box: InputBox, opened: Opened, began_s: float) -> None:
        """Play a world that has been opened, from the frame that it stands at."""
        held, world = opened.held, opened.held.world
        if self._held is not None and world is not self._held.world:
            self._host.sessions.end(self._held)
        self._held = held
        self._host.sessions.play(held, self.leave)
        self._new_epoch(box)
        at = _place_in(world)
        passes = world.passes if isinstance(world, HasPasses) else None
        await self._send(Started(self._epoch, held.start, held.seed, held.token, *at, passes))
        if isinstance(world, Swappable) and world.view != "game":
            await self._send(Viewed(self._epoch, world.view, *at))
        for notice in opened.notices:
            await self._send(Notice(notice))
        if self._is_paused:
            self._is_paused = False
            await self._send(Paused(False))
        await self._send_frames(make_block(opened.first, self._format, 0, began_s), Flags.FIRST)

    async def _seek(self, box: InputBox, frame: int) -> None:
        """Go to another moment of the session, and pause there."""
        world = self._held.world if self._held else None
        if not isinstance(world, Rewindable):
            raise Refusal(ErrorCode.UNAVAILABLE, "this world cannot go back; restart it")
        began_s = self._clock()
        frames = await self._host.call(partial(world.seek, frame))
        if isinstance(self._command, Seek):  # the slider has moved on meanwhile
            return
        self._new_epoch(box)
        if not self._is_paused:
            self._is_paused = True
            await self._send(Paused(True))
        await self._send(Position(self._epoch, world.frame, world.earliest, world.last))
        await self._send_frames(make_block(frames[-1:], self._format, 0, began_s), Flags.FIRST)

    async def _show(self, box: InputBox, command: View) -> None:
        """Show another view of the world, from the frame on the client's screen on."""
        world = self._held.world if self._held else None
        if not isinstance(world, Swappable):
            raise Refusal(ErrorCode.UNAVAILABLE, f"{self._host.name} has no game beside it; play --world GAME --model")
        began_s, back = self._clock(), 0
        if command.index is not None and command.epoch == self._epoch:
            back = max(0, self._index - 1 - command.index)
        first, notices = await self._host.call(partial(world.show, command.view, back))
        self._new_epoch(box)
        await self._send(Viewed(self._epoch, command.view, *_place_in(world)))
        for notice in notices:
            await self._send(Notice(notice))
        await self._send_frames(make_block(first, self._format, 0, began_s), Flags.FIRST)

    def _new_epoch(self, box: InputBox) -> None:
        self._epoch += 1
        self._index = 0
        box.flush()
        self._pace = begin(self._config, self._clock(), before=self._pace)

    async def _keep(self) -> None:
        """Save the session."""
        await self._rest()
        wish, self._save = self._save, None
        if self._held is None or wish is None:
            raise Refusal(ErrorCode.SAVE_FAILED, "there is no session to save yet; start one first")
        with self._tiring():
            card = await save(self._host, self._held.world, wish.name, wish.whole)
        await self._send(Saved(card.id, card.title, card.created_ms, card.seconds, card.model))

    async def _go_on(self, spec: WorldSpec, box: InputBox, world: World) -> None:
        """Make the next block if it is time, else wait until it is or something happens."""
        asked_s = self._clock()
        decision = decide(self._config, self._pace, asked_s)
        if self._host.together is not None and decision.wait_s is not None and decision.reason in ("due", "early"):
            await self._join(self._host.together, spec, box, world, asked_s + decision.wait_s)
            return
        if not decision.generate:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), decision.wait_s)
            return
        block = await self._host.call(partial(self._make, spec, box, world))
        if self._command is None:  # else: a start or restart came meanwhile, and this block is of the past
            await self._send_frames(block, Flags.BLOCK, cost_s=self._clock() - asked_s)
        if isinstance(world, Swappable) and (drift := world.drift) is not None:
            await self._send(drift)

    async def _send_map(self, world: World) -> None:
        await self._send(await self._host.call(partial(draw_map, world)))

    async def _join(self, together: Together, spec: WorldSpec, box: InputBox, world: World, begin_by_s: float) -> None:
        """Make the next block with those of the other players, unless something happens before it is begun."""
        made = await together.make(world, partial(box.take, spec.block_frames), begin_by_s, self._wake)
        if made is None:
            return
        block = await asyncio.to_thread(make_block, made.frames, self._format, made.action, made.sampled_s)
        if self._command is None:
            await self._send_frames(block, Flags.BLOCK, cost_s=made.cost_s)

    def _make(self, spec: WorldSpec, box: InputBox, world: World) -> Block:
        """On the generation thread: sample the input now, at the last moment, and make one block."""
        sampled_s = self._clock()
        action, seq = box.take(spec.block_frames)
        return make_block(world.step(action), self._format, seq, sampled_s)

    async def _send_frames(self, block: Block, flags: Flags, cost_s: float | None = None) -> None:
        self._pace = made(self._config, self._pace, len(block.payloads), self._clock(), cost_s=cost_s)
        for payload in block.payloads:
            message = FrameMessage(
                format=self._format,
                flags=flags,
                epoch=self._epoch,
                index=self._index,
                action=block.action,
                width=block.width,
                height=block.height,
                sampled_ms=block.sampled_s * 1000,
                sent_ms=self._clock() * 1000,
                payload=payload,
            )
            flags = Flags.NONE
            self._index += 1
            await self._send(message)

    def _close_world(self) -> None:
        if self._held is not None:
            self._host.sessions.end(self._held)
            self._held = None


def _place_in(world: World) -> tuple[int, int, int]:
    """Number of the frame that a session stands at, and the first and the last that can be gone to."""
    return (world.frame, world.earliest, world.last) if isinstance(world, Rewindable) else (1, 1, 1)


def _pace_of(spec: WorldSpec, max_fps: float | None) -> PaceConfig:
    """The pace of a world, at most at `max_fps` frames a second; the other players keep theirs."""
    return PaceConfig(block_frames=spec.block_frames, fps=min(spec.fps, max_fps or spec.fps))
