"""`reverie play`: a generated world, or a real game, in the browser."""

from __future__ import annotations

import os
import sys
import threading
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from reverie.argument_markers import repeated
from reverie.cli.loading import source_options
from reverie.cli.serve import address_lines


@dataclass(frozen=True, kw_only=True, slots=True)
class PlayConfig:
    """Play a generated world, or a real game, in the browser.

    Examples: reverie play;  reverie play --model path/to/model;  reverie play --scene scenes/my-level --start 2;
    reverie play --world vizdoom --record my-play;  reverie play --world city --model nano;
    reverie play --model Skywork/Matrix-Game-2.0 --variant universal;  reverie play --model nano --model path/to/mine
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
    """Play this real game (such as vizdoom) instead of a model."""
    set: Annotated[tuple[str, ...], repeated()] = ()
    """With --world: an option of the game, KEY=VALUE, such as maps=freedoom2/MAP01; can be given several times."""
    record: Path | None = None
    """With --world: keep all that is played as a dataset in this folder, made or continued."""
    host: str = "127.0.0.1"
    """The address to listen on; 0.0.0.0 lets other machines in, by the link that is printed."""
    port: int = 8000
    """The port to listen on; 0 takes any free one."""
    token: str = "auto"
    """Token that the link must carry; auto makes one where other machines can reach the page, none requires none."""
    allow_host: Annotated[tuple[str, ...], repeated()] = ()
    """Another name that the page is asked for by, as behind a proxy; can be given several times."""
    browser: bool = True
    """Open the page in the browser."""
    saves: Path | None = None
    """Keep saved sessions in this folder; by default in the user's own."""
    device: str = "auto"
    """Device that the model runs on: auto, cpu or cuda."""


def play(config: PlayConfig) -> None:
    """Serves the page to one machine, and opens it in the browser."""
    from reverie.serve.app import serve
    from reverie.serve.choose import name_of, sources_of
    from reverie.serve.host import Limits
    from reverie.serve.saves import SaveFolder, default_folder

    def announce(address: str, outside: str | None) -> None:
        print(address_lines(f"{name_of(config.model, config.world)} is at", address, outside), flush=True)
        if config.browser:
            open_browser(address)

    source = sources_of(config.model, config.world, config.device, config.record, **source_options(config))
    limits = None if config.record is None else Limits(max_players=1)  # one person's play, in order
    serve(
        source,
        host=config.host,
        port=config.port,
        limits=limits,
        announce=announce,
        token=config.token,
        allow_hosts=config.allow_host,
        saves=SaveFolder(config.saves or default_folder(), is_listed=True),
    )


def open_browser(address: str) -> None:
    """Open the page, if this machine has a screen to show it on; silent if that fails."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return
    threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
