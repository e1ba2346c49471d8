"""The player's own body in play: of the recorded clips, the one whose past is most like the player's.

Every block shows four frames of a clip that follow each other: the ones whose past led to looks like those that the
player's past leads to, and that go on from what was shown last.  (Games animate by motion matching in the same way.)

Legend: b sessions, n recorded frames, m of them that may end a block, p numbers of a past, (H W) a frame, (y x) a box.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from reverie.scenes.recorded_body import RecordedBody, describe_looks, describe_past, to_unit
from reverie.types import STEP_FRAMES
from reverie.vision.pixels import shrink_frames
from reverie.vision.rendering import View

CONTINUITY = 0.1
"""Weight of a change of looks from one block to the next, beside a difference of pasts."""


class BodyLayer(NamedTuple):
    """The body in a block.

    rows: (b, 4) of the recorded frames; image: (b, 4, 4, H, W), colour in [-1, 1] times opacity, and opacity in 0..1;
    small: (b, 4, 4, h, w), the same at the size of views.
    """

    rows: Tensor
    image: Tensor
    small: Tensor

    def draw(self, frames: Tensor) -> Tensor:
        """Frames (b, 4, 3, H, W) in [-1, 1] with the body before them."""
        return _over(self.image, frames)

    def draw_view(self, view: View) -> View:
        """A view with the body before it; what is covered by the body is known."""
        cover = torch.maximum(view.cover, self.small[:, :, 3])
        return view._replace(colour=_over(self.small, view.colour), cover=cover)

    @property
    def hides(self) -> Tensor:
        """Pixels (b, h, w) of the last frame's view that show the body, bool."""
        return self.small[:, -1, 3] > 0


def _over(image: Tensor, frames: Tensor) -> Tensor:
    """Frames (b, f, 3, y, x) behind images (b, f, 4, y, x) as a layer has them."""
    image = image.to(frames.dtype)
    return frames * (1 - image[:, :, 3:]) + image[:, :, :3]


class Body(NamedTuple):
    """A recorded body on the device, for one model's actions.

    image: (n, 4, y, x) uint8; corner: of the box in the frame; embedding: (m, k) of the pasts of frames that end a
    block, ends: (m,) their rows; after: (n,) what follows each frame, itself at the end of its clip; looks: (n, l);
    mean (p,), weights (p, k): of the embedding.
    """

    image: Tensor
    corner: tuple[int, int]
    embedding: Tensor
    ends: Tensor
    after: Tensor
    looks: Tensor
    mean: Tensor
    weights: Tensor

    @classmethod
    def of(cls, recorded: RecordedBody, columns: list[int], action_size: int) -> Body:
        """columns: where the recorded action numbers are in the model's rows, which have action_size numbers."""
        image = torch.from_numpy(recorded.image).permute(0, 3, 1, 2).contiguous()
        clip, row = torch.from_numpy(recorded.clip), torch.arange(len(image))
        is_end = (row >= STEP_FRAMES - 1) & (clip == clip[(row - STEP_FRAMES + 1).clamp(min=0)])
        ends = row[is_end]
        after = (row + 1).clamp(max=len(row) - 1)
        after = torch.where(clip[after] == clip, after, row)
        looks = describe_looks(to_unit(image))
        # The recorded past's numbers among the model's: other keys do nothing here.
        motions = range(action_size, action_size + 6)
        mean, weights = (
            torch.from_numpy(x).unflatten(0, (-1, len(columns) + 6)) for x in (recorded.mean, recorded.weights)
        )
        wide_mean = mean.new_zeros(len(mean), action_size + 6)
        wide = weights.new_zeros(*wide_mean.shape, weights.shape[-1])
        wide_mean[:, [*columns, *motions]], wide[:, [*columns, *motions]] = mean, weights
        embedding = torch.from_numpy(recorded.embedding)[ends]
        return cls(image, recorded.corner, embedding, ends, after, looks, wide_mean.flatten(), wide.flatten(0, 1))

    def to(self, device: torch.device | str) -> Body:
        moved = {name: x.to(device) for name, x in self._asdict().items() if isinstance(x, Tensor)}
        return self._replace(**moved)

    def find(self, frame: Tensor, body: Tensor) -> Tensor:
        """The row (b,), from 1, that looks most like a frame (b, 3, H, W) in [-1, 1] with a body (b, h, w) bool."""
        opacity = F.interpolate(body[:, None].float(), frame.shape[-2:], mode="bilinear")
        (top, left), (height, width) = self.corner, self.image.shape[-2:]
        seen = torch.cat([frame.float(), opacity], 1)[..., top : top + height, left : left + width]
        return torch.cdist(describe_looks(seen), self.looks).argmin(1) + 1

    def show(self, actions: Tensor, motions: Tensor, shown: Tensor, size: tuple[int, int]) -> BodyLayer:
        """The body in the last four of the frames that these actions (b, 24, a) and motions (b, 24, 6) led to.

        shown: (b,) the row shown last, from 1; 0 for none.  size: of the frame.
        """
        embedding = (describe_past(actions, motions) - self.mean) @ self.weights
        expected = self.looks[self.after[(shown - 1).clamp(min=0)]]
        change = torch.cdist(expected, self.looks[self.ends - STEP_FRAMES + 1]).square() * (shown > 0)[:, None]
        cost = torch.cdist(embedding, self.embedding).square() + CONTINUITY * change
        ends = self.ends[cost.argmin(1)]
        rows = ends[:, None] + torch.arange(1 - STEP_FRAMES, 1, device=ends.device)
        image = to_unit(self.image[rows].flatten(0, 1)).unflatten(0, rows.shape)
        image[:, :, :3] *= image[:, :, 3:]
        (top, left), (height, width) = self.corner, image.shape[-2:]
        image = F.pad(image, (left, size[1] - left - width, top, size[0] - top - height))
        return BodyLayer(rows, image, shrink_frames(image))
