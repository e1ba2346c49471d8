"""Decoding of frames: in parallel with the next block's denoising on a GPU, in sequence on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from reverie.types import Frames


class FrameFuture(Protocol):
    """Frames that may still be on their way."""

    def frames(self) -> Frames:
        """Wait for them: (f, H, W, 3) uint8, owned by the caller."""
        ...


class DecodeStream(Protocol):
    """Decodes a block's latents, beside other work or not."""

    def start(self, work: Callable[[Tensor], Tensor], z: Tensor) -> FrameFuture:
        """Starts `work(z)`, frames (f, H, W, 3) uint8 on the device.  Work of one stream runs in order."""
        ...

    def join(self) -> None:
        """Orders all later work after the decoding that was started."""
        ...


class InlineDecoding:
    """Decodes in `start`, as on a CPU."""

    def start(self, work: Callable[[Tensor], Tensor], z: Tensor) -> FrameFuture:
        return _ReadyFrames(work(z))

    def join(self) -> None:
        """Nothing is ever on its way."""


class _ReadyFrames:
    def __init__(self, frames: Tensor) -> None:
        self._frames = frames

    def frames(self) -> Frames:
        return self._frames.cpu().numpy()


class CudaDecodeStream:
    """Decodes on a CUDA stream of its own; frames go to pinned memory without stopping anyone."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def start(self, work: Callable[[Tensor], Tensor], z: Tensor) -> FrameFuture:
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            frames = work(z)
            host = torch.empty(frames.shape, dtype=frames.dtype, pin_memory=True)
            host.copy_(frames, non_blocking=True)
            done = torch.cuda.Event()
            done.record(self._stream)
        z.record_stream(self._stream)  # its memory is not to be given away before it has been read
        return _PendingFrames(host, done)

    def join(self) -> None:
        torch.cuda.current_stream(self._device).wait_stream(self._stream)


class _PendingFrames:
    def __init__(self, host: Tensor, done: torch.cuda.Event) -> None:
        self._host, self._done = host, done

    def frames(self) -> Frames:
        self._done.synchronize()
        return self._host.numpy()
