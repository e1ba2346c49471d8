"""Command lines without tyro: a frozen dataclass of options, parsed by argparse.

For machines that have torch and little else, as rented GPUs often are.  Every field is an option; help is one line
each, without tyro's comforts.
"""

from __future__ import annotations

import argparse
import dataclasses
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

T = TypeVar("T")

SHORT = {"output": "-o", "out": "-o"}
"""One-letter names, as the full command line has them."""


def parse(kind: type[T], args: Sequence[str], prog: str, description: str = "") -> T:
    """An instance of a dataclass from `args`.  Prints and raises SystemExit as argparse does."""
    parser = argparse.ArgumentParser(
        prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        has_default = (
            field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING  # type: ignore[misc]
        )
        words = ["--" + field.name.replace("_", "-"), *([SHORT[field.name]] if field.name in SHORT else [])]
        options = _options(hints[field.name])
        if has_default:
            default = field.default if field.default is not dataclasses.MISSING else "made when it is needed"
            options["help"] = f"default {default}".replace("%", "%%")
        parser.add_argument(*words, dest=field.name, required=not has_default, default=argparse.SUPPRESS, **options)
    given = vars(parser.parse_args(list(args)))
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})


def _options(hint: Any) -> dict[str, Any]:
    """Builds argparse's keyword arguments for a field's type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        (inner,) = (a for a in arguments if a is not type(None))
        return _options(inner)
    if origin is Literal:
        return {"choices": arguments, "type": type(arguments[0])}
    if origin is tuple:
        return {"nargs": "*" if arguments[-1] is Ellipsis else len(arguments), "type": arguments[0]}
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    if hint in (int, float, str, Path):
        return {"type": hint}
    raise TypeError(f"an option of type {hint!r} needs tyro; pip install tyro")
