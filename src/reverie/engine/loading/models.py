"""Model folders by name: the bundled ones, and `reverie models`.  Torch-free."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from reverie.errors import CheckpointError
from reverie.options import positional

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


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelsConfig:
    """List the bundled models, or show one's card.

    `reverie models push` and `reverie models pull` bring models to the Hugging Face Hub and from it.

    Examples: reverie models;  reverie models nano
    """

    model: Annotated[str | None, positional()] = None
    """Print the card of this model: a bundled one's name, a model folder, or a hub id."""
    card: str | None = None
    """The same as naming the model."""

    def run(self) -> None:
        from rich.console import Console

        console = Console()
        chosen = self.model or self.card
        if chosen is not None:
            folder = find_model(chosen)
            console.print(BundledModel(folder.name, folder, {}).card or f"{folder} has no model card", markup=False)
            return
        models = bundled_models()
        if not models:
            console.print("no models are bundled; train one with `reverie train world`")
        for model in models:
            _print_model(console, model)


def _print_model(console: Any, model: BundledModel) -> None:
    from rich.table import Table

    table = Table(title=f"{model.name}  ({model.size_mib:.0f} MiB)", title_justify="left", show_header=False, box=None)
    for name, value in _rows(model.config):
        table.add_row(name, value)
    console.print(table)


def _rows(config: dict[str, Any]) -> list[tuple[str, str]]:
    """Lists the facts of a config that matter to a player, then the figures of its training."""
    space = config.get("world", {}).get("action_space", {})
    keys = [*space.get("keys", []), *(["mouse"] if space.get("mouse") else [])]
    facts = {
        "resolution": " x ".join(map(str, config.get("resolution", []))),
        "played with": ", ".join(keys),
        "denoising steps": len(config.get("schedule", {}).get("sigmas", [])),
        "licence": config.get("licence", "unknown"),
    }
    return [(name, str(value)) for name, value in facts.items()] + _flat(config.get("summary", {}))


def _flat(table: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested tables as lines `a.b`, lists on one line."""
    rows: list[tuple[str, str]] = []
    for name, value in table.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)))
    return rows
