"""Sharpening a model's decoder: `reverie train decoder MODEL --data DIR -o RUN --minutes 60`.

The encoder is frozen, so latents mean what they did and the world model needs no training.  Beside the tokenizer's own
loss the decoder learns from a discriminator of pixels: squared and absolute errors blur what the latents leave open.
The run ends with a tokenizer's folder, whose `tokenizer.safetensors` takes the place of the model's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from reverie.data.dataset import Dataset
from reverie.models.pixels import to_frames, to_pixels
from reverie.models.tokenizer import FRAMES, VideoTokenizer
from reverie.options import alias, positional
from reverie.train.budget import announce
from reverie.train.loop import Trainer, TrainerConfig, use_malloc_hints
from reverie.train.spatial.discriminator import Discriminator, discriminator_loss, towards_real
from reverie.train.tokenizer import (
    HELD_OUT_CLIPS,
    TokenizerTask,
    TrainTokenizerConfig,
    read_pool,
    read_tokenizer,
    reconstruction_loss,
    save_tokenizer,
)
from reverie.train.tracking import Track
from reverie.types import Frames
from reverie.vision.sharpness import sharpness

JUDGE_WIDTH = 48
JUDGED_FRAMES = FRAMES + 1
"""Frames that are judged together, so that what flickers is found: a step and the frame before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainDecoderConfig:
    """Sharpen the decoder of a model; latents stay.  Example: reverie train decoder nano --data rec -o runs/sharp"""

    model: Annotated[Path, positional()]
    """A model's or a tokenizer's folder."""
    data: tuple[Path, ...]
    """Recordings, each drawn equally often; every eighth episode is held out, unless they mark others."""
    output: Annotated[Path, alias("-o")]
    minutes: float | None = None
    """Time for training steps, and figures between them; preparing the recordings and the last figures come on top."""
    steps: int | None = None
    batch: int = 4
    """Clips of a training step."""
    clip_frames: int = 9
    """1 + 4n."""
    crop: tuple[int, int] = (64, 112)
    """Height and width of the training crops, multiples of 16."""
    pool_clips: int = 512
    """Clips of 33 frames that are decoded into memory at the start."""
    lr: float = 2e-4
    noise: float = 0.06
    """Deviation of what is added to the latents before decoding, up to this, clip by clip."""
    texture: float = 1.0
    """Weight of `texture_error`."""
    adversarial: float = 0.0
    """Length of the discriminator's gradient over that of the other losses'."""
    penalty: float = 0.02
    """Of the discriminator's squared slopes."""
    seed: int = 0
    device: str = "auto"
    checkpoint_minutes: float = 4.0
    validate_minutes: float = 8.0
    track: Track = "auto"
    """Where figures and sheets go besides log.jsonl: tensorboard, trackio, wandb or none; auto is TensorBoard where it
    is installed."""

    def run(self) -> dict[str, float]:
        """Train; returns the figures on the held-out data."""
        use_malloc_hints(self.device)
        announce(self)
        return train_decoder(self)

    def tokenizer_config(self) -> TrainTokenizerConfig:
        """What the clips and their augmentation follow."""
        return TrainTokenizerConfig(
            data=self.data,
            output=self.output,
            batch=self.batch,
            clip_frames=self.clip_frames,
            crop=self.crop,
            pool_clips=self.pool_clips,
            noise=self.noise,
            seed=self.seed,
            device=self.device,
            dtype="float32",
        )


class DecoderTask(TokenizerTask):
    """The loss of a decoder with a discriminator beside it.  `pool` and `held_out` as of a `TokenizerTask`."""

    def __init__(self, tokenizer: VideoTokenizer, config: TrainDecoderConfig, pool: Frames, held_out: Frames) -> None:
        super().__init__(tokenizer, config.tokenizer_config(), pool, held_out)
        self.plan = config
        tokenizer.requires_grad_(False)
        tokenizer.decoder.requires_grad_(True)
        self.discriminator = Discriminator(3 * JUDGED_FRAMES * 4, 0, JUDGE_WIDTH)
        self.discriminator.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.model = nn.ModuleDict({"decoder": tokenizer.decoder, "discriminator": self.discriminator})

    def lr_factor(self, name: str) -> float:
        """The discriminator starts from nothing."""
        return 3.0 if name.startswith("discriminator") else 1.0

    def loss(self, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """The sum of all terms, and the terms."""
        video = to_pixels(batch)
        with torch.no_grad():
            z = self.tokenizer.encode(video)
            level = torch.rand(len(z), 1, 1, 1, 1, device=z.device, generator=generator) * self.plan.noise
            z = z + level * torch.randn(z.shape, device=z.device, generator=generator)
        decoded = self.tokenizer.decode(z)
        loss, terms = reconstruction_loss(decoded, video)
        texture = texture_error(decoded.flatten(0, 1), video.flatten(0, 1))
        loss, terms = loss + self.plan.texture * texture, {**terms, "texture": texture}
        if not self.plan.adversarial:
            return loss, terms
        (pull_back,) = torch.autograd.grad(loss, decoded, retain_graph=True)
        real, fake = judged_steps(video), judged_steps(decoded)
        condition = real[:, :0]
        judge_loss, lead = discriminator_loss(self.discriminator, real, fake, condition, self.plan.penalty)
        slope = towards_real(self.discriminator, real, fake, condition)
        (slope,) = torch.autograd.grad(fake, decoded, slope, retain_graph=True)
        scale = self.plan.adversarial * pull_back.norm() / slope.norm().clamp(min=1e-12)
        pull = (decoded * (slope * scale)).sum()
        terms = {**terms, "judge_loss": judge_loss.detach(), "judge_lead": lead}
        return loss + judge_loss + pull - pull.detach(), terms

    def validate(self) -> dict[str, float]:
        """PSNR as of a tokenizer, and the sharpness of decoded frames over that of the recorded ones."""
        figures = super().validate()
        assert self._reconstructed is not None
        decoded = [to_frames(clip) for clip in self._reconstructed]
        share = [
            sharpness(ours).mean() / sharpness(clip).mean() for ours, clip in zip(decoded, self.held_out, strict=True)
        ]
        return figures | {"sharpness": float(sum(share) / len(share))}

    def export(self, folder: Path, summary: dict[str, Any]) -> None:
        """Write the tokenizer's folder; its latents are those of before."""
        save_tokenizer(folder, self.tokenizer, summary)


def texture_error(decoded: Tensor, video: Tensor) -> Tensor:
    """The mean difference of how much fine detail there is around each place, at two scales; `n 3 H W` each."""
    total = decoded.new_zeros(())
    for scale in range(2):
        if scale:
            decoded, video = F.avg_pool2d(decoded, 2), F.avg_pool2d(video, 2)
        total = total + (_detail(decoded) - _detail(video)).abs().mean()
    return total


def _detail(x: Tensor) -> Tensor:
    """Root mean square of what a blur takes away, in windows of 8x8, `n 3 H W` -> `n 3 H/4 W/4`."""
    fine = x - F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), 3, stride=1)
    return (F.avg_pool2d(fine.square(), 8, stride=4) + 1e-6).sqrt()


def judged_steps(video: Tensor) -> Tensor:
    """Steps with the frame before, `b f 3 H W` -> `(b t) 60 H/2 W/2`; f = 1 + 4t."""
    windows = video.unfold(1, JUDGED_FRAMES, FRAMES)
    pixels = rearrange(windows, "b t c h w s -> (b t) (s c) h w")
    return F.pixel_unshuffle(pixels, 2).contiguous(memory_format=torch.channels_last)


def train_decoder(config: TrainDecoderConfig) -> dict[str, float]:
    """Train as told.  Raises DataError for a missing dataset and CheckpointError for no tokenizer of our own."""
    torch.manual_seed(config.seed)
    tokenizer = read_tokenizer(config.model).train()
    datasets = [Dataset(path) for path in config.data]
    length = max(33, config.clip_frames)
    pool = read_pool(datasets, config.pool_clips, length, config.seed, part="train")
    held_out = read_pool(datasets, HELD_OUT_CLIPS, max(17, config.clip_frames), seed=0, part="held-out")
    trainer_config = TrainerConfig(
        folder=config.output,
        steps=config.steps,
        minutes=config.minutes,
        seed=config.seed,
        lr=config.lr,
        clip=1.0,
        weight_decay=0.0,
        warmup_steps=30,
        decay=0.3,
        ema=0.99,
        device=config.device,
        checkpoint_minutes=config.checkpoint_minutes,
        validate_minutes=config.validate_minutes,
        track=config.track,
    )
    return Trainer(DecoderTask(tokenizer, config, pool, held_out), trainer_config).run()
