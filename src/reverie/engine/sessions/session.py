"""A session: one generated world being played.  It is a World, and it can be saved, rewound and split in two."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from reverie import sampling
from reverie.engine.accelerate.cuda_graphs import CapturedDecode, CapturedPasses
from reverie.engine.accelerate.decode_stream import FrameFuture
from reverie.engine.loading.scenes import Opening
from reverie.engine.runtime import Runtime
from reverie.engine.sessions import states
from reverie.engine.sessions.start_latents import StartStream
from reverie.errors import ActionError, CheckpointError, WorldError
from reverie.models.conditioning.spatial_memory import NextStep, remembered_points
from reverie.models.state import ConditionChannels
from reverie.models.tokenizer import FRAMES, DecoderState
from reverie.types import Action, ActionSpace, Camera, Frames
from reverie.vision.pixels import to_frames, to_pixels, to_stored
from reverie.vision.projection import VIEW_SIZE

_KIND = "reverie.snapshot"
_NOISE = "noise"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything that decides how a session goes on; independent of the session, and of what it does later.

    model: what made it (weights and number type; only the same can go on).  num_frames: frames shown so far.
    picture: the start image, (H, W, 3).  tensors, numbers: the state of the networks and of the noise, by name.  scene:
    the scene that it plays in, empty for a session that opened on an image.
    """

    model: str
    seed: int
    num_frames: int
    picture: npt.NDArray[np.uint8]
    tensors: dict[str, Tensor]
    numbers: dict[str, int]
    scene: str = ""

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, atomically."""
        path = Path(path)
        head = {"model": self.model, "seed": self.seed, "num_frames": self.num_frames, "numbers": self.numbers}
        facts = json.dumps(head | {"scene": self.scene})
        tensors = {f"state.{name}": tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()}
        tensors["picture"] = torch.from_numpy(np.ascontiguousarray(self.picture))
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            metadata = {"kind": _KIND, "facts": facts, "checksum": _checksum(facts, tensors)}
            save_file(tensors, temporary, metadata=metadata)
            os.replace(temporary, path)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"cannot write the snapshot {str(path)!r}: {error}") from None
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path) -> Snapshot:
        """Read what `save` wrote.  Raises CheckpointError for any other file, and for one with a single bit changed."""
        try:
            with safe_open(str(path), "pt") as file:  # type: ignore[no-untyped-call]
                metadata: dict[str, str] = file.metadata() or {}
                if metadata.get("kind") != _KIND:
                    raise CheckpointError(f"{str(path)!r} is a safetensors file, but not a snapshot of a session")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no dict
            if "checksum" not in metadata:
                raise ValueError("it has no checksum; an older version wrote it")
            if metadata["checksum"] != _checksum(metadata["facts"], tensors):
                raise ValueError("its content does not match its checksum")
            facts = json.loads(metadata["facts"])
            picture = tensors.pop("picture").numpy()
            state = {name.removeprefix("state."): tensor for name, tensor in tensors.items()}
            return cls(picture=picture, tensors=state, **facts)
        except FileNotFoundError:
            raise CheckpointError(f"there is no snapshot {str(path)!r}") from None
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise CheckpointError(f"{str(path)!r} is not a readable snapshot ({error}); save it again") from None


def _checksum(facts: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of all that a snapshot's file holds: the facts, and each tensor with its name, type and shape."""
    digest = hashlib.sha256(facts.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@dataclass(slots=True)
class BlockPlan:
    """A block about to be made.  actions: (1, rows, a) of its frames; num_frames: that it will show; view: what the
    spatial memory shows of it, once it is conditioned."""

    actions: Tensor
    num_frames: int
    view: NextStep | None = None


class Session:
    """A rollout from one start image.  Made by `Engine.open`; any number may live at once, each with its own state.

    Frames are uint8 `(f, H, W, 3)` and belong to the caller.  All memory is taken when the session is made.
    """

    def __init__(
        self,
        engine: Runtime,
        picture: npt.NDArray[np.uint8],
        seed: int,
        opening: Opening | None = None,
        camera: Camera | None = None,
        passes: int | None = None,
    ) -> None:
        """opening: the scene that the session begins in; camera: that of `picture`, by default at the origin; passes:
        as `Engine.open` takes them."""
        self.schedule = engine.schedule(passes)
        self._engine, self._opening, self._start_camera = engine, opening, camera
        self._start_from(picture)  # first: a large encoder and the state need not be in memory together
        with torch.inference_mode():
            self._world = engine.bundle.model.new_state(1, engine.device, engine.dtype)
            if engine.bundle.memory is not None:
                in_scene = 0 if opening is None else opening.loaded.candidates.members.shape[1]
                self._world.memory = engine.bundle.memory.init_state(1, engine.resolution, engine.device, in_scene)
            self._decoder = self._new_decoder()
        self._prepare()
        self._generator = torch.Generator(engine.device)
        self._latents: Tensor | None = None
        self._is_open = True
        self.reset(seed)

    @property
    def engine(self) -> Runtime:
        return self._engine

    @property
    def is_open(self) -> bool:
        return self._is_open

    @property
    def state(self) -> dict[str, Any]:
        """The live states of the transformer (`world`) and of the tokenizer's decoder (`decoder`)."""
        return {"world": self._world, "decoder": self._decoder}

    @property
    def num_bytes(self) -> int:
        """Memory that the state takes; it never changes."""
        return states.num_bytes(self.state)

    @property
    def action_space(self) -> ActionSpace:
        return self._engine.action_space

    @property
    def resolution(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self._engine.resolution

    @property
    def block_frames(self) -> int:
        """Frames that one `step` returns."""
        return self._engine.block_frames

    @property
    def next_frames(self) -> int:
        """Frames that the next `step` returns, which is also how many actions it takes when given one for each.

        As `block_frames`, but for the first block of a model that generates the start frame too: its first step is
        that frame alone.
        """
        is_start = self._engine.bundle.config.world.generates_start and self._world.step == 0
        return self.block_frames - (FRAMES - 1 if is_start else 0)

    @property
    def seed(self) -> int:
        return self._seed

    @property
    def passes(self) -> int:
        """Denoising passes that a block is made in."""
        return len(self.schedule.sigmas)

    @property
    def fingerprint(self) -> str:
        """The model that generates this, with its weights' hash and number type."""
        return self._engine.fingerprint

    @property
    def scene(self) -> str:
        """The scene that the session plays in, with a hash of what it holds; empty for one that opened on an image."""
        return "" if self._opening is None else self._opening.loaded.fingerprint

    @property
    def start_number(self) -> int:
        """Number of the start in its scene that the session began at; 0 for one that opened on an image."""
        return 0 if self._opening is None else self._opening.number or 0

    @property
    def start_camera(self) -> Camera | None:
        """Camera that the start image was given with; None for an image without one, and for a start of a scene."""
        is_start = self._opening is not None and self._opening.number is not None
        return None if is_start else self._start_camera

    @property
    def camera(self) -> npt.NDArray[np.float32] | None:
        """Pose (6,) of the last frame's camera; None for a model without a spatial memory."""
        memory = self._world.memory
        return None if memory is None else memory.camera[0].cpu().numpy().copy()

    @torch.inference_mode()
    def memory_map(self, size: int = 192) -> npt.NDArray[np.uint8] | None:
        """Draws the spatial memory from above, north up: (size, size, 3) RGB; None for a model without one."""
        from reverie.vision.top_view import draw_top_view, field_of_view  # OpenCV: only where a map is drawn

        self._check_open()
        state = self._world.memory
        if state is None:
            return None
        self._decode_stream.join()
        with self._engine.lock:
            points = remembered_points(state, None if self._opening is None else self._opening.loaded.candidates)
            points, camera, trail = (x.cpu().numpy() for x in (points, state.camera[0], state.trail[0]))
            fov_deg = field_of_view(float(state.focal[0, 0]), VIEW_SIZE[1])
        return draw_top_view(points, camera, trail, fov_deg, size)

    @property
    def latents(self) -> Tensor:
        """Latents of the last block, (1, block, c, h, w)."""
        assert self._latents is not None, "a block has been made"
        return self._latents.clone()

    @property
    def last_latent(self) -> Tensor:
        """The last latent step, (1, c, h, w); before the first block that of the start image."""
        return self._world.last.clone()

    @property
    def num_frames(self) -> int:
        """Frames shown so far, the first one included."""
        return self._num_frames

    @property
    def picture(self) -> Frames:
        """The start image as it was given, cropped and resized: (1, H, W, 3)."""
        return self._picture[None].copy()

    @property
    def first_frame(self) -> Frames:
        """First frame of the session, as `reset` returns it: (1, H, W, 3)."""
        return self._first_frame.copy()

    @torch.inference_mode()
    def reset(self, seed: int, passes: int | None = None) -> Frames:
        """Start again from the same image; `seed` decides the noise.  Returns the first frame, (1, H, W, 3).

        passes: denoising passes of a block from now on, one of `Engine.pass_counts`; None for as many as before.
        """
        self._check_open()
        self._decode_stream.join()
        if passes not in (None, self.passes):
            self.schedule = self._engine.schedule(passes)
            self._prepare()  # what was recorded is of other passes
        self._seed, self._num_frames = int(seed), 1
        self._generator.manual_seed(self._seed % 2**63)
        self._decoder.reset()
        bundle = self._engine.bundle
        with self._engine.lock:
            sampling.begin(bundle.model, self._z0, self._image, self.schedule, self._world, self._generator)
            self._first_frame = self._show_start(self._decoder)
            self._open_memory()
        return self.first_frame

    def step(self, action: Action | Sequence[Action]) -> Frames:
        """Generate the next block under `action`, held for the block, or under one action for each of its frames.

        Returns (next_frames, H, W, 3).  Raises ActionError, with nothing changed, for what cannot be said.
        """
        return self.submit(action).frames()

    def submit(self, action: Action | Sequence[Action]) -> FrameFuture:
        """Starts a `step` and returns without waiting on a GPU: the next block may be generated while the frames are
        decoded."""
        return self._advance(action)

    def replay(self, action: Action | Sequence[Action], latents: Tensor) -> Frames:
        """Repeats a `step` from the block's recorded `latents`: the denoising passes are left out."""
        return self._advance(action, sampling.known_passes(latents)).frames()

    @torch.inference_mode()
    def _advance(self, action: Action | Sequence[Action], run: sampling.Passes | None = None) -> FrameFuture:
        bundle = self._engine.bundle
        plan = self.plan(action)
        run = self._passes if run is None else run
        with self._engine.lock:
            parts = self.condition(plan)
            z = sampling.advance(bundle.model, plan.actions, self.schedule, self._world, self._generator, parts, run)
            return self.show(plan, z)

    def plan(self, action: Action | Sequence[Action]) -> BlockPlan:
        """The first part of `submit`: checks the action.  Raises as `step` does."""
        self._check_open()
        # The start frame that a model generates again comes before all actions: nothing leads to it.
        rows = self._engine.bundle.config.world.block_rows(self._world.step)
        return BlockPlan(self._encode(action)[:, -rows:], self.next_frames)

    def condition(self, plan: BlockPlan) -> ConditionChannels | None:
        """The second part of `submit`: the block's condition channels, without a change to the state."""
        config = self._engine.bundle.config.world
        if self._start is not None:
            return ConditionChannels(self._start.condition(self._world.step, config.block, config.cond_channels))
        plan.view = self._next_view(plan.actions)
        return None if plan.view is None else plan.view.parts

    def noise(self) -> Tensor:
        """The next noise of a block, (1, block, c, h, w)."""
        like = self._world.last[:, None].expand(-1, self._engine.bundle.config.world.block, -1, -1, -1)
        return sampling.noise_like(like, self._generator)

    def show(self, plan: BlockPlan, z: Tensor) -> FrameFuture:
        """The last part of `submit`: decodes the block that the network state has been advanced by.

        z: (1, block, c, h, w) its latents.
        """
        self._latents = z
        decode = self._decode if plan.view is None else self._decode_and_remember(plan.view)
        coming = self._decode_stream.start(decode, z)
        self._num_frames += plan.num_frames
        return coming

    def _next_view(self, actions: Tensor) -> NextStep | None:
        """Renders the memory's view of the next block; None for a model without a memory."""
        memory, state = self._engine.bundle.memory, self._world.memory
        if memory is None or state is None:
            return None
        scene = None if self._opening is None else self._opening.loaded.candidates
        return memory.next(state, self._world.last, actions, scene)

    def _decode_and_remember(self, step: NextStep) -> Callable[[Tensor], Tensor]:
        """Decoding, after which the memory has the block's last frame: the next block's view needs it."""
        memory, state = self._engine.bundle.memory, self._world.memory
        assert memory is not None
        assert state is not None

        def decode(z: Tensor) -> Tensor:
            frames = self._decode(z)
            pixels = to_pixels(frames.permute(0, 3, 1, 2)[None])
            return to_stored(memory.commit(state, step, pixels)[0])

        return decode

    def _open_memory(self) -> None:
        """The memory as it is at the start: the start image, seen from where it was taken."""
        memory, state = self._engine.bundle.memory, self._world.memory
        if memory is None or state is None:
            return
        pose = fov_deg = pixel_aspect = None
        if (camera := self._start_camera) is not None:
            device = self._engine.device
            pose = torch.from_numpy(camera.pose)[None].to(device)
            fov_deg = torch.tensor([camera.fov_deg], device=device)
            pixel_aspect = torch.tensor([camera.pixel_aspect], device=device)
        frame = torch.from_numpy(self._first_frame).to(self._engine.device).permute(0, 3, 1, 2)
        body = None if self._opening is None else self._opening.loaded.candidates.body
        memory.open(state, to_pixels(frame), pose, fov_deg, pixel_aspect, body)

    @torch.inference_mode()
    def snapshot(self, *, copy: bool = True) -> Snapshot:
        """Captures all state that `restore` needs to continue from here, bit for bit.

        copy: without it the tensors are the session's own, and change with its next step.
        """
        self._check_open()
        self._decode_stream.join()
        tensors, numbers = states.flatten(self.state)
        return Snapshot(
            model=self._engine.fingerprint,
            seed=self._seed,
            num_frames=self._num_frames,
            picture=self._picture.copy() if copy else self._picture,
            tensors={
                **{name: tensor.clone() if copy else tensor for name, tensor in tensors.items()},
                _NOISE: self._generator.get_state(),
            },
            numbers=numbers,
            scene=self.scene,
        )

    @torch.inference_mode()
    def restore(self, snapshot: Snapshot) -> None:
        """Go back (or over) to where `snapshot` was taken, in this session or another one of the same model.

        Raises CheckpointError, with nothing changed, for a snapshot of another model or number type.
        """
        self._check_open()
        if snapshot.model != self._engine.fingerprint:
            raise CheckpointError(
                f"the snapshot was made by {snapshot.model}, this session runs {self._engine.fingerprint}; "
                "load that model with that dtype"
            )
        if snapshot.scene != self.scene:
            raise CheckpointError(
                f"the snapshot was made in {snapshot.scene or 'no scene'}, this session is in {self.scene or 'none'}; "
                "open that scene first"
            )
        if _NOISE not in snapshot.tensors:
            raise CheckpointError("the snapshot has no state of the noise; it was made by another version")
        noise, now = snapshot.tensors[_NOISE], self._generator.get_state()
        if noise.dtype != now.dtype or noise.shape != now.shape:
            raise CheckpointError(
                f"the snapshot's state of the noise is {tuple(noise.shape)} {noise.dtype}, expected {tuple(now.shape)}"
                f" {now.dtype}; it was made on another kind of device"
            )
        if snapshot.picture.shape != self._picture.shape or snapshot.picture.dtype != np.uint8:
            raise CheckpointError(
                f"the snapshot's picture is {snapshot.picture.shape}, expected {self._picture.shape}; it was made by"
                " another model"
            )
        self._decode_stream.join()
        states.fill(self.state, snapshot.tensors, snapshot.numbers)
        self._generator.set_state(snapshot.tensors[_NOISE])
        if not np.array_equal(snapshot.picture, self._picture):
            self._start_from(snapshot.picture)
            self._first_frame = self._show_start(self._new_decoder())
        self._seed, self._num_frames = snapshot.seed, snapshot.num_frames

    @torch.inference_mode()
    def fork(self) -> Session:
        """A second session that goes on from here on its own.  Constant data (the start image) is shared."""
        self._check_open()
        self._decode_stream.join()
        twin = object.__new__(Session)
        twin.__dict__.update(self.__dict__)
        twin._world, twin._decoder = self._world.clone(), self._decoder.clone()
        twin._prepare()
        twin._generator = torch.Generator(self._engine.device)
        twin._generator.set_state(self._generator.get_state())
        return twin

    def close(self) -> None:
        """Give the memory back.  A closed session cannot be used again; closing twice does no harm.

        From another thread it waits for the block that is being made.
        """
        with self._engine.lock:
            if self._is_open:
                self._decode_stream.join()
            self._is_open = False
            for name in ("_world", "_decoder", "_z0", "_image", "_start", "_passes", "_decode", "_latents"):
                self.__dict__.pop(name, None)

    def _prepare(self) -> None:
        """Creates the objects that run on the session's own state."""
        engine = self._engine
        self._decode_stream = engine.decode_stream
        self._passes = CapturedPasses(engine.new_capture("passes"), engine.warm)
        self._decode = CapturedDecode(engine.decoder, self._decoder, engine.new_capture("decode"), engine.warm)

    @torch.inference_mode()
    def _start_from(self, picture: npt.NDArray[np.uint8]) -> None:
        """Encode the start image.  Every session encodes for itself: the result is the same each time."""
        self._picture = picture.copy()
        bundle = self._engine.bundle
        pixels = torch.from_numpy(self._picture).to(self._engine.device).permute(2, 0, 1)[None]
        pixels = to_pixels(pixels).to(self._engine.dtype)
        with self._engine.lock:
            self._image = bundle.image_encoder(pixels)
            self._start = StartStream(bundle.tokenizer, pixels) if bundle.config.world.generates_start else None
            self._z0 = self._start.latents(0, 1) if self._start else bundle.tokenizer.encode(pixels[:, None])

    def _show_start(self, decoder: DecoderState) -> Frames:
        """The start image, (1, H, W, 3): as a fresh `decoder` gives it, or as it is where the model makes its own."""
        if self._start is not None:
            return self._picture[None].copy()
        return to_frames(self._engine.decoder.decode(self._z0, decoder)[0])

    def _new_decoder(self) -> DecoderState:
        engine = self._engine
        return engine.decoder.new_decoder_state(1, *engine.resolution, engine.device, engine.dtype)

    def _encode(self, action: Action | Sequence[Action]) -> Tensor:
        """(1, next_frames, action size) float32."""
        num_frames = self.next_frames
        actions = [action] * num_frames if isinstance(action, Action) else list(action)
        if len(actions) != num_frames:
            raise ActionError(f"a step takes one action or {num_frames}, one per frame; got {len(actions)}")
        rows = self.action_space.encode(actions)
        idle = self._engine.bundle.config.world.actions.idle_key
        if idle is not None:
            keys = len(self.action_space.keys)
            place = self.action_space.keys.index(idle)
            rows[:, place] = 0
            rows[:, place] = rows[:, :keys].sum(1) == 0
        return torch.from_numpy(rows)[None].to(self._engine.device)

    def _check_open(self) -> None:
        if not self._is_open:
            raise WorldError("this session is closed; open another one with engine.open(image)")
