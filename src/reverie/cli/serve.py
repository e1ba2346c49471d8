"""`reverie serve`: the page for many players."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from reverie.cli.loading import PageOptions, source_options
from reverie.errors import ServeError


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeConfig(PageOptions):
    """Serve the page to several players, without opening a browser; they take turns at the model.

    Examples: reverie serve;  reverie serve --host 0.0.0.0 --port 80 --max-players 8;  reverie serve --replicas 2
    """

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
