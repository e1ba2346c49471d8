"""Several training processes, as `torchrun` starts them; one process needs nothing of it.

torchrun --nproc-per-node 8 -m reverie train world --data rec --tokenizer runs/tok -o runs/world --shard --no-muon
"""

from __future__ import annotations

import os
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from reverie.errors import TrainError


@dataclass(slots=True)
class Ranks:
    """This process among `count`.  Every method is a no-op for one process.  A context manager: joins, then leaves."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls) -> Ranks:
        """From the variables that torchrun sets."""
        value = os.environ.get
        return cls(int(value("RANK", "0")), int(value("WORLD_SIZE", "1")), int(value("LOCAL_RANK", "0")))

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def index(self, micro: int) -> int:
        """The number of this process's micro-batch among all of a step."""
        return micro * self.count + self.rank

    def device(self, device: torch.device) -> torch.device:
        """This process's own device of the kind asked for."""
        if device.type != "cuda" or device.index is not None:
            return device
        torch.cuda.set_device(self.local_rank)
        return torch.device("cuda", self.local_rank)

    def __enter__(self) -> Ranks:
        if self.count > 1 and not dist.is_initialized():
            dist.init_process_group("cuda:nccl,cpu:gloo" if torch.cuda.is_available() else "gloo")
        return self

    def __exit__(self, *_: object) -> None:
        if self.count > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace every tensor by its mean over the processes: one message for each dtype."""
        if self.count == 1:
            return
        by_dtype: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            by_dtype.setdefault(tensor.dtype, []).append(tensor)
        for group in by_dtype.values():
            flat = torch.cat([tensor.reshape(-1) for tensor in group])
            dist.all_reduce(flat)
            flat /= self.count
            for tensor, part in zip(group, flat.split([tensor.numel() for tensor in group]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over the processes."""
        if self.count > 1:
            tensor = tensor.clone()
            dist.all_reduce(tensor)
        return tensor

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Replace every tensor by the first process's."""
        if self.count > 1:
            for tensor in tensors:
                dist.broadcast(tensor.data, 0)

    def same(self, *values: float) -> list[float]:
        """The first process's numbers, so that all take the same decision."""
        if self.count == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.broadcast(tensor, 0)
        return tensor.tolist()

    def barrier(self) -> None:
        """Wait for the others."""
        self.same(0.0)


class Shards:
    """The matrices of some modules ("units"), spread over the processes by FSDP2; nothing else is.

    A unit gathers its matrices when it is called, forward and backward, and drops them afterwards; its gradients are
    averaged as they are spread.  What lies outside the units stays whole in every process, and so do vectors (biases,
    norms): models have methods besides `forward` that use them, and all of it together is a few per cent of the
    weights.  Their gradients are `Ranks.average`'s to average.

    units: modules whose matrices are used by calling them and in no other way; one inside another comes first.  All
    processes must run the same passes in the same order: a process that waits for a unit's weights waits for all.
    """

    def __init__(self, model: nn.Module, units: Sequence[nn.Module], ranks: Ranks, device: torch.device) -> None:
        if not units:
            raise TrainError("this training names no blocks that can be sharded; leave --shard out")
        warnings.filterwarnings(
            "ignore", "FSDP2-wrapped module .* returned a view"
        )  # nobody writes into a unit's output
        mesh = init_device_mesh(device.type, (ranks.count,))
        inside = {module for unit in units for module in unit.modules()}
        split = {p for module in inside for p in module.parameters(recurse=False) if p.ndim >= 2}
        whole = {p for p in model.parameters() if p not in split}
        around = [m for m in model.modules() if m not in inside and _runs(m) and not inside.isdisjoint(m.modules())]
        for module in [*units, *reversed(around)]:
            fully_shard(module, mesh=mesh, reshard_after_forward=True, ignored_params=whole)
        self._root = _Root(model)
        fully_shard(self._root, mesh=mesh, reshard_after_forward=True, ignored_params=whole)
        self._root()  # FSDP2 takes the first module that is called for the outermost
        self._modules: list[nn.Module] = [*units, *around]
        self._is_first = ranks.is_first

    @contextmanager
    def gathered(self, weights: Mapping[Tensor, Tensor]) -> Iterator[None]:
        """In the first process: ordinary modules, with `weights` (a shard for each sharded parameter) made whole.

        All processes must enter it; what the first does inside needs no other, so it may call and save the modules as
        if they had never been sharded (but not `deepcopy` them).  It must have room for the whole weights.
        """
        places = [
            (module, name, p)
            for module in self._root.model.modules()
            for name, p in module.named_parameters(recurse=False)
            if isinstance(p, DTensor)
        ]
        whole = [self._whole(weights[p]) for *_, p in places]
        if not self._is_first:
            yield
            return
        kept = [(module, module._forward_pre_hooks, module._forward_hooks) for module in self._modules]
        for module in self._modules:
            module._forward_pre_hooks, module._forward_hooks = OrderedDict(), OrderedDict()
        try:
            for (module, name, p), tensor in zip(places, whole, strict=True):
                setattr(module, name, nn.Parameter(tensor, requires_grad=p.requires_grad))
            yield
        finally:
            for module, name, p in places:
                setattr(module, name, p)
            for module, before, after in kept:
                module._forward_pre_hooks, module._forward_hooks = before, after

    def _whole(self, tensor: Tensor) -> Tensor:
        """The whole of a sharded tensor, in the first process; the others only help."""
        assert isinstance(tensor, DTensor)
        whole = tensor.full_tensor().detach()
        return whole if self._is_first else tensor


class _Root(nn.Module):
    """Holds a model, which may be a container without a `forward`, and does nothing when it is called."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self) -> None:
        pass


def _runs(module: nn.Module) -> bool:
    return not isinstance(module, nn.ModuleList | nn.ModuleDict)


def local(tensor: Tensor) -> Tensor:
    """This process's part of a sharded tensor, sharing its memory; a plain tensor as it is."""
    return tensor.to_local().detach() if isinstance(tensor, DTensor) else tensor
