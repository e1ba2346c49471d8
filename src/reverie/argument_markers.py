"""Further names of command-line options, in modules that must be importable where tyro is not installed."""

from __future__ import annotations

from typing import Any


def alias(*names: str) -> Any:
    """In `Annotated[Path, alias("-o")]`: other names of that option.  Nothing where there is no tyro
    (`reverie.cli.plain` has the common ones)."""
    try:
        from tyro.conf import arg
    except ModuleNotFoundError:
        return None
    return arg(aliases=names)


def positional() -> Any:
    """In `Annotated[str, positional()]`: an argument without a name.  Nothing where there is no tyro."""
    try:
        from tyro.conf import Positional
    except ModuleNotFoundError:
        return None
    return Positional


def repeated() -> Any:
    """In `Annotated[tuple[str, ...], repeated()]`: an option that is given once for each value.  Nothing where there
    is no tyro."""
    try:
        from tyro.conf import UseAppendAction
    except ModuleNotFoundError:
        return None
    return UseAppendAction
