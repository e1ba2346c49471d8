"""A real game and the dream of it, one of them shown or both under the same actions."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from reverie.data.facts import WorldFacts
from reverie.engine.sessions.session_file import GameState, SessionFile, encode_thumbnail
from reverie.errors import WorldError
from reverie.serve.protocol import Drift
from reverie.serve.sessions import Rewindable
from reverie.serve.sources import Picture
from reverie.types import Action, ActionSpace, Frames, PlaceableWorld, Pose, World

if TYPE_CHECKING:
    from reverie.engine.sessions.session import Snapshot

MAX_BACK_FRAMES = 64
"""A frame on a page's screen is at most so much older than the latest."""


@runtime_checkable
class Dream(Rewindable, Protocol):
    """A session that reports its camera's pose."""

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
    def view(self) -> str:
        """The view that is shown, one of `reverie.types.VIEWS`."""
        ...

    @property
    def drift(self) -> Drift | None:
        """The dream's latest figures; None while no dream is shown."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """A frame (H, W, 3) that was shown, and where its camera was."""

    frame: Picture
    pose: Pose | None


OpenDream = Callable[[Moment, int, int], tuple[Dream, Frames]]
"""Opens a dream on a frame of the game, with a seed and passes: the dream, and its first frame (1, H, W, 3)."""


class SwapWorld:
    """A World: `game`, or the dream of it.

    game: a game of one frame a step, or of several; name, dream_name: what to call the two; options: the game's, as
    session files have them; block_frames: frames of a block of dreams, and so of this world's; passes: denoising passes
    of dreams.  While the dream alone is shown, the game stands still, and one can go back in the dream.
    """

    def __init__(
        self,
        game: World,
        open_dream: OpenDream,
        *,
        name: str,
        dream_name: str,
        block_frames: int,
        passes: int = 1,
        options: str = "",
    ) -> None:
        from reverie.serve.drift import DriftMeter  # torch

        self._game, self._open = game, open_dream
        self._name, self._options, self._dream_name = name, options, dream_name
        self._block_frames, self._passes = block_frames, passes
        self._dream: Dream | None = None
        self._view = "game"
        self._seed = self._num_dreams = 0
        self._latest = Moment(np.zeros((*game.resolution, 3), np.uint8), None)
        self._dreamt = self._latest
        self._start = self._latest.frame, self._latest.frame
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
    def seed(self) -> int:
        return self._seed

    @property
    def view(self) -> str:
        return self._view

    @property
    def frame(self) -> int:
        """Number of the frame that the dream stands at; 1 while the game alone is shown."""
        return 1 if self._dream is None else self._dream.frame

    @property
    def earliest(self) -> int:
        return self.frame if self._dream is None or self._view != "dream" else self._dream.earliest

    @property
    def last(self) -> int:
        return self.frame if self._dream is None or self._view != "dream" else self._dream.last

    @property
    def shown(self) -> Frames:
        """The frame that the world stands at, (1, H, W, 3), or (1, H, 2 W, 3)."""
        moments = {"game": [self._latest], "dream": [self._dreamt], "both": [self._latest, self._dreamt]}[self._view]
        return np.concatenate([one.frame for one in moments], 1)[None]

    @property
    def drift(self) -> Drift | None:
        return None if self._view == "game" else self._meter.latest

    def reset(self, seed: int, passes: int | None = None) -> Frames:
        """Starts the game again, and shows it.  passes: of dreams from now on; None for as many as before."""
        self._end_dream()
        self._passes = passes or self._passes
        self._view, self._seed, self._num_dreams = "game", seed, 0
        self._stand(self._game.reset(seed))
        return self._begin_view()

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
            notices = self._place(at.pose, "the game goes on where it was left")
        if view == "game":
            self._end_dream()
        elif before == "game" or notices:
            self._begin_dream(at if view == "dream" else self._latest)
        self._view = view
        return self._begin_view(), notices

    def seek(self, frame: int) -> Frames:
        """Goes to another moment of the dream, see `Timeline.seek`; nowhere while the game is shown."""
        if self._dream is None or self._view != "dream":
            return self.shown
        frames = self._dream.seek(frame)
        self._dreamt = Moment(frames[-1], self._dream.camera)
        self._judge_anew()
        self._begin_view()
        return frames

    def snapshot(self) -> Snapshot | None:
        """The dream's state; None while the game alone is shown, of which there is none."""
        return None if self._dream is None else self._dream.snapshot()

    def describe(self, title: str = "") -> SessionFile:
        """The file of the dream and the game; while the game alone is shown, of the dream that would begin now."""
        dream = self._dream or self._open(self._latest, self._seed + self._num_dreams, self._passes)[0]
        try:
            file = dream.describe(title)
        finally:
            if self._dream is None:
                dream.close()
        pose = None if self._latest.pose is None else tuple(self._latest.pose.tolist())
        game = GameState(name=self._name, options=self._options, seed=self._seed, pose=pose, view=self._view)
        moment = self._latest if self._view == "game" else self._dreamt
        return replace(file, game=game, thumbnail=encode_thumbnail(moment.frame))

    def take_up(self, dream: Dream, real: Picture, first: Picture, state: GameState | None) -> list[str]:
        """Goes on with a dream as it was saved, and has the game stand where it stood; lines for the player.

        real: (H, W, 3), the frame that the dream began in; first: the same as the dream shows it.  Where the game
        cannot stand there, it stays where it is, and the dream is shown.
        """
        self._end_dream()
        self._dream, self._num_dreams, self._start = dream, 1, (real, first)
        self._dreamt = Moment(dream.shown[-1], dream.camera)
        self._judge_anew()
        notices = self._place_as(state)
        self._view = "dream" if notices or state is None else state.view
        if self._view == "game":
            self._end_dream()
        self._begin_view()
        return notices

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

    def _place_as(self, state: GameState | None) -> list[str]:
        """Has the game stand where it was saved; lines for the player where it does not."""
        if state is None:
            return []
        if (state.name, state.options) != (self._name, self._options):
            saved, here = (" ".join(filter(None, game)) for game in
                           ((state.name, state.options), (self._name, self._options)))  # fmt: skip
            return [f"saved beside {saved}, and {here} is played here; the dream goes on"]
        return self._place(None if state.pose is None else np.array(state.pose, np.float32), "the dream goes on")

    def _place(self, pose: Pose | None, instead: str) -> list[str]:
        """Has the game stand at a pose; lines for the player where it does not, with what it does instead."""
        if not isinstance(self._game, PlaceableWorld):
            return [f"{self._name} cannot be asked to stand somewhere; {instead}"]
        if pose is None or self._latest.pose is None:
            return [f"{self._dream_name} does not tell where its camera is; {instead}"]
        try:
            self._stand(self._game.stand(pose))
        except WorldError as error:
            return [f"{' '.join(str(error).split())}; {instead}"]
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
        self._dreamt, self._start = Moment(first[-1], self._dream.camera), (at.frame, first[-1])
        self._judge_anew()

    def _judge_anew(self) -> None:
        """The dream's next frames do not follow from those that were judged."""
        self._meter.begin_dream(*self._start, self._dreamt.pose)

    def _end_dream(self) -> None:
        if self._dream is not None:
            self._dream.close()
        self._dream = None

    def _begin_view(self) -> Frames:
        """Shows the frame that the world stands at, which another view may begin in."""
        self._moments.clear()
        if self._view != "both":
            self._moments.append(self._latest if self._view == "game" else self._dreamt)
        return self.shown


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
