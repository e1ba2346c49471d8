"""Rollouts to look at during training: fixed action scripts from held-out start frames, a row of frames each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from reverie import sampling
from reverie.models.dit import WorldModel
from reverie.models.state import ConditionChannels
from reverie.models.tokenizer import VideoTokenizer
from reverie.models.wan_vae import WanVAE
from reverie.sampling import Schedule
from reverie.types import Action, ActionSpace, Frames
from reverie.vision.pixels import to_frames

SCRIPTS: Mapping[str, Action] = {
    "forward": Action(frozenset({"forward"})),
    "back": Action(frozenset({"back"})),
    "turn left": Action(mouse=(0.0, -3.0)),
    "turn right": Action(mouse=(0.0, 3.0)),
    "forward and right": Action(frozenset({"forward"}), (0.0, 2.0)),
    "idle": Action(),
}
SHEET_FRAMES = (0, 1, 4, 8, 12, 16, 24, 32, 48, 64)


@torch.no_grad()
def roll_out(
    model: WorldModel,
    tokenizer: VideoTokenizer | WanVAE,
    z0: Tensor,
    image: Tensor,
    rows: Tensor,
    schedule: Schedule,
    seed: int = 0,
    extra: Tensor | None = None,
) -> Frames:
    """Generates from start images, all rows of a batch at once.

    z0: (b, 1, c, h, w); image: (b, n, d) tokens; rows: (b, f, a), of whole blocks; extra: (b, t, channels, h, w) the
    condition channels of all t = 1 + f / 4 steps, for a model that generates its start.  Returns (b, 1 + f, H, W, 3)
    uint8.
    """
    generator = torch.Generator(z0.device).manual_seed(seed)
    state = model.new_state(len(z0), z0.device, z0.dtype)
    sampling.begin(model, z0, image, schedule, state, generator)
    steps = [] if model.config.generates_start else [z0]
    done = 0
    while done < rows.shape[1]:
        first, count = state.step, model.config.block_rows(state.step)
        told = None if extra is None else ConditionChannels(extra[:, first : first + model.config.block])
        steps.append(sampling.advance(model, rows[:, done : done + count], schedule, state, generator, told))
        done += count if first or model.config.block > 1 else 0  # nothing leads to a start frame made alone
    frames = [to_frames(tokenizer.decode(clip[None])[0]) for clip in torch.cat(steps, 1)]
    return np.stack(frames)


def script_rows(space: ActionSpace, frames: int, scripts: Sequence[Action] | None = None) -> Tensor:
    """(scripts, frames, a): each script's action held, as far as the action space can encode it."""
    actions = list(SCRIPTS.values()) if scripts is None else scripts
    return torch.from_numpy(np.stack([space.encode([space.restrict(action)] * frames) for action in actions]))


def save_sheet(path: Path, clips: Frames, frames: Sequence[int] = SHEET_FRAMES) -> None:
    """(n, f, H, W, 3) clips -> one PNG, a row each."""
    columns = [i for i in frames if i < clips.shape[1]]
    Image.fromarray(rearrange(clips[:, columns], "n f h w c -> (n h) (f w) c")).save(path)
