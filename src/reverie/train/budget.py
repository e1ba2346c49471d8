"""Notice of what `--minutes` of a training command covers, and what comes on top of it.

announce(options, tell)  first thing in a command: before recordings are read, which may take longer than the training
take_preparation_s()     once, when the first step begins: how long the command has prepared
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from reverie.errors import DataError


class _Command:
    """The training command of this process.  began_s: on the monotonic clock; None once it has been taken."""

    began_s: float | None = None


def announce(options: Any, tell: Callable[[str], None]) -> None:
    """Note that a command begins; with a budget in minutes, tell what comes on top of it.

    options: of the command; of them `minutes`, `data` and `held_out` (a folder or several), `max_hours` and
    `held_out_hours` count, where it has them.
    """
    _Command.began_s = time.monotonic()
    minutes = getattr(options, "minutes", None)
    if minutes is None or os.environ.get("RANK", "0") != "0":  # of several processes the first one speaks
        return
    hours = _hours(options.data, getattr(options, "max_hours", None))
    hours += _hours(getattr(options, "held_out", None), getattr(options, "held_out_hours", None))
    tell(
        f"--minutes {minutes:g} counts training steps and the figures between them.  On top come, before: reading and "
        f"preparing {hours:.2g} h of recordings (what is encoded is kept: a second run skips it) and the first "
        "figures; after: the last figures and the model folder."
    )


def take_preparation_s() -> float | None:
    """Seconds from the command's beginning to now, at the first call; None where no command has begun."""
    began_s, _Command.began_s = _Command.began_s, None
    return None if began_s is None else time.monotonic() - began_s


def _hours(folders: Path | Sequence[Path] | None, most: float | None) -> float:
    """Hours of these recordings, `most` of each; one that cannot be read counts nothing here, and is refused later."""
    from reverie.data.dataset import Dataset  # needs more packages than a training from packs

    total = 0.0
    for folder in [folders] if isinstance(folders, Path) else folders or ():
        try:
            dataset = Dataset(folder)
        except DataError:
            continue
        hours = dataset.num_frames / dataset.fps / 3600
        total += hours if most is None else min(most, hours)
    return total
