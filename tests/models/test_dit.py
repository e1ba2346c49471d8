"""The transformer: activation checkpointing.  Its laws as a stream are in `test_laws.py`."""

from __future__ import annotations

import torch
from tests.helpers.tiny_world import tiny_world
from torch import Tensor


def test_activations_worked_out_again_give_the_same_gradients_from_less_memory() -> None:
    losses, gradients, kept = [], [], []
    for remat in (False, True):
        world, loss_of = tiny_world(remat)
        saved: list[int] = []

        def pack(tensor: Tensor, saved: list[int] = saved) -> Tensor:
            saved.append(tensor.nbytes)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = loss_of()
        loss.backward()
        losses.append(loss.item())
        gradients.append([p.grad for p in world.parameters() if p.grad is not None])
        kept.append(sum(saved))
    assert losses[0] == losses[1]
    for once, again in zip(*gradients, strict=True):
        torch.testing.assert_close(once, again)
    assert kept[1] < 0.3 * kept[0]
