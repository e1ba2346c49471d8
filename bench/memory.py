"""Milliseconds a block that a spatial memory takes, by part: the least of many runs, on one core.

    OMP_NUM_THREADS=1 python bench/memory.py [MODEL] [SCENE] [--keyframes 600] [--repeats 60]

Keyframes of the scene are repeated, or left out, until there are as many as asked for.  The camera walks through the
scene from keyframe to keyframe, so that no two blocks are alike.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import torch

from reverie.engine.loading.models import WEIGHTS
from reverie.engine.loading.scenes import BUNDLED, LoadedScene
from reverie.models.checkpoint import load_model
from reverie.scenes.keyframes import Candidates
from reverie.scenes.scene import Scene


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", nargs="?", default=str(WEIGHTS / "nano"))
    parser.add_argument("scene", nargs="?", default=str(BUNDLED / "city-corner"))
    parser.add_argument("--keyframes", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=60)
    options = parser.parse_args()
    torch.set_num_threads(1)
    bundle = load_model(options.model)
    memory = bundle.memory
    assert memory is not None
    loaded = LoadedScene.new(Scene.load(options.scene), bundle.config, torch.device("cpu"))
    frames = loaded.candidates.keyframes
    frames = frames.select(torch.arange(options.keyframes) % len(frames))
    scene = Candidates.of_scene(frames)
    state = memory.init_state(1, bundle.config.resolution)
    fov, aspect = torch.tensor([loaded.scene.fov_deg]), torch.tensor([loaded.scene.pixel_aspect])
    memory.open(state, frames.colour[:1].float() / 127.5 - 1, frames.pose[:1], fov, aspect)
    last = torch.zeros(1, *memory.latent)
    actions = torch.zeros(1, 12, bundle.config.action_space.size)
    size = state.colour.shape[1]

    def poses(i: int) -> torch.Tensor:
        """Between two keyframes' poses."""
        place = frames.pose[(7 * i) % len(frames)]
        offset = torch.tensor([0.1, 0.2, 0, 1.5, 0, 0]) * torch.arange(1, 5)[:, None]
        return (place + offset)[None]

    for i in range(size - 1):  # a full ring of the session's own keyframes
        step = memory.next(state, last, actions, scene, poses(i))
        image = frames.colour[(7 * i) % len(frames)].float() / 127.5 - 1
        memory.commit(
            state, step._replace(view=step.view._replace(cover=step.view.cover * 0)), image.expand(1, 4, -1, -1, -1)
        )

    step = memory.next(state, last, actions, scene, poses(0))
    block = frames.colour[:4].float()[None] / 127.5 - 1
    parts: dict[str, Callable[[int], object]] = {
        "view (choice, gathering, rendering)": lambda i: memory.render(state, poses(i), scene),
        "view latent and channels": lambda i: memory.channels(step.view, last, step.view.cover[:, 0, 0, 0] > -1),
        "walls": lambda i: memory.stop_at_walls(state, poses(i), scene),
        "ego-motion": lambda i: memory.predict_motion(state, last, actions),
        "commit (depth network, writing)": lambda i: memory.commit(state, step, block),
    }
    table: dict[str, float] = {}
    for name, part in parts.items():
        times = []
        for i in range(options.repeats):
            began = time.thread_time()
            part(i)
            times.append(time.thread_time() - began)
        times.sort()
        table[name] = round(1000 * times[0], 2)
        print(f"{name:40} least {1000 * times[0]:6.2f} ms   median {1000 * times[len(times) // 2]:6.2f}", flush=True)
    print(json.dumps({"keyframes": options.keyframes, "least_ms": table}))


if __name__ == "__main__":
    main()
