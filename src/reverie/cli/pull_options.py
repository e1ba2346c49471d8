"""Options of `reverie models pull`, `data pull` and `scene pull` (`PullOptions`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from reverie.argument_markers import alias, positional


@dataclass(frozen=True, kw_only=True, slots=True)
class PullOptions:
    """A repository on the Hugging Face Hub, and where its files go."""

    repository: Annotated[str, positional()]
    """OWNER/NAME."""
    output: Annotated[Path, alias("-o")]
    """The folder to make."""
    revision: str | None = None
    """A branch, tag or commit; the newest if left out."""
