"""Models that a training starts from: any model folder, a world training's own folder, or published Matrix-Game 2.0
weights.  Stored data of their start images, and the check that recordings fit them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from reverie.data.dataset import Dataset
from reverie.errors import TrainError
from reverie.models.adapters.published import is_published, open_published
from reverie.models.checkpoint import ModelBundle, ModelConfig, load_model
from reverie.models.image_encoder import ImageEncoder
from reverie.models.lazy_module import LazyModule
from reverie.models.tokenizer import FRAMES
from reverie.models.wan_vae import WanVAE
from reverie.models.weights import fingerprint
from reverie.types import ActionSpace

GREY_STEPS = 14
"""Steps of grey that are kept of an opening, at least: clips of 15 steps (57 frames) are what Matrix-Game 2.0 was
trained on."""


def open_start(folder: Path, variant: str | None = None, resolution: tuple[int, int] | None = None) -> ModelBundle:
    """The networks to start from, on the CPU, in float32, frozen.

    folder: of a model, of a world training (its model is meant), or of published Matrix-Game 2.0 weights; variant,
    resolution: as `reverie play` takes them, of published weights only.
    Raises CheckpointError for a folder that is missing or broken, TrainError for options that it does not take.
    """
    folder = next((place for place in (folder, folder / "model") if _is_model(place)), folder)
    if is_published(folder):
        return open_published(folder, variant, resolution).load("cpu", torch.float32)
    if variant is not None or resolution is not None:
        raise TrainError(f"{folder} is one model at one resolution; leave --variant and --resolution out")
    return load_model(folder)


def _is_model(folder: Path) -> bool:
    return (folder / "config.json").is_file() or is_published(folder)


def take_weights(start: ModelBundle, bundle: ModelBundle) -> None:
    """Give a fresh model the weights of another of its shape, whatever keys the two have.

    What is known of a key is kept under its name; a new key has no effect yet.  Raises TrainError for a model of
    another shape.
    """
    known, mine = start.model.state_dict(), bundle.model.state_dict()
    spaces = start.config.action_space, bundle.config.action_space
    for name, tensor in mine.items():
        if (found := known.get(name)) is not None and found.shape != tensor.shape:
            found = _by_name(name, found, *spaces)
        if found is None or found.shape != tensor.shape:
            shape = None if found is None else tuple(found.shape)
            raise TrainError(f"the start's {name} is {shape}, expected {tuple(tensor.shape)}: it is of another preset")
        tensor.copy_(found)
    if isinstance(bundle.image_encoder, ImageEncoder) and isinstance(start.image_encoder, ImageEncoder):
        bundle.image_encoder.load_state_dict(start.image_encoder.state_dict())


def _by_name(name: str, weight: Tensor, old: ActionSpace, new: ActionSpace) -> Tensor | None:
    """A first layer's weight (out, frames * actions) with a column for every action of `new`; None for other layers."""
    if name.endswith("keyboard_embed.0.weight"):
        before, after = old.keys, new.keys
    elif name == "action_embedding.0.weight":
        before, after = old.names, new.names
    else:
        return None
    columns = weight.unflatten(1, (-1, len(before)))
    wide = weight.new_zeros(*columns.shape[:2], len(after))
    for action in set(before) & set(after):
        wide[..., after.index(action)] = columns[..., before.index(action)]
    return wide.flatten(1)


def check_recordings(folders: Iterable[Path], config: ModelConfig) -> None:
    """Raises TrainError for a recording of another size than the model's, or with actions that the model lacks."""
    known = config.action_space.names
    for folder in folders:
        dataset = Dataset(folder)
        if dataset.resolution != config.resolution:
            got, wanted = ("x".join(map(str, size)) for size in (dataset.resolution, config.resolution))
            raise TrainError(f"{folder} was recorded at {got}, {config.name} was made for {wanted}; record it at that")
        if unknown := [name for name in dataset.action_space.names if name not in known]:
            raise TrainError(
                f"{folder} has the action {unknown[0]}, which {config.name} lacks; it knows {', '.join(known)}"
            )


class StartEncoder:
    """Encodes the start of a session of a model that generates it.

    The result is image tokens, and the latents of the start image and of the grey frames after it.
    every: steps between two moments of a recording at which clips can start.
    """

    every = 9

    def __init__(self, bundle: ModelBundle, num_steps: int, device: torch.device) -> None:
        """num_steps: of the longest clip.  A large image encoder is read, and held as long as this is."""
        encoder = bundle.image_encoder
        self._encoder = (encoder.read() if isinstance(encoder, LazyModule) else encoder).to(device, torch.float32)
        self._tokenizer = bundle.tokenizer
        self.grey_steps = max(GREY_STEPS, num_steps - 1)

    @property
    def fingerprint(self) -> str:
        """Fingerprint of all inputs of the encoding, the tokenizer aside.  A large encoder is identified by its
        vectors."""
        vectors = {name: tensor for name, tensor in self._encoder.state_dict().items() if tensor.ndim <= 2}
        small = {name: tensor for name, tensor in vectors.items() if tensor.numel() <= 2**20}
        return f"{self.grey_steps} {self.every} {fingerprint(small)}"

    def tokens(self, pictures: Tensor) -> Tensor:
        """(m, 3, H, W) in [-1, 1] -> (m, n, d)."""
        return self._encoder(pictures)

    def latents(self, pictures: Tensor) -> Tensor:
        """(m, 3, H, W) in [-1, 1] -> (m, 1 + grey_steps, c, h, w), as a session's stream has them."""
        count = 1 + self.grey_steps
        if isinstance(self._tokenizer, WanVAE):
            steps = list(islice(self._tokenizer.encode_still(pictures), count))
            return torch.cat([*steps, *[steps[-1]] * (count - len(steps))], 1)
        grey = torch.zeros_like(pictures)[:, None].expand(-1, FRAMES * self.grey_steps, -1, -1, -1)
        return self._tokenizer.encode(torch.cat([pictures[:, None], grey], 1))
