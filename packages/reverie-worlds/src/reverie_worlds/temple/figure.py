"""The runner's body: a jointed figure that runs, jumps, slides, leans, trips, falls and lies on its back.

Axes of the body: x to the right, y forward, z up, the feet at the origin; angles in radians.  A joint's angles are
(pitch, roll, yaw): pitch swings a hanging limb forward, roll leans to the right, yaw turns to the left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reverie_worlds.temple.mesh import VERTEX, Floats, Shapes
from reverie_worlds.temple.runner import Runner

BONES = (
    "hips", "chest", "head", "tail", "arm-left", "hand-left", "arm-right", "hand-right",
    "thigh-left", "shin-left", "thigh-right", "shin-right",
)  # fmt: skip
_INDEX = {name: i for i, name in enumerate(BONES)}
_PARENT = (-1, 0, 1, 2, 1, 4, 1, 6, 0, 8, 0, 10)
_JOINT = np.array(
    [
        (0, 0, 0.92), (0, 0, 0.12), (0, 0, 0.50), (0, -0.10, 0.16), (-0.235, 0, 0.42), (0, 0, -0.29),
        (0.235, 0, 0.42), (0, 0, -0.29), (-0.11, 0, -0.04), (0, 0, -0.42), (0.11, 0, -0.04), (0, 0, -0.42),
    ],
    np.float32,
)  # fmt: skip
"""Position of each bone's joint on its parent, metres."""

Colour = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Outfit:
    """Clothes of the runner.  long: hair tied to a tail."""

    shirt: Colour
    trousers: Colour
    hair: Colour
    pack: Colour
    scarf: Colour
    skin: Colour
    long: bool


OUTFITS = (
    Outfit(
        shirt=(0.93, 0.90, 0.80), trousers=(0.50, 0.38, 0.24), hair=(0.80, 0.38, 0.14), pack=(0.52, 0.32, 0.18),
        scarf=(0.85, 0.20, 0.14), skin=(0.94, 0.74, 0.60), long=False,
    ),
    Outfit(
        shirt=(0.20, 0.52, 0.62), trousers=(0.30, 0.30, 0.36), hair=(0.16, 0.11, 0.09), pack=(0.70, 0.54, 0.30),
        scarf=(0.96, 0.78, 0.25), skin=(0.72, 0.50, 0.36), long=True,
    ),
    Outfit(
        shirt=(0.72, 0.24, 0.20), trousers=(0.86, 0.80, 0.66), hair=(0.92, 0.76, 0.40), pack=(0.36, 0.42, 0.30),
        scarf=(0.25, 0.45, 0.80), skin=(0.97, 0.80, 0.68), long=True,
    ),
    Outfit(
        shirt=(0.62, 0.66, 0.36), trousers=(0.40, 0.34, 0.28), hair=(0.10, 0.08, 0.08), pack=(0.48, 0.26, 0.16),
        scarf=(0.92, 0.52, 0.16), skin=(0.50, 0.34, 0.25), long=False,
    ),
)  # fmt: skip


class Figure:
    """The runner's mesh, posed frame by frame from the runner's state."""

    def __init__(self, outfit: Outfit) -> None:
        self._vertices, self.indices, self._bone = _model(outfit)
        self._local = self._vertices["position"].copy()
        self._normal = self._vertices["normal"].copy()
        self._angles = np.zeros((len(BONES), 3), np.float32)
        self._lean = self._yaw = self._drop = 0.0

    @property
    def num_vertices(self) -> int:
        return len(self._vertices)

    def reset(self, runner: Runner) -> None:
        """Take up the pose at once."""
        self._angles, self._drop = _target(runner)
        self._lean, self._yaw = 0.0, -runner.leg.heading * math.pi / 2

    def pose(
        self, runner: Runner, sun: tuple[float, float, float]
    ) -> tuple[npt.NDArray[np.void], npt.NDArray[np.void]]:
        """This frame's vertices in the world, and those of the shadow on the floor."""
        self._ease(runner)
        turn, shift = self._bones(runner)
        place = np.asarray(runner.place, np.float32)
        out = self._vertices
        out["position"] = np.einsum("nij,nj->ni", turn[self._bone], self._local) + shift[self._bone] + place
        out["normal"] = np.einsum("nij,nj->ni", turn[self._bone], self._normal)
        shadow = np.zeros(len(out), VERTEX)
        shadow["uv"][:, 2], shadow["normal"] = 11.0, (0, 0, 1)
        floor = float(place[2]) - runner.air
        height = out["position"][:, 2] - floor
        flat = np.array([-sun[0], -sun[1]], np.float32) / max(sun[2], 0.3)
        shadow["position"][:, :2] = out["position"][:, :2] + np.maximum(height, 0)[:, None] * flat
        # the parts lie one below the other, and the depth test lets only the topmost darken the floor
        shadow["position"][:, 2] = floor + 0.055 - 0.002 * self._bone
        shadow["colour"][:, 3] = 0 if runner.mode == "fall" else 120
        return out, shadow

    def _ease(self, runner: Runner) -> None:
        target, drop = _target(runner)
        rate = 0.75 if runner.mode == "run" and runner.mode_frames > 4 else 0.5
        self._angles += rate * (target - self._angles)
        self._drop += rate * (drop - self._drop)
        self._lean += 0.4 * (runner.lean * 0.30 - self._lean)
        goal = -runner.leg.heading * math.pi / 2 - runner.turn * 0.45
        self._yaw += 0.4 * ((goal - self._yaw + math.pi) % (2 * math.pi) - math.pi)

    def _bones(self, runner: Runner) -> tuple[Floats, Floats]:
        """Rotation `(bones, 3, 3)` and place `(bones, 3)` of each bone, about the feet."""
        turn = np.empty((len(BONES), 3, 3), np.float32)
        shift = np.empty((len(BONES), 3), np.float32)
        local = _rotations(self._angles)
        cos, sin = math.cos(self._yaw), math.sin(self._yaw)
        facing = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], np.float32)
        cos, sin = math.cos(self._lean), math.sin(self._lean)
        root = facing @ np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]], np.float32)
        for i, parent in enumerate(_PARENT):
            base, at = (root, np.zeros(3, np.float32)) if parent < 0 else (turn[parent], shift[parent])
            joint = _JOINT[i] + (0, 0, self._drop) if parent < 0 else _JOINT[i]
            turn[i] = base @ local[i]
            shift[i] = base @ joint + at
        return turn, shift


def _rotations(angles: Floats) -> Floats:
    """`(n, 3)` pitch, roll, yaw -> `(n, 3, 3)`."""
    (cp, cr, cy), (sp, sr, sy) = np.cos(angles).T, np.sin(angles).T
    zero, one = np.zeros_like(cp), np.ones_like(cp)
    pitch = np.stack([one, zero, zero, zero, cp, -sp, zero, sp, cp], -1).reshape(-1, 3, 3)
    roll = np.stack([cr, zero, sr, zero, one, zero, -sr, zero, cr], -1).reshape(-1, 3, 3)
    yaw = np.stack([cy, -sy, zero, sy, cy, zero, zero, zero, one], -1).reshape(-1, 3, 3)
    return yaw @ roll @ pitch


def _angles(**joints: float | tuple[float, ...]) -> Floats:
    """The angles of the joints named (hyphens as underscores), the rest straight."""
    angles = np.zeros((len(BONES), 3), np.float32)
    for name, value in joints.items():
        given = value if isinstance(value, tuple) else (value,)
        angles[_INDEX[name.replace("_", "-")], : len(given)] = given
    return angles


def _target(runner: Runner) -> tuple[Floats, float]:
    """The pose to take up: angles, and how much the hips are raised, metres."""
    p = runner.stride * math.pi
    swing, forth, frames = math.sin(p), math.cos(p), runner.mode_frames
    match runner.mode:
        case "jump":
            up = runner.climb > 0
            return _angles(
                hips=-0.05, chest=-0.15, head=0.1, tail=0.5 if up else 1.6,
                arm_left=(2.3, -0.35), arm_right=(1.6, 0.35), hand_left=0.5, hand_right=0.8,
                thigh_left=1.25, shin_left=-1.5, thigh_right=-0.35 if up else 0.3, shin_right=-0.9,
            ), 0.0  # fmt: skip
        case "slide":
            return _angles(
                hips=1.15, chest=-0.25, head=-0.75, tail=0.6, arm_left=(-0.9, -0.7), arm_right=(-0.6, 0.8),
                hand_left=0.4, hand_right=0.5, thigh_left=0.35, shin_left=-0.15, thigh_right=0.75, shin_right=-1.5,
            ), -0.64  # fmt: skip
        case "stumble":
            wave = math.sin(0.9 * frames)
            return _angles(
                hips=-0.55 + 0.03 * frames, chest=-0.5, head=0.5, tail=1.2, arm_left=(1.5 + wave, -0.8),
                arm_right=(1.5 - wave, 0.8), hand_left=0.4, hand_right=0.4, thigh_left=0.7 + 0.8 * swing,
                shin_left=-0.7, thigh_right=0.7 - 0.8 * swing, shin_right=-0.7,
            ), -0.10  # fmt: skip
        case "fall":
            wave = math.sin(0.8 * frames)
            return _angles(
                hips=-0.07 * frames, chest=0.1, head=0.2, tail=2.0, arm_left=(2.6 + 0.5 * wave, -0.5),
                arm_right=(2.6 - 0.5 * wave, 0.5), thigh_left=0.6 + 0.7 * wave, shin_left=-0.9,
                thigh_right=0.6 - 0.7 * wave, shin_right=-0.9,
            ), 0.0  # fmt: skip
        case "hit":
            down = min(frames / 9, 1.0)
            return _angles(
                hips=1.5 * down, chest=-0.15, head=-0.2, tail=0.5, arm_left=(0.6, -1.2), arm_right=(0.4, 1.3),
                hand_left=0.5, hand_right=0.3, thigh_left=0.35, shin_left=-0.6, thigh_right=0.1, shin_right=-0.3,
            ), -0.78 * down  # fmt: skip
    return _angles(
        hips=(-0.10, 0, 0.10 * swing), chest=(-0.16, 0, -0.28 * swing), head=(0.16, 0, 0.15 * swing),
        tail=(0.45 + 0.25 * math.sin(2 * p), 0.2 * swing), arm_left=(-0.15 - 0.95 * swing, -0.12),
        arm_right=(-0.15 + 0.95 * swing, 0.12), hand_left=1.45 - 0.35 * swing, hand_right=1.45 + 0.35 * swing,
        thigh_left=0.30 + 0.95 * swing, shin_left=-0.25 - 1.45 * max(forth, 0.0) ** 0.8,
        thigh_right=0.30 - 0.95 * swing, shin_right=-0.25 - 1.45 * max(-forth, 0.0) ** 0.8,
    ), -0.03 + 0.07 * abs(forth)  # fmt: skip


def _model(outfit: Outfit) -> tuple[npt.NDArray[np.void], npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    """All vertices in the axes of their bones, the triangles, and each vertex's bone."""
    parts, indices, bones, count = [], [], [], 0
    for number, name in enumerate(BONES):
        shapes = Shapes(np.random.default_rng(number))
        _PART[name.split("-")[0]](shapes, outfit)
        vertices, triangles = shapes.vertices, shapes.indices
        parts.append(vertices)
        indices.append(triangles + np.uint32(count))
        bones.append(np.full(len(vertices), number))
        count += len(vertices)
    return np.concatenate(parts), np.concatenate(indices), np.concatenate(bones)


def _limb(shapes: Shapes, length: float, wide: float, thin: float, colour: Colour, layer: str = "cloth") -> None:
    path = [(0, 0, -length), (0, 0, -length / 2), (0, 0, 0.03)]
    shapes.turned(path, (thin, (wide + thin) / 2 * 1.08, wide), layer, colour, sides=7, metres=0.4, foot=0.85)


def _hips(shapes: Shapes, o: Outfit) -> None:
    shapes.box((0, 0, 0.03), (0.165, 0.11, 0.11), "cloth", o.trousers, taper=0.95, bottom=True, metres=0.4)
    shapes.box((0, 0, 0.13), (0.17, 0.12, 0.03), "plain", (0.28, 0.17, 0.10))
    shapes.box((0.17, -0.02, 0.05), (0.04, 0.07, 0.07), "cloth", o.pack)


def _chest(shapes: Shapes, o: Outfit) -> None:
    path = [(0, 0, 0.0), (0, 0, 0.2), (0, 0, 0.40), (0, 0, 0.49)]
    shapes.turned(
        path,
        (0.165, 0.195, 0.215, 0.10),
        "cloth",
        o.shirt,
        sides=10,
        metres=0.4,
        foot=0.8,
        cap="cloth",
        cap_colour=o.shirt,
    )
    shapes.box((0, -0.20, 0.24), (0.13, 0.075, 0.16), "cloth", o.pack, taper=0.85, bottom=True, metres=0.4)
    shapes.box((0, -0.285, 0.20), (0.085, 0.02, 0.07), "cloth", tuple(0.8 * c for c in o.pack), metres=0.3)
    shapes.box((0, -0.20, 0.42), (0.15, 0.06, 0.05), "cloth", tuple(min(1.0, 1.25 * c) for c in o.scarf), metres=0.3)
    shapes.turned([(0, 0, 0.43), (0, 0, 0.52)], (0.13, 0.10), "cloth", o.scarf, sides=8, metres=0.4)


def _head(shapes: Shapes, o: Outfit) -> None:
    path = [(0, 0, -0.04), (0, 0.015, 0.05), (0, 0.02, 0.13), (0, 0.01, 0.22), (0, 0, 0.27)]
    shapes.turned(path, (0.06, 0.095, 0.115, 0.10, 0.04), "plain", o.skin, sides=9, cap="plain", cap_colour=o.skin)
    hair = [(0, -0.035, 0.03), (0, -0.03, 0.12), (0, -0.015, 0.22), (0, -0.005, 0.29)]
    shapes.turned(
        hair,
        (0.085, 0.122, 0.118, 0.05),
        "cloth",
        o.hair,
        sides=9,
        rough=0.06,
        cap="cloth",
        cap_colour=o.hair,
        metres=0.3,
    )


def _tail(shapes: Shapes, o: Outfit) -> None:
    if o.long:
        shapes.turned(
            [(0, 0, -0.34), (0, 0, -0.12), (0, 0, 0.02)], (0.015, 0.055, 0.045), "cloth", o.hair, sides=6, metres=0.3
        )
    else:  # the scarf's end
        shapes.box((0.06, 0.02, -0.28), (0.055, 0.012, 0.17), "cloth", o.scarf, taper=0.8, bottom=True, metres=0.3)


def _arm(shapes: Shapes, o: Outfit) -> None:
    _limb(shapes, 0.29, 0.068, 0.050, o.shirt)


def _hand(shapes: Shapes, o: Outfit) -> None:
    _limb(shapes, 0.25, 0.048, 0.038, o.skin, "plain")
    shapes.box((0, 0.01, -0.29), (0.032, 0.045, 0.055), "plain", o.skin, bottom=True)


def _thigh(shapes: Shapes, o: Outfit) -> None:
    _limb(shapes, 0.42, 0.098, 0.068, o.trousers)


def _shin(shapes: Shapes, o: Outfit) -> None:
    boot = (0.34, 0.22, 0.13)
    shapes.turned([(0, 0, -0.22), (0, 0, 0.03)], (0.060, 0.068), "cloth", o.trousers, sides=7, metres=0.4)
    shapes.turned([(0, 0, -0.42), (0, 0, -0.20)], (0.056, 0.070), "cloth", boot, sides=7, metres=0.4)
    shapes.box((0, 0.05, -0.42), (0.055, 0.135, 0.042), "cloth", boot, bottom=True, metres=0.4)


_PART = {
    "hips": _hips, "chest": _chest, "head": _head, "tail": _tail, "arm": _arm, "hand": _hand, "thigh": _thigh,
    "shin": _shin,
}  # fmt: skip
