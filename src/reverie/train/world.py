"""Training the world model: `reverie train world --data DIR --tokenizer RUN -o RUN --minutes 60`.

Flow matching on latent clips, teacher-forced as sampling is: a clean copy of a clip, lightly noised as context is,
gives keys and values; noisy copies of its steps, each with its own noise level, see the clean steps before them.
Towards the end some of the context is what the model itself predicts, so that it learns to go on from its own
mistakes.

`--start MODEL` goes on from any model, published Matrix-Game 2.0 weights among them, with its own tokenizer and
conditions (`reverie.train.warm_start`): all of its weights, or with `--lora RANK` small matrices beside them
(`reverie.train.lora`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reverie.errors import DataError, TrainError
from reverie.models.checkpoint import ModelBundle, ModelConfig, save_model, shard_bytes_of
from reverie.models.dit import WorldModel, count_parameters
from reverie.models.image_encoder import ImageEncoder
from reverie.models.lazy_module import release_memory
from reverie.models.presets import PRESETS, Preset
from reverie.models.start_frames import INDEX
from reverie.models.tokenizer import VideoTokenizer
from reverie.sampling import add_noise
from reverie.train.batches import move
from reverie.train.config import trainer_config
from reverie.train.device import pick_device
from reverie.train.display import SILENT, Display
from reverie.train.forcing import (
    Past,
    check_clip_steps,
    clean_estimates,
    count_tokens,
    given_steps,
    hidden_rows,
    noise_like,
    noised_context,
    sink_age,
    start_channels,
)
from reverie.train.latents import Batch, Clips, load_both, with_idle_key
from reverie.train.lora import adapt, merge
from reverie.train.noise_levels import draw_noise_levels
from reverie.train.rollout import SCRIPTS, roll_out, save_sheet, script_rows
from reverie.train.start_frames import add_start_frames
from reverie.train.task import Task
from reverie.train.tokenizer import read_tokenizer
from reverie.train.trainer import Trainer
from reverie.train.warm_start import StartEncoder, check_recordings, open_start, take_weights
from reverie.train.world_options import Recipe, TrainWorldConfig
from reverie.types import STEP_FRAMES
from reverie.vision.pixels import to_pixels

PURE_NOISE = 0.1
"""Share of the blocks that are trained at noise level 1."""
VALIDATED = 48
"""Held-out clips of the figures."""

LARGE_TOKENS, VALIDATED_LARGE = 256, 8
"""Models of more tokens a step are measured on fewer clips."""

SAMPLED_STEPS = 17
"""Latent steps of a sampled rollout, at most: 65 frames."""

SIGMA_FLOOR = 0.25
"""Below this noise level errors of the clean estimate weigh no more: there is little left to decide."""


class WorldTask(Task):
    """The world model's batches, loss, figures and images.

    bundle: the networks, fresh or to be tuned.
    """

    def __init__(self, bundle: ModelBundle, config: TrainWorldConfig, train: Clips, held_out: Clips) -> None:
        self.bundle, self.config = bundle, config
        self.train, self.held_out = train, held_out
        self.world, self.sizes = bundle.model, bundle.config.world
        self.recipe = Recipe.new(config, bundle.config if config.tunes else None)
        check_clip_steps(self.sizes, self.recipe.clip_steps)
        if self.sizes.generates_start and not (train.has_starts and held_out.has_starts):
            raise DataError("these latents were made for a model that starts from an image; encode them anew")
        self.encoder = bundle.image_encoder if isinstance(bundle.image_encoder, ImageEncoder) else None
        if config.lora:
            self.model: nn.Module = nn.ModuleDict({"lora": adapt(self.world, self.world.blocks, config.lora)})
            return
        self.model = nn.ModuleDict({"world": self.world})
        if self.encoder is not None and not self.sizes.generates_start:  # else its tokens were made beforehand
            self.model["image_encoder"] = self.encoder
        self.model.requires_grad_(True)  # what is read from a folder is frozen

    def prefers_adamw(self, name: str) -> bool:
        return self.config.tunes or not name.startswith("world.blocks.") or "keyboard_embed" in name

    def blocks(self) -> list[nn.Module]:
        return [] if self.config.lora else self.world.shard_units()

    def tokens(self, batch: Batch) -> int:
        return count_tokens(self.world, batch.rows)

    def data_size(self) -> int:
        return self.train.num_steps

    def remat(self) -> None:
        self.world.remat = True

    def networks(self) -> list[nn.Module]:
        return [self.world]  # `model` of a low-rank adaptation holds the adapters alone

    def settle(self) -> None:
        """Moves the frozen modules to the training's device."""
        if next(self.world.parameters()).device != self.device:
            self.world.to(self.device)
            if self.encoder is not None:
                self.encoder.to(self.device)

    def batch(self, rng: np.random.Generator) -> Batch:
        config = self.config
        still = 0.0 if self.sizes.generates_start else config.still_clips
        return self.train.draw(rng, config.batch, self.recipe.clip_steps, config.by_key, still)

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Any]]:
        self.settle()
        batch = batch._replace(rows=self._hide_actions(batch.rows, generator))
        past = noised_context(batch.z, self.recipe.context_noise, generator)
        age = sink_age(self.world, generator)
        for _ in range(self._rounds()):
            predicted = self._predict(past, batch, generator, age)
            past = Past(predicted, add_noise(predicted, noise_like(batch.z, generator), past.levels), past.levels)
        error, sigma = self._errors(past, batch, self.config.copies, generator, age=age)
        weight = 1 / sigma.clamp(min=SIGMA_FLOOR) ** 2
        high = (error * (sigma > 0.8)).sum() / (sigma > 0.8).sum().clamp(min=1)
        return (error * weight).mean(), {"clean_mse": error.mean(), "clean_mse_high": high}

    def _errors(
        self,
        past: Past,
        batch: Batch,
        copies: int,
        generator: torch.Generator,
        sigma: Tensor | None = None,
        age: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """Squared errors of clean estimates of all steps that are the model's to make, (b, copies * steps), and their
        noise levels."""
        target = batch.z[:, given_steps(self.sizes) :].repeat(1, copies, 1, 1, 1)
        if sigma is None:
            sigma = self._sigmas(target.shape[:2], generator)
        noisy = add_noise(target, noise_like(target, generator), sigma)
        estimate = self._estimate(past, noisy, sigma, batch, age)
        return (estimate.float() - target).square().mean((2, 3, 4)), sigma

    def _estimate(self, past: Past, noisy: Tensor, sigma: Tensor, batch: Batch, age: int = 0) -> Tensor:
        """Estimates clean latents by `clean_estimates`, with the batch's actions and starts."""
        image, extra = self._encode_start(batch)
        return clean_estimates(self.world, past, noisy, sigma, batch.rows, image, age, extra)

    def _encode_start(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Image tokens, and the condition channels of a model that generates its start."""
        if batch.start is not None:
            return batch.image, start_channels(batch.start, self.sizes.cond_channels)
        assert self.encoder is not None
        return self.encoder(to_pixels(batch.image)), None

    def _rounds(self) -> int:
        """Draws the number of passes that replace the context by the model's own estimates: 0 keeps recorded context.

        Each round adds a generation of the model's own mistakes, for all steps at once, for one forward pass.
        """
        config = self.config
        if self.progress < config.self_context_from:
            return 0
        shared = torch.Generator().manual_seed(self.step_seed)  # all processes go as many rounds
        share, rounds = torch.rand(2, generator=shared).tolist()
        return 1 + int(rounds * config.self_context_rounds) if share < config.self_context else 0

    def _predict(self, past: Past, batch: Batch, generator: torch.Generator, age: int) -> Tensor:
        """Predicts every step from (nearly) pure noise: (b, t, c, h, w), a given step as it is."""
        z, given = batch.z, given_steps(self.sizes)
        target = z[:, given:]
        with torch.no_grad():
            sigma = 1 - 0.4 * self._by_block(
                target.shape[:2], lambda s: torch.rand(s, generator=generator, device=z.device)
            )
            noisy = add_noise(target, noise_like(target, generator), sigma)
            estimate = self._estimate(past, noisy, sigma, batch, age)
        return torch.cat([z[:, :given], estimate.to(z.dtype)], 1)

    def _by_block(self, shape: torch.Size, draw: Callable[[tuple[int, int]], Tensor]) -> Tensor:
        """(b, steps) numbers that the steps of a block share, as they do in sampling."""
        block = self.sizes.block
        return draw((shape[0], shape[1] // block)).repeat_interleave(block, 1)

    def _sigmas(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        shift = self.config.shift
        return self._by_block(shape, lambda size: draw_noise_levels(size, PURE_NOISE, generator, shift))

    def _hide_actions(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        hidden = torch.rand(len(rows), generator=generator, device=rows.device) < self.config.action_dropout
        unknown = hidden_rows(rows, len(self.sizes.action_space.keys))
        return torch.where(hidden[:, None, None], unknown, rows)

    def validate(self) -> dict[str, float]:
        """On held-out clips: the error of a step generated from noise in one pass; with the actions of another clip;
        that of repeating the step before."""
        self.settle()
        generator = torch.Generator(self.device).manual_seed(0)
        is_large = self.sizes.tokens_per_step > LARGE_TOKENS
        clips = self.held_out.spread(VALIDATED_LARGE if is_large else VALIDATED, self.recipe.clip_steps)
        given = given_steps(self.sizes)
        sums: dict[str, list[float]] = {"next_mse": [], "wrong_actions_mse": [], "repeat_mse": []}
        for part in clips.split(2 if is_large else 8):
            batch = move(part, self.device)
            z, rows = batch.z, batch.rows
            past = noised_context(z, self.recipe.context_noise, generator)
            sigma = torch.ones(z.shape[0], z.shape[1] - given, device=self.device)
            for name, actions in (("next_mse", rows), ("wrong_actions_mse", rows.roll(1, 0))):
                error, _ = self._errors(past, batch._replace(rows=actions), 1, generator, sigma)
                sums[name].append(error.mean().item())
            sums["repeat_mse"].append((z[:, 1:] - z[:, :-1]).square().mean().item())
        return {name: float(np.mean(values)) for name, values in sums.items()}

    def sample(self, folder: Path, step: int) -> None:
        """A sheet of rollouts under fixed scripts, from held-out start frames of every game."""
        self.settle()
        each, given, block = 2 if len(self.held_out.parts) == 1 else 1, given_steps(self.sizes), self.sizes.block
        num_steps = given + (SAMPLED_STEPS - given) // block * block
        opening = move(self.held_out.openings(each, num_steps), self.device)
        space, idle_key = self.sizes.action_space, self.sizes.actions.idle_key
        rows = script_rows(space, STEP_FRAMES * (num_steps - 1))
        rows = torch.stack([torch.from_numpy(with_idle_key(one.numpy(), space, idle_key)) for one in rows])
        opening = opening.map(lambda x: x.repeat_interleave(len(SCRIPTS), 0))
        rows = rows.to(self.device).repeat(len(opening.z) // len(rows), 1, 1)
        image, extra = self._encode_start(opening)
        clips = roll_out(self.world, self.bundle.tokenizer, opening.z, image, rows, self.recipe.schedule, extra=extra)
        save_sheet(folder / f"{step:07d}.png", clips)

    def export(self, folder: Path, summary: dict[str, Any]) -> None:
        """The finished model folder, at `folder`/model.  What was adapted is merged, for good."""
        merge(self.world)
        self._save(folder / "model", summary)
        add_start_frames(folder / "model", self.config.data)

    def export_so_far(self, folder: Path, summary: dict[str, Any]) -> None:
        """The model folder, at `folder`/model.  Of low-rank matrices there is none before they are merged."""
        if not self.config.lora:
            self._save(folder / "model", summary)
            if not (folder / "model" / INDEX).is_file():
                add_start_frames(folder / "model", self.config.data)

    def _save(self, folder: Path, summary: dict[str, Any]) -> None:
        config = self.bundle.config
        if self.config.tunes:
            summary = config.summary | {"tuned": summary | {"lora": self.config.lora}}
        config = replace(
            config,
            name=self.recipe.name,
            schedule=self.recipe.schedule,
            summary=summary,
            mouse_fov_deg=self.recipe.fov_deg,
        )
        shard_bytes = shard_bytes_of(self.config.max_shard_mb)
        save_model(folder, replace(self.bundle, config=config), shard_bytes=shard_bytes)


def new_bundle(preset: Preset, config: TrainWorldConfig, tokenizer: VideoTokenizer) -> ModelBundle:
    """Fresh networks of a preset around a tokenizer."""
    recipe = Recipe.new(config)
    parts = ModelConfig(
        name=recipe.name,
        resolution=preset.resolution,
        schedule=recipe.schedule,
        world=preset.world,
        tokenizer=tokenizer.config,
        image_encoder=preset.image_encoder,
    )
    return ModelBundle(parts, WorldModel(preset.world), tokenizer, ImageEncoder(preset.image_encoder))


def train_world(config: TrainWorldConfig, display: Display = SILENT) -> dict[str, float]:
    """Encode the recordings, train, and write a model folder to `output`/model."""
    device = pick_device(config.device)
    task = (tuned_task if config.tunes else new_task)(config, device, display)
    release_memory()  # a large image encoder has done its work
    options = replace(config, lr=task.recipe.lr)
    parameters = [p for p in task.model.parameters() if p.requires_grad]
    return Trainer(task, trainer_config(options, config.output), display=display).run() | {
        "parameters": float(count_parameters([task.world if config.lora else task.model])),
        "trained_parameters": float(sum(p.numel() for p in parameters)),
    }


def new_task(config: TrainWorldConfig, device: torch.device, display: Display = SILENT) -> WorldTask:
    """Builds the task of a preset, with the weights of a start of the same shape, if there is one."""
    assert config.tokenizer is not None
    recipe, name = Recipe.new(config), config.preset or "nano-plain"
    tokenizer = read_tokenizer(config.tokenizer).to(device)
    train, held_out = load_both(config, tokenizer, device, fov_deg=recipe.fov_deg, display=display)
    preset = PRESETS[name](train.action_space)
    sizes = {"window": config.window or preset.world.window, "sink": config.sink}
    preset = replace(preset, world=replace(preset.world, **sizes))
    if train.latent != preset.world.latent:
        raise TrainError(f"the data's latents are {train.latent} (c, h, w), preset {name} takes {preset.world.latent}")
    torch.manual_seed(config.seed)
    bundle = new_bundle(preset, config, tokenizer)
    task = WorldTask(bundle, config, train, held_out)
    if config.start is not None:
        take_weights(open_start(config.start), bundle)
    return task


def tuned_task(config: TrainWorldConfig, device: torch.device, display: Display = SILENT) -> WorldTask:
    """Builds the task that continues the start model."""
    assert config.start is not None
    bundle = open_start(config.start, config.variant, config.resolution)
    recipe, world = Recipe.new(config, bundle.config), bundle.config.world
    check_clip_steps(world, recipe.clip_steps)
    check_recordings((*config.data, *config.held_out), bundle.config)
    bundle.tokenizer.to(device)
    encoder = StartEncoder(bundle, recipe.clip_steps, device) if world.generates_start else None
    given = {"fov_deg": recipe.fov_deg, "action_space": world.action_space, "idle_key": world.actions.idle_key}
    train, held_out = load_both(config, bundle.tokenizer, device, **given, start=encoder, display=display)
    torch.manual_seed(config.seed)
    return WorldTask(bundle, config, train, held_out)
