"""Latents of the start image and the grey frames after it, cached for a model that generates its start.

The image is encoded, and grey frames after it without end.  The encoding of endless grey comes to rest once the image
has left the encoder's memory (after 30 steps): from then on it is one fixed value.  Steps are encoded when they are
first needed, and kept, so that a session that starts again, goes back or splits encodes nothing twice.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from reverie.models.tokenizer import FRAMES, VideoTokenizer
from reverie.models.wan_vae import WanVAE

MAX_STEPS = 64
"""Number of steps after which the encoding is taken to be constant, even if it still changes a little."""


def encode_still(tokenizer: VideoTokenizer, picture: Tensor) -> Iterator[Tensor]:
    """Encodes a still image followed by grey frames, with any tokenizer, until a step equals the one before it."""
    height, width = picture.shape[2:]
    state = tokenizer.new_encoder_state(1, height, width, picture.device, picture.dtype)
    step = tokenizer.encode(picture[:, None], state)
    grey = torch.zeros_like(picture)[:, None].expand(-1, FRAMES, -1, -1, -1)
    for _ in range(MAX_STEPS):
        yield step
        before, step = step, tokenizer.encode(grey, state)
        if torch.equal(before, step):
            return


class StartStream:
    """The encoding of one image and of the grey frames after it."""

    def __init__(self, tokenizer: VideoTokenizer | WanVAE, picture: Tensor) -> None:
        """picture: (1, 3, H, W) in [-1, 1]."""
        is_wan = isinstance(tokenizer, WanVAE)
        self._coming: Iterator[Tensor] | None = (
            tokenizer.encode_still(picture) if is_wan else encode_still(tokenizer, picture)
        )
        self._steps = [next(self._coming)]

    @property
    def num_steps(self) -> int:
        """Steps kept so far."""
        return len(self._steps)

    @property
    def is_settled(self) -> bool:
        """Returns whether the last cached step repeats for ever."""
        return self._coming is None

    def latents(self, first: int, count: int) -> Tensor:
        """Steps first .. first + count - 1: (1, count, c, h, w)."""
        while self._coming is not None and len(self._steps) < first + count:
            new = next(self._coming, None)
            if new is None:
                self._coming = None  # and with it the encoder's memory of the frames before, which is large
            else:
                self._steps.append(new)
        last = len(self._steps) - 1
        return torch.cat([self._steps[min(step, last)] for step in range(first, first + count)], 1)

    def condition(self, first: int, count: int, channels: int) -> Tensor:
        """Condition channels (1, count, channels, h, w): a mask, 1 at the start image's own step, then `latents`."""
        latents = self.latents(first, count)
        b, t, c, h, w = latents.shape
        mask = latents.new_zeros(b, t, channels - c, h, w)
        if first == 0:
            mask[:, 0] = 1
        return torch.cat([mask, latents], 2)
