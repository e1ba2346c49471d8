"""Latents of packs on disk, so that a training that is begun again does not encode them again."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from reverie.errors import TrainError
from reverie.models.tokenizer import VideoTokenizer
from reverie.models.weights import fingerprint
from reverie.train.spatial.packs import PackedEpisode


class LatentCache:
    """A folder with one file for each group of episodes that are encoded together.

    A file is named by its frames, whether they are decoded, and the tokenizer, and is there whole or not at all.
    """

    def __init__(self, folder: Path, tokenizer: VideoTokenizer) -> None:
        self.folder = folder
        self.tokenizer = fingerprint(tokenizer.state_dict())

    def _path(self, episodes: Sequence[PackedEpisode], decode: bool) -> Path:
        digest = hashlib.sha256(f"{self.tokenizer} {decode}".encode())
        for episode in episodes:
            digest.update(f"{episode.frames.shape} {zlib.crc32(episode.frames.data)}".encode())
        return self.folder / f"{digest.hexdigest()[:24]}.safetensors"

    def read(self, episodes: Sequence[PackedEpisode], decode: bool) -> dict[str, Tensor] | None:
        """Reads the cached latents of these episodes; None if there are none, or the file is damaged."""
        path = self._path(episodes, decode)
        try:
            return load_file(path) if path.is_file() else None
        except (OSError, SafetensorError):
            return None

    def write(self, episodes: Sequence[PackedEpisode], decode: bool, tensors: dict[str, Tensor]) -> None:
        """Raises TrainError where the disk refuses."""
        path = self._path(episodes, decode)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, partial)
            os.replace(partial, path)
        except (OSError, SafetensorError) as error:
            partial.unlink(missing_ok=True)
            raise TrainError(f"cannot write {path} ({error}); free some space and run the same command") from error
