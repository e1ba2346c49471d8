"""The runtime of a loaded model: its networks on the device, and how sessions run them."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path

import torch

from reverie.engine.accelerate.cuda_graphs import Capture, cuda_graph_capture
from reverie.engine.accelerate.decode_stream import CudaDecodeStream, DecodeStream, InlineDecoding
from reverie.engine.accelerate.quantise import Quality, quantise
from reverie.errors import CheckpointError
from reverie.models.checkpoint import ModelBundle
from reverie.models.compiled_blocks import compile_pieces, restore_pieces
from reverie.models.schedule import Schedule, pass_counts, with_passes
from reverie.models.tiny_decoder import TinyDecoder
from reverie.models.tokenizer import VideoTokenizer
from reverie.models.wan_vae import WanVAE
from reverie.types import ActionSpace

MAX_HASHED_BYTES, NUM_SAMPLES, SAMPLE_BYTES = 256 * 2**20, 256, 64 * 2**10


class Runtime:
    """A loaded model's networks.  Sessions share them; `lock` lets one block be made at a time, on all cores."""

    def __init__(
        self,
        bundle: ModelBundle,
        *,
        device: torch.device,
        dtype: torch.dtype,
        files: Sequence[Path],
        decoder: str = "auto",
    ) -> None:
        """files: what the model was read from; decoder: `full` or `tiny`."""
        self.bundle = bundle
        self.device = device
        self.dtype = dtype
        self.decoder = pick_decoder(bundle, decoder)
        self.weights_hash = hash_files(files)
        self.lock = threading.RLock()
        self.decode_stream: DecodeStream = InlineDecoding()
        self.warm: set[Hashable] = set()
        self.weights, self.mode = "full", "eager"
        self._captures: dict[str, Capture] = {}

    def set_mode(self, mode: str) -> None:
        """`eager`: as written.  `compiled`: the transformer's pieces compiled; on a GPU blocks are recorded too and
        frames decoded beside the next block.  For sessions that are opened from now on.

        Raises DeviceError where the machine cannot compile.
        """
        networks = [self.bundle.model, self.decoder]
        restore_pieces(*networks)
        self.mode, self.decode_stream, self.warm, self._captures = mode, InlineDecoding(), set(), {}
        if mode == "eager":
            return
        compile_pieces(*networks)
        if self.device.type == "cuda":
            self.decode_stream = CudaDecodeStream(self.device)
            # Passes and decoding run side by side, so their CUDA graphs must not share memory.
            self._captures = {name: cuda_graph_capture() for name in ("passes", "decode")}

    @contextlib.contextmanager
    def unrecorded(self) -> Iterator[None]:
        """Sessions that are opened meanwhile record nothing."""
        before, self._captures = self._captures, {}
        try:
            yield
        finally:
            self._captures = before

    def new_capture(self, name: str) -> Capture | None:
        """Returns the capture for a session's `passes` or `decode`; None where nothing is captured."""
        return self._captures.get(name)

    @property
    def name(self) -> str:
        return self.bundle.config.name

    @property
    def action_space(self) -> ActionSpace:
        return self.bundle.config.action_space

    @property
    def resolution(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.bundle.config.resolution

    @property
    def fps(self) -> int:
        """Frames per second."""
        return self.bundle.config.fps

    @property
    def block_frames(self) -> int:
        """Frames that one step of a session returns (the first may return fewer: `Session.next_frames`)."""
        return self.bundle.config.world.block_frames

    @property
    def pass_counts(self) -> tuple[int, ...]:
        """Numbers of denoising passes that a block can be made in, ascending."""
        return pass_counts(self.bundle.config.schedule, self.bundle.config.world.step_sizes)

    def schedule(self, passes: int | None = None) -> Schedule:
        """The noise levels of a block of `passes` passes; None for the model's own.  Raises ShapeError."""
        own, step_sizes = self.bundle.config.schedule, self.bundle.config.world.step_sizes
        return own if passes is None else with_passes(own, step_sizes, passes)

    @property
    def fingerprint(self) -> str:
        """Equal for engines whose snapshots can be exchanged: same name, weights, number type and kind of device."""
        dtype = str(self.dtype).removeprefix("torch.")
        dtype += "" if self.weights == "full" else f"+{self.weights}"
        tiny = "/tiny" if self.decoder is self.bundle.tiny_decoder else ""
        return f"{self.name}/{self.weights_hash}/{dtype}/{self.device.type}{tiny}"

    def quantise(self, kind: str, *, gated: bool = True) -> Quality:
        """Gives the transformer smaller weights, in place; as `reverie.engine.accelerate.quantise.quantise`."""
        quality = quantise(self.bundle.model, kind, self.device, self.dtype, gated=gated)
        self.weights = kind
        return quality


def pick_decoder(bundle: ModelBundle, name: str) -> VideoTokenizer | WanVAE | TinyDecoder:
    """`full` (or `auto`) or `tiny`.  Raises CheckpointError where the model has no tiny one."""
    if name not in ("auto", "full", "tiny"):
        raise CheckpointError(f"there is no decoder {name!r}; expected full or tiny")
    if name != "tiny":
        return bundle.tokenizer
    if bundle.tiny_decoder is None:
        raise CheckpointError(
            f"{bundle.config.name} has no tiny decoder; put taew2_1.pth (github.com/madebyollin/taehv) into its folder"
        )
    return bundle.tiny_decoder


def hash_files(files: Sequence[Path]) -> str:
    """A short hash of a model's files: 12 hexadecimal digits.  Of large ones it reads samples."""
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        with path.open("rb") as file:
            if size <= MAX_HASHED_BYTES:
                digest.update(hashlib.file_digest(file, "sha256").digest())
                continue
            digest.update(str(size).encode())
            for start in range(0, size, size // NUM_SAMPLES):
                file.seek(start)
                digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()[:12]
