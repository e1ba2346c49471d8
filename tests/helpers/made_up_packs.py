"""Made-up packs: walks through a room that is rendered exactly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tests.helpers.rendered_room import FOV_DEG, look

from reverie.models import presets
from reverie.models.checkpoint import ModelConfig
from reverie.models.schedule import Schedule
from reverie.train.spatial.encoded_recordings import Store
from reverie.train.spatial.packs import PackInfo, write_episode
from reverie.types import ActionSpace
from reverie.vision.projection import VIEW_SIZE

SPACE = ActionSpace(("forward", "left"), mouse=True)
SIZE = (32, 64)
EVERY = 8


def write_pack(folder: Path, episodes: int = 2, frames: int = 41, seed: int = 0) -> Path:
    """A pack of walks on a circle; the player turns by the mouse and holds `forward`."""
    info = PackInfo(folder.name, FOV_DEG, 1.0, SPACE, EVERY)
    info.write(folder)
    rng = np.random.default_rng(seed)
    for number in range(episodes):
        turn = rng.uniform(-3, 3)
        pose, poses, rows = np.zeros(6), [], []
        pose[3] = rng.uniform(0, 360)
        for _ in range(frames):
            poses.append(pose.copy())
            held = float(rng.random() < 0.7)
            rows.append([held, 0.0, 0.0, turn])
            pose[3] += turn
            yaw = np.radians(pose[3])
            pose[:2] = (pose[:2] + 0.06 * held * np.array([np.sin(yaw), np.cos(yaw)])).clip(-2.5, 2.5)
        name = f"{number:05d}"
        seen = [look(one, SIZE)[0] for one in poses]
        video = cv2.VideoWriter(
            str(folder / f"{name}.mp4"),
            cv2.VideoWriter.fourcc(*"mp4v"),
            25,
            (SIZE[1], SIZE[0]),
        )
        for image in seen:
            video.write(np.ascontiguousarray(image[..., ::-1]))
        video.release()
        depth = np.stack([look(one)[1] for one in poses[::EVERY]])
        body = np.zeros((len(depth), *VIEW_SIZE), bool)
        body[:, 60:, 40:70] = True
        actions = np.array(rows[:-1], np.float32)
        write_episode(
            folder,
            name,
            np.array(poses, np.float32),
            actions,
            depth,
            body,
            f"room {number % 2}",
        )
    return folder


PRESET = presets.tiny_memory(SPACE)


@dataclass
class Given:
    packs: Path
    held_out: Path
    tokenizer: Path


def load_model_config(store: Store) -> ModelConfig:
    return ModelConfig(
        name="tiny",
        resolution=SIZE,
        schedule=Schedule((1.0,)),
        world=PRESET.world,
        tokenizer=store.tokenizer.config,
        image_encoder=PRESET.image_encoder,
        memory=PRESET.memory,
    )
