"""The player: a driver with a camera that follows the car, or a walker who looks round."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from reverie_worlds.city.vehicle import Ground, Vehicle, disc_hits

Array = npt.NDArray[np.float64]

WALK_SPEED, STRAFE_SPEED, BACK_SPEED = 3.4, 2.6, 2.1
EYE_M = 1.66
JUMP_SPEED = 4.3
WALKER_RADIUS_M = 0.35
MAX_PITCH = 75.0

CAMERA_BACK_M, CAMERA_PIVOT_M, CAMERA_PITCH = 6.6, 1.0, -9.0
ORBIT_PITCH = (-22.0, 14.0)
ORBIT_RETURNS_S = 1.2
"""A camera that was turned by the mouse swings back so long after the mouse rested, if the car moves."""


@dataclass(slots=True)
class View:
    """Position and direction of the camera; degrees, yaw to the right, pitch up."""

    x: float = 0.0
    y: float = 0.0
    z: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0


@dataclass(slots=True)
class ChaseCamera:
    """A camera behind a car that swings after it, and round it with the mouse."""

    yaw: float = 0.0
    orbit_yaw: float = 0.0
    orbit_pitch: float = 0.0
    rested_s: float = 9.0
    height: float = 0.0
    shake: float = 0.0
    back: float = CAMERA_BACK_M
    ticks: int = 0

    def follow(self, car: Vehicle, mouse: tuple[float, float], dt: float, walls: Array) -> View:
        """The view after `dt` seconds under a mouse turn (pitch, yaw), kept out of `walls` `(n, 4)`."""
        pitch, yaw = mouse
        self.ticks += 1
        self.rested_s = 0.0 if pitch or yaw else self.rested_s + dt
        self.orbit_yaw = (self.orbit_yaw + yaw + 180) % 360 - 180
        self.orbit_pitch = min(max(self.orbit_pitch + pitch, ORBIT_PITCH[0]), ORBIT_PITCH[1])
        if self.rested_s > ORBIT_RETURNS_S and car.speed > 2.5:
            keep = math.exp(-2.6 * dt)
            self.orbit_yaw, self.orbit_pitch = self.orbit_yaw * keep, self.orbit_pitch * keep
        goal = math.degrees(car.heading)
        if car.vx > 4:  # look a little where the car slides to
            goal += 0.35 * math.degrees(math.atan2(car.vy, car.vx))
        rate = 3.0 + 0.06 * car.speed
        self.yaw += ((goal - self.yaw + 180) % 360 - 180) * (1 - math.exp(-rate * dt))
        self.height += (car.lift - self.height) * (1 - math.exp(-7 * dt))
        self.shake = max(self.shake * math.exp(-7 * dt), min(car.jolt * 0.35, 2.5))
        view_yaw, view_pitch = self.yaw + self.orbit_yaw, CAMERA_PITCH + self.orbit_pitch
        wobble = self.shake * math.sin(self.ticks * 2.1)
        want = CAMERA_BACK_M + 0.045 * car.speed
        px, py, pz = car.x, car.y, CAMERA_PIVOT_M + self.height
        flat, up = math.cos(math.radians(view_pitch)), math.sin(math.radians(view_pitch))
        dx, dy = -math.sin(math.radians(view_yaw)) * flat, -math.cos(math.radians(view_yaw)) * flat
        free = free_length(px, py, dx, dy, want, walls)
        self.back = min(self.back + 6.0 * dt, want, max(free - 0.35, 1.0))
        z = max(pz - up * self.back + 0.55, self.height + 0.35)
        return View(px + dx * self.back, py + dy * self.back, z, view_yaw, view_pitch + 0.6 * wobble, wobble)


def free_length(x: float, y: float, dx: float, dy: float, length: float, walls: Array) -> float:
    """Length of a ray over the ground until it meets one of the boxes `(n, 4)`, at most `length`."""
    if not len(walls):
        return length
    dx, dy = dx or 1e-9, dy or 1e-9
    t0, t1 = (walls[:, 0] - x) / dx, (walls[:, 2] - x) / dx
    u0, u1 = (walls[:, 1] - y) / dy, (walls[:, 3] - y) / dy
    enter = np.maximum(np.minimum(t0, t1), np.minimum(u0, u1))
    leave = np.minimum(np.maximum(t0, t1), np.maximum(u0, u1))
    hit = enter[(leave > enter) & (leave > 0) & (enter > 0)]
    return min(length, float(hit.min())) if len(hit) else length


@dataclass(slots=True)
class Walker:
    """A player on foot, seen through their eyes."""

    x: float = 0.0
    y: float = 0.0
    z: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0
    velocity: list[float] = field(default_factory=lambda: [0.0, 0.0])
    rise: float = 0.0
    gone_m: float = 0.0
    height: float = 0.0

    def walk(
        self, keys: frozenset[str], mouse: tuple[float, float], dt: float, ground: Ground, boxes: Array, posts: Array
    ) -> None:
        """Turn, step, jump, and stop at boxes `(n, 4)` and posts `(n, 3)`."""
        self.pitch = min(max(self.pitch + mouse[0], -MAX_PITCH), MAX_PITCH)
        self.yaw = (self.yaw + mouse[1]) % 360.0
        ahead = WALK_SPEED * ("forward" in keys) - BACK_SPEED * ("back" in keys)
        aside = STRAFE_SPEED * (("right" in keys) - ("left" in keys))
        sin, cos = math.sin(math.radians(self.yaw)), math.cos(math.radians(self.yaw))
        goal = (sin * ahead + cos * aside, cos * ahead - sin * aside)
        blend = 1 - math.exp(-11 * dt)
        for axis in (0, 1):
            self.velocity[axis] += (goal[axis] - self.velocity[axis]) * blend
        self.x += self.velocity[0] * dt
        self.y += self.velocity[1] * dt
        for _ in range(2):
            for normal, depth in disc_hits(np.array((self.x, self.y)), WALKER_RADIUS_M, boxes, posts):
                self.x += float(normal[0]) * depth
                self.y += float(normal[1]) * depth
                into = self.velocity[0] * normal[0] + self.velocity[1] * normal[1]
                if into < 0:
                    self.velocity[0] -= float(into * normal[0])
                    self.velocity[1] -= float(into * normal[1])
        self._fall("jump" in keys, ground(self.x, self.y), dt)

    def _fall(self, jump: bool, floor: float, dt: float) -> None:
        standing = self.z <= floor + 1e-3
        if standing and jump:
            self.rise = JUMP_SPEED
        self.z += self.rise * dt
        self.rise -= 11.0 * dt
        if self.z <= floor:
            self.z, self.rise = floor, 0.0
        if standing:
            self.gone_m += math.hypot(*self.velocity) * dt
        self.height += (self.z - self.height) * (1.0 if self.rise else 1 - math.exp(-14 * dt))

    def view(self) -> View:
        """Through the eyes, which bob with the steps."""
        bob = math.sin(self.gone_m * 2 * math.pi / 0.85)
        sway = math.sin(self.gone_m * math.pi / 0.85)
        share = min(math.hypot(*self.velocity) / WALK_SPEED, 1.0)
        return View(self.x, self.y, self.height + EYE_M + 0.03 * bob * share, self.yaw, self.pitch, 0.35 * sway * share)
