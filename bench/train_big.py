"""A few training steps of Matrix-Game 2.0's 1.8B, at full width and as many of its 30 layers as asked for.

    python bench/train_big.py --layers 2 --resolution 352 640 --steps 2 --lora 0 16
    python bench/train_big.py --layers 30 --device cuda --dtype bfloat16 --remat --clip-steps 15 --steps 10

The task and the optimizer are those of `reverie train world --start MODEL [--lora RANK]`; weights, latents and image
tokens are random, so nothing is read or encoded.  Each rank is measured in a process of its own: memory is its peak.
Half of the layers have action modules, as in the distilled models.  Prints a table, then one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from reverie.engine.loading.random_weights import RandomWeights, matrix_game_2
from reverie.hardware import cpu_name
from reverie.models.checkpoint import ModelConfig
from reverie.models.dit import count_parameters
from reverie.train.batches import move
from reverie.train.config import TrainerConfig
from reverie.train.encode import LatentClips
from reverie.train.latents import Clips
from reverie.train.optimizers import build_optimizers
from reverie.train.world import WorldTask
from reverie.train.world_options import TrainWorldConfig


def shallow(layers: int, resolution: tuple[int, int]) -> ModelConfig:
    """The universal model with so many layers."""
    config = matrix_game_2(resolution=resolution, tiny_decoder=False)
    world, acting = config.world, tuple(range(max(1, layers // 2)))
    keyboard, mouse = world.actions.keyboard, world.actions.mouse
    assert keyboard is not None
    assert mouse is not None
    actions = replace(world.actions, keyboard=replace(keyboard, blocks=acting), mouse=replace(mouse, blocks=acting))
    image = replace(world.image, blocks=tuple(range(layers)))
    return replace(config, world=replace(world, layers=layers, image=image, actions=actions))


def made_up(config: ModelConfig, num_steps: int) -> Clips:
    """One clip's worth of a recording."""
    world, rng = config.world, np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32).astype(np.float16)

    part = LatentClips(
        z=normal(num_steps, *world.latent),
        still=normal(1, *world.latent),
        rows=rng.integers(0, 2, (num_steps, 4, world.action_space.size)).astype(np.float32),
        picture=np.zeros((1, 3, 8, 8), np.uint8),
        episode=np.zeros(num_steps, np.int32),
        opens=np.zeros(1, np.int64),
        action_space=world.action_space,
        tokens=normal(1, world.image.tokens, world.image.dim),
        grey=normal(1, num_steps - 1, *world.latent),
    )
    return Clips([part])


def measure(options: argparse.Namespace, rank: int) -> dict[str, Any]:
    """Take the steps.  Returns seconds of each, and what they took."""
    device, config = torch.device(options.device), shallow(options.layers, tuple(options.resolution))
    recipe = TrainWorldConfig(
        data=(),
        start=Path("random"),
        output=Path("nowhere"),
        lora=rank,
        batch=options.batch,
        copies=1,
        clip_steps=options.clip_steps,
        self_context=0.0,
    )
    clips = made_up(config, options.clip_steps)
    torch.manual_seed(0)
    task = WorldTask(RandomWeights(config).load(device, torch.float32), recipe, clips, clips)
    task.device = device
    task.model.to(device)
    if options.remat:
        task.remat()
    trainer = TrainerConfig(folder=Path("nowhere"), steps=options.steps, lr=task.recipe.lr)
    optimizers = build_optimizers(task.model, trainer, task.prefers_adamw)
    ema = [p.detach().clone() for p in task.model.parameters() if p.requires_grad]
    seconds, losses, tokens = [], [], 0
    for step in range(options.steps):
        batch = move(task.batch(np.random.default_rng(0)), device)
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=options.dtype == "bfloat16"):
            loss, _ = task.loss(batch, torch.Generator(device).manual_seed(0))
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        seconds.append(time.perf_counter() - start)
        tokens = options.batch * options.clip_steps * config.world.tokens_per_step
        print(f"rank {rank}, step {step}: {seconds[-1]:.1f} s, loss {losses[-1]:.4f}", file=sys.stderr, flush=True)
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    best, trained = min(seconds), sum(p.numel() for p in ema)
    return {
        "lora": rank,
        "parameters": count_parameters([task.world]) - (trained if rank else 0),
        "trained": trained,
        "seconds_per_step": round(best, 2),
        "tokens_per_s": round(tokens / best, 1),
        "losses": [round(loss, 4) for loss in losses],
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else host, 2),
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--resolution", type=int, nargs=2, default=[352, 640])
    parser.add_argument("--clip-steps", type=int, default=6)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--lora", type=int, nargs="+", default=[0, 16], help="ranks to measure; 0 trains all weights")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--remat", action="store_true")
    parser.add_argument("--here", action="store_true", help="measure one rank in this process, and print JSON alone")
    return parser.parse_args()


def main() -> None:
    options = parse()
    if options.here:
        print(json.dumps(measure(options, options.lora[0])))
        return
    rows = []
    for rank in options.lora:
        run = [sys.executable, __file__, *sys.argv[1:], "--lora", str(rank), "--here"]  # the last --lora counts
        rows.append(json.loads(subprocess.run(run, check=True, stdout=subprocess.PIPE, text=True).stdout))
    machine = torch.cuda.get_device_name() if options.device.startswith("cuda") else cpu_name()
    title = f"{machine}, {options.layers} layers, {options.dtype}"
    table = Table("", "weights, M", "trained, M", "s a step", "tokens/s", "peak, GiB", "loss", title=title)
    for row in rows:
        millions = (f"{row[name] / 1e6:.1f}" for name in ("parameters", "trained"))
        figures = (str(row[name]) for name in ("seconds_per_step", "tokens_per_s", "peak_gib"))
        losses = " ".join(f"{loss:.3f}" for loss in row["losses"])
        table.add_row(f"lora {row['lora']}" if row["lora"] else "full", *millions, *figures, losses)
    Console().print(table)
    facts = {name: value for name, value in vars(options).items() if name not in ("lora", "here")}
    print(json.dumps({"machine": machine, "torch": torch.__version__, **facts, "rows": rows}))


if __name__ == "__main__":
    main()
