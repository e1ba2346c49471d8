"""Sources of a model's networks: a model folder of this project, or published weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from reverie.errors import CheckpointError
from reverie.models.adapters.published import is_published, open_published
from reverie.models.checkpoint import TINY_DECODER, WEIGHTS, ModelBundle, ModelConfig, load_model, read_config
from reverie.models.weights import files_of


class ModelSource(Protocol):
    """Files that make up a model, looked at but not read."""

    @property
    def config(self) -> ModelConfig: ...
    @property
    def files(self) -> tuple[Path, ...]: ...
    def load(self, device: torch.device | str, dtype: torch.dtype) -> ModelBundle: ...


@dataclass(frozen=True, slots=True)
class OwnFolder:
    """A model folder of our own."""

    folder: Path
    config: ModelConfig

    @property
    def files(self) -> tuple[Path, ...]:
        names = ["config.json", *sorted(WEIGHTS.values())] + ([TINY_DECODER] if self.config.tiny_decoder else [])
        return tuple(file for name in names for file in files_of(self.folder / name))

    def load(self, device: torch.device | str, dtype: torch.dtype) -> ModelBundle:
        return load_model(self.folder, device, dtype)


def open_source(
    folder: Path, variant: str | None = None, resolution: tuple[int, int] | None = None, tiny: Path | None = None
) -> ModelSource:
    """Opens the model in `folder`; only headers are read.  Raises CheckpointError, in one line, for any fault."""
    if is_published(folder):
        return open_published(folder, variant, resolution, tiny)
    config = read_config(folder)
    if variant is not None and config.summary.get("variant", variant) != variant:
        raise CheckpointError(f"{folder} holds the variant {config.summary['variant']!r}, not {variant!r}")
    if variant is not None and "variant" not in config.summary:
        raise CheckpointError(f"{folder} ({config.name}) has no variants; leave --variant {variant} out")
    if resolution is not None and resolution != config.resolution:
        raise CheckpointError(f"{folder} was made for {config.resolution}; a resolution is chosen when it is converted")
    return OwnFolder(folder, config)
