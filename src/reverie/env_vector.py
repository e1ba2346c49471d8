"""Many sessions as one Gymnasium vector environment: one engine, whose blocks are made together.

import gymnasium, reverie.env

envs = gymnasium.make_vec("Reverie/Dream-v0", num_envs=8, scene="city-corner", reward=distance, max_steps=50)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.utils import EzPickle
from gymnasium.utils.seeding import np_random
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, iterate

from reverie.env import (
    EnvAction,
    Observation,
    Reward,
    Standing,
    Termination,
    check_render_mode,
    gym_action_space,
    hooks,
    judge,
    start_image,
    to_action,
    to_actions,
    whole_block,
)
from reverie.errors import WorldError
from reverie.types import Frames

if TYPE_CHECKING:
    from reverie.engine.engine import Engine
    from reverie.engine.media.images import ImageSource

Array = npt.NDArray[Any]


class DreamVectorEnv(VectorEnv[Observation, EnvAction, Array], EzPickle):
    """`num_envs` sessions of one model; each is as a `DreamEnv` with the same seed and actions.

    Observations, actions and hooks are those of `DreamEnv`, with a leading axis of environments.  Episodes begin again
    by Gymnasium's rules (`autoreset_mode`).  A session whose numbers are no longer finite is truncated, with the reason
    in `info["error"]`, and begins again like any other.
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        engine: Engine | None = None,
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
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    ) -> None:
        """engine: one that is loaded already, in place of `model`, `device` and `dtype`."""
        EzPickle.__init__(
            self,
            num_envs,
            engine=engine,
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
            autoreset_mode=autoreset_mode,
        )
        from reverie.engine.engine import load
        from reverie.engine.sessions.batch import Batch

        check_render_mode(render_mode)
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}")
        self.num_envs, self.render_mode = num_envs, render_mode
        self._autoreset_mode = AutoresetMode(autoreset_mode)
        self._engine = engine or load(model, device=device, dtype=dtype)
        if image is None and scene is None:
            image = start_image(self._engine)
        opening: dict[str, Any] = {"image": image, "scene": scene, "start": start}
        self._openings = [opening] * num_envs
        self._per_frame, self._max_steps = per_frame, max_steps
        self._reward, self._terminated = hooks(reward, terminated, self._engine)
        self.metadata = {
            "render_modes": ["rgb_array"],
            "render_fps": self._engine.fps / self._engine.block_frames,
            "autoreset_mode": self._autoreset_mode,
        }
        self.single_observation_space = spaces.Box(0, 255, (*self._engine.resolution, 3), np.uint8)
        num_rows = self._engine.block_frames if per_frame else None
        self.single_action_space = gym_action_space(self._engine.action_space, num_rows)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._batch = Batch([self._engine.open(**opening) for opening in self._openings])
        self._random = [np_random()[0] for _ in range(num_envs)]
        self._pictures = np.zeros((num_envs, *self._engine.resolution, 3), np.uint8)
        self._num_steps = np.zeros(num_envs, np.int64)
        self._has_ended = np.zeros(num_envs, np.bool_)

    @property
    def engine(self) -> Engine:
        return self._engine

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begins episodes: all, or those of `options["reset_mask"]`.  An integer seed is that of the first environment,
        the next has the next."""
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int) else seed
        if seeds is not None and len(seeds) != self.num_envs:
            raise ValueError(f"seed must be one for each of {self.num_envs} environments, got {len(seeds)}")
        options = dict(options or {})
        mask = _checked_mask(options.pop("reset_mask", None), self.num_envs)
        infos: dict[str, Any] = {}
        for i in np.flatnonzero(mask).tolist():
            if seeds is not None and seeds[i] is not None:
                self._random[i] = np_random(seeds[i])[0]
            if (image := options.get("image")) is not None:
                self._openings[i] = {"image": image}
                self._replace(i)
            infos = self._add_info(infos, self._begin(i), i)
        return self._pictures.copy(), infos

    def step(self, actions: EnvAction) -> tuple[Observation, Array, Array, Array, dict[str, Any]]:
        """Makes the next block of every environment that goes on, all together."""
        if self._autoreset_mode is AutoresetMode.DISABLED and self._has_ended.any():
            raise WorldError(
                f"environments {np.flatnonzero(self._has_ended).tolist()} have ended; reset them first: "
                "envs.reset(options={'reset_mask': mask})"
            )
        rewards = np.zeros(self.num_envs)
        terminated, truncated = np.zeros(self.num_envs, np.bool_), np.zeros(self.num_envs, np.bool_)
        infos: dict[str, Any] = {}
        single = list(iterate(self.action_space, actions))
        ended = self._has_ended.copy()
        for i in np.flatnonzero(ended).tolist():  # by Gymnasium's NEXT_STEP rule the action of this step is not used
            infos = self._add_info(infos, self._begin(i), i)
        playing = np.flatnonzero(~ended).tolist()
        before = {i: Standing.of(self._batch.sessions[i]) for i in playing}
        for i, made in zip(playing, self._play(playing, single), strict=True):
            info: dict[str, Any]
            if isinstance(made, Exception):
                truncated[i], info = True, {"error": str(made)}
                self._replace(i)
            else:
                rewards[i], terminated[i], truncated[i], info = self._take(i, made, single[i], before[i])
            if self._autoreset_mode is AutoresetMode.SAME_STEP and (terminated[i] or truncated[i]):
                infos = self._add_info(infos, {"final_obs": self._pictures[i].copy(), "final_info": info}, i)
                info = self._begin(i)
            infos = self._add_info(infos, info, i)
        self._has_ended = terminated | truncated
        if self._autoreset_mode is AutoresetMode.SAME_STEP:
            self._has_ended = np.zeros_like(terminated)
        return self._pictures.copy(), rewards, terminated, truncated, infos

    def render(self) -> tuple[Observation, ...] | None:
        """The last frame of each environment."""
        return tuple(self._pictures.copy()) if self.render_mode == "rgb_array" else None

    def close_extras(self, **kwargs: Any) -> None:
        """Closes the sessions."""
        self._batch.close()

    def _play(self, playing: list[int], actions: Sequence[EnvAction]) -> list[Frames | Exception]:
        """The next block, or the error, of these environments.  Raises ActionError, with nothing changed, for an action
        that is not valid."""
        from reverie.engine.sessions.batch import make_blocks

        sessions = [self._batch.sessions[i] for i in playing]
        space = self._engine.action_space
        given = []
        for i, session in zip(playing, sessions, strict=True):
            num_frames = session.next_frames
            per_frame = to_actions(actions[i], space, num_frames) if self._per_frame else None
            given.append(per_frame or [to_action(actions[i], space)] * num_frames)
            space.encode(given[-1])
        return make_blocks(sessions, given)

    def _take(
        self, i: int, frames: Frames, action: EnvAction, before: Standing
    ) -> tuple[float, bool, bool, dict[str, Any]]:
        """Reward, termination, truncation and info of a block that was made."""
        session = self._batch.sessions[i]
        self._pictures[i] = frames[-1]
        self._num_steps[i] += 1
        num_steps = int(self._num_steps[i])
        step = before.stepped(session, frames, action, num_steps)
        reward, terminated = judge(step, self._reward, self._terminated)
        truncated = self._max_steps is not None and num_steps >= self._max_steps
        return reward, terminated, truncated, {"frames": whole_block(frames, session)}

    def _begin(self, i: int) -> dict[str, Any]:
        """Begins a new episode of one environment; returns its info."""
        session = self._batch.sessions[i]
        frames = session.reset(int(self._random[i].integers(2**31)))
        self._pictures[i] = frames[-1]
        self._num_steps[i] = 0
        self._has_ended[i] = False
        return {"frames": whole_block(frames, session)}

    def _replace(self, i: int) -> None:
        """A new session for one environment, where the old one has ended or is to start in another image."""
        self._batch.sessions[i].close()
        self._batch.sessions[i] = self._engine.open(**self._openings[i])


def _checked_mask(mask: Any, num_envs: int) -> npt.NDArray[np.bool_]:
    """Raises ValueError for a mask that is not one boolean an environment, at least one of them true."""
    if mask is None:
        return np.ones(num_envs, np.bool_)
    if not isinstance(mask, np.ndarray) or mask.shape != (num_envs,) or mask.dtype != np.bool_ or not mask.any():
        raise ValueError(f"reset_mask must be a boolean array ({num_envs},) with at least one True, got {mask!r}")
    return mask
