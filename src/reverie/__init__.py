"""Reverie: one image in, a world you walk through out.

    import reverie

    engine = reverie.load("nano")
    session = engine.open("room.png", seed=0)
    frames = session.step(reverie.Action(frozenset({"forward"}), mouse=(0.0, 3.0)))   # uint8 (4, H, W, 3)

Names are loaded when they are first used, so `import reverie` costs nothing and needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reverie.engine.engine import Engine, load
    from reverie.engine.sessions.session import Session, Snapshot
    from reverie.errors import ReverieError
    from reverie.types import Action, ActionSpace, Clip, World

__version__ = "0.1.0"

__all__ = ["Action", "ActionSpace", "Clip", "Engine", "ReverieError", "Session", "Snapshot", "World", "load"]

_HOMES = {
    "Action": "reverie.types",
    "ActionSpace": "reverie.types",
    "Clip": "reverie.types",
    "Engine": "reverie.engine.engine",
    "ReverieError": "reverie.errors",
    "Session": "reverie.engine.sessions.session",
    "Snapshot": "reverie.engine.sessions.session",
    "World": "reverie.types",
    "load": "reverie.engine.engine",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'reverie' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
