"""The transformer, compiled in pieces.

A block's pieces lie between its reads of the context (`reverie.models.blocks`): their shapes never change, all blocks
of one kind share one compiled function, and the ring, whose reach grows at first, stays outside.  So there are about
ten functions to compile, whatever the number of blocks, and none is ever compiled twice in play.

What was compiled is kept on the disk, `compiled` in this package's cache (`~/.cache/reverie`): the next start is quick.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import MethodType
from typing import Any

import torch
import torch._dynamo
from torch import nn

from reverie.errors import DeviceError
from reverie.models.actions import KeyboardModule, MouseModule
from reverie.models.blocks import Block
from reverie.models.tokenizer import Block as TokenizerBlock
from reverie.models.wan_vae import RMSNorm

Piece = tuple[type[nn.Module], str]
"""A class of modules and the name of one of its methods."""

PIECES: tuple[Piece, ...] = (
    (Block, "project_qkv"),
    (Block, "project_out"),
    (Block, "feed_forward"),
    (MouseModule, "project_qkv"),
    (MouseModule, "project_out"),
    (MouseModule, "project_out_few"),
    (KeyboardModule, "project_qkv"),
    (KeyboardModule, "project_out"),
    (RMSNorm, "activated"),
)
"""Methods that are compiled: of the transformer, and the one chain of small operations in the Wan decoder."""

TRAINING_PIECES: tuple[Piece, ...] = (*PIECES, (TokenizerBlock, "forward"))
"""In training also the tokenizer's blocks, of which there are many clips at a time."""

RECOMPILE_LIMIT = 64
"""Shapes that one piece may be compiled for: the norms of the Wan VAE meet 17, its encoder's and its decoder's."""


def compile_pieces(*networks: nn.Module, backend: str = "inductor", pieces: Sequence[Piece] = PIECES) -> int:
    """Compile the pieces of `networks` in place; each is really compiled when it first runs.  Returns how many pieces
    there are.

    Raises DeviceError where the machine cannot compile.
    """
    allow_shapes()
    if backend == "inductor":
        _keep_on_disk()
        check_compiler(next(networks[0].parameters()).device)
    compiled: dict[Piece, Callable[..., Any]] = {}
    found = list(_find_pieces(networks, pieces))
    for module, piece in found:
        kind, name = piece
        if piece not in compiled:
            compiled[piece] = torch.compile(getattr(kind, name), dynamic=False, backend=backend)
        module.__dict__[name] = MethodType(compiled[piece], module)
    return len(found)


def _find_pieces(networks: Sequence[nn.Module], pieces: Sequence[Piece]) -> Iterator[tuple[nn.Module, Piece]]:
    for network in networks:
        for module in network.modules():
            yield from ((module, piece) for piece in pieces if type(module) is piece[0])


def allow_shapes(limit: int = RECOMPILE_LIMIT) -> None:
    """Let one function be compiled for as many shapes as a model has: past torch's own limit of 8 it runs eagerly."""
    config: Any = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, limit)
    config.accumulated_recompile_limit = max(config.accumulated_recompile_limit, 4 * limit)


def num_compiled() -> int:
    """Graphs that this process has compiled so far, of any function."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def restore_pieces(*networks: nn.Module) -> None:
    """Restores the uncompiled methods that `compile_pieces` replaced."""
    for module, (_, name) in _find_pieces(networks, TRAINING_PIECES):
        module.__dict__.pop(name, None)


def check_compiler(device: torch.device) -> None:
    """Raises DeviceError, saying what to install, where code for `device` cannot be made."""
    if device.type == "cpu" and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        raise DeviceError("compiling for the CPU needs a C++ compiler; install g++, or leave --mode out")
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        if not has_triton():
            raise DeviceError("compiling for this GPU needs Triton, which is not there; say --mode eager")


def _keep_on_disk() -> None:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reverie"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(home / "compiled"))
