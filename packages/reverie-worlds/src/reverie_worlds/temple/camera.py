"""The camera behind and above the runner: follows softly, swings round at corners.  No graphics here."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, radians, sin

from reverie_worlds.temple.runner import Runner, heading_deg

BACK_M, UP_M, PITCH_DEG = 4.3, 2.55, -15.0
TURN_SHARE, MAX_TURN_DEG = 0.17, 9.5
"""Share of the remaining rotation that one frame makes, and its largest value."""
GLANCE_DEG = 5.0
"""Rotation of the view towards a turn that is asked for and not yet made."""


@dataclass(frozen=True, slots=True)
class StillCamera:
    """A camera that stands somewhere: metres, degrees, and the height of the floor below it."""

    position: tuple[float, float, float]
    yaw: float
    pitch: float
    base_z: float


class ChaseCamera:
    """Chase camera: `position` in metres, `yaw` and `pitch` in degrees, right and up positive."""

    def __init__(self) -> None:
        self.yaw = self.pitch = self._glance = 0.0
        self._at = (0.0, 0.0, 0.0)

    def snap(self, runner: Runner) -> None:
        """Go where it belongs at once."""
        self.yaw, self.pitch, self._glance = heading_deg(runner.leg), PITCH_DEG, 0.0
        self._at = _wanted(runner)

    def follow(self, runner: Runner) -> None:
        """One frame on."""
        (x, y, z), (gx, gy, gz) = self._at, _wanted(runner)
        self._at = (x + 0.6 * (gx - x), y + 0.6 * (gy - y), z + 0.3 * (gz - z))
        self._glance += 0.4 * (GLANCE_DEG * runner.turn - self._glance)
        away = (heading_deg(runner.leg) + self._glance - self.yaw + 180.0) % 360.0 - 180.0
        self.yaw += max(min(TURN_SHARE * away, MAX_TURN_DEG), -MAX_TURN_DEG)
        self.yaw %= 360.0
        lower = -9.0 if runner.mode == "fall" else 0.0
        self.pitch += 0.12 * (PITCH_DEG + lower - self.pitch)

    @property
    def base_z(self) -> float:
        """Height of the floor that it follows."""
        return self._at[2]

    @property
    def position(self) -> tuple[float, float, float]:
        angle = radians(self.yaw)
        x, y, z = self._at
        return x - BACK_M * sin(angle), y - BACK_M * cos(angle), z + UP_M


def _wanted(runner: Runner) -> tuple[float, float, float]:
    """The spot it follows: the runner's, steadied to the side and in height."""
    return runner.leg.at(runner.s, 0.6 * runner.x, runner.floor + 0.3 * max(runner.air, 0.0))
