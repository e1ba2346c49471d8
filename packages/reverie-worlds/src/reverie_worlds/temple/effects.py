"""Animated effects: spinning coins, flames, particles in the air, sparks of a coin.  Batches of quads, made anew each
frame from the time alone."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from reverie_worlds.temple.mesh import VERTEX, Floats
from reverie_worlds.temple.textures import LAYER

MAX_COINS = 36
MAX_GLOWS = 110
MAX_MOTES = 70
_COIN_SIDES = 10
_UV = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.float32)
MOTES = {
    "leaves": (0.075, (0.62, 0.70, 0.22), 1.0, (0.5, 0.3, -0.5)),
    "dust": (0.10, (1.0, 0.86, 0.62), 0.28, (2.2, 0.6, 0.0)),
    "snow": (0.045, (1.0, 1.0, 1.0), 0.9, (0.7, 0.2, -1.3)),
    "embers": (0.035, (1.0, 0.55, 0.15), 1.0, (0.3, 0.2, 1.1)),
    "fireflies": (0.055, (0.75, 1.0, 0.35), 0.9, (0.1, 0.1, 0.05)),
}
"""Size in metres, colour, opacity and wind in metres a second of what flies."""


class Quads:
    """A batch of quads that face the camera."""

    def __init__(self, count: int, layer: str) -> None:
        self.vertices = np.zeros((count, 4), VERTEX)
        self.vertices["uv"][..., :2], self.vertices["uv"][..., 2] = _UV, LAYER[layer]
        self.vertices["normal"] = (0, 0, 1)
        self._used = 0
        self.count = count

    def begin(self, right: Floats, up: Floats) -> None:
        self._right, self._up, self._used = right, up, 0

    def put(self, places: Floats, wide: Floats, tall: Floats, colours: Floats, layer: str) -> None:
        """places `(n, 3)` are middles; wide, tall `(n,)` metres; colours `(n, 4)` of 0..1.  The rest is left out."""
        n = min(len(places), self.count - self._used)
        if n <= 0:
            return
        part = self.vertices[self._used : self._used + n]
        across = (_UV[:, 0] - 0.5)[None, :, None] * wide[:n, None, None] * self._right
        along = (_UV[:, 1] - 0.5)[None, :, None] * tall[:n, None, None] * self._up
        part["position"] = places[:n, None] + across + along
        part["colour"] = (np.clip(colours[:n], 0, 1) * 255)[:, None]
        part["uv"][..., 2] = LAYER[layer]
        self._used += n

    def end(self) -> npt.NDArray[np.void]:
        self.vertices["position"][self._used :] = 0.0
        return self.vertices.reshape(-1)


class CoinBatch:
    """Coins in one mesh; `place` puts them and hides the rest."""

    def __init__(self) -> None:
        n = _COIN_SIDES
        angle = 2 * np.pi * np.arange(n) / n
        rim = np.stack([np.cos(angle), np.zeros(n), np.sin(angle)], 1) * 0.27
        uv = 0.5 + 0.5 * np.stack([np.cos(angle), np.sin(angle)], 1)
        front, back = rim - np.array((0, 0.04, 0)), rim + np.array((0, 0.04, 0))
        self._local = np.concatenate([front, back, front, back]).astype(np.float32)
        faces, sides = np.tile((0.0, -1.0, 0.0), (n, 1)), rim / 0.27
        self._normal = np.concatenate([faces, -faces, sides, sides]).astype(np.float32)
        self.vertices = np.zeros((MAX_COINS, 4 * n), VERTEX)
        self.vertices["colour"] = (255, 205, 70, 190)
        self.vertices["uv"][:, : 2 * n, :2], self.vertices["uv"][..., 2] = np.tile(uv, (2, 1)), LAYER["coin"]
        fan = np.stack([np.zeros(n - 2), np.arange(1, n - 1), np.arange(2, n)], 1)
        j = np.arange(n)
        a, b = 2 * n + j, 2 * n + (j + 1) % n
        band = np.concatenate([np.stack([a, b, b + n], 1), np.stack([a, b + n, a + n], 1)])[:, ::-1]
        one = np.concatenate([fan, (fan + n)[:, ::-1], band]).astype(np.uint32)
        first = np.arange(MAX_COINS, dtype=np.uint32)[:, None, None] * 4 * n
        self.indices = (first + one).reshape(-1)

    def place(self, places: Floats, time_s: float) -> npt.NDArray[np.void]:
        """Spinning coins at `places (n, 3)`; no more than MAX_COINS."""
        n = min(len(places), MAX_COINS)
        spin = 3.2 * time_s + 0.35 * (places[:n, 0] + places[:n, 1])
        cos, sin = np.cos(spin)[:, None], np.sin(spin)[:, None]
        for source, name in ((self._local, "position"), (self._normal, "normal")):
            out = self.vertices[name]
            out[:n, :, 0] = source[:, 0] * cos - source[:, 1] * sin
            out[:n, :, 1] = source[:, 0] * sin + source[:, 1] * cos
            out[:n, :, 2] = source[:, 2]
        self.vertices["position"][:n] += places[:n, None]
        self.vertices["position"][n:] = 0.0
        return self.vertices.reshape(-1)


class Air:
    """Particles in the air round the camera: fixed seeds of motion, wrapped into a box that moves along."""

    SPAN = np.array([14.0, 14.0, 7.0], np.float32)

    def __init__(self, rng: np.random.Generator, kind: str) -> None:
        self.kind = kind
        self._home = rng.random((MAX_MOTES, 3), dtype=np.float32) * self.SPAN
        self._phase = rng.random((MAX_MOTES, 2), dtype=np.float32) * 6.283
        self._light = rng.uniform(0.6, 1.1, (MAX_MOTES, 1)).astype(np.float32)

    def put(self, quads: Quads, eye: Floats, time_s: float) -> None:
        """Add them to `quads`."""
        size, colour, opacity, wind = MOTES[self.kind]
        sway = 0.5 * np.sin(1.3 * time_s + self._phase)
        place = self._home + np.array(wind, np.float32) * time_s
        place[:, :2] += sway
        low = eye - self.SPAN / 2
        place = low + (place - low) % self.SPAN
        colours = np.concatenate([np.array(colour) * self._light, np.full((MAX_MOTES, 1), opacity)], 1)
        if self.kind == "fireflies":
            colours[:, 3] *= np.clip(0.3 + np.sin(2.1 * time_s + 7 * self._phase[:, 0]), 0, 1)
        near = np.linalg.norm(place - eye, axis=1)
        colours[:, 3] *= np.clip((near - 0.8) / 1.0, 0, 1)
        flutter = 1.0 + 0.5 * np.sin(5 * time_s + self._phase[:, 1]) if self.kind == "leaves" else np.ones(MAX_MOTES)
        quads.put(
            place.astype(np.float32),
            (size * flutter).astype(np.float32),
            np.full(MAX_MOTES, size, np.float32),
            colours.astype(np.float32),
            "blob",
        )


def put_flames(quads: Quads, flames: Floats, time_s: float) -> None:
    """flames `(n, 5)`: x, y, z of the foot, size, and 1 for a jet that licks sideways."""
    if not len(flames):
        return
    phase = 9.0 * time_s + 2.4 * np.arange(len(flames)) + flames[:, 0]
    flicker = 1.0 + 0.16 * np.sin(phase) + 0.12 * np.sin(2.3 * phase)
    tall = flames[:, 3] * flicker
    jet = flames[:, 4] > 0
    wide = np.where(jet, 0.95, 0.62) * flames[:, 3] * (1 + 0.1 * np.sin(1.7 * phase))
    place = flames[:, :3].copy()
    place[:, 2] += tall * 0.42
    place[:, 0] += 0.05 * np.sin(1.3 * phase)
    colours = np.tile(np.array((1.0, 0.95, 0.9, 0.95), np.float32), (len(flames), 1))
    glow = np.tile(np.array((1.0, 0.5, 0.15, 0.28), np.float32), (len(flames), 1))
    halo = (2.6 * flames[:, 3] * (0.9 + 0.1 * flicker)).astype(np.float32)
    quads.put(place, wide.astype(np.float32), tall.astype(np.float32), colours, "flame")
    quads.put(place[~jet], halo[~jet], halo[~jet], glow[~jet], "blob")


def sparks(places: list[tuple[float, float, float, int]]) -> tuple[Floats, Floats, Floats]:
    """Sparks of coins picked up `age` frames ago: places, sizes, colours."""
    spots, sizes, colours = [], [], []
    for x, y, z, age in places:
        for i in range(7):
            way, out = 2 * math.pi * i / 7, 0.16 + 0.10 * age
            spots.append((x + out * math.cos(way), y + 0.3 * out * math.sin(2 * way), z + out * math.sin(way)))
            sizes.append(0.22 - 0.03 * age)
            colours.append((1.0, 0.85, 0.35, 1.0 - age / 6))
    shape = (-1, 3), (-1,), (-1, 4)
    return tuple(np.array(v, np.float32).reshape(s) for v, s in zip((spots, sizes, colours), shape, strict=True))  # type: ignore[return-value]
