"""`reverie models push | pull`: model folders on the Hugging Face Hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from reverie.options import alias, positional


@dataclass(frozen=True, kw_only=True, slots=True)
class PushModelConfig:
    """Push a model folder to the Hugging Face Hub, in one commit, with a card that the Hub understands.

    Log in first, with `hf auth login` or HF_TOKEN.

    Example: reverie models push runs/world/model somebody/my-world
    """

    model: Annotated[str, positional()]
    """A model folder, or a bundled model's name."""
    repository: Annotated[str, positional()]
    """OWNER/NAME; made if it is not there."""
    private: bool = False
    """If the repository is made now, only its owner sees it."""
    message: str = ""
    """The commit's message; a short one if left out."""
    revision: str | None = None
    """The branch to commit to; the main one if left out."""

    def run(self) -> None:
        from reverie.engine.loading.hub import push_model
        from reverie.engine.loading.models import find_model

        folder = find_model(self.model)
        print(push_model(folder, self.repository, private=self.private, message=self.message, revision=self.revision))


@dataclass(frozen=True, kw_only=True, slots=True)
class PullModelConfig:
    """Download a model from the Hugging Face Hub into a folder.

    `reverie play --model OWNER/NAME` needs no folder: it fetches what is missing into the Hub's own cache.

    Example: reverie models pull somebody/my-world -o models/my-world
    """

    repository: Annotated[str, positional()]
    """OWNER/NAME."""
    output: Annotated[Path, alias("-o")]
    """The folder to make."""
    revision: str | None = None
    """A branch, tag or commit; the newest if left out."""

    def run(self) -> None:
        from reverie.engine.loading.hub import pull_model

        print(pull_model(self.repository, self.output, revision=self.revision))
