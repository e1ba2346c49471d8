"""One connection: what it wants, where its world stands, and the two loops that serve it.

The reading loop takes messages in as they come and never waits for the world.  The playing loop asks `engine.pace`
when to begin the next block, has it made on the host's generation thread, and sends it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from starlette.websockets import WebSocket, WebSocketDisconnect

from reverie.engine.pace import PaceConfig, PaceState, begin, decide, made, played
from reverie.errors import ReverieError
from reverie.serve.bindings import InputBox
from reverie.serve.host import Host, jpeg, one_line
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
    Pause,
    Paused,
    Ping,
    Played,
    Pong,
    Refusal,
    Restart,
    ServerMessage,
    Start,
    Started,
    parse,
    to_json,
)
from reverie.serve.sources import WorldSpec
from reverie.types import Frames, World

log = logging.getLogger("reverie.serve")

STATUS_EVERY_S = 0.2


class Allowance:
    """A token bucket: `rate` messages a second, `burst` at once."""

    def __init__(self, rate: float, burst: float, now_s: float) -> None:
        self._rate, self._burst, self._left, self._at_s = rate, burst, burst, now_s

    def spend(self, now_s: float) -> bool:
        """Take one; False if there is none left."""
        self._left = min(self._burst, self._left + (now_s - self._at_s) * self._rate)
        self._at_s = now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True


@dataclass(frozen=True, slots=True)
class Block:
    """Frames ready to send, encoded, with the input they obey and when it was sampled."""

    payloads: list[bytes]
    action: int
    sampled_s: float


class Player:
    """A client from hello to goodbye.  `run` returns when it has gone, whatever it did; other players go on."""

    def __init__(self, socket: WebSocket, host: Host, clock: Callable[[], float] = time.monotonic) -> None:
        self._socket = socket
        self._host = host
        self._clock = clock
        self._sending = asyncio.Lock()
        self._wake = asyncio.Event()
        self._format = Format.JPEG
        self._box = InputBox()
        self._command: Start | Restart | None = None
        self._start: str | None = None
        self._is_paused = False
        self._world: World | None = None
        self._epoch = 0
        self._index = 0
        self._config = PaceConfig(block_frames=1)
        self._pace = PaceState()

    async def run(self) -> None:
        await self._socket.accept()
        self._host.num_players += 1
        try:
            await self._serve()
        except Refusal as refusal:
            await self._refuse(refusal)
        except WebSocketDisconnect:
            pass
        finally:
            self._host.num_players -= 1
            self._close_world()

    async def _serve(self) -> None:
        if self._host.num_players > self._host.limits.max_players:
            raise Refusal(
                ErrorCode.FULL, f"{self._host.limits.max_players} players are here already; try again when one leaves"
            )
        await self._greet()
        loops = [asyncio.create_task(self._read()), asyncio.create_task(self._play())]
        try:
            done, _ = await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
            errors = [loop.exception() for loop in done]  # all are looked at, one is told
            raise next(error for error in errors if error is not None)
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.wait(loops)

    # ------------------------------------------------------------------------------------------------- messages

    async def _greet(self) -> None:
        """Hello first, of our version, and soon."""
        try:
            message = await asyncio.wait_for(self._receive(), self._host.limits.hello_s)
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
            await self._take(message)

    async def _take(self, message: ClientMessage) -> None:
        match message:
            case Input():
                self._box.put(message)
            case Played(epoch, index, round_trip_ms):
                self._take_played(epoch, index, round_trip_ms)
            case Ping(time_ms):
                await self._send(Pong(time_ms))
            case Pause(paused):
                self._is_paused = paused
                self._box.flush()
                await self._send(Paused(paused))
                self._wake.set()
            case Start() | Restart():
                self._command = message
                self._wake.set()
            case Hello():
                raise Refusal(ErrorCode.BAD_MESSAGE, "hello is said once")

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
            await self._socket.close(code, str(refusal)[:100])
        except (WebSocketDisconnect, RuntimeError, OSError):
            pass

    # -------------------------------------------------------------------------------------------------- playing

    async def _play(self) -> None:
        spec = await self._ready()
        self._config = PaceConfig(block_frames=spec.block_frames, fps=spec.fps)
        self._pace = begin(self._config, self._clock())
        await self._send(self._host.welcome(spec))
        while True:
            self._wake.clear()
            if self._command is not None:
                await self._guard(self._begin(spec))
            elif self._world is None or self._is_paused:
                await self._wake.wait()
            else:
                await self._guard(self._go_on(spec, self._world))

    async def _ready(self) -> WorldSpec:
        """Report the warm-up until it is over."""
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

    async def _begin(self, spec: WorldSpec) -> None:
        """Carry out the latest start or restart; its first picture opens a new epoch."""
        command, self._command = self._command, None
        assert command is not None
        start = command.start if isinstance(command, Start) else self._start
        reuse = self._world if isinstance(command, Restart) else None
        began_s = self._clock()
        world, picture = await self._host.call(partial(self._open, reuse, start, command.seed))
        if world is not self._world:
            self._close_world()
        self._world, self._start = world, start
        self._epoch += 1
        self._index = 0
        self._box.flush()
        self._pace = begin(self._config, self._clock(), before=self._pace)
        await self._send(Started(self._epoch, start, command.seed))
        if self._is_paused:
            self._is_paused = False
            await self._send(Paused(False))
        await self._send_frames(spec, Block(self._encode(picture), 0, began_s), Flags.FIRST)

    def _open(self, reuse: World | None, start: str | None, seed: int) -> tuple[World, Frames]:
        """On the generation thread: a world at its first picture."""
        world = reuse or self._host.open(start, seed)
        try:
            return world, world.reset(seed)
        except Exception:
            if reuse is None:
                world.close()
            raise

    async def _go_on(self, spec: WorldSpec, world: World) -> None:
        """Make the next block if it is time, else wait until it is or something happens."""
        asked_s = self._clock()
        decision = decide(self._config, self._pace, asked_s)
        if not decision.generate:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), decision.wait_s)
            return
        block = await self._host.call(partial(self._make, spec, world))
        if self._command is None:  # else: a start or restart came meanwhile, and this block is of the past
            await self._send_frames(spec, block, Flags.BLOCK, cost_s=self._clock() - asked_s)

    def _make(self, spec: WorldSpec, world: World) -> Block:
        """On the generation thread: sample the input now, at the last moment, and make one block."""
        sampled_s = self._clock()
        action, seq = self._box.take(spec.bindings, spec.block_frames)
        return Block(self._encode(world.step(action)), seq, sampled_s)

    def _encode(self, frames: Frames) -> list[bytes]:
        if self._format is Format.RGB:
            return [frame.tobytes() for frame in frames]
        return [jpeg(frame) for frame in frames]

    async def _send_frames(self, spec: WorldSpec, block: Block, flags: Flags, cost_s: float | None = None) -> None:
        height, width = spec.resolution
        self._pace = made(self._config, self._pace, len(block.payloads), self._clock(), cost_s=cost_s)
        for payload in block.payloads:
            message = FrameMessage(
                format=self._format,
                flags=flags,
                epoch=self._epoch,
                index=self._index,
                action=block.action,
                width=width,
                height=height,
                sampled_ms=block.sampled_s * 1000,
                sent_ms=self._clock() * 1000,
                payload=payload,
            )
            flags = Flags.NONE
            self._index += 1
            await self._send(message)

    def _close_world(self) -> None:
        if self._world is not None:
            self._host.later(self._world.close)
            self._world = None
