"""Fitting what moves the picture, before a world is trained on it (`reverie.models.camera.Motion`).

The network is small and its task is local, so minutes teach it what the transformer would need hours for: that walking
makes the picture grow, that a road comes nearer, that the car which is steered stays where it is.  It is told so: the
optical flow of the recordings is measured (`reverie.models.motion`), and learnt where it can be trusted.  The error of
the next latent alone finds small moves only, because pictures that are far apart say nothing of which way to go; it
teaches which cells stay.  Half of the steps start from what was made of the step before, as all do in play.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from einops import rearrange
from rich.progress import Progress
from torch import Tensor

from reverie.errors import CheckpointError, TrainError
from reverie.models.actions import STEP_FRAMES
from reverie.models.camera import Camera, Motion, TurnedStep, covered, sample, screen, turned_places
from reverie.models.checkpoint import load_model, load_weights, save_model, save_weights
from reverie.models.dit import WorldModel
from reverie.models.motion import estimate_flow
from reverie.models.pixels import to_frames
from reverie.models.tokenizer import VideoTokenizer
from reverie.models.wan_vae import WanVAE
from reverie.train.latents import Batch, Clips, clips_for
from reverie.train.loop import pick_device, use_malloc_hints
from reverie.train.start_frames import add_start_frames

BATCH, CLIP_STEPS, LR = 16, 4, 2e-3
SEEN = 16
"""How often a clip is drawn: measuring its flow takes ten times as long as learning from it once."""
FLOW_WEIGHT = 20.0
"""Of the mean displacement error, in halves of the picture, beside the squared error of the next latent."""

Decode = Callable[[Tensor], Tensor]
"""Latents (b, t, c, h, w) of clips to their frames (b, 1 + 4 (t - 1), 3, H, W) in [-1, 1]."""


class _Measured(NamedTuple):
    """Clips with the motion that was seen in them: latents (n, t, c, h, w), rows (n, 4 (t - 1), a), the fields that
    `Motion` should say (n, t - 1, 4, 2, h, w) and how far each can be trusted (n, t - 1, 4, 1, h, w)."""

    z: Tensor
    rows: Tensor
    field: Tensor
    trust: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainMotionConfig:
    """Learn on what moves the picture of a finished model; nothing else of it changes.

    Example: reverie train motion --start runs/student/model --data rec -o runs/moved --steps 2000

    start: a model folder of our own.  data, held_out: datasets of its games.  latents: where encoded recordings are
    kept (default: in the run's folder).  anew: from nothing, not from what the model has.  by_key, still_clips, trust,
    canvas: as in `reverie train world`.
    """

    start: Path
    data: tuple[Path, ...]
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    held_out: tuple[Path, ...] = ()
    latents: Path | None = None
    steps: int = 2000
    anew: bool = False
    by_key: float = 0.5
    still_clips: float = 0.05
    trust: float | None = None
    canvas: bool | None = None
    max_hours: float | None = None
    held_out_hours: float = 0.1
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise TrainError(f"expected steps >= 1, got {self.steps}")

    def run(self) -> dict[str, float]:
        """Learn, and write `output`/model; returns the figures on the held-out data."""
        use_malloc_hints(self.device)
        device = pick_device(self.device)
        bundle = load_model(self.start, device)
        world = bundle.model
        if not isinstance(world.turned_step, TurnedStep) or world.turned_step.motion is None:
            raise TrainError(f"{self.start} has no motion network: its preset names none")
        sizes = world.config.finished(self.trust, self.canvas)
        torch.manual_seed(self.seed)
        if self.anew:
            told = world.turned_step.motion.told.in_features
            world.turned_step.motion = Motion(sizes.latent[0], told, sizes.motion).to(device)
        latents = self.latents or self.output / "latents"
        held_out = train = clips_for(bundle, self.data, latents, device, self.max_hours)
        if self.held_out:
            held_out = clips_for(bundle, self.held_out, latents, device, self.held_out_hours)
        decode = decoder(bundle.tokenizer)
        found = fit_motion(
            world, decode, train, held_out, self.steps, device,
            by_key=self.by_key, still=self.still_clips, seed=self.seed,
        )  # fmt: skip
        summary = bundle.config.summary | {"motion": found | {"steps": self.steps}}
        config = dataclasses.replace(bundle.config, world=sizes, summary=summary)
        save_model(self.output / "model", dataclasses.replace(bundle, config=config))
        add_start_frames(self.output / "model", self.data, start=self.start)
        return found


def fit_motion(
    world: WorldModel,
    decode: Decode,
    train: Clips,
    held_out: Clips,
    steps: int,
    device: torch.device,
    file: Path | None = None,
    by_key: float = 0.5,
    still: float = 0.15,
    seed: int = 0,
) -> dict[str, float]:
    """Train the motion network of `world` for `steps` steps, and fix it.  file: where it is kept then; if it is there
    already, it is read instead.

    by_key, still: of clips, as `Clips.draw` takes them; where nobody moves everything stays, exactly.

    Returns, of held-out clips, the squared errors of the step before as a guess of the next, turned (`turned_mse`), and
    turned and moved (`moved_mse`); and the mean distance, in pixels of the latent grid's 8, between the measured flow
    and none (`turned_flow_px`), or the network's (`moved_flow_px`).
    """
    step = world.turned_step
    assert isinstance(step, TurnedStep)
    motion = step.motion
    assert motion is not None
    world.to(device)
    clips = _Measured(*(x.to(device).float() for x in _measure(world, decode, held_out.spread(48, CLIP_STEPS))))
    step.motion = None
    turned = _figures(world, clips)
    step.motion = motion
    if file is None or not _known(motion, file):
        rng = np.random.default_rng(seed)
        rounds = max(1, steps // SEEN)
        seen = _collect(world, decode, lambda: train.draw(rng, BATCH, CLIP_STEPS, by_key, still), rounds)
        _train(world, motion, seen, steps, device, seed)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            save_weights(file, motion, None)
    moved = _figures(world, clips)
    return {f"{name}_{key}": value for name, of in (("turned", turned), ("moved", moved)) for key, value in of.items()}


def decoder(tokenizer: VideoTokenizer | WanVAE) -> Decode:
    """A tokenizer's, for latents on any device."""
    device = next(tokenizer.parameters()).device
    return lambda z: tokenizer.decode(z.to(device))


def _collect(world: WorldModel, decode: Decode, draw: Callable[[], Batch], rounds: int) -> _Measured:
    with Progress() as progress:
        each = progress.track(range(rounds), description="measuring what moves")
        parts = [_measure(world, decode, draw()) for _ in each]
    return _Measured(*(torch.cat(x) for x in zip(*parts, strict=True)))


def _train(world: WorldModel, motion: Motion, clips: _Measured, steps: int, device: torch.device, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    motion.requires_grad_(True)
    optimizer = torch.optim.AdamW(motion.parameters(), lr=LR, weight_decay=1e-3, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=max(steps, 2), pct_start=0.1)
    with Progress() as progress:
        for _ in progress.track(range(steps), description="learning what moves"):
            picks = torch.randint(len(clips.z), (BATCH,), generator=generator)
            mse, distance = _errors(world, _Measured(*(x[picks].to(device).float() for x in clips)), generator)
            optimizer.zero_grad()
            (mse + FLOW_WEIGHT * distance).backward()
            torch.nn.utils.clip_grad_norm_(motion.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    motion.requires_grad_(False)


def _errors(world: WorldModel, clips: _Measured, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """The squared error of the next latents, and the mean distance to the measured flow in halves of the picture.

    With a generator, half of the steps after a clip's first start from what was made of the step before them.
    """
    step, channels = world.turned_step, world.config.latent[0]
    assert isinstance(step, TurnedStep)
    turns, told = world.what_moves(clips.rows)
    h, w = clips.z.shape[-2:]
    unturned = (screen(h, w, turns.device) - turned_places(step.camera, h, w, turns)).movedim(-1, 3)
    z, squares, distances = clips.z[:, 0], [], []
    for i in range(turns.shape[1]):
        moves = step.look(z, turns[:, i], told[:, i])
        guess = step.moved(z, turns[:, i], moves)[:, TurnedStep.MASK_CHANNELS :][:, :channels]
        field = moves.field + moves.fixed.unsqueeze(1) * unturned[:, i]
        after = clips.z[:, i + 1]
        squares.append((guess - after).square().mean())
        distances.append(clips.trust[:, i] * (field - clips.field[:, i]).square().sum(2, keepdim=True).add(1e-8).sqrt())
        z = after
        if generator is not None:
            own = torch.rand(len(z), generator=generator).lt(0.5).to(z.device)
            z = torch.where(own.view(-1, 1, 1, 1), guess.detach(), after)
    return torch.stack(squares).mean(), torch.stack(distances).sum() / clips.trust.sum().clamp(min=1e-6)


@torch.no_grad()
def _figures(world: WorldModel, clips: _Measured) -> dict[str, float]:
    mse, distance = _errors(world, clips)
    return {"mse": mse.item(), "flow_px": distance.item() * clips.z.shape[-1] * 8 / 2}


@torch.no_grad()
def _measure(world: WorldModel, decode: Decode, batch: Batch) -> _Measured:
    """Clips with the motion that is seen in them; in 16 bits, because they are many."""
    camera = world.config.camera
    assert camera is not None
    z, rows, _ = batch
    turns, _ = world.what_moves(rows)
    fields, trusts = [], []
    for clip, turn in zip(z, turns, strict=True):
        frames = decode(clip[None])[0].float().cpu()
        seen = torch.stack([frames[i * STEP_FRAMES :][: 1 + STEP_FRAMES] for i in range(len(turn))])
        field, trust = measured_field(camera, seen, turn.cpu(), (z.shape[-2], z.shape[-1]))
        fields.append(field.half())
        trusts.append(trust.half())
    return _Measured(z.half(), rows.half(), torch.stack(fields), torch.stack(trusts))


def measured_field(camera: Camera, frames: Tensor, turn: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """What `Motion` should say of steps: the flow that the camera's turn leaves to be explained.

    frames: (r, 5, 3, H, W) in [-1, 1], the last frame of the step before and the four after it; turn: (r, 4, 2) degrees
    turned since that last frame; grid: (h, w) of the latents.  The last frame is turned first, so that only what is
    left is searched for.  Returns (r, 4, 2, h, w) in halves of the picture, at most `Motion.MOST`, and how far each
    can be trusted (r, 4, 1, h, w), 0..1.
    """
    height, width = frames.shape[-2:]
    turned = sample(frames[:, 0], turned_places(camera, height, width, turn))
    pairs = torch.stack([frames[:, 1:], turned], 2).flatten(0, 1)
    flows = [estimate_flow(to_frames(pair)) for pair in pairs]
    uv = torch.cat([flow.uv for flow in flows]).movedim(1, -1) * torch.tensor([2 / width, 2 / height])
    uv, trust = (x.unflatten(0, turn.shape[:2]) for x in (uv, torch.cat([flow.weight for flow in flows])))
    here, aspect = screen(uv.shape[2], uv.shape[3], uv.device), height / width
    source = camera.on_screen(camera.around(here + uv, turn, aspect), aspect)
    field = source - turned_places(camera, uv.shape[2], uv.shape[3], turn)
    trust = trust * covered(source) * (field.abs().amax(-1) < Motion.MOST)
    shares = F.adaptive_avg_pool2d(trust, grid).unsqueeze(2)
    field = rearrange(field * trust.unsqueeze(-1), "r j h w two -> (r j) two h w")
    field = F.adaptive_avg_pool2d(field, grid).unflatten(0, turn.shape[:2])
    return field / shares.clamp(min=1e-6), shares


def _known(motion: Motion, file: Path) -> bool:
    if not file.is_file():
        return False
    try:
        load_weights(file, motion)
    except CheckpointError:  # of another preset or action space
        return False
    return True
