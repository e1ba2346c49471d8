"""People on the pavements: they walk from corner to corner, wait at crossings, cross, and jump out of a car's way."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reverie_worlds.city.chunks import ZEBRA_GAP_M, ZEBRA_M, has_signals
from reverie_worlds.city.plan import KERB_M, STEPS, Plan
from reverie_worlds.city.traffic import Point, TrafficCar, signal

CORNERS = ((1, 1), (1, -1), (-1, -1), (-1, 1))
"""The corners of a junction: north-east, south-east, south-west, north-west."""

KEEP_M = 75.0
LOOKS = 12
STRIDE_M = 1.5
"""Two steps of a walker."""


@dataclass(slots=True)
class Walker:
    """One person.  corner: the junction (i, j) and which of its corners they walk to; x, y and yaw in degrees."""

    look: int
    i: int
    j: int
    corner: int
    x: float
    y: float
    pace: float
    side: float
    yaw: float = 0.0
    gone_m: float = 0.0
    is_walking: bool = True
    crossing: int = -1
    """The junction's arm being crossed, or -1."""
    scare_s: float = 0.0
    dodge: tuple[float, float] = (0.0, 0.0)


class People:
    """`count` walkers round the player."""

    def __init__(self, plan: Plan, rng: np.random.Generator, centre: Point, count: int) -> None:
        self._plan, self._rng = plan, rng
        self.walkers: list[Walker] = []
        for _ in range(count):
            walker = Walker(int(rng.integers(LOOKS)), 0, 0, 0, 0.0, 0.0, float(rng.uniform(1.0, 1.7)), 0.0)
            self._spawn(walker, centre, 6.0)
            self.walkers.append(walker)

    def where(self) -> npt.NDArray[np.float64]:
        """Positions of the walkers, `(n, 2)` metres."""
        return np.array([(w.x, w.y) for w in self.walkers]).reshape(-1, 2)

    def height(self, walker: Walker) -> float:
        """Height of the ground under a walker, metres: the kerb's on a pavement, 0 on a road."""
        return KERB_M if self._plan.on_land(walker.x, walker.y) else 0.0

    def step(
        self, dt: float, time_s: float, player: Point, velocity: Point, in_car: bool, cars: list[TrafficCar]
    ) -> None:
        """Everyone walks on; velocity is the player's, m/s."""
        for walker in self.walkers:
            if in_car:
                self._look_out(walker, player, velocity)
            if walker.scare_s > 0:
                walker.scare_s -= dt
                self._move(walker, walker.dodge, 4.2, dt)
            else:
                self._walk(walker, dt, time_s, cars)
            if math.hypot(walker.x - player[0], walker.y - player[1]) > KEEP_M:
                self._spawn(walker, player, 35.0)

    def _look_out(self, walker: Walker, player: Point, velocity: Point) -> None:
        """Makes people in the way of the player's car leap to the nearer side."""
        dx, dy = walker.x - player[0], walker.y - player[1]
        speed = math.hypot(*velocity)
        if speed < 1.5 or dx * dx + dy * dy > (4 + 1.3 * speed) ** 2:
            return
        ux, uy = velocity[0] / speed, velocity[1] / speed
        ahead, aside = dx * ux + dy * uy, dx * uy - dy * ux
        if -2.0 < ahead < 3.5 + 0.9 * speed and abs(aside) < 1.7:
            sign = 1.0 if aside >= 0 else -1.0
            walker.scare_s, walker.dodge = 0.5, (sign * uy, -sign * ux)

    def _walk(self, walker: Walker, dt: float, time_s: float, cars: list[TrafficCar]) -> None:
        goal = self._spot(walker, walker.i, walker.j, walker.corner)
        dx, dy = goal[0] - walker.x, goal[1] - walker.y
        left = math.hypot(dx, dy)
        if left < 0.4:
            walker.crossing = -1
            if not self._choose(walker, time_s, cars):
                walker.is_walking = False
            return
        self._move(walker, (dx / left, dy / left), walker.pace, dt)

    def _move(self, walker: Walker, way: Point, pace: float, dt: float) -> None:
        walker.x += way[0] * pace * dt
        walker.y += way[1] * pace * dt
        walker.gone_m += pace * dt
        walker.is_walking = True
        yaw = math.degrees(math.atan2(way[0], way[1]))
        walker.yaw += ((yaw - walker.yaw + 180) % 360 - 180) * min(1.0, 8 * dt)

    def _spot(self, walker: Walker, i: int, j: int, corner: int) -> Point:
        """Waiting position of this walker at a corner: on the pavement, a step from the kerb."""
        ex, ny = CORNERS[corner]
        plan, in_m = self._plan, ZEBRA_GAP_M + ZEBRA_M / 2 + walker.side
        return plan.x(i) + ex * (plan.half_x(i) + in_m), plan.y(j) + ny * (plan.half_y(j) + in_m)

    def _choose(self, walker: Walker, time_s: float, cars: list[TrafficCar]) -> bool:
        """Pick the next corner; False while waiting for a gap or a light."""
        plan, rng = self._plan, self._rng
        i, j = walker.i, walker.j
        ex, ny = CORNERS[walker.corner]
        ways: list[tuple[int, int, int, int]] = []  # junction, corner, arm crossed or -1
        for direction, (dx, dy) in enumerate(STEPS):
            same_side = (dx == ex and dx != 0) or (dy == ny and dy != 0)
            if same_side:  # along a road, if it is there
                if plan.arm(i, j, direction):
                    corner = CORNERS.index((-ex if dx else ex, -ny if dy else ny))
                    ways.append((i + dx, j + dy, corner, -1))
            else:  # over the arm to the north or south (going east or west), or the other way round
                arm = (0 if ny > 0 else 2) if dx else (1 if ex > 0 else 3)
                corner = CORNERS.index((-ex if dx else ex, -ny if dy else ny))
                ways.append((i, j, corner, arm if plan.arm(i, j, arm) else -1))
        way = ways[int(rng.integers(len(ways)))]
        if way[3] >= 0 and not self._may_cross(walker, way[3], time_s, cars):
            return False
        walker.i, walker.j, walker.corner, walker.crossing = way
        return True

    def _may_cross(self, walker: Walker, arm: int, time_s: float, cars: list[TrafficCar]) -> bool:
        if has_signals(self._plan, walker.i, walker.j) and signal(walker.i, walker.j, arm, time_s) != "red":
            return False
        return all(math.hypot(c.x - walker.x, c.y - walker.y) > 11 for c in cars if c.speed > 1.5)

    def _spawn(self, walker: Walker, centre: Point, least_m: float) -> None:
        """Put someone on a pavement near the player."""
        plan, rng = self._plan, self._rng
        ci, cj = plan.cell(*centre)
        walker.side = float(rng.uniform(-1.2, 0.3))
        walker.scare_s, walker.crossing = 0.0, -1
        for _ in range(12):
            i, j, corner = ci + int(rng.integers(0, 2)), cj + int(rng.integers(0, 2)), int(rng.integers(4))
            ex, ny = CORNERS[corner]
            direction = (0 if ny > 0 else 2) if rng.random() < 0.5 else (1 if ex > 0 else 3)
            if not plan.arm(i, j, direction):
                continue
            dx, dy = STEPS[direction]
            other = CORNERS.index((-ex if dx else ex, -ny if dy else ny))
            a, b = self._spot(walker, i, j, corner), self._spot(walker, i + dx, j + dy, other)
            t = float(rng.random())
            walker.x, walker.y = a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t
            walker.i, walker.j, walker.corner = i + dx, j + dy, other
            if least_m < math.hypot(walker.x - centre[0], walker.y - centre[1]) < KEEP_M:
                break
        walker.yaw = float(rng.uniform(0, 360))
