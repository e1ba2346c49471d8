"""Models on the Hugging Face hub: only the files that are needed, from the cache where they are there already."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from reverie.errors import CheckpointError, first_line
from reverie.hub import client
from reverie.hub.cards import card_of, licence_metadata
from reverie.hub.client import find_obstacle
from reverie.hub.push_options import DEFAULT, PushOptions
from reverie.models.adapters.published import CLIP_FILES, DEFAULT_VARIANT, FOLDERS, TINY_FILES, VAE_FILES
from reverie.models.checkpoint import GEOMETRY, KIND, TINY_DECODER, WEIGHTS, ModelConfig, file_of, read_config
from reverie.models.start_frames import INDEX, STARTS, listed_files, read_start_frames
from reverie.models.weights import files_of, read_index

MODEL_FILES = ("config.json", "README.md", "*.safetensors", "*.safetensors.index.json", INDEX, f"{STARTS}/*")
"""Patterns of the files of a model folder."""
DIFFUSERS_PARTS = (
    "transformer/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "image_encoder/model.safetensors",
)
"""Weights of a folder as diffusers has it."""


def fetch(repository: str, variant: str | None, tell: Callable[[str], None] = lambda text: None) -> Path:
    """The local folder of a hub's model: one of our own, Matrix-Game 2.0 in the published layout, or in FastVideo's.

    variant: of Matrix-Game 2.0 (default: universal).  tell: called with a line for each file; the hub's own bars show
    a download's progress, and an interrupted one goes on where it stopped.
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
    if config.parent.name == DIFFUSERS_PARTS[0].split("/")[0]:
        hub.get("vae/config.json", optional=True)
        for name in DIFFUSERS_PARTS:
            _get_weights(hub, name)
    else:
        for name in (VAE_FILES[0], CLIP_FILES[0], f"{folder}/{weights}"):
            hub.get(name)
    hub.get(TINY_FILES[0], optional=True)
    return config.parent.parent


def push_model(
    folder: Path,
    repository: str,
    options: PushOptions = DEFAULT,
    *,
    token: str | None = None,
) -> str:
    """Pushes a model folder to the Hub in one commit; returns its address.

    The card is the folder's README.md, with the metadata that the Hub shows.  See `reverie.hub.client.push` for the
    arguments.  Raises CheckpointError for a folder that is no whole model, HubError if the Hub refuses.
    """
    config = read_config(folder)
    files: dict[str, Path | bytes] = {path.relative_to(folder).as_posix(): path for path in model_files(folder, config)}
    files["README.md"] = model_card(folder, config).encode()
    return client.push(
        repository,
        "model",
        files,
        options,
        message=f"Model {config.name}",
        replaced=MODEL_FILES,
        token=token,
    )


def copy_model(folder: Path, target: Path) -> Path:
    """Copies a model folder's files, with its card as `push_model` writes it; its config, which makes it one, last."""
    config = read_config(folder)
    head, *files = model_files(folder, config)
    for file in files:
        (target / file.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target / file.relative_to(folder))
    target.mkdir(parents=True, exist_ok=True)
    (target / "README.md").write_text(model_card(folder, config), encoding="utf-8")
    shutil.copyfile(head, target / head.name)
    return target


def pull_model(repository: str, output: Path, *, revision: str | None = None, token: str | None = None) -> Path:
    """Downloads a model of our own into the folder `output`.  Raises CheckpointError for a repository without one."""
    return client.pull(
        repository,
        "model",
        output,
        head="config.json",
        patterns=MODEL_FILES,
        check_head=read_config,
        check=lambda folder: model_files(folder, read_config(folder)),
        revision=revision,
        token=token,
    )


def model_files(folder: Path, config: ModelConfig) -> list[Path]:
    """Every file of a model folder but its card.  Raises CheckpointError for one that is missing."""
    parts = [*WEIGHTS, *(["tiny_decoder"] if config.tiny_decoder else []), *(["memory"] if config.memory else [])]
    files = [folder / "config.json", *(file for part in parts for file in files_of(folder / file_of(part)))]
    for file in files:
        if not file.is_file():
            raise CheckpointError(f"{file} is missing, so {folder} is no whole model; train or fetch it again")
    starts = [start.file for start in read_start_frames(folder)]
    return [*files, *([folder / INDEX] if (folder / INDEX).is_file() else []), *starts]


def model_card(folder: Path, config: ModelConfig) -> str:
    """The card of a model folder as the Hub shows it: its README.md, or a short one, with metadata."""
    keys = ", ".join([*config.action_space.keys, *(["mouse"] if config.action_space.mouse else [])])
    height, width = config.resolution
    short = (
        f"# {config.name}\n\nAn interactive world model for [Reverie](https://pypi.org/project/reverie-world/): "
        f"{width}x{height} pixels, {config.fps} frames a second, played with {keys}.\n\n"
        f"    uvx --from reverie-world reverie play --model OWNER/NAME\n"
    )
    metadata = {
        **licence_metadata(config.licence),
        "library_name": "reverie",
        "pipeline_tag": "image-to-video",
        "tags": ["world-model", "interactive", "real-time", "video-generation", "diffusion"],
    }
    starts = [start for start in read_start_frames(folder) if start.file.parent.name == STARTS]
    if starts:
        metadata["widget"] = [
            {"text": start.title, "output": {"url": f"{STARTS}/{start.file.name}"}} for start in starts
        ]
    return card_of(folder, short, metadata)


def check_reachable(repository: str, variant: str | None) -> None:
    """Raise CheckpointError, within seconds, if a model's files are neither in the cache nor to be had from the hub.

    Fetches the model's config at most.
    """
    if (obstacle := find_obstacle()) is not None:
        fetch(repository, variant)
    else:
        _fetch_config(_Hub(repository, lambda text: None, obstacle), variant)


def _fetch_config(hub: _Hub, variant: str | None) -> tuple[Path, dict[str, Any]]:
    """The config of a model of our own, read; or of a variant of Matrix-Game 2.0, as published or of FastVideo, and
    nothing read."""
    path = hub.get("config.json", optional=True)
    own = _read(path) if path else {}
    if path and own.get("kind") == KIND:
        return path, own
    folder, _ = FOLDERS[variant or DEFAULT_VARIANT]
    for name in (f"{folder}/config.json", "transformer/config.json"):
        if path := hub.get(name, optional=True):
            return path, {}
    path = hub.get(f"{folder}/config.json")  # says what is wrong
    assert path is not None
    return path, {}


def _get_weights(hub: _Hub, name: str) -> None:
    """A file of weights, or the shards that stand for it."""
    if hub.get(name, optional=True) is not None:
        return
    index = hub.get(f"{name}.index.json", optional=True)
    if index is None:
        hub.get(name)  # says what is wrong
        return
    folder = PurePosixPath(name).parent  # an index names files beside it
    for shard in sorted(set(read_index(index).places.values())):
        hub.get(str(folder / shard))


def is_cached(repository: str, variant: str | None) -> bool:
    """Returns whether a variant of Matrix-Game 2.0 is in the local cache."""
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
                f"fetching {name} of {repository} failed ({first_line(error)}); try again, it goes on from there"
            ) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text())
        return raw if isinstance(raw, dict) else {}
    except (OSError, ValueError):
        return {}
