"""Training of the ego-motion network, on recorded motions alone: no image is looked at.

Legend: n latent steps of all walks one after another, b walks of a batch, j steps of one, a numbers in an action row.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from reverie.errors import DataError
from reverie.scenes.ego_motion import (
    HISTORY_STEPS,
    MOTION_SCALE,
    EgoMotionNet,
    apply_motion,
    relative_motion,
)
from reverie.train.spatial.fitting import lr_at, take_step
from reverie.types import STEP_FRAMES
from reverie.vision.projection import wrap_degrees

MAX_MOTION = 60.0
"""A step with a motion of more usual ones than this is a jump (a respawn), not a motion."""
CHECKED_STEPS = 6
"""Steps of own motions, about a second, after which the camera is compared."""
UNROLLED_STEPS, FEW_STEPS = 12, 4
"""Steps that the network goes on from its own motions in training, two seconds: with fewer it never learns to come back
from where they lead it, and may spin for good.  Where all walks are shorter, as many as they have, at least the few."""
FRESH_SHARE = 0.2
"""Share of the walks drawn that begin within a history of an episode's start: a session begins without any."""
MOTION_NOISE, SPEED_NOISE, AHEAD_NOISE = 0.05, 0.005, 0.1
"""Noise on the inputs, which play disturbs too: usual motions, share of a motion, log depth."""
PEAK_LR, MIN_UPDATES = 2e-3, 100


@dataclass(frozen=True, slots=True)
class Motions:
    """Recorded motions, step by step.

    actions: (n, 4, a); motion: (n, 4, 6); tilt: (n, 2) pitch and roll after each step; ahead: (n, 8, 14) log depth
    after it; episode, game: (n,), whose steps they are.  The first step of an episode is its first frame: nothing has
    moved.
    """

    actions: Tensor
    motion: Tensor
    tilt: Tensor
    ahead: Tensor
    episode: npt.NDArray[np.intp]
    game: npt.NDArray[np.intp]

    @classmethod
    def join(cls, walks: Sequence[Motions]) -> Motions:
        """Walks, each of them one episode, one after another.  Raises DataError where there are none."""
        if not walks:
            raise DataError("expected walks with actions, poses and depth, got none; record the game longer")
        lengths = [len(walk.motion) for walk in walks]
        return cls(
            torch.cat([walk.actions for walk in walks]),
            torch.cat([walk.motion for walk in walks]),
            torch.cat([walk.tilt for walk in walks]),
            torch.cat([walk.ahead for walk in walks]),
            np.repeat(np.arange(len(walks)), lengths),
            np.concatenate([walk.game for walk in walks]),
        )

    @classmethod
    def of_walk(cls, poses: Tensor, actions: Tensor, ahead: Tensor, game: int = 0) -> Motions:
        """One walk.  poses: (1 + 4 n, 6); actions: (4 n, a) between them; ahead: (1 + n, 8, 14) of every fourth."""
        steps = len(ahead)
        motion = F.pad(relative_motion(poses[:-1], poses[1:]), (0, 0, STEP_FRAMES, 0)).unflatten(
            0, (steps, STEP_FRAMES)
        )
        rows = F.pad(actions, (0, 0, STEP_FRAMES, 0)).unflatten(0, (steps, STEP_FRAMES))
        return cls(
            rows, motion, poses[::STEP_FRAMES, 4:6], ahead, np.zeros(steps, np.intp), np.full(steps, game, np.intp)
        )

    def to(self, device: torch.device) -> Motions:
        return Motions(
            self.actions.to(device),
            self.motion.to(device),
            self.tilt.to(device),
            self.ahead.to(device),
            self.episode,
            self.game,
        )

    def part(self, start: int, stop: int) -> Motions:
        """Some steps of one walk, as a walk of its own."""
        motion, actions = self.motion[start:stop].clone(), self.actions[start:stop].clone()
        motion[:1] = actions[:1] = 0
        part = slice(start, stop)
        return Motions(actions, motion, self.tilt[part], self.ahead[part], self.episode[part], self.game[part])

    def walks(self, num_steps: int) -> npt.NDArray[np.intp]:
        """Steps from which `num_steps` can be walked: none is an episode's first, and there is no jump.

        Raises DataError where there is none.
        """
        begin = np.arange(1, len(self.episode) - num_steps + 1)
        jump = (self.motion.abs() / self.motion.new_tensor(MOTION_SCALE)).amax((1, 2)).cpu().numpy() >= MAX_MOTION
        jumps = np.concatenate([[0], np.cumsum(jump)])
        same = self.episode[begin - 1] == self.episode[begin + num_steps - 1]
        found = begin[same & (jumps[begin + num_steps] == jumps[np.maximum(begin - HISTORY_STEPS, 0)])]
        if not len(found):
            raise DataError(
                f"expected an episode of at least {num_steps + 1} latent steps ({4 * num_steps + 1} frames) without a "
                "jump, got none; record longer ones"
            )
        return found

    def known_steps(self, step: Tensor) -> Tensor:
        """Counts the steps before `step` (b,) that are of the same episode, at most `HISTORY_STEPS`: (b,)."""
        first = np.searchsorted(self.episode, self.episode[step.cpu().numpy()])  # episodes lie one after another
        return (step - torch.from_numpy(first).to(step.device)).clamp(max=HISTORY_STEPS)


def unroll(
    network: EgoMotionNet, d: Motions, step: Tensor, num_steps: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Motions made and recorded, (b, j, 4, 6) each, of the steps from `step` (b,) on.

    generator: of what disturbs the inputs as play does; None: they are as recorded.
    """
    device, b = step.device, len(step)

    def noise(*shape: int) -> Tensor:
        if generator is None:
            return torch.zeros(shape, device=device)
        return torch.randn(shape, device=device, generator=generator)

    known = d.known_steps(step)
    before = torch.arange(-HISTORY_STEPS, 0, device=device)
    is_known = (before >= -known[:, None])[..., None, None]
    at = (step[:, None] + before).clamp(min=0)
    following = step[:, None] + torch.arange(num_steps, device=device)
    actions = torch.cat([d.actions[at] * is_known, d.actions[following]], 1)
    motion = d.motion[at] * (1 + SPEED_NOISE * noise(b, 1, 1, 1))
    motion = (motion + MOTION_NOISE * network.scale * noise(*motion.shape)) * is_known
    motion, tilt, made = motion.flatten(1, 2), d.tilt[step - 1], []
    ahead = d.ahead[following - 1]
    ahead = ahead + AHEAD_NOISE * (noise(*ahead.shape) + noise(b, 1, 1, 1))
    for j in range(num_steps):
        rows = actions[:, j : j + HISTORY_STEPS + 1].flatten(1, 2)
        made.append(network(rows, motion, tilt, ahead[:, j]))
        motion = torch.cat([motion[:, STEP_FRAMES:], made[-1]], 1)
        tilt = tilt + made[-1][..., 4:6].sum(1)
    return torch.stack(made, 1), d.motion[following]


def camera_error(made: Tensor, recorded: Tensor) -> Tensor:
    """Poses after every frame of motions (b, n, 6), made minus recorded, both from the origin: (b, n, 6)."""
    pose = torch.zeros(2, len(made), 6, device=made.device)
    errors = []
    for motion in torch.stack([made, recorded]).unbind(2):
        pose = apply_motion(pose, motion)
        errors.append(pose[0] - pose[1])
    return torch.stack(errors, 1)


def ego_motion_loss(made: Tensor, recorded: Tensor, scale: Tensor) -> Tensor:
    """Loss of each frame's motion, and of the camera pose after every step; motions (b, j, 4, 6) of a walk."""
    frame = (made - recorded) / scale
    off = camera_error(made.flatten(1, 2), recorded.flatten(1, 2))[:, STEP_FRAMES - 1 :: STEP_FRAMES]
    gone = torch.arange(1, made.shape[1] + 1, device=made.device)[:, None] * STEP_FRAMES
    off = off / (scale * gone.sqrt())
    return sum(F.smooth_l1_loss(x, torch.zeros_like(x), beta=0.3) for x in (frame, off))  # type: ignore[return-value]


def train_ego_motion(
    network: EgoMotionNet,
    d: Motions,
    *,
    seconds: float = math.inf,
    epochs: float = math.inf,
    batch: int = 128,
) -> int:
    """Fits the network to recorded walks, going on from its own motions.  Returns the number of updates.

    It ends after so many seconds, or so many times the steps that there are (and `MIN_UPDATES`).  Walks of each game
    are drawn equally often.  Raises DataError where all walks are too short.
    """
    unrolled = min(UNROLLED_STEPS, max(FEW_STEPS, int(np.bincount(d.episode).max()) - 1))
    steps, device = d.walks(unrolled), d.motion.device
    optimizer = torch.optim.AdamW(network.parameters(), PEAK_LR, weight_decay=0.01)
    begin = torch.from_numpy(steps).to(device)
    bounds = torch.from_numpy(np.cumsum(_shares(d, begin))).float().to(device)
    generator = torch.Generator(device).manual_seed(1)
    updates = max(epochs * len(steps) / batch, MIN_UPDATES)
    started, count = time.monotonic(), 0
    while (done := max((time.monotonic() - started) / seconds, count / updates)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = lr_at(done, count, PEAK_LR)
        drawn = torch.rand(batch, device=device, generator=generator)
        k = begin[torch.searchsorted(bounds, drawn).clamp(max=len(begin) - 1)]
        made, recorded = unroll(network, d, k, unrolled, generator)
        take_step(ego_motion_loss(made, recorded, network.scale), network, optimizer)
        count += 1
    network.eval().requires_grad_(False)
    return count


def _shares(d: Motions, steps: Tensor) -> npt.NDArray[np.float64]:
    """Shares of walks drawn that begin at each step: games alike, and of each `FRESH_SHARE` near an episode's start."""
    is_fresh = (d.known_steps(steps) < HISTORY_STEPS).cpu().numpy()
    group = 2 * d.game[steps.cpu().numpy()] + is_fresh
    count = np.bincount(group)
    share = np.where(is_fresh, FRESH_SHARE, 1 - FRESH_SHARE) / count[group]
    return share / share.sum()


@dataclass(frozen=True, slots=True)
class Drift:
    """A camera after some steps of its own motions: metres gone and off, degrees of yaw off; means and medians."""

    way_m: float
    off_m: float
    off_m_median: float
    yaw_deg: float
    yaw_deg_median: float

    @classmethod
    def of(cls, made: Tensor, recorded: Tensor) -> Drift:
        """made, recorded: (n, t, 6) motions."""
        off = camera_error(made, recorded)[:, -1]
        way = camera_error(recorded, torch.zeros_like(recorded))[:, -1, :3].norm(dim=1)
        off_m, yaw = off[:, :3].norm(dim=1), wrap_degrees(off[:, 3]).abs()
        return cls(*(x.item() for x in (way.mean(), off_m.mean(), off_m.median(), yaw.mean(), yaw.median())))

    def __str__(self) -> str:
        return (
            f"{self.off_m:.2f} of {self.way_m:.1f} m off (median {self.off_m_median:.2f}), yaw {self.yaw_deg:.1f} "
            f"degrees (median {self.yaw_deg_median:.2f})"
        )


@torch.no_grad()
def check_ego_motion(
    network: EgoMotionNet, d: Motions, names: Sequence[str], num_steps: int = CHECKED_STEPS
) -> dict[str, Drift]:
    """The camera after `num_steps` of its own motions, for each game that has such walks.  names: of the games."""
    found, steps = {}, d.walks(num_steps)
    for number, name in enumerate(names):
        mine = torch.from_numpy(steps[d.game[steps] == number][::3])
        if not len(mine):
            continue
        parts = [unroll(network, d, part, num_steps) for part in mine.to(d.motion.device).split(256)]
        found[name] = Drift.of(*(torch.cat(part).flatten(1, 2) for part in zip(*parts, strict=True)))
    return found
