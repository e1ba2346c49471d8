"""Frames are drawn larger than they are shown, and averaged down: edges neither shimmer nor crawl."""

from __future__ import annotations

from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import Interpolation, VideoReformatter


class Shrinker:
    """Averages to frames of (H, W): each pixel is the mean of what it covers, whatever the two sizes."""

    def __init__(self, resolution: tuple[int, int]) -> None:
        self._resolution = resolution
        self._reformatter = VideoReformatter()

    def __call__(self, drawn: npt.NDArray[np.uint8], layout: str = "rgb24") -> npt.NDArray[np.uint8]:
        """Drawn pixels `(H', W', 3)`, or `(H', W', 4)` with the layout bgra, -> `(H, W, 3)` RGB.

        What is returned is a view of memory of its own, rows one after another.
        """
        height, width = self._resolution
        frame = av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(drawn), layout)
        area = Interpolation.AREA
        plane: Any = self._reformatter.reformat(
            frame, width=width, height=height, format="rgb24", interpolation=area, threads=1
        ).planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(height, -1)[:, : 3 * width]
        return np.ascontiguousarray(rows).reshape(height, width, 3)
