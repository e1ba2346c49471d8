"""`reverie serve`: the page for many players."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from reverie.argument_markers import repeated
from reverie.cli.loading import source_options
from reverie.errors import ServeError


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeConfig:
    """Serve the page to several players, without opening a browser; they take turns at the model.

    Examples: reverie serve;  reverie serve --host 0.0.0.0 --port 80 --max-players 8;  reverie serve --replicas 2
    """

    model: Annotated[tuple[str, ...], repeated()] = ()
    """A bundled model's name, a model folder, published Matrix-Game 2.0 weights, or a hub id of either; by default
    nano, or with --world none.  With --world: dreams of the game, which G swaps it for.  Given several times, or as a
    folder of models: the page offers them all, and loads one when it is chosen."""
    variant: str | None = None
    """Variant of Matrix-Game 2.0: universal, gta or templerun."""
    decoder: str = "auto"
    """full, or tiny where the model has one: faster, a little coarser; auto takes the preset's, else full."""
    preset: str | None = None
    """Memory preset of Matrix-Game 2.0, by the card's memory: 24gb, 12gb, 8gb; or fast."""
    weights: str = "auto"
    """Weights of the transformer: full, int8, int4 or fp8; auto takes the preset's, else full."""
    mode: str = "auto"
    """eager, or compiled (on a GPU with CUDA graphs); auto compiles on a GPU."""
    scene: str | None = None
    """Begin in this scene: a bundled one's name (`reverie scene list`), or a folder of `reverie scene build`."""
    start: int = 0
    """With --scene: the number of the start to begin at."""
    world: str | None = None
    """Serve this real game (such as vizdoom) instead of a model."""
    set: Annotated[tuple[str, ...], repeated()] = ()
    """With --world: an option of the game, KEY=VALUE; can be given several times."""
    host: str = "127.0.0.1"
    """The address to listen on; 0.0.0.0 lets other machines in, by the link that is printed."""
    port: int = 8000
    """The port to listen on."""
    token: str = "auto"
    """Token that the link must carry; auto makes one where other machines can reach the page, none requires none."""
    allow_host: Annotated[tuple[str, ...], repeated()] = ()
    """Another name that the page is asked for by, as behind a proxy; can be given several times."""
    saves: Path | None = None
    """Keep saved sessions in this folder; by default in the user's own."""
    device: str = "auto"
    """Device that the model runs on: auto, cpu or cuda."""
    max_players: int = 4
    """Connections at once, of each replica; on a CPU, one player fills it."""
    replicas: int = 1
    """Server processes, each with the model of its own; a player stays with one, and all share the saved sessions."""


def serve(config: ServeConfig) -> None:
    """Serves the page to several players."""
    from reverie.serve import app
    from reverie.serve.choose import name_of, source_of, sources_of
    from reverie.serve.host import Limits
    from reverie.serve.saves import SaveFolder, default_folder

    def announce(address: str, outside: str | None) -> None:
        print(address_lines(f"serving {name_of(config.model, config.world)} at", address, outside), flush=True)

    source = sources_of(config.model, config.world, config.device, **source_options(config))
    limits = Limits(max_players=config.max_players)
    saves = config.saves or default_folder()
    where: dict[str, Any] = {"host": config.host, "port": config.port, "token": config.token}
    where |= {"allow_hosts": config.allow_host, "announce": announce}
    if config.replicas == 1:
        app.serve(source, limits=limits, saves=SaveFolder(saves), **where)
        return
    if isinstance(source, Mapping):
        raise ServeError("replicas serve one model each; name one with --model, or leave --replicas out")
    from reverie.serve.replicas import ReplicaConfig, serve_replicas

    model = config.model[0] if config.model else None
    make_source = partial(source_of, model, config.world, config.device, **source_options(config))
    replicas = ReplicaConfig(source=make_source, limits=limits, saves=saves, num_replicas=config.replicas)
    serve_replicas(replicas, **where)


def address_lines(what: str, address: str, outside: str | None) -> str:
    """Lines that say where the page is.  outside: its address for other machines."""
    lines = [f"{what} {address} (Ctrl-C stops it)"]
    if outside is not None:
        lines.append(f"from other machines: {outside}")
    if "token=" in address:
        lines.append("whoever has this link can play and upload images: show it to nobody else")
    return "\n".join(lines)
