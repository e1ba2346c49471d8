"""Worlds as Gymnasium environments.

    import gymnasium, reverie.env

    env = gymnasium.make("Reverie/Dream-v0", model="nano", image="room.png")  # or without image: the model's first
    picture, _ = env.reset(seed=1)
    picture, reward, terminated, truncated, info = env.step(env.action_space.sample())

Importing this module registers `Reverie/Dream-v0`.  Any World (a real game or a session) can be given as `world`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from reverie.engine import forking as forking  # AsyncVectorEnv forks: its children must find torch usable
from reverie.errors import ActionError, ImageError
from reverie.types import FPS, Action, ActionSpace, Frames, World

if TYPE_CHECKING:
    from reverie.engine.engine import Engine
    from reverie.engine.images import ImageSource

MAX_ENV_TURN_DEG = 15.0
"""The largest turn per frame in an environment's action space: a fast flick of the mouse."""

Observation = npt.NDArray[np.uint8]
EnvAction = dict[str, Any]


class DreamEnv(gym.Env[Observation, EnvAction]):
    """A World behind Gymnasium's interface.

    Observation: the last picture of the block, uint8 `(H, W, 3)`; `info["frames"]` has all of them, `(f, H, W, 3)`.
    Action: a Dict of `keys` (MultiBinary, one per key) and `mouse` (Box: pitch, yaw in degrees per frame), each only
    where the world has it; it is held for the whole block, or, with `per_frame`, there is one row per frame of it.
    Reward: always 0; dreams do not keep score.  An episode never terminates; it is truncated after `max_steps`.
    Render: a picture a step, so `render_fps` is the frame rate over the block's frames: RecordVideo keeps real time.
    Seeds: the same reset seed and actions give the same pictures.  `reset(options={"image": ...})` starts in another
    picture, where the environment was made from a model.
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
        device: str = "auto",
        dtype: str = "auto",
        per_frame: bool = False,
        max_steps: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        """Play `world`, or, without one, the dream of `model` that starts in `image` (default: its first picture)."""
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}")
        self.render_mode = render_mode
        self._engine: Engine | None = None
        self._world: World = self._dream(model, image, device, dtype) if world is None else world
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
        return self._show(frames)

    def step(self, action: EnvAction) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        picture, info = self._show(self._advance(action))
        self._num_steps += 1
        truncated = self._max_steps is not None and self._num_steps >= self._max_steps
        return picture, 0.0, False, truncated, info

    def render(self) -> Observation | None:  # type: ignore[override]  # gymnasium types it by a parameter of its own
        return self._picture if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        self._world.close()

    def _frames_per_second(self) -> float:
        return FPS if self._engine is None else self._engine.fps

    def _dream(self, model: str, image: ImageSource | None, device: str, dtype: str) -> World:
        from reverie.engine.engine import load

        self._engine = engine = load(model, device=device, dtype=dtype)
        if image is None:
            image = next((picture for _, picture in engine.start_images()), None)
        if image is None:
            raise ImageError(f"the model {engine.name!r} has no start pictures; give one: image='room.png'")
        return engine.open(image)

    def _advance(self, action: EnvAction) -> Frames:
        if not self._per_frame:
            return self._world.step(to_action(action, self._world.action_space))
        num_frames = getattr(self._world, "next_frames", self._world.block_frames)  # a first block may be shorter
        rows = [
            to_action({name: values[i] for name, values in action.items()}, self._world.action_space)
            for i in range(num_frames)
        ]
        # A world of one-frame blocks takes one action; a session takes one per frame of its block.
        return self._world.step(rows[0] if len(rows) == 1 else rows)  # type: ignore[arg-type]

    def _show(self, frames: Frames) -> tuple[Observation, dict[str, Any]]:
        self._picture = np.array(frames[-1])
        return self._picture.copy(), {"frames": frames}


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


gym.register(id="Reverie/Dream-v0", entry_point="reverie.env:DreamEnv")
