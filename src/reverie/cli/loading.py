"""Loading of a model by the options of a command, in sight of the terminal."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from reverie.argument_markers import repeated
from reverie.cli.display import tell
from reverie.engine.loading.load_options import LoadOptions, ModelSettings

if TYPE_CHECKING:
    from rich.console import Console

    from reverie.engine.engine import Engine


@dataclass(frozen=True, kw_only=True, slots=True)
class PageOptions(ModelSettings):
    """Options of commands that serve the page: what is played there, and where it is."""

    model: Annotated[tuple[str, ...], repeated()] = ()
    """A bundled model's name, a model folder, published Matrix-Game 2.0 weights, or a hub id of either; by default
    nano, or with --world none.  With --world: dreams of the game, which G swaps it for.  Given several times, or as a
    folder of models: the page offers them all, and loads one when it is chosen."""
    scene: str | None = None
    """Begin in this scene: a bundled one's name (`reverie scene list`), or a folder of `reverie scene build`."""
    start: int = 0
    """With --scene: the number of the start to begin at."""
    world: str | None = None
    """Play this real game (such as vizdoom) instead of a model."""
    set: Annotated[tuple[str, ...], repeated()] = ()
    """With --world: an option of the game, KEY=VALUE, such as maps=freedoom2/MAP01; can be given several times."""
    host: str = "127.0.0.1"
    """The address to listen on; 0.0.0.0 lets other machines in, by the link that is printed."""
    port: int = 8000
    """The port to listen on; 0 takes any free one."""
    token: str = "auto"
    """Token that the link must carry; auto makes one where other machines can reach the page, none requires none."""
    allow_host: Annotated[tuple[str, ...], repeated()] = ()
    """Another name that the page is asked for by, as behind a proxy; can be given several times."""
    saves: Path | None = None
    """Keep saved sessions in this folder; by default in the user's own."""


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


def source_options(config: PageOptions) -> dict[str, Any]:
    """Options of `reverie.serve.choose.source_of`: how a model is loaded, and where it or a game begins."""
    names = {field.name for field in fields(ModelSettings)} - {"device"} | {"scene", "start"}
    return {"settings": config.set, "say": tell, **{name: getattr(config, name) for name in names}}
