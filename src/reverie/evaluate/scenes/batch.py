"""Many sessions of a model with a spatial memory at once: one network call a block for all of them.

Each does what `reverie.engine.sessions.session` does, to a rounding of pixels.  Its camera may also be led along known
poses, and the memory may be left alone: then its views are the frames, and no network is asked.

Legend: b sessions, f frames, (H W) frames, (h w) views at half size, a numbers in an action row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reverie import sampling
from reverie.engine.engine import Engine
from reverie.engine.loading.scenes import LoadedScene
from reverie.errors import CheckpointError
from reverie.models.conditioning.spatial_memory import NextStep, SpatialMemory, move_camera
from reverie.models.state import SpatialMemoryState
from reverie.models.tokenizer import FRAMES
from reverie.scenes.ego_motion import depth_ahead
from reverie.types import Action, Frames
from reverie.vision.pixels import shrink_frames, to_bytes, to_pixels
from reverie.vision.projection import VIEW_SIZE

Poses = npt.NDArray[np.float32]


class Played(NamedTuple):
    """Frames of all sessions, (b, f, H, W, 3) uint8, the first one in front; poses (b, f, 6) of their cameras."""

    frames: Frames
    poses: Poses


class Batch:
    """Sessions of one model that are opened and played together."""

    def __init__(
        self,
        engine: Engine,
        images: Frames,
        seed: int = 0,
        *,
        scene: LoadedScene | None = None,
        poses: Poses | None = None,
        memory_alone: bool = False,
    ) -> None:
        """images: (b, H, W, 3) starts; poses: (b, 6) of them in `scene`.  Without a scene each session has nothing but
        its image, with a camera as the model takes it to be.

        Raises CheckpointError for a model without a spatial memory.
        """
        if engine.bundle.memory is None:
            raise CheckpointError(f"{engine.name} has no spatial memory, so it plays in no scenes; leave --scene out")
        self._engine, self._alone = engine, memory_alone
        self._memory: SpatialMemory = engine.bundle.memory
        self._candidates = None
        if scene is not None:
            self._candidates = scene.candidates.for_sessions(len(images))
        self._generator = torch.Generator(engine.device).manual_seed(seed % 2**63)
        self._open(images, scene, poses)

    @torch.inference_mode()
    def _open(self, images: Frames, scene: LoadedScene | None, poses: Poses | None) -> None:
        engine, bundle, b = self._engine, self._engine.bundle, len(images)
        pixels = to_pixels(torch.from_numpy(np.array(images)).to(engine.device).permute(0, 3, 1, 2)).to(engine.dtype)
        self._world = bundle.model.new_state(b, engine.device, engine.dtype)
        in_scene = 0 if scene is None else len(scene.candidates.keyframes)
        self._keyframes: SpatialMemoryState = self._memory.init_state(b, engine.resolution, engine.device, in_scene)
        self._world.memory = self._keyframes
        self._decoder = engine.decoder.new_decoder_state(b, *engine.resolution, engine.device, engine.dtype)
        z = bundle.tokenizer.encode(pixels[:, None])
        schedule = bundle.config.schedule
        sampling.begin(bundle.model, z, bundle.image_encoder(pixels), schedule, self._world, self._generator)
        stored = _stored(engine.decoder.decode(z, self._decoder))
        camera = fov_deg = pixel_aspect = body = None
        if scene is not None:
            assert poses is not None
            camera = torch.from_numpy(poses).to(engine.device)
            fov_deg = torch.full((b,), scene.scene.fov_deg, device=engine.device)
            pixel_aspect = torch.full((b,), scene.scene.pixel_aspect, device=engine.device)
            body = scene.candidates.body
        self._memory.open(self._keyframes, _pixels(stored)[:, -1], camera, fov_deg, pixel_aspect, body)
        self.first_frames = shrink(stored.cpu().numpy()) if self._alone else stored.cpu().numpy()

    @property
    def camera(self) -> Poses:
        """Poses (b, 6) of the last frames' cameras."""
        return self._keyframes.camera.cpu().numpy().copy()

    @torch.inference_mode()
    def step(self, rows: Tensor, poses: Tensor | None = None) -> Played:
        """Plays the next block under rows (b, 4, a), with a camera of its own or along poses (b, 4, 6).

        Returns frames (b, 4, H, W, 3), of the memory alone (b, 4, h, w, 3), and the poses (b, 4, 6) of their cameras.
        """
        world, memory, engine = self._world, self._memory, self._engine
        step = memory.next(self._keyframes, world.last, rows, self._candidates, poses)
        if self._alone:
            self._look_on(step, rows)
            return Played(_stored(step.view.colour).cpu().numpy(), step.poses.cpu().numpy())
        schedule = engine.bundle.config.schedule
        z = sampling.advance(engine.bundle.model, rows, schedule, world, self._generator, step.parts)
        decoded = _pixels(_stored(engine.decoder.decode(z, self._decoder)))
        stored = _stored(memory.commit(self._keyframes, step, decoded))
        return Played(stored.cpu().numpy(), step.poses.cpu().numpy())

    def _look_on(self, step: NextStep, rows: Tensor) -> None:
        """The state after a block of which the memory's view is the frames: nothing is remembered of them."""
        world, state, base = self._world, self._keyframes, step.parts.base
        assert base is not None
        world.last.copy_(base[:, -1])
        num_kept = world.actions.shape[1]
        world.actions.copy_(torch.cat([world.actions, rows.to(world.actions)], 1)[:, -num_kept:])
        world.step += 1
        move_camera(state, step)
        dtype = next(self._memory.depth.parameters()).dtype
        state.ahead.copy_(depth_ahead(self._memory.depth(step.view.colour[:, -1].clamp(-1, 1).to(dtype))[0]))

    def play(
        self,
        actions: Sequence[Sequence[Action]],
        poses: Poses | None = None,
        *,
        half: bool = False,
        first: bool = True,
        tick: Callable[[], None] = lambda: None,
    ) -> Played:
        """Plays whole blocks under actions of each session, one a frame; the last block is filled up and cut.

        poses: (b, f, 6) of the frames to come, to lead the cameras along.  half: keep frames at half size.  first: put
        the frames before in front.  tick: called once a block.
        """
        rows = np.stack([self._engine.action_space.encode(one) for one in actions])
        num_frames = rows.shape[1]
        missing = -num_frames % FRAMES
        rows = torch.from_numpy(np.pad(rows, ((0, 0), (0, missing), (0, 0)), "edge")).to(self._engine.device)
        led = None
        if poses is not None:
            led = torch.from_numpy(np.pad(poses, ((0, 0), (0, missing), (0, 0)), "edge")).to(self._engine.device)
        frames, cameras = [], []
        if first:
            frames.append(shrink(self.first_frames) if half else self.first_frames)
            cameras.append(self.camera[:, None])
        for i in range(0, rows.shape[1], FRAMES):
            block, camera = self.step(rows[:, i : i + FRAMES], None if led is None else led[:, i : i + FRAMES])
            frames.append(shrink(block) if half else block)
            cameras.append(camera)
            tick()
        count = num_frames + first
        return Played(np.concatenate(frames, 1)[:, :count], np.concatenate(cameras, 1)[:, :count])


def shrink(frames: Frames) -> Frames:
    """Frames (..., H, W, 3) at half size, that of views; what is no larger than that as it is."""
    if frames.shape[-3] <= VIEW_SIZE[0]:
        return frames
    return _stored(shrink_frames(torch.from_numpy(np.array(frames)).movedim(-1, -3))).numpy()


def _stored(pixels: Tensor) -> Tensor:
    """Frames (..., 3, H, W) in [-1, 1] as uint8 (..., H, W, 3)."""
    return to_bytes(pixels).movedim(-3, -1).contiguous()


def _pixels(stored: Tensor) -> Tensor:
    """The inverse of `_stored`, in the same order in memory as a session has it: convolutions round by that."""
    return to_pixels(stored.movedim(-1, -3))
