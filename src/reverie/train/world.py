"""Training the world model: `reverie train world --data DIR --tokenizer RUN -o RUN --minutes 60`.

Flow matching on latent clips, teacher-forced as sampling is: a clean copy of a clip, lightly noised as context is,
gives keys and values; noisy copies of its steps, each with its own noise level, see the clean steps before them.
Towards the end some of the context is what the model itself predicts, so that it learns to go on from its own
mistakes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from torch import Tensor, nn

from reverie.errors import CheckpointError, TrainError
from reverie.flow import Schedule, add_noise
from reverie.models.checkpoint import KIND, ModelBundle, ModelConfig, load_model, load_weights, save_model
from reverie.models.dit import WorldModel, count_parameters
from reverie.models.image_encoder import ImageEncoder
from reverie.models.pixels import to_pixels
from reverie.models.presets import PRESETS, Preset
from reverie.models.tokenizer import VideoTokenizer
from reverie.train.forcing import clean_estimates, count_tokens, hidden_rows, noise_like, noised_context, sink_age
from reverie.train.latents import Clips, load_clips
from reverie.train.loop import Task, Trainer, pick_device, trainer_config, use_malloc_hints
from reverie.train.rollout import SCRIPTS, roll_out, save_sheet, script_rows
from reverie.train.tokenizer import load_tokenizer

VALIDATED = 48
"""Held-out clips of the figures."""

SIGMA_FLOOR = 0.25
"""Below this noise level errors of the clean estimate weigh no more: there is little left to decide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainWorldConfig:
    """Train a world model on a recording.

    Example: reverie train world --data rec --tokenizer runs/tok -o runs/world --minutes 60

    data, held_out: datasets in the LeRobot v3 layout, one or several games, each drawn equally often; the model's keys
    are all of theirs.  tokenizer: a folder that `reverie train tokenizer` or a model has written.  max_hours,
    held_out_hours: how much of each is used.  latents: where encoded recordings are kept, to share them between runs
    (default: in the run's folder).  fov_deg: horizontal field of view of the model; the turns of games recorded with
    another are scaled to it.  window: steps that attention reaches (default: the preset's).  sink: how many of them are
    the first steps of a session, kept for good.  clip_steps: latent steps of a training clip.  copies: noisy copies of
    a clip that share one clean copy.  context_noise: the most noise that context gets.  shift: moves training noise
    levels towards 1.  shard: weights over several processes (FSDP2).  remat: activations are computed again backwards.
    action_dropout: share of clips whose actions are hidden. still_clips: share of clips that are made to stand still:
    recorded play seldom does, and standing still must not rot the picture. self_context: share of batches whose
    context is the model's own prediction, made up to self_context_rounds times over, from self_context_from of the
    budget on. sigmas, context_sigma: the schedule that the model folder names and samples are drawn with. start:
    weights to start from, a world training's own folder.
    """

    data: tuple[Path, ...]
    tokenizer: Path
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    held_out: tuple[Path, ...] = ()
    latents: Path | None = None
    preset: Literal["tiny", "nano", "nano-wide", "nano-embedded"] = "nano"
    name: str = "nano"
    fov_deg: float = 105.4
    window: int | None = None
    sink: int = 0
    max_hours: float | None = None
    held_out_hours: float = 0.1
    minutes: float | None = None
    steps: int | None = None
    batch: int = 4
    clip_steps: int = 8
    copies: int = 2
    context_noise: float = 0.25
    shift: float = 3.0
    action_dropout: float = 0.03
    still_clips: float = 0.15
    self_context: float = 0.5
    self_context_rounds: int = 3
    self_context_from: float = 0.5
    sigmas: tuple[float, ...] = (1.0, 0.8, 0.5)
    context_sigma: float = 0.06
    start: Path | None = None
    lr: float = 1.5e-3
    warmup_steps: int = 40
    muon: bool = True
    ema: float = 0.999
    decay: float = 0.4
    seed: int = 0
    device: str = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    accumulate: int = 1
    shard: bool = False
    remat: bool = False
    checkpoint_minutes: float = 4.0
    validate_minutes: float = 8.0

    def __post_init__(self) -> None:
        if self.batch < 1 or self.copies < 1 or self.clip_steps < 2:
            raise TrainError(
                "expected batch and copies of at least 1 and clip_steps of at least 2, "
                f"got {self.batch}, {self.copies}, {self.clip_steps}"
            )

    def run(self) -> dict[str, float]:
        """Train; returns the figures on the held-out data."""
        use_malloc_hints(self.device)
        return train_world(self)


class WorldTask(Task):
    """The world model's batches, loss, figures and pictures."""

    def __init__(
        self,
        preset: Preset,
        config: TrainWorldConfig,
        tokenizer: VideoTokenizer,
        train: Clips,
        held_out: Clips,
    ) -> None:
        self.preset, self.config, self.tokenizer = preset, config, tokenizer
        self.train, self.held_out = train, held_out
        self.world = WorldModel(preset.world)
        self.encoder = ImageEncoder(preset.image_encoder)
        self.model = nn.ModuleDict({"world": self.world, "image_encoder": self.encoder})
        self.explained = {} if self.world.turned_step is None else self.world.turned_step.fit(*train.turned_step_data())

    def prefers_adamw(self, name: str) -> bool:
        return not name.startswith("world.blocks.") or "keyboard_embed" in name

    def blocks(self) -> list[nn.Module]:
        return self.world.shard_units()

    def tokens(self, batch: tuple[Tensor, Tensor, Tensor]) -> int:
        return count_tokens(self.world, batch[1])

    def data_size(self) -> int:
        return self.train.num_steps

    def compile(self) -> None:
        for block in self.world.blocks:
            block.compile()

    def batch(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        z, rows, picture = self.train.draw(rng, self.config.batch, self.config.clip_steps)
        still = torch.from_numpy(rng.random(len(z)) < self.config.still_clips)
        z[still], rows[still] = z[still, :1], 0.0
        return z, rows, picture

    def loss(
        self, batch: tuple[Tensor, Tensor, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, Mapping[str, Any]]:
        z, rows, picture = batch
        config = self.config
        rows = self._hide_actions(rows, generator)
        context, levels = noised_context(z, self.config.context_noise, generator)
        age = sink_age(self.world, generator)
        for _ in range(self._rounds()):
            predicted = self._predict(context, levels, z, rows, picture, generator, age)
            context = add_noise(predicted, noise_like(z, generator), levels)
        error, sigma = self._errors(context, levels, z, rows, picture, config.copies, generator, age=age)
        weight = 1 / sigma.clamp(min=SIGMA_FLOOR) ** 2
        high = (error * (sigma > 0.8)).sum() / (sigma > 0.8).sum().clamp(min=1)
        return (error * weight).mean(), {"clean_mse": error.mean(), "clean_mse_high": high}

    def _errors(
        self,
        context: Tensor,
        levels: Tensor,
        z: Tensor,
        rows: Tensor,
        picture: Tensor,
        copies: int,
        generator: torch.Generator,
        sigma: Tensor | None = None,
        age: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """Squared errors of clean estimates (b, copies * (t - 1)), and their noise levels."""
        target = z[:, 1:].repeat(1, copies, 1, 1, 1)
        if sigma is None:
            sigma = self._sigmas(target.shape[:2], generator)
        noisy = add_noise(target, noise_like(target, generator), sigma)
        estimate = self._estimate(context, levels, noisy, sigma, rows, picture, age)
        return (estimate.float() - target).square().mean((2, 3, 4)), sigma

    def _estimate(
        self,
        context: Tensor,
        levels: Tensor,
        noisy: Tensor,
        sigma: Tensor,
        rows: Tensor,
        picture: Tensor,
        age: int = 0,
    ) -> Tensor:
        """As `clean_estimates`."""
        image = self.encoder(to_pixels(picture))
        return clean_estimates(self.world, context, levels, noisy, sigma, rows, image, age)

    def _rounds(self) -> int:
        """How many times over the context is what the model made of the context: 0 for recorded context.

        Each round adds a generation of the model's own mistakes, for all steps at once, for one forward pass.
        """
        config = self.config
        if self.progress < config.self_context_from:
            return 0
        shared = torch.Generator().manual_seed(self.step_seed)  # all processes go as many rounds
        share, rounds = torch.rand(2, generator=shared).tolist()
        return 1 + int(rounds * config.self_context_rounds) if share < config.self_context else 0

    def _predict(
        self,
        context: Tensor,
        levels: Tensor,
        z: Tensor,
        rows: Tensor,
        picture: Tensor,
        generator: torch.Generator,
        age: int,
    ) -> Tensor:
        """What the model makes of every step from (nearly) pure noise: (b, t, c, h, w), step 0 as it is."""
        with torch.no_grad():
            sigma = 1 - 0.4 * torch.rand(z.shape[0], z.shape[1] - 1, generator=generator, device=z.device)
            noisy = add_noise(z[:, 1:], noise_like(z[:, 1:], generator), sigma)
            estimate = self._estimate(context, levels, noisy, sigma, rows, picture, age)
        return torch.cat([z[:, :1], estimate.to(z.dtype)], 1)

    def _sigmas(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """Logit-normal noise levels moved towards 1, a tenth of them at exactly 1, where every block begins."""
        s = torch.randn(shape, generator=generator, device=self.device).sigmoid()
        s = self.config.shift * s / (1 + (self.config.shift - 1) * s)
        return torch.where(torch.rand(shape, generator=generator, device=self.device) < 0.1, torch.ones_like(s), s)

    def _hide_actions(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        hidden = torch.rand(len(rows), generator=generator, device=rows.device) < self.config.action_dropout
        unknown = hidden_rows(rows, len(self.preset.world.action_space.keys))
        return torch.where(hidden[:, None, None], unknown, rows)

    def validate(self) -> dict[str, float]:
        """On held-out clips: the error of a step dreamt from noise in one pass; with the actions of another clip;
        that of repeating the step before.  And the share of the variance that the turned step explains."""
        generator = torch.Generator(self.device).manual_seed(0)
        clips = self.held_out.spread(VALIDATED, self.config.clip_steps)
        sums: dict[str, list[float]] = {"next_mse": [], "wrong_actions_mse": [], "repeat_mse": []}
        for z, rows, picture in zip(*(x.to(self.device).split(8) for x in clips), strict=True):
            context, levels = noised_context(z, self.config.context_noise, generator)
            sigma = torch.ones(z.shape[0], z.shape[1] - 1, device=self.device)
            for name, actions in (("next_mse", rows), ("wrong_actions_mse", rows.roll(1, 0))):
                error, _ = self._errors(context, levels, z, actions, picture, 1, generator, sigma)
                sums[name].append(error.mean().item())
            sums["repeat_mse"].append((z[:, 1:] - z[:, :-1]).square().mean().item())
        return {name: float(np.mean(values)) for name, values in sums.items()} | {
            f"turned_step_{name}": value for name, value in self.explained.items()
        }

    def sample(self, folder: Path, step: int) -> None:
        """A sheet of rollouts under fixed scripts, from held-out start pictures of every game."""
        z0, picture = (x.to(self.device) for x in self.held_out.openings(2 if len(self.held_out.parts) == 1 else 1))
        rows = script_rows(self.preset.world.action_space, 64).to(self.device).repeat(len(z0), 1, 1)
        z0, picture = (x.repeat_interleave(len(SCRIPTS), 0) for x in (z0, picture))
        image = self.encoder(to_pixels(picture))
        clips = roll_out(self.world, self.tokenizer, z0[:, None], image, rows, self.schedule)
        save_sheet(folder / f"{step:07d}.png", clips)

    @property
    def schedule(self) -> Schedule:
        return Schedule(self.config.sigmas, context_sigma=self.config.context_sigma)

    def export(self, folder: Path, summary: dict[str, Any]) -> None:
        """The finished model folder, at `folder`/model."""
        config = ModelConfig(
            name=self.config.name,
            resolution=self.preset.resolution,
            schedule=self.schedule,
            world=self.preset.world,
            tokenizer=self.tokenizer.config,
            image_encoder=self.preset.image_encoder,
            summary=summary,
        )
        save_model(folder / "model", ModelBundle(config, self.world, self.tokenizer, self.encoder))


def read_tokenizer(folder: Path) -> VideoTokenizer:
    """The tokenizer of a tokenizer training or of a model folder, frozen.  Raises CheckpointError."""
    path = folder / "config.json"
    kind = json.loads(path.read_text()).get("kind") if path.is_file() else None
    tokenizer = load_model(folder).tokenizer if kind == KIND else load_tokenizer(folder)
    if not isinstance(tokenizer, VideoTokenizer):
        raise CheckpointError(f"{folder} has a {type(tokenizer).__name__}; worlds are trained on tokenizers of our own")
    return tokenizer.eval().requires_grad_(False)


def train_world(config: TrainWorldConfig) -> dict[str, float]:
    """Encode the recordings, train, and write a model folder to `output`/model."""
    device = pick_device(config.device)
    tokenizer = read_tokenizer(config.tokenizer).to(device)
    latents = config.latents or config.output / "latents"
    train = load_clips(config.data, tokenizer, latents, device, config.max_hours, config.fov_deg)
    held_out = train
    if config.held_out:
        folder = config.latents or config.output / "latents-held-out"
        given = (tokenizer, folder, device, config.held_out_hours, config.fov_deg, train.action_space)
        held_out = load_clips(config.held_out, *given)
    preset = PRESETS[config.preset](train.action_space, config.fov_deg)
    sizes = {"window": config.window or preset.world.window, "sink": config.sink}
    preset = replace(preset, world=replace(preset.world, **sizes))
    if train.latent != preset.world.latent:
        raise TrainError(
            f"the data's latents are {train.latent} (c, h, w), preset {config.preset} takes {preset.world.latent}"
        )
    torch.manual_seed(config.seed)
    task = WorldTask(preset, config, tokenizer, train, held_out)
    if config.start is not None:
        load_weights(config.start / "model" / "dit.safetensors", task.world)
        load_weights(config.start / "model" / "image_encoder.safetensors", task.encoder)
    return Trainer(task, trainer_config(config, config.output)).run() | {
        "parameters": float(count_parameters([task.model]))
    }


if __name__ == "__main__":
    tyro.cli(TrainWorldConfig).run()
