"""An Oasis-style rival for nano: the published design of open-oasis (Decart and Etched, 2024) at nano's size.

Per-frame latents; spatial attention within a frame and causal attention over time at each place, in turns; the action
added to the timestep embedding; diffusion forcing (each frame of a clip has its own noise level, Chen et al. 2024,
arXiv 2407.01392); v-prediction under a sigmoid noise schedule; ten DDIM steps a frame; lightly noised context.  Our own
code from that description.  Two departures, in its favour: rotary positions everywhere, and keys and values of past
frames are kept instead of computed again in every step.

    python bench/rivals/oasis.py train --data rec/vizdoom --tokenizer runs/tok -o runs/oasis --minutes 60
    reverie evaluate bench/rivals/oasis.py:runs/oasis --data rec/vizdoom-heldout -o runs/oasis-report

Letters: b clips, f frames, n tokens of a frame, d width.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import tyro
from einops import rearrange
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F

from reverie.cli import use_malloc_hints
from reverie.cli.display import TrainingDisplay
from reverie.data.dataset import Dataset
from reverie.engine.media.images import load_image
from reverie.errors import CheckpointError, DataError, TrainError
from reverie.models.checkpoint import from_json, load_weights, save_trained, save_weights, to_json, write_json_atomic
from reverie.models.tokenizer import VideoTokenizer
from reverie.nn.attention import attend
from reverie.nn.rope import rotary_table, rotate
from reverie.train.config import TrainerConfig
from reverie.train.task import Task
from reverie.train.tokenizer import load_tokenizer
from reverie.train.trainer import Trainer
from reverie.types import FPS, Action, ActionSpace, Frames
from reverie.vision.pixels import to_frames, to_pixels

KIND = "reverie.rival.oasis"
LEVELS = 1000
CONTEXT_LEVEL = 15
"""Noise level of context, of LEVELS: the published `stabilization level`."""

DDIM_STEPS = 10
TURN_SCALE = 0.2
ENCODE_CHUNK = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class OasisConfig:
    """Sizes; the default has about nano's 8 million parameters.  window: frames that attention over time reaches."""

    action_space: ActionSpace
    resolution: tuple[int, int] = (128, 224)
    channels: int = 16
    patch: int = 2
    dim: int = 192
    layers: int = 6
    heads: int = 6
    window: int = 16

    @property
    def grid(self) -> tuple[int, int]:
        """Tokens of a frame, down and across."""
        return self.resolution[0] // 8 // self.patch, self.resolution[1] // 8 // self.patch


@dataclass(slots=True)
class Memory:
    """Keys and values of the frames before, by layer: (b n, h, f, d) each."""

    layers: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    frames: int = 0


class Attention(nn.Module):
    """Self-attention over the second axis of (b, n, d), with rotary positions."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim)

    def split(self, x: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (rearrange(part, "b n (h d) -> b n h d", h=self.heads) for part in self.qkv(x).chunk(3, -1))
        q, k = rotate(q, table), rotate(k, table)
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)

    def join(self, x: Tensor) -> Tensor:
        return self.out(rearrange(x, "b h n d -> b n (h d)"))


class Half(nn.Module):
    """Attention and a feed-forward, each modulated by the frame's condition (adaLN-zero)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.attention = Attention(dim, heads)
        self.feed = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU("tanh"), nn.Linear(4 * dim, dim))
        self.modulation = nn.Sequential(nn.SiLU(), _zero(nn.Linear(dim, 6 * dim)))


class OasisModel(nn.Module):
    """Noisy frames, their noise levels and actions in; v out."""

    def __init__(self, config: OasisConfig) -> None:
        super().__init__()
        self.config = config
        dim, patch = config.dim, config.channels * config.patch**2
        self.patch = nn.Linear(patch, dim)
        self.level = nn.Sequential(nn.Linear(256, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.action = nn.Linear(config.action_space.size, dim)
        self.space = nn.ModuleList(Half(dim, config.heads) for _ in range(config.layers))
        self.time = nn.ModuleList(Half(dim, config.heads) for _ in range(config.layers))
        self.head_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 2 * dim))
        self.head = _zero(nn.Linear(dim, patch))
        rows, columns = config.grid
        where = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"), -1).flatten(0, 1)
        pairs = dim // config.heads // 2
        self.register_buffer("places", rotary_table(where, (pairs // 2, pairs - pairs // 2), 100.0), persistent=False)

    def forward(
        self, x: Tensor, level: Tensor, rows: Tensor, memory: Memory | None = None, keep: bool = False
    ) -> Tensor:
        """x: (b, f, c, h, w); level: (b, f) in 0 .. LEVELS - 1; rows: (b, f, a), the action that led to each frame.

        memory: frames before these, which they see.  keep: let these frames into it.  Returns v, as x.
        """
        config = self.config
        batch, frames = x.shape[:2]
        rows_, columns = config.grid
        tokens = self.patch(rearrange(x, "b f c (h p) (w q) -> b f (h w) (c p q)", p=config.patch, q=config.patch))
        cond = self.level(_sinusoid(level)) + self.action(rows)
        first = memory.frames if memory is not None else 0
        pairs = config.dim // config.heads // 2
        times = rotary_table(torch.arange(first, first + frames, device=x.device)[:, None], (pairs,), 10_000.0)
        for layer, (space, time) in enumerate(zip(self.space, self.time, strict=True)):
            tokens = self._within(space, tokens, cond)
            tokens = self._across(time, tokens, cond, times, memory, layer, keep)
        if memory is not None and keep:
            memory.frames += frames
        shift, scale = self.head_modulation(cond)[:, :, None].chunk(2, -1)
        out = self.head(_norm(tokens) * (1 + scale) + shift)
        shape = {"h": rows_, "w": columns, "p": config.patch, "q": config.patch, "b": batch}
        return rearrange(out, "b f (h w) (c p q) -> b f c (h p) (w q)", **shape)

    def _within(self, half: Any, x: Tensor, cond: Tensor) -> Tensor:
        """Attention among the tokens of each frame."""
        frames = x.shape[1]

        def mix(y: Tensor) -> Tensor:
            q, k, v = half.attention.split(rearrange(y, "b f n d -> (b f) n d"), self.places)
            return rearrange(half.attention.join(attend(q, k, v)), "(b f) n d -> b f n d", f=frames)

        return _modulated(half, x, cond, mix)

    def _across(
        self, half: Any, x: Tensor, cond: Tensor, times: Tensor, memory: Memory | None, layer: int, keep: bool
    ) -> Tensor:
        """Attention at each place over the frames up to each frame, `window` of them at most."""
        tokens, frames, window = x.shape[2], x.shape[1], self.config.window

        def mix(y: Tensor) -> Tensor:
            q, k, v = half.attention.split(rearrange(y, "b f n d -> (b n) f d"), times)
            if memory is not None and layer < len(memory.layers):
                k, v = (torch.cat(both, 2) for both in zip(memory.layers[layer], (k, v), strict=True))
            if memory is not None and keep:
                kept = (k[:, :, 1 - window :], v[:, :, 1 - window :])
                memory.layers[layer : layer + 1] = [kept]
            age = torch.arange(k.shape[2] - frames, k.shape[2])[:, None] - torch.arange(k.shape[2])
            mask = None if frames == 1 else ((age >= 0) & (age < window)).to(y.device)
            return rearrange(half.attention.join(attend(q, k, v, mask)), "(b n) f d -> b f n d", n=tokens)

        return _modulated(half, x, cond, mix)


def _modulated(half: Any, x: Tensor, cond: Tensor, mix: Any) -> Tensor:
    shift, scale, gate, shift2, scale2, gate2 = half.modulation(cond)[:, :, None].chunk(6, -1)
    x = x + gate * mix(_norm(x) * (1 + scale) + shift)
    return x + gate2 * half.feed(_norm(x) * (1 + scale2) + shift2)


def _zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


def _sinusoid(level: Tensor) -> Tensor:
    frequency = torch.exp(-np.log(10_000.0) * torch.arange(128, device=level.device) / 128)
    angle = level.float()[..., None] * frequency
    return torch.cat((angle.cos(), angle.sin()), -1)


def signal_shares() -> Tensor:
    """The sigmoid schedule's cumulated alphas, (LEVELS,): from nearly 1 down to nearly 0 (Jabri et al. 2022)."""
    t = torch.linspace(0, 1, LEVELS + 1, dtype=torch.float64)
    start, end = torch.sigmoid(torch.tensor(-3.0)), torch.sigmoid(torch.tensor(3.0))
    shares = (end - torch.sigmoid(6 * t - 3)) / (end - start)
    betas = (1 - shares[1:] / shares[:-1]).clamp(0, 0.999)
    return (1 - betas).cumprod(0).float()


def scaled(space: ActionSpace, rows: Tensor) -> Tensor:
    """Action rows with turns brought to the size of keys."""
    return torch.cat((rows[..., : len(space.keys)], rows[..., len(space.keys) :] * TURN_SCALE), -1)


# ------------------------------------------------------------------------------------------------------- training


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Train the rival on a recording.

    Example: python bench/rivals/oasis.py train --data rec --tokenizer runs/tok -o runs/oasis --minutes 60
    """

    data: Path
    tokenizer: Path
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    minutes: float | None = None
    steps: int | None = None
    max_hours: float | None = None
    batch: int = 4
    dim: int = 192
    layers: int = 6
    window: int = 16
    lr: float = 1.5e-3
    seed: int = 0
    device: str = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"

    def run(self) -> None:
        use_malloc_hints(self.device)
        train(self)


class OasisTask(Task):
    """Diffusion forcing on clips of `window` frames.  z: (n, c, h, w) latents; rows: (n, a), what led to each frame."""

    def __init__(
        self,
        model: OasisModel,
        config: TrainConfig,
        tokenizer: VideoTokenizer,
        z: npt.NDArray[np.float16],
        rows: npt.NDArray[np.float32],
        episode: npt.NDArray[np.int32],
    ) -> None:
        self.model = self.oasis = model
        self.config, self.tokenizer, self.z, self.rows = config, tokenizer, z, rows
        last = np.arange(len(z)) + config.window - 1
        inside = last < len(z)
        inside[inside] = episode[last[inside]] == episode[np.flatnonzero(inside)]
        self.starts = np.flatnonzero(inside)
        if not len(self.starts):
            raise DataError(f"no episode holds {config.window} frames; record longer ones")
        self.shares = signal_shares()

    def batch(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        picks = rng.choice(self.starts, self.config.batch)[:, None] + np.arange(self.config.window)
        return torch.from_numpy(np.asarray(self.z[picks], np.float32)), torch.from_numpy(self.rows[picks])

    def loss(self, batch: tuple[Tensor, Tensor], generator: torch.Generator) -> tuple[Tensor, Mapping[str, Any]]:
        z, rows = batch
        level = torch.randint(0, LEVELS, z.shape[:2], generator=generator, device=z.device)
        eps = torch.randn(z.shape, generator=generator, device=z.device)
        share = self.shares.to(z.device)[level][..., None, None, None]
        x = share.sqrt() * z + (1 - share).sqrt() * eps
        v = share.sqrt() * eps - (1 - share).sqrt() * z
        guess = self.oasis(x, level, scaled(self.oasis.config.action_space, rows))
        error = (guess.float() - v).square().mean()
        return error, {"v_mse": error}

    def export(self, folder: Path, summary: dict[str, Any]) -> None:
        save_weights(folder / "oasis.safetensors", self.oasis)
        (folder / "tokenizer").mkdir(exist_ok=True)
        save_trained(folder / "tokenizer", "tokenizer", self.tokenizer, {})
        write_json_atomic(
            folder / "config.json", {"kind": KIND, "oasis": to_json(self.oasis.config), "training": summary}
        )


def train(config: TrainConfig) -> dict[str, float]:
    """Train as told.  Raises DataError and CheckpointError for what is missing."""
    if config.window < 2 or config.batch < 1:
        raise TrainError(f"expected a window of at least 2 frames and a batch, got {config.window} and {config.batch}")
    torch.manual_seed(config.seed)
    dataset = Dataset(config.data)
    tokenizer = load_tokenizer(config.tokenizer)
    z, rows, episode = load_frames(dataset, tokenizer, config.output / "frames", config.max_hours)
    model = OasisModel(
        OasisConfig(
            action_space=dataset.action_space,
            resolution=dataset.resolution,
            dim=config.dim,
            layers=config.layers,
            window=config.window,
        )
    )
    trainer = TrainerConfig(
        folder=config.output,
        steps=config.steps,
        minutes=config.minutes,
        seed=config.seed,
        lr=config.lr,
        muon=True,
        warmup_steps=40,
        decay=0.4,
        device=config.device,
        dtype=config.dtype,
        validate_first=False,
    )
    task = OasisTask(model, config, tokenizer, z, rows, episode)
    return Trainer(task, trainer, display=TrainingDisplay()).run()


@torch.inference_mode()
def load_frames(
    dataset: Dataset, tokenizer: VideoTokenizer, cache: Path, max_hours: float | None
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Every frame as a latent of its own, the action that led to it, and its episode; kept in `cache`."""
    names = ("z", "rows", "episode")
    stamp = cache / "frames.json"
    wanted = {"data": str(dataset.path.resolve()), "frames": dataset.num_frames, "max_hours": max_hours}
    if not (stamp.is_file() and json.loads(stamp.read_text()) == wanted):
        cache.mkdir(parents=True, exist_ok=True)
        budget = dataset.num_frames if max_hours is None else max_hours * 3600 * FPS
        parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
        done = 0
        for index in track(np.random.default_rng(0).permutation(dataset.num_episodes), "encoding"):
            if done >= budget:
                break
            clip = dataset.clip(int(index))
            parts["z"].append(encode_frames(tokenizer, clip.frames))
            parts["rows"].append(np.concatenate((np.zeros_like(clip.actions[:1]), clip.actions[:-1])))
            parts["episode"].append(np.full(len(clip.frames), index, np.int32))
            done += len(clip.frames)
        for name in names:
            np.save(cache / f"{name}.npy", np.concatenate(parts[name]))
        write_json_atomic(stamp, wanted)
    z, rows, episode = (np.load(cache / f"{name}.npy", mmap_mode="r" if name == "z" else None) for name in names)
    return z, rows, episode


def encode_frames(tokenizer: VideoTokenizer, frames: Frames) -> npt.NDArray[np.float16]:
    """Frames (f, H, W, 3), each as a picture of its own: (f, c, h, w)."""
    pixels = to_pixels(rearrange(torch.from_numpy(np.array(frames)), "f h w c -> f 1 c h w"))
    chunks = [tokenizer.encode(part)[:, 0].half() for part in pixels.split(ENCODE_CHUNK)]
    return torch.cat(chunks).numpy()


# -------------------------------------------------------------------------------------------------------- dreaming


class OasisEngine:
    """What `reverie evaluate` asks of a dreamer."""

    block_frames = 1
    fps = FPS

    def __init__(self, name: str, model: OasisModel, tokenizer: VideoTokenizer, device: torch.device) -> None:
        self.name, self.model, self.tokenizer, self.device = name, model, tokenizer, device
        self.dtype = torch.float32
        self.action_space, self.resolution = model.config.action_space, model.config.resolution

    def open(self, image: Any, seed: int = 0) -> OasisDream:
        """A dream that starts in `image`, any that `reverie.load(...).open` takes."""
        return OasisDream(self, load_image(image, self.resolution), seed)


class OasisDream:
    """A session: ten DDIM steps a frame, then the frame is let into the memory with a little noise."""

    block_frames = 1

    def __init__(self, engine: OasisEngine, picture: Frames, seed: int) -> None:
        self._engine = engine
        self._memory = Memory()
        self._generator = torch.Generator().manual_seed(seed)
        self._shares = signal_shares()
        with torch.inference_mode():
            pixels = to_pixels(torch.from_numpy(np.array(picture))[None, None].permute(0, 1, 4, 2, 3))
            z = engine.tokenizer.encode(pixels.to(engine.device))
            self._commit(z, torch.zeros(1, 1, engine.action_space.size))

    @torch.inference_mode()
    def step(self, action: Action | Sequence[Action]) -> Frames:
        """One frame under each action: (f, H, W, 3)."""
        actions = [action] if isinstance(action, Action) else list(action)
        rows = torch.from_numpy(self._engine.action_space.encode(actions))[None]
        return np.concatenate([self._next(rows[:, i : i + 1]) for i in range(len(actions))])

    def close(self) -> None:
        self._memory = Memory()

    def _next(self, rows: Tensor) -> Frames:
        engine, config = self._engine, self._engine.model.config
        height, width = config.resolution
        shape = (1, 1, config.channels, height // 8, width // 8)
        x = self._noise(shape)
        asked = scaled(config.action_space, rows).to(engine.device)
        levels = torch.linspace(-1, LEVELS - 1, DDIM_STEPS + 1).round().long().flip(0)
        for level, following in pairwise(levels):
            v = engine.model(x, level.expand(1, 1).to(engine.device), asked, self._memory)
            share = self._shares[level]
            clean = share.sqrt() * x - (1 - share).sqrt() * v
            eps = (1 - share).sqrt() * x + share.sqrt() * v
            left = self._shares[following] if following >= 0 else torch.tensor(1.0)
            x = left.sqrt() * clean + (1 - left).sqrt() * eps
        self._commit(x, rows)
        return to_frames(engine.tokenizer.decode(x)[0])

    def _commit(self, z: Tensor, rows: Tensor) -> None:
        share = self._shares[CONTEXT_LEVEL]
        x = share.sqrt() * z + (1 - share).sqrt() * self._noise(z.shape)
        level = torch.full((1, 1), CONTEXT_LEVEL, device=z.device)
        asked = scaled(self._engine.action_space, rows).to(z.device)
        self._engine.model(x, level, asked, self._memory, keep=True)

    def _noise(self, shape: Sequence[int]) -> Tensor:
        return torch.randn(tuple(shape), generator=self._generator).to(self._engine.device)


def load(folder: Path, device: str = "cpu") -> OasisEngine:
    """The rival in `folder`.  Raises CheckpointError."""
    path = folder / "config.json"
    try:
        raw = json.loads(path.read_text())
        if raw["kind"] != KIND:
            raise CheckpointError(f"{path} is of kind {raw['kind']!r}, expected {KIND!r}")
        model = OasisModel(from_json(OasisConfig, raw["oasis"]))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; train it first: python bench/rivals/oasis.py train") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is not the config of this rival: {error}") from error
    load_weights(folder / "oasis.safetensors", model)
    place = torch.device("cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu"))
    return OasisEngine(folder.name, model.to(place).eval(), load_tokenizer(folder / "tokenizer").to(place), place)


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"train": TrainConfig}, args=sys.argv[1:]).run()
