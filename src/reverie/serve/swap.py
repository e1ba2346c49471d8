"""A real game and the dream of it, one of them shown or both under the same actions."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from reverie.data.facts import WorldFacts
from reverie.errors import WorldError
from reverie.serve.protocol import Drift
from reverie.types import Action, ActionSpace, Frames, PlaceableWorld, Pose, World

MAX_BACK_FRAMES = 64
"""A frame on a page's screen is at most so much older than the latest."""


@runtime_checkable
class Dream(World, Protocol):
    """A World that reports its camera's pose."""

    @property
    def camera(self) -> Pose | None: ...


@runtime_checkable
class Swappable(World, Protocol):
    """A World that shows several views of what is played."""

    def show(self, view: str, back: int) -> tuple[Frames, list[str]]:
        """Shows another view: its first frame (1, H, W, 3), and lines for the player.

        back: how many frames before the latest the change is to be, as far as that can be.
        """
        ...

    @property
    def drift(self) -> Drift | None:
        """The dream's latest figures; None while no dream is shown."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """A frame (H, W, 3) that was shown, and where its camera was."""

    frame: npt.NDArray[np.uint8]
    pose: Pose | None


OpenDream = Callable[[Moment, int, int], tuple[Dream, Frames]]
"""Opens a dream on a frame of the game, with a seed and passes: the dream, and its first frame (1, H, W, 3)."""


class SwapWorld:
    """A World: `game`, or the dream of it.

    game: a game of one frame a step, or of several; name, dream_name: what to call the two; block_frames: frames of a
    block of dreams, and so of this world's; passes: denoising passes of dreams.  While the dream alone is shown, the
    game stands still.
    """

    def __init__(
        self, game: World, open_dream: OpenDream, *, name: str, dream_name: str, block_frames: int, passes: int = 1
    ) -> None:
        from reverie.serve.drift import DriftMeter  # torch

        self._game, self._open = game, open_dream
        self._name, self._dream_name = name, dream_name
        self._block_frames, self._passes = block_frames, passes
        self._dream: Dream | None = None
        self._view = "game"
        self._seed = self._num_dreams = 0
        self._latest = Moment(np.zeros((*game.resolution, 3), np.uint8), None)
        self._dreamt = self._latest
        self._moments: deque[Moment] = deque(maxlen=MAX_BACK_FRAMES)
        self._meter = DriftMeter()

    @property
    def action_space(self) -> ActionSpace:
        return self._game.action_space

    @property
    def resolution(self) -> tuple[int, int]:
        """(H, W) of one view; frames of both are twice as wide."""
        return self._game.resolution

    @property
    def block_frames(self) -> int:
        return self._block_frames

    @property
    def passes(self) -> int:
        """Denoising passes of the dreams' blocks."""
        return self._passes

    @property
    def view(self) -> str:
        """One of `protocol.VIEWS`."""
        return self._view

    @property
    def drift(self) -> Drift | None:
        return None if self._view == "game" else self._meter.latest

    def reset(self, seed: int, passes: int | None = None) -> Frames:
        """Starts the game again, and shows it.  passes: of dreams from now on; None for as many as before."""
        self._end_dream()
        self._passes = passes or self._passes
        self._view, self._seed, self._num_dreams = "game", seed, 0
        self._stand(self._game.reset(seed))
        return self._shown()

    def step(self, action: Action) -> Frames:
        """The next block, (f, H, W, 3) of one view, or (f, H, 2 W, 3): the game, and the dream right of it."""
        dreamt = None
        if self._dream is not None and self._view != "game":
            before = self._dreamt.pose
            dreamt = self._dream.step(self._dream.action_space.restrict(action))
            poses = _between(before, self._dream.camera, len(dreamt))
            moments = [Moment(frame, pose) for frame, pose in zip(dreamt, poses, strict=True)]
            self._dreamt = moments[-1]
            if self._view == "dream":
                self._moments.extend(moments)
        played = None
        if self._view != "dream":
            played = self._play(action, self._block_frames if dreamt is None else len(dreamt))
        if dreamt is not None:
            self._meter.add_dream(dreamt, self._dreamt.pose, played)
        if played is None or dreamt is None:
            shown = dreamt if played is None else played
            assert shown is not None
            return shown
        return np.concatenate([played, dreamt], 2)

    def show(self, view: str, back: int = 0) -> tuple[Frames, list[str]]:
        """Switches the view, see `Swappable.show`.

        A dream begins in the frame on the screen; beside the game in its latest.  The game is asked to stand where the
        dream is; where it cannot, it goes on where it was left, and a dream beside it begins anew.
        """
        before, notices = self._view, []
        at = self._moments[-1 - min(back, len(self._moments) - 1)] if self._moments else self._latest
        if view != "dream" and before == "dream":
            notices = self._place(at.pose)
        if view == "game":
            self._end_dream()
        elif before == "game" or notices:
            self._begin_dream(at if view == "dream" else self._latest)
        self._view = view
        self._moments.clear()
        return self._shown(), notices

    def memory_map(self, size: int = 192) -> npt.NDArray[np.uint8] | None:
        """The dream's, see `Session.memory_map`; None while none is shown."""
        draw = getattr(self._dream, "memory_map", None)
        return None if draw is None else draw(size)

    def close(self) -> None:
        """Closes the game and the dream."""
        self._end_dream()
        self._meter.close()
        self._game.close()

    def _play(self, action: Action, num_frames: int) -> Frames:
        frames = []
        for _ in range(-(-num_frames // self._game.block_frames)):
            for frame in self._game.step(action):
                frames.append(np.ascontiguousarray(frame))
                self._latest = Moment(frames[-1], _pose_of(self._game))
                if self._view == "game":
                    self._moments.append(self._latest)
        played = np.stack(frames[:num_frames])
        self._meter.add_game(played, self._latest.pose)
        return played

    def _place(self, pose: Pose | None) -> list[str]:
        """Has the game stand at a pose; lines for the player where it does not."""
        left = f"{self._name} goes on where it was left"
        if not isinstance(self._game, PlaceableWorld):
            return [f"{self._name} cannot be asked to stand somewhere; it goes on where it was left"]
        if pose is None or self._latest.pose is None:
            return [f"{self._dream_name} does not tell where its camera is; {left}"]
        try:
            self._stand(self._game.stand(pose))
        except WorldError as error:
            return [f"{' '.join(str(error).split())}; {left}"]
        return []

    def _stand(self, frames: Frames) -> None:
        """The game shows a frame that does not follow from the one before."""
        self._latest = Moment(np.ascontiguousarray(frames[-1]), _pose_of(self._game))
        self._meter.begin_game(self._latest.frame, self._latest.pose)
        self._moments.clear()

    def _begin_dream(self, at: Moment) -> None:
        self._end_dream()
        self._num_dreams += 1
        self._dream, first = self._open(at, self._seed + self._num_dreams - 1, self._passes)
        self._dreamt = Moment(first[-1], self._dream.camera)
        self._meter.begin_dream(at.frame, first[-1], self._dreamt.pose)

    def _end_dream(self) -> None:
        if self._dream is not None:
            self._dream.close()
        self._dream = None

    def _shown(self) -> Frames:
        """The frame that the world stands at, (1, H, W, 3), or (1, H, 2 W, 3)."""
        shown = {"game": [self._latest], "dream": [self._dreamt], "both": [self._latest, self._dreamt]}[self._view]
        if len(shown) == 1:
            self._moments.append(shown[0])
        return np.concatenate([one.frame for one in shown], 1)[None]


def _pose_of(game: World) -> Pose | None:
    """The pose of the game's camera; None for a game that does not report it."""
    pose = WorldFacts(game).pose
    return None if pose is None else np.array(pose, np.float32)


def _between(before: Pose | None, after: Pose | None, count: int) -> list[Pose | None]:
    """Poses of `count` frames of a block, evenly on the way from the frame before it to its last."""
    if before is None or after is None:
        return [after] * count
    way = after - before
    way[3:] = (way[3:] + 180.0) % 360.0 - 180.0
    return [(before + way * ((i + 1) / count)).astype(np.float32) for i in range(count)]
