"""A source of worlds that are a real game and the dream of it: `reverie play --world city --model nano`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from reverie.data.facts import WorldFacts
from reverie.errors import WorldError
from reverie.serve.protocol import VIEWS
from reverie.serve.sources import GameSource, ModelSource, Picture, Progress, WorldSpec
from reverie.serve.swap import Dream, Moment, SwapWorld
from reverie.types import Action, Camera, Frames, World

if TYPE_CHECKING:
    from reverie.engine.loading.scenes import LoadedScene
    from reverie.engine.sessions.session_file import SessionFile
    from reverie.engine.sessions.timeline import Timeline

GAME_SHARE = 0.15
"""Share of the warm-up's progress bar that the game takes."""


class SwapSource:
    """Worlds that begin in `game` and show, when asked, what `model` dreams of it.

    A dream opens in the bundled scene that the game's frame lies in, or on the frame alone.
    """

    def __init__(self, game: GameSource, model: ModelSource) -> None:
        self._game, self._model = game, model
        self._spec: WorldSpec | None = None
        self._dreams: WorldSpec | None = None
        self._scenes: dict[Path, LoadedScene] = {}
        self._camera: tuple[float, float] | None = None

    @property
    def name(self) -> str:
        return f"{self._game.name} and {self._model.name}"

    def load(self, progress: Progress) -> WorldSpec:
        """Raises WorldError for a model that does not have the game's resolution or its keys."""
        game = self._game.load(lambda share, text: progress(GAME_SHARE * share, text))
        dreams = self._model.load(lambda share, text: progress(GAME_SHARE + (1 - GAME_SHARE) * share, text))
        if game.resolution != dreams.resolution:
            (height, width), (own_height, own_width) = game.resolution, dreams.resolution
            raise WorldError(
                f"{game.name} shows {width}x{height} pixels, {dreams.name} {own_width}x{own_height}; play one of them"
            )
        if unknown := sorted(set(game.action_space.keys) - set(dreams.action_space.keys)):
            raise WorldError(f"{dreams.name} does not know the key {unknown[0]!r} of {game.name}; play one of them")
        from reverie.engine.localise import scenes_of

        self._scenes = scenes_of(self._model.engine, game.name)
        self._dreams = dreams
        self._spec = replace(
            game,
            block_frames=dreams.block_frames,
            rewind_s=dreams.rewind_s,
            views=VIEWS,
            passes=dreams.passes,
            own_passes=dreams.own_passes,
        )
        return self._spec

    def open(self, picture: Picture | None, seed: int) -> SwapWorld:
        spec, dreams = self._spec, self._dreams
        if spec is None or dreams is None:
            raise WorldError(f"{self.name} is not loaded yet; call load first")
        game = self._game.open(picture, seed)
        facts = WorldFacts(game).camera
        self._camera = (facts["fov_deg"], facts.get("pixel_aspect", 1.0)) if "fov_deg" in facts else None
        return SwapWorld(
            game,
            self.open_dream,
            name=spec.name,
            dream_name=dreams.name,
            block_frames=dreams.block_frames,
            passes=dreams.own_passes,
            options=self._game.options,
        )

    def open_file(self, file: SessionFile) -> tuple[Timeline, list[tuple[Action, ...]], list[str]]:
        """The dream of a saved session, see `HasFiles`."""
        return self._model.open_file(file)

    def open_beside(
        self, file: SessionFile, session: Timeline, current: World | None = None
    ) -> tuple[SwapWorld, list[str]]:
        """The game beside it, see `HasGame`.  A current one of the same episode goes on: beginning takes seconds."""
        seed = file.seed if file.game is None else file.game.seed
        world = current if isinstance(current, SwapWorld) else self.open(None, seed)
        try:
            if world is not current or (world.seed, world.passes) != (seed, session.passes):
                world.reset(seed, session.passes)
            real, first = session.session.picture[0], session.session.first_frame[0]
            return world, world.take_up(session, real, first, file.game)
        except Exception:
            if world is not current:
                world.close()
            raise

    def open_dream(self, at: Moment, seed: int, passes: int | None = None) -> tuple[Dream, Frames]:
        """A session on a frame of the game, at the game's camera."""
        from reverie.engine.localise import find_scene_at

        engine, camera, scene = self._model.engine, None, None
        if at.pose is not None and self._camera is not None:
            camera = Camera(at.pose, *self._camera)
            scene = find_scene_at(engine, self._scenes, at.frame, camera)
        session = engine.open(at.frame, seed, scene=scene, camera=camera, passes=passes)
        return self._model.timeline(session), session.first_frame

    def close(self) -> None:
        self._game.close()
        self._model.close()
