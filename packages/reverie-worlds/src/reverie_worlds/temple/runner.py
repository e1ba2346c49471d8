"""The runner of the temple world: how keys move the body, what it runs into, and how it goes on after a fall.

One step is one frame of 40 ms.  Keys are read as held: a held jump jumps again on landing, a held crouch goes on
sliding.  Nothing here draws, and nothing is random.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from reverie_worlds.temple.track import (
    BEAM_CLEARANCE,
    HALF_WIDTH,
    LEAN,
    NARROW_EDGE,
    WALL_HEIGHT,
    Coin,
    Leg,
    Piece,
)

DT_S = 0.04
MIN_SPEED, MAX_SPEED = 8.5, 14.5
"""Metres a second."""
SPEED_UP = 0.014
"""Share of what is missing to full speed that is gained each second."""

GRAVITY = 18.0
JUMP_SPEED = 6.4
"""0.71 s in the air, 1.1 m high."""
DIVE_SPEED = -9.0
"""Crouching in the air comes down fast."""
SLIDE_FRAMES = 16
LEAN_RATE, LEAN_MAX_STEP = 0.22, 0.26
TURN_REACH = 1.3
"""A corner can be turned from so far before its middle, and until the platform ends."""
TURN_MEMORY_FRAMES = 9
"""A turn asked for too early is remembered for so long."""

STUMBLE_FRAMES = 14
FALL_FRAMES = 26
HIT_FRAMES = 24
VEIL_FRAMES = 7
"""Mist closes over the frame in the last frames of a fall, and opens again after it."""
BODY_HALF_WIDTH = 0.3


@dataclass(slots=True)
class Runner:
    """State of the runner.

    leg, s, x: position on the track.  z: height of the feet above the leg's start.  mode: run, jump, slide, stumble,
    fall, hit.  mode_frames: frames since it began.  turn: the turn asked for, -1, 0 or +1.
    """

    leg: Leg
    speed: float
    s: float = 4.0
    x: float = 0.0
    z: float = 0.0
    climb: float = 0.0
    mode: str = "run"
    mode_frames: int = 0
    slide_left: int = 0
    turn: int = 0
    turn_left: int = 0
    lean: int = 0
    stride: float = 0.0
    """Phase of the steps, in steps."""
    veil_left: int = 0
    previous: Leg | None = None
    collected: set[tuple[int, int]] = field(default_factory=set)
    picked: list[tuple[float, float, float]] = field(default_factory=list)
    """Positions in the world of the coins picked up in this frame."""
    coins: int = 0
    deaths: int = 0
    stumbles: int = 0
    tripped: Piece | None = None
    cause: Piece | None = None

    @property
    def floor(self) -> float:
        return self.leg.floor(self.s)

    @property
    def air(self) -> float:
        """Metres between the feet and the floor."""
        return self.z - self.floor

    @property
    def place(self) -> tuple[float, float, float]:
        """The feet in the world."""
        return self.leg.at(self.s, self.x, self.z)

    @property
    def dying(self) -> bool:
        return self.mode in ("fall", "hit")

    @property
    def veil(self) -> float:
        """Opacity of the mist, 0 to 1."""
        length = FALL_FRAMES if self.mode == "fall" else HIT_FRAMES
        closing = (self.mode_frames - (length - VEIL_FRAMES)) / VEIL_FRAMES if self.dying else 0.0
        return min(max(closing, self.veil_left / VEIL_FRAMES, 0.0), 1.0)

    def step(self, keys: Set[str]) -> None:
        """One frame with `keys` held."""
        self.mode_frames += 1
        self.veil_left = max(self.veil_left - 1, 0)
        self.picked = []
        if self.dying:
            self._die_on()
            return
        self.speed += (MAX_SPEED - self.speed) * SPEED_UP * DT_S
        self._answer(keys)
        pace = self.speed * (0.7 if self.mode == "stumble" else 1.0)
        self.s += pace * DT_S
        self.stride += pace * DT_S / (0.75 + 0.07 * pace)
        goal = LEAN * self.lean
        self.x += max(min((goal - self.x) * LEAN_RATE, LEAN_MAX_STEP), -LEAN_MAX_STEP)
        self._fly()
        self._corner()
        if not self.dying:
            self._collide()
        self._collect()

    def _answer(self, keys: Set[str]) -> None:
        self.lean = ("right" in keys) - ("left" in keys)
        asked = ("turn-right" in keys) - ("turn-left" in keys)
        self.turn_left = TURN_MEMORY_FRAMES if asked else max(self.turn_left - 1, 0)
        self.turn = asked or (self.turn if self.turn_left else 0)
        if self.mode == "stumble":
            if self.mode_frames >= STUMBLE_FRAMES:
                self._become("run")
            return
        if self.mode in ("run", "slide"):
            if "crouch" in keys:
                self.slide_left = SLIDE_FRAMES
                if self.mode == "run":
                    self._become("slide")
            elif "jump" in keys:
                self.climb = JUMP_SPEED
                self._become("jump")
            elif self.mode == "slide":
                self.slide_left -= 1
                if self.slide_left <= 0:
                    self._become("run")
        elif self.mode == "jump" and "crouch" in keys:
            self.climb = min(self.climb, DIVE_SPEED)
            self.slide_left = SLIDE_FRAMES

    def _become(self, mode: str) -> None:
        self.mode, self.mode_frames = mode, 0

    def _fly(self) -> None:
        """Height: gravity in the air, the floor otherwise."""
        floor = self.floor
        if self.mode != "jump" and self.climb <= 0.0:
            self.z, self.climb = floor, 0.0
            return
        self.z += self.climb * DT_S
        self.climb -= GRAVITY * DT_S
        if self.z <= floor and self.climb < 0.0 and not self._over_nothing():
            self.z, self.climb = floor, 0.0
            if self.mode == "jump":
                self._become("slide" if self.slide_left > 0 else "run")

    def _over_nothing(self) -> bool:
        """Tests whether there is no floor under the feet."""
        for piece in self.leg.pieces:
            if piece.kind == "gap" and piece.s0 + 0.2 < self.s < piece.s1 - 0.25:
                return True
            broken = self.x * piece.side > -NARROW_EDGE + 0.15
            if piece.kind == "narrow" and piece.s0 + 0.2 < self.s < piece.s1 - 0.25 and broken:
                return True
        return False

    def _corner(self) -> None:
        """Turn where it was asked for; run off the platform, or into its wall, where it was not."""
        before = self.leg.length - self.s
        if before > TURN_REACH:
            return
        way = {1: "right", -1: "left"}.get(self.turn, "")
        if way in self.leg.exits:
            self._turn(way, before)
        elif self.leg.walled and before < -(HALF_WIDTH - 0.35) and self.air < 2.0:
            self._die("hit", None)
        elif before < -HALF_WIDTH and self.air < 0.05:
            self._die("fall", None)

    def _turn(self, way: str, before: float) -> None:
        sign = 1 if way == "right" else -1
        rise = self.leg.floor(self.leg.length)
        self.previous, self.leg = self.leg, self.leg.child(way)
        self.s, self.x = sign * self.x, max(min(sign * before, LEAN), -LEAN)
        self.z -= rise
        self.turn, self.turn_left = 0, 0

    def _collide(self) -> None:
        if self.air < 0.05 and self._over_nothing():
            self._die("fall", self._under())
            return
        for piece in self.leg.pieces:
            if not piece.s0 - 0.25 < self.s < piece.s1 + 0.1:
                continue
            sliding = self.mode == "slide" and self.air < BEAM_CLEARANCE - 0.7
            in_front = self.x * piece.side > 0.1 - NARROW_EDGE - BODY_HALF_WIDTH
            if (piece.kind == "beam" and not sliding) or (piece.kind == "pillar" and in_front):
                self._die("hit", piece)
            elif piece.kind == "wall" and self.air < WALL_HEIGHT - 0.2 and self.tripped is not piece:
                self._trip(piece)

    def _under(self) -> Piece | None:
        return next((p for p in self.leg.pieces if p.s0 <= self.s <= p.s1), None)

    def _trip(self, piece: Piece) -> None:
        self.tripped = piece
        self.stumbles += 1
        self.speed = max(MIN_SPEED, self.speed - 1.5)
        self.climb = 4.0
        self._become("stumble")

    def _die(self, mode: str, cause: Piece | None) -> None:
        self.cause = cause
        self.deaths += 1
        self.climb = min(self.climb, 0.0) if mode == "fall" else 2.2
        self._become(mode)

    def _die_on(self) -> None:
        """Fall into the depth, or be thrown back; then go on behind what was in the way."""
        if self.mode == "fall":
            self.s += 0.55 * self.speed * DT_S * max(1.0 - self.mode_frames / 20, 0.0)
            self.climb -= GRAVITY * DT_S
            self.z += self.climb * DT_S
        else:
            self.s -= 3.0 * DT_S * max(1.0 - self.mode_frames / 8, 0.0)
            self.climb -= GRAVITY * DT_S
            self.z = max(self.z + self.climb * DT_S, self.floor)
        if self.mode_frames >= (FALL_FRAMES if self.mode == "fall" else HIT_FRAMES):
            self._restart()

    def _restart(self) -> None:
        if self.cause is None:
            way = self.leg.exits[self.leg.seed % len(self.leg.exits)]
            self.previous, self.leg = self.leg, self.leg.child(way)
            self.s = 2.0
        else:
            self.s = self.cause.s1 + 1.5
        self.x, self.climb, self.turn, self.turn_left, self.slide_left = 0.0, 0.0, 0, 0, 0
        self.z = self.floor
        self.speed = MIN_SPEED
        self.veil_left = VEIL_FRAMES
        self._become("run")

    def _collect(self) -> None:
        for index, coin in enumerate(self.leg.coins):
            key = (self.leg.seed, index)
            if abs(coin.s - self.s) < 0.8 and key not in self.collected and self._touches(coin):
                self.collected.add(key)
                self.coins += 1
                self.picked.append(self.leg.at(coin.s, coin.x, coin.z))

    def _touches(self, coin: Coin) -> bool:
        return abs(coin.x - self.x) < 0.7 and -0.5 < coin.z - self.z < 2.0

    def hints(self, reach: float = 45.0) -> Mapping[str, Any]:
        """Lists obstacles, the corner and coins ahead: distances in metres, from the runner.

        obstacles: `(kind, distance, length, answer)` in order.  corner: `(distance, exits)`.  coins: `(distance, x)`.
        """
        obstacles = [
            (p.kind, p.s0 - self.s, p.s1 - p.s0, p.answer)
            for p in self.leg.pieces
            if p.answer is not None and p.s1 + 0.3 > self.s and p.s0 - self.s < reach
        ]
        coins = [
            (c.s - self.s, c.x)
            for i, c in enumerate(self.leg.coins)
            if 0.0 < c.s - self.s < reach and (self.leg.seed, i) not in self.collected
        ]
        return {
            "obstacles": tuple(obstacles),
            "corner": (self.leg.length - self.s, self.leg.exits),
            "coins": tuple(sorted(coins)),
            "mode": self.mode,
            "speed": self.speed,
            "x": self.x,
            "leg": self.leg.seed,
        }


def heading_deg(leg: Leg) -> float:
    """The leg's direction, degrees clockwise from +y."""
    return math.fmod(leg.heading * 90.0, 360.0)
