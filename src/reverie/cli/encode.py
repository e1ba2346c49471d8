"""`reverie encode`: recordings are put through a tokenizer once, and the latents kept for trainings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from reverie.argument_markers import alias, positional
from reverie.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeConfig:
    """Put recordings through a tokenizer and keep the latents, for `--latents` of trainings.

    Example: reverie encode data/vizdoom data/city --tokenizer runs/tokenizer -o data/latents
    """

    data: Annotated[tuple[Path, ...], positional()]
    """Folders of LeRobot datasets."""
    tokenizer: Path
    """Folder of a tokenizer's training, or of a model."""
    output: Annotated[Path, alias("-o")]
    """Folder of the latents; each dataset has its own below it."""
    max_hours: float | None = None
    """Hours of each dataset, at most; the training must be given the same."""
    threads: int | None = None
    """Threads that decode videos ahead (default: two less than there are cores, from 2 to 16)."""
    device: str = "auto"
    """auto, cuda or cpu."""

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise DataError(f"--threads must be at least 1, got {self.threads}")
        if not self.data:
            raise DataError("expected at least one recording, got none; name the folder of a LeRobot dataset")


def encode(config: EncodeConfig) -> None:
    """Encodes each recording and prints a line for it."""
    import numpy as np

    from reverie.cli.display import TrainingDisplay
    from reverie.train.device import pick_device
    from reverie.train.encode import dataset_names, load_latents
    from reverie.train.tokenizer import read_tokenizer

    device = pick_device(config.device)
    tokenizer = read_tokenizer(config.tokenizer).to(device)
    for data, name in zip(config.data, dataset_names(config.data), strict=True):
        folder = config.output / name
        clips = load_latents(
            data, tokenizer, folder, device, config.max_hours, threads=config.threads, display=TrainingDisplay()
        )
        print(f"{folder}: {len(clips)} steps of {len(np.unique(clips.episode))} episodes")
