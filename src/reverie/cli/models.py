"""`reverie models` and `reverie models push | pull`: model folders, here and on the Hugging Face Hub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from reverie.argument_markers import positional
from reverie.cli.pull_options import PullOptions
from reverie.hub.push_options import PushOptions

if TYPE_CHECKING:
    from reverie.engine.loading.models import BundledModel


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


def models(config: ModelsConfig) -> None:
    """Prints the bundled models, or the card of one."""
    from rich.console import Console

    from reverie.engine.loading.models import BundledModel, bundled_models, find_model

    console = Console()
    chosen = config.model or config.card
    if chosen is not None:
        folder = find_model(chosen)
        console.print(BundledModel(folder.name, folder, {}).card or f"{folder} has no model card", markup=False)
        return
    models = bundled_models()
    if not models:
        console.print("no models are bundled; train one with `reverie train world`")
    for model in models:
        _print_model(console, model)


@dataclass(frozen=True, kw_only=True, slots=True)
class PushModelConfig(PushOptions):
    """Push a model folder to the Hugging Face Hub, in one commit, with a card that the Hub understands.

    Log in first, with `hf auth login` or HF_TOKEN.

    Example: reverie models push runs/world/model somebody/my-world
    """

    model: Annotated[str, positional()]
    """A model folder, or a bundled model's name."""
    repository: Annotated[str, positional()]
    """OWNER/NAME; made if it is not there."""


def models_push(config: PushModelConfig) -> None:
    """Pushes the model and prints its address."""
    from reverie.engine.loading.hub import push_model
    from reverie.engine.loading.models import find_model

    print(push_model(find_model(config.model), config.repository, config))


@dataclass(frozen=True, kw_only=True, slots=True)
class PullModelConfig(PullOptions):
    """Download a model from the Hugging Face Hub into a folder.

    `reverie play --model OWNER/NAME` needs no folder: it fetches what is missing into the Hub's own cache.

    Example: reverie models pull somebody/my-world -o models/my-world
    """


def models_pull(config: PullModelConfig) -> None:
    """Downloads the model and prints its folder."""
    from reverie.engine.loading.hub import pull_model

    print(pull_model(config.repository, config.output, revision=config.revision))


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
