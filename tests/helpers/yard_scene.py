"""One yard, the same in every episode, that can be looked at from anywhere; and recordings and scenes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from reverie.data.depth import DepthRecord
from reverie.data.video import write_video
from reverie.data.writer import DatasetWriter, picture_statistics
from reverie.scenes.scene import Scene, Start
from reverie.types import POSE_NAMES, Action, Frames, Geometry, Pose
from reverie.worlds.yard import FOV_DEG, HALF_M, Yard

KEYS = ("forward", "left", "right")


class YardWorld(Yard):
    """The yard of `Yard` in one colouring.  body: whether the player is in the frame."""

    body = False

    def reset(self, seed: int) -> Frames:
        super().reset(seed)
        self._tone = np.array([0.3, 1.7, 4.1])
        return self._draw()

    def _body(self) -> np.ndarray:
        return super()._body() & self.body

    def look_from(self, pose: Pose) -> tuple[Frames, Geometry]:
        was, self.body = self.body, False
        self._x, self._y, _, self._yaw, self._pitch, self._roll = (float(number) for number in pose)
        found = self._draw(), self.geometry()
        self.body = was
        return found

    def standpoints(self, step_m: float, reach_m: float) -> npt.NDArray[np.float32]:
        steps = np.arange(-reach_m, reach_m + step_m / 2, step_m)
        places = [(self._x + a, self._y + b, 1.6) for a in steps for b in steps]
        inside = [(x, y, z) for x, y, z in places if abs(x) < HALF_M[0] - 0.5 and abs(y) < HALF_M[1] - 0.5]
        return np.array(inside, np.float32).reshape(-1, 3)


def record_yard(
    root: Path,
    episodes: int = 3,
    frames: int = 81,
    every: int = 4,
    map_name: str = "yard",
    mouse: bool = True,
    **changes: Any,
) -> Path:
    """Walks through the yard, recorded with depth of every `every`-th frame (0: none).

    mouse: whether the recording says that there is one; changes: of the writer's options, such as pose_names=().
    """
    world = YardWorld()
    options = {
        "pose_names": POSE_NAMES,
        "notes": {"world": "yard", "fov_deg": FOV_DEG, "pixel_aspect": 1.0},
        "depth_every": every,
        **changes,
    }
    space = replace(world.action_space, mouse=mouse)
    with DatasetWriter(root, space, world.resolution, 25, **options) as writer:
        for seed in range(episodes):
            shown, actions, poses, depth = [world.reset(seed)[0]], [], [], []
            for i in range(frames):
                action = Action(frozenset({"forward"}), mouse=(0.0, 5.0))
                actions.append(action)
                poses.append(world.pose)
                if every and i % every == 0:
                    depth.append(DepthRecord.of(i, world.geometry()))
                shown.append(world.step(action)[0])
            pictures = np.stack(shown[:-1])
            video = writer.partial / f"{seed}.mp4"
            write_video(video, pictures, 25)
            writer.add(
                video,
                space.encode(actions if mouse else [Action(action.keys) for action in actions]),
                np.stack(poses) if options["pose_names"] else None,
                picture_statistics(pictures),
                {"seed": seed, "map": map_name, "heldout": False},
                depth,
            )
    return root


def save_yard_scene(folder: Path, resolution: tuple[int, int], keys: tuple[str, ...], title: str = "the yard") -> Scene:
    """A scene of the yard with two starts, saved in `folder`; resolution: (H, W) of its keyframes."""
    world = YardWorld()
    world.reset(0)
    poses = [(x, y, 1.6, yaw, 0, 0) for x in (-2, 2) for y in (-3, 3) for yaw in (0, 90, 180, 270)]
    looks = [(*world.look_from(np.array(pose, np.float32)), pose) for pose in poses]
    height, width = resolution
    colour = [np.asarray(Image.fromarray(frames[0]).resize((width, height))) for frames, _, _ in looks]
    starts = tuple(
        Start(f"{title}, start {n}", colour[i], np.array(poses[i], np.float32))
        for n, i in enumerate((0, len(poses) - 1))
    )
    scene = Scene(
        folder.name, title, "yard", FOV_DEG, 1.0, keys, True, "made for tests", starts,
        np.stack(colour), np.stack([one.depth for _, one, _ in looks]), np.stack([one.body for _, one, _ in looks]),
        np.array(poses, np.float32),
    )  # fmt: skip
    scene.save(folder)
    return scene
