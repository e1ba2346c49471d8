"""Keyframes as tensors: what views are rendered from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

from reverie.scenes.body_matching import Body
from reverie.scenes.ego_motion import EgoMotionNet
from reverie.scenes.ground import Ground
from reverie.scenes.view_sources import median_reach, pick_keyframes, probe_points, view_promise

PROBED_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class Keyframes:
    """Keyframes of scenes, read-only and shared by sessions.

    colour: (n, 3, H, W) uint8; depth: (n, h, w) metres; hidden: (n, h, w) bool, pixels not to be drawn; pose: (n, 6);
    probes: (n, p, 3) world points and seen: (n, p) bool, for the choice of keyframes; reach: (n,) metres, nan where
    nothing is near.
    """

    colour: Tensor
    depth: Tensor
    hidden: Tensor
    pose: Tensor
    probes: Tensor
    seen: Tensor
    reach: Tensor

    @classmethod
    @torch.no_grad()
    def new(cls, colour: Tensor, depth: Tensor, hidden: Tensor, pose: Tensor, focal: Tensor) -> Keyframes:
        """focal: (2,) of all of them, or (n, 2)."""
        focal = focal.expand(len(pose), 2)
        probes, seen = [], []
        for i in range(0, len(pose), PROBED_AT_ONCE):
            part = slice(i, i + PROBED_AT_ONCE)
            points, ok = probe_points(depth[part, None], hidden[part, None], pose[part, None], focal[part])
            probes.append(points[:, 0])
            seen.append(ok[:, 0])
        all_probes, all_seen = torch.cat(probes), torch.cat(seen)
        return cls(colour, depth, hidden, pose, all_probes, all_seen, median_reach(all_probes, all_seen, pose))

    def __len__(self) -> int:
        return self.pose.shape[0]

    def to(self, device: torch.device | str) -> Keyframes:
        return Keyframes(*(getattr(self, field.name).to(device) for field in fields(self)))

    def select(self, index: Tensor) -> Keyframes:
        return Keyframes(*(getattr(self, field.name)[index] for field in fields(self)))

    @classmethod
    def join(cls, parts: list[Keyframes]) -> Keyframes:
        return cls(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)))


class Candidates(NamedTuple):
    """The keyframes that each session may be shown: members (b, m) of `keyframes`, usable (b, m) bool; is_whole: the
    members are all keyframes in their order, for every session, so that choosing among them copies nothing; ground,
    ego_motion, walls, body: of the scene that they are."""

    keyframes: Keyframes
    members: Tensor
    usable: Tensor
    is_whole: bool = False
    ground: Ground | None = None
    ego_motion: EgoMotionNet | None = None
    walls: bool = True
    body: Body | None = None

    @classmethod
    def of_scene(cls, keyframes: Keyframes, batch: int = 1, ground: Ground | None = None) -> Candidates:
        """All keyframes of one scene for every session.

        Without a ground its sessions may go anywhere, without an ego-motion network they move as the model has learnt,
        without walls surfaces do not stop them.
        """
        members = torch.arange(len(keyframes), device=keyframes.pose.device).expand(batch, -1)
        return cls(keyframes, members, torch.ones_like(members, dtype=torch.bool), True, ground)

    def for_sessions(self, batch: int) -> Candidates:
        """The same scene for so many sessions."""
        everyone = Candidates.of_scene(self.keyframes, batch)
        return self._replace(members=everyone.members, usable=everyone.usable)

    def all(self, name: str) -> Tensor:
        """A field of all members, (b, m, ...); with a batch of one where they are the same for every session."""
        field = getattr(self.keyframes, name)
        return field[None] if self.is_whole else field[self.members]


class Choice(NamedTuple):
    """Keyframes that views are rendered from: chosen (b, k) into the sources one after another, valid (b, k) bool."""

    sources: tuple[Candidates, ...]
    chosen: Tensor
    valid: Tensor

    @classmethod
    def best(
        cls,
        sources: Sequence[Candidates],
        preference: Sequence[float],
        pose: Tensor,
        focal: Tensor,
        k: int,
        lost: Sequence[Tensor | None] = (),
        leading: int = 0,
    ) -> Choice:
        """Chooses the keyframes that promise most for a view.

        preference: what each source's promises are multiplied by; pose: (b, 6) of the view; focal: (b, 2); lost:
        for each source the probes (b, m, p) that are not there any more; leading: the first so many picks are of the
        first source, while it adds anything: of several, what is recorded comes before what was generated.
        """
        promise, typical = [], _typical_reach(sources, pose.shape[0])
        for one, weight, gone in zip(sources, preference, lost or [None] * len(sources), strict=True):
            seen = one.all("seen") if gone is None else one.all("seen") & ~gone
            shown = view_promise(one.all("probes"), seen, one.all("pose"), pose, focal, typical)
            promise.append(shown * (one.usable * weight)[..., None])
        return cls(tuple(sources), *pick_keyframes(torch.cat(promise, 1), k, leading, promise[0].shape[1]))

    def of_source(self, number: int) -> Tensor:
        """Mask of the chosen keyframes that are of this source, (b, k) bool."""
        first = sum(one.members.shape[1] for one in self.sources[:number])
        return (self.chosen >= first) & (self.chosen < first + self.sources[number].members.shape[1])

    def gather(self, name: str) -> Tensor:
        """A field of the chosen keyframes, (b, k, ...)."""
        out, first = None, 0
        for number, one in enumerate(self.sources):
            m = one.members.shape[1]
            members = one.members.expand(self.chosen.shape[0], -1).gather(1, (self.chosen - first).clamp(0, m - 1))
            field = getattr(one.keyframes, name)[members]
            is_here = self.of_source(number).view(*self.chosen.shape, *[1] * (field.ndim - 2))
            out = field if out is None else _select(is_here, field.to(out.dtype), out)
            first += m
        assert out is not None
        return out


def _select(mask: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """`torch.where`, of bytes by their bits: images are large, and that is ten times as fast on a CPU."""
    if yes.dtype is not torch.uint8:
        return torch.where(mask, yes, no)
    return no ^ ((yes ^ no) & (0 - mask.to(torch.uint8)))


def _typical_reach(sources: Sequence[Candidates], batch: int) -> Tensor:
    """The median reach of all usable keyframes, metres (batch,); 1 where there are none."""
    reach = torch.cat([torch.where(one.usable, one.all("reach"), torch.nan).expand(batch, -1) for one in sources], 1)
    return reach.nanmedian(1).values.nan_to_num(1.0)
