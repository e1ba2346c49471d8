"""Models on the Hugging Face hub: only the files that are needed, from the cache where they are there already."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from reverie.errors import CheckpointError
from reverie.models.adapters.published import CLIP_FILES, DEFAULT_VARIANT, FOLDERS, TINY_FILES, VAE_FILES
from reverie.models.checkpoint import KIND, TINY_DECODER, WEIGHTS
from reverie.models.weights import read_index


def fetch(repository: str, variant: str | None, tell: Callable[[str], None] = lambda text: None) -> Path:
    """The local folder of a hub's model: one of our own, or Matrix-Game 2.0 in the published layout.

    variant: of Matrix-Game 2.0 (default: universal).  tell: told each file's name; the hub's own bars show how far
    a download is, and an interrupted one goes on where it stopped.
    Raises CheckpointError for a repository or a file that is not there or cannot be reached.
    """
    if variant is not None and variant not in FOLDERS:
        raise CheckpointError(f"there is no variant {variant!r}; expected {', '.join(FOLDERS)}")
    config = _get(repository, "config.json", tell, optional=True)
    own = _read(config) if config else {}
    if config and own.get("kind") == KIND:
        for name in (*WEIGHTS.values(), *([TINY_DECODER] if own.get("tiny_decoder") else [])):
            _get_weights(repository, name, tell)
        return config.parent
    folder, weights = FOLDERS[variant or DEFAULT_VARIANT]
    path = _get(repository, f"{folder}/config.json", tell)
    for name in (VAE_FILES[0], CLIP_FILES[0], f"{folder}/{weights}"):
        _get(repository, name, tell)
    _get(repository, TINY_FILES[0], tell, optional=True)
    assert path is not None
    return path.parent.parent


def _get_weights(repository: str, name: str, tell: Callable[[str], None]) -> None:
    """A file of weights, or the shards that stand for it."""
    if _get(repository, name, tell, optional=True) is not None:
        return
    index = _get(repository, f"{name}.index.json", tell, optional=True)
    if index is None:
        _get(repository, name, tell)  # says what is wrong
        return
    for shard in sorted(set(read_index(index).places.values())):
        _get(repository, shard, tell)


def is_cached(repository: str, variant: str | None) -> bool:
    """Whether a variant of Matrix-Game 2.0 has been fetched before."""
    if variant is not None and variant not in FOLDERS:
        return False
    folder, weights = FOLDERS[variant or DEFAULT_VARIANT]
    return isinstance(try_to_load_from_cache(repository, f"{folder}/{weights}"), str)


def _get(repository: str, name: str, tell: Callable[[str], None], *, optional: bool = False) -> Path | None:
    """One file.  None for an optional one that is not there."""
    tell(f"fetching {name} of {repository}")
    try:
        return Path(hf_hub_download(repository, name))
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        if optional:
            return None
        raise CheckpointError(
            f"{repository} ({name}) is not in the local cache and the hub cannot be reached; go online (is "
            "HF_HUB_OFFLINE set?), or give a bundled model or the path of a folder"
        ) from None
    except EntryNotFoundError:
        if optional:
            return None
        raise CheckpointError(f"{repository} has no {name}; it holds no model that Reverie knows") from None
    except GatedRepoError:
        raise CheckpointError(
            f"{repository} asks for consent first: give it on its page, then `hf auth login`"
        ) from None
    except RepositoryNotFoundError:
        raise CheckpointError(
            f"the hub has no {repository}; check its name, or `hf auth login` if it is private"
        ) from None
    except (HfHubHTTPError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"fetching {name} of {repository} failed ({reason}); try again, it goes on from there"
        ) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text())
        return raw if isinstance(raw, dict) else {}
    except (OSError, ValueError):
        return {}
