"""A process that trains a network on latents made up for it, one step for each command.

Run as a script by `reverie bench train`, also with the source of an older commit: so it asks for nothing but what both
have.  Options are one JSON object in the first argument.  It prints one line of JSON when it is ready (after its first
steps) and one for each line that it is sent: `step` takes a step, `profile` takes one and prints its time by kernel.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reverie.models.actions import ActionModuleConfig
from reverie.models.dit import WorldModel, WorldModelConfig
from reverie.models.image_encoder import ImageEncoder, ImageEncoderConfig
from reverie.train.forcing import add_noise, clean_estimates, noise_like, noised_context
from reverie.types import ActionSpace

try:
    from reverie.train.batches import Batches
    from reverie.train.trainer import Task, Trainer, TrainerConfig
except ImportError:  # an older commit
    from reverie.train import loop  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]

    Batches, Task, Trainer, TrainerConfig = loop._Batches, loop.Task, loop.Trainer, loop.TrainerConfig

SIZES = {
    "tiny": {"latent": (16, 4, 8), "dim": 48, "layers": 2, "heads": 2, "window": 4, "picture": (16, 32)},
    "nano": {"latent": (16, 16, 28), "dim": 256, "layers": 7, "heads": 4, "window": 5, "picture": (64, 112)},
    "wide": {"latent": (16, 16, 28), "dim": 512, "layers": 10, "heads": 8, "window": 8, "picture": (64, 112)},
}
"""Model sizes to measure.  nano is the transformer of the first bundled model without its fitted parts.

They are not presets: presets change, and a comparison over commits must not.
"""


def build(size: str) -> tuple[WorldModelConfig, ImageEncoderConfig]:
    """One network of `SIZES`."""
    given: dict[str, Any] = dict(SIZES[size])
    encoder = ImageEncoderConfig(size=given.pop("picture"), width=given["dim"] // 2)
    heads = {"heads": given["heads"], "head_dim": given["dim"] // given["heads"]}
    middle = given["layers"] // 2
    options = given | {
        "action_space": ActionSpace(("forward", "back", "left", "right"), mouse=True),
        "ffn_dim": 4 * given["dim"],
        "block": 1,
        "image_dim": encoder.width,
        "image_tokens": encoder.num_tokens,
        "image_blocks": (1, middle + 1),
        "keyboard": ActionModuleConfig(blocks=(0, middle), **heads),
        "mouse": ActionModuleConfig(blocks=(0,), **heads, scale=0.25),
        "cond_channels": given["latent"][0],  # a field of older commits
        "theta": 100.0,
        "action_modulation": True,
        "learned_positions": True,
        "local_start": True,
        "mouse_scale": 0.25,
    }
    known = {field.name for field in fields(WorldModelConfig)}
    if "image" not in known:  # an older commit
        return WorldModelConfig(**{name: value for name, value in options.items() if name in known}), encoder
    from reverie.models.checkpoint import from_json, to_json
    from reverie.models.version_2 import convert_world

    del options["cond_channels"]
    return from_json(WorldModelConfig, convert_world(to_json(options))), encoder


class StepTask(Task):  # pyright: ignore[reportGeneralTypeIssues]  # of one of two commits
    """Teacher forcing as `reverie.train.world` does it, of clips of noise."""

    def __init__(self, size: str, batch: int, clip_steps: int, copies: int) -> None:
        torch.manual_seed(0)
        self.config, encoder = build(size)
        self.size = (batch, clip_steps, copies)
        self.world, self.encoder = WorldModel(self.config), ImageEncoder(encoder)
        self.picture = encoder.size
        self.model = nn.ModuleDict({"world": self.world, "image_encoder": self.encoder})

    def prefers_adamw(self, name: str) -> bool:
        return not name.startswith("world.blocks.") or "keyboard_embed" in name

    def batch(self, rng: np.random.Generator) -> tuple[Tensor, ...]:
        batch, steps, _ = self.size
        rows = np.zeros((batch, 4 * (steps - 1), self.config.action_space.size), np.float32)
        rows[..., :3] = rng.random((*rows.shape[:2], 3)) < 0.3
        shapes = ((batch, steps, *self.config.latent), (batch, 3, *self.picture))
        z, picture = (torch.from_numpy(rng.standard_normal(shape, np.float32)) for shape in shapes)
        return z, torch.from_numpy(rows), picture

    def loss(self, batch: tuple[Tensor, ...], generator: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        z, rows, picture = batch
        past = noised_context(z, 0.25, generator)
        target = z[:, 1:].repeat(1, self.size[2], 1, 1, 1)
        sigma = torch.rand(target.shape[:2], generator=generator, device=z.device)
        noisy = add_noise(target, noise_like(target, generator), sigma)
        estimate = clean_estimates(self.world, past, noisy, sigma, rows, self.encoder(picture))
        error = (estimate.float() - target).square().mean()
        return error, {"clean_mse": error.detach()}


def main(options: dict[str, Any]) -> None:
    task = StepTask(options["size"], options["batch"], options["clip_steps"], options["copies"])
    settings = {name: options[name] for name in ("dtype", "device", "compile") if name in options}
    settings |= {"track": "none", "tensorboard": False}  # of one of two commits each
    known = {field.name for field in fields(TrainerConfig)}
    with tempfile.TemporaryDirectory() as folder:
        config = TrainerConfig(
            folder=Path(folder),
            steps=100_000,
            muon=True,
            **{name: value for name, value in settings.items() if name in known},
        )
        trainer = Trainer(task, config)
        if config.compile:
            trainer._compile()
        arguments: list[Any] = [task, config, 0, trainer.ranks, trainer.device]
        num = len(inspect.signature(Batches).parameters)
        with Batches(*arguments[:num]) as batches:  # an older commit's takes no device
            _serve(trainer, batches, options)


def _serve(trainer: Any, batches: Any, options: dict[str, Any]) -> None:
    def step() -> tuple[float, float]:
        began, cpu = time.perf_counter(), time.process_time()
        trainer._step(batches)
        if trainer.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began, time.process_time() - cpu

    trainer.task.model.train()
    began = time.perf_counter()
    for _ in range(options["warm_up"]):
        step()
    flops = trainer.progress.micro_flops
    _say({"warm_up_s": time.perf_counter() - began, "gflops": flops / 1e9, "threads": torch.get_num_threads()})
    for line in sys.stdin:
        if line.strip() == "profile":
            spec = importlib.util.spec_from_file_location("profiling", options["profiling"])
            assert spec is not None
            assert spec.loader is not None
            profiling = importlib.util.module_from_spec(spec)
            sys.modules["profiling"] = profiling
            spec.loader.exec_module(profiling)
            found = profiling.profile_of(step, trainer.device)
            _say({"kinds": [[x.kind, x.ms, x.part, x.calls] for x in found.kinds]})
        else:
            wall_s, cpu_s = step()
            _say({"wall_s": wall_s, "cpu_s": cpu_s})


def _say(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
