"""The ground of a scene: the places near to where it was recorded, which are all that a session in it can go to.

Beyond them nothing is known, so nothing holds there: no wall, no floor, and no way back.  A scene with recorded ways
keeps to them, in its heading too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from reverie.errors import DataError
from reverie.scenes.ego_motion import apply_motion, motions_along
from reverie.scenes.recorded_ways import Poses, RecordedWays, measure_distances, measure_offsets, measure_ways

REACH = 2.0
"""Radius of a place, in distances between one and the next, where a scene has no recorded ways."""
SAME_PLACE = 0.3
"""Keyframes within so many metres are of one place."""
SPACING = 1.0
"""Metres between places where there is only one."""
RARE = 0.02
"""Share of the keyframes, at either end, whose pitch and roll are not usual ones."""
TURN_SLACK = 0.5
"""Pitch and roll may leave the usual ones by so many of their ranges: a camera that never tilts stays as it is."""
ANY_HEADING = torch.inf


class Ground(NamedTuple):
    """poses: (n, 4) x, y, z in metres and yaw in degrees; heading: (n,) degrees, radius: () metres around each; low,
    high: (2,) degrees of pitch and roll."""

    poses: Tensor
    heading: Tensor
    radius: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, pose: Tensor, ways: RecordedWays | None = None) -> Ground:
        """The ground of keyframes at pose (n, 6), or of recorded ways; pitch and roll are the keyframes'."""
        low, high = pose[:, 4:6].quantile(torch.tensor([RARE, 1 - RARE], device=pose.device), dim=0)
        slack = TURN_SLACK * (high - low)
        tilt = (low - slack, high + slack)
        if ways is None:
            return cls(pose[:, :4], torch.full_like(pose[:, 0], ANY_HEADING), keyframe_radius(pose), *tilt)
        poses, heading = (torch.from_numpy(array).to(pose) for array in (ways.poses, ways.heading))
        return cls(poses, heading, pose.new_tensor(ways.radius), *tilt)

    def hold(self, camera: Tensor, poses: Tensor) -> Tensor:
        """The next poses (b, f, 6) of a camera (b, 6), brought back to the ground where they leave it.

        A way out becomes one along the edge, and who is turned back goes on in that direction.  A camera that is beyond
        it goes no farther.
        """
        low, high = torch.minimum(self.low, camera[:, 4:6]), torch.maximum(self.high, camera[:, 4:6])
        tilt = torch.minimum(torch.maximum(poses[..., 4:6], low[:, None]), high[:, None])
        _, away, turn, heading = self._nearest(camera)
        limits = away.clamp(min=self.radius), (turn.abs() / heading).clamp(min=1)
        held = [camera]
        for frame, motion in enumerate(motions_along(camera, poses).unbind(1)):
            pose = self._hold(apply_motion(held[-1], motion), *limits)
            held.append(torch.cat([pose, tilt[:, frame]], 1))
        return torch.stack(held[1:], 1)

    def _hold(self, pose: Tensor, radius: Tensor, share: Tensor) -> Tensor:
        """Place and yaw (b, 4) of a pose (b, 6), within metres (b, 1) and a share (b, 1) of the heading."""
        centre, away, turn, heading = self._nearest(pose)
        back = radius / away.clamp(min=1e-6)
        place = torch.where(back < 1, centre + (pose[:, :3] - centre) * back, pose[:, :3])
        limit = share * heading
        return torch.cat([place, pose[:, 3:4] + (turn.clamp(-limit, limit) - turn)], 1)

    def _nearest(self, pose: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The recorded pose that a pose (b, 6) is nearest to: place (b, 3), metres away and degrees turned from it, and
        its heading, (b, 1) each."""
        away, turn = (x[:, 0] for x in measure_offsets(pose[:, None, :4], self.poses))
        number = torch.hypot(away / self.radius, turn / self.heading).argmin(-1, keepdim=True)
        centre = self.poses[number[:, 0], :3]
        return centre, away.gather(1, number), turn.gather(1, number), self.heading[number]


def find_ways(pose: Tensor, recorded: Sequence[Poses], held_out: Sequence[Poses]) -> RecordedWays | None:
    """The recorded ways of a scene with keyframes at pose (n, 6); None where walks went anywhere near them.

    recorded, held_out: walks (frames, 6).  Raises DataError for walks in another place.
    """
    most = keyframe_radius(pose)
    walked = torch.from_numpy(np.concatenate(recorded)[:, :3])
    away = measure_distances(pose[:, :3], walked[walked.isfinite().all(1)]).amin(1)
    if away.median() > most:
        raise DataError(
            f"the recordings are of another place: half of the keyframes are more than {float(most):.1f} m from where "
            "their cameras were; name the scene's with --place"
        )
    return measure_ways(recorded, held_out, float(most))


def keyframe_radius(pose: Tensor) -> Tensor:
    """Metres (): a few distances between one keyframe's place and the next.  pose: (n, 6)."""
    away = measure_distances(pose[:, :3], pose[:, :3])
    nearest = away.masked_fill(away < SAME_PLACE, torch.inf).amin(1)
    nearest = nearest[nearest.isfinite()]
    return REACH * (nearest.median() if len(nearest) else torch.full_like(pose[0, 0], SPACING))
