"""Distillation: a many-step teacher becomes a few-step student that does not drift.

    reverie distill init --teacher runs/teacher/model --data REC -o runs/init       # a few steps, teacher-forced
    reverie distill dmd  --teacher runs/teacher/model --student runs/init/model --data REC -o runs/student

`init` starts the student, a copy of the teacher, in one of two ways.  `ode`: the teacher's straight-path solutions from
noise are worked out, and the student learns their ends from what stands at its own few levels (CausVid, arXiv
2412.07772).  `consistency`: no solutions; what the student makes at a level must equal what it makes a little further
down the teacher's path (arXiv 2303.01469).

`dmd` lets the student roll out on its own ring, through `flow.denoise`, and moves what it makes along the difference of
two scores, the frozen teacher's and that of a critic which keeps learning what the student makes (distribution
matching, arXiv 2311.18828; under its own rollouts: Self-Forcing, arXiv 2506.08009).  Both are asked as teacher forcing
asks, for each step given the student's own steps before it.  Gradients flow through one random pass of each block, and
not through the ring.  Actions are drawn from recorded play, whatever picture they were recorded with.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from torch import Tensor, nn

from reverie import flow
from reverie.errors import TrainError
from reverie.flow import Schedule, add_noise
from reverie.models.checkpoint import ModelBundle, load_model, save_model
from reverie.models.dit import WorldModel
from reverie.models.pixels import to_pixels
from reverie.models.schedule import shifted
from reverie.models.state import Condition, WorldState
from reverie.models.tokenizer import VideoTokenizer
from reverie.train.forcing import Guided, Past, clean_estimates, count_tokens, follow, noise_like, noised_context
from reverie.train.latents import Clips, load_clips
from reverie.train.loop import Task, Trainer, pick_device, trainer_config, use_malloc_hints
from reverie.train.rollout import SCRIPTS, roll_out, save_sheet, script_rows

SMALLEST_SIGMA = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillConfig:
    """What both stages have in common.

    teacher: a model folder.  data, held_out: datasets of its games.  latents: where encoded recordings are kept, to
    share them between runs (default: in the run's folder).  sigmas, context_sigma: the student's schedule; it
    renoises between passes.  guidance: the teacher's; 1 is none.  context_noise: the most noise that context gets.
    trust, canvas: of the finished student, as `reverie train world` has them (default: the teacher's); the student
    learns with the teacher's.
    """

    teacher: Path
    data: tuple[Path, ...]
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    held_out: tuple[Path, ...] = ()
    latents: Path | None = None
    student: Path | None = None
    name: str = "student"
    sigmas: tuple[float, ...] = (1.0, 0.6)
    context_sigma: float = 0.06
    guidance: float = 1.0
    context_noise: float = 0.25
    trust: float | None = None
    canvas: bool | None = None
    shift: float = 3.0
    max_hours: float | None = None
    held_out_hours: float = 0.1
    minutes: float | None = None
    steps: int | None = None
    batch: int = 4
    clip_steps: int = 8
    lr: float = 1e-4
    warmup_steps: int = 20
    muon: bool = False
    ema: float = 0.99
    decay: float = 0.3
    seed: int = 0
    device: str = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"
    accumulate: int = 1
    shard: bool = False
    remat: bool = False
    checkpoint_minutes: float = 4.0
    validate_minutes: float = 8.0

    def __post_init__(self) -> None:
        if self.batch < 1 or self.clip_steps < 2:
            raise TrainError(f"expected batch >= 1 and clip_steps >= 2, got {self.batch} and {self.clip_steps}")
        Schedule(self.sigmas, renoise=True)  # says what is wrong with the levels


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillInitConfig(DistillConfig):
    """Start a few-step student from a many-step teacher.

    Example: reverie distill init --teacher runs/teacher/model --data rec -o runs/init --minutes 20

    method: ode or consistency.  teacher_steps: of the teacher's path from noise.
    """

    method: Literal["ode", "consistency"] = "ode"
    teacher_steps: int = 12

    def run(self) -> dict[str, float]:
        """Train; returns the figures on the held-out data."""
        return _run(self, InitTask)


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillDmdConfig(DistillConfig):
    """Teach a few-step student under its own rollouts.

    Example: reverie distill dmd --teacher runs/teacher/model --student runs/init/model --data rec -o runs/student

    rollout_blocks: blocks of a rollout, which may be longer than the clips that the teacher judges (clip_steps).
    critic_updates: of the critic for each of the student's.  critic_lr: the critic's rate, as a multiple of lr.
    critic_first: share of the budget in which only the critic learns: until it knows the student, its score says
    nothing.  still: share of rollouts in which nothing is done.
    """

    rollout_blocks: int = 10
    critic_updates: int = 4
    critic_lr: float = 5.0
    critic_first: float = 0.1
    still: float = 0.1
    lr: float = 2e-5

    def __post_init__(self) -> None:
        super(DistillDmdConfig, self).__post_init__()
        if self.rollout_blocks < 1 or self.critic_updates < 1:
            raise TrainError(
                "expected rollout_blocks and critic_updates of at least 1, "
                f"got {self.rollout_blocks} and {self.critic_updates}"
            )
        if self.critic_lr <= 0 or not 0 <= self.critic_first < 1:
            raise TrainError(
                f"expected critic_lr > 0 and 0 <= critic_first < 1, got {self.critic_lr} and {self.critic_first}"
            )

    def run(self) -> dict[str, float]:
        """Train; returns the figures on the held-out data."""
        return _run(self, DmdTask)


class DistillTask(Task):
    """A teacher, a student, and clips.  The image encoder and the tokenizer are the teacher's, and stay."""

    def __init__(
        self,
        config: DistillConfig,
        teacher: ModelBundle,
        train: Clips,
        held_out: Clips,
        student: WorldModel | None = None,
    ) -> None:
        self.config, self.bundle, self.clips, self.held_out = config, teacher, train, held_out
        self.finished = teacher.config.world.finished(config.trust, config.canvas)
        self.teacher = Guided(teacher.model.eval().requires_grad_(False), config.guidance)
        self.student = copy.deepcopy(student or teacher.model).train()
        for name, parameter in self.student.named_parameters():
            parameter.requires_grad_(not name.startswith("turned_step."))
        self.model: nn.Module = nn.ModuleDict({"student": self.student})
        self.schedule = Schedule(config.sigmas, renoise=len(config.sigmas) > 1, context_sigma=config.context_sigma)

    def image(self, picture: Tensor) -> Tensor:
        """Tokens of pictures (b, 3, H/2, W/2) uint8."""
        with torch.no_grad():
            return self.bundle.image_encoder(to_pixels(picture))

    def settle(self) -> None:
        """The frozen parts go where the trained ones are."""
        if next(self.teacher.world.parameters()).device != self.device:
            self.bundle.to(self.device, torch.float32)

    def batch(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        return self.clips.draw(rng, self.config.batch, self.config.clip_steps)

    def blocks(self) -> list[nn.Module]:
        return self.student.shard_units()

    def tokens(self, batch: tuple[Tensor, Tensor, Tensor]) -> int:
        return count_tokens(self.student, batch[1])

    def data_size(self) -> int:
        return self.clips.num_steps

    def held_out_clips(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        return tuple(x.to(self.device) for x in self.held_out.spread(count, self.config.clip_steps))  # type: ignore[return-value]

    def sample(self, folder: Path, step: int) -> None:
        """A sheet of rollouts under fixed scripts, from held-out start pictures of every game."""
        self.settle()
        if not isinstance(self.bundle.tokenizer, VideoTokenizer):
            return
        z0, picture = (x.to(self.device) for x in self.held_out.openings(2 if len(self.held_out.parts) == 1 else 1))
        rows = script_rows(self.bundle.config.action_space, 64).to(self.device).repeat(len(z0), 1, 1)
        z0, image = (x.repeat_interleave(len(SCRIPTS), 0) for x in (z0, self.image(picture)))
        clips = roll_out(self.student, self.bundle.tokenizer, z0[:, None], image, rows, self.schedule)
        save_sheet(folder / f"{step:07d}.png", clips)

    def export(self, folder: Path, summary: dict[str, Any]) -> None:
        """The finished model folder, at `folder`/model."""
        config = dataclasses.replace(
            self.bundle.config,
            world=self.finished,
            name=self.config.name,
            schedule=self.schedule,
            summary={"distilled": summary},
        )
        bundle = ModelBundle(config, self.student, self.bundle.tokenizer, self.bundle.image_encoder)
        save_model(folder / "model", bundle)

    @staticmethod
    def few_steps(
        estimate: Any, noises: Sequence[Tensor], sigmas: Sequence[float], past: Past, rows: Tensor, image: Tensor
    ) -> Tensor:
        """A few-step sample of every step of a clip at once: clean estimate, fresh noise, and again."""
        x = noises[0]
        for i, sigma in enumerate(sigmas):
            clean = estimate(past, x, torch.full(x.shape[:2], sigma, device=x.device), rows, image)
            if i + 1 < len(sigmas):
                x = add_noise(clean, noises[i + 1], sigmas[i + 1])
        return clean  # pyright: ignore[reportPossiblyUnboundVariable]  # there is at least one level

    def asked(self, model: WorldModel) -> Any:
        """`clean_estimates` of a model that learns."""
        return lambda *given: clean_estimates(model, *given)


class InitTask(DistillTask):
    """The few-step start."""

    config: DistillInitConfig

    def path_levels(self) -> list[float]:
        """The teacher's levels, from 1 down; the student's are among them."""
        even = [shifted(1 - i / self.config.teacher_steps, self.config.shift) for i in range(self.config.teacher_steps)]
        return sorted({*even, *self.config.sigmas}, reverse=True)

    def loss(
        self, batch: tuple[Tensor, Tensor, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, Mapping[str, Any]]:
        self.settle()
        z, rows, picture = batch
        image = self.image(picture)
        past = noised_context(z, self.config.context_noise, generator)
        if self.config.method == "ode":
            return self._ode(past, rows, image, generator)
        return self._consistency(z, past, rows, image, generator)

    def _ode(
        self, past: Past, rows: Tensor, image: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Mapping[str, Any]]:
        sigmas, noise = self.config.sigmas, noise_like(past.z[:, 1:], generator)
        *at, end = follow(self.teacher, noise, self.path_levels(), sigmas, past, rows, image)
        told = torch.tensor(sigmas, device=noise.device).repeat_interleave(noise.shape[1]).expand(len(noise), -1)
        found = clean_estimates(self.student, past, torch.cat(at, 1), told, rows, image)
        error = (found.float() - end.repeat(1, len(sigmas), 1, 1, 1)).square().mean()
        return error, {"ode_mse": error}

    def _consistency(
        self, z: Tensor, past: Past, rows: Tensor, image: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Mapping[str, Any]]:
        grid = torch.tensor([*self.path_levels(), 0.0], device=z.device)
        target = z[:, 1:]
        place = torch.randint(len(grid) - 1, target.shape[:2], generator=generator, device=z.device)
        sigma, following = grid[place], grid[place + 1]
        x = add_noise(target, noise_like(target, generator), sigma)
        clean = self.teacher(past, x, sigma, rows, image)
        with torch.no_grad():
            lower = clean + (following / sigma)[..., None, None, None] * (x - clean)
            asked = clean_estimates(self.student, past, lower, following, rows, image)
            wanted = torch.where((following > 0)[..., None, None, None], asked, lower)
        found = clean_estimates(self.student, past, x, sigma, rows, image)
        # Squared, not pseudo-Huber, whose pull stays strong near the goal and shakes few-step students (docs/LOG.md).
        error = (found.float() - wanted).square().mean()
        return error, {"consistency_mse": error}

    def validate(self) -> dict[str, float]:
        """How far the few-step student is from the end of the teacher's path, from the same noise and context; and, for
        scale, the teacher itself in as few steps."""
        self.settle()
        generator = torch.Generator(self.device).manual_seed(0)
        z, rows, picture = self.held_out_clips(16)
        image = self.image(picture)
        past = noised_context(z, self.config.context_noise, generator)
        noises = [noise_like(z[:, 1:], generator) for _ in self.config.sigmas]
        given = (past, rows, image)
        *_, end = follow(self.teacher, noises[0], self.path_levels(), (), *given)
        rows_of = {"one_step_mse": self.asked(self.student), "teacher_one_step_mse": self.teacher}
        found = {
            name: (self.few_steps(estimate, noises, (1.0,), *given) - end).square().mean().item()
            for name, estimate in rows_of.items()
        }
        few = self.few_steps(self.asked(self.student), noises, self.config.sigmas, *given)
        return found | {"few_step_mse_to_data": (few - z[:, 1:]).square().mean().item()}


class DmdTask(DistillTask):
    """Distribution matching under the student's own rollouts."""

    config: DistillDmdConfig

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.critic = copy.deepcopy(self.teacher.world).train()
        for name, parameter in self.critic.named_parameters():
            parameter.requires_grad_(not name.startswith("turned_step."))
        self.model = nn.ModuleDict({"student": self.student, "critic": self.critic})
        if not self.student.config.block == 1 or self.student.config.generates_start:
            raise TrainError("distribution matching takes models that make one step at a time from a given picture")

    def lr_factor(self, name: str) -> float:
        return self.config.critic_lr if name.startswith("critic.") else 1.0

    def blocks(self) -> list[nn.Module]:
        return [*super().blocks(), *self.critic.shard_units()]

    def tokens(self, batch: tuple[Tensor, Tensor, Tensor]) -> int:
        return count_tokens(self.student, batch[2])

    def _shared(self, purpose: int = 0) -> torch.Generator:
        """Draws that all processes must make alike: which network's turn it is, which pass has gradients."""
        return torch.Generator().manual_seed(self.step_seed + purpose)

    def batch(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Start latents (b, 1, c, h, w), start pictures, and action rows (b, 4 blocks, a) of other moments of play."""
        z0, rows, picture = self.clips.play(rng, self.config.batch, self.config.rollout_blocks)
        rows[torch.from_numpy(rng.random(len(rows)) < self.config.still)] = 0.0
        return z0, picture, rows

    def loss(
        self, batch: tuple[Tensor, Tensor, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, Mapping[str, Any]]:
        self.settle()
        z0, picture, rows = batch
        image = self.image(picture)
        turn = torch.rand((), generator=self._shared()).item()
        is_students = self.progress >= self.config.critic_first and turn < 1 / (1 + self.config.critic_updates)
        with torch.set_grad_enabled(is_students):
            clip = self.rollout(z0, image, rows, generator)
        clip, rows = self._excerpt(clip, rows, generator)
        past = noised_context(clip.detach(), self.config.context_noise, generator)
        made = clip[:, 1:]
        sigma = self._levels(made, generator)
        noisy = add_noise(made.detach(), noise_like(made, generator), sigma)
        if not is_students:
            found = clean_estimates(self.critic, past, noisy, sigma, rows, image)
            weight = 1 / sigma.clamp(min=0.25) ** 2
            error = ((found.float() - made.detach()).square().mean((2, 3, 4)) * weight).mean()
            return error, {"critic_loss": error}
        real = self.teacher(past, noisy, sigma, rows, image)
        with torch.no_grad():
            fake = clean_estimates(self.critic, past, noisy, sigma, rows, image)
            scale = (made - real).abs().mean((2, 3, 4), keepdim=True).clamp(min=1e-3)
            wanted = made - (fake - real) / scale
        gap = (fake - real).abs().mean()
        return 0.5 * (made.float() - wanted).square().mean(), {"score_gap": gap}

    def rollout(self, z0: Tensor, image: Tensor, rows: Tensor, generator: torch.Generator) -> Tensor:
        """The student's own dream, (b, 1 + blocks, c, h, w), with gradients through one pass of each block: the same
        random one for all, which is also the last."""
        model, schedule = self.student, self.schedule
        last = int(torch.randint(len(schedule.sigmas), (), generator=self._shared(1)))
        short = dataclasses.replace(schedule, sigmas=schedule.sigmas[: last + 1])

        def passes(
            model: WorldModel, cond: Condition, schedule: Schedule, state: WorldState, noise: Sequence[Tensor]
        ) -> Tensor:
            z = flow.denoise(model, noise[0], cond, schedule, state, lambda i: noise[i + 1])
            with torch.no_grad():
                eps = noise[-1] if schedule.context_sigma else None
                flow.commit(model, z.detach(), cond, schedule, state, eps)
            return z

        state = model.new_state(len(z0), z0.device, z0.dtype)
        with torch.no_grad():
            flow.begin(model, z0, image, schedule, state, generator)
        blocks = rows.split(model.config.block_frames, 1)
        steps = [flow.advance(model, block, short, state, generator, run=passes) for block in blocks]
        return torch.cat([z0, *steps], 1)

    def _excerpt(self, clip: Tensor, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """As much of a rollout as the teacher has learnt to judge."""
        length = min(self.config.clip_steps, clip.shape[1])
        room = clip.shape[1] - length
        first = int(torch.randint(room + 1, (), generator=generator, device=self.device))
        frames = self.student.config.block_frames
        return clip[:, first : first + length], rows[:, frames * first : frames * (first + length - 1)]

    def _levels(self, made: Tensor, generator: torch.Generator) -> Tensor:
        s = torch.rand(made.shape[:2], generator=generator, device=made.device)
        s = self.config.shift * s / (1 + (self.config.shift - 1) * s)
        return s.clamp(SMALLEST_SIGMA, 1 - SMALLEST_SIGMA)

    def validate(self) -> dict[str, float]:
        """Of rollouts under recorded actions: the error against what was recorded, of all steps and of the last; and
        how the spread of what was made compares with what was recorded (1 is right, 0 a grey haze)."""
        self.settle()
        generator = torch.Generator(self.device).manual_seed(0)
        z, rows, picture = self.held_out_clips(16)
        made = self.rollout_fully(z[:, :1], self.image(picture), rows, generator)
        error = (made - z).square().mean((0, 2, 3, 4))
        spread = made[:, -1].std() / z[:, -1].std().clamp(min=1e-6)
        return {
            "rollout_mse": error[1:].mean().item(),
            "last_step_mse": error[-1].item(),
            "spread_ratio": spread.item(),
        }

    def rollout_fully(self, z0: Tensor, image: Tensor, rows: Tensor, generator: torch.Generator) -> Tensor:
        """As a session does it."""
        state = self.student.new_state(len(z0), z0.device, z0.dtype)
        flow.begin(self.student, z0, image, self.schedule, state, generator)
        blocks = rows.split(self.student.config.block_frames, 1)
        steps = [flow.advance(self.student, block, self.schedule, state, generator) for block in blocks]
        return torch.cat([z0, *steps], 1)


def _run(config: DistillConfig, task: type[DistillTask]) -> dict[str, float]:
    """Encode the recordings, train, and write a model folder to `output`/model."""
    use_malloc_hints(config.device)
    device = pick_device(config.device)
    teacher = load_model(config.teacher, device)
    if not isinstance(teacher.tokenizer, VideoTokenizer):
        raise TrainError(f"{config.teacher} has a tokenizer that is not our own; distillation is for worlds of our own")
    student = None
    if config.student is not None:
        student = load_model(config.student, device).model
        if student.config != teacher.model.config:
            raise TrainError(f"{config.student} and {config.teacher} are not models of one shape; distil either anew")
    camera = teacher.config.world.camera
    fov_deg = None if camera is None else camera.fov_deg
    latents = config.latents or config.output / "latents"
    space = teacher.config.action_space
    train = load_clips(config.data, teacher.tokenizer, latents, device, config.max_hours, fov_deg, space)
    held_out = train
    if config.held_out:
        folder = config.latents or config.output / "latents-held-out"
        given = (teacher.tokenizer, folder, device, config.held_out_hours, fov_deg, space)
        held_out = load_clips(config.held_out, *given)
    check_fits(teacher, train)
    check_fits(teacher, held_out)
    torch.manual_seed(config.seed)
    return Trainer(task(config, teacher, train, held_out, student), trainer_config(config, config.output)).run()


def check_fits(teacher: ModelBundle, clips: Clips) -> None:
    """Raises TrainError where recordings have other latents than the teacher."""
    latent = teacher.config.world.latent
    if clips.latent != latent:
        raise TrainError(f"the recordings have latents {clips.latent} (c, h, w), the teacher {latent}")
