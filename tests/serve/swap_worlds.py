"""A toy game and its dream: a striped wall that slides as the camera turns, green in the game and red in the dream."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from tests.serve.fake_source import RESOLUTION, SPACE, FakeSource

from reverie.errors import WorldError
from reverie.serve.protocol import VIEWS
from reverie.serve.sources import Picture, Progress, WorldSpec
from reverie.serve.swap import Moment, SwapWorld
from reverie.types import Action, Frames, Pose

GAME_TINT, DREAM_TINT = (0.2, 1.0, 0.2), (1.0, 0.2, 0.2)
WALL_YAW = 60.0
"""Nobody can look further right."""


def draw(yaw: float, tint: tuple[float, float, float]) -> Picture:
    """The wall as seen at a yaw, a column a degree."""
    x = np.arange(RESOLUTION[1]) + yaw
    stripes = 120 + 60 * np.sin(x / 5.0) + 40 * np.sin(x / 17.0)
    wall = np.broadcast_to(stripes, RESOLUTION)[..., None] * np.array(tint)
    return wall.clip(0, 255).astype(np.uint8)


class ToyGame:
    """One frame a step; the mouse turns the camera, forward walks north."""

    action_space = SPACE
    resolution = RESOLUTION
    block_frames = 1
    fov_deg = 90.0
    tint = GAME_TINT

    def __init__(self) -> None:
        self.actions: list[Action] = []
        self.pose: Pose = np.zeros(6, np.float32)
        self.is_closed = False

    def reset(self, seed: int) -> Frames:
        self.pose = np.zeros(6, np.float32)
        return self._frame()

    def step(self, action: Action) -> Frames:
        self.actions.append(action)
        self.pose = self.pose.copy()
        self.pose[3] += action.mouse[1]
        self.pose[1] += "forward" in action.keys
        return self._frame()

    def close(self) -> None:
        self.is_closed = True

    def _frame(self) -> Frames:
        return draw(float(self.pose[3]), self.tint)[None]


class PlaceableGame(ToyGame):
    """The same, and it can be asked to stand somewhere, but not behind the wall."""

    def stand(self, pose: Pose) -> Frames:
        if pose[3] > WALL_YAW:
            raise WorldError("nobody can stand behind the wall")
        self.pose = pose.copy()
        return self._frame()


class ToyDream(ToyGame):
    """Blocks of four frames that begin at a moment of the game."""

    block_frames = 4
    tint = DREAM_TINT

    def __init__(self, at: Moment) -> None:
        super().__init__()
        self.began = at
        if at.pose is not None:
            self.pose = at.pose.copy()

    @property
    def camera(self) -> Pose | None:
        return self.pose

    def step(self, action: Action) -> Frames:
        return np.concatenate([ToyGame.step(self, action) for _ in range(4)])


class SwapToys(FakeSource):
    """A source of the two; `dreams` are those that were opened."""

    def __init__(self, game: Callable[[], ToyGame] = PlaceableGame) -> None:
        super().__init__(num_starts=0, uploads=False)
        self.new_game = game
        self.games: list[ToyGame] = []
        self.dreams: list[ToyDream] = []

    def load(self, progress: Progress) -> WorldSpec:
        return replace(super().load(progress), kind="game", views=VIEWS)

    def open(self, picture: Picture | None, seed: int) -> SwapWorld:  # type: ignore[override]
        self.games.append(self.new_game())
        return SwapWorld(self.games[-1], self._dream, name="wall", dream_name="toy", block_frames=4)

    def _dream(self, at: Moment, seed: int, passes: int) -> tuple[ToyDream, Frames]:
        self.dreams.append(ToyDream(at))
        yaw = 0.0 if at.pose is None else float(at.pose[3])
        return self.dreams[-1], draw(yaw, DREAM_TINT)[None]
