"""Model configs of version 2, in which the fields of a world model lay flat."""

from __future__ import annotations

from typing import Any

from reverie.models.actions import WINDOW_FRAMES
from reverie.models.dit import MOUSE_SCALE
from reverie.nn.norm import EPS

GROUPS = {
    "image": {"image_dim": "dim", "image_tokens": "tokens", "image_blocks": "blocks"},
    "actions": {"keyboard": "keyboard", "mouse": "mouse", "action_modulation": "modulation", "idle_key": "idle_key"},
    "positions": {"theta": "theta", "learned_positions": "learned", "local_start": "local_start"},
}
"""Fields that have moved into a group, and their names there."""


def convert_world(old: dict[str, Any]) -> dict[str, Any]:
    """The world model's part of a config of version 2, as version 3 has it.

    Raises ValueError for settings that no longer vary and have another value."""
    world = dict(old)
    modules = [dict(world[name]) if world.get(name) else None for name in ("keyboard", "mouse")]
    world["keyboard"], world["mouse"] = modules
    _drop(world, "eps", EPS)
    _drop(world, "action_frames", WINDOW_FRAMES)
    _drop(world, "before_start", "repeat" if world.get("conditioning") == "first_frame" else "idle")
    _drop(world, "mouse_scale", MOUSE_SCALE if world.get("action_modulation") else world.get("mouse_scale"))
    for module in filter(None, modules):
        _drop(module, "window_frames", WINDOW_FRAMES)
    for group, names in GROUPS.items():
        world[group] = {new: world.pop(name) for name, new in names.items() if name in world}
    return world


def _drop(fields: dict[str, Any], name: str, only: Any) -> None:
    if (found := fields.pop(name, only)) != only:
        raise ValueError(f"{name} is {found!r}; this Reverie has {only!r} only")
