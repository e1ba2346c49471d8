"""Doom's levels as a World: the Freedoom maps that come with the `vizdoom` package, empty of items and, unless asked
for, of monsters.

One tic of the game is one frame.  The game draws 320x180, in planes; the middle 315x180 is scaled down to 224x128 with
a Gaussian filter, so that textures shimmer little.  Doom is dark: its `r_visibility` is raised so that light reaches
further, and its palette gets a fixed gamma, which keeps the shading of the rooms.  Frames lie in memory as planes
(their strides show it): they are encoded without being taken apart again.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import weakref
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import Interpolation, VideoReformatter

from reverie.errors import WorldError
from reverie.types import Action, ActionSpace, Frames, Geometry, Pose
from reverie.worlds import guardian
from reverie_worlds.doom.level import Level, Sight, read_level
from reverie_worlds.doom.wad import Wad, write_palette
from reverie_worlds.geometry import check_pose, sample_cells

RESOLUTION = (128, 224)
"""(H, W) of the frames."""

FOV_DEG = 105.4
"""Horizontal field of view of the 224 px frame, degrees: 2 atan(4/3 * 315/320)."""

DRAWN = (180, 320)
"""(H, W) that the game draws."""
CROP = slice(2, 317)
"""The columns of it that are shown: 315, for the shape of the frame."""

PIXEL_ASPECT = 1.2
"""Doom was made for screens whose pixels are so much taller than wide: what is as tall as wide is drawn taller."""

UNIT_M = 1 / 32
"""Metres of a map unit."""

DEPTH_BUFFER_UNITS, DEPTH_BUFFER_OFFSET = 7.15, 1.4
"""Map units of one step of the game's depth buffer, and where in a step its depth lies."""

GAMMA = 1.4
VISIBILITY = 30
WALK_SPEED = 36.0
STRAFE_SPEED = 32.0
"""Speed that a held key requests (the game's own walk is 25, its run 50): 12 and 10.7 map units a frame at full
speed."""

DEPTH_SHAPE = (8, 56)
DEPTH_UNITS = 10.0
"""Map units of one step of the depth map."""
LOOK_EVERY_FRAMES = 5
"""Frames between updates of the depth map and the hints; in between they are the last ones."""

USE_UNITS = 64.0
"""Reach of the player's hand, map units."""
OPEN_FRAMES = 120
"""For so long after a use doors are taken to be open; the game closes most after 150."""

WAKE_TICS = 16
"""A level ignores the player for its first tics."""

SETTLE_TICS = 8
MAX_LAND_TICS = 40
"""Tics until a teleported player stands on the ground, at most."""

STAND_REACH_M, STAND_HEIGHT_M, STAND_STILL_M = 1.0, 4.0, 0.005
"""Largest offset from a requested position, over the ground and up or down, and the movement that counts as rest; m."""

MAX_SPAWN_TRIES = 24
OPEN_DEPTH = 12
"""A spawn spot needs at least this free distance in the middle, in the depth map's units (about 10 map units each)."""

MOVES = ("forward", "back", "left", "right")
ACTION_SPACE = ActionSpace((*MOVES, "attack", "use"), mouse=True)
WALK_SPACE = ActionSpace(MOVES, mouse=True)
"""Action space without hands, in which nano was trained."""

READY_TICS = 40
"""Tics needed to put the weapon away and have the other one up."""

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
    monsters: with the levels' monsters; the player cannot be hurt.  hands: hold a chaingun, which fires in the very
    frame that `attack` is pressed, and open doors with `use`; without, only walk and look, as nano's recordings do.
    Raises WorldError if the package is missing or the game does not start.
    """

    fov_deg = FOV_DEG
    pixel_aspect = PIXEL_ASPECT
    pitch_is_shear = True
    resolution = RESOLUTION
    block_frames = 1

    def __init__(
        self, maps: tuple[str, ...] | None = None, heldout: bool = False, monsters: bool = False, hands: bool = True
    ) -> None:
        self.maps = choose_maps(tuple(maps) if maps is not None else None, heldout)
        self.heldout = heldout
        self.monsters = monsters
        self.hands = hands
        self.action_space = ACTION_SPACE if hands else WALK_SPACE
        self.map = ""
        self.finished = False
        self._seed = 0
        self._is_explored = False
        self._games: dict[str, Any] = {}  # one for each WAD: starting one takes longer than opening a level
        self._game: Any = None
        self._state: Any = None
        self._steps = 0
        self._open_until = 0
        self._level: Level | None = None
        self._seen: tuple[Sight, npt.NDArray[np.uint8]] | None = None
        self._folder = guardian.make_folder("reverie-vizdoom-")
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._scaler = Scaler()
        _import_vizdoom()

    @property
    def episode_info(self) -> dict[str, Any]:
        return {"monsters": self.monsters, "hands": self.hands}

    @property
    def pose(self) -> Pose:
        """The camera's pose `(6,)`, see `reverie.types.POSE_NAMES`; a metre is 32 map units.

        The game draws a pitch as a shift of the image, not as a rotation: see `pitch_is_shear`.
        """
        x, y, z, angle, pitch = self._now().game_variables  # the angle counts from east to the left
        up = -((pitch + 180.0) % 360.0 - 180.0)
        return np.array([x * UNIT_M, y * UNIT_M, z * UNIT_M, (90.0 - angle) % 360.0, up, 0.0], np.float32)

    def geometry(self) -> Geometry:
        """Reads the depth buffer of the last frame, in steps of 7.15 map units; the body is the weapon, at depth 0."""
        steps = sample_cells(self._now().depth_buffer[:, CROP]).astype(np.float32)
        depth = (steps + DEPTH_BUFFER_OFFSET) * (DEPTH_BUFFER_UNITS * UNIT_M)
        return Geometry(depth, steps == 0)

    @property
    def depth(self) -> npt.NDArray[np.uint8] | None:
        """Distance map for policies: the walls that stop a player, `(8, 56)` uint8, about 10 map units each.

        All rows are alike.  None in the scenarios.  Updated every LOOK_EVERY_FRAMES, so that it may be that old.
        """
        sight = self._look()
        return None if sight is None else sight[1]

    @property
    def hints(self) -> Mapping[str, float]:
        """`use_units`: how far the nearest door, lift or switch in view is, in map units; infinity if there is none.
        `use_deg`: how far to the right it is, in degrees.  `view_depth`: how far the walls are that fill the middle of
        the view, in units of the depth map.  Empty in the scenarios.
        """
        if (found := self._look()) is None:
            return {}
        sight = found[0]
        direction = math.degrees(math.atan(sight.use_slope))
        return {"use_units": sight.use, "use_deg": direction, "view_depth": sight.view / DEPTH_UNITS}

    def look_from(self, pose: Pose) -> tuple[Frames, Geometry]:
        """Shows the level from `pose`: the frame `(1, H, W, 3)` and its geometry.

        The player is carried there and stands on the floor: the world's `pose` holds the height.  Where nobody can
        stand, it stays that of before.  The episode does not go on from there: call `reset` before the next `step`.
        """
        check_pose(pose)
        if self._game is None:
            raise WorldError("look_from before reset; call reset(seed) first")
        self._is_explored = True
        self._carry(pose)
        return self._picture(), self.geometry()

    def stand(self, pose: Pose) -> Frames:
        """Puts the player at `pose`, on the floor; `(1, H, W, 3)`.  See `types.PlaceableWorld`."""
        x, y, z, _, _, _ = check_pose(pose)
        if self._game is None or self._is_explored:
            raise WorldError("stand before reset, or after look_from; call reset(seed) first")
        before, self._seen = self.pose, None
        for _ in range(MAX_LAND_TICS):  # until the player is at rest: a carried one keeps its speed
            was = self.pose
            self._tic()
            if np.abs(self.pose - was).max() < STAND_STILL_M:
                break
        self._carry(pose)
        now = self.pose
        if math.dist(now[:2], (x, y)) > STAND_REACH_M or abs(float(now[2]) - z) > STAND_HEIGHT_M:
            self._carry(before)
            raise WorldError(f"nobody can stand at {x:.1f}, {y:.1f} in {self.map}")
        return self._picture()

    def _carry(self, pose: Pose) -> None:
        """Carry the player somewhere, and wait until it stands."""
        x, y, _, yaw, pitch, _ = (float(number) for number in pose)
        self._command(f"warp {x / UNIT_M:.3f} {y / UNIT_M:.3f}")
        _, _, _, now_yaw, now_pitch, _ = self.pose
        self._tic(yaw=float((yaw - now_yaw + 180.0) % 360.0 - 180.0), pitch=float(pitch - now_pitch))
        for _ in range(MAX_LAND_TICS):
            height = float(self.pose[2])
            self._tic()
            if float(self.pose[2]) == height:
                break

    def standpoints(self, step_m: float, reach_m: float) -> npt.NDArray[np.float32]:
        """Places on a grid that one can walk to from the player's, `(n, 3)` metres, at the height of the eyes here.

        Empty in the scenarios, whose maps are not read.
        """
        if self._game is None:
            raise WorldError("standpoints before reset; call reset(seed) first")
        if not (step_m > 0 and reach_m >= 0):
            raise WorldError(f"standpoints need a positive step and a reach, got {step_m:g} and {reach_m:g} m")
        if self._level is None:
            return np.zeros((0, 3), np.float32)
        x, y, z, _, _ = self._now().game_variables
        places = self._level.free_places(x, y, step_m / UNIT_M, reach_m / UNIT_M)
        return np.column_stack([places, np.full(len(places), z)]).astype(np.float32) * np.float32(UNIT_M)

    def reset(self, seed: int) -> Frames:
        """Go to the map, spot and direction that belong to `seed`; `(1, H, W, 3)`."""
        rng = np.random.default_rng(seed)
        self._seed = seed
        self._steps, self._seen, self._open_until = 0, None, 0
        self.finished = self._is_explored = False
        self._open_map(self.maps[int(rng.integers(len(self.maps)))])
        self._spawn(rng)
        return self._picture()

    def step(self, action: Action) -> Frames:
        """One frame under `action`, `(1, H, W, 3)`.  At the level's end sets `finished` and starts the walk again."""
        self.action_space.check(action)
        if self._game is None:
            raise WorldError("step before reset; call reset(seed) first")
        if self._is_explored:
            raise WorldError("step after look_from; call reset(seed) first")
        keys, (pitch, yaw) = action.keys, action.mouse
        self._steps += 1
        if "use" in keys and self.hints.get("use_units", math.inf) < USE_UNITS:
            self._open_until = self._steps + OPEN_FRAMES
        if self._steps % LOOK_EVERY_FRAMES == 0:
            self._seen = None
        self._tic(
            WALK_SPEED * (("forward" in keys) - ("back" in keys)),
            STRAFE_SPEED * (("right" in keys) - ("left" in keys)),
            yaw,
            pitch,
            attack="attack" in keys,
            use="use" in keys,
        )
        if self._game.is_episode_finished():
            picture = self.reset(self._seed)
            self.finished = True
            return picture
        return self._picture()

    def close(self) -> None:
        """End the game's process; safe to call twice."""
        for game in self._games.values():
            game.close()
        self._games, self._game, self._state = {}, None, None
        shutil.rmtree(self._folder, ignore_errors=True)
        guardian.release(self._folder)

    def _now(self) -> Any:
        """Current state of the game; fetched once a tic."""
        if self._state is None:
            with self._guarded():
                self._state = self._game.get_state()
        return self._state

    def _tic(
        self,
        forward: float = 0.0,
        right: float = 0.0,
        yaw: float = 0.0,
        pitch: float = 0.0,
        attack: bool = False,
        use: bool = False,
    ) -> None:
        self._state = None
        with self._guarded():
            self._game.make_action([forward, right, yaw, pitch, float(attack), float(use)], 1)

    def _command(self, text: str) -> None:
        """Type into the game's console; takes effect with the next tic."""
        with self._guarded():
            self._game.send_game_command(text)

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """The game is another process and may die at any time: then raise, and let the next reset start it again."""
        try:
            yield
        except Exception as error:
            self._games.pop(self.map.split("/")[0], None)
            raise WorldError(f"VizDoom stopped on {self.map}: {error}; reset to start it again") from error

    def _picture(self) -> Frames:
        return self._scaler.scale(self._now().screen_buffer)[None]

    def _open_map(self, name: str) -> None:
        wad, level = name.split("/")
        self.map = name
        if wad not in self._games:
            self._games[wad] = self._started(wad, level)
        self._game = self._games[wad]
        with self._guarded():
            self._game.set_doom_map(level)
            self._game.set_seed(self._seed & 0x7FFFFFFF)
            self._game.new_episode()
        self._state = None

    def _started(self, wad: str, level: str) -> Any:
        vizdoom = _import_vizdoom()
        folder = self._folder / wad
        folder.mkdir(parents=True, exist_ok=True)
        game = _configure(vizdoom, wad, level, folder, monsters=self.monsters, hands=self.hands)
        try:
            guardian.guard(self._folder)
            with contextlib.chdir(folder):  # the game litters the folder it is started in
                game.init()
            guardian.guard(self._folder)
        except Exception as error:
            raise WorldError(f"VizDoom did not start {wad}/{level}: {error}; try reinstalling vizdoom") from error
        return game

    def _spawn(self, rng: np.random.Generator) -> None:
        """Clear the level of items and stand the player on a spot with room in front."""
        self._level = _level_of(self.map)
        spots = self._level.spots if self._level is not None else []
        for command in ("god", f"r_visibility {VISIBILITY}", *(f"remove {name}" for name in _PICKUPS)):
            self._command(command)
        if self.hands:
            for command in ("give keys", "give chaingun"):
                self._command(command)
            self._tic()  # only what is held already can be used
            self._command("use chaingun")
        for _ in range(READY_TICS if self.hands else WAKE_TICS):
            self._tic()
        order = rng.permutation(len(spots))[:MAX_SPAWN_TRIES]
        self._tic(yaw=float(rng.uniform(-180, 180)))
        for i in order:
            self._command(f"warp {spots[i][0]} {spots[i][1]}")
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
            self._seen = None
            depth = self.depth
            if depth is None or float(np.median(depth[:, 18:38])) >= OPEN_DEPTH:
                return True
            self._tic(yaw=60.0)
        return False

    def _look(self) -> tuple[Sight, npt.NDArray[np.uint8]] | None:
        """Casts the level's map from the player, once a frame: the distances, and the depth map made of them."""
        if self._seen is None and self._level is not None:
            x, y, _, angle, _ = self._now().game_variables
            sight = self._level.look(x, y, -angle % 360.0, _SLOPES, self._steps < self._open_until)
            columns = np.repeat(sight.free / DEPTH_UNITS, 2).astype(np.uint8)
            self._seen = sight, np.broadcast_to(columns, DEPTH_SHAPE)
        return self._seen


class Scaler:
    """Scales what the game draws to what is shown, plane by plane, in buffers of its own."""

    def __init__(self) -> None:
        height, width = DRAWN[0], CROP.stop - CROP.start
        # Three planes of one size are called yuv444p, whatever they hold; nothing converts colours here.
        self._drawn = av.VideoFrame(width, height, "yuv444p")
        self._planes = [_pixels(plane, width) for plane in self._drawn.planes]
        self._scaler = VideoReformatter()

    def scale(self, screen: npt.NDArray[np.uint8]) -> Frames:
        """`(3, 180, 320)` -> `(H, W, 3)`, a view of fresh memory that holds the planes R, G, B one after the other."""
        for plane, drawn in zip(self._planes, screen, strict=True):
            plane[:] = drawn[:, CROP]
        height, width = RESOLUTION
        scaled = self._scaler.reformat(
            self._drawn, width=width, height=height, interpolation=Interpolation.GAUSS, threads=1
        )
        out = np.empty((3, height, width), np.uint8)
        for target, plane in zip(out, scaled.planes, strict=True):
            target[:] = _pixels(plane, width)
        return out.transpose(1, 2, 0)


def _pixels(plane: Any, width: int) -> npt.NDArray[np.uint8]:
    """The memory of an av plane, without what pads its rows."""
    return np.frombuffer(plane, np.uint8).reshape(plane.height, -1)[:, :width]


_SLOPES = ((np.arange(28) - 13.5) / 14 * np.tan(np.radians(FOV_DEG / 2))).astype(np.float32)
"""Slopes of the depth map's rays from straight ahead, right positive; each fills two columns."""


@cache
def _wad_of(name: str) -> Wad:
    return Wad(Path(_import_vizdoom().__file__).parent / f"{name}.wad")


@cache
def _level_of(name: str) -> Level | None:
    """The level's file, read once; the scenarios are in another format, which is not read."""
    wad, level = name.split("/")
    return None if name in SCENARIO_MAPS else read_level(_wad_of(wad), level)


def _import_vizdoom() -> Any:
    with contextlib.suppress(ImportError):
        import vizdoom

        return vizdoom
    raise WorldError('the package vizdoom is not installed; pip install "reverie-world[worlds]"')


def _configure(vizdoom: Any, wad: str, level: str, folder: Path, *, monsters: bool, hands: bool) -> Any:
    """A game of `wad` that shows the level and perhaps a weapon: no messages, no flashes of the screen."""
    home = Path(vizdoom.__file__).parent
    game = vizdoom.DoomGame()
    game.set_doom_config_path(str(folder / "vizdoom.ini"))
    base = wad if wad.startswith("freedoom") else "freedoom2"
    game.set_doom_game_path(str(home / f"{base}.wad"))
    if base != wad:
        game.set_doom_scenario_path(str(home / "scenarios" / f"{wad}.wad"))
    palette = folder / f"{base}-bright.wad"
    write_palette(palette, _wad_of(base), GAMMA)
    game.set_doom_map(level)
    game.set_mode(vizdoom.Mode.PLAYER)
    game.set_screen_resolution(vizdoom.ScreenResolution.RES_320X180)
    game.set_screen_format(vizdoom.ScreenFormat.CRCGCB)
    game.set_depth_buffer_enabled(True)
    game.set_window_visible(False)
    game.set_sound_enabled(False)
    game.set_episode_timeout(0)
    for part in ("hud", "crosshair", "messages", "screen_flashes", "decals", "particles"):
        getattr(game, f"set_render_{part}")(False)
    game.set_render_weapon(hands)
    axes = ("MOVE_FORWARD_BACKWARD_DELTA", "MOVE_LEFT_RIGHT_DELTA", "TURN_LEFT_RIGHT_DELTA", "LOOK_UP_DOWN_DELTA")
    for name in axes:
        game.add_available_button(getattr(vizdoom.Button, name))
        game.set_button_max_value(getattr(vizdoom.Button, name), 0)
    for name in ("ATTACK", "USE"):
        game.add_available_button(getattr(vizdoom.Button, name))
    for name in ("POSITION_X", "POSITION_Y", "POSITION_Z", "ANGLE", "PITCH"):
        game.add_available_game_variable(getattr(vizdoom.GameVariable, f"CAMERA_{name}"))
    game.add_game_args(f"-file {palette} +freelook 1 +sv_cheats 1 +movebob 0")
    game.add_game_args("+pickup_fade_scalar 0 +cl_showsecretmessage 0 +con_midtime 0")
    if hands:
        game.add_game_args("+sv_infiniteammo 1 +neverswitchonpickup 1")
    if not monsters:
        game.add_game_args("-nomonsters")
    return game
