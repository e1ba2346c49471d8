"""The world model's training with a spatial memory.

Teacher-forced as sampling is: a lightly noised copy of a clip gives keys and values, noisy copies of its steps see it.
One copy learns flow matching at the smallest step size, the other larger steps: at first from the game, later from two
of half the size (shortcut forcing, Dreamer 4, arXiv 2509.24527, section 3.2), or, for one step from pure noise, from a
discriminator beside the game.  The loss is in x-space.  Some contexts are the model's own rollouts; their targets count
only where the memory covers the view, because elsewhere the game could not be known and the mean would be learnt.

Legend: b batch, t steps of a clip, (c u v) a latent step, a numbers in an action row.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reverie import sampling
from reverie.models.checkpoint import ModelBundle, replace_model
from reverie.models.schedule import Schedule
from reverie.models.state import ConditionChannels
from reverie.train.noise_levels import draw_large_steps, draw_noise_levels
from reverie.train.spatial.clips import (
    Clips,
    action_windows,
    estimate,
    recorded_clip,
    smallest_step,
)
from reverie.train.spatial.discriminator import Discriminator, discriminator_loss, towards_real
from reverie.train.spatial.encoded_recordings import Store
from reverie.train.spatial.figures import held_out_figures
from reverie.train.spatial.rollouts import Rollouts, image_tokens, roll_out
from reverie.train.spatial.views import ScenePool, ViewSet, with_previous
from reverie.train.task import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class SpatialPlan:
    """Training settings of a model with a spatial memory.

    copies: 1 (flow matching alone) or 2 (larger steps too); pure_noise: share of noise levels that are exactly 1, where
    every block begins; clip_steps: latent steps of a clip; context_noise: the most noise that contexts get; openings:
    share of clips that begin at a session's start; dropout: share of clips without memory; shortcut_from,
    shortcut_share: progress from which on, and share of batches in which the second copy learns from half steps;
    shortcut_weight: of its loss; own_from, own_share: progress from which on, and share of batches whose contexts are
    own rollouts; own_sessions, own_steps: size of a rollout; own_kept: rollouts kept; own_times: rollouts in all, by
    turns in scenes and on single images; adversarial_from, adversarial_full: progress from which on the second copy
    learns from a discriminator too, and at which it does so fully; adversarial_weight: length of the discriminator's
    gradient over that of the squared error's; judged_steps: steps of a clip that it judges; penalty: of its slopes.
    """

    batch: int = 64
    copies: int = 2
    pure_noise: float = 0.2
    clip_steps: int = 13
    context_noise: float = 0.25
    openings: float = 0.25
    dropout: float = 0.04
    shortcut_from: float = 2.0
    shortcut_share: float = 0.5
    shortcut_weight: float = 0.5
    own_from: float = 0.35
    own_share: float = 0.35
    own_sessions: int = 128
    own_steps: int = 32
    own_kept: int = 4
    own_times: int = 6
    adversarial_from: float = 0.52
    adversarial_full: float = 0.65
    adversarial_weight: float = 0.7
    judged_steps: int = 4
    penalty: float = 0.02
    schedule: Schedule = Schedule((1.0,), context_sigma=0.06)  # noqa: RUF009  # frozen


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Clips that a step is taken on; latents and conditions are on the device already.

    view: number of the set of conditions; index: (b,) steps at which clips begin; is_own: whether own rollouts are
    taken instead, where there are any: rollout: in [0, 1), which one; picks: (2, b) in [0, 1), rows and offsets in it.
    """

    view: int
    index: Tensor
    is_own: bool
    rollout: float
    picks: Tensor


class SpatialTask(Task):
    """Batches, loss, own rollouts and export of a model with a spatial memory.

    bundle: its networks; those of the memory are trained already.  say: takes lines for the log.
    """

    def __init__(
        self,
        bundle: ModelBundle,
        train: Store,
        held_out: Store,
        plan: SpatialPlan,
        views: list[tuple[ViewSet, float]],
        held_views: Mapping[str, ViewSet],
        scene: ScenePool,
        say: Callable[[str], None] = lambda line: None,
        shard_bytes: int | None = None,
    ) -> None:
        """views: conditions of the training steps, and how often each set is drawn; shard_bytes: of exported weights,
        as `save_model` takes it."""
        assert bundle.memory is not None
        self.shard_bytes = shard_bytes
        self.bundle, self.store, self.held_out, self.plan, self.say = bundle, train, held_out, plan, say
        self.world, encoder = bundle.model, bundle.image_encoder
        assert isinstance(encoder, nn.Module)
        self.encoder: nn.Module = encoder
        self.discriminator: Discriminator | None = None
        networks: dict[str, nn.Module] = {"world": self.world, "image_encoder": self.encoder}
        if plan.adversarial_from < 1 and plan.copies == 2:
            c = self.world.config.latent[0]
            networks["discriminator"] = self.discriminator = Discriminator(c, 8 + 2 * c)
        self.model = nn.ModuleDict(networks)
        self.views, self.held_views, self.scene = [v for v, _ in views], held_views, scene
        share = np.array([weight for _, weight in views])
        self.shares = share / share.sum()
        self.pools = [self._clip_starts(view) for view in self.views]
        self.own: deque[Rollouts] = deque(maxlen=plan.own_kept)
        self.own_next, self.own_count = plan.own_from, 0
        self.shortcut_ratio = 0.0

    # ------------------------------------------------------------------------------------------------- batches

    def _clip_starts(self, view: ViewSet) -> tuple[np.ndarray, np.ndarray]:
        """Steps at which clips may begin, and those of them that begin sessions."""
        last = self.plan.clip_steps - 1
        steps = np.arange(max(0, self.store.count - last))
        inside = (view.start[steps] == view.start[steps + last]) & (
            self.store.episode[steps] == self.store.episode[steps + last]
        )
        steps = steps[inside]
        return steps, steps[view.start[steps] == steps]

    def _draw(self, rng: np.random.Generator, steps: np.ndarray, count: int) -> np.ndarray:
        """Steps, every game as often."""
        share = 1 / np.bincount(self.store.game[steps], minlength=len(self.store.games)).clip(1)[self.store.game[steps]]
        return rng.choice(steps, count, p=share / share.sum())

    def batch(self, rng: np.random.Generator) -> Batch:
        plan = self.plan
        view = int(rng.choice(len(self.views), p=self.shares))
        inside, openings = self.pools[view]
        opened = int(plan.openings * plan.batch) if len(openings) else 0
        index = self._draw(rng, inside, plan.batch - opened)
        if opened:
            index = np.concatenate([self._draw(rng, openings, opened), index])
        own = bool(rng.random() < plan.own_share)
        picks = torch.from_numpy(rng.random((2, plan.batch)).astype(np.float32))
        rollout = float(rng.random())
        return Batch(view=view, index=torch.from_numpy(index), is_own=own, rollout=rollout, picks=picks)

    def prefers_adamw(self, name: str) -> bool:
        names = ("patch_embedding", "head", "positions", "modulation", "image_encoder", "refine", "embedding")
        return any(part in name for part in (*names, "discriminator"))

    def lr_factor(self, name: str) -> float:
        return 0.4 if name.startswith("discriminator") else 1.0

    def tokens(self, batch: Batch) -> int:
        return self.plan.batch * (self.plan.clip_steps - 1) * 2 * self.bundle.config.world.tokens_per_step

    def data_size(self) -> int:
        return self.store.count

    # ------------------------------------------------------------------------------------------------- loss

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        if self.progress >= self.own_next and self.progress < 0.97:
            self.own_next += (1 - self.plan.own_from) / self.plan.own_times
            self._roll_out_own()
        clips = self._own_clips(batch, generator) if self.own and batch.is_own else self._clips(batch, generator)
        loss, errors, scalars = self._errors(clips, generator)
        return loss, {("own_mse" if clips.is_own else "clean_mse"): errors, **scalars}

    def _clips(self, batch: Batch, generator: torch.Generator) -> Clips:
        """Recorded clips."""
        context, parts, drawn, windows, start = recorded_clip(self.views[batch.view], batch.index, self.plan.clip_steps)
        parts = self._with_dropout(parts, drawn, context, generator)
        weight = torch.ones_like(context[:, 1:, 0])
        image = image_tokens(self.encoder, self.store, start)
        return Clips(context, context, context, parts, windows, image, weight, False)

    def _own_clips(self, batch: Batch, generator: torch.Generator) -> Clips:
        """Clips of own rollouts.  The target is the game's where the memory shows what was recorded, and the memory's
        view where it shows generated content, which must stay."""
        plan, t, picks = self.plan, self.plan.clip_steps, batch.picks
        rolled = self.own[int(batch.rollout * len(self.own))]
        row = (picks[0] * len(rolled.first)).long()
        offset = (picks[1] * (plan.own_steps - t + 1)).long()
        steps = offset[:, None] + torch.arange(t, device=row.device)
        first, start = rolled.first[row] + offset, rolled.first[row]
        context = rolled.z[row[:, None], steps].float()
        stored, drawn = rolled.parts[row[:, None], steps], rolled.drawn[row[:, None], steps]
        c, cover = context.shape[2], stored[:, :, :4].float().mean(2) * drawn[..., None, None]
        known = rolled.recorded[row[:, None], steps].float()
        recorded = self.store.z[first[:, None] + torch.arange(t, device=row.device)].float()
        target = torch.where((known >= cover - known)[:, :, None], recorded, stored[:, :, 4 : 4 + c].float())
        weight = (known + 0.3 * (cover - known).clamp(min=0))[:, 1:]
        parts = self._with_dropout(stored, drawn, context, generator)
        image = image_tokens(self.encoder, self.store, start)
        windows = action_windows(self.store, first, start, t)
        return Clips(context, target, recorded, parts, windows, image, weight, True)

    def _with_dropout(
        self, parts: Tensor, drawn: Tensor, context: Tensor, generator: torch.Generator
    ) -> ConditionChannels:
        """Whole conditions; some clips have no memory."""
        drawn = drawn & (self._rand(generator, len(context), 1) >= self.plan.dropout)
        return with_previous(torch.where(drawn[..., None, None, None], parts, 0.0), drawn, context)

    def _rand(self, generator: torch.Generator, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=self.device)

    def _noise(self, like: Tensor, generator: torch.Generator) -> Tensor:
        return torch.randn(like.shape, generator=generator, device=like.device)

    def _errors(self, clips: Clips, generator: torch.Generator) -> tuple[Tensor, Tensor, dict[str, Tensor | float]]:
        """The loss, the squared error of flow matching alone, and figures for the log."""
        plan = self.plan
        b, t = clips.context.shape[:2]
        levels = plan.context_noise * self._rand(generator, b, t)
        seen = sampling.add_noise(clips.context, self._noise(clips.context, generator), levels)
        clean = clips.target[:, 1:]
        sigma = draw_noise_levels((b, t - 1), plan.pure_noise, generator)
        step = torch.full_like(sigma, smallest_step(self.world))
        noisy = sampling.add_noise(clean, self._noise(clean, generator), sigma)
        goal, weight = clean, clips.weight
        judge = self.discriminator if self.progress >= plan.adversarial_from else None
        shortcut = judge is None and self._learns_shortcuts()
        if plan.copies == 2:
            large_step, large_sigma = draw_large_steps((b, t - 1), self.world.config.step_sizes, generator)
            if judge is not None:
                large_step, large_sigma = torch.ones_like(sigma), torch.ones_like(sigma)
            large = sampling.add_noise(clean, self._noise(clean, generator), large_sigma)
            second, second_weight = clean, clips.weight
            if shortcut:
                with torch.no_grad(), torch.compiler.set_stance("force_eager"):
                    second = self._two_half_steps(clips, seen, levels, large, large_sigma, large_step)
                second_weight = torch.full_like(weight, plan.shortcut_weight)
            noisy, sigma = torch.cat([noisy, large], 1), torch.cat([sigma, large_sigma], 1)
            step, goal = torch.cat([step, large_step], 1), torch.cat([clean, second], 1)
            weight = torch.cat([weight, second_weight], 1)
        estimated = estimate(self.world, clips, seen, levels, noisy, sigma, step).float()
        error = (estimated - goal).square().mean(2)
        loss = ((error * weight).mean((2, 3)) * _importance(sigma)).mean()
        scalars: dict[str, Tensor | float] = {}
        if shortcut:
            apart = error[:, t - 1 :].detach().mean() / error[:, : t - 1].detach().mean()
            self.shortcut_ratio += 0.2 * (apart.item() - self.shortcut_ratio)
            scalars["shortcut_ratio"] = self.shortcut_ratio
        if judge is not None:
            judged, scalars = self._judged(judge, estimated[:, t - 1 :], clips, generator)
            loss = loss + judged
        return loss, error[:, : t - 1].detach().mean(), scalars

    def _judged(
        self, judge: Discriminator, estimated: Tensor, clips: Clips, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """The discriminator's part of the loss, for one-step estimates (b, t - 1, c, u, v) of steps 1 .. t - 1.

        Its gradient at the estimates is brought to `adversarial_weight` times the length of the squared error's.  On
        own contexts it judges steps without their conditions: by these it could separate them from the game's.
        """
        plan = self.plan
        chosen = torch.randperm(estimated.shape[1], generator=generator, device=self.device)[: plan.judged_steps]
        real, fake = clips.recorded[:, 1:][:, chosen].flatten(0, 1), estimated[:, chosen].flatten(0, 1)
        condition = clips.parts.channels[:, 1:][:, chosen].flatten(0, 1)
        known = self._rand(generator, len(condition), 1, 1, 1) >= (1.0 if clips.is_own else 0.3)
        condition = condition * known
        own_loss, lead = discriminator_loss(judge, real, fake, condition, plan.penalty)
        slope = towards_real(judge, real, fake, condition)
        squared = 2 * _importance(torch.ones(())) * (fake - real).detach() / (2 * estimated.numel())
        strength = (self.progress - plan.adversarial_from) / max(1e-6, plan.adversarial_full - plan.adversarial_from)
        scale = plan.adversarial_weight * min(1.0, strength) * squared.norm() / slope.norm().clamp(min=1e-12)
        pull = (fake * (slope * scale)).sum()
        return own_loss + pull - pull.detach(), {"judge_loss": own_loss.detach(), "judge_lead": lead}

    def _learns_shortcuts(self) -> bool:
        """Decides whether this batch's second copy learns larger steps.

        It does not if two half steps differ from one by nearly as much as the model from the game: then they teach
        nothing.
        """
        if (
            self.world.config.step_sizes < 2
            or self.plan.copies < 2
            or self.progress < self.plan.shortcut_from
            or self.shortcut_ratio > 0.5
        ):
            return False
        return bool(np.random.default_rng(self.step_seed).random() < self.plan.shortcut_share)

    def _two_half_steps(
        self, clips: Clips, seen: Tensor, levels: Tensor, x: Tensor, sigma: Tensor, step: Tensor
    ) -> Tensor:
        """The clean latent to which two steps of half the size lead, along their mean velocity."""
        half = step / 2

        def velocity(at: Tensor, level: Tensor) -> Tensor:
            clean = estimate(self.world, clips, seen, levels, at, level, half)
            return (at - clean.float().clamp(-8, 8)) / level[..., None, None, None]

        first = velocity(x, sigma)
        middle = x - first * half[..., None, None, None]
        mean = (first + velocity(middle, sigma - half)) / 2
        return x - mean * sigma[..., None, None, None]

    # ------------------------------------------------------------------------------------------------- rollouts

    @torch.no_grad()
    def _roll_out_own(self) -> None:
        """Own rollouts for contexts, by turns in scenes and on single images."""
        plan, store = self.plan, self.store
        rng = np.random.default_rng(int(self.progress * 1e6))
        steps = np.arange(store.count - plan.own_steps)
        steps = steps[store.episode[steps] == store.episode[steps + plan.own_steps - 1]]
        if not len(steps):
            return
        first = self._draw(rng, steps, plan.own_sessions)
        scene = None
        if self.own_count % 2 == 0:
            names = [store.places[p] for p in store.place[first]]
            scene = self.scene.candidates(names, torch.from_numpy(store.episode[first]).to(store.device))
        self.own_count += 1
        self.model.eval()
        with torch.compiler.set_stance("force_eager"):
            rolled = roll_out(self.bundle, store, first, plan.own_steps, plan.schedule, scene)
        self.model.train()
        self.own.append(replace(rolled, z=rolled.z.half(), parts=rolled.parts.half(), recorded=rolled.recorded.half()))
        begin = torch.from_numpy(first).to(store.device)
        true = store.z[begin[:, None] + torch.arange(plan.own_steps, device=store.device)].float()
        error = (rolled.z - true).square().mean((0, 2, 3, 4))
        spread = rolled.z.std((-2, -1)).mean((0, 2)) / true.std((-2, -1)).mean((0, 2))
        at = [i for i in (1, 4, 8, 16, 31) if i < plan.own_steps]
        self.say(
            f"own rollouts {'in scenes' if scene is not None else 'on images'}, progress {self.progress:.2f}: "
            + ", ".join(f"step {i} error {error[i]:.3f} spread {spread[i]:.2f}" for i in at)
        )

    # ------------------------------------------------------------------------------------------------- figures

    def validate(self) -> dict[str, float]:
        with torch.compiler.set_stance("force_eager"):
            figures, means = held_out_figures(self.bundle, self.held_views, self.plan.clip_steps)
        self.say("held out: " + ", ".join(f"{k} {v:.3f}" for k, v in figures.items()))
        return means

    def export_so_far(self, folder: Path, summary: dict[str, Any]) -> None:
        """The model folder so far.  What squared error made alone stays beside what the discriminator made of it."""
        if self.discriminator is not None and self.progress < self.plan.adversarial_from:
            self._save(folder / "model-before-discriminator", summary)
        self._save(folder / "model", summary)

    def export(self, folder: Path, summary: dict[str, Any]) -> None:
        """The finished model folder, at `folder`/model."""
        self._save(folder / "model", summary)

    def _save(self, folder: Path, summary: dict[str, Any]) -> None:
        config = replace(self.bundle.config, schedule=self.plan.schedule, summary=summary)
        replace_model(folder, replace(self.bundle, config=config), shard_bytes=self.shard_bytes)


def _importance(sigma: Tensor) -> Tensor:
    """Weights of squared errors of clean estimates at noise levels."""
    return 0.7 * (1 - sigma) + 0.3
