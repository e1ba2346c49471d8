"""Decoding of frames: in parallel with the next block's denoising on a GPU, in sequence on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from reverie.types import Frames


class Coming(Protocol):
    """Frames on their way."""

    def frames(self) -> Frames:
        """Wait for them: (f, H, W, 3) uint8, owned by the caller."""
        ...


class Lane(Protocol):
    """Does work on a block's latents."""

    def start(self, work: Callable[[Tensor], Tensor], z: Tensor) -> Coming:
        """`work(z)`, frames (f, H, W, 3) uint8 on the device, begun.  Work of one lane runs in the order of starts."""
        ...

    def settle(self) -> None:
        """Orders all later work after the decoding that was started."""
        ...


class HereLane:
    """Everything at once: what a CPU does."""

    def start(self, work: Callable[[Tensor], Tensor], z: Tensor) -> Coming:
        return _Arrived(work(z))

    def settle(self) -> None:
        """Nothing is ever on its way."""


class _Arrived:
    def __init__(self, frames: Tensor) -> None:
        self._frames = frames

    def frames(self) -> Frames:
        return self._frames.cpu().numpy()


class CudaLane:
    """A stream of its own; frames go to pinned memory without stopping anyone."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def start(self, work: Callable[[Tensor], Tensor], z: Tensor) -> Coming:
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            frames = work(z)
            host = torch.empty(frames.shape, dtype=frames.dtype, pin_memory=True)
            host.copy_(frames, non_blocking=True)
            done = torch.cuda.Event()
            done.record(self._stream)
        z.record_stream(self._stream)  # its memory is not to be given away before it has been read
        return _OnItsWay(host, done)

    def settle(self) -> None:
        torch.cuda.current_stream(self._device).wait_stream(self._stream)


class _OnItsWay:
    def __init__(self, host: Tensor, done: torch.cuda.Event) -> None:
        self._host, self._done = host, done

    def frames(self) -> Frames:
        self._done.synchronize()
        return self._host.numpy()
