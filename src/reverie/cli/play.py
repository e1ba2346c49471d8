"""`reverie play`: a generated world, or a real game, in the browser."""

from __future__ import annotations

import os
import sys
import threading
import webbrowser
from dataclasses import dataclass
from pathlib import Path

from reverie.cli.loading import PageOptions, source_options
from reverie.cli.serve import address_lines


@dataclass(frozen=True, kw_only=True, slots=True)
class PlayConfig(PageOptions):
    """Play a generated world, or a real game, in the browser.

    Examples: reverie play;  reverie play --model path/to/model;  reverie play --scene scenes/my-level --start 2;
    reverie play --world vizdoom --record my-play;  reverie play --world city --model nano;
    reverie play --model Skywork/Matrix-Game-2.0 --variant universal;  reverie play --model nano --model path/to/mine
    """

    record: Path | None = None
    """With --world: keep all that is played as a dataset in this folder, made or continued."""
    browser: bool = True
    """Open the page in the browser."""


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
