"""The ground of a scene: the places near to where it was recorded, which are all that a session in it can go to.

Beyond them nothing is known, so nothing holds there: no wall, no floor, and no way back.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

REACH = 2.0
"""Radius of a place, in distances between one and the next."""
SAME_PLACE = 0.3
"""Keyframes within so many metres are of one place."""
SPACING = 1.0
"""Metres between places where there is only one."""
HEIGHT_FACTOR = 2.0
"""A metre up or down counts as so many: what is a little too high or too low looks wrong sooner."""
RARE = 0.02
"""Share of the keyframes, at either end, whose pitch and roll are not usual ones."""
TURN_SLACK = 0.5
"""Pitch and roll may leave the usual ones by so many of their ranges: a camera that never tilts stays as it is."""


class Ground(NamedTuple):
    """places: (n, 3) metres, heights times `HEIGHT_FACTOR`; radius: () metres around each; low, high: (2,) degrees of
    pitch and roll."""

    places: Tensor
    radius: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, pose: Tensor) -> Ground:
        """The ground of keyframes at pose (n, 6)."""
        places = _scaled(pose[:, :3])
        away = _distances(places, places)
        nearest = away.masked_fill(away < SAME_PLACE, torch.inf).amin(1)
        nearest = nearest[nearest.isfinite()]
        spacing = nearest.median() if len(nearest) else torch.full_like(pose[0, 0], SPACING)
        low, high = pose[:, 4:6].quantile(torch.tensor([RARE, 1 - RARE], device=pose.device), dim=0)
        slack = TURN_SLACK * (high - low)
        return cls(places, REACH * spacing, low - slack, high + slack)

    def hold(self, camera: Tensor, poses: Tensor) -> Tensor:
        """The next poses (b, f, 6) of a camera (b, 6), brought back to the ground where they leave it.

        A way out becomes one along the edge.  A camera that is beyond it goes no farther.
        """
        way = torch.cat([camera[:, None], poses], 1)
        at = _scaled(way[..., :3])
        away, nearest = _distances(at, self.places.expand(len(at), -1, -1)).min(-1)
        limit = away[:, :1].clamp(min=self.radius)
        centre = self.places[nearest]
        back = (limit / away.clamp(min=1e-6)).clamp(max=1)[..., None]
        held = centre + (at - centre) * back
        held[..., 2] /= HEIGHT_FACTOR
        turns = way[..., 4:6]
        low, high = torch.minimum(self.low, camera[:, None, 4:6]), torch.maximum(self.high, camera[:, None, 4:6])
        turns = torch.minimum(torch.maximum(turns, low), high)
        return torch.cat([torch.where(back < 1, held, way[..., :3]), way[..., 3:4], turns], -1)[:, 1:]


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Exact far from the origin too, where products of matrices would lose the metres."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _scaled(places: Tensor) -> Tensor:
    return torch.cat([places[..., :2], HEIGHT_FACTOR * places[..., 2:]], -1)
