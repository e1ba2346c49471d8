"""Trackers of trainings: figures, sheets and videos go to TensorBoard, Trackio or Weights & Biases.

    tracker = open_tracker("trackio", folder, first_step=0, config={"lr": 3e-4})
    tracker.scalars(20, {"loss": 0.3})
    tracker.files(20, [folder / "samples/0000020.png"])
    tracker.close()

`log.jsonl` in the training's folder has the figures whatever tracker there is.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from PIL import Image

from reverie.errors import TrainError, first_line

Track = Literal["auto", "none", "tensorboard", "trackio", "wandb"]
"""auto: TensorBoard where it is installed."""

PROJECT = "reverie"
IMAGES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
VIDEOS = frozenset({".mp4", ".webm", ".gif"})


class Tracker(Protocol):
    """Shows a training while it runs."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Records figures of a step."""
        ...

    def files(self, step: int, paths: Sequence[Path]) -> None:
        """Records images and videos of a step; those that the tracker cannot show are left out."""
        ...

    def close(self) -> None: ...


def open_tracker(kind: Track, folder: Path, first_step: int, config: Mapping[str, Any]) -> Tracker | None:
    """Opens a tracker for the training in `folder`; None for `none`, and for `auto` without TensorBoard.

    Args:
        first_step: the step that a resumed training goes on from.
        config: settings to show beside the figures.

    Raises TrainError where the tracker's package is not installed, or does not start.
    """
    if kind == "none":
        return None
    try:
        return TensorBoard(folder, first_step) if kind in ("auto", "tensorboard") else Run(kind, folder, config)
    except ModuleNotFoundError as error:
        if kind == "auto":
            return None
        raise TrainError(
            f'--track {kind} needs a package that is not installed ({error.name}); pip install "reverie-world[track]"'
        ) from error
    except Exception as error:  # no network, no account: each package has its own words
        raise TrainError(
            f"--track {kind} does not start: {first_line(error)}; leave --track out to train without it"
        ) from error


class TensorBoard:
    """Event files in `folder/tensorboard`.  It shows images; videos it leaves out."""

    def __init__(self, folder: Path, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step or None)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def files(self, step: int, paths: Sequence[Path]) -> None:
        for path in paths:
            if path.suffix.lower() in IMAGES:
                with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as image:
                    pixels = np.asarray(image.convert("RGB"))
                self._writer.add_image(_label(path), pixels, step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


class Run:
    """A run of Trackio or Weights & Biases, which share an interface.  A resumed training goes on in its run."""

    def __init__(self, kind: str, folder: Path, config: Mapping[str, Any]) -> None:
        self._module: Any = import_module(kind)
        name = _run_name(folder)
        options = {"dir": str(folder), "id": name} if kind == "wandb" else {}
        self._module.init(project=PROJECT, name=name, resume="allow", config=dict(config), **options)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._module.log(dict(values), step=step)

    def files(self, step: int, paths: Sequence[Path]) -> None:
        shown: dict[str, Any] = {}
        for path in paths:
            suffix, name = path.suffix.lower(), f"samples/{_label(path)}"
            if suffix in IMAGES:
                shown[name] = self._module.Image(str(path))
            elif suffix in VIDEOS:
                shown[name] = self._module.Video(str(path))
        if shown:
            self._module.log(shown, step=step)

    def close(self) -> None:
        self._module.finish()


def _label(path: Path) -> str:
    """A sample's name without the number of its step."""
    return path.stem.rstrip("-0123456789") or "sample"


def _run_name(folder: Path) -> str:
    """The name of the folder's run, the same when the training is resumed."""
    path = folder / "track.json"
    if path.is_file():
        return str(json.loads(path.read_text(encoding="utf-8"))["run"])
    name = f"{folder.absolute().name}-{uuid.uuid4().hex[:6]}"
    path.write_text(json.dumps({"run": name}) + "\n", encoding="utf-8")
    return name
