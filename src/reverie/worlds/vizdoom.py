"""Doom's levels as a World: the Freedoom maps that come with the `vizdoom` package, empty of monsters and items.

One tic of the game is one frame.  The game draws 512x288; the middle 504x288 is averaged down to 224x128, so that
textures shimmer little.  Doom is dark: its `r_visibility` is raised so that light reaches further, and the picture gets
a fixed gamma, which keeps the shading of the rooms.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from reverie.errors import WorldError
from reverie.types import Action, ActionSpace, Frames

RESOLUTION = (128, 224)
"""(H, W) of the pictures."""

FOV_DEG = 105.4
"""Horizontal field of view of the 224 px picture, degrees: 2 atan(4/3 * 504/512)."""

GAMMA = 1.4
VISIBILITY = 30
WALK_SPEED = 36.0
STRAFE_SPEED = 32.0
"""What a held key asks of the game (its own walk is 25, its run 50): 12 and 10.7 map units a frame at full speed."""

DEPTH_SHAPE = (32, 56)
WAKE_TICS = 16
"""A level ignores the player for its first tics."""

SETTLE_TICS = 8
MAX_SPAWN_TRIES = 24
OPEN_DEPTH = 12
"""A spawn spot must see at least this far in the middle, in the depth picture's units (about 10 map units each)."""

ACTION_SPACE = ActionSpace(("forward", "back", "left", "right"), mouse=True)

_PICKUPS = (
    "ArmorBonus", "HealthBonus", "Stimpack", "Medikit", "GreenArmor", "BlueArmor", "Soulsphere", "Megasphere",
    "Berserk", "BlurSphere", "RadSuit", "Infrared", "Allmap", "InvulnerabilitySphere", "Backpack", "Clip", "ClipBox",
    "Shell", "ShellBox", "RocketAmmo", "RocketBox", "Cell", "CellPack", "Chainsaw", "Shotgun", "SuperShotgun",
    "Chaingun", "RocketLauncher", "PlasmaRifle", "BFG9000", "BlueCard", "RedCard", "YellowCard", "BlueSkull",
    "RedSkull", "YellowSkull",
)  # fmt: skip

FREEDOOM1 = tuple(f"freedoom1/E{e}M{m}" for e in range(1, 5) for m in range(1, 10))
FREEDOOM2 = tuple(f"freedoom2/MAP{m:02d}" for m in range(1, 33))
HELDOUT_MAPS = FREEDOOM2[24:] + FREEDOOM1[27:]
"""Never recorded for training: freedoom2 MAP25 to MAP32 and freedoom1's episode 4."""

SCENARIO_MAPS = ("my_way_home/MAP01", "health_gathering_supreme/MAP01")
TRAIN_MAPS = FREEDOOM2[:24] + FREEDOOM1[:27]
ALL_MAPS = FREEDOOM2 + FREEDOOM1 + SCENARIO_MAPS


def choose_maps(maps: tuple[str, ...] | None, heldout: bool) -> tuple[str, ...]:
    """The maps to play; a map of the other split is refused.  Raises WorldError for unknown and refused maps."""
    allowed = HELDOUT_MAPS if heldout else TRAIN_MAPS + SCENARIO_MAPS
    if maps is None:
        return HELDOUT_MAPS if heldout else TRAIN_MAPS
    if not maps:
        raise WorldError("vizdoom needs at least one map, got none; leave maps out to play them all")
    for name in maps:
        if name not in ALL_MAPS:
            raise WorldError(f"unknown VizDoom map {name!r}; maps are named like freedoom2/MAP01, freedoom1/E1M1")
        if name not in allowed:
            split = "training" if heldout else "held-out"
            raise WorldError(f"{name} is a {split} map; say heldout={not heldout} to play it")
    return tuple(maps)


class VizDoomWorld:
    """A walk through Doom levels.  `reset(seed)` alone decides the map, the spot and the direction.

    maps: names such as `freedoom2/MAP01`; None for all of the split.  heldout: play only the held-out maps.
    Raises WorldError if the package is missing or the game does not start.
    """

    fov_deg = FOV_DEG
    action_space = ACTION_SPACE
    resolution = RESOLUTION
    block_frames = 1

    def __init__(self, maps: tuple[str, ...] | None = None, heldout: bool = False) -> None:
        self.maps = choose_maps(tuple(maps) if maps is not None else None, heldout)
        self.heldout = heldout
        self.map = ""
        self.finished = False
        self._seed = 0
        self._wad = ""
        self._game: Any = None
        self._state: Any = None
        self._folder = Path(tempfile.mkdtemp(prefix="reverie-vizdoom-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._table = (255.0 * (np.arange(256) / 255.0) ** (1.0 / GAMMA) + 0.5).astype(np.uint8)
        _import_vizdoom()

    @property
    def pose(self) -> npt.NDArray[np.float32]:
        """(x, y, z, yaw, pitch) float32: map units and degrees; yaw grows to the right, pitch upwards."""
        x, y, z, angle, pitch = self._now().game_variables
        return np.array([x, y, z, (-angle) % 360.0, -((pitch + 180.0) % 360.0 - 180.0)], np.float32)

    @property
    def depth(self) -> npt.NDArray[np.uint8]:
        """How far the walls are, `(32, 56)` uint8, about 10 map units each: what a policy steers by."""
        whole = self._now().depth_buffer
        return whole[4::9, 8:504:9][: DEPTH_SHAPE[0], : DEPTH_SHAPE[1]]

    def reset(self, seed: int) -> Frames:
        """Go to the map, spot and direction that belong to `seed`; `(1, H, W, 3)`."""
        rng = np.random.default_rng(seed)
        self._seed = seed
        self.finished = False
        self._open_map(self.maps[int(rng.integers(len(self.maps)))])
        self._spawn(rng)
        return self._picture()

    def step(self, action: Action) -> Frames:
        """One frame under `action`, `(1, H, W, 3)`.  At the level's end sets `finished` and starts the walk again."""
        self.action_space.check(action)
        if self._game is None:
            raise WorldError("step before reset; call reset(seed) first")
        keys, (pitch, yaw) = action.keys, action.mouse
        self._tic(
            WALK_SPEED * (("forward" in keys) - ("back" in keys)),
            STRAFE_SPEED * (("right" in keys) - ("left" in keys)),
            yaw,
            pitch,
        )
        if self._game.is_episode_finished():
            picture = self.reset(self._seed)
            self.finished = True
            return picture
        return self._picture()

    def close(self) -> None:
        """End the game's process; safe to call twice."""
        if self._game is not None:
            self._game.close()
        self._game, self._state, self._wad = None, None, ""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _now(self) -> Any:
        """What the game shows now; fetched once a tic."""
        if self._state is None:
            self._state = self._game.get_state()
        return self._state

    def _tic(self, forward: float = 0.0, right: float = 0.0, yaw: float = 0.0, pitch: float = 0.0) -> None:
        self._state = None
        with self._guarded():
            self._game.make_action([forward, right, yaw, pitch], 1)

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """The game is another process and may die at any time: then say so, and let the next reset start it again."""
        try:
            yield
        except Exception as error:
            self._wad = ""
            raise WorldError(f"VizDoom stopped on {self.map}: {error}; reset to start it again") from error

    def _picture(self) -> Frames:
        screen = self._now().screen_buffer[:, 4:508]
        height, width = self.resolution
        small = np.asarray(Image.fromarray(screen).resize((width, height), Image.Resampling.BOX))
        return self._table.take(small)[None]

    def _open_map(self, name: str) -> None:
        wad, level = name.split("/")
        if wad != self._wad:
            self._start(wad, level)
        self.map = name
        with self._guarded():
            self._game.set_doom_map(level)
            self._game.set_seed(self._seed & 0x7FFFFFFF)
            self._game.new_episode()
        self._state = None

    def _start(self, wad: str, level: str) -> None:
        if self._game is not None:
            self._game.close()
        vizdoom = _import_vizdoom()
        self._game, self._wad = None, ""
        game = _configure(vizdoom, wad, level, self._folder)
        try:
            with contextlib.chdir(self._folder):  # the game litters the folder it is started in
                game.init()
        except Exception as error:
            raise WorldError(f"VizDoom did not start {wad}/{level}: {error}; try reinstalling vizdoom") from error
        self._game, self._wad = game, wad

    def _spawn(self, rng: np.random.Generator) -> None:
        """Clear the level of items and stand the player on a spot with room in front."""
        for command in ("god", f"r_visibility {VISIBILITY}"):
            self._game.send_game_command(command)
        things = {(o.name, o.position_x, o.position_y) for o in self._now().objects}
        spots = sorted({(x, y) for name, x, y in things if name in _PICKUPS})
        for name in sorted({name for name, _, _ in things if name in _PICKUPS}):
            self._game.send_game_command(f"remove {name}")
        for _ in range(WAKE_TICS):
            self._tic()
        order = rng.permutation(len(spots))[:MAX_SPAWN_TRIES]
        self._tic(yaw=float(rng.uniform(-180, 180)))
        for i in order:
            self._game.send_game_command(f"warp {spots[i][0]:.0f} {spots[i][1]:.0f}")
            self._tic(yaw=float(rng.uniform(-180, 180)))
            if self._face_open_space():
                break
        else:
            self._face_open_space()
        for _ in range(SETTLE_TICS):
            self._tic()

    def _face_open_space(self) -> bool:
        """Turn by sixths of a circle until there is room ahead; False where there is none."""
        for _ in range(6):
            if float(np.median(self.depth[12:20, 18:38])) >= OPEN_DEPTH:
                return True
            self._tic(yaw=60.0)
        return False


def _import_vizdoom() -> Any:
    with contextlib.suppress(ImportError):
        import vizdoom

        return vizdoom
    raise WorldError('the package vizdoom is not installed; pip install "reverie[worlds]"')


def _configure(vizdoom: Any, wad: str, level: str, folder: Path) -> Any:
    """A game of `wad` that shows nothing but the level: no hands, no messages, no flashes."""
    home = Path(vizdoom.__file__).parent
    game = vizdoom.DoomGame()
    game.set_doom_config_path(str(folder / "vizdoom.ini"))
    if wad.startswith("freedoom"):
        game.set_doom_game_path(str(home / f"{wad}.wad"))
    else:
        game.set_doom_game_path(str(home / "freedoom2.wad"))
        game.set_doom_scenario_path(str(home / "scenarios" / f"{wad}.wad"))
    game.set_doom_map(level)
    game.set_mode(vizdoom.Mode.PLAYER)
    game.set_screen_resolution(vizdoom.ScreenResolution.RES_512X288)
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    game.set_depth_buffer_enabled(True)
    game.set_objects_info_enabled(True)
    game.set_window_visible(False)
    game.set_sound_enabled(False)
    game.set_episode_timeout(0)
    for part in ("hud", "crosshair", "weapon", "messages", "screen_flashes", "decals", "particles"):
        getattr(game, f"set_render_{part}")(False)
    axes = ("MOVE_FORWARD_BACKWARD_DELTA", "MOVE_LEFT_RIGHT_DELTA", "TURN_LEFT_RIGHT_DELTA", "LOOK_UP_DOWN_DELTA")
    for name in axes:
        game.add_available_button(getattr(vizdoom.Button, name))
        game.set_button_max_value(getattr(vizdoom.Button, name), 0)
    for name in ("POSITION_X", "POSITION_Y", "POSITION_Z", "ANGLE", "PITCH"):
        game.add_available_game_variable(getattr(vizdoom.GameVariable, name))
    game.add_game_args("+freelook 1 -nomonsters +sv_cheats 1 +movebob 0")
    game.add_game_args("+pickup_fade_scalar 0 +cl_showsecretmessage 0 +con_midtime 0")
    return game
