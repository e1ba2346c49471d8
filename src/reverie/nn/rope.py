"""Rotary positions: each axis of a position turns its own share of a head's number pairs.

Tables are computed in float64 (`reverie.nn.precision`) from absolute positions, so that a difference of positions is as
exact after a week as at the start: the numbers depend on differences only, there is no table to run out of, and a key
is turned once, when it is made.  Method: RoFormer, arXiv 2104.09864; the split over axes is Wan 2.1's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from reverie.nn.precision import exact, exact_dtype


def split_pairs(head_dim: int) -> tuple[int, int, int]:
    """Splits a head's rotary pairs among time, height and width as Wan 2.1 does: `[d/2 - 2(d/6), d/6, d/6]`."""
    return head_dim // 2 - 2 * (head_dim // 6), head_dim // 6, head_dim // 6


def rotary_table(positions: Tensor, pairs: Sequence[int], theta: float) -> Tensor:
    """Cosines and sines that turn pairs to `positions`.

    positions: (..., axes), any real numbers; pairs: pairs for each axis.  Returns (..., sum(pairs), 2) float32.
    """
    turns = []
    for axis, count in enumerate(pairs):
        steps = torch.arange(count, dtype=exact_dtype(positions.device), device=positions.device)
        turns.append(exact(positions[..., axis, None]) * theta ** (-steps / max(count, 1)))
    angle = torch.cat(turns, -1)
    return torch.stack([angle.cos(), angle.sin()], -1).float()


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Turn the first `table.shape[-2]` neighbouring pairs of `x`; what is left stays as it is (position 0).

    x: (..., n, heads, d); table: (..., n, pairs, 2), broadcast over heads.
    """
    turned = 2 * table.shape[-2]
    pairs = x[..., :turned].float().unflatten(-1, (-1, 2))
    turn = table.unsqueeze(-3)
    if torch.compiler.is_compiling():  # its generated code has no complex numbers
        (real, imaginary), (cos, sin) = pairs.unbind(-1), turn.unbind(-1)
        out = torch.stack([real * cos - imaginary * sin, real * sin + imaginary * cos], -1)
    else:
        out = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(turn))
    out = out.flatten(-2).to(x.dtype)
    return out if turned == x.shape[-1] else torch.cat([out, x[..., turned:]], -1)
