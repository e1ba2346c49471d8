"""Cars that keep their lanes, stop at lights, at crossings and behind each other, and take turns at junctions.

Yaw is in degrees, 0 to the north and growing to the right.  Everything follows from the dice given and from what the
player does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from reverie_worlds.city.chunks import ZEBRA_GAP_M, ZEBRA_M, has_signals
from reverie_worlds.city.models import PAINTS, SHAPES
from reverie_worlds.city.plan import HALF_AVENUE_M, STEPS, Plan

Point = tuple[float, float]

STOP_M = ZEBRA_GAP_M + ZEBRA_M + 0.8
"""The stop line lies this far before the junction."""

STREET_LANES, AVENUE_LANES = (1.6,), (1.75, 4.95)
"""Middles of the lanes to the right of the road's middle, metres."""

GREEN_S, YELLOW_S = 6.5, 1.5
KEEP_M, SPAWN_M = 150.0, (45.0, 135.0)
CAR_DISCS = (-1.5, 0.0, 1.5)


def signal(i: int, j: int, direction: int, time_s: float) -> str:
    """Colour of the light at junction (i, j) for traffic from its arm `direction`: green, yellow or red."""
    half = GREEN_S + YELLOW_S
    now = (time_s + ((i * 5 + j * 3) % 7) * 2.3) % (2 * half)
    mine = now if direction % 2 == 0 else (now + half) % (2 * half)
    return "green" if mine < GREEN_S else ("yellow" if mine < half else "red")


def lanes(plan: Plan, i: int, j: int, direction: int) -> tuple[float, ...]:
    """The lanes of the road that leaves (i, j) in this direction: how far to the right of its middle."""
    return AVENUE_LANES if plan.half_road(i, j, direction) == HALF_AVENUE_M else STREET_LANES


@dataclass(slots=True)
class Piece:
    """A stretch of lane from junction (i, j) towards `direction`, or the turn into it: a curve of three points."""

    i: int
    j: int
    direction: int
    lane: int
    points: tuple[Point, Point, Point]
    is_turn: bool
    length: float = 0.0

    def __post_init__(self) -> None:
        (ax, ay), (bx, by), (cx, cy) = self.points
        chord = math.hypot(cx - ax, cy - ay)
        around = math.hypot(bx - ax, by - ay) + math.hypot(cx - bx, cy - by)
        self.length = max((chord + around) / 2, 0.5)

    def at(self, s: float) -> tuple[float, float, float]:
        """x, y and yaw, degrees, after `s` metres."""
        t = min(max(s / self.length, 0.0), 1.0)
        (ax, ay), (bx, by), (cx, cy) = self.points
        u = 1 - t
        x, y = u * u * ax + 2 * u * t * bx + t * t * cx, u * u * ay + 2 * u * t * by + t * t * cy
        dx, dy = u * (bx - ax) + t * (cx - bx), u * (by - ay) + t * (cy - by)
        return x, y, math.degrees(math.atan2(dx, dy))


def road_piece(plan: Plan, i: int, j: int, direction: int, lane: int) -> Piece:
    """The lane from behind junction (i, j) up to the next one's stop line."""
    dx, dy = STEPS[direction]
    off = lanes(plan, i, j, direction)[min(lane, len(lanes(plan, i, j, direction)) - 1)]
    out = plan.half_across(i, j, direction) + STOP_M
    back = plan.half_across(i + dx, j + dy, direction) + STOP_M
    ax, ay = plan.x(i) + dx * out + dy * off, plan.y(j) + dy * out - dx * off
    bx, by = plan.x(i + dx) - dx * back + dy * off, plan.y(j + dy) - dy * back - dx * off
    return Piece(i, j, direction, lane, ((ax, ay), ((ax + bx) / 2, (ay + by) / 2), (bx, by)), False)


def turn_piece(plan: Plan, road: Piece, direction: int, lane: int) -> Piece:
    """From the end of a road over the junction into another road."""
    dx, dy = STEPS[road.direction]
    i, j = road.i + dx, road.j + dy
    end, start = road.points[2], road_piece(plan, i, j, direction, lane).points[0]
    if direction == road.direction:
        corner = ((end[0] + start[0]) / 2, (end[1] + start[1]) / 2)
    else:
        corner = (end[0], start[1]) if dx == 0 else (start[0], end[1])
    return Piece(i, j, direction, lane, (end, corner, start), True)


@dataclass(slots=True)
class TrafficCar:
    """One car.  s: metres along its piece; speed, m/s; shove: how it was pushed out of its lane."""

    shape: str
    paint: int
    piece: Piece
    s: float
    cruise: float
    speed: float
    x: float = 0.0
    y: float = 0.0
    yaw: float = 0.0
    waited_s: float = 0.0
    stunned_s: float = 0.0
    is_braking: bool = False
    shove: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0, 0.0])
    next: Piece | None = None
    number: int = 0


class Traffic:
    """All moving cars round the player, `count` of them."""

    def __init__(self, plan: Plan, rng: np.random.Generator, centre: Point, count: int) -> None:
        self._plan, self._rng = plan, rng
        self.time_s = float(rng.uniform(0, 30))
        self.cars: list[TrafficCar] = []
        self._held: dict[tuple[int, int], int] = {}
        names = list(SHAPES)
        for number in range(count):
            shape, paint = names[rng.integers(len(names))], int(rng.integers(len(PAINTS)))
            car = TrafficCar(shape, paint, road_piece(plan, 0, 0, 0, 0), 0.0, 10.0, 0.0, number=number)
            self._spawn(car, centre, (14.0, SPAWN_M[1]))
            self.cars.append(car)

    def step(
        self, dt: float, player: tuple[float, float, float], people: npt.NDArray[np.float64], reach: float
    ) -> None:
        """Everyone drives on.  player: x, y and how far it reaches along; people `(n, 2)`."""
        self.time_s += dt
        where = np.array([(car.x, car.y) for car in self.cars]).reshape(-1, 2)
        things = np.concatenate([where, people, [player[:2]]])
        sizes = np.concatenate([np.full(len(where), 2.4), np.full(len(people), 0.6), [reach]])
        for k, car in enumerate(self.cars):
            gap = self._gap_ahead(k, car, things, sizes)
            self._advance(car, gap, dt)
            if math.hypot(car.x - player[0], car.y - player[1]) > KEEP_M or car.waited_s > 25:
                self._spawn(car, player[:2], (80.0, SPAWN_M[1]))

    def discs(self, centre: Point, radius_m: float) -> list[tuple[TrafficCar, npt.NDArray[np.float64]]]:
        """The cars near a point, each with its discs `(3, 3)`: x, y, radius."""
        found = []
        for car in self.cars:
            if math.hypot(car.x - centre[0], car.y - centre[1]) < radius_m:
                yaw = math.radians(car.yaw)
                sin, cos = math.sin(yaw), math.cos(yaw)
                found.append((car, np.array([(car.x + sin * d, car.y + cos * d, 0.95) for d in CAR_DISCS])))
        return found

    def hit(self, car: TrafficCar, push: Point) -> None:
        """The player ran into it: it is knocked aside by `push`, m/s, and stands for a while."""
        car.shove[2] += push[0]
        car.shove[3] += push[1]
        car.speed, car.stunned_s = 0.0, 2.5

    def _spawn(self, car: TrafficCar, centre: Point, between: tuple[float, float]) -> None:
        """Put a car on some lane near the player, but not on top of anyone."""
        plan, rng = self._plan, self._rng
        for key in [key for key, number in self._held.items() if number == car.number]:
            del self._held[key]
        ci, cj = plan.cell(*centre)
        piece, s, x, y = car.piece, 0.0, 0.0, 0.0
        for _ in range(12):
            i, j, direction = ci + int(rng.integers(-1, 3)), cj + int(rng.integers(-1, 3)), int(rng.integers(4))
            if not plan.arm(i, j, direction):
                continue
            piece = road_piece(plan, i, j, direction, int(rng.integers(len(lanes(plan, i, j, direction)))))
            s = float(rng.uniform(0, piece.length * 0.9))
            x, y, _ = piece.at(s)
            apart = math.hypot(x - centre[0], y - centre[1])
            clear = all(math.hypot(x - o.x, y - o.y) > 9 for o in self.cars if o is not car)
            if between[0] < apart < between[1] and clear:
                break
        car.piece, car.s, car.next, car.waited_s, car.stunned_s = piece, s, None, 0.0, 0.0
        car.shove = [0.0, 0.0, 0.0, 0.0]
        car.cruise = float(rng.uniform(8.0, 13.0))
        car.speed = car.cruise * 0.8
        car.x, car.y, car.yaw = piece.at(s)

    def _gap_ahead(
        self, k: int, car: TrafficCar, things: npt.NDArray[np.float64], sizes: npt.NDArray[np.float64]
    ) -> float:
        """Free metres in front of the bumper."""
        yaw = math.radians(car.yaw)
        sin, cos = math.sin(yaw), math.cos(yaw)
        dx, dy = things[:, 0] - car.x, things[:, 1] - car.y
        ahead, aside = dx * sin + dy * cos, np.abs(dx * cos - dy * sin)
        bend = 0.12 if car.piece.is_turn else 0.03
        blocks = (ahead > 0.5) & (ahead < 32) & (aside < 1.55 + bend * np.maximum(ahead - 6, 0))
        blocks[k] = False
        if car.waited_s > 4 and car.number % 2 == 0:  # someone has to go first
            blocks[: len(self.cars)] &= ahead[: len(self.cars)] < 4.2
        if not blocks.any():
            return 99.0
        return float((ahead - sizes - 2.4)[blocks].min())

    def _advance(self, car: TrafficCar, gap: float, dt: float) -> None:
        left = car.piece.length - car.s
        goal = car.cruise if not car.piece.is_turn else min(car.cruise, 5.5)
        if car.next is None:
            car.next = self._choose(car)
        if not car.piece.is_turn:
            if car.next.direction != car.piece.direction:
                goal = min(goal, math.sqrt(5.0**2 + 2 * 2.2 * left))
            if not self._may_enter(car, left):
                gap = min(gap, left)
        goal = 0.0 if car.stunned_s > 0 else min(goal, math.sqrt(2 * 3.2 * max(gap - 1.6, 0.0)))
        change = min(max(goal - car.speed, -8.0 * dt), 2.6 * dt)
        car.is_braking = change < -1.2 * dt or (car.speed < 0.2 and goal < 0.2)
        car.speed = max(0.0, car.speed + change)
        car.waited_s = car.waited_s + dt if car.speed < 0.2 else 0.0
        car.stunned_s = max(0.0, car.stunned_s - dt)
        car.s += car.speed * dt
        if car.s >= car.piece.length:
            self._next_piece(car)
        x, y, yaw = car.piece.at(car.s)
        self._settle(car, dt)
        car.x, car.y = x + car.shove[0], y + car.shove[1]
        turn = (yaw - car.yaw + 180) % 360 - 180
        car.yaw += turn * min(1.0, 12 * dt)

    def _settle(self, car: TrafficCar, dt: float) -> None:
        """A car knocked out of its lane slides, then drives back."""
        ox, oy, vx, vy = car.shove
        ox, oy = ox + vx * dt, oy + vy * dt
        back = 1 - min(1.0, 0.8 * dt) if car.stunned_s <= 0 else 1.0
        car.shove = [ox * back, oy * back, vx * (1 - 4 * dt), vy * (1 - 4 * dt)]

    def _choose(self, car: TrafficCar) -> Piece:
        """Chooses the next piece of road at random: straight on is most likely, turning back is excluded."""
        piece, plan = car.piece, self._plan
        if piece.is_turn:
            return road_piece(plan, piece.i, piece.j, piece.direction, piece.lane)
        dx, dy = STEPS[piece.direction]
        i, j = piece.i + dx, piece.j + dy
        ways = [d for d in range(4) if d != (piece.direction + 2) % 4 and plan.arm(i, j, d)]
        weights = np.array([2.5 if d == piece.direction else 1.0 for d in ways])
        way = int(self._rng.choice(ways, p=weights / weights.sum()))
        count = len(lanes(plan, i, j, way))
        lane = min(piece.lane, count - 1) if way == piece.direction else int(self._rng.integers(count))
        return turn_piece(plan, piece, way, lane)

    def _may_enter(self, car: TrafficCar, left: float) -> bool:
        """Tests whether the car may enter the junction `left` metres ahead: by its lights, else by reservation."""
        dx, dy = STEPS[car.piece.direction]
        i, j = car.piece.i + dx, car.piece.j + dy
        if has_signals(self._plan, i, j):
            colour = signal(i, j, (car.piece.direction + 2) % 4, self.time_s)
            return colour == "green" or (colour == "yellow" and left < car.speed * 1.2)
        holder = self._held.get((i, j))
        if holder is None and left < 8.0:
            self._held[i, j] = car.number
            return True
        return holder == car.number or left > 12.0

    def _next_piece(self, car: TrafficCar) -> None:
        assert car.next is not None
        if car.piece.is_turn and self._held.get((car.piece.i, car.piece.j)) == car.number:
            del self._held[car.piece.i, car.piece.j]
        car.s -= car.piece.length
        car.piece, car.next = car.next, None
