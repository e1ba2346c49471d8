"""The track of the temple world: straight legs of causeway, joined by corners, made one leg at a time from seeds.

Metres.  A leg runs from the middle of one corner platform (s = 0) to the middle of the next (s = length), along one of
four headings: 0 is +y, 1 is +x, 2 is -y, 3 is -x, so that a turn to the right adds one.  x is the offset to the
right of the middle line.  No graphics here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

HALF_WIDTH = 2.0
"""Half the width of the causeway, and of a corner's platform."""

LEAN = 1.25
"""Offset to the side of a leaning runner, metres."""

NARROW_EDGE = 0.3
"""A broken path keeps the half beyond this offset."""

BEAM_CLEARANCE = 1.0
WALL_HEIGHT = 0.65
FIRST_FREE = 15.0
LAST_FREE = 13.0
"""No obstacle stands nearer to a corner's middle, behind it and before it."""

DEADLY = ("gap", "beam", "narrow", "pillar")
ANSWERS = {"gap": "jump", "wall": "jump", "beam": "crouch"}
"""The key that passes each obstacle; a broken path and a pillar are passed on the other side."""

WEIGHTS = {
    "gap": 0.19, "wall": 0.14, "beam": 0.20, "narrow": 0.12, "pillar": 0.08,
    "ramp": 0.10, "bridge": 0.05, "tunnel": 0.035, "gate": 0.045,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Piece:
    """One thing on a leg, from s0 to s1.

    kind: gap, wall, beam, narrow, pillar (obstacles), ramp, bridge, tunnel, gate (what one just runs over or through).
    side: -1 left, +1 right, 0 all: what is broken or blocked.  rise: metres that the floor climbs.  variant: its look.
    """

    kind: str
    s0: float
    s1: float
    side: int = 0
    rise: float = 0.0
    variant: int = 0

    @property
    def answer(self) -> str | None:
        """The key that passes it; None where there is nothing to answer."""
        if self.kind in ("narrow", "pillar"):
            return "left" if self.side > 0 else "right"
        return ANSWERS.get(self.kind)


@dataclass(frozen=True, slots=True)
class Coin:
    """A coin: s and x as everywhere, z above the floor of the leg's start."""

    s: float
    x: float
    z: float


@dataclass(eq=False, slots=True)
class Leg:
    """A straight of the track.  exits: `left`, `right` or both.  walled: a wall closes the corner's far side."""

    seed: int
    start: tuple[float, float, float]
    heading: int
    length: float
    pieces: tuple[Piece, ...]
    coins: tuple[Coin, ...]
    exits: tuple[str, ...]
    walled: bool
    turns: tuple[str, ...]
    exit_seeds: dict[str, int]
    children: dict[str, Leg] = field(default_factory=dict)

    @property
    def forward(self) -> tuple[float, float]:
        """Unit vector (x, y) along the leg."""
        angle = self.heading * math.pi / 2
        return round(math.sin(angle)), round(math.cos(angle))

    @property
    def right(self) -> tuple[float, float]:
        fx, fy = self.forward
        return fy, -fx

    def floor(self, s: float) -> float:
        """Height of the whole floor at s, gaps ignored, above the leg's start."""
        height = 0.0
        for piece in self.pieces:
            if piece.rise and s > piece.s0:
                height += piece.rise * min((s - piece.s0) / (piece.s1 - piece.s0), 1.0)
        return height

    def at(self, s: float, x: float = 0.0, z: float = 0.0) -> tuple[float, float, float]:
        """The world's (x, y, z) of a spot; z counts from the leg's start."""
        (fx, fy), (rx, ry) = self.forward, self.right
        return (self.start[0] + fx * s + rx * x, self.start[1] + fy * s + ry * x, self.start[2] + z)

    def child(self, turn: str) -> Leg:
        """The leg that follows after `turn`, made when first asked for."""
        if turn not in self.children:
            heading = (self.heading + (1 if turn == "right" else -1)) % 4
            start = self.at(self.length, 0.0, self.floor(self.length))
            self.children[turn] = make_leg(self.exit_seeds[turn], start, heading, (*self.turns, turn)[-2:])
        return self.children[turn]


def make_leg(seed: int, start: tuple[float, float, float], heading: int, turns: tuple[str, ...]) -> Leg:
    """A leg from its seed; everything after it follows from it too.

    turns: the last two turns.  Never three the same way, so that the legs in sight cannot cross.
    """
    rng = np.random.default_rng(seed)
    length = float(rng.uniform(46, 86))
    pieces = _pieces(rng, length, start[2])
    exits = _exits(rng, turns)
    leg = Leg(
        seed, start, heading, length, pieces, (), exits, bool(rng.random() < 0.45), turns,
        {turn: int(rng.integers(2**62)) for turn in ("left", "right")},
    )  # fmt: skip
    leg.coins = _coins(rng, leg)
    return leg


def first_leg(track: int) -> Leg:
    """Builds the first leg of track number `track`."""
    rng = np.random.default_rng([track, 0x7E3])
    return make_leg(int(rng.integers(2**62)), (0.0, 0.0, 0.0), int(rng.integers(4)), ())


def _exits(rng: np.random.Generator, turns: tuple[str, ...]) -> tuple[str, ...]:
    both, way = rng.random() < 0.3, ("left", "right")[int(rng.integers(2))]
    if len(turns) == 2 and turns[0] == turns[1]:
        return ("left",) if turns[0] == "right" else ("right",)
    return ("left", "right") if both else (way,)


def _pieces(rng: np.random.Generator, length: float, height: float) -> tuple[Piece, ...]:
    """Obstacles and sights with room to react in between."""
    kinds, weights = list(WEIGHTS), np.array(list(WEIGHTS.values()))
    pieces: list[Piece] = []
    s, last = FIRST_FREE + float(rng.uniform(0, 6)), ""
    while True:
        kind = kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]
        if kind == last and kind not in ("gap", "beam"):
            continue
        piece = _piece(rng, kind, s, height)
        if piece.s1 > length - LAST_FREE:
            return tuple(pieces)
        pieces.append(piece)
        height += piece.rise
        s, last = piece.s1 + float(rng.uniform(9.5, 15.5)), kind


def _piece(rng: np.random.Generator, kind: str, s: float, height: float) -> Piece:
    sizes = {
        "gap": (2.6, 4.4), "wall": (0.5, 0.8), "beam": (0.7, 1.1), "narrow": (5.0, 11.0), "pillar": (1.2, 1.8),
        "ramp": (5.0, 8.0), "bridge": (12.0, 20.0), "tunnel": (9.0, 16.0), "gate": (1.4, 1.8),
    }  # fmt: skip
    size, side = float(rng.uniform(*sizes[kind])), int(rng.choice((-1, 1)))
    rise = 0.0
    if kind == "ramp":  # towards the height the track began at, so that it stays above its abyss
        up = rng.random() < 0.5 - 0.08 * height
        rise = float(rng.uniform(1.0, 2.0)) * (1 if up else -1)
    sided = kind in ("narrow", "pillar")
    return Piece(kind, s, s + size, side if sided else 0, rise, int(rng.integers(4)))


def _coins(rng: np.random.Generator, leg: Leg) -> tuple[Coin, ...]:
    """Coins in rows: in arcs over what is jumped, low under beams, beside what is in the way."""
    coins: list[Coin] = []
    for piece in leg.pieces:
        middle = (piece.s0 + piece.s1) / 2
        if rng.random() > 0.45 or piece.kind in ("ramp",):
            continue
        for ds in np.arange(-3, 4) * 1.5:
            s = middle + float(ds)
            height, x = 0.9, 0.0
            if piece.kind in ("gap", "wall"):
                height = 0.9 + 1.0 * max(1 - (ds / 4.0) ** 2, 0.0)
            elif piece.kind == "beam":
                height = 0.55
            elif piece.kind in ("narrow", "pillar"):
                x = -LEAN * piece.side
            coins.append(Coin(s, x, leg.floor(s) + height))
    edges = [FIRST_FREE - 7.0, *(p.s1 for p in leg.pieces)], [*(p.s0 for p in leg.pieces), leg.length - LAST_FREE + 6]
    for begin, end in zip(*edges, strict=True):
        if end - begin > 13 and rng.random() < 0.5:
            side = float(rng.choice((-1.0, 0.0, 1.0)))
            first = begin + (end - begin) / 2 - 3.0
            coins += [Coin(s, side * LEAN, leg.floor(s) + 0.9) for s in first + 1.5 * np.arange(5)]
    return tuple(Coin(float(c.s), float(c.x), float(c.z)) for c in coins)
