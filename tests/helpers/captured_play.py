"""Sessions that are captured as CUDA graphs are, on machines that have none: a replay does the work again."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from reverie.engine.engine import Engine
from reverie.types import Action

FORWARD = Action(frozenset({"forward"}), (0.0, 3.0))

BACK = Action(frozenset({"back"}), (1.0, -5.0))

NUM_BLOCKS = 8


class Again:
    """A captured graph for machines without CUDA: it does the work again, on the memory that it was captured with."""

    def __init__(self, work: Callable[[], Tensor]) -> None:
        self.work = work
        self.plays = 0
        self.output = torch.zeros(())

    def replay(self) -> None:
        self.plays += 1
        self.output = self.work()


def play(session, num_blocks: int = NUM_BLOCKS, start: int = 0) -> np.ndarray:
    return np.concatenate([session.step((FORWARD, BACK)[(start + i) % 2]) for i in range(num_blocks)])


def picture_for(engine: Engine) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*engine.resolution, 3), dtype=np.uint8)


def capture_again(engine: Engine) -> list[Again]:
    """Let the engine's sessions record."""
    graphs: list[Again] = []

    def record(work: Callable[[], Tensor]) -> Again:
        graphs.append(Again(work))
        return graphs[-1]

    engine._captures = {"passes": record, "decode": record}
    return graphs


class Captured(Again):
    """As a CUDA graph is made: the work is done once while it is recorded."""

    def __init__(self, work: Callable[[], Tensor]) -> None:
        super().__init__(work)
        work()
