"""Keyframes as tensors: what views are rendered from."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

from reverie.scenes.selection import median_reach, probe_points

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
    """The scene keyframes that each session may be shown: members (b, m) of
    `keyframes`, usable (b, m) bool."""

    keyframes: Keyframes
    members: Tensor
    usable: Tensor

    @classmethod
    def of_scene(cls, keyframes: Keyframes, batch: int = 1) -> Candidates:
        """All keyframes of one scene for every session."""
        members = torch.arange(len(keyframes), device=keyframes.pose.device).expand(batch, -1)
        return cls(keyframes, members, torch.ones_like(members, dtype=torch.bool))
