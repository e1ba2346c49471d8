"""Options of games on the command line: `--set KEY=VALUE`, read by the types that the game's class declares."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterable
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from reverie.errors import WorldError
from reverie.worlds import WorldInfo

_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def parse_options(info: WorldInfo, settings: Iterable[str]) -> dict[str, Any]:
    """`["monsters=true"]` -> `{"monsters": True}`.  Lists are separated by commas; `none` where the game allows it.

    Raises WorldError for what is not KEY=VALUE, for a key that the game does not have, and for a value of another type.
    """
    known = options_of(info)
    options: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise WorldError(f"--set takes KEY=VALUE, such as --set monsters=true; got {setting!r}")
        if key not in known:
            raise WorldError(f"{info.name} has no option {key!r}; its options: {', '.join(known) or 'none'}")
        if key in options:
            raise WorldError(f"--set {key} is given twice")
        found = [value for value in (_read(text, kind) for kind in _kinds(known[key])) if value is not _NOT]
        if not found:
            raise WorldError(f"--set {key} takes {_describe(known[key])}, got {text!r}")
        options[key] = found[0]
    return options


def options_of(info: WorldInfo) -> dict[str, Any]:
    """The options of a game and their types."""
    target = info.target
    signature = inspect.signature(target)
    hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name: hints.get(name, str) for name, p in signature.parameters.items() if p.kind in kinds}


_NOT = object()


def _kinds(hint: Any) -> tuple[Any, ...]:
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return tuple(sorted(kinds, key=lambda kind: kind is not type(None)))  # none is none, not a text


def _read(text: str, kind: Any) -> Any:
    """`text` as a `kind`, or _NOT."""
    if kind is type(None):
        return None if text.lower() == "none" else _NOT
    if kind is bool:
        return _TRUTH.get(text.lower(), _NOT)
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            return _NOT
    if get_origin(kind) is Literal:
        return text if text in get_args(kind) else _NOT
    if get_origin(kind) in (tuple, list):
        inner = (get_args(kind) or (str,))[0]
        values = tuple(_read(part, inner) for part in text.split(",") if part)
        return _NOT if _NOT in values else values
    return text if kind is str else _NOT


def _describe(hint: Any) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", type(None): "none"}
    parts = []
    for kind in _kinds(hint):
        if get_origin(kind) is Literal:
            parts.append(f"one of {', '.join(map(str, get_args(kind)))}")
        elif get_origin(kind) in (tuple, list):
            parts.append("values separated by commas")
        else:
            parts.append(names.get(kind, str(kind)))
    return " or ".join(parts)
