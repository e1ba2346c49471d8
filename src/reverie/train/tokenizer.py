"""Training the video tokenizer: `reverie train tokenizer --data DIR -o RUN --minutes 20`.

Every run ends with a folder of `config.json` and `tokenizer.safetensors`.  Loss: L1, the same on differences between
neighbouring pixels at three scales, and on differences between frames; the decoder gets latents with a little noise.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from reverie.argument_markers import alias
from reverie.data.dataset import Dataset
from reverie.data.loader import ClipLoader
from reverie.errors import CheckpointError, DataError, TrainError
from reverie.hardware import num_cores, synchronize
from reverie.models.checkpoint import KIND as MODEL_KIND
from reverie.models.checkpoint import from_json, load_model, load_trained, save_trained
from reverie.models.tokenizer import TokenizerConfig, VideoTokenizer, nano, tiny
from reverie.train.config import SavedLoopOptions, trainer_config
from reverie.train.device import pick_dtype
from reverie.train.display import SILENT, Display
from reverie.train.pca import fit_linear
from reverie.train.task import Task
from reverie.train.trainer import Trainer
from reverie.types import Frames
from reverie.vision.pixels import to_frames, to_pixels

PRESETS = {"nano": nano, "tiny": tiny}
FIT_CLIPS = 96
CLIPS_WORTH_WORKERS = 128
"""Fewer clips are decoded sooner here than worker processes start."""
HELD_OUT_CLIPS = 24
SHEET_COLUMNS = (0, 1, 2, 3, 4, 7, 10, 13, 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerOptions(SavedLoopOptions):
    """Options of trainings of a tokenizer, whole or its decoder alone."""

    data: tuple[Path, ...]
    """Datasets in the LeRobot v3 layout, as many clips of each."""
    output: Annotated[Path, alias("-o")]
    """Folder of the run."""
    held_out: tuple[Path, ...] = ()
    """Datasets for the figures; without any they are on the data itself."""
    batch: int = 6
    """Clips of a batch."""
    clip_frames: int = 13
    """Frames of a clip, 1 + 4n."""
    crop: tuple[int, int] = (64, 112)
    """Height and width of the training crops, multiples of 16."""
    pool_clips: int = 768
    """Clips decoded into memory at the start (33 frames each; at 128x224 that is 2.8 MB)."""
    lr: float = 1e-3
    """Learning rate."""
    noise: float = 0.06
    """The largest deviation of noise on latents before decoding; each clip gets up to this."""
    muon: bool = True
    checkpoint_minutes: float = 4.0
    validate_minutes: float = 4.0

    def __post_init__(self) -> None:
        if self.clip_frames % 4 != 1 or self.batch < 1 or self.pool_clips < 1:
            raise TrainError(
                f"expected clip_frames of 1 + 4n, and batch and pool_clips of at least 1, got {self.clip_frames}, "
                f"{self.batch}, {self.pool_clips}"
            )
        if min(self.crop) < 16 or any(side % 16 for side in self.crop):
            raise TrainError(f"the crop must be multiples of 16, got {self.crop[0]}x{self.crop[1]}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainTokenizerConfig(TokenizerOptions):
    """Train a video tokenizer on a recording.  Example: reverie train tokenizer --data rec -o runs/tok --minutes 20"""

    preset: Literal["nano", "tiny"] = "nano"
    """Size of a new tokenizer."""
    start: Path | None = None
    """A tokenizer's or a model's folder to go on from, whatever the preset; without one, linear maps are fitted."""
    workers: int = 1
    """Threads that make batches ahead."""


class TokenizerTask(Task):
    """The tokenizer's batches, loss, figures and images.  `pool` and `held_out`: clips `(n, f, H, W, 3)` uint8."""

    def __init__(self, tokenizer: VideoTokenizer, config: TokenizerOptions, pool: Frames, held_out: Frames) -> None:
        height, width = pool.shape[2:4]
        if config.crop[0] > height or config.crop[1] > width:
            raise TrainError(f"the crop {config.crop[0]}x{config.crop[1]} is larger than the data's {height}x{width}")
        self.model = self.tokenizer = tokenizer
        self.config, self.pool, self.held_out = config, pool, held_out
        self._reconstructed: Tensor | None = None

    def prefers_adamw(self, name: str) -> bool:
        """The fitted linear maps move slowly."""
        return ".linear." in name

    def lr_factor(self, name: str) -> float:
        """The fitted linear maps move slowly."""
        return 0.05 if ".linear." in name else 1.0

    def batch(self, rng: np.random.Generator) -> Tensor:
        """Crops `b f 3 H W` in uint8, half of them mirrored."""
        (height, width), frames = self.config.crop, self.config.clip_frames
        out = np.empty((self.config.batch, frames, height, width, 3), np.uint8)
        for row in out:
            clip = self.pool[rng.integers(len(self.pool))]
            start = rng.integers(len(clip) - frames + 1)
            top, left = (rng.integers(clip.shape[i] - side + 1) for i, side in ((1, height), (2, width)))
            crop = clip[start : start + frames, top : top + height, left : left + width]
            row[:] = crop[:, :, ::-1] if rng.random() < 0.5 else crop
        return rearrange(torch.from_numpy(out), "b f h w c -> b f c h w")

    def loss(self, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """The sum of all terms, and the terms."""
        video = to_pixels(batch)
        z = self.tokenizer.encode(video)
        level = torch.rand(len(z), 1, 1, 1, 1, device=z.device, generator=generator) * self.config.noise
        noise = torch.randn(z.shape, device=z.device, generator=generator)
        decoded = self.tokenizer.decode(z + level * noise).float()
        error = decoded - video
        l1 = error.abs().mean()
        edges = edge_error(error.flatten(0, 1))
        motion = (error[:, 1:] - error[:, :-1]).abs().mean()
        size = z.float().square().mean()
        loss = l1 + 0.4 * edges + 0.2 * motion + 1e-4 * size
        psnr = -10 * torch.log10(error.detach().square().mean() / 4)
        return loss, {"l1": l1, "edges": edges, "motion": motion, "z2": size, "psnr": psnr}

    def validate(self) -> dict[str, float]:
        """PSNR in dB, the mean over frames: of all, of a stream's first frame, and of the rest."""
        videos, decoded, latents = [], [], []
        for clip in self.held_out:
            video = to_pixels(rearrange(torch.from_numpy(clip[None]), "b f h w c -> b f c h w").to(self.device))
            is_half = pick_dtype(self.config.dtype, self.device) == torch.bfloat16
            with torch.autocast(self.device.type, torch.bfloat16, enabled=is_half):
                z = self.tokenizer.encode(video)
                decoded.append(self.tokenizer.decode(z).float().clamp(-1, 1).cpu())
            latents.append(z.float().cpu())
            videos.append(video.cpu())
        self._reconstructed = torch.cat(decoded)
        psnr = -10 * torch.log10((torch.cat(videos) - self._reconstructed).square().mean((2, 3, 4)) / 4)
        return {
            "psnr": psnr.mean().item(),
            "psnr_first": psnr[:, 0].mean().item(),
            "psnr_rest": psnr[:, 1:].mean().item(),
            "psnr_worst_clip": psnr.mean(1).min().item(),
            "latent_std": torch.cat(latents).std().item(),
        }

    def sample(self, folder: Path, step: int) -> None:
        """A sheet of the eight clips that move most: originals above reconstructions."""
        if self._reconstructed is None:
            return
        moving = np.abs(np.diff(self.held_out.astype(np.int16), axis=1)).mean((1, 2, 3, 4)).argsort()[::-1][:8]
        columns = [i for i in SHEET_COLUMNS if i < self.held_out.shape[1]]
        rows = []
        for clip in moving:
            decoded = to_frames(self._reconstructed[clip])
            rows += [np.concatenate([frames[i] for i in columns], 1) for frames in (self.held_out[clip], decoded)]
        Image.fromarray(np.concatenate(rows, 0)).save(folder / f"tokenizer-{step:07d}.png")

    def export(self, folder: Path, summary: dict[str, Any]) -> None:
        """Write the folder's `config.json` and `tokenizer.safetensors`, with latents brought to unit deviation."""
        normalise(self.tokenizer, self.held_out, self.device)
        timing = time_tokenizer(self.tokenizer, self.held_out)
        save_trained(folder, "tokenizer", self.tokenizer, summary | {"step_ms": timing})


def train_tokenizer(config: TrainTokenizerConfig, display: Display = SILENT) -> dict[str, float]:
    """Trains the tokenizer.  Raises DataError for a missing dataset and TrainError for one too small."""
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    length = max(17, config.clip_frames)
    datasets, held = ([Dataset(path) for path in paths] for paths in (config.data, config.held_out or config.data))
    pool = read_pool(datasets, config.pool_clips, max(33, config.clip_frames), config.seed)
    held_out = read_pool(held, HELD_OUT_CLIPS, length, seed=0)
    if config.start is None:
        tokenizer = VideoTokenizer(PRESETS[config.preset]())
        picks = rng.permutation(len(pool))[:FIT_CLIPS]
        videos = [to_pixels(torch.from_numpy(pool[i][None]).permute(0, 1, 4, 2, 3)) for i in picks]
        fit_linear(tokenizer, videos, config.noise / 2)
    else:
        tokenizer = read_tokenizer(config.start).train().requires_grad_(True)
    options = trainer_config(config, config.output, clip=0.5, warmup_steps=30, decay=0.4, ema=0.99)
    return Trainer(TokenizerTask(tokenizer, config, pool, held_out), options, display=display).run()


def read_pool(datasets: Sequence[Dataset], clips: int, length: int, seed: int) -> Frames:
    """Random clips `(n, length, H, W, 3)`, as many of each dataset, decoded by several processes where they are many.

    Raises DataError if no episode is long enough, or the datasets differ in resolution.
    """
    for dataset in datasets:
        if dataset.resolution != datasets[0].resolution:
            raise DataError(
                f"{dataset.path} has pictures of {dataset.resolution}, {datasets[0].path} of {datasets[0].resolution}; "
                "record them at one resolution"
            )
    workers = min(8, num_cores()) if clips >= CLIPS_WORTH_WORKERS else 0
    pool = []
    for dataset in datasets:
        with ClipLoader(dataset, length, batch=1, seed=seed, workers=workers) as loader:
            pool += [next(loader)[0] for _ in range(-(-clips // len(datasets)))]
    return np.concatenate(pool)


def edge_error(error: Tensor) -> Tensor:
    """The mean absolute difference between neighbouring pixels of `n 3 H W`, summed over three scales."""
    total = error.new_zeros(())
    for scale in range(3):
        if scale:
            error = F.avg_pool2d(error, 2)
        total = total + error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return total


@torch.no_grad()
def normalise(tokenizer: VideoTokenizer, clips: Frames, device: torch.device) -> None:
    """Set the latents' mean (each channel) and deviation (overall) from `clips`, so that they come out at 0 and 1."""
    latents = torch.cat([tokenizer.encode(_video(clip, device)) for clip in clips]).float()
    latents = latents * tokenizer.latent_std + tokenizer.latent_mean.view(-1, 1, 1)
    tokenizer.latent_mean.copy_(latents.mean((0, 1, 3, 4)))
    tokenizer.latent_std.copy_((latents - tokenizer.latent_mean.view(-1, 1, 1)).square().mean().sqrt())


def load_tokenizer(folder: Path) -> VideoTokenizer:
    """Loads what `reverie train tokenizer` made, in eval mode.  Raises CheckpointError."""
    return load_trained(
        folder, "tokenizer", "a tokenizer", lambda raw: VideoTokenizer(from_json(TokenizerConfig, raw))
    )[0]


def read_tokenizer(folder: Path) -> VideoTokenizer:
    """The tokenizer of a tokenizer training or of a model folder, frozen.  Raises CheckpointError."""
    path = folder / "config.json"
    kind = json.loads(path.read_text()).get("kind") if path.is_file() else None
    tokenizer = load_model(folder).tokenizer if kind == MODEL_KIND else load_tokenizer(folder)
    if not isinstance(tokenizer, VideoTokenizer):
        raise CheckpointError(f"{folder} has a {type(tokenizer).__name__}; expected one of our own")
    return tokenizer.eval().requires_grad_(False)


@torch.inference_mode()
def time_tokenizer(tokenizer: VideoTokenizer, clips: Frames, rounds: int = 15) -> dict[str, float]:
    """Median milliseconds to encode, and to decode, one step of a stream."""
    video = _video(clips[0], next(tokenizer.parameters()).device)
    height, width = video.shape[-2:]
    encoder = tokenizer.new_encoder_state(1, height, width, video.device)
    decoder = tokenizer.new_decoder_state(1, height, width, video.device)
    z = tokenizer.encode(video[:, :1], encoder)
    tokenizer.decode(z, decoder)
    times: dict[str, list[float]] = {"encode": [], "decode": []}
    for _ in range(rounds):
        started = _now(video.device)
        z = tokenizer.encode(video[:, 1:5], encoder)
        middle = _now(video.device)
        tokenizer.decode(z, decoder)
        times["encode"].append(middle - started)
        times["decode"].append(_now(video.device) - middle)
    return {name: round(1e3 * float(np.median(values)), 2) for name, values in times.items()}


def _now(device: torch.device) -> float:
    """Seconds of a clock, once the device has done its work."""
    synchronize(device)
    return time.perf_counter()


def _video(clip: Frames, device: torch.device) -> Tensor:
    return to_pixels(torch.from_numpy(clip[None]).permute(0, 1, 4, 2, 3).to(device))
