"""How far attention should reach: models that differ in `--window` and `--sink` alone, side by side.

    for w in 4 6 8 12; do for s in 0 1; do
      reverie train world --start runs/world/model --tokenizer runs/tokenizer --window $w --sink $s --clip-steps 14 \\
        --data data/a data/b --latents data/latents --steps 40 -o runs/w$w-s$s
    done; done
    python bench/windows.py runs/w*-s*/model --held-out data/a-heldout data/b-heldout --latents data/latents

Squared errors of latents (of unit variance): of the next step from noise, given recorded steps (as the training wrote
it down); of dreams under recorded actions, after 1 and 4 seconds; of standing still, against the start, after 5 and 20
seconds.  Prints a table, then one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from reverie import sampling
from reverie.hardware import cpu_name
from reverie.models.actions import STEP_FRAMES
from reverie.models.checkpoint import ModelBundle, load_model
from reverie.train.latents import Clips, load_clips
from reverie.vision.pixels import to_pixels

FPS = 25
DREAM_S, STILL_S = (1, 4), (5, 20)


def steps_of(seconds: float) -> int:
    """Latent steps of so long a play, at least."""
    return -(-round(seconds * FPS) // STEP_FRAMES)


@torch.inference_mode()
def errors(bundle: ModelBundle, z: Tensor, rows: Tensor, image: Tensor, at: Sequence[int]) -> tuple[list[float], float]:
    """Roll out under `rows`; the errors of the steps `at` against `z` (b, t, c, h, w), and seconds a step."""
    model, schedule, generator = bundle.model, bundle.config.schedule, torch.Generator().manual_seed(0)
    state, found = model.new_state(len(z), z.device, z.dtype), {}
    sampling.begin(model, z[:, :1], image, schedule, state, generator)
    start = time.process_time()
    for step, block in enumerate(rows.split(model.config.block_frames, 1), 1):
        made = sampling.advance(model, block, schedule, state, generator)
        if step in at:
            found[step] = (made[:, -1] - z[:, min(step, z.shape[1] - 1)]).square().mean().item()
    return [found[step] for step in at], (time.process_time() - start) / (rows.shape[1] // STEP_FRAMES)


def measure(folder: Path, held_out: Clips, clips: int, starts: int) -> dict[str, float]:
    """One row of the table."""
    bundle = load_model(folder)
    assert bundle.image_encoder is not None
    dream_at, still_at = [steps_of(s) for s in DREAM_S], [steps_of(s) for s in STILL_S]
    with torch.inference_mode():
        z, rows, picture, _ = held_out.spread(clips, 1 + dream_at[-1])
        dreamt, _ = errors(bundle, z, rows, bundle.image_encoder(to_pixels(picture)), dream_at)
        z0, _, picture, _ = held_out.openings(starts)
        idle = torch.zeros(len(z0), STEP_FRAMES * still_at[-1], rows.shape[2])
        stood, seconds = errors(bundle, z0, idle, bundle.image_encoder(to_pixels(picture)), still_at)
    world = bundle.config.world
    return {
        "window": world.window,
        "sink": world.sink,
        "next": bundle.config.summary["metrics"]["next_mse"],
        **{f"dream {s} s": error for s, error in zip(DREAM_S, dreamt, strict=True)},
        **{f"still {s} s": error for s, error in zip(STILL_S, stood, strict=True)},
        "ms a step": 1000 * seconds / len(z0),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--held-out", nargs="+", type=Path, required=True)
    parser.add_argument("--latents", type=Path, required=True)
    parser.add_argument("--held-out-hours", type=float, default=0.1)
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--starts", type=int, default=1, help="of standing still, of each game")
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = load_model(args.models[0])
    assert config.config.world.camera is not None
    held_out = load_clips(
        args.held_out,
        config.tokenizer,
        args.latents,
        torch.device("cpu"),
        args.held_out_hours,
        config.config.world.camera.fov_deg,
        config.config.action_space,
    )
    found = [measure(folder, held_out, args.clips, args.starts) for folder in args.models]
    table = Table(title=f"{cpu_name()}, processor time of one thread")
    for name in found[0]:
        table.add_column(name, justify="right")
    for row in found:
        table.add_row(
            *(f"{value:.3f}" if isinstance(value, float) and value < 10 else f"{value:.0f}" for value in row.values())
        )
    console = Console()
    console.print(table)
    console.print(json.dumps(found), soft_wrap=True)


if __name__ == "__main__":
    main()
