"""Makes forked children usable: torch's threads do not survive a fork.  Torch-free.

A process that is forked after its parent used torch has no OpenMP threads, yet waits for them in its first matrix
product, for ever.  Gymnasium's `AsyncVectorEnv` forks like this on Linux.  Importing this module limits torch to one
thread in every child that is forked from then on; children that are spawned are not touched.
"""

from __future__ import annotations

import os
import sys


class ForkState:
    """Describes this process.  is_child: it was forked after torch was imported.  had_cuda: it, or the process that it
    was forked from, has used CUDA."""

    is_child = False
    had_cuda = False


def _before() -> None:
    torch = sys.modules.get("torch")
    ForkState.had_cuda |= torch is not None and torch.cuda.is_initialized()


def _in_child() -> None:
    torch = sys.modules.get("torch")
    if torch is not None:
        ForkState.is_child = True
        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(before=_before, after_in_child=_in_child)
