"""The averaged weights of a training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from reverie.train.parallel import Shards, local


class Average:
    """Exponential moving average of the weights that are trained.

    tensors: the averages, in the order of the parameters; a sharded one is this process's part.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], keep: float, shards: Shards | None = None) -> None:
        """keep: how much of the average stays in a step, once there have been enough of them."""
        self.parameters = list(parameters)
        self.tensors: list[Tensor] = [p.detach().clone() for p in self.parameters]
        self._keep, self._shards = keep, shards

    def update(self, step: int) -> None:
        """Take in the weights after optimiser step `step`; early ones count for more."""
        keep = min(self._keep, (1 + step) / (10 + step))
        averages, current = [local(x) for x in self.tensors], [local(p.detach()) for p in self.parameters]
        torch._foreach_lerp_(averages, current, 1 - keep)  # pyright: ignore[reportPrivateImportUsage]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """While it lasts, the model has its averaged weights.

        All processes enter it.  Of a sharded training only the first has the weights then, whole.
        """
        averages: dict[Tensor, Tensor] = dict(zip(self.parameters, self.tensors, strict=True))
        self._swap()
        try:
            with self._shards.gathered(averages) if self._shards else nullcontext():
                yield
        finally:
            self._swap()

    def _swap(self) -> None:
        """Trade places with the averages, but for sharded weights, which FSDP2 identifies by their memory."""
        for parameter, average in zip(self.parameters, self.tensors, strict=True):
            if not isinstance(parameter, DTensor):
                parameter.data, average.data = average.data, parameter.data
