"""Physics of the player's car: a bicycle model with slipping tyres, a body on springs, and walls that stop it.

State is in metres, seconds and radians; heading grows to the right from north, as yaw does everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SUBSTEPS = 4
MASS_KG, INERTIA = 1250.0, 1700.0
FRONT_M, REAR_M = 1.25, 1.35
"""From the middle of the mass to the axles."""

TOP_SPEED = 38.0
ENGINE_N, BRAKE_N, REVERSE_N = 7200.0, 11500.0, 4200.0
MAX_STEER = math.radians(34)
GRIP, WET_GRIP = 1.05, 0.78
HANDBRAKE_GRIP = 0.42
RADIUS_M = 0.92
DISCS = (-1.35, 0.0, 1.35)
"""The car is three discs along its length when it meets other things."""

GRAVITY = 9.81

Ground = Callable[[float, float], float]
"""Height of the ground at x, y."""


@dataclass(slots=True)
class Vehicle:
    """The player's car.  x, y: its middle; heading, rad; vx, vy: speed forward and to the right; spin: rad/s."""

    x: float = 0.0
    y: float = 0.0
    heading: float = 0.0
    vx: float = 0.0
    vy: float = 0.0
    spin: float = 0.0
    steer: float = 0.0
    roll: float = 0.0
    pitch: float = 0.0
    lift: float = 0.0
    roll_rate: float = 0.0
    pitch_rate: float = 0.0
    lift_rate: float = 0.0
    turned: float = 0.0
    is_braking: bool = False
    is_reversing: bool = False
    jolt: float = 0.0
    """Speed of the collision in the last step, m/s."""
    grip: float = GRIP

    @property
    def speed(self) -> float:
        return math.hypot(self.vx, self.vy)

    def drive(self, keys: frozenset[str], dt: float, ground: Ground) -> None:
        """Advance by `dt` seconds with the keys held; walls are `collide`'s business, called after."""
        for _ in range(SUBSTEPS):
            self._substep(keys, dt / SUBSTEPS)
        self._suspension(dt, ground)

    def _substep(self, keys: frozenset[str], dt: float) -> None:
        self._turn_wheels(keys, dt)
        drive, hand = self._pedals(keys), "handbrake" in keys
        grip = self.grip * GRAVITY * MASS_KG
        load_f, load_r = grip * REAR_M / (FRONT_M + REAR_M), grip * FRONT_M / (FRONT_M + REAR_M)
        slow = max(abs(self.vx), 2.5)
        sign = 1.0 if self.vx >= 0 else -1.0
        alpha_f = math.atan2(self.vy + FRONT_M * self.spin, slow) - self.steer * sign
        alpha_r = math.atan2(self.vy - REAR_M * self.spin, slow)
        side_f = -load_f * math.sin(1.45 * math.atan(8.0 * alpha_f))
        side_r = -load_r * math.sin(1.45 * math.atan(9.5 * alpha_r)) * (HANDBRAKE_GRIP if hand else 1.0)
        if hand and abs(self.vx) > 0.3:
            drive -= sign * 5200.0
        forward = drive - side_f * math.sin(self.steer)
        forward -= 0.55 * self.vx * abs(self.vx) + 90.0 * self.vx
        ax = forward / MASS_KG + self.vy * self.spin
        ay = (side_f * math.cos(self.steer) + side_r) / MASS_KG - self.vx * self.spin
        before = self.vx
        self.vx += ax * dt
        self.vy += ay * dt
        self.spin += (FRONT_M * side_f * math.cos(self.steer) - REAR_M * side_r) / INERTIA * dt
        rests = not keys & {"forward", "back"}
        if rests and (before * self.vx < 0 or abs(self.vx) < (0.4 if hand else 0.1)):
            self.vx = 0.0
        if abs(self.vx) < 3.0:  # slow wheels roll where they point
            share = 1.0 - abs(self.vx) / 3.0
            rolling = self.vx * math.tan(self.steer) / (FRONT_M + REAR_M)
            self.spin += (rolling - self.spin) * min(1.0, 12 * dt * share)
            self.vy += (rolling * REAR_M - self.vy) * min(1.0, 12 * dt * share)
        self.vx = min(max(self.vx, -9.0), TOP_SPEED)
        self.heading += self.spin * dt
        sin, cos = math.sin(self.heading), math.cos(self.heading)
        self.x += (sin * self.vx + cos * self.vy) * dt
        self.y += (cos * self.vx - sin * self.vy) * dt
        self.turned += 0.0 if hand and abs(self.vx) > 0.3 else self.vx * dt
        self._lean(forward / MASS_KG, (side_f + side_r) / MASS_KG, dt)

    def _turn_wheels(self, keys: frozenset[str], dt: float) -> None:
        limit = MAX_STEER / (1.0 + (abs(self.vx) / 13.0) ** 1.6)
        goal = limit * (("right" in keys) - ("left" in keys))
        rate = (2.2 if goal * self.steer >= 0 and abs(goal) > abs(self.steer) else 4.5) * dt
        self.steer += min(max(goal - self.steer, -rate), rate)

    def _pedals(self, keys: frozenset[str]) -> float:
        """The force along the car, newtons; brakes first, then reverses."""
        gas, back = "forward" in keys, "back" in keys
        self.is_braking = (back and self.vx > 0.6) or (gas and self.vx < -0.6) or "handbrake" in keys
        self.is_reversing = back and self.vx <= 0.6
        force = 0.0
        if gas:
            force = BRAKE_N if self.vx < -0.6 else ENGINE_N * max(0.0, 1.0 - (self.vx / TOP_SPEED) ** 2)
        if back:
            force -= BRAKE_N if self.vx > 0.6 else REVERSE_N * max(0.0, 1.0 + self.vx / 9.0)
        if not gas and not back:
            force -= 700.0 * min(max(self.vx, -1.0), 1.0)
        return force

    def _lean(self, ax: float, ay: float, dt: float) -> None:
        """The body leans out of turns and dips under the brakes, on springs."""
        self.pitch_rate += ((0.0068 * ax - self.pitch) * 90.0 - 8.0 * self.pitch_rate) * dt
        self.roll_rate += ((-0.0105 * ay - self.roll) * 80.0 - 8.0 * self.roll_rate) * dt
        self.pitch += self.pitch_rate * dt
        self.roll += self.roll_rate * dt

    def _suspension(self, dt: float, ground: Ground) -> None:
        """The four wheels follow the ground; the body follows them late, so that kerbs are felt."""
        sin, cos = math.sin(self.heading), math.cos(self.heading)
        at = [(a, b) for a in (FRONT_M, -REAR_M) for b in (-0.8, 0.8)]
        h = [ground(self.x + sin * a + cos * b, self.y + cos * a - sin * b) for a, b in at]
        level = sum(h) / 4
        nose = (h[0] + h[1] - h[2] - h[3]) / 2 / (FRONT_M + REAR_M)
        tilt = (h[0] + h[2] - h[1] - h[3]) / 2 / 1.6
        for _ in range(SUBSTEPS):
            step = dt / SUBSTEPS
            self.lift_rate += ((level - self.lift) * 160.0 - 10.0 * self.lift_rate) * step
            self.lift += self.lift_rate * step
            self.pitch_rate += nose * 60.0 * step
            self.roll_rate += tilt * 60.0 * step

    def velocity(self) -> tuple[float, float]:
        """Speed to the east and to the north, m/s."""
        sin, cos = math.sin(self.heading), math.cos(self.heading)
        return sin * self.vx + cos * self.vy, cos * self.vx - sin * self.vy

    def discs(self) -> npt.NDArray[np.float64]:
        """Middles of the car's discs, `(3, 2)`."""
        sin, cos = math.sin(self.heading), math.cos(self.heading)
        return np.array([(self.x + sin * d, self.y + cos * d) for d in DISCS])

    def push(self, at: npt.NDArray[np.float64], normal: npt.NDArray[np.float64], depth: float, bounce: float) -> None:
        """Move out of what was hit at a point and lose the speed into it; off-centre hits turn the car."""
        self.x += float(normal[0]) * depth
        self.y += float(normal[1]) * depth
        ex, ny = self.velocity()
        arm = at - (self.x, self.y)
        # speed of the touched point; spin is clockwise seen from above
        px, py = ex + self.spin * arm[1], ny - self.spin * arm[0]
        into = px * normal[0] + py * normal[1]
        if into >= 0:
            return
        turn = arm[1] * normal[0] - arm[0] * normal[1]
        impulse = -(1 + bounce) * into / (1 / MASS_KG + turn * turn / INERTIA)
        self.jolt = max(self.jolt, -float(into))
        ex += impulse * normal[0] / MASS_KG
        ny += impulse * normal[1] / MASS_KG
        tangent = np.array((-normal[1], normal[0]))  # scraping along costs some speed
        along = ex * tangent[0] + ny * tangent[1]
        drag = min(abs(along), 0.25 * impulse / MASS_KG) * (1.0 if along > 0 else -1.0)
        ex, ny = ex - drag * tangent[0], ny - drag * tangent[1]
        self.spin += 0.6 * turn * impulse / INERTIA
        self.pitch_rate += 0.02 * impulse / MASS_KG
        sin, cos = math.sin(self.heading), math.cos(self.heading)
        self.vx, self.vy = float(sin * ex + cos * ny), float(cos * ex - sin * ny)


def disc_hits(
    point: npt.NDArray[np.float64],
    radius: float,
    boxes: npt.NDArray[np.float64],
    circles: npt.NDArray[np.float64],
) -> list[tuple[npt.NDArray[np.float64], float]]:
    """Finds the contacts of a disc at `point` (2,) with boxes `(n, 4)` and circles `(n, 3)`: outward normal, depth
    each."""
    hits: list[tuple[npt.NDArray[np.float64], float]] = []
    if len(boxes):
        nearest = np.clip(point, boxes[:, :2], boxes[:, 2:])
        away = point - nearest
        distance = np.hypot(away[:, 0], away[:, 1])
        touched = np.nonzero(distance < radius)[0]
        hits += [_out_of_box(point, boxes[k], away[k], float(distance[k]), radius) for k in touched]
    if len(circles):
        away = point - circles[:, :2]
        distance = np.hypot(away[:, 0], away[:, 1])
        for k in np.nonzero(distance < radius + circles[:, 2])[0]:
            gap = max(float(distance[k]), 1e-6)
            hits.append((away[k] / gap, radius + float(circles[k, 2]) - gap))
    return hits


def _out_of_box(
    point: npt.NDArray[np.float64],
    box: npt.NDArray[np.float64],
    away: npt.NDArray[np.float64],
    gap: float,
    radius: float,
) -> tuple[npt.NDArray[np.float64], float]:
    if gap > 1e-6:
        return away / gap, radius - gap
    ways = (point[0] - box[0], box[2] - point[0], point[1] - box[1], box[3] - point[1])
    k = int(np.argmin(ways))
    normal = np.array(((-1.0, 0.0), (1.0, 0.0), (0.0, -1.0), (0.0, 1.0))[k])
    return normal, float(ways[k]) + radius
