"""A recording as latents, on disk and in memory.

For every latent step of every episode: the step as the stream has it, the actions of its four frames, and a small
image for the image encoder.  Every third step's last frame is also encoded alone, as a start image is, because
every session opens on such a step: training clips start there.

For a model that generates its start (`StartEncoder`), an opening also has the image encoder's tokens of the full
picture and the latents of the grey that follows it in a session.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reverie.errors import DataError
from reverie.models.actions import STEP_FRAMES
from reverie.types import ActionSpace


@dataclass(frozen=True, slots=True)
class LatentClips:
    """The latents of a dataset.  N steps in all; an episode is a run of them.

    z: (N, c, h, w) float16; rows: (N, 4, a) float32, the actions that lead to the step's frames; episode: (N,) which
    episode a step is of; opens: (M,) the steps at which a clip can start, in order; still: (M, c, h, w) float16, their
    last frames encoded alone; picture: (M, 3, H/2, W/2) uint8, the same frames.
    For a model that generates its start also: tokens (M, n, d) float16, of the image encoder; grey: (M, g, c, h, w)
    float16, the steps after `still` as `StartEncoder` has them.
    """

    z: npt.NDArray[np.float16]
    still: npt.NDArray[np.float16]
    rows: npt.NDArray[np.float32]
    picture: npt.NDArray[np.uint8]
    episode: npt.NDArray[np.int32]
    opens: npt.NDArray[np.int64]
    action_space: ActionSpace
    fov_deg: float | None = None
    """Horizontal field of view of the frames, if the recording states it."""
    tokens: npt.NDArray[np.float16] | None = None
    grey: npt.NDArray[np.float16] | None = None

    START_FIELDS = ("tokens", "grey")
    FIELDS = ("z", "still", "rows", "picture", "episode", "opens")

    def __len__(self) -> int:
        return len(self.z)

    def starts(self, num_steps: int) -> npt.NDArray[np.int64]:
        """Finds the rows at which a clip of `num_steps` steps can start.  Raises DataError if no episode is long
        enough."""
        starts = self.opens[self.opens + num_steps <= len(self)]
        starts = starts[self.episode[starts + num_steps - 1] == self.episode[starts]]
        if not len(starts):
            raise DataError(
                f"no episode holds {num_steps} latent steps ({STEP_FRAMES * num_steps - 3} frames); record longer ones"
            )
        return starts

    def opening(self, start: int) -> int:
        """The row of `still`, `picture`, `tokens` and `grey` of a step that a clip can start at."""
        return int(np.searchsorted(self.opens, start))
