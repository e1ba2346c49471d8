"""The world model's training with a spatial memory.

Teacher-forced as sampling is: a lightly noised copy of a clip gives keys and values, noisy copies of its steps see it.
One copy learns flow matching at the smallest step size, the other to do in one step what two of half the size do
(shortcut forcing, Dreamer 4, arXiv 2509.24527, section 3.2), so that one training gives 1, 2, 4 and 8 passes.  The loss
is in x-space.  Some contexts are the model's own rollouts; their targets count only where the memory covers the view,
because elsewhere the game could not be known and the mean would be learnt.

Legend: b batch, t steps of a clip, (c u v) a latent step, a numbers in an action row.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reverie import flow
from reverie.models.checkpoint import ModelBundle, save_model
from reverie.models.conditioning.spatial_memory import window_of
from reverie.models.pixels import to_bytes, to_pixels
from reverie.models.schedule import Schedule
from reverie.models.state import Condition, ConditionChannels
from reverie.nn.attention import Visibility
from reverie.scenes.keyframes import Candidates
from reverie.train.loop import Task
from reverie.train.spatial.store import Store, half_size, psnr
from reverie.train.spatial.views import ScenePool, ViewPlan, ViewSet, with_previous


@dataclass(frozen=True, slots=True, kw_only=True)
class SpatialPlan:
    """How a model with a spatial memory is trained.

    copies: 1 (flow matching alone) or 2 (larger steps too); pure_noise: share of noise levels that are exactly 1, where
    every block begins; clip_steps: latent steps of a clip; context_noise: the most noise that contexts get; openings:
    share of clips that begin at a session's start; dropout: share of clips without memory; shortcut_from,
    shortcut_share: progress from which on, and share of batches in which the second copy learns larger steps;
    shortcut_weight: of its loss; own_from, own_share: progress from which on, and share of batches whose contexts are
    own rollouts; own_sessions, own_steps: size of a rollout; own_kept: rollouts kept; own_times: rollouts in all.
    """

    batch: int = 64
    copies: int = 2
    pure_noise: float = 0.2
    clip_steps: int = 13
    context_noise: float = 0.25
    openings: float = 0.25
    dropout: float = 0.04
    shortcut_from: float = 0.35
    shortcut_share: float = 0.5
    shortcut_weight: float = 0.5
    own_from: float = 0.4
    own_share: float = 0.35
    own_sessions: int = 128
    own_steps: int = 32
    own_kept: int = 4
    own_times: int = 3
    schedule: Schedule = Schedule((1.0,), context_sigma=0.06)  # noqa: RUF009  # frozen


@dataclass(frozen=True, slots=True)
class _Rollouts:
    """Own rollouts: first steps (s,), latents (s, t, c, u, v) and parts of their conditions as `ViewSet` has them."""

    first: Tensor
    z: Tensor
    parts: Tensor
    drawn: Tensor


class SpatialTask(Task):
    """Batches, loss, figures, rollouts and export of a model with a spatial memory.

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
        say: Callable[[str], None] = print,
    ) -> None:
        """views: conditions of the training steps, and how often each set is drawn."""
        assert bundle.memory is not None
        self.bundle, self.store, self.held_out, self.plan, self.say = bundle, train, held_out, plan, say
        self.world, self.memory, self.encoder = bundle.model, bundle.memory, bundle.image_encoder
        assert isinstance(self.encoder, nn.Module)
        self.model = nn.ModuleDict({"world": self.world, "image_encoder": self.encoder})
        self.views, self.held_views, self.scene = [v for v, _ in views], held_views, scene
        share = np.array([weight for _, weight in views])
        self.shares = share / share.sum()
        self.pools = [self._clip_starts(view) for view in self.views]
        self.own: deque[_Rollouts] = deque(maxlen=plan.own_kept)
        self.own_next = plan.own_from
        self.shortcut_ratio = 0.0
        self.window = bundle.config.world.window

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

    def batch(self, rng: np.random.Generator) -> dict[str, Any]:
        """Which clips: latents and conditions are on the device already."""
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
        return {"view": view, "index": torch.from_numpy(index), "own": own, "rollout": rollout, "picks": picks}

    def prefers_adamw(self, name: str) -> bool:
        names = ("patch_embedding", "head", "positions", "modulation", "image_encoder", "refine", "embedding")
        return any(part in name for part in names)

    def compile(self) -> None:
        from reverie.models.pieces import compile_pieces

        torch._dynamo.config.recompile_limit = 64
        self.say(f"{compile_pieces(self.world)} compiled pieces")

    def tokens(self, batch: Any) -> int:
        return self.plan.batch * (self.plan.clip_steps - 1) * 2 * self.bundle.config.world.tokens_per_step

    def data_size(self) -> int:
        return self.store.count

    # ------------------------------------------------------------------------------------------------- loss

    def windows(self, store: Store, first: Tensor, start: Tensor, count: int) -> Tensor:
        """Action windows of steps first .. first + count - 1: (b, count, 12, a); idle before a session's start."""
        steps = first[:, None] + torch.arange(count, device=first.device)
        parts = []
        for back in (2, 1, 0):
            at = steps - back
            alive = at > start[:, None]
            parts.append(store.actions[at.clamp(0, store.count - 1)] * alive[..., None, None])
        return torch.cat(parts, 2)

    def image_tokens(self, store: Store, start: Tensor) -> Tensor:
        return self.encoder(to_pixels(store.views[start, 3]))

    def clip(self, view: ViewSet, index: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Latents, parts and drawn of recorded clips, their action windows and their sessions' starts."""
        store, t = view.store, self.plan.clip_steps
        start = view.start_on_device[index]
        steps = index[:, None] + torch.arange(t, device=index.device)
        z = store.z[steps].float()
        opens = (index == start).view(-1, 1, 1, 1)
        z[:, 0] = torch.where(opens, store.still[index].float(), z[:, 0])
        return z, view.parts[steps], view.drawn[steps], self.windows(store, index, start, t), start

    def loss(self, batch: Any, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        plan, t = self.plan, self.plan.clip_steps
        if self.progress >= self.own_next and self.progress < 0.97:
            self.own_next += (1 - plan.own_from) / plan.own_times
            self._roll_out_own()
        own = bool(self.own) and batch["own"]
        picks = batch["picks"]
        if own:
            rolled = self.own[int(batch["rollout"] * len(self.own))]
            row = (picks[0] * len(rolled.first)).long()
            offset = (picks[1] * (plan.own_steps - t + 1)).long()
            steps = offset[:, None] + torch.arange(t, device=row.device)
            first, start = rolled.first[row] + offset, rolled.first[row]
            context = rolled.z[row[:, None], steps].float()
            target = self.store.z[first[:, None] + torch.arange(t, device=row.device)].float()
            parts, drawn = rolled.parts[row[:, None], steps], rolled.drawn[row[:, None], steps]
            windows = self.windows(self.store, first, start, t)
        else:
            view = self.views[batch["view"]]
            context, parts, drawn, windows, start = self.clip(view, batch["index"])
            target = context
        drawn = drawn & (self._rand(generator, len(context), 1) >= plan.dropout)
        parts = torch.where(drawn[..., None, None, None], parts, torch.zeros_like(parts))
        cover = parts[:, 1:, :4].float().mean(2)
        weight = 0.05 + 0.95 * cover if own else torch.ones_like(cover)
        image = self.image_tokens(self.store, start)
        error, sigma = self._errors(
            context, target, with_previous(parts, drawn, context), windows, image, weight, generator
        )
        loss = (error * (0.7 * (1 - sigma) + 0.3)).mean()
        flow_error = error[:, : t - 1].detach().mean()
        return loss, {("own_mse" if own else "clean_mse"): flow_error, "shortcut_ratio": self.shortcut_ratio}

    def _rand(self, generator: torch.Generator, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=self.device)

    def _noise(self, like: Tensor, generator: torch.Generator) -> Tensor:
        return torch.randn(like.shape, generator=generator, device=like.device)

    def _errors(
        self,
        context: Tensor,
        target: Tensor,
        parts: ConditionChannels,
        windows: Tensor,
        image: Tensor,
        weight: Tensor,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        """Squared errors (b, 2 (t - 1)) of clean estimates: of flow matching, then of larger steps; noise levels."""
        b, t = context.shape[:2]
        levels = self.plan.context_noise * self._rand(generator, b, t)
        seen = flow.add_noise(context, self._noise(context, generator), levels)
        clean = target[:, 1:]
        smallest = 0.5 ** (self.world.config.step_sizes - 1)
        sigma = self._rand_levels((b, t - 1), generator)
        noisy = flow.add_noise(clean, self._noise(clean, generator), sigma)
        step = torch.full_like(sigma, smallest)
        if self.plan.copies == 1:
            estimate = self.estimate(seen, levels, noisy, sigma, step, parts, windows, image)
            return ((estimate.float() - clean).square().mean(2) * weight).mean((2, 3)), sigma
        shortcut = self._learns_shortcuts()
        if shortcut:
            large_step, large_sigma = self._large_steps((b, t - 1), generator)
            large = flow.add_noise(clean, self._noise(clean, generator), large_sigma)
            with torch.no_grad(), torch.compiler.set_stance("force_eager"):
                goal = self._two_half_steps(seen, levels, large, large_sigma, large_step, parts, windows, image)
        else:
            large_step, large_sigma = step, self._rand_levels((b, t - 1), generator)
            large, goal = flow.add_noise(clean, self._noise(clean, generator), large_sigma), clean
        noisy, sigma = torch.cat([noisy, large], 1), torch.cat([sigma, large_sigma], 1)
        step = torch.cat([step, large_step], 1)
        estimate = self.estimate(seen, levels, noisy, sigma, step, parts, windows, image)
        error = (estimate.float() - torch.cat([clean, goal], 1)).square().mean(2)
        if shortcut:
            apart = error[:, t - 1 :].detach().mean() / error[:, : t - 1].detach().mean()
            self.shortcut_ratio += 0.2 * (apart.item() - self.shortcut_ratio)
        second = torch.full_like(weight, self.plan.shortcut_weight) if shortcut else weight
        return (error * torch.cat([weight, second], 1)).mean((2, 3)), sigma

    def _learns_shortcuts(self) -> bool:
        """Whether this batch's second copy learns larger steps: not where two half steps disagree with one by nearly as
        much as the model with the game, for then they teach nothing."""
        if (
            self.world.config.step_sizes < 2
            or self.plan.copies < 2
            or self.progress < self.plan.shortcut_from
            or self.shortcut_ratio > 0.5
        ):
            return False
        return bool(np.random.default_rng(self.step_seed).random() < self.plan.shortcut_share)

    def _rand_levels(self, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Logit-normal noise levels moved towards 1, some of them at exactly 1."""
        s = torch.randn(*shape, generator=generator, device=self.device).sigmoid()
        s = 3 * s / (1 + 2 * s)
        return torch.where(self._rand(generator, *shape) < self.plan.pure_noise, torch.ones_like(s), s)

    def _large_steps(self, shape: tuple[int, int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Step sizes above the smallest, the largest most often, and noise levels on their grids."""
        halvings = self.world.config.step_sizes - 1
        share = torch.tensor([0.5 ** (i + 1) for i in range(halvings)], device=self.device)
        bounds = (share / share.sum()).cumsum(0)[:-1]
        power = torch.bucketize(self._rand(generator, *shape), bounds)
        step = 0.5 ** power.float()
        count = (2.0**power).round()
        sigma = 1 - (self._rand(generator, *shape) * count).floor().clamp(max=count - 1) * step
        return step, sigma

    def _two_half_steps(
        self,
        seen: Tensor,
        levels: Tensor,
        x: Tensor,
        sigma: Tensor,
        step: Tensor,
        parts: ConditionChannels,
        windows: Tensor,
        image: Tensor,
    ) -> Tensor:
        """The clean latent to which two steps of half the size lead, along their mean velocity."""
        half = step / 2

        def velocity(at: Tensor, level: Tensor) -> Tensor:
            estimate = self.estimate(seen, levels, at, level, half, parts, windows, image)
            return (at - estimate.float().clamp(-8, 8)) / level[..., None, None, None]

        first = velocity(x, sigma)
        middle = x - first * half[..., None, None, None]
        mean = (first + velocity(middle, sigma - half)) / 2
        return x - mean * sigma[..., None, None, None]

    def estimate(
        self,
        seen: Tensor,
        levels: Tensor,
        noisy: Tensor,
        sigma: Tensor,
        step: Tensor,
        parts: ConditionChannels,
        windows: Tensor,
        image: Tensor,
    ) -> Tensor:
        """Clean estimates of noisy copies (b, k (t - 1), c, u, v) of steps 1 .. t - 1, given the noised context."""
        t = seen.shape[1]
        copies = noisy.shape[1] // (t - 1)
        steps = torch.arange(t, device=seen.device)
        cond = Condition(parts.channels, windows, steps, parts.base, image)
        cond = cond.select(torch.cat([steps[: t - 1], steps[1:].repeat(copies)]))
        visibility = Visibility.teacher_forced(t, self.window, given=1, copies=copies)
        x, s = torch.cat([seen[:, : t - 1], noisy], 1), torch.cat([levels[:, : t - 1], sigma], 1)
        smallest = torch.full_like(levels[:, : t - 1], 0.5 ** max(0, self.world.config.step_sizes - 1))
        d = torch.cat([smallest, step], 1)
        return self.world(x, s, cond, visibility=visibility, step_size=d)[:, t - 1 :]

    # ------------------------------------------------------------------------------------------------- rollouts

    @torch.no_grad()
    def roll_out(
        self,
        store: Store,
        first: np.ndarray,
        steps: int,
        schedule: Schedule,
        scene: Candidates | None,
        own_camera: bool = False,
        keep_frames: bool = False,
        seed: int = 3,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Generates along recorded actions from the still frames of steps `first`.

        own_camera: poses from the ego-motion network, not the recording's.  Returns latents (s, t, c, u, v), parts
        (s, t, 8 + c, u, v), drawn (s, t), and frames (s, f, 3, H, W) uint8 or None.
        """
        device, count = store.device, len(first)
        begin = torch.from_numpy(first).to(device)
        tokenizer, memory, world = self.bundle.tokenizer, self.memory, self.world
        size = (store.last.shape[-2], store.last.shape[-1])
        state = world.new_state(count, device, torch.bfloat16 if device.type == "cuda" else torch.float32)
        decoder = tokenizer.new_decoder_state(count, *size, device)
        keyframes = memory.init_state(count, size, device)
        generator = torch.Generator(device).manual_seed(seed)
        z = store.still[begin].float()
        latents, packed, drawn, frames = [z], [], [], []
        c = z.shape[1]
        with store.autocast():
            flow.begin(world, z[:, None], self.image_tokens(store, begin), schedule, state, generator)
            shown = tokenizer.decode(z[:, None], decoder).float()
            memory.open(keyframes, shown[:, -1], store.pose[begin, 3], store.fov_deg[begin], store.pixel_aspect[begin])
            packed.append(torch.zeros(count, 8 + c, *z.shape[2:], device=device))
            drawn.append(torch.zeros(count, dtype=torch.bool, device=device))
            frames.append(shown)
            for t in range(1, steps):
                rows = store.actions[begin + t]
                window = window_of(state.actions, rows)
                poses = None if own_camera else store.pose[begin + t]
                step = memory.next(keyframes, state.last, window, scene, poses)
                z = flow.advance(world, rows, schedule, state, generator, step.parts).float()[:, 0].clamp(-8, 8)
                shown = tokenizer.decode(z[:, None], decoder).float()
                memory.commit(keyframes, step, shown)
                channels = step.parts.channels[:, 0].float()
                packed.append(torch.cat([channels[:, : 4 + c], channels[:, 4 + 2 * c :]], 1))
                drawn.append((step.view.cover > 0).flatten(1).any(1))
                latents.append(z)
                if keep_frames:
                    frames.append(shown)
        film = to_bytes(torch.cat(frames, 1)) if keep_frames else None
        return torch.stack(latents, 1), torch.stack(packed, 1), torch.stack(drawn, 1), film

    def _roll_out_own(self) -> None:
        """Own rollouts in scenes, for contexts."""
        plan, store = self.plan, self.store
        rng = np.random.default_rng(int(self.progress * 1e6))
        steps = np.arange(store.count - plan.own_steps)
        steps = steps[store.episode[steps] == store.episode[steps + plan.own_steps - 1]]
        if not len(steps):
            return
        first = self._draw(rng, steps, plan.own_sessions)
        names = [store.places[p] for p in store.place[first]]
        scene = self.scene.candidates(names, torch.from_numpy(store.episode[first]).to(store.device))
        passes = int(rng.choice([1, 1, 2]))
        schedule = replace(plan.schedule, sigmas=tuple(1 - i / passes for i in range(passes)))
        self.model.eval()
        with torch.compiler.set_stance("force_eager"):
            z, parts, drawn, _ = self.roll_out(store, first, plan.own_steps, schedule, scene)
        self.model.train()
        begin = torch.from_numpy(first).to(store.device)
        self.own.append(_Rollouts(begin, z.half(), parts.half(), drawn))
        true = store.z[begin[:, None] + torch.arange(plan.own_steps, device=store.device)].float()
        error = (z - true).square().mean((0, 2, 3, 4))
        at = [i for i in (1, 4, 8, 16, 31) if i < plan.own_steps]
        self.say(
            f"own rollouts, {passes} passes, progress {self.progress:.2f}: error at step "
            + ", ".join(f"{i}: {error[i]:.3f}" for i in at)
        )

    # ------------------------------------------------------------------------------------------------- figures

    def validate(self) -> dict[str, float]:
        """On held-out clips: the error of a step from noise in one pass of the smallest and of the largest size, the
        memory's view alone, and the step before; in a scene and from one image."""
        figures: dict[str, float] = {}
        with torch.compiler.set_stance("force_eager"):
            for kind, view in self.held_views.items():
                for number, game in enumerate(self.held_out.games):
                    found = self._validate_game(view, number)
                    if found:
                        figures |= {f"{kind}_{game}_{name}": value for name, value in found.items()}
        self.say("held out: " + ", ".join(f"{k} {v:.3f}" for k, v in figures.items()))
        means = {}
        for name in sorted({key.split("_", 2)[2] for key in figures}):
            for kind in self.held_views:
                values = [v for k, v in figures.items() if k.startswith(f"{kind}_") and k.split("_", 2)[2] == name]
                means[f"{kind}_{name}"] = float(np.mean(values))
        return means

    def _validate_game(self, view: ViewSet, game: int, count: int = 32) -> dict[str, float]:
        store, t = view.store, self.plan.clip_steps
        last = t - 1
        steps = np.arange(max(0, store.count - last))
        good = (view.start[steps] == view.start[steps + last]) & (store.episode[steps] == store.episode[steps + last])
        steps = steps[good & (store.game[steps] == game)]
        if not len(steps):
            return {}
        steps = steps[:: max(1, len(steps) // count)][:count]
        generator = torch.Generator(self.device).manual_seed(0)
        sums: dict[str, list[float]] = {}
        for part in np.array_split(steps, max(1, len(steps) // 16)):
            context, parts, drawn, windows, start = self.clip(view, torch.from_numpy(part).to(self.device))
            packed = with_previous(parts, drawn, context)
            levels = torch.full(context.shape[:2], 0.06, device=self.device)
            seen = flow.add_noise(context, self._noise(context, generator), levels)
            with store.autocast():
                image = self.image_tokens(store, start)
                for name, size in (("mse", 0.5 ** max(0, self.world.config.step_sizes - 1)), ("one_step_mse", 1.0)):
                    sigma = torch.ones(len(context), t - 1, device=self.device)
                    noise = self._noise(context[:, 1:], generator)
                    out = self.estimate(seen, levels, noise, sigma, sigma * size, packed, windows, image)
                    sums.setdefault(name, []).append((out.float() - context[:, 1:]).square().mean().item())
            assert packed.base is not None
            sums.setdefault("memory_mse", []).append((packed.base[:, 1:] - context[:, 1:]).square().mean().item())
            repeat = (context[:, 1:] - context[:, :-1]).square().mean().item()
            sums.setdefault("repeat_mse", []).append(repeat)
        return {name: float(np.mean(values)) for name, values in sums.items()}

    def sample(self, folder: Path, step: int) -> None:
        """The averaged weights so far, as a model folder: a run that is cut off loses little."""
        self.export(folder.parent, {"steps": step, "progress": round(self.progress, 3)})

    # ------------------------------------------------------------------------------------------------- export

    def export(self, folder: Path, summary: dict[str, Any]) -> None:
        """The finished model folder, at `folder`/model."""
        config = replace(self.bundle.config, schedule=self.plan.schedule, summary=summary)
        save_model(folder / "model", replace(self.bundle, config=config))

    @torch.no_grad()
    def sheets(self, folder: Path, steps: int, seeds: int = 2, scene_pool: ScenePool | None = None) -> dict[str, Any]:
        """Contact sheets of held-out play, rows of the game, in a scene, and from one image, with PSNR and sharpness.

        Called with the averaged weights.
        """
        from PIL import Image

        store = self.held_out
        chosen: list[int] = []
        for number in range(len(store.games)):
            firsts = [
                f
                for f, end in zip(store.first[:-1], store.first[1:], strict=True)
                if store.game[f] == number and end - f >= min(steps, 40)
            ]
            chosen += firsts[:seeds]
        figures: dict[str, Any] = {}
        first = np.array(chosen)
        ends = np.array([store.first[int(store.episode[f]) + 1] for f in first])
        steps = int(min(steps, (ends - first).min()))
        rows: dict[int, list[Tensor]] = {i: [] for i in range(len(first))}
        pick = [i for i in (0, 8, 16, 24, 36, 48, 64, 96, 128, 192, 256, 320, 396) if i < 4 * steps - 3]
        true = torch.cat([store.views[f : f + steps].flatten(0, 1)[None, 3:] for f in first])
        names = [store.places[p] for p in store.place[first]]
        candidates = (scene_pool or self.scene).candidates(names, None)
        for kind, passes, scene, camera in (
            ("scene1", 1, candidates, False),
            ("scene1-own-camera", 1, candidates, True),
            ("image1", 1, None, False),
            ("image4", 4, None, False),
        ):
            schedule = replace(self.plan.schedule, sigmas=tuple(1 - i / passes for i in range(passes)))
            *_, film = self.roll_out(store, first, steps, schedule, scene, camera, keep_frames=True)
            assert film is not None
            for i, f in enumerate(first):
                game = store.games[store.game[f]]
                one = half_size(film[i])
                there = to_pixels(true[i])
                errors = [psnr((one[p] - there[p]).square().mean().item()) for p in pick]
                sharp = [(_sharpness(one[p]) / _sharpness(there[p])) for p in pick]
                figures.setdefault(kind, []).append(
                    {"game": game, "psnr": [round(x, 1) for x in errors], "sharp": [round(x, 2) for x in sharp]}
                )
                if kind in ("scene1", "scene1-own-camera", "image1", "image4"):
                    rows[i].append(torch.cat([one[p].cpu() for p in pick], 2))
        lines = []
        for i in range(len(first)):
            lines.append(torch.cat([to_pixels(true[i, p]).cpu() for p in pick], 2))
            lines += rows[i]
        sheet = ((torch.cat(lines, 1) + 1) * 127.5).clamp(0, 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(sheet).save(folder / "sheet.jpg", quality=85)
        still = {
            store.games[store.game[f]]: [
                round(psnr((true[i, p].float() / 127.5 - true[i, 0].float() / 127.5).square().mean().item()), 1)
                for p in pick
            ]
            for i, f in enumerate(first)
        }
        figures["still"] = still
        figures["frames"] = pick
        (folder / "sheet.json").write_text(json.dumps(figures, indent=0))
        return figures


def _sharpness(frame: Tensor) -> float:
    """Mean absolute difference of neighbouring pixels."""
    return max((frame[..., 1:] - frame[..., :-1]).abs().mean().item(), 1e-6)


def standard_views(
    store: Store,
    held_out: Store,
    bundle: ModelBundle,
    per_place: int,
    say: Callable[[str], None],
    half_known: bool = True,
) -> tuple[list[tuple[ViewSet, float]], dict[str, ViewSet], ScenePool]:
    """Conditions to train with: whole scenes, half-known scenes (other keyframes), and single images."""
    memory = bundle.memory
    assert memory is not None
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
