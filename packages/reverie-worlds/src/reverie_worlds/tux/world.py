"""Extreme Tux Racer as a World: a penguin that slides down snowy courses, seen from behind.

The game runs under the lock-step shim and is started anew for each episode (half a second of one core): so an episode
follows from its seed bit for bit.  Its menu is driven with the keyboard, and whether it obeyed is checked by
where the camera stands at the start, for each course begins somewhere else.

A penguin never stands still: brakes leave it 1.4 m/s.  `trick` does something in the air only, with left or right
(a roll), forward or back (a flip).  `jump` charges for up to a second while it is held and jumps when it is let go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from reverie.errors import WorldError
from reverie.types import GEOMETRY_SHAPE, Action, ActionSpace, Frames, Geometry, Pose
from reverie.worlds import guardian
from reverie_worlds.geometry import camera_pose, cell_points, linear_depth, sample_cells
from reverie_worlds.lockstep import LockstepGame
from reverie_worlds.shrink import Shrinker
from reverie_worlds.tux.courses import WAY_ROW, Course, read_courses

RESOLUTION = (128, 224)
"""(H, W) of the frames."""

DRAWN = (192, 336)
"""(H, W) that the game draws, for smooth edges."""

FOV_VERTICAL_DEG = 60
FOV_DEG = 90.6
"""Horizontal field of view, degrees."""

ACTION_SPACE = ActionSpace(("forward", "back", "left", "right", "jump", "trick"), mouse=False)

KEYS = {"forward": "Up", "back": "Down", "left": "Left", "right": "Right", "jump": "space", "trick": "t"}
"""The X11 key behind each of ours."""

HELDOUT_MAPS = (
    "default/bumpy_ride",
    "default/secret_valleys",
    "default/milos_castle",
    "extras/rock_n_roll",
    "extras/twists",
)
"""Never recorded for training."""

LIGHTS = ("sunny", "cloudy", "evening", "night")
AMOUNTS = ("none", "a little", "some", "a lot")
"""Amounts of snow and of wind, in the menu's order."""

LIGHT_CHANCES = (0.4, 0.22, 0.22, 0.16)
SNOW_CHANCES = (0.6, 0.16, 0.14, 0.1)
WIND_CHANCES = (0.7, 0.15, 0.1, 0.05)

CAMERA_DISTANCE = 4.0
TUX_BELOW_VIEW_DEG = 20.0
"""Position of the penguin relative to the camera: its distance, and its angle below the middle of the frame."""

TUX_FROM_CAMERA, TUX_RADIUS_M = (0.0, -1.2, 3.55), 0.85
"""The ball that holds the penguin: its centre right, up and ahead of the camera, metres."""

MIN_SNOW_CELLS = 20
SNOW_RADIUS_M, ABOVE_SNOW_M = 1.45, 0.07
"""The snow around the penguin is taken for a plane so far from that centre; what is so high above it is penguin."""

SUNK = 0.22
"""On the snow the penguin is so many metres higher than its position in the frame implies."""

FINISH_MARGIN = 4.0
"""An episode ends so many metres before the finish line, behind which the game takes the controls."""

START_TOLERANCE = 4.0
"""Largest distance, in metres, of the camera from the start of the chosen course."""

MAX_ROLL_FRAMES = 75
"""It may slide so long before the episode begins, until the camera no longer hovers before the edge of the world."""

SENSE_AHEAD = np.arange(2.0, 42.0, 2.0, dtype=np.float32)
SENSE_ASIDE = np.arange(-24.0, 25.0, 1.0, dtype=np.float32)
"""Grid of the snow's height in the hints: metres down the course and to the right."""

SENSE_OBJECTS = 48.0
"""Distance ahead, in metres, up to which hints list trees and fish."""

CLIP_M = 75
"""Draw distance of the snow, metres."""

OPTIONS = {
    "fullscreen": 1,
    "res_type": 0,
    "detail_level": 3,
    "language": "en_GB",
    "sound_volume": 0,
    "music_volume": 0,
    "framerate": 0,
    "forward_clip_distance": CLIP_M,
    "backward_clip_distance": 20,
    "fov": FOV_VERTICAL_DEG,
    "bpp_mode": 0,
    "tree_detail_distance": 20,
    "tux_sphere_divisions": 10,
    "tux_shadow_sphere_div": 3,
    "course_detail_level": 75,
    "use_papercut_font": 1,
    "ice_cursor": 0,
    "full_skybox": 0,
    "use_quad_scale": 0,
}
"""The game's `options.txt`."""

SOUND_OPTIONS = "[general]\ndrivers=null\nfrequency=8000\nchannels=mono\nresampler=point\noutput-limiter=false\n"
"""Null audio output: as cheap as OpenAL can be."""


def choose_maps(maps: tuple[str, ...] | None, heldout: bool, known: tuple[str, ...]) -> tuple[str, ...]:
    """The courses to play, of those `known`; one of the other split is refused.  Raises WorldError."""
    allowed = tuple(name for name in known if (name in HELDOUT_MAPS) == heldout)
    if maps is None:
        return allowed
    if not maps:
        raise WorldError("tux-racer needs at least one course, got none; leave maps out to play them all")
    for name in maps:
        if name not in known:
            raise WorldError(f"unknown course {name!r}; courses are named like default/bunny_hill, extras/tuxway")
        if name not in allowed:
            split = "training" if heldout else "held-out"
            raise WorldError(f"{name} is a {split} course; say heldout={not heldout} to play it")
    return maps


class TuxRacerWorld:
    """A ride down a course.  `reset(seed)` alone decides the course, its mirroring, the light, the snow and the wind.

    maps: names such as `default/bunny_hill`; None for all of the split.  heldout: play only the held-out courses.
    place: a number that decides course, mirroring, light, snow and wind; seeds then decide the player alone.
    Raises WorldError if the game, the shim's tools or a course is missing.
    """

    fov_deg = FOV_DEG
    pixel_aspect = 1.0
    action_space = ACTION_SPACE
    resolution = RESOLUTION
    block_frames = 1

    def __init__(self, maps: tuple[str, ...] | None = None, heldout: bool = False, place: int | None = None) -> None:
        self._courses = read_courses()
        self.maps = choose_maps(None if maps is None else tuple(maps), heldout, tuple(self._courses))
        self.heldout = heldout
        self.place = place
        self.map = ""
        self.finished = False
        self.episode_info: dict[str, Any] = {}
        self._game: LockstepGame | None = None
        self._seed = 0
        self._ride: _Ride | None = None
        self._shrink = Shrinker(RESOLUTION)

    @property
    def pose(self) -> Pose:
        """The camera's pose `(6,)`, see `reverie.types.POSE_NAMES`.

        x points down the course, y to the left of its right edge: straight down the course is a yaw of 90.
        """
        return self._riding().pose

    def geometry(self) -> Geometry:
        """Reads the depth of the last frame; the body is the penguin, a ball that the camera keeps at its distance."""
        self._riding()
        assert self._game is not None
        assert self._game.projection is not None
        depth = linear_depth(sample_cells(self._game.read_depth()), self._game.projection)
        depth[depth > 0.999 * CLIP_M] = np.inf  # the fog behind the last snow that is drawn
        return Geometry(depth, _penguin(depth))

    @property
    def hints(self) -> Mapping[str, Any]:
        """Describes the ride for a policy to steer by, in metres on the course, see `_Ride.hints`."""
        return self._riding().hints()

    def reset(self, seed: int) -> Frames:
        """Start the ride that belongs to `seed`; `(1, H, W, 3)`."""
        self.close()
        self._seed = seed
        self.finished = False
        rng = np.random.default_rng(seed)
        there = rng if self.place is None else np.random.default_rng(self.place)
        self.map = self.maps[int(there.integers(len(self.maps)))]
        course = self._courses[self.map]
        light, snow, wind = (int(there.choice(4, p=chances)) for chances in (LIGHT_CHANCES, SNOW_CHANCES, WIND_CHANCES))
        mirrored = bool(there.integers(2))
        self.episode_info = {
            "light": LIGHTS[light],
            "snow": AMOUNTS[snow],
            "wind": AMOUNTS[wind],
            "mirrored": mirrored,
        }
        if self.place is not None:
            self.episode_info["place"] = self.place
        self._game = _start_game(int(rng.integers(1, 2**31)))
        _choose_in_menu(self._game, course, light, snow, wind, mirrored)
        self._ride = _Ride(course, mirrored)
        frame = _begin_race(self._game)
        self._ride.see(self._game)
        self._ride.check_start()
        for _ in range(MAX_ROLL_FRAMES):
            if self._ride.pose[0] > 0:
                break
            frame = self._game.step()
            self._ride.see(self._game)
        return self._shrink(frame)[None]

    def step(self, action: Action) -> Frames:
        """One frame under `action`, `(1, H, W, 3)`.  At the course's end sets `finished` and starts the ride again."""
        self.action_space.check(action)
        ride = self._riding()
        assert self._game is not None
        frame = self._game.step([KEYS[key] for key in action.keys])
        ride.see(self._game)
        self.finished = ride.along >= ride.course.play_length - FINISH_MARGIN
        if self.finished:
            picture = self.reset(self._seed)
            self.finished = True
            return picture
        return self._shrink(frame)[None]

    def close(self) -> None:
        """End the game; safe to call twice."""
        game, self._game, self._ride = self._game, None, None
        if game is not None:
            game.close()

    def _riding(self) -> _Ride:
        if self._ride is None:
            raise WorldError("step before reset; call reset(seed) first")
        return self._ride


class _Ride:
    """Camera and penguin on a course.  `right` is from the left edge, mirrored courses mirrored."""

    def __init__(self, course: Course, mirrored: bool) -> None:
        self.course = course
        self.mirrored = mirrored
        self.pose: Pose = np.zeros(6, np.float32)
        self.along = self.right = self.up = 0.0
        self._before: npt.NDArray[np.float64] | None = None
        self._velocity = np.zeros(3)

    def see(self, game: LockstepGame) -> None:
        """Take the camera of the frame that the game shows.  Raises WorldError if it is no ride that it shows."""
        rotation = np.eye(3) if game.modelview is None else game.modelview[:3, :3].astype(np.float64)
        if game.modelview is None or np.array_equal(rotation, np.eye(3)):  # letters are drawn unturned
            raise WorldError(f"tux-racer shows no ride on {self.course.map} but a menu; reset to start again")
        x, y, z = -rotation.T @ game.modelview[:3, 3]
        look = -rotation[2]
        yaw = np.degrees(np.arctan2(look[0], -look[2]))
        pitch = np.degrees(np.arcsin(np.clip(look[1], -1, 1)))
        axes = (np.array([-axis[2], -axis[0], axis[1]]) for axis in (rotation[0], rotation[1], look))
        self.pose = camera_pose((-z, self.course.width - x, y), *axes)
        flat, down = np.radians(yaw), np.radians(pitch - TUX_BELOW_VIEW_DEG)
        self.along = -z + CAMERA_DISTANCE * float(np.cos(down) * np.cos(flat))
        self.right = x + CAMERA_DISTANCE * float(np.cos(down) * np.sin(flat))
        self.up = y + CAMERA_DISTANCE * float(np.sin(down)) + SUNK
        now = np.array([self.along, self.right, self.up])
        if self._before is not None:
            self._velocity = (now - self._before) * 25.0
        self._before = now

    def check_start(self) -> None:
        """Raise WorldError unless the penguin is where the chosen course begins."""
        right, along = self.course.start
        right = self.course.width - right if self.mirrored else right
        up = float(self._height(right, along))
        error = float(np.abs(np.array([self.right - right, self.along - along, self.up - up])).max())
        if not error <= START_TOLERANCE:
            raise WorldError(
                f"tux-racer began {error:.0f} m from the start of {self.course.map}; is it another version than 0.8?"
            )

    def hints(self) -> dict[str, Any]:
        """Numbers in metres and seconds; yaw in degrees from straight down the course, right positive.

        along, right: the penguin.  above: its height over the snow.  speed, heading: its motion.  half_width: of what
        can be slid on, from the middle.  middle: how far right of the middle of the course it is.
        snow: (ahead, aside) height of the snow at SENSE_AHEAD, SENSE_ASIDE from here, less the course's even slope.
        way: (ahead, aside) what it costs to get to the finish from there, see `Course.way`.
        trees: (n, 3), fish: (n, 2): metres ahead, to the right, and the trees' radius.
        """
        course = self.course
        ahead, aside = np.meshgrid(SENSE_AHEAD, SENSE_ASIDE, indexing="ij")
        slope = np.tan(np.radians(course.angle_deg))
        here = float(self._height(self.right, self.along))
        snow = self._height(self.right + aside, self.along + ahead) - here + ahead * slope
        forward, right, _ = self._velocity
        return {
            "along": self.along,
            "right": self.right,
            "middle": self.right - course.width / 2,
            "half_width": course.play_width / 2,
            "above": self.up - here,
            "speed": float(np.linalg.norm(self._velocity)),
            "heading": float(np.degrees(np.arctan2(right, forward))),
            "left_to_go": course.play_length - self.along,
            "snow": snow.astype(np.float32),
            "way": self._way(self.right + aside, self.along + ahead),
            "trees": self._near(course.obstacles),
            "fish": self._near(course.herrings),
        }

    def _height(self, right: npt.ArrayLike, along: npt.ArrayLike) -> npt.NDArray[np.float32]:
        right = self.course.width - np.asarray(right) if self.mirrored else right
        return self.course.height(right, along)

    def _way(self, right: npt.NDArray[np.float32], along: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        way = self.course.way
        right = self.course.width - right if self.mirrored else right
        rows = np.clip(np.rint(along / WAY_ROW).astype(int), 0, way.shape[0] - 1)
        return way[rows, np.clip(np.rint(right).astype(int), 0, way.shape[1] - 1)]

    def _near(self, objects: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The (right, along, diameter?) `objects` before the penguin, as (ahead, right of it, radius?)."""
        first, last = np.searchsorted(objects[:, 1], (self.along - 2.0, self.along + SENSE_OBJECTS))
        near = objects[first:last]
        right = self.course.width - near[:, 0] if self.mirrored else near[:, 0]
        return np.column_stack([near[:, 1] - self.along, right - self.right, near[:, 2:] / 2]).astype(np.float32)


def _penguin(depth: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """The cells `(64, 112)` in the ball that holds the penguin, above the snow, and those beside them."""
    points = cell_points(depth, FOV_DEG).reshape(*GEOMETRY_SHAPE, 3)
    away = np.linalg.norm(points - np.array(TUX_FROM_CAMERA, np.float32), axis=-1)
    near = away < TUX_RADIUS_M
    around = points[~near & (away < SNOW_RADIUS_M)]
    if len(around) >= MIN_SNOW_CELLS:
        near &= _heights(points, around) > ABOVE_SNOW_M
    body = near.copy()
    body[1:] |= near[:-1]
    body[:-1] |= near[1:]
    body[:, 1:] |= near[:, :-1]
    body[:, :-1] |= near[:, 1:]
    return body


def _heights(points: npt.NDArray[np.float32], around: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Heights of points `(..., 3)` above the plane through points `(n, 3)` of the snow, most of which lie on it."""
    kept = np.ones(len(around), np.bool_)
    plane = np.zeros(3)
    for _ in range(3):
        rows = np.column_stack([around[kept][:, [0, 2]], np.ones(kept.sum())])
        plane = np.linalg.lstsq(rows, around[kept, 1], rcond=None)[0]
        off = around[:, 1] - around[:, [0, 2]] @ plane[:2] - plane[2]
        off = np.abs(off - np.median(off))
        kept = off <= max(ABOVE_SNOW_M, float(np.quantile(off, 0.7)))
    finite = np.where(np.isfinite(points), points, 0.0)
    return finite[..., 1] - finite[..., [0, 2]] @ plane[:2] - plane[2]


def _start_game(seed: int) -> LockstepGame:
    home = guardian.make_folder("reverie-tux-racer-")
    (home / ".etr").mkdir()
    (home / ".etr" / "options.txt").write_text("*" + " ".join(f"[{key}] {value}" for key, value in OPTIONS.items()))
    sound = home / "alsoft.conf"
    sound.write_text(SOUND_OPTIONS)
    height, width = DRAWN
    # The real time of day: OpenAL's thread never rests after a clock that jumped.
    return LockstepGame(
        ["etr"],
        (width, height),
        home=home,
        env={"ALSOFT_CONF": str(sound), "LOCKSTEP_SEED": str(seed)},
        epoch_s=0,
    )


def _tap(game: LockstepGame, key: str, times: int = 1) -> None:
    """Press and let go: a menu has taken it when the next frame is there."""
    for _ in range(times):
        game.step([key])
        game.step()


def _choose_in_menu(game: LockstepGame, course: Course, light: int, snow: int, wind: int, mirrored: bool) -> None:
    """From the first screen to the choice of "Race!": the next frames are the loading screen's."""
    game.step()
    game.step()
    _tap(game, "Return")  # the player is chosen
    _tap(game, "w")  # on the main screen: away with all music
    _tap(game, "Down")
    _tap(game, "Return")  # Practice; the course has the focus, before it is its group, after it the light
    if course.group != "default":
        _tap(game, "Left")
        _tap(game, "Down")
        _tap(game, "Up")
        _tap(game, "Right")
    _tap(game, "Down", course.index)
    for value in (light, snow, wind, int(mirrored)):
        _tap(game, "Right")
        _tap(game, "Up", value)
    game.step(["Return"])


def _begin_race(game: LockstepGame) -> npt.NDArray[np.uint8]:
    """Through the loading screen and the penguin's entrance to the first frame without a display on it."""
    for _ in range(3):
        game.step()
    game.step(["Escape"])  # ends the entrance, as any key does
    return game.step(["h"])
