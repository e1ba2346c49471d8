"""Moving parts of the rendered city: the player's car, traffic, people, and rain."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from reverie_worlds.city import models
from reverie_worlds.city.people import LOOKS, STRIDE_M, People
from reverie_worlds.city.skies import DARK, LAMPS_ON
from reverie_worlds.city.stage import shade_texture, solid_texture
from reverie_worlds.city.traffic import Traffic
from reverie_worlds.city.vehicle import Vehicle
from reverie_worlds.panda.renderer import Mesh, Panda

RAIN_BOX_M = 14.0
HEADLIGHT_STRENGTH = 26.0


class Actors:
    """Meshes for everything that moves; made once, shown where it is needed."""

    def __init__(self, screen: Panda, textures: Any, halo: Any) -> None:
        self._screen, self._textures, self._halo = screen, textures, halo
        self._shade, self._solid = shade_texture(), solid_texture()
        self._cars: list[dict[str, Any]] = []
        self._people: list[dict[int, Any]] = []
        self._bodies: dict[Any, Any] = {}
        self._player: dict[str, Any] = {}
        self._rain = self._make_rain()

    def open(self, shape: str, paint: int, sky: str, traffic: Traffic, people: People, *, driving: bool) -> None:
        """Set out this episode's cars and people."""
        self.clear()
        self._sky, self._dark, self._lit = sky, DARK.get(sky, 0.0), sky in LAMPS_ON
        for car in traffic.cars:
            self._cars.append(self._make_car(car.shape, car.paint))
        for walker in people.walkers:
            self._people.append(self._make_person(walker.look % LOOKS))
        if driving:
            self._player = self._make_player(shape, paint)
        self._screen.set_lamp((0, 0, 0), (0, 1, 0), 0.0)
        self._rain.show() if sky.startswith("rain") else self._rain.hide()

    def clear(self) -> None:
        """Take everyone, and the rain, off the screen."""
        for nodes in [*self._cars, self._player]:
            if "top" in nodes:
                nodes["top"].removeNode()
        for poses in self._people:
            poses[-2].removeNode()
        self._cars, self._people, self._player = [], [], {}
        self._rain.hide()

    @property
    def player_nodes(self) -> list[Any]:
        """The nodes of the player's own car; none on foot."""
        return [self._player["top"]] if self._player else []

    def show_traffic(self, traffic: Traffic) -> None:
        """Cars and their brake lights where they are now."""
        for car, nodes in zip(traffic.cars, self._cars, strict=True):
            nodes["top"].setPosHpr(car.x, car.y, 0.0, -car.yaw, 0.0, 0.0)
            nodes["brakes"].show() if car.is_braking else nodes["brakes"].hide()

    def show_people(self, people: People) -> None:
        """People where they are, at their moment of the stride."""
        for walker, poses in zip(people.walkers, self._people, strict=True):
            poses[-2].setPosHpr(walker.x, walker.y, people.height(walker), -walker.yaw, 0, 0)
            now = int(walker.gone_m / STRIDE_M * models.WALK_PHASES) % models.WALK_PHASES if walker.is_walking else -1
            if poses[-3] != now:
                poses[poses[-3]].hide()
                poses[now].show()
                poses[-3] = now

    def show_player(self, car: Vehicle) -> None:
        """The player's car: body on its springs, wheels turning, lights."""
        nodes, yaw = self._player, math.degrees(car.heading)
        nodes["top"].setPosHpr(car.x, car.y, car.lift, -yaw, 0, 0)
        nodes["body"].setHpr(0, math.degrees(car.pitch), math.degrees(car.roll))
        radius = nodes["radius"]
        for k, wheel in enumerate(nodes["wheels"]):
            steer = math.degrees(car.steer) if k >= 2 else 0.0
            wheel.setHpr(-steer, -math.degrees(car.turned / radius) % 360.0, 0)
        nodes["brakes"].show() if car.is_braking else nodes["brakes"].hide()
        nodes["reverse"].show() if car.is_reversing else nodes["reverse"].hide()
        if self._lit:
            sin, cos = math.sin(car.heading), math.cos(car.heading)
            at = (car.x + 1.9 * sin, car.y + 1.9 * cos, 0.85 + car.lift)
            self._screen.set_lamp(at, (sin * 0.985, cos * 0.985, -0.17), HEADLIGHT_STRENGTH * self._dark, 34)

    def show_rain(self, eye: tuple[float, float, float], time_s: float) -> None:
        """Rain falls round the camera and stays where it is when the camera moves."""
        box = RAIN_BOX_M
        at = [math.floor(v / box) * box for v in eye[:2]]
        self._rain.setPos(at[0], at[1], math.floor(eye[2] / 6) * 6 - (time_s * 9.0) % 6.0)

    def _node(self, mesh: Mesh, parent: Any, key: Any = None) -> Any:
        """A mesh under `parent`; with a key, one copy serves all."""
        if key is None:
            node = mesh.node("part")
        else:
            if key not in self._bodies:
                self._bodies[key] = mesh.node("part")
            node = self._bodies[key].copyTo(parent)
        self._screen.use_texture_array(node, self._textures)
        node.reparentTo(parent)
        return node

    def _unlit(self, mesh: Mesh, parent: Any, texture: Any, *, add: bool) -> Any:
        node = mesh.node("unlit")
        node.setTexture(texture, 1)
        self._screen.use_glow(node, add=add)
        node.reparentTo(parent)
        return node

    def _make_car(self, shape: str, paint: int) -> dict[str, Any]:
        outline = models.SHAPES[shape]
        top = self._screen.root.attachNewNode("car")
        key = (shape, paint)
        mesh = Mesh() if key in self._bodies else models.car_body(
            outline, models.PAINTS[paint], wheels=True, taxi=shape == "sedan" and paint == 6
        )  # fmt: skip
        self._screen.cast_no_shadow(self._node(mesh, top, key))
        self._add_shade(outline, top)
        if self._lit:
            self._unlit(self._beams(outline), top, self._halo, add=True)
        brakes = self._unlit(models.brake_lights(outline), top, self._solid, add=False)
        return {"top": top, "brakes": brakes}

    def _make_player(self, shape: str, paint: int) -> dict[str, Any]:
        outline = models.SHAPES[shape]
        top = self._screen.root.attachNewNode("player")
        body = top.attachNewNode("body")
        self._node(models.car_body(outline, models.PAINTS[paint], wheels=False), body)
        wheels = []
        for y in (outline.wheel_y[0], outline.wheel_y[1]):
            for x in (-1, 1):
                wheel = self._node(models.wheel(outline.wheel_m), top)
                wheel.setPos(x * (outline.half_width - 0.1), y, outline.wheel_m)
                wheels.append(wheel)
        self._add_shade(outline, top)
        brakes = self._unlit(models.brake_lights(outline), body, self._solid, add=False)
        reverse = self._unlit(_reverse_lights(outline), body, self._solid, add=False)
        self._screen.cast_no_shadow(top)
        if self._lit:
            self._unlit(_halos(outline, self._dark), body, self._halo, add=True).setTwoSided(True)
        return {
            "top": top, "body": body, "wheels": wheels, "brakes": brakes, "reverse": reverse, "radius": outline.wheel_m,
        }  # fmt: skip

    def _add_shade(self, shape: models.CarShape, parent: Any) -> None:
        """The dark patch under a car."""
        mesh = Mesh()
        x, y = shape.half_width + 0.35, shape.half_length + 0.35
        mesh.quads([[(-x, -y, 0.03), (x, -y, 0.03), (x, y, 0.03), (-x, y, 0.03)]], (0, 0, 0, 0.62))
        self._unlit(mesh, parent, self._shade, add=False).setDepthOffset(1)

    def _beams(self, shape: models.CarShape) -> Mesh:
        """Light on the road in front of a car, halos at its lamps."""
        mesh = _halos(shape, self._dark)
        y = shape.half_length
        beam = [(-3.2, y - 1, 0.06), (3.2, y - 1, 0.06), (3.2, y + 13, 0.06), (-3.2, y + 13, 0.06)]
        mesh.quads([beam], (1.0, 0.93, 0.78, 0.42 * self._dark))
        return mesh

    def _make_person(self, look: int) -> dict[int, Any]:
        """Poses by number; -2 is the node above them, -3 the pose shown."""
        top = self._screen.root.attachNewNode("person")
        poses: dict[int, Any] = {-2: top, -3: -1}
        for phase in range(-1, models.WALK_PHASES):
            key = ("person", look, phase)
            mesh = Mesh() if key in self._bodies else models.person(look, phase)
            poses[phase] = self._node(mesh, top, key)
            if phase >= 0:
                poses[phase].hide()
        blob = Mesh()
        blob.quads([[(-0.4, -0.4, 0.03), (0.4, -0.4, 0.03), (0.4, 0.4, 0.03), (-0.4, 0.4, 0.03)]], (0, 0, 0, 0.55))
        self._unlit(blob, top, self._shade, add=False).setDepthOffset(1)
        self._screen.cast_no_shadow(top)
        return poses

    def _make_rain(self) -> Any:
        rng = np.random.default_rng(3)
        mesh, box = Mesh(), RAIN_BOX_M
        n = 420
        at = rng.uniform((-box, -box, -6), (2 * box, 2 * box, 18), (n, 3))
        across = rng.normal(size=(n, 2))
        across *= 0.011 / np.linalg.norm(across, axis=1, keepdims=True)
        side = np.concatenate([across, np.zeros((n, 1))], 1)
        down = np.array((0.05, 0.0, -0.62))
        mesh.quads(np.stack([at - side + down, at + side + down, at + side, at - side], 1), (0.85, 0.9, 1.0, 0.30))
        node = self._unlit(mesh, self._screen.root, self._solid, add=True)
        node.setTwoSided(True)
        return node


def _reverse_lights(shape: models.CarShape) -> Mesh:
    mesh = Mesh()
    w, h, y = shape.half_width, shape.rows[0][1], shape.rows[0][0] - 0.035
    for x in (-w * 0.5 - 0.09, w * 0.5 - 0.09):
        quad = [(x, y, h + 0.0), (x + 0.18, y, h + 0.0), (x + 0.18, y, h + 0.1), (x, y, h + 0.1)]
        mesh.quads([quad], (0.95, 0.95, 0.9, 1))
    return mesh


def _halos(shape: models.CarShape, dark: float) -> Mesh:
    mesh = Mesh()
    for y, z, r, colour in (
        (shape.rows[-1][0] + 0.06, shape.rows[-1][1], 0.75, (1.0, 0.95, 0.85, 0.85 * dark)),
        (shape.rows[0][0] - 0.06, shape.rows[0][1] + 0.06, 0.55, (1.0, 0.12, 0.08, 0.75 * dark)),
    ):
        for x in (-shape.half_width * 0.65, shape.half_width * 0.65):
            mesh.quads([[(x - r, y, z - r), (x + r, y, z - r), (x + r, y, z + r), (x - r, y, z + r)]], colour)
            mesh.quads([[(x + r, y, z - r), (x - r, y, z - r), (x - r, y, z + r), (x + r, y, z + r)]], colour)
    return mesh
