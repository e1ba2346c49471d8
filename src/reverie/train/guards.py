"""Guards of a training: against losses that are no numbers, huge gradients, and being stopped within a step."""

from __future__ import annotations

import math
import signal
import statistics
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from reverie.errors import TrainError
from reverie.train.checkpoints import Progress
from reverie.train.device import is_device_failure
from reverie.train.parallel import Ranks, local

NORMS_KEPT = 100
"""Gradient norms kept to detect a huge one."""

NORMS_NEEDED = 20
"""Before so many are known, none is huge."""

MAX_SKIPPED_IN_A_ROW = 25


def check_loss(loss: float, step: int, latest: Callable[[], Path | None]) -> None:
    """Raises TrainError for a loss that is no number.  latest: finds the last checkpoint."""
    if not math.isfinite(loss):
        raise TrainError(
            f"the loss became {loss} at step {step}; the last good checkpoint is {latest() or 'none'}: lower --lr, "
            "or raise the warm-up, and run again"
        )


class GradientGuard:
    """Leaves out steps whose gradient norm is not finite or far above the recent median."""

    def __init__(self, skip_above: float) -> None:
        self.norms: deque[float] = deque(maxlen=NORMS_KEPT)
        self._skip_above = skip_above
        self._skipped_in_a_row = 0

    def accepts(self, norm: float, progress: Progress, latest: Callable[[], Path | None]) -> bool:
        """Decides whether to take a step with this gradient norm; counts those left out in `progress`.

        latest: finds the last checkpoint.  Raises TrainError after too many steps left out in a row.
        """
        median = statistics.median(self.norms) if len(self.norms) >= NORMS_NEEDED else math.inf
        if math.isfinite(norm):
            self.norms.append(norm)
            if norm <= self._skip_above * median:
                self._skipped_in_a_row = 0
                return True
        progress.skipped += 1
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row > MAX_SKIPPED_IN_A_ROW:
            raise TrainError(
                f"{self._skipped_in_a_row} steps in a row up to {progress.step} had a huge or infinite gradient "
                f"(now {norm:.3g}, median {median:.3g}); last checkpoint {latest()}: lower --lr"
            )
        return False


def gradient_norm(gradients: list[Tensor], ranks: Ranks, device: torch.device) -> Tensor:
    """Norm of all gradients together, whole and sharded."""
    parts = [local(g) for g in gradients if isinstance(g, DTensor)]
    if not parts:
        return torch.nn.utils.get_total_norm(gradients)
    whole = [g for g in gradients if not isinstance(g, DTensor)]
    split, rest = (torch.nn.utils.get_total_norm(x).to(device, torch.float32) for x in (parts, whole))
    return (ranks.sum(split.square()) + rest.square()).sqrt()


def clip_gradients(parameters: list[nn.Parameter], norm: Tensor, most: float) -> None:
    """Scale the gradients, whole and sharded, so that their `norm` is at most `most`."""
    if not any(isinstance(p, DTensor) for p in parameters):
        torch.nn.utils.clip_grads_with_norm_(parameters, most, norm)
        return
    gradients = [local(p.grad) for p in parameters if p.grad is not None]
    torch._foreach_mul_(gradients, (most / (norm + 1e-6)).clamp(max=1.0))  # pyright: ignore[reportPrivateImportUsage]


@contextmanager
def device_failures(where: str, kept: str) -> Iterator[None]:
    """Raises TrainError, in one line, where a GPU fails.

    where: it failed, after "the GPU failed"; kept: what is not lost.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_device_failure(error):
            raise
        first = (str(error).splitlines() or [""])[0]
        is_memory = isinstance(error, torch.OutOfMemoryError)
        advice = "end what else uses its memory, or take less at once, and " if is_memory else ""
        raise TrainError(f"the GPU failed {where} ({first}); {kept}: {advice}run the same command to go on") from error


class StopRequest:
    """Ctrl-C and SIGTERM ask a training to end after the step in hand (only where this is the main thread)."""

    asked = False

    @contextmanager
    def on_signal(self) -> Iterator[None]:
        def stop(*_: object) -> None:
            self.asked = True

        try:
            before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:
            before = {}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
