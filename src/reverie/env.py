"""Worlds as Gymnasium environments.

    import gymnasium, reverie.env

    env = gymnasium.make("Reverie/Dream-v0", model="nano", image="room.png")  # or without image: the model's first
    picture, _ = env.reset(seed=1)
    picture, reward, terminated, truncated, info = env.step(env.action_space.sample())

Importing this module registers `Reverie/Dream-v0`.  Any World (a real game or a session) can be given as `world`.
`gymnasium.make_vec("Reverie/Dream-v0", num_envs=8)` is one engine that makes all blocks together
(`reverie.env_vector`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.utils import EzPickle

from reverie.engine.loading import forking as forking  # AsyncVectorEnv forks: its children must find torch usable
from reverie.errors import ActionError, ImageError, WorldError
from reverie.types import FPS, Action, ActionSpace, Frames, Pose, World

if TYPE_CHECKING:
    from torch import Tensor

    from reverie.engine.engine import Engine
    from reverie.engine.media.images import ImageSource

MAX_ENV_TURN_DEG = 15.0
"""The largest turn per frame in an environment's action space: a fast flick of the mouse."""

Observation = npt.NDArray[np.uint8]
EnvAction = dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """A step that has been made, for hooks.

    frames: `(f, H, W, 3)` uint8, the block's; action: as it was given; num_steps: steps of the episode, this one
    included; before, camera: poses `(6,)` of the camera in the last frame before the block and in its own last frame,
    None where the world has no camera.  Sessions with a spatial memory and games have one; latents: (1 + t, c, h, w)
    float32 of a session, the last latent step before the block and the block's own; None for games.
    """

    frames: Frames
    action: EnvAction
    num_steps: int
    before: Pose | None
    camera: Pose | None
    latents: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """State of a world before a step, as in `Step`."""

    camera: Pose | None
    latent: Tensor | None

    @classmethod
    def of(cls, world: World) -> Standing:
        return cls(camera_of(world), getattr(world, "last_latent", None))

    def stepped(self, world: World, frames: Frames, action: EnvAction, num_steps: int) -> Step:
        """The step that has led `world` from here."""
        latents = None
        if self.latent is not None:
            block: Tensor = world.latents  # type: ignore[attr-defined]  # a session's, as the last one was
            latents = np.concatenate([one.float().cpu().numpy() for one in (self.latent, block[0])])
        return Step(frames, action, num_steps, self.camera, camera_of(world), latents)


Reward = Callable[[Step], float]
"""The reward of a step."""
Termination = Callable[[Step], bool]
"""Predicate of an episode's end: true if the step ends it."""


class DreamEnv(gym.Env[Observation, EnvAction], EzPickle):
    """A World behind Gymnasium's interface.

    Observation: the last frame of the block, uint8 `(H, W, 3)`; `info["frames"]` has all of them,
    `(block_frames, H, W, 3)`, at a reset the start image for as long.
    Action: a Dict of `keys` (MultiBinary, one per key) and `mouse` (Box: pitch, yaw in degrees per frame), each only
    where the world has it; it is held for the whole block, or, with `per_frame`, there is one row per frame of it.
    Reward: the hook `reward` of the step, else 0: sessions do not keep score.  It is a function, or the folder of a
    learned one (`reverie train reward`).  An episode terminates where the hook `terminated` is true, or a learned
    reward predicts an end, else never; it is truncated after `max_steps`.
    Render: a frame a step, so `render_fps` is the frame rate over the block's frames: RecordVideo keeps real time.
    Seeds: the same reset seed and actions give the same frames.  `reset(options={"image": ...})` starts in another
    picture, where the environment was made from a model.  A pickled environment is made anew from its arguments.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012  # gymnasium declares it like this
        "render_modes": ["rgb_array"],
        "render_fps": FPS,  # of a world that makes single frames; each environment says its own
    }

    def __init__(
        self,
        world: World | None = None,
        *,
        model: str = "nano",
        image: ImageSource | None = None,
        scene: str | Path | None = None,
        start: int = 0,
        device: str = "auto",
        dtype: str = "auto",
        per_frame: bool = False,
        max_steps: int | None = None,
        reward: Reward | str | Path | None = None,
        terminated: Termination | None = None,
        render_mode: str | None = None,
    ) -> None:
        """Plays `world`, or, without one, a session of `model` that starts on `image` (default: its first image), or in
        `scene` at its start number `start`."""
        EzPickle.__init__(
            self,
            world,
            model=model,
            image=image,
            scene=scene,
            start=start,
            device=device,
            dtype=dtype,
            per_frame=per_frame,
            max_steps=max_steps,
            reward=reward,
            terminated=terminated,
            render_mode=render_mode,
        )
        check_render_mode(render_mode)
        self.render_mode = render_mode
        self._engine: Engine | None = None
        self._world: World = self._dream(model, image, scene, start, device, dtype) if world is None else world
        self._reward, self._terminated = hooks(reward, terminated, self._engine)
        self.metadata = {**self.metadata, "render_fps": self._frames_per_second() / self._world.block_frames}
        self._per_frame = per_frame
        self._max_steps = max_steps
        self._num_steps = 0
        self._picture: Observation | None = None
        self.observation_space = spaces.Box(0, 255, (*self._world.resolution, 3), np.uint8)
        num_rows = self._world.block_frames if per_frame else None
        self.action_space = gym_action_space(self._world.action_space, num_rows)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        image = (options or {}).get("image")
        if image is not None:
            if self._engine is None:
                raise ActionError("only an environment made from a model can start in another picture")
            self._world.close()
            self._world = self._engine.open(image)
        frames = self._world.reset(int(self.np_random.integers(2**31)))
        self._num_steps = 0
        return self._show(frames), {"frames": whole_block(frames, self._world)}

    def step(self, action: EnvAction) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        before = Standing.of(self._world)
        frames = self._advance(action)
        self._num_steps += 1
        done = before.stepped(self._world, frames, action, self._num_steps)
        reward, terminated = judge(done, self._reward, self._terminated)
        truncated = self._max_steps is not None and self._num_steps >= self._max_steps
        return self._show(frames), reward, terminated, truncated, {"frames": whole_block(frames, self._world)}

    def render(self) -> Observation | None:  # type: ignore[override]  # gymnasium types it by a parameter of its own
        return self._picture if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        self._world.close()

    def _frames_per_second(self) -> float:
        return FPS if self._engine is None else self._engine.fps

    def _dream(
        self, model: str, image: ImageSource | None, scene: str | Path | None, start: int, device: str, dtype: str
    ) -> World:
        from reverie.engine.engine import load

        self._engine = engine = load(model, device=device, dtype=dtype)
        if scene is not None:
            return engine.open(image, scene=scene, start=start)
        return engine.open(start_image(engine) if image is None else image)

    def _advance(self, action: EnvAction) -> Frames:
        space = self._world.action_space
        if not self._per_frame:
            return self._world.step(to_action(action, space))
        rows = to_actions(action, space, getattr(self._world, "next_frames", self._world.block_frames))
        # A world of one-frame blocks takes one action; a session takes one per frame of its block.
        return self._world.step(rows[0] if len(rows) == 1 else rows)  # type: ignore[arg-type]

    def _show(self, frames: Frames) -> Observation:
        self._picture = np.array(frames[-1])
        return self._picture.copy()


def check_render_mode(render_mode: str | None) -> None:
    """Raises ValueError for a mode other than None and `rgb_array`."""
    if render_mode not in (None, "rgb_array"):
        raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}")


def camera_of(world: World) -> Pose | None:
    """Pose of the last frame's camera: `camera` of a session, `pose` of a game."""
    pose = getattr(world, "camera", None)
    return getattr(world, "pose", None) if pose is None else pose


def hooks(
    reward: Reward | str | Path | None, terminated: Termination | None, engine: Engine | None
) -> tuple[Reward | None, Termination | None]:
    """The hooks of an environment.  reward: a hook, or the folder of a learned one.

    Raises CheckpointError for a folder that is none or was trained for another model than `engine`, WorldError for a
    world without a model.
    """
    if not isinstance(reward, str | Path):
        return reward, terminated
    from reverie.models.reward import LearnedReward

    learned = LearnedReward.load(reward)
    if engine is None:
        raise WorldError("a learned reward judges dreams, and this world is none; give reward a function of the step")
    learned.check(engine.bundle.tokenizer, engine.resolution)
    if terminated is None and learned.model.config.has_ends:
        terminated = learned.ends
    return learned, terminated


def judge(step: Step, reward: Reward | None, terminated: Termination | None) -> tuple[float, bool]:
    """Reward and termination of a step, by the hooks that there are."""
    return (0.0 if reward is None else float(reward(step))), terminated is not None and bool(terminated(step))


def whole_block(frames: Frames, world: World) -> Frames:
    """`(block_frames, H, W, 3)`: a shorter first block has its first frame repeated, so that all blocks are alike."""
    missing = world.block_frames - len(frames)
    return frames if missing <= 0 else np.concatenate([frames[:1].repeat(missing, 0), frames])


def start_image(engine: Engine) -> ImageSource:
    """The model's first start image.  Raises ImageError where it has none."""
    image = next((picture for _, picture in engine.start_images()), None)
    if image is None:
        raise ImageError(f"the model {engine.name!r} has no start pictures; give one: image='room.png'")
    return image


def gym_action_space(space: ActionSpace, frames: int | None = None) -> spaces.Dict:
    """`keys` and `mouse` as Gymnasium spaces; with `frames`, one row for each of that many frames."""
    lead = () if frames is None else (frames,)
    parts: dict[str, spaces.Space[Any]] = {}
    if space.keys:
        parts["keys"] = spaces.MultiBinary((*lead, len(space.keys)) if lead else len(space.keys))
    if space.mouse:
        parts["mouse"] = spaces.Box(-MAX_ENV_TURN_DEG, MAX_ENV_TURN_DEG, (*lead, 2), np.float32)
    return spaces.Dict(parts)


def to_action(action: EnvAction, space: ActionSpace) -> Action:
    """One environment action of a single frame -> Action.  Raises ActionError for another shape."""
    row = [np.asarray(action[name], np.float32).ravel() for name in ("keys", "mouse") if name in action]
    return space.decode(np.concatenate(row or [np.zeros(0, np.float32)])[None])[0]


def to_actions(action: EnvAction, space: ActionSpace, num_frames: int) -> list[Action]:
    """One environment action with a row a frame -> the actions of its first `num_frames` frames."""
    return [to_action({name: values[i] for name, values in action.items()}, space) for i in range(num_frames)]


gym.register(
    id="Reverie/Dream-v0",
    entry_point="reverie.env:DreamEnv",
    vector_entry_point="reverie.env_vector:DreamVectorEnv",
)
