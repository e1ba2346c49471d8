"""LPIPS, the perceptual distance of the literature, where the extra `metrics` and its network's weights are there.

Nothing is downloaded: torch's own cache is looked into.  Without it the distances of `idm_scorer` are all there is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from reverie.types import Frames

BACKBONE = "alexnet-owt-7be5be79.pth"
"""File of torchvision's AlexNet in torch's cache."""
PACKAGES = ("torchmetrics", "torchvision")


@dataclass(frozen=True, slots=True)
class LPIPS:
    """Learned Perceptual Image Patch Similarity (Zhang et al. 2018, arXiv 1801.03924), version 0.1 on AlexNet.

    fingerprint: of the backbone's weights.
    """

    network: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    fingerprint: str

    @torch.inference_mode()
    def distance(self, frames: Frames, truth: Frames) -> float:
        """Mean over the frames `(f, H, W, 3)`, 0 (equal) and up, lower is better."""
        first, second = (torch.from_numpy(np.array(x)).permute(0, 3, 1, 2) / 127.5 - 1 for x in (frames, truth))
        return float(self.network(first, second))


def open_lpips() -> LPIPS | None:
    """LPIPS, or None where a package or the weights are missing."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / BACKBONE
    if not path.is_file() or not all(map(find_spec, PACKAGES)):
        return None
    from torchmetrics.image.lpip import (  # pyright: ignore[reportMissingImports]  # an extra
        LearnedPerceptualImagePatchSimilarity,
    )

    network = LearnedPerceptualImagePatchSimilarity(net_type="alex").eval()
    return LPIPS(network, hashlib.sha256(path.read_bytes()).hexdigest()[:12])
