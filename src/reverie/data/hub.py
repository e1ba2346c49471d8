"""`reverie data push | pull`: recordings on the Hugging Face Hub, as LeRobot lays them out there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reverie.data.audit import open_dataset
from reverie.data.dataset import CODEBASE_VERSION, Dataset, read_info
from reverie.data.poses import recorded_world
from reverie.errors import DataError
from reverie.hub import client
from reverie.hub.cards import card_of, licence_metadata, size_category
from reverie.hub.push_options import DEFAULT, PushOptions

DATASET_FILES = ("meta/*", "data/*", "videos/*", "depth/*", "README.md")
"""Patterns of the files of a dataset."""


def push_dataset(
    folder: Path,
    repository: str,
    options: PushOptions = DEFAULT,
    *,
    licence: str = "",
    token: str | None = None,
) -> str:
    """Pushes a recording to the Hub in one commit; returns its address.

    The commit is tagged with the version of the layout, by which LeRobot finds it.

    Args:
        licence: of the frames, for the card.

    The other arguments are those of `reverie.hub.client.push`.  Raises DataError for a folder that is no whole dataset,
    HubError if the Hub refuses.
    """
    dataset = open_dataset(folder)
    files: dict[str, Path | bytes] = {path.relative_to(folder).as_posix(): path for path in dataset_files(dataset)}
    files["README.md"] = dataset_card(dataset, licence).encode()
    return client.push(
        repository,
        "dataset",
        files,
        options,
        message=f"{dataset.num_episodes} episodes, {dataset.num_frames} frames",
        replaced=DATASET_FILES,
        token=token,
        tag=str(dataset.info["codebase_version"]),
    )


def pull_dataset(repository: str, output: Path, *, revision: str | None = None, token: str | None = None) -> Path:
    """Downloads a recording in the LeRobot v3 layout into the folder `output`.

    Raises DataError for a repository in another layout or version, before its episodes are fetched.
    """
    return client.pull(
        repository,
        "dataset",
        output,
        head="meta/info.json",
        patterns=DATASET_FILES,
        check_head=lambda folder: _check_version(folder, repository),
        check=lambda folder: dataset_files(open_dataset(folder)),
        revision=revision,
        token=token,
    )


def _check_version(folder: Path, repository: str) -> None:
    try:
        read_info(folder)
    except DataError as error:
        raise DataError(f"{repository} is not in the layout {CODEBASE_VERSION}: {error}") from None


def dataset_files(dataset: Dataset) -> list[Path]:
    """Every file of a dataset but its card.  Raises DataError for one that is missing."""
    episodes = [file for one in dataset.episodes for file in (one.data_file, one.video_file, one.depth_file) if file]
    for file in dict.fromkeys(episodes):
        if not file.is_file():
            raise DataError(f"{file}: the file is missing; record or download it again")
    meta = sorted(path for path in (dataset.path / "meta").rglob("*") if path.is_file() and path.name[0] != ".")
    return [*meta, *dict.fromkeys(episodes)]


def dataset_card(dataset: Dataset, licence: str = "") -> str:
    """The card of a dataset as the Hub shows it: its README.md, or a short one, with metadata."""
    world = recorded_world(dataset.notes) or "unknown"
    hours = dataset.num_frames / dataset.fps / 3600
    has_depth = any(one.depth_file for one in dataset.episodes)
    parts = ["frames", "actions", *(["camera poses"] if dataset.poses_are_known else []), *["depth"] * has_depth]
    short = (
        f"# {dataset.path.absolute().name}\n\n{hours:.2f} hours of {world} at {dataset.fps} frames a second: "
        f"{', '.join(parts)}.\nRecorded with [Reverie](https://pypi.org/project/reverie-world/) in the LeRobot v3 "
        "layout.\n\n    reverie data pull OWNER/NAME -o recordings/NAME\n"
    )
    metadata: dict[str, Any] = {
        **licence_metadata(licence or str(dataset.notes.get("licence", ""))),
        "task_categories": ["robotics"],
        "size_categories": [size_category(dataset.num_frames)],
        "tags": ["LeRobot", "reverie", "world-model", "games"],
        "configs": [{"config_name": "default", "data_files": "data/*/*.parquet"}],
    }
    return card_of(dataset.path, short, metadata)
