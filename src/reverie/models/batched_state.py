"""The states of several sessions as one, for one pass of the network.

Matrix products run over all rows at once.  Attention runs row by row in each session's own ring, so rings are never
copied, and sessions whose windows are filled differently share a pass.

Legend: b batch (one row a session), h heads, n queries, d head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from reverie.models.state import WorldState
from reverie.nn.attention import Memory, RingMemory


@dataclass(frozen=True, slots=True)
class RowsMemory:
    """The past of each row, in rings of its own."""

    rows: list[RingMemory]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q, k, v: (b m, h, n, d), with m rows of the layer's ring for each session."""
        parts = zip(self.rows, *(x.chunk(len(self.rows)) for x in (q, k, v)), strict=True)
        return torch.cat([memory.attend(layer, *part) for memory, *part in parts])

    def seen(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Each row attends to its own context."""


@dataclass(slots=True)
class BatchedState(WorldState):
    """States of one row each as one state of b rows.  The small tensors are copies; rings stay where they are.

    rows: the states; caches is empty, and step is that of the first row.
    """

    rows: list[WorldState] = field(default_factory=list)

    @classmethod
    def of(cls, rows: Sequence[WorldState]) -> BatchedState:
        """rows: at least one; either all of them fresh or none."""
        actions, last = torch.cat([row.actions for row in rows]), torch.cat([row.last for row in rows])
        pairs = zip(*(row.image for row in rows), strict=True)
        image = [(torch.cat([k for k, _ in pair]), torch.cat([v for _, v in pair])) for pair in pairs]
        return cls([], actions, last, image, rows[0].step, None, list(rows))

    def next_times(self, num_steps: int) -> Tensor:
        """Indices of each row's next steps, (b, num_steps) int64."""
        return torch.stack([row.next_times(num_steps) for row in self.rows])

    def past(self, commit: bool) -> Memory:
        return RowsMemory([RingMemory(row.caches, commit) for row in self.rows])

    def split(self) -> None:
        """Writes what a block has changed to the rows' own states."""
        num_steps = self.step - self.rows[0].step
        for i, row in enumerate(self.rows):
            row.actions.copy_(self.actions[i : i + 1])
            row.last.copy_(self.last[i : i + 1])
            row.step += num_steps
