"""Fitting what moves the picture, before a world is trained on it (`reverie.models.camera.Motion`).

Asked of every two neighbouring steps of random clips: the step before, turned and moved, should be the step that
follows.  The network is small and its task is local, so minutes teach it what the transformer would need hours for:
that walking makes the picture grow, that a road comes nearer, that the car which is steered stays where it is.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor

from reverie.errors import CheckpointError
from reverie.models.camera import Motion, TurnedStep
from reverie.models.checkpoint import load_weights, save_weights
from reverie.models.dit import WorldModel
from reverie.train.latents import Batch, Clips

BATCH, CLIP_STEPS, LR = 16, 4, 2e-3


def fit_motion(
    world: WorldModel,
    train: Clips,
    held_out: Clips,
    steps: int,
    device: torch.device,
    file: Path,
    by_key: float = 0.5,
    still: float = 0.15,
) -> dict[str, float]:
    """Train the motion network of `world` for `steps` steps, or read it from `file` if that is done, and fix it.

    by_key, still: of clips, as `Clips.draw` takes them; where nobody moves everything stays, exactly.

    Returns, of held-out clips, the squared errors of the step before as a guess of the next: turned (`turned_mse`), and
    turned and moved (`moved_mse`).
    """
    step = world.turned_step
    assert isinstance(step, TurnedStep)
    motion = step.motion
    assert motion is not None
    world.to(device)
    guess = _guesser(world, device)
    clips = held_out.spread(48, CLIP_STEPS)
    step.motion = None
    found = {"turned_mse": _error(guess, clips)}
    step.motion = motion
    if not _known(motion, file):
        motion.requires_grad_(True)
        optimizer = torch.optim.AdamW(motion.parameters(), lr=LR, weight_decay=1e-3, betas=(0.9, 0.98))
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=max(steps, 2), pct_start=0.1)
        rng = np.random.default_rng(0)
        with Progress() as progress:
            bar = progress.add_task("what moves", total=steps)
            for _ in range(steps):
                error = guess(train.draw(rng, BATCH, CLIP_STEPS, by_key, still))
                optimizer.zero_grad()
                error.backward()
                torch.nn.utils.clip_grad_norm_(motion.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                progress.advance(bar)
        motion.requires_grad_(False)
        file.parent.mkdir(parents=True, exist_ok=True)
        save_weights(file, motion, None)
    return found | {"moved_mse": _error(guess, clips)}


def _known(motion: Motion, file: Path) -> bool:
    if not file.is_file():
        return False
    try:
        load_weights(file, motion)
    except CheckpointError:  # of another preset or action space
        return False
    return True


def _guesser(world: WorldModel, device: torch.device) -> Callable[[Batch], Tensor]:
    channels = world.config.latent[0]
    before = TurnedStep.MASK_CHANNELS

    def guess(batch: Batch) -> Tensor:
        z, rows, picture = (x.to(device) for x in batch)
        no_image = picture.new_zeros(len(z), 0, world.config.image_dim)
        extra = world.clip_condition(rows, z, no_image).extra[:, 1:, before : before + channels]
        return (extra - z[:, 1:]).square().mean()

    return guess


def _error(guess: Callable[[Batch], Tensor], clips: Batch) -> float:
    with torch.no_grad():
        return guess(clips).item()
