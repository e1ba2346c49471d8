"""Reads a recording with LeRobot itself: `python lerobot_reader.py items|stream FOLDER OUT.npz [INDEX...]`.

It runs in LeRobot's environment.  `items` writes what LeRobot gives for each index, alone and in a window of time;
`stream` the places of the first frames of a stream.
"""

from __future__ import annotations

import sys

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.datasets.streaming_dataset import StreamingLeRobotDataset

VIDEO = "observation.images.screen"
NAME = "somebody/walks"


def read_items(folder: str, out: str, indices: list[int]) -> None:
    dataset = LeRobotDataset(NAME, root=folder, video_backend="pyav")
    step = 1 / dataset.fps
    windows = LeRobotDataset(
        NAME, root=folder, video_backend="pyav", delta_timestamps={VIDEO: [-step, 0.0], "action": [0.0, step]}
    )
    found: dict[str, list[np.ndarray]] = {}
    for index in indices:
        item, window = dataset[index], windows[index]
        for name, value in {
            "frames": to_uint8(item[VIDEO]),
            "actions": item["action"].numpy(),
            "poses": item["observation.state"].numpy(),
            "places": place_of(item),
            "window_frames": to_uint8(window[VIDEO]),
            "window_actions": window["action"].numpy(),
        }.items():
            found.setdefault(name, []).append(value)
    arrays = {name: np.stack(values) for name, values in found.items()}
    np.savez(out, num_episodes=dataset.num_episodes, num_frames=dataset.num_frames, **arrays)


def read_stream(folder: str, out: str) -> None:
    stream = iter(StreamingLeRobotDataset(NAME, root=folder, shuffle=False, buffer_size=1, max_num_shards=1))
    items = [next(stream) for _ in range(4)]
    np.savez(out, places=np.stack([place_of(item) for item in items]), frames=to_uint8(items[-1][VIDEO]))


def place_of(item) -> np.ndarray:
    return np.array([int(item["episode_index"]), int(item["frame_index"])])


def to_uint8(image) -> np.ndarray:
    """`(..., 3, H, W)` in [0, 1] -> `(..., H, W, 3)` uint8."""
    return np.moveaxis((image.numpy() * 255).round().astype(np.uint8), -3, -1)


if __name__ == "__main__":
    if sys.argv[1] == "items":
        read_items(sys.argv[2], sys.argv[3], [int(word) for word in sys.argv[4:]])
    else:
        read_stream(sys.argv[2], sys.argv[3])
