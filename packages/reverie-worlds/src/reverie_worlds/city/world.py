"""A city as a World: endless streets with traffic and people, by car (seen from behind) or on foot, drawn with Panda3D.

A map is a district and the number of a city of that kind, such as `oldtown/0417`; `reset(seed)` alone decides the
city, the place, the hour, the weather, and whether the player drives or walks.  In the car `forward` and `back` are
engine, brakes and reverse, `left` and `right` steer, and the mouse turns the camera round the car; `jump` does nothing
there, as `handbrake` does nothing on foot.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from reverie.errors import WorldError
from reverie.types import Action, ActionSpace, Frames, Geometry, Pose
from reverie_worlds.city import models
from reverie_worlds.city.actors import Actors
from reverie_worlds.city.people import People
from reverie_worlds.city.plan import EAST, KERB_M, NORTH, STYLES, Plan
from reverie_worlds.city.skies import choose_sky
from reverie_worlds.city.stage import Stage, halo_texture
from reverie_worlds.city.traffic import STOP_M, Traffic, TrafficCar, lanes
from reverie_worlds.city.vehicle import GRIP, RADIUS_M, WET_GRIP, Vehicle, disc_hits
from reverie_worlds.city.viewpoints import (
    CAMERA_BACK_M,
    CAMERA_PITCH,
    CAMERA_PIVOT_M,
    EYE_M,
    MAX_PITCH,
    WALKER_RADIUS_M,
    ChaseCamera,
    View,
    Walker,
    free_length,
)
from reverie_worlds.geometry import check_pose
from reverie_worlds.panda.renderer import RESOLUTION, STEP_S, Panda

FOV_DEG = 76.0
SUPERSAMPLE = 1.5
NUM_CITIES = 1000
"""Cities of each district."""

HELDOUT_EVERY, HELDOUT_AT = 10, 7
"""City n is held out if n % 10 == 7."""

CAR_SHARE = 0.7
NUM_CARS, NUM_PEOPLE = 18, 26
DRIVABLE = ("coupe", "sedan", "hatch", "suv")

STANDPOINT_RADIUS_M = 0.45
"""A standpoint of a capture is so far from everything solid."""

STAND_TRIES, STAND_REACH_M = 12, 2.0
"""A player who is asked to stand in something is moved out of it, so far at most."""

ACTION_SPACE = ActionSpace(("forward", "back", "left", "right", "jump", "handbrake"), mouse=True)


def is_heldout(city: int) -> bool:
    """Tests whether a city's number belongs to the held-out split."""
    return city % HELDOUT_EVERY == HELDOUT_AT


def check_maps(maps: tuple[str, ...] | None, heldout: bool) -> tuple[str, ...]:
    """Districts (`downtown`) or single cities (`downtown/0417`) to play; None for all districts.

    Raises WorldError for unknown names and for cities of the other split.
    """
    if maps is None:
        return tuple(STYLES)
    if not maps:
        raise WorldError("city needs at least one map, got none; leave maps out to play them all")
    for name in maps:
        district, _, number = name.partition("/")
        known = district in STYLES and ("/" not in name or (number.isdecimal() and int(number) < NUM_CITIES))
        if not known:
            raise WorldError(
                f"unknown city {name!r}; a map is one of {', '.join(STYLES)}, alone or with a number, as downtown/0417"
            )
        if number and is_heldout(int(number)) != heldout:
            split = "training" if heldout else "held-out"
            raise WorldError(f"{name} is a {split} city; say heldout={not heldout} to play it")
    return tuple(maps)


class CityWorld:
    """A drive or a walk through a city.

    maps: districts or single cities; None for all districts.  heldout: play only the held-out cities (one in ten).
    view: `car` or `walk`; None lets the seed choose, seven times in ten the car.  place: the number of one crossing,
    with its city, sky and car; episodes then begin round it, wherever their seeds say.
    Raises WorldError if Panda3D or EGL is missing, and for an unknown map or view.
    """

    fov_deg = FOV_DEG
    pixel_aspect = 1.0
    action_space = ACTION_SPACE
    resolution = RESOLUTION
    block_frames = 1
    finished = False

    def __init__(
        self,
        maps: tuple[str, ...] | None = None,
        heldout: bool = False,
        view: str | None = None,
        place: int | None = None,
    ) -> None:
        if view not in (None, "car", "walk"):
            raise WorldError(f"the city is seen from a car or on foot: view is car or walk, got {view!r}")
        self.maps = check_maps(tuple(maps) if maps is not None else None, heldout)
        self.heldout = heldout
        self.place = place
        self.map = ""
        self.episode_info: dict[str, Any] = {}
        self._asked_view = view
        self._started = self._is_explored = False
        self._car, self._walker = Vehicle(), Walker()
        self._screen = Panda(self.resolution, fov_deg=FOV_DEG, supersample=SUPERSAMPLE, near_m=0.3, far_m=420.0)
        textures, halo = Stage.make_textures(), halo_texture()
        self._stage = Stage(self._screen, textures, halo)
        self._actors = Actors(self._screen, textures, halo)

    @property
    def pose(self) -> Pose:
        """The camera's pose `(6,)`, see `reverie.types.POSE_NAMES`."""
        v = self._view
        return np.array([v.x, v.y, v.z, v.yaw % 360.0, v.pitch, v.roll], np.float32)

    def geometry(self) -> Geometry:
        """Draws the depth of the last frame without the player's car, and the mask of the car."""
        if not self._started:
            raise WorldError("geometry before reset; call reset(seed) first")
        return self._screen.geometry(self._actors.player_nodes)

    @property
    def hints(self) -> Mapping[str, Any]:
        """For a policy: the street plan, the clock of the lights, where the player is, what is in front of it."""
        if not self._started:
            return {}
        x, y, heading, speed = self._player_state()
        return {
            "view": self.view, "plan": self._plan, "time_s": self._traffic.time_s, "x": x, "y": y,
            "heading_deg": math.degrees(heading) % 360.0, "speed": speed, "ahead_m": self._free_ahead(x, y, heading),
        }  # fmt: skip

    def look_from(self, pose: Pose) -> tuple[Frames, Geometry]:
        """Shows the city from `pose` without cars and people: the frame `(1, H, W, 3)` and its geometry.

        The episode does not go on from there: call `reset` before the next `step`.
        """
        if not self._started and not self._is_explored:
            raise WorldError("look_from before reset; call reset(seed) first")
        x, y, z, yaw, pitch, roll = check_pose(pose)
        self._started, self._is_explored = False, True
        self._actors.clear()
        self._screen.set_lamp((0, 0, 0), (0, 1, 0), 0.0)
        self._stage.follow((x, y), most=10_000)
        self._view = View(x, y, z, yaw, pitch, roll)
        self._screen.place_camera((x, y, z), yaw, pitch, roll)
        return self._screen.render(), self._screen.geometry()

    def stand(self, pose: Pose) -> Frames:
        """Puts the player where the camera has `pose`, at rest; `(1, H, W, 3)`.  See `types.PlaceableWorld`."""
        if not self._started:
            raise WorldError("stand before reset; call reset(seed) first")
        x, y, _, yaw, pitch, _ = check_pose(pose)
        before = self._car, self._walker
        if self.view == "car":
            ahead_m = CAMERA_BACK_M * math.cos(math.radians(CAMERA_PITCH))
            x, y = x + ahead_m * math.sin(math.radians(yaw)), y + ahead_m * math.cos(math.radians(yaw))
            self._car = Vehicle(x=x, y=y, heading=math.radians(yaw), grip=self._car.grip)
        else:
            floor = self._ground(x, y)
            self._walker = Walker(x, y, floor, yaw % 360.0, max(-MAX_PITCH, min(pitch, MAX_PITCH)), height=floor)
        boxes, low, posts = self._stage.obstacles((x, y))
        if not self._push_free(np.concatenate([boxes, low]), posts):
            self._car, self._walker = before
            raise WorldError(f"nobody can stand at {x:.1f}, {y:.1f} in {self.map}: something is built there")
        self._stage.follow((x, y), most=10_000)
        if self.view == "car":
            self._camera = ChaseCamera(yaw=yaw, orbit_pitch=pitch - CAMERA_PITCH)
            self._view = self._camera.follow(self._car, (0.0, 0.0), STEP_S, boxes)
        else:
            self._view = self._walker.view()
        return self._draw()

    def _push_free(self, boxes: npt.NDArray[np.float64], posts: npt.NDArray[np.float64]) -> bool:
        """Moves the player out of what it touches; False where that is not near."""
        drives = self.view == "car"
        player, radius = (self._car, RADIUS_M) if drives else (self._walker, WALKER_RADIUS_M)
        x, y = player.x, player.y
        for _ in range(STAND_TRIES):
            discs = self._car.discs() if drives else [np.array((player.x, player.y))]
            hits = [hit for disc in discs for hit in disc_hits(disc, radius, boxes, posts)]
            if not hits:
                return math.dist((x, y), (player.x, player.y)) < STAND_REACH_M
            normal, depth = max(hits, key=lambda hit: hit[1])
            player.x += float(normal[0]) * (depth + 0.01)
            player.y += float(normal[1]) * (depth + 0.01)
        return False

    def standpoints(self, step_m: float, reach_m: float) -> npt.NDArray[np.float32]:
        """Places for a camera on a grid round the player where nothing stands, `(n, 3)` metres, at its height."""
        if not self._started and not self._is_explored:
            raise WorldError("standpoints before reset; call reset(seed) first")
        if not (step_m > 0 and reach_m >= 0):
            raise WorldError(f"standpoints need a positive step and a reach, got {step_m:g} and {reach_m:g} m")
        across = np.arange(-reach_m, reach_m + step_m / 2, step_m)
        eye = EYE_M if self.view == "walk" else CAMERA_PIVOT_M + 1.5
        found = []
        here_x, here_y, _, _ = self._player_state()
        for x, y in itertools.product(here_x + across, here_y + across):
            boxes, low, posts = self._stage.obstacles((x, y))
            if not disc_hits(np.array((x, y)), STANDPOINT_RADIUS_M, np.concatenate([boxes, low]), posts):
                found.append((x, y, self._ground(x, y) + eye))
        return np.array(found, np.float32).reshape(-1, 3)

    def reset(self, seed: int) -> Frames:
        """Go to the city, place, hour and weather that belong to `seed`; `(1, H, W, 3)`."""
        rng = np.random.default_rng([seed & 0xFFFFFFFF, 4])
        there = rng if self.place is None else np.random.default_rng([self.place & 0xFFFFFFFF, 4])
        self.map = self._choose_map(there)
        district, number = self.map.split("/")
        drives = there.random() < CAR_SHARE
        self.view = self._asked_view or ("car" if drives else "walk")
        self._sky, light = choose_sky(there)
        self._plan = Plan(STYLES[district], int(number))
        self._rain = self._sky.startswith("rain")
        shape, paint = DRIVABLE[there.integers(len(DRIVABLE))], int(there.integers(len(models.PAINTS)))
        self.episode_info = {"view": self.view, "sky": self._sky, "city": int(number), "district": district}
        if self.place is not None:
            self.episode_info["place"] = self.place
        self._screen.set_light(light)
        self._place_player(there, rng)
        x, y, _, _ = self._player_state()
        self._traffic = Traffic(self._plan, rng, (x, y), NUM_CARS)
        self._people = People(self._plan, rng, (x, y), NUM_PEOPLE)
        self._stage.open(self._plan, self._sky, (x, y))
        self._actors.open(shape, paint, self._sky, self._traffic, self._people, driving=self.view == "car")
        self._ticks, self._started = 0, True
        self._is_explored = False
        if self.view == "car":
            self._view = self._camera.follow(self._car, (0.0, 0.0), STEP_S, self._stage.obstacles((x, y))[0])
        else:
            self._view = self._walker.view()
        return self._draw()

    def step(self, action: Action) -> Frames:
        """One frame of 40 ms under `action`, `(1, H, W, 3)`."""
        self.action_space.check(action)
        if not self._started:
            raise WorldError("step before reset; call reset(seed) first")
        self._ticks += 1
        x, y, _, _ = self._player_state()
        boxes, low, posts = self._stage.obstacles((x, y))
        if self.view == "car":
            self._drive(action, boxes, low, posts)
        else:
            cars = self._traffic.discs((x, y), 6.0)
            people = np.concatenate([self._people.where(), np.full((NUM_PEOPLE, 1), 0.25)], 1)
            round_things = np.concatenate([posts, people, *(discs for _, discs in cars)])
            self._walker.walk(
                action.keys, action.mouse, STEP_S, self._ground, np.concatenate([boxes, low]), round_things
            )
            self._view = self._walker.view()
        x, y, _, _ = self._player_state()
        in_car = self.view == "car"
        self._traffic.step(STEP_S, (x, y, 2.4 if in_car else 0.6), self._people.where(), 2.4 if in_car else 0.6)
        velocity = self._car.velocity() if in_car else (0.0, 0.0)
        self._people.step(STEP_S, self._traffic.time_s, (x, y), velocity, in_car, self._traffic.cars)
        self._stage.follow((x, y))
        return self._draw()

    def close(self) -> None:
        """Give the screen back; safe to call twice."""
        self._started = self._is_explored = False
        self._stage.clear()
        self._actors.clear()
        self._screen.close()

    # -- the player

    def _choose_map(self, rng: np.random.Generator) -> str:
        name = self.maps[int(rng.integers(len(self.maps)))]
        tens, rest = int(rng.integers(NUM_CITIES // HELDOUT_EVERY)), int(rng.integers(HELDOUT_EVERY - 1))
        if "/" in name:
            district, _, number = name.partition("/")
            return f"{district}/{int(number):04d}"
        last = HELDOUT_AT if self.heldout else rest + (rest >= HELDOUT_AT)
        return f"{name}/{tens * HELDOUT_EVERY + last:04d}"

    def _place_player(self, there: np.random.Generator, rng: np.random.Generator) -> None:
        """In a lane, or on a pavement, beside a crossing that `there` draws."""
        plan = self._plan
        i, j = (int(v) for v in there.integers(-40, 40, 2))
        direction = NORTH if rng.random() < 0.5 else EAST
        while not plan.arm(i, j, direction):
            i += 1
        flip, share = rng.random() < 0.5, float(rng.uniform(0.1, 0.9))
        side, half = (-1.0 if flip else 1.0), plan.half_road(i, j, direction)
        offs = lanes(plan, i, j, direction)
        off = offs[int(rng.integers(len(offs)))] if self.view == "car" else half + plan.style.pavement_m * 0.55
        yaw = 90.0 * direction + (180.0 if flip else 0.0)
        if direction == NORTH:
            a, b = plan.y(j) + plan.half_y(j) + STOP_M, plan.y(j + 1) - plan.half_y(j + 1) - STOP_M
            x, y = plan.x(i) + side * off, a + (b - a) * share
        else:
            a, b = plan.x(i) + plan.half_x(i) + STOP_M, plan.x(i + 1) - plan.half_x(i + 1) - STOP_M
            x, y = a + (b - a) * share, plan.y(j) - side * off
        if self.view == "car":
            self._car = Vehicle(x=x, y=y, heading=math.radians(yaw), vx=float(rng.choice((0.0, 6.0, 9.0))))
            self._car.grip = WET_GRIP if self._rain else GRIP
            self._camera = ChaseCamera(yaw=yaw)
        else:
            self._walker = Walker(x, y, KERB_M, (yaw + float(rng.uniform(-60, 60))) % 360.0, 0.0, height=KERB_M)

    def _player_state(self) -> tuple[float, float, float, float]:
        """x, y, heading in radians, speed."""
        if self.view == "car":
            return self._car.x, self._car.y, self._car.heading, self._car.speed
        w = self._walker
        return w.x, w.y, math.radians(w.yaw), math.hypot(*w.velocity)

    def _ground(self, x: float, y: float) -> float:
        return KERB_M if self._plan.on_land(x, y) else 0.0

    def _drive(self, action: Action, *obstacles: npt.NDArray[np.float64]) -> None:
        car, (boxes, low, posts) = self._car, obstacles
        car.jolt = 0.0
        car.drive(action.keys, STEP_S, self._ground)
        solid = np.concatenate([boxes, low])
        for _ in range(3):
            touched = False
            for disc in car.discs():
                for normal, depth in disc_hits(disc, RADIUS_M, solid, posts):
                    car.push(disc - normal * RADIUS_M, normal, depth, 0.2)
                    touched = True
            if not touched:
                break
        none = np.zeros((0, 4))
        for other, discs in self._traffic.discs((car.x, car.y), 8.0):
            for disc in car.discs():
                for normal, depth in disc_hits(disc, RADIUS_M, none, discs):
                    self._bump(other, disc, normal, depth)
        self._view = self._camera.follow(car, action.mouse, STEP_S, boxes)

    def _bump(
        self, other: TrafficCar, disc: npt.NDArray[np.float64], normal: npt.NDArray[np.float64], depth: float
    ) -> None:
        """Two cars touch: both give way."""
        before = self._car.jolt
        self._car.jolt = 0.0
        self._car.push(disc - normal * RADIUS_M, normal, depth, 0.1)
        hit = self._car.jolt
        self._car.jolt = max(before, hit)
        if hit > 0.8:
            self._traffic.hit(other, (-float(normal[0]) * hit * 0.5, -float(normal[1]) * hit * 0.5))

    def _free_ahead(self, x: float, y: float, heading: float) -> float:
        """Metres to the first thing in front, 40 at most."""
        boxes, low, posts = self._stage.obstacles((x, y))
        sin, cos = math.sin(heading), math.cos(heading)
        cars = [(car.x, car.y, 1.4) for car in self._traffic.cars]
        people = [(w.x, w.y, 0.6) for w in self._people.walkers]
        things = np.concatenate([posts, np.array(cars + people).reshape(-1, 3)])
        dx, dy = things[:, 0] - x, things[:, 1] - y
        ahead, aside = dx * sin + dy * cos, np.abs(dx * cos - dy * sin)
        width = 1.0 if self.view == "car" else 0.4
        near = ahead[(ahead > 0.2) & (aside < width + things[:, 2])]
        free = float(near.min()) if len(near) else 40.0
        walls = np.concatenate([boxes, low])
        for shift in (-width, 0.0, width):
            free = min(free, free_length(x + cos * shift, y - sin * shift, sin, cos, 40.0, walls))
        return max(0.0, free)

    # -- the picture

    def _draw(self) -> Frames:
        v = self._view
        self._actors.show_traffic(self._traffic)
        self._actors.show_people(self._people)
        if self.view == "car":
            self._actors.show_player(self._car)
        if self._rain:
            self._actors.show_rain((v.x, v.y, v.z), self._ticks * STEP_S)
        self._stage.set_signals(self._traffic.time_s)
        self._screen.drift_clouds(self._ticks * STEP_S * 0.0012, 0.0)
        self._screen.place_camera((v.x, v.y, v.z), v.yaw, v.pitch, v.roll)
        return self._screen.render()

    _view = View()
    view = "car"
