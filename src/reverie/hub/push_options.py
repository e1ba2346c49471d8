"""Options of a push to the Hugging Face Hub, as commands hand them on (`PushOptions`)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class PushOptions:
    """The commit that a push makes: options of `reverie models push`, `data push` and `scene push`."""

    private: bool = False
    """If the repository is made now, only its owner sees it."""
    message: str = ""
    """The commit's message; a short one if left out."""
    revision: str | None = None
    """The branch to commit to, made if it is not there; the main one if left out."""


DEFAULT = PushOptions()
