"""A toy game and its dream: a striped wall that slides as the camera turns, green in the game and red in the dream."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image
from tests.helpers.fake_source import RESOLUTION, SPACE, FakeSource

from reverie.engine.sessions.script import ActionScript
from reverie.engine.sessions.session_file import SessionFile, encode_png
from reverie.errors import WorldError
from reverie.serve.protocol import VIEWS
from reverie.serve.sources import Picture, Progress, WorldSpec
from reverie.serve.swap import Moment, SwapWorld
from reverie.types import Action, Camera, Frames, Pose

GAME_TINT, DREAM_TINT = (0.2, 1.0, 0.2), (1.0, 0.2, 0.2)
WALL_YAW = 60.0
"""Nobody can look further right."""


def draw(yaw: float, tint: tuple[float, float, float]) -> Picture:
    """The wall as seen at a yaw, a column a degree."""
    x = np.arange(RESOLUTION[1]) + yaw
    stripes = 120 + 60 * np.sin(x / 5.0) + 40 * np.sin(x / 17.0)
    wall = np.broadcast_to(stripes, RESOLUTION)[..., None] * np.array(tint)
    return wall.clip(0, 255).astype(np.uint8)


def decode_png(data: bytes | None) -> Picture:
    with Image.open(io.BytesIO(data or b"")) as image:
        return np.array(image)


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

    seed, earliest = 0, 1

    def __init__(self, at: Moment) -> None:
        super().__init__()
        self.began = at
        self.pose = np.zeros(6, np.float32) if at.pose is None else at.pose.copy()
        self.poses = [self.pose]
        self.frame = 1

    @property
    def camera(self) -> Pose | None:
        return self.pose

    @property
    def last(self) -> int:
        return len(self.poses)

    @property
    def shown(self) -> Frames:
        return self._frame()

    def step(self, action: Action | Sequence[Action]) -> Frames:  # type: ignore[override]
        del self.poses[self.frame :], self.actions[self.frame - 1 :]
        frames = []
        for one in [action] * 4 if isinstance(action, Action) else action:
            frames.append(ToyGame.step(self, one))
            self.poses.append(self.pose)
        self.frame += len(frames)
        return np.concatenate(frames)

    def seek(self, frame: int) -> Frames:
        self.frame = min(max(frame, 1), self.last)
        self.pose = self.poses[self.frame - 1]
        return self._frame()

    def snapshot(self) -> None:
        return None

    def describe(self, title: str = "") -> SessionFile:
        done = self.actions[: self.frame - 1]
        return SessionFile(
            model="toy/0",
            seed=self.seed,
            keys=SPACE.keys,
            mouse=True,
            start=encode_png(self.began.frame),
            script=ActionScript.from_actions(done) if done else None,
            created=time.time(),
            camera=None if self.began.pose is None else Camera(self.began.pose, self.fov_deg),
        ).titled(title)


class SwapToys(FakeSource):
    """A source of the two; `dreams` are those that were opened."""

    def __init__(self, game: Callable[[], ToyGame] = PlaceableGame) -> None:
        super().__init__(num_starts=0, uploads=False)
        self.new_game = game
        self.games: list[ToyGame] = []
        self.dreams: list[ToyDream] = []

    def load(self, progress: Progress) -> WorldSpec:
        return replace(super().load(progress), kind="game", views=VIEWS, rewind_s=300.0)

    def open(self, picture: Picture | None, seed: int) -> SwapWorld:  # type: ignore[override]
        self.games.append(self.new_game())
        return SwapWorld(self.games[-1], self._dream, name="wall", dream_name="toy", block_frames=4)

    def open_file(self, file: SessionFile) -> tuple[ToyDream, list[tuple[Action, ...]], list[str]]:
        dream = ToyDream(Moment(decode_png(file.start), file.camera and file.camera.pose))
        self.dreams.append(dream)
        actions = list(file.script.actions()) if file.script else []
        return dream, [tuple(actions[i : i + 4]) for i in range(0, len(actions), 4)], []

    def open_beside(
        self, file: SessionFile, session: ToyDream, current: SwapWorld | None = None
    ) -> tuple[SwapWorld, list[str]]:
        world = current or self.open(None, file.seed)
        if world is not current:
            world.reset(file.seed)
        return world, world.take_up(session, session.began.frame, session.began.frame, file.game)

    def _dream(self, at: Moment, seed: int, passes: int) -> tuple[ToyDream, Frames]:
        self.dreams.append(ToyDream(at))
        yaw = 0.0 if at.pose is None else float(at.pose[3])
        return self.dreams[-1], draw(yaw, DREAM_TINT)[None]
