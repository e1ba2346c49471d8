"""Loading of a model by the options of a command, in sight of the terminal."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from reverie.cli.display import tell
from reverie.engine.loading.load_options import LoadOptions

if TYPE_CHECKING:
    from rich.console import Console

    from reverie.engine.engine import Engine


def load_options(config: Any) -> LoadOptions:
    """Those of a command's options that say which model is loaded, and how."""
    return LoadOptions(**{field.name: getattr(config, field.name) for field in fields(LoadOptions)})


def load_engine(options: LoadOptions, console: Console) -> Engine:
    """Loads the model, with a spinner and notes on `console`."""
    from reverie.engine.engine import load

    with console.status(f"loading {options.model}") as status:
        return load(
            **asdict(options),
            say=lambda text: console.print(text, highlight=False, soft_wrap=True),
            progress=lambda share, text: status.update(f"{text} ({share:.0%})"),
        )


def source_options(config: Any) -> dict[str, Any]:
    """Options of `reverie.serve.choose.source_of`: how a model is loaded, and where it or a game begins."""
    names = ("variant", "decoder", "preset", "weights", "mode", "scene", "start")
    return {"settings": config.set, "say": tell, **{name: getattr(config, name) for name in names}}
