"""Models on the Hugging Face hub: only the files that are needed, from the cache where they are there already."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import get_session

from reverie.errors import CheckpointError
from reverie.models.adapters.published import CLIP_FILES, DEFAULT_VARIANT, FOLDERS, TINY_FILES, VAE_FILES
from reverie.models.checkpoint import GEOMETRY, KIND, TINY_DECODER, WEIGHTS
from reverie.models.start_frames import INDEX, listed_files
from reverie.models.weights import read_index

CONNECT_S = 6.0
"""Seconds that the hub has for its first answer; the hub's own client tries for a minute."""
PROXIES = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY")


def fetch(repository: str, variant: str | None, tell: Callable[[str], None] = lambda text: None) -> Path:
    """The local folder of a hub's model: one of our own, or Matrix-Game 2.0 in the published layout.

    variant: of Matrix-Game 2.0 (default: universal).  tell: told each file's name; the hub's own bars show how far
    a download is, and an interrupted one goes on where it stopped.
    Raises CheckpointError for a repository or a file that is not there or cannot be reached.
    """
    if variant is not None and variant not in FOLDERS:
        raise CheckpointError(f"there is no variant {variant!r}; expected {', '.join(FOLDERS)}")
    hub = _Hub(repository, tell, find_obstacle())
    config, own = _fetch_config(hub, variant)
    if own:
        optional = {"tiny_decoder": TINY_DECODER, "memory": GEOMETRY}
        for name in (*WEIGHTS.values(), *(file for part, file in optional.items() if own.get(part))):
            _get_weights(hub, name)
        if index := hub.get(INDEX, optional=True):
            for name in listed_files(index):
                hub.get(name, optional=True)
        return config.parent
    folder, weights = FOLDERS[variant or DEFAULT_VARIANT]
    for name in (VAE_FILES[0], CLIP_FILES[0], f"{folder}/{weights}"):
        hub.get(name)
    hub.get(TINY_FILES[0], optional=True)
    return config.parent.parent


def check_reachable(repository: str, variant: str | None) -> None:
    """Raise CheckpointError, within seconds, if a model's files are neither in the cache nor to be had from the hub.

    Fetches the model's config at most.
    """
    if (obstacle := find_obstacle()) is not None:
        fetch(repository, variant)
    else:
        _fetch_config(_Hub(repository, lambda text: None, obstacle), variant)


def _fetch_config(hub: _Hub, variant: str | None) -> tuple[Path, dict[str, Any]]:
    """The config of a model of our own, read; or of a variant of Matrix-Game 2.0, and nothing read."""
    path = hub.get("config.json", optional=True)
    own = _read(path) if path else {}
    if path and own.get("kind") == KIND:
        return path, own
    folder, _ = FOLDERS[variant or DEFAULT_VARIANT]
    path = hub.get(f"{folder}/config.json")
    assert path is not None
    return path, {}


def find_obstacle() -> str | None:
    """Ask the hub for any answer at all.  Returns why there is none (offline mode, no network, an unusable proxy),
    or None."""
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set; unset it to go online"
    outcome: list[str | None] = []

    def ask() -> None:
        try:
            status = get_session().head(constants.ENDPOINT, timeout=CONNECT_S).status_code
            outcome.append(None if status < 500 else f"{constants.ENDPOINT} answers with status {status}; try later")
        except Exception as error:  # of whichever HTTP library the hub's client uses, and of its proxies
            outcome.append(_explain(error))

    thread = threading.Thread(target=ask, daemon=True)  # looking up a name knows no time limit
    thread.start()
    thread.join(CONNECT_S)
    return outcome[0] if outcome else f"{constants.ENDPOINT} does not answer; go online"


def _explain(error: Exception) -> str:
    """What stands in the way, and what to do about it.  Proxies are named, never quoted: they may hold passwords."""
    proxies = [name for name in (*PROXIES, *map(str.lower, PROXIES)) if os.environ.get(name)]
    if not proxies:
        return f"{_first_line(error)}; go online"
    names = " and ".join(proxies)
    if isinstance(error, ImportError):
        return f"the SOCKS proxy of {names} needs a package: pip install socksio, or unset {names}"
    if isinstance(error, ValueError):
        return f"{names} is no usable proxy; write http:// or socks5:// and its address, or unset {names}"
    return f"{_first_line(error)}; check the proxy of {names}, or unset it"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _get_weights(hub: _Hub, name: str) -> None:
    """A file of weights, or the shards that stand for it."""
    if hub.get(name, optional=True) is not None:
        return
    index = hub.get(f"{name}.index.json", optional=True)
    if index is None:
        hub.get(name)  # says what is wrong
        return
    for shard in sorted(set(read_index(index).places.values())):
        hub.get(shard)


def is_cached(repository: str, variant: str | None) -> bool:
    """Whether a variant of Matrix-Game 2.0 has been fetched before."""
    if variant is not None and variant not in FOLDERS:
        return False
    folder, weights = FOLDERS[variant or DEFAULT_VARIANT]
    return isinstance(try_to_load_from_cache(repository, f"{folder}/{weights}"), str)


@dataclass(frozen=True, slots=True)
class _Hub:
    """The files of one repository.  obstacle: why the hub cannot be asked (None: it can); then the cache is all."""

    repository: str
    tell: Callable[[str], None]
    obstacle: str | None

    def get(self, name: str, *, optional: bool = False) -> Path | None:
        """One file.  None for an optional one that is not there."""
        self.tell(f"fetching {name} of {self.repository}")
        repository, obstacle = self.repository, self.obstacle
        try:
            return Path(hf_hub_download(repository, name, local_files_only=obstacle is not None))
        except (LocalEntryNotFoundError, OfflineModeIsEnabled):
            if optional:
                return None
            why = obstacle or "it answers with nothing usable; try again, and check HF_ENDPOINT and your proxy"
            raise CheckpointError(
                f"{repository} ({name}) is not in the local cache and the hub cannot be reached ({why}); "
                "or give a bundled model or the path of a folder"
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
        except Exception as error:  # the network's, in the words of whichever HTTP library there is; the disk's
            raise CheckpointError(
                f"fetching {name} of {repository} failed ({_first_line(error)}); try again, it goes on from there"
            ) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text())
        return raw if isinstance(raw, dict) else {}
    except (OSError, ValueError):
        return {}
