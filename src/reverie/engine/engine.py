"""The engine: a model, loaded and warm, that opens sessions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from reverie.engine.loading import hardware_check, presets
from reverie.engine.loading.device import pick_device, pick_dtype, set_threads
from reverie.engine.loading.hub import is_cached
from reverie.engine.loading.models import find_model
from reverie.engine.loading.random_weights import HUB_NAMES, matrix_game_2
from reverie.engine.loading.scenes import LoadedScene, Opening, find_scene
from reverie.engine.loading.source import open_source
from reverie.engine.media.images import ImageSource, load_image
from reverie.engine.runtime import Runtime
from reverie.engine.sessions.batch import Batch
from reverie.engine.sessions.session import Session
from reverie.errors import CheckpointError, DeviceError, ImageError
from reverie.models.checkpoint import ModelBundle
from reverie.models.compiled_blocks import check_compiler
from reverie.models.dit import count_parameters
from reverie.models.lazy_module import LazyModule
from reverie.models.start_frames import StartFrame, read_start_frames
from reverie.scenes.scene import Scene
from reverie.types import Action, Camera

Progress = Callable[[float, str], None]
"""Callback of the loading's progress: the share done, from 0 to 1, and the current task."""

MAX_WARM_UP_PARAMETERS = 500_000_000


def load(
    model: str | Path = "nano",
    *,
    device: str = "auto",
    dtype: str = "auto",
    variant: str | None = None,
    decoder: str = "auto",
    preset: str | None = None,
    resolution: tuple[int, int] | None = None,
    weights: str = "auto",
    mode: str = "auto",
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Engine:
    """Load a model and warm it up.

    model: the name of a bundled model, a model folder, a folder of published Matrix-Game 2.0 weights, or the id of
    either on the Hugging Face hub.  device: auto, cpu, cuda, cuda:N.  dtype: auto (measured on a CPU), float32,
    bfloat16, and float16 on a GPU.  decoder: full, or tiny where the model has one; auto is full.  weights: full, int8
    or fp8 (`reverie.engine.accelerate.quantise`); auto takes the preset's, else full.  mode: eager or compiled
    (`reverie.models.compiled_blocks`, on a GPU with CUDA graphs); auto compiles on a GPU.  Of published weights
    only: variant (universal, gta or templerun), resolution, (H, W), and preset (`reverie.engine.loading.presets`).
    say: told in one line, before they are read, what large weights will need.
    Raises CheckpointError for a folder that is missing or broken, DeviceError for what this machine does not have.
    """
    settings = presets.settings(preset, dtype, decoder, weights)
    tell = progress or (lambda share, text: None)
    tell(0.0, f"looking for {model}")
    picked_device = pick_device(device)
    mode = pick_mode(mode, picked_device)
    if str(model) in HUB_NAMES and not is_cached(
        str(model), variant
    ):  # its sizes are known, so nothing is fetched in vain
        hardware_check.check(
            matrix_game_2(variant, resolution),
            settings,
            pick_dtype(settings.dtype, picked_device),
            hardware_check.read_machine(picked_device),
        )
    folder = find_model(model, variant, lambda text: tell(0.0, text))
    source = open_source(folder, variant, resolution)
    tell(0.1, "looking at the machine")
    set_threads()
    picked_dtype = pick_dtype(settings.dtype, picked_device)
    if hardware_check.is_matrix_game(source.config):
        found = hardware_check.read_machine(picked_device)
        say(hardware_check.check(source.config, settings, picked_dtype, found, source.files))
    elif preset is not None:
        raise CheckpointError(f"{source.config.name} needs no preset; they are for Matrix-Game 2.0: leave --preset out")
    tell(0.2, "reading the weights")
    bundle = source.load(picked_device, picked_dtype)
    if settings.keeps_encoder and isinstance(bundle.image_encoder, LazyModule):
        bundle.image_encoder = bundle.image_encoder.read()  # type: ignore[assignment]
    engine = Engine(
        bundle, folder=folder, device=picked_device, dtype=picked_dtype, decoder=settings.decoder, files=source.files
    )
    if settings.weights != "full":
        tell(0.35, f"making {settings.weights} weights")
        say(str(engine.quantise(settings.weights)))
    engine.set_mode(mode)
    engine.warm_up(lambda share, text: tell(0.4 + 0.6 * share, text))
    return engine


class Engine(Runtime):
    """A loaded model: it opens sessions, which share its weights."""

    def __init__(
        self,
        bundle: ModelBundle,
        *,
        folder: Path,
        device: torch.device,
        dtype: torch.dtype,
        files: Sequence[Path],
        decoder: str = "auto",
    ) -> None:
        """folder: of the model; files: what it was read from; decoder: `full` or `tiny`."""
        super().__init__(bundle, device=device, dtype=dtype, files=files, decoder=decoder)
        self.folder = folder
        self._scenes: dict[int | str, LoadedScene] = {}

    def start_images(self) -> list[tuple[str, Image.Image]]:
        """The start images that came with the model, by name; empty where there are none."""
        return [
            (frame.title, Image.fromarray(load_image(frame.file, self.resolution))) for frame in self.start_frames()
        ]

    def start_frames(self) -> list[StartFrame]:
        """The start frames that came with the model: files, titles, and the controls of their games."""
        return read_start_frames(self.folder)

    @classmethod
    def from_pretrained(cls, model: str | Path, **options: Any) -> Engine:
        """`load`, by the name that Hugging Face's libraries give it."""
        return load(model, **options)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Copies the model folder, with its card, to `folder`.  Raises CheckpointError if it is not one of our own."""
        from reverie.engine.loading.hub import copy_model

        return copy_model(self.folder, Path(folder))

    def push_to_hub(
        self,
        repository: str,
        *,
        private: bool = False,
        commit_message: str = "",
        revision: str | None = None,
        token: str | None = None,
    ) -> str:
        """Pushes the model folder to the Hugging Face Hub in one commit; returns its address.

        Args:
            repository: OWNER/NAME; made if it is not there.
            private: whether a repository that is made now is private.
            revision: the branch; the main one by default.
            token: of the account; the stored one by default.

        Raises CheckpointError for a model that is not a folder of our own, HubError if the Hub refuses.
        """
        from reverie.engine.loading.hub import push_model
        from reverie.hub.push_options import PushOptions

        options = PushOptions(private=private, message=commit_message, revision=revision)
        return push_model(self.folder, repository, options, token=token)

    def open(
        self,
        image: ImageSource | None = None,
        seed: int = 0,
        *,
        scene: str | Path | Scene | None = None,
        start: int = 0,
        camera: Camera | None = None,
        passes: int | None = None,
    ) -> Session:
        """Opens a session on an image, or in a scene.

        image: a path, the bytes of a file, PIL, or an array of any size; scene: a bundled scene's name, a folder, or a
        Scene, whose start number `start` the session begins at; camera: that of `image`, which may then lie in `scene`;
        passes: denoising passes that a block is made in, one of `pass_counts`; None for the model's own.
        Raises ImageError for an image that cannot be used, DataError for a scene that is missing, damaged or does not
        fit, CheckpointError for a model without a memory.
        """
        if (image is None) == (scene is None) and (image is None or camera is None):
            raise ImageError("a session opens on an image or in a scene: give one of the two, or both with a camera")
        if camera is not None and image is None:
            raise ImageError("a camera says where an image was taken; give the image as well")
        loaded = None if scene is None else self.load_scene(scene)
        if image is not None:
            opening = None if loaded is None else Opening(loaded, None)
            return Session(self, load_image(image, self.resolution), seed, opening, camera, passes)
        assert loaded is not None
        begin = loaded.scene.start(start)
        camera = Camera(begin.pose, loaded.scene.fov_deg, loaded.scene.pixel_aspect)
        return Session(self, load_image(begin.image, self.resolution), seed, Opening(loaded, start), camera, passes)

    def open_batch(
        self,
        images: int | Sequence[ImageSource],
        seed: int = 0,
        *,
        scene: str | Path | Scene | None = None,
        start: int = 0,
    ) -> Batch:
        """Opens sessions that make their blocks together, with the seeds `seed`, `seed + 1`, ...

        images: one for each session; or how many sessions, which open in `scene`, or, without one, on the model's first
        start image.  Raises as `open` does, and ImageError for a batch without sessions.
        """
        if not isinstance(images, int):
            sources: list[ImageSource | None] = list(images)
        elif scene is not None:
            sources = [None] * images
        else:
            first = next((image for _, image in self.start_images()), None)
            if first is None:
                raise ImageError(f"the model {self.name!r} has no start images; give one for each session")
            sources = [first] * images
        if not sources:
            raise ImageError("a batch has at least one session, got none; give an image for each, or their number")
        return Batch([self.open(source, seed + i, scene=scene, start=start) for i, source in enumerate(sources)])

    def load_scene(self, scene: str | Path | Scene) -> LoadedScene:
        """A scene on the device; read once.  Raises as `open` does."""
        key = scene if isinstance(scene, Scene) else find_scene(scene)
        name = id(key) if isinstance(key, Scene) else str(key)
        with self.lock:
            if name not in self._scenes:
                read = key if isinstance(key, Scene) else Scene.load(key)
                self._scenes[name] = LoadedScene.new(read, self.bundle.config, self.device)
            return self._scenes[name]

    def warm_up(self, progress: Progress) -> None:
        """Run until every shape of a session has occurred: kernels are chosen, memory is taken.

        Not for a large model on a CPU: there a block takes minutes, and nothing is gained.
        """
        if self.device.type == "cpu" and count_parameters([self.bundle.model]) > MAX_WARM_UP_PARAMETERS:
            progress(1.0, "ready; a model of this size is not warmed up on a CPU")
            return
        ramp = np.linspace(64, 192, self.resolution[1], dtype=np.uint8)[None, :, None]
        doing = (
            "warming up" if self.mode == "eager" else "compiling and warming up (minutes at first, kept on the disk)"
        )
        progress(0.0, doing)
        session = self.open(np.broadcast_to(ramp, (*self.resolution, 3)))
        per_window = -(-self.bundle.config.world.window // self.bundle.config.world.block)
        num_blocks = per_window + 2 + per_window * bool(self._captures)  # each place in the ring is recorded once
        for block in range(num_blocks):
            session.step(Action())
            progress((block + 1) / num_blocks, doing)
        session.close()


def pick_mode(name: str, device: torch.device) -> str:
    """`eager` or `compiled`; `auto` compiles on a GPU that can.  Raises DeviceError for another name, and where the
    machine cannot do what was asked for."""
    if name not in ("auto", "eager", "compiled"):
        raise DeviceError(f"there is no mode {name!r}; expected auto, eager or compiled")
    if name == "eager" or (name == "auto" and device.type != "cuda"):
        return "eager"
    try:
        check_compiler(device)
    except DeviceError:
        if name == "auto":
            return "eager"
        raise
    return "compiled"
