"""Training of the geometry networks: depth, ego-motion, and the closed-form view encoder."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reverie.errors import DataError
from reverie.models.actions import STEP_FRAMES
from reverie.models.conditioning.spatial_memory import SpatialMemory, ViewEncoder
from reverie.models.depth import BODY_LOGIT, DepthNet
from reverie.models.ego_motion import MOTION_SCALE, EgoMotionNet, apply_motion
from reverie.models.pixels import to_pixels
from reverie.train.spatial.store import Store, half_size

MAX_MOTION = 60.0
"""A step with a motion of more usual ones than this is a jump (a respawn), not a motion."""
CHECKED_STEPS = 6
"""Steps of own motions, about a second, after which the camera is compared."""
UNROLLED_STEPS = 1
"""Steps that the ego-motion network goes on from its own motions in training: at equal time, 8 were worse than 1."""

Say = Callable[[str], None]


def lr_at(fraction: float, step: int, peak: float) -> float:
    """Warm-up over 40 steps, then linearly to zero."""
    return peak * (1 - fraction) * min(1.0, (step + 1) / 40)


def train_depth(network: DepthNet, store: Store, seconds: float, batch: int = 64) -> int:
    """Fits the depth network to engine depth and body masks.  Returns the number of updates."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    frames = half_size(store.key_colour) if store.device.type == "cpu" else None
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3, weight_decay=0.02)
    target, body = store.key_depth.clamp(0.05, 400).log(), store.key_hidden
    generator = torch.Generator(store.device).manual_seed(0)
    started, step = time.monotonic(), 0
    while (spent := time.monotonic() - started) < seconds:
        for group in optimizer.param_groups:
            group["lr"] = lr_at(spent / seconds, step, 3e-3)
        k = torch.randint(len(target), (batch,), device=store.device, generator=generator)
        x = half_size(store.key_colour[k]) if frames is None else frames[k]
        y, mask = target[k], body[k].float()
        if step % 2:
            x, y, mask = x.flip(-1), y.flip(-1), mask.flip(-1)
        x = x + torch.randn(x.shape, device=x.device, generator=generator) * 0.03
        if step % 3 == 0:  # generated frames are softer than the game's
            x = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="bilinear")
        with store.autocast():
            log_depth, logits = network(x.contiguous(memory_format=torch.channels_last))
        error = log_depth - y
        slope = (error[:, :, 1:] - error[:, :, :-1]).abs().mean() + (error[:, 1:] - error[:, :-1]).abs().mean()
        loss = error.abs().mean() + 0.5 * slope + 0.3 * F.binary_cross_entropy_with_logits(logits, mask)
        _step(loss, network, optimizer)
        step += 1
    network.eval().requires_grad_(False)
    return step


@torch.no_grad()
def check_depth(network: DepthNet, store: Store) -> dict[str, dict[str, float]]:
    """Median relative errors of depth, and of bodies recall and false alarms, for each game."""
    parts = []
    for i in range(0, len(store.key_depth), 64):
        with store.autocast():
            parts.append(network(half_size(store.key_colour[i : i + 64])))
    log_depth, logits = (torch.cat(x) for x in zip(*parts, strict=True))
    game = store.game[store.key_step.cpu().numpy()]
    found = {}
    for number, name in enumerate(store.games):
        mine = torch.from_numpy(game == number).to(store.device)
        if not mine.any():
            continue
        true = store.key_depth[mine].clamp(0.05, 400).log()
        error = ((log_depth[mine] - true).abs().exp() - 1).flatten()
        near = error[(true < 4).flatten()]
        body, said = store.key_hidden[mine], logits[mine] > BODY_LOGIT
        found[name] = {
            "depth_error": _median(error),
            "depth_error_near": _median(near),
            "body_recall": ((said & body).sum() / body.sum().clamp(min=1)).item(),
            "body_false": (said & ~body).float().mean().item(),
        }
    return found


class EgoMotionWalks:
    """Recorded walks of `num_steps` latent steps, along which the network goes on from its own motions.

    steps: numpy, where they may begin: not at an episode's start, and without jumps.
    """

    def __init__(self, store: Store, num_steps: int) -> None:
        self.store, self.num_steps = store, num_steps
        begin = np.arange(2, store.count - num_steps + 1)
        jump = (store.motion.abs() / store.motion.new_tensor(MOTION_SCALE)).amax((1, 2)).cpu().numpy() >= MAX_MOTION
        jumps = np.concatenate([[0], np.cumsum(jump)])
        same = store.episode[begin - 2] == store.episode[begin + num_steps - 1]
        self.steps = begin[same & (jumps[begin + num_steps] == jumps[begin - 1])]
        if not len(self.steps):
            raise DataError(
                f"expected an episode of at least {num_steps + 2} latent steps ({4 * num_steps + 5} frames) without a "
                "jump, got none; record longer ones"
            )

    def unroll(
        self, network: EgoMotionNet, step: Tensor, fresh: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Motions made and recorded, (b, j, 4, 6) each, of the steps from `step` (b,) on.

        fresh: (b,) bool, the step before is a session's first: nothing is known yet.  generator: of what disturbs the
        inputs as play does; None: they are as recorded.
        """
        d = self.store
        new = (torch.zeros(len(step), dtype=torch.bool, device=d.device) if fresh is None else fresh)[:, None, None]

        def noise(like: Tensor) -> Tensor:
            if generator is None:
                return torch.zeros_like(like)
            return torch.randn(like.shape, device=d.device, generator=generator)

        level = 0.4 * noise(d.motion[step][:, :1, :1, None]).abs().clamp(max=1)
        history = torch.where(new, 0.0, torch.cat([d.actions[step - 2], d.actions[step - 1]], 1))
        motion = torch.where(new, 0.0, torch.cat([d.motion[step - 2], d.motion[step - 1]], 1))
        motion = motion * (1 + 0.1 * noise(motion[:, :1, :1])) + 0.15 * network.scale * noise(motion)
        tilt, made = d.pose[step - 1, 3, 4:6], []
        for j in range(self.num_steps):
            i = step + j
            latent = d.z[i - 1].float()
            if j == 0:
                latent = torch.where(new[..., None], d.still[i - 1].float(), latent)
            actions = torch.cat([history, d.actions[i]], 1)
            ahead = d.ahead[i - 1] + 0.1 * noise(d.ahead[i - 1])
            made.append(network(latent + level * noise(latent), actions, motion, tilt, ahead))
            history, motion = actions[:, STEP_FRAMES:], torch.cat([motion[:, STEP_FRAMES:], made[-1]], 1)
            tilt = tilt + made[-1][..., 4:6].sum(1)
        return torch.stack(made, 1), torch.stack([d.motion[step + j] for j in range(self.num_steps)], 1)


def camera_error(made: Tensor, recorded: Tensor) -> Tensor:
    """Poses after every frame of motions (b, n, 6), made minus recorded, both from the origin: (b, n, 6)."""
    pose = torch.zeros(2, len(made), 6, device=made.device)
    errors = []
    for motion in torch.stack([made, recorded]).unbind(2):
        pose = apply_motion(pose, motion)
        errors.append(pose[0] - pose[1])
    return torch.stack(errors, 1)


def ego_motion_loss(made: Tensor, recorded: Tensor, scale: Tensor) -> Tensor:
    """Loss of each frame's motion, and of the camera pose after every step; motions (b, j, 4, 6) of a walk."""
    frame = (made - recorded) / scale
    off = camera_error(made.flatten(1, 2), recorded.flatten(1, 2))[:, STEP_FRAMES - 1 :: STEP_FRAMES]
    gone = torch.arange(1, made.shape[1] + 1, device=made.device)[:, None] * STEP_FRAMES
    off = off / (scale * gone.sqrt())
    return sum(F.smooth_l1_loss(x, torch.zeros_like(x), beta=0.3) for x in (frame, off))  # type: ignore[return-value]


def train_ego_motion(network: EgoMotionNet, store: Store, seconds: float, batch: int = 64) -> int:
    """Fits the ego-motion network to recorded walks, going on from its own motions.  Returns the number of updates."""
    walks, device = EgoMotionWalks(store, UNROLLED_STEPS), store.device
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.01)
    share = 1 / np.bincount(store.game, minlength=len(store.games)).clip(1)[store.game[walks.steps]]
    bounds = torch.from_numpy(np.cumsum(share / share.sum())).float().to(device)
    steps = torch.from_numpy(walks.steps).to(device)
    generator = torch.Generator(device).manual_seed(1)
    started, count = time.monotonic(), 0
    while (spent := time.monotonic() - started) < seconds:
        for group in optimizer.param_groups:
            group["lr"] = lr_at(spent / seconds, count, 2e-3)
        drawn = torch.rand(2, batch, device=device, generator=generator)
        k = steps[torch.searchsorted(bounds, drawn[0]).clamp(max=len(steps) - 1)]
        made, recorded = walks.unroll(network, k, drawn[1] < 0.1, generator)
        _step(ego_motion_loss(made, recorded, network.scale), network, optimizer)
        count += 1
    network.eval().requires_grad_(False)
    return count


@torch.no_grad()
def check_ego_motion(
    network: EgoMotionNet, store: Store, num_steps: int = CHECKED_STEPS
) -> dict[str, dict[str, float]]:
    """The camera after `num_steps` of its own motions, for each game: metres gone and off, degrees of yaw off."""
    found = {}
    walks = EgoMotionWalks(store, num_steps)
    for number, name in enumerate(store.games):
        mine = torch.from_numpy(walks.steps[store.game[walks.steps] == number][::5])
        if not len(mine):
            continue
        parts = [walks.unroll(network, part) for part in mine.to(store.device).split(256)]
        found[name] = _drift(*(torch.cat(part).flatten(1, 2) for part in zip(*parts, strict=True)))
    return found


def _drift(made: Tensor, recorded: Tensor) -> dict[str, float]:
    """Metres gone, and the last camera's error.  made, recorded: (n, t, 6) motions."""
    off = camera_error(made, recorded)[:, -1]
    way = camera_error(recorded, torch.zeros_like(recorded))[:, -1, :3].norm(dim=1)
    off_m, yaw = off[:, :3].norm(dim=1), ((off[:, 3] + 180) % 360 - 180).abs()
    return {
        "way_m": way.mean().item(),
        "off_m": off_m.mean().item(),
        "off_m_median": _median(off_m),
        "yaw_deg": yaw.mean().item(),
        "yaw_deg_median": _median(yaw),
    }


@torch.no_grad()
def fit_view_encoder(encoder: ViewEncoder, store: Store, samples: int = 4000, ridge: float = 1e-3) -> float:
    """Least squares from four half-size frames to the tokenizer's latent.  Returns the share left unexplained."""
    inside = np.setdiff1d(np.arange(store.count), store.first[:-1])
    chosen = np.random.default_rng(0).choice(inside, min(len(inside), samples), replace=False)
    steps = torch.from_numpy(chosen).to(store.device)
    conv = encoder.conv
    kernel, stride, padding = conv.kernel_size[0], conv.stride[0], int(conv.padding[0])
    size = conv.in_channels * kernel * kernel + 1
    gram = torch.zeros(size, size, dtype=torch.float64, device=store.device)
    cross = torch.zeros(size, conv.out_channels, dtype=torch.float64, device=store.device)
    for part in steps.split(64):
        x = encoder.inputs(to_pixels(store.views[part]))
        columns = F.unfold(x, kernel, padding=padding, stride=stride).transpose(1, 2).flatten(0, 1).double()
        columns = torch.cat([columns, torch.ones_like(columns[:, :1])], 1)
        gram += columns.T @ columns
        cross += columns.T @ store.z[part].flatten(2).transpose(1, 2).flatten(0, 1).double()
    gram += torch.eye(size, dtype=torch.float64, device=store.device) * gram[-1, -1] * ridge
    weights = torch.linalg.solve(gram, cross).float()
    conv.weight.copy_(weights[:-1].T.unflatten(1, conv.weight.shape[1:]))
    assert conv.bias is not None
    conv.bias.copy_(weights[-1])
    encoder.requires_grad_(False)
    error = [
        (conv(encoder.inputs(to_pixels(store.views[part]))) - store.z[part].float()).square().mean().item()
        for part in steps[:640].split(64)
    ]
    return float(np.mean(error)) / store.z[steps].float().var().item()


def train_depth_of(memory: SpatialMemory, train: Store, held_out: Store, seconds: float, say: Say, batch: int) -> None:
    """Trains the depth network of a spatial memory, with figures on held-out recordings."""
    updates = train_depth(memory.depth, train, seconds, batch)
    for name, figures in check_depth(memory.depth, held_out).items():
        say(f"depth {name}, {updates} updates: " + _words(figures))


def train_ego_motion_of(
    memory: SpatialMemory, train: Store, held_out: Store, seconds: float, say: Say, batch: int
) -> None:
    """Trains the ego-motion network, and fits the view encoder.  Both stores have their depth measured."""
    updates = train_ego_motion(memory.ego_motion, train, seconds, batch)
    for name, figures in check_ego_motion(memory.ego_motion, held_out).items():
        say(f"ego-motion {name}, {updates} updates: " + _words(figures))
    say(f"view encoder: {fit_view_encoder(memory.view_encoder, train):.4f} of the variance unexplained")


def _words(figures: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in figures.items())


def _median(values: Tensor) -> float:
    return values.float().median().item() if values.numel() else float("nan")


def _step(loss: Tensor, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
