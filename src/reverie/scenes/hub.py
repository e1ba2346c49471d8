"""`reverie scene push | pull`: scenes on the Hugging Face Hub, as dataset repositories."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reverie.errors import DataError
from reverie.hub import client
from reverie.hub.cards import card_of, licence_metadata
from reverie.hub.push_options import DEFAULT, PushOptions
from reverie.scenes import ego_motion, recorded_body, recorded_ways
from reverie.scenes.scene import KEYFRAMES, Scene, read_scene_json

OPTIONAL_FILES = (ego_motion.FILE, recorded_ways.FILE, recorded_body.FILE)
SCENE_FILES = ("scene.json", KEYFRAMES, *OPTIONAL_FILES, "start-*.webp", "README.md")
"""Patterns of the files of a scene."""


def push_scene(
    folder: Path,
    repository: str,
    options: PushOptions = DEFAULT,
    *,
    token: str | None = None,
) -> str:
    """Pushes a scene to the Hub in one commit; returns its address.

    See `reverie.hub.client.push` for the arguments.  Raises DataError for a folder that is no sound scene, HubError if
    the Hub refuses.
    """
    scene = Scene.load(folder)
    images = [start["image"] for start in read_scene_json(folder)["starts"]]
    optional = [name for name in OPTIONAL_FILES if (folder / name).is_file()]
    files: dict[str, Path | bytes] = {name: folder / name for name in ("scene.json", KEYFRAMES, *optional, *images)}
    files["README.md"] = scene_card(scene, folder, images).encode()
    return client.push(
        repository,
        "dataset",
        files,
        options,
        message=f"Scene {scene.title}",
        replaced=SCENE_FILES,
        token=token,
    )


def pull_scene(repository: str, output: Path, *, revision: str | None = None, token: str | None = None) -> Path:
    """Downloads a scene into the folder `output`.  Raises DataError for a repository that holds no sound scene."""

    def check_head(folder: Path) -> None:
        try:
            read_scene_json(folder)
        except DataError as error:
            raise DataError(f"{repository}: {error}") from None

    return client.pull(
        repository,
        "dataset",
        output,
        head="scene.json",
        patterns=SCENE_FILES,
        check_head=check_head,
        check=Scene.load,
        revision=revision,
        token=token,
    )


def scene_card(scene: Scene, folder: Path, images: list[str]) -> str:
    """The card of a scene as the Hub shows it: its README.md, or a short one, with metadata."""
    height, width = scene.resolution
    starts = "".join(f"![{start.title}]({image})\n" for start, image in zip(scene.starts, images, strict=True))
    short = (
        f"# {scene.title}\n\nA scene of {scene.game} for [Reverie](https://pypi.org/project/reverie-world/): "
        f"{len(scene)} keyframes of {width}x{height} pixels with depth and camera pose, {len(scene.starts)} starts.\n\n"
        f"    reverie scene pull OWNER/NAME -o scenes/NAME\n    reverie play --scene scenes/NAME\n\n{starts}"
    )
    metadata: dict[str, Any] = {
        **licence_metadata(scene.licence),
        "pretty_name": scene.title,
        "tags": ["reverie", "reverie-scene", "world-model", "novel-view-synthesis"],
    }
    return card_of(folder, short, metadata)
