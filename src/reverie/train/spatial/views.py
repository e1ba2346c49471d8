"""Conditions of recorded steps: what a session would have had in memory there.

A `ViewSet` cuts the episodes of a store into sessions and computes, for every step, what the memory shows of its
frames: from a scene (keyframes of *other* episodes of the same place), from part of one, or from the session's own
decoded frames alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from reverie.models.conditioning.spatial_memory import SpatialMemory, pooled
from reverie.models.state import ConditionChannels
from reverie.scenes.keyframes import Candidates, Choice, Keyframes
from reverie.train.spatial.encoded_recordings import Store
from reverie.vision.pixels import to_pixels
from reverie.vision.rendering import render_views

SESSION_STEPS = (14, 18, 28, 50, 100)
"""Lengths of sessions that episodes are cut into."""
OWN_EVERY = 2
"""Own frames that are remembered: about every second step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewPlan:
    """scene: share of the scene's keyframes that a session has (0: it opens on one image); own: whether its
    memory holds its own frames; spoil: own frames are blurred, noised and moved as drifting generation would; whole:
    sessions are whole episodes; seed: of all draws."""

    scene: float
    own: bool
    spoil: bool = True
    whole: bool = False
    seed: int = 0


class ScenePool:
    """Real keyframes of every place of a store, and from which step each is."""

    def __init__(self, store: Store, per_place: int, seed: int = 0) -> None:
        """per_place: at most so many keyframes a place, drawn at random."""
        rng = np.random.default_rng(seed)
        steps = store.key_step.cpu().numpy()
        keep = np.zeros(len(steps), bool)
        for place in np.unique(store.place):
            mine = np.flatnonzero(store.place[steps] == place)
            keep[rng.permutation(mine)[:per_place]] = True
        index = torch.from_numpy(np.flatnonzero(keep)).to(store.device)
        self.steps = steps[keep]
        at = store.key_step[index]
        self.keyframes = Keyframes.new(
            store.key_colour[index],
            store.key_depth[index].half(),
            store.key_hidden[index],
            store.pose[at, -1],
            store.focal[at],
        )
        self.episode, self.place = store.episode[self.steps], [store.places[p] for p in store.place[self.steps]]
        places = sorted(set(self.place))
        lists = [np.flatnonzero([p == place for p in self.place]) for place in places]
        width = max(len(one) for one in lists)
        table = np.zeros((len(places), width), np.int64)
        for row, one in zip(table, lists, strict=True):
            row[: len(one)] = one
        self.row = {place: i for i, place in enumerate(places)}
        self.table = torch.from_numpy(table).to(store.device)
        self.full = torch.from_numpy(np.array([np.arange(width) < len(one) for one in lists])).to(store.device)
        self.episodes = torch.from_numpy(self.episode).to(store.device)

    def candidates(self, places: list[str], episodes: Tensor | None) -> Candidates:
        """For each session the keyframes of its place, those of its own episode left out.

        places: (b,) names; episodes: (b,) numbers, None where the pool is of other recordings.
        """
        rows = torch.tensor([self.row.get(place, -1) for place in places], device=self.table.device)
        index = self.table[rows.clamp(min=0)]
        usable = self.full[rows.clamp(min=0)] & (rows >= 0)[:, None]
        if episodes is not None:
            usable = usable & (self.episodes[index] != episodes[:, None])
        return Candidates(self.keyframes, index, usable)


class ViewSet:
    """parts: packed condition of every step without the previous latent, (n, 4 + c + 4, u, v) float16: cover, view
    latent, inverse depth; start: (n,) the step at which each step's session begins; drawn: (n,) bool, whether the
    memory showed anything; cover: (n,) mean."""

    @torch.no_grad()
    def __init__(
        self,
        store: Store,
        memory: SpatialMemory,
        pool: ScenePool,
        plan: ViewPlan,
        same_recordings: bool = True,
        batch: int = 96,
    ) -> None:
        """same_recordings: whether the pool is of this store, so that a session's own episode must be left out."""
        self.store, self.plan = store, plan
        rng = np.random.default_rng(plan.seed)
        self.start = cut_sessions(store, rng, plan.whole)
        self.start_on_device = torch.from_numpy(self.start).to(store.device)
        generator = torch.Generator(store.device).manual_seed(plan.seed)
        c, u, v = memory.latent
        self.parts = torch.zeros(store.count, 8 + c, u, v, dtype=torch.half, device=store.device)
        self.drawn = torch.zeros(store.count, dtype=torch.bool, device=store.device)
        self.cover = torch.zeros(store.count, device=store.device)
        steps = np.flatnonzero(self.start != np.arange(store.count))
        for i in range(0, len(steps), batch):
            part = steps[i : i + batch]
            choice = self._choose(part, memory, pool, rng, same_recordings)
            colour, depth, hidden, pose, fills = self._keyframes(choice, generator)
            at = torch.from_numpy(part).to(store.device)
            view = render_views(colour, depth, hidden, pose, choice.valid, store.pose[at], store.focal[at], fills)
            with store.autocast():
                latent = memory.view_encoder(view.colour)
            cover, inverse = pooled(view.cover, view.inverse_depth, memory.latent)
            self.parts[at] = torch.cat([cover, latent.float(), inverse], 1).half()
            self.drawn[at] = choice.valid.any(1)
            self.cover[at] = view.cover.mean((1, 2, 3))

    def _choose(
        self, steps: np.ndarray, memory: SpatialMemory, pool: ScenePool, rng: np.random.Generator, same: bool
    ) -> Choice:
        store, plan, device = self.store, self.plan, self.store.device
        at = torch.from_numpy(steps).to(device)
        sources, preference = [], []
        if plan.scene > 0:
            names = [store.places[p] for p in store.place[steps]]
            scene = pool.candidates(names, torch.from_numpy(store.episode[steps]).to(device) if same else None)
            if plan.scene < 1:  # the same part for all of a session
                hash_ = (scene.members * 7919 + self.start_on_device[at][:, None] * 104729) % 1000
                scene = scene._replace(usable=scene.usable & (hash_ < 1000 * plan.scene))
            sources, preference = [scene], [1.0]
        if plan.own or plan.scene == 0:
            begin = self.start[steps]
            most = int((steps - begin).max())
            candidates = begin[:, None] + np.arange(most)[None]
            ok = candidates < steps[:, None]
            keep = (
                rng.random(ok.shape) < 1 / OWN_EVERY if plan.spoil else (candidates - begin[:, None]) % OWN_EVERY == 0
            )
            keep[:, 0] = True
            index = torch.from_numpy(candidates.clip(max=store.count - 1)).to(device)
            preference.append(memory.config.own_preference if sources else 1.0)
            sources.append(Candidates(store.own, index, torch.from_numpy(ok & keep).to(device)))
        return Choice.best(sources, preference, store.pose[at, 2], store.focal[at], memory.config.drawn)

    def _is_own(self, choice: Choice) -> Tensor:
        """Marks the keyframes that are the session's own frames, (b, k) bool."""
        has_own = self.plan.own or self.plan.scene == 0
        return choice.of_source(len(choice.sources) - 1) if has_own else torch.zeros_like(choice.valid)

    def _keyframes(
        self, choice: Choice, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
        colour, depth, hidden, pose = (choice.gather(name) for name in ("colour", "depth", "hidden", "pose"))
        is_own = self._is_own(choice)
        fills = is_own if self.plan.scene > 0 else None
        if self.plan.spoil:
            colour, pose = _spoil(colour, pose, is_own, generator)
        return colour, depth, hidden, pose, fills


def _spoil(colour: Tensor, pose: Tensor, is_own: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Blurs and moves some of the session's own keyframes, as generated ones are: pixels in [-1, 1], and poses."""
    device, shape = colour.device, is_own.shape

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, device=device, generator=generator)

    blurred = (rand(*shape) < 0.25) & is_own
    pixels = to_pixels(colour)
    soft = F.interpolate(F.avg_pool2d(pixels.flatten(0, 1), 2), scale_factor=2, mode="bilinear").view_as(pixels)
    pixels = torch.where(blurred[..., None, None, None], soft, pixels)
    scale = torch.tensor([0.05, 0.05, 0.03, 0.3, 0.15, 0.0], device=device)
    moved = (rand(*shape, 1) < 0.4) & is_own[..., None]
    offset = torch.randn(*shape, 6, device=device, generator=generator) * scale
    return pixels, pose + torch.where(moved, offset, torch.zeros_like(offset))


def cut_sessions(store: Store, rng: np.random.Generator, whole: bool) -> np.ndarray:
    """(n,): the step at which the session of each step begins."""
    start = np.zeros(store.count, np.int64)
    for first, end in zip(store.first[:-1], store.first[1:], strict=True):
        at = first
        while at < end:
            length = end - at if whole else int(rng.choice(SESSION_STEPS))
            start[at : min(at + length, end)] = at
            at += length
    return start


def with_previous(parts: Tensor, drawn: Tensor, context: Tensor) -> ConditionChannels:
    """Whole conditions of a clip from stored parts: `pack_channels` for all steps.

    parts: (b, t, 8 + c, u, v); drawn: (b, t) bool; context: (b, t, c, u, v) latents.  The first step, which is given,
    has none.
    """
    c = context.shape[2]
    before = torch.cat([torch.zeros_like(context[:, :1]), context[:, :-1]], 1)
    cover, view, inverse = parts.to(context.dtype).split([4, c, 4], 2)
    base = torch.where(drawn[..., None, None, None], view, before)
    channels = torch.cat([cover, base, before, inverse], 2)
    first = torch.arange(channels.shape[1], device=channels.device).view(1, -1, 1, 1, 1) == 0
    return ConditionChannels(channels.masked_fill(first, 0), base.masked_fill(first, 0))


def standard_views(
    store: Store,
    held_out: Store,
    memory: SpatialMemory,
    per_place: int,
    say: Callable[[str], None],
    half_known: bool = True,
) -> tuple[list[tuple[ViewSet, float]], dict[str, ViewSet], ScenePool]:
    """Conditions to train with: whole scenes, half-known scenes (other keyframes), and single images."""
    pools = [ScenePool(store, per_place, seed) for seed in (0, 1)]
    plans = [
        (ViewPlan(scene=1.0, own=True, seed=2), pools[0], 0.5),
        (ViewPlan(scene=0.4, own=True, seed=3), pools[1], 0.2),
        (ViewPlan(scene=0.0, own=True, seed=4), pools[0], 0.3),
    ]
    if not half_known:
        plans.pop(1)
    views = []
    for plan, pool, weight in plans:
        views.append((ViewSet(store, memory, pool, plan), weight))
        cover = {
            game: round(views[-1][0].cover[torch.from_numpy(store.game == i).to(store.device)].mean().item(), 3)
            for i, game in enumerate(store.games)
        }
        say(f"views, scene {plan.scene}: cover {cover}")
    held = {
        "scene": ViewSet(held_out, memory, pools[0], ViewPlan(scene=1.0, own=True, spoil=False, seed=9), False),
        "image": ViewSet(held_out, memory, pools[0], ViewPlan(scene=0.0, own=True, spoil=False, seed=9), False),
    }
    return views, held, pools[0]
