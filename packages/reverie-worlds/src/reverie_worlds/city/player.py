"""Drives and walks through the city like a person: keeps its lane, stops for lights mostly, and has its moods.

At the wheel it follows lanes and takes turns, speeds, brakes hard, drifts, leaves the road, hits things and backs out,
rests, and turns the camera round the car.  On foot it walks along pavements and crosses, looks round and up at the
houses, strafes, steps back, jumps and rests.  It steers by `hints`, which the game gives and no recording holds.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np

from reverie.data.policies import Seen
from reverie.types import Action
from reverie_worlds.city.chunks import has_signals
from reverie_worlds.city.people import CORNERS
from reverie_worlds.city.plan import STEPS, Plan
from reverie_worlds.city.traffic import Piece, lanes, road_piece, signal, turn_piece

DRIVE_MOODS = {
    "cruise": (0.50, 80, 220), "fast": (0.15, 70, 170), "rest": (0.07, 40, 130), "brake": (0.07, 15, 45),
    "drift": (0.10, 14, 34), "reverse": (0.04, 25, 60), "stray": (0.07, 25, 60),
}  # fmt: skip
"""Each mood at the wheel: its weight, the least and the most frames it lasts."""

WALK_MOODS = {
    "walk": (0.54, 70, 200), "look": (0.10, 40, 110), "up": (0.08, 40, 90), "rest": (0.07, 40, 130),
    "strafe": (0.08, 20, 50), "back": (0.05, 20, 45), "hop": (0.10, 40, 90),
}  # fmt: skip

STUCK_FRAMES, STUCK_M = 22, 0.5
RED_RUN_SHARE = 0.12


class Mouse:
    """A hand on the mouse: speeds that rise and fall smoothly."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self.speed = np.zeros(2)
        self._goal = np.zeros(2)
        self.left = 0

    def sweep(self, frames: int, pitch: float, yaw: float) -> None:
        """Move for so many frames at about these degrees a frame."""
        self.left, self._goal = frames, np.array((pitch, yaw))

    def turn(self) -> tuple[float, float]:
        """This frame's turn: pitch, yaw."""
        self.left -= 1
        goal = self._goal if self.left > 0 else np.zeros(2)
        self.speed += (goal - self.speed) * 0.25
        if self.left <= -20 or np.abs(self.speed).max() < 0.02:
            self.speed[:] = 0.0
            return 0.0, 0.0
        jitter = self._rng.normal(0, 0.06, 2) * np.abs(self.speed)
        return float(self.speed[0] + jitter[0]), float(self.speed[1] + jitter[1])


class CityPolicy:
    """The player of the city; everything follows from its seed and from what it is shown."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng([seed, 31])
        self._mood, self._left, self._side = "cruise", 30, 1
        self._mouse = Mouse(self._rng)
        self._track: deque[tuple[float, float]] = deque(maxlen=STUCK_FRAMES)
        self._route: list[Piece] = []
        self._goal: tuple[int, int, int] | None = None
        self._held = 0.0
        self._cruise = 11.0
        self._runs_red = False
        self._ticks = 0
        self._waited, self._patience = 0, 90

    def act(self, seen: Seen) -> Action:
        """The keys and the mouse for the next frame."""
        hints = seen.hints
        if not hints:
            return Action()
        self._ticks += 1
        self._track.append((hints["x"], hints["y"]))
        drives = hints["view"] == "car"
        self._left -= 1
        if self._left <= 0:
            self._change(DRIVE_MOODS if drives else WALK_MOODS, hints)
        elif not drives and self._mood == "cruise":
            self._mood = "walk"
        return self._drive(hints) if drives else self._walk(hints, seen)

    def _change(self, moods: dict[str, tuple[float, int, int]], hints: Any) -> None:
        """Take up another mood."""
        names = list(moods)
        weights = np.array([moods[name][0] for name in names])
        self._mood = str(self._rng.choice(names, p=weights / weights.sum()))
        if self._mood == "drift" and hints["speed"] < 7:
            self._mood = "fast"
        _, least, most = moods[self._mood]
        self._left = int(self._rng.integers(least, most))
        self._side = 1 if self._rng.random() < 0.5 else -1
        self._cruise = float(self._rng.uniform(8, 14) if self._mood != "fast" else self._rng.uniform(15, 26))
        self._runs_red = bool(self._rng.random() < RED_RUN_SHARE) or (self._mood == "fast" and self._side > 0)
        self._track.clear()

    def _is_stuck(self) -> bool:
        if len(self._track) < STUCK_FRAMES:
            return False
        return math.dist(self._track[0], self._track[-1]) < STUCK_M

    # -- at the wheel

    def _drive(self, hints: Any) -> Action:
        mood, speed = self._mood, hints["speed"]
        if mood == "rest":
            keys = {"back"} if speed > 3 and self._side > 0 else set()
        elif mood == "brake":
            keys = {"back"} if speed > 0.7 else set()
        elif mood in ("reverse", "escape"):
            keys = {"back", "left" if self._side < 0 else "right"} if self._ticks % 40 < 30 else {"back"}
        elif mood == "drift":
            keys = {"handbrake", "left" if self._side < 0 else "right"} | ({"forward"} if self._left > 8 else set())
        else:
            keys = self._follow(hints)
            if mood == "stray":
                keys = {"forward"} | ({"left" if self._side < 0 else "right"} if self._left % 24 > 12 else set())
        self._waited = self._waited + 1 if mood in ("cruise", "fast") and speed < 0.4 else 0
        blocked = "forward" in keys and self._is_stuck()
        if mood in ("cruise", "fast", "stray") and (blocked or self._waited > self._patience):
            self._waited, self._patience = 0, int(self._rng.integers(60, 200))
            self._mood, self._left = "escape", int(self._rng.integers(25, 55))
            self._side = 1 if self._rng.random() < 0.5 else -1
            self._track.clear()
            self._route = []
        if self._mouse.left < -60 and self._rng.random() < 0.008:
            swing = self._rng.uniform(1.0, 4.5) * (1 if self._rng.random() < 0.5 else -1)
            self._mouse.sweep(int(self._rng.integers(12, 50)), float(self._rng.normal(0, 0.5)), swing)
        return Action(frozenset(keys), self._mouse.turn())

    def _follow(self, hints: Any) -> set[str]:
        """Keys that keep the lane and the pace."""
        plan, x, y, speed = hints["plan"], hints["x"], hints["y"], hints["speed"]
        ahead_m = 4.5 + 0.5 * speed
        target = self._target(plan, x, y, hints["heading_deg"], ahead_m)
        bearing = (math.degrees(math.atan2(target[0] - x, target[1] - y)) - hints["heading_deg"] + 180) % 360 - 180
        self._held += min(max(bearing / 14.0, -1.0), 1.0)  # short taps for small errors, a held key for large ones
        keys: set[str] = set()
        if abs(self._held) >= 1.0 or abs(bearing) > 14:
            keys.add("right" if bearing > 0 else "left")
            self._held -= math.copysign(min(abs(self._held), 1.0), self._held)
        goal = self._pace(hints, abs(bearing))
        if speed < 0.3 and goal < 0.5:
            keys.clear()  # hands rest while it waits
        if speed < goal - 0.4:
            keys.add("forward")
        elif speed > goal + 2.0 or (goal < 0.5 and speed > 0.6):
            keys.add("back")
        return keys

    def _pace(self, hints: Any, bearing: float) -> float:
        """Target speed now, m/s."""
        goal = self._cruise if bearing < 25 else min(self._cruise, 6.0)
        room = hints["ahead_m"] - 4.5
        goal = min(goal, math.sqrt(max(2 * 5.0 * room, 0.0)))
        piece = self._route[0]
        left = self._left_on(piece, hints["x"], hints["y"])
        following = self._route[1] if len(self._route) > 1 else piece
        turns = piece.is_turn and abs(piece.points[1][0] - (piece.points[0][0] + piece.points[2][0]) / 2) > 0.6
        if turns:
            goal = min(goal, 7.5)
        if not piece.is_turn and following.direction != piece.direction:
            goal = min(goal, math.sqrt(6.5**2 + 2 * 4.0 * max(left, 0)))
        dx, dy = STEPS[piece.direction]
        if not piece.is_turn and left < 30 and not self._runs_red:
            colour = signal(piece.i + dx, piece.j + dy, (piece.direction + 2) % 4, hints["time_s"])
            if has_signals(hints["plan"], piece.i + dx, piece.j + dy) and colour == "red":
                goal = min(goal, math.sqrt(max(2 * 4.0 * (left - 1.5), 0.0)))
        return goal

    def _target(self, plan: Plan, x: float, y: float, heading: float, ahead_m: float) -> tuple[float, float]:
        """The spot on the route to steer to."""
        if not self._route or self._off_route(x, y) > 14:
            self._route = [_nearest_lane(plan, x, y, heading)]
        while self._left_on(self._route[0], x, y) <= 0.3:
            self._extend(plan)
            self._route.pop(0)
        while len(self._route) < 3:
            self._extend(plan)
        s = self._route[0].length - self._left_on(self._route[0], x, y) + ahead_m
        for piece in self._route:
            if s <= piece.length:
                return piece.at(max(s, 0.0))[:2]
            s -= piece.length
        return self._route[-1].points[2]

    def _extend(self, plan: Plan) -> None:
        last = self._route[-1]
        if last.is_turn:
            self._route.append(road_piece(plan, last.i, last.j, last.direction, last.lane))
            return
        dx, dy = STEPS[last.direction]
        i, j = last.i + dx, last.j + dy
        ways = [d for d in range(4) if d != (last.direction + 2) % 4 and plan.arm(i, j, d)]
        way = int(self._rng.choice(ways))
        self._route.append(turn_piece(plan, last, way, int(self._rng.integers(len(lanes(plan, i, j, way))))))

    def _off_route(self, x: float, y: float) -> float:
        piece = self._route[0]
        px, py, _ = piece.at(piece.length - self._left_on(piece, x, y))
        return math.hypot(x - px, y - py)

    @staticmethod
    def _left_on(piece: Piece, x: float, y: float) -> float:
        """Metres to the end of a piece from the spot of it that is nearest."""
        steps = np.linspace(0, piece.length, 9 if piece.is_turn else 33)
        spots = np.array([piece.at(s)[:2] for s in steps])
        k = int(np.argmin(np.hypot(spots[:, 0] - x, spots[:, 1] - y)))
        a = spots[max(k - 1, 0)]
        b = spots[min(k + 1, len(spots) - 1)]
        way = (b - a) / max(float(np.hypot(*(b - a))), 1e-6)
        s = steps[k] + float((np.array((x, y)) - spots[k]) @ way)
        return piece.length - s

    # -- on foot

    def _walk(self, hints: Any, seen: Seen) -> Action:
        assert seen.pose is not None
        mood = self._mood
        keys: set[str] = set()
        pitch_now = float(seen.pose[4])
        bearing = self._way_on(hints)
        pitch, yaw = self._mouse.turn()
        if mood in ("walk", "hop", "strafe", "back"):
            keys.add("back" if mood == "back" else "forward")
            yaw += float(np.clip(0.10 * bearing, -4.5, 4.5))
            pitch += float(np.clip(-0.06 * pitch_now, -1.5, 1.5))
            if mood == "strafe":
                keys = {"right" if self._side > 0 else "left"} | ({"forward"} if self._left % 40 > 20 else set())
            if mood == "hop" and self._ticks % 23 < 4:
                keys.add("jump")
        elif mood == "look" and self._mouse.left < -4:
            self._glance(8, 26, 4.0)
        elif mood == "up":
            pitch += (
                0.9 if pitch_now < 32 and self._left > 25 else (-0.9 if pitch_now > 0 and self._left <= 25 else 0.0)
            )
            yaw += 0.8 * self._side
        if mood != "look" and self._mouse.left < -30 and mood == "walk" and self._rng.random() < 0.015:
            self._glance(6, 18, 3.5)
        if keys & {"forward"} and self._is_stuck():
            self._mood, self._left, self._goal = "strafe" if self._rng.random() < 0.6 else "back", 26, None
            self._side = -self._side
            self._track.clear()
        return Action(frozenset(keys), (pitch, yaw))

    def _glance(self, least: int, most: int, yaw: float) -> None:
        frames = int(self._rng.integers(least, most))
        self._mouse.sweep(frames, float(self._rng.normal(0, 0.8)), float(self._rng.normal(0, yaw)))

    def _way_on(self, hints: Any) -> float:
        """Bearing of the next corner, degrees from straight ahead, right positive."""
        plan, x, y = hints["plan"], hints["x"], hints["y"]
        if self._goal is None:
            self._goal = self._nearest_corner(plan, x, y)
        gx, gy = _corner_spot(plan, *self._goal)
        if math.hypot(gx - x, gy - y) < 1.6:
            self._goal = self._next_corner(plan)
            gx, gy = _corner_spot(plan, *self._goal)
        return (math.degrees(math.atan2(gx - x, gy - y)) - hints["heading_deg"] + 180) % 360 - 180

    def _nearest_corner(self, plan: Plan, x: float, y: float) -> tuple[int, int, int]:
        ci, cj = plan.cell(x, y)
        spots = [(i, j, c) for i in (ci, ci + 1) for j in (cj, cj + 1) for c in range(4)]
        beside = [s for s in spots if min(abs(_corner_spot(plan, *s)[0] - x), abs(_corner_spot(plan, *s)[1] - y)) < 3]
        return min(beside or spots, key=lambda s: math.dist(_corner_spot(plan, *s), (x, y)))

    def _next_corner(self, plan: Plan) -> tuple[int, int, int]:
        """Along the pavement, or over a road."""
        assert self._goal is not None
        i, j, corner = self._goal
        ex, ny = CORNERS[corner]
        ways: list[tuple[int, int, int]] = []
        for direction, (dx, dy) in enumerate(STEPS):
            other = CORNERS.index((-ex if dx else ex, -ny if dy else ny))
            if (dx and dx == ex) or (dy and dy == ny):
                if plan.arm(i, j, direction):
                    ways += [(i + dx, j + dy, other)] * 2
            else:
                ways.append((i, j, other))
        return ways[int(self._rng.integers(len(ways)))]


def _corner_spot(plan: Plan, i: int, j: int, corner: int) -> tuple[float, float]:
    ex, ny = CORNERS[corner]
    into = plan.style.pavement_m * 0.55
    return plan.x(i) + ex * (plan.half_x(i) + into), plan.y(j) + ny * (plan.half_y(j) + into)


def _nearest_lane(plan: Plan, x: float, y: float, heading: float) -> Piece:
    """The lane that the car is on, or could best get on, going its way."""
    ci, cj = plan.cell(x, y)
    best: tuple[float, Piece] | None = None
    for i in (ci, ci + 1):
        for j in (cj, cj + 1):
            for direction in range(4):
                if not plan.arm(i, j, direction):
                    continue
                turn = abs((90 * direction - heading + 180) % 360 - 180)
                for lane in range(len(lanes(plan, i, j, direction))):
                    piece = road_piece(plan, i, j, direction, lane)
                    (ax, ay), _, (bx, by) = piece.points
                    t = ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / piece.length**2
                    t = min(max(t, 0.0), 1.0)
                    cost = math.hypot(ax + (bx - ax) * t - x, ay + (by - ay) * t - y) + turn * 0.25
                    if best is None or cost < best[0]:
                        best = (cost, piece)
    assert best is not None, "every junction has at least three arms"
    return best[1]
