"""Deletion of what is seen through: an overlay of counters on a scene's and a session's keyframes.

Scenes are shared and read-only, so a session counts for itself how many times in succession each point was seen
through: a block that was dug, a car that has left.  Two bits a pixel; at `GONE` the point is not drawn any more.

Legend: b batch, k keyframes drawn, r rows of the overlay: a scene's keyframes, a session's own, and a spare one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from reverie.errors import ShapeError
from reverie.scenes.keyframes import Candidates, Choice
from reverie.scenes.view_sources import probe_pixels
from reverie.vision.projection import VIEW_SIZE
from reverie.vision.rendering import View
from reverie.vision.visibility import compare_depth

GONE = 3
"""Times in succession that a point is seen through before it is deleted; the largest number of two bits."""
TOLERANCE = (1.8, 0.5)
"""A point is seen through by a frame whose depth there is more than `a * depth + b` metres."""
MAX_SCALE_ERROR = 1.25
"""Depth of generated frames is brought to the memory's scale, by at most this factor."""
ROW_BYTES = VIEW_SIZE[0] * VIEW_SIZE[1] // 4


def match_scale(depth: Tensor, hidden: Tensor, view: View) -> Tensor:
    """Brings depth to the scale of what the memory shows there: (b, h, w).

    A network's depth is off by a factor that is nearly the same in the whole frame.  depth: (b, h, w) metres and
    hidden: (b, h, w), of the frame that the last view was for.
    """
    ratio = depth * view.inverse_depth[:, -1]
    ratio = torch.where((ratio > 0) & ~hidden, ratio, torch.nan).flatten(1).nanmedian(1).values
    return depth / ratio.nan_to_num(1.0).clamp(1 / MAX_SCALE_ERROR, MAX_SCALE_ERROR).view(-1, 1, 1)


def is_farther(depth: Tensor, view: View) -> Tensor:
    """Pixels (b, h, w) where a frame is clearly farther than what the last view shows.  depth: (b, h, w) metres."""
    factor, metres = TOLERANCE
    shown = view.inverse_depth[:, -1]
    return (shown > 0) & (depth * shown > factor + metres * shown)


def gone(counts: Tensor, choice: Choice) -> Tensor:
    """Points of the chosen keyframes that are deleted, (b, k, h, w) bool.  counts: (b, r, bytes)."""
    return _unpack(_chosen(counts, _rows(counts, choice))) == GONE


def gone_probes(counts: Tensor, sources: Sequence[Candidates]) -> list[Tensor | None]:
    """For each source its keyframes' probes that are deleted, (b, m, p) bool; None for those without rows."""
    own = sources[-1].members.shape[1]
    pixels = probe_pixels(VIEW_SIZE, counts.device)
    lost = (counts[:, :-1].index_select(2, pixels // 4) >> (pixels % 4 * 2).to(torch.uint8)) & GONE == GONE
    in_scene = lost[:, : lost.shape[1] - own] if lost.shape[1] > own else None
    return [*[in_scene] * (len(sources) - 1), lost[:, lost.shape[1] - own :]]


def count_seen_through(
    counts: Tensor, choice: Choice, depth: Tensor, hidden: Tensor, camera: Tensor, focal: Tensor
) -> None:
    """Counts, in place, the points of the chosen keyframes that a frame sees through; starts again at those that it
    does not see through, but for what is gone already.

    counts: (b, r, bytes); depth: (b, h, w) metres and hidden: (b, h, w) bool, of the frame; camera: (b, 6) its pose.
    """
    rows = _rows(counts, choice)
    through, beside = (
        one[:, 0]
        for one in compare_depth(
            choice.gather("depth"), choice.gather("pose"), depth[:, None], hidden[:, None], camera[:, None], focal,
            TOLERANCE,
        )
    )  # fmt: skip
    has_row = choice.valid & (rows < counts.shape[1] - 1)  # the spare one, which several may share, stays empty
    usable = has_row[..., None, None]
    before = _unpack(_chosen(counts, rows))
    after = (before + (through & usable)).clamp(max=GONE)
    after = after * ~(beside & usable & (before < GONE))
    counts[torch.arange(len(rows), device=rows.device)[:, None], rows] = _pack(after)


def _rows(counts: Tensor, choice: Choice) -> Tensor:
    """Rows (b, k) of the overlay that belong to the chosen keyframes; the spare one for those that have none."""
    own = choice.sources[-1].members.shape[1]
    of_scene = sum(one.members.shape[1] for one in choice.sources[:-1])
    spare = counts.shape[1] - 1
    kept = spare - own
    if kept and of_scene and kept != of_scene:
        raise ShapeError(
            f"this memory was made for a scene of {kept} keyframes, got one of {of_scene}; open the session in it"
        )
    rows = choice.chosen + (kept - of_scene)
    return torch.where(choice.valid & (rows >= 0), rows, spare)


def _chosen(counts: Tensor, rows: Tensor) -> Tensor:
    return counts[torch.arange(len(rows), device=rows.device)[:, None], rows]


def _shifts(device: torch.device) -> Tensor:
    return torch.arange(0, 8, 2, dtype=torch.uint8, device=device)


def _unpack(packed: Tensor) -> Tensor:
    """(..., bytes) -> (..., h, w) uint8 of 0 to 3."""
    return ((packed[..., None] >> _shifts(packed.device)) & GONE).view(*packed.shape[:-1], *VIEW_SIZE)


def _pack(counts: Tensor) -> Tensor:
    """(..., h, w) uint8 of 0 to 3 -> (..., bytes)."""
    return (counts.flatten(-2).unflatten(-1, (-1, 4)) << _shifts(counts.device)).sum(-1, dtype=torch.uint8)
