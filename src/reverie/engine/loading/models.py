"""Model folders by name: bundled ones, paths, and the hub's.  Torch-free."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reverie.errors import CheckpointError

WEIGHTS = Path(__file__).parents[2] / "weights"
"""Folder of the bundled models."""


@dataclass(frozen=True, slots=True)
class BundledModel:
    """A model folder that came with the package.  `config` is its config.json."""

    name: str
    folder: Path
    config: dict[str, Any]

    @property
    def size_mib(self) -> float:
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file()) / 2**20

    @property
    def card(self) -> str:
        """The model card, Markdown."""
        file = self.folder / "README.md"
        return file.read_text(encoding="utf-8") if file.is_file() else ""


def bundled_models() -> list[BundledModel]:
    """Every bundled model, by name."""
    return [
        BundledModel(file.parent.name, file.parent, json.loads(file.read_text(encoding="utf-8")))
        for file in sorted(WEIGHTS.glob("*/config.json"))
    ]


def find_model(model: str | Path, variant: str | None = None, tell: Callable[[str], None] = lambda text: None) -> Path:
    """The folder of a bundled name, a folder as it is, or a hub's model, whose files are fetched if need be.

    variant: which of a hub's models is meant; tell: called with a line for each fetched file.
    Raises CheckpointError, naming what there is, where there is no such model.
    """
    path = Path(model)
    if path.is_dir():
        return path
    names = [bundled.name for bundled in bundled_models()]
    if str(model) in names:
        return WEIGHTS / str(model)
    choices = f"expected a bundled model ({', '.join(names) or 'none is installed'}) or the path of a model folder"
    if path.is_file():
        raise CheckpointError(f"{str(model)!r} is a file; {choices}")
    if _is_hub_id(str(model)):
        from reverie.engine.loading.hub import fetch

        return fetch(str(model), variant, tell)
    raise CheckpointError(f"there is no model {str(model)!r}; {choices}, or a hub id such as Skywork/Matrix-Game-2.0")


def check_model(model: str | Path, variant: str | None = None) -> None:
    """Raise the CheckpointError that `find_model` would raise, within seconds and without a download."""
    if _is_hub_id(str(model)) and not Path(model).exists():
        from reverie.engine.loading.hub import check_reachable

        check_reachable(str(model), variant)
    else:
        find_model(model, variant)


def _is_hub_id(model: str) -> bool:
    return re.fullmatch(r"[\w.-]+/[\w.-]+", model) is not None
