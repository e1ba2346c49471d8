"""Held-out play beside what a model makes of it in a scene, and from one image.

    python bench/scenes.py MODEL SCENE PACK [--episodes 4] [--steps 100] -o OUT

For every held-out episode of the pack (of the scene's place): PSNR to the game's own frames at half size and sharpness
over the game's, of the memory's view alone, of the model along the recorded camera, of the model with its own camera
(ego-motion), and from the start image alone; and one contact sheet, rows in that order below the game's own.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from reverie import flow
from reverie.engine.scenes import LoadedScene
from reverie.models.checkpoint import load_model
from reverie.models.conditioning.spatial_memory import window_of
from reverie.scenes.scene import Scene
from reverie.train.spatial.packs import list_episodes, read_episode
from reverie.train.spatial.store import common_actions, half_size, psnr

PICKED = (0, 8, 16, 24, 36, 48, 64, 96, 128, 192, 256, 320, 396)


@torch.inference_mode()
def roll(bundle, frame, actions, poses, fov, aspect, scene, own_camera, steps, memory_only=False):
    """Generates along recorded actions.  Returns (f, 3, h, w) frames of the model, and of the memory, at half size."""
    model, memory, tokenizer = bundle.model, bundle.memory, bundle.tokenizer
    size = frame.shape[-2:]
    state = model.new_state(1)
    decoder = tokenizer.new_decoder_state(1, *size)
    keyframes = memory.init_state(1, tuple(size))
    generator = torch.Generator().manual_seed(0)
    z = tokenizer.encode(frame[:, None])
    flow.begin(model, z, bundle.image_encoder(frame), bundle.config.schedule, state, generator)
    shown = tokenizer.decode(z, decoder)
    memory.open(keyframes, shown[:, -1], poses[:1], fov, aspect)
    out, views = [half_size(shown[0])], [half_size(shown[0])]
    for t in range(1, steps):
        rows = actions[None, 4 * t - 4 : 4 * t]
        given = None if own_camera else poses[None, 4 * t - 3 : 4 * t + 1]
        step = memory.next(keyframes, state.last, window_of(state.actions, rows), scene, given)
        views.append(step.view.colour[0])
        if memory_only:
            keyframes.camera.copy_(step.poses[:, -1])
            continue
        z = flow.advance(model, rows, bundle.config.schedule, state, generator, step.parts)
        shown = tokenizer.decode(z, decoder)
        memory.commit(keyframes, step, shown)
        out.append(half_size(shown[0]))
    return torch.cat(out), torch.cat(views)


def sharpness(frame: Tensor) -> float:
    return max((frame[..., 1:] - frame[..., :-1]).abs().mean().item(), 1e-6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path)
    parser.add_argument("scene", type=Path)
    parser.add_argument("pack", type=Path)
    parser.add_argument("--place", default="")
    parser.add_argument("--episodes", type=int, default=4)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    bundle = load_model(options.model)
    scene = Scene.load(options.scene)
    loaded = LoadedScene.new(scene, bundle.config, torch.device("cpu"))
    fov, aspect = torch.tensor([scene.fov_deg]), torch.tensor([scene.pixel_aspect])
    sheet: list[Tensor] = []
    figures: dict[str, list] = {}
    count = 0
    for info, path in list_episodes([options.pack]):
        episode = read_episode(info, path, 4 * options.steps - 3)
        if episode.place != options.place or count == options.episodes:
            continue
        count += 1
        steps = 1 + (len(episode.frames) - 1) // 4
        actions = torch.from_numpy(common_actions(episode.actions, info.action_space, bundle.config.action_space))
        poses = torch.from_numpy(episode.pose)
        video = torch.from_numpy(episode.frames).permute(0, 3, 1, 2)
        true = half_size(video)
        frame = video[:1].float() / 127.5 - 1
        given = (bundle, frame, actions, poses, fov, aspect)
        picked = [p for p in PICKED if p < len(true)]
        in_scene, _ = roll(*given, loaded.candidates, False, steps)
        _, alone = roll(*given, loaded.candidates, False, steps, memory_only=True)
        own, _ = roll(*given, loaded.candidates, True, steps)
        image, _ = roll(*given, None, True, steps)
        still = true[:1].expand_as(true)
        rows = {"memory alone": alone, "scene": in_scene, "scene, own camera": own, "image": image, "still": still}
        for name, frames in rows.items():
            errors = (frames.clamp(-1, 1) - true).square().mean((1, 2, 3))
            figures.setdefault(name, []).append(
                {
                    "all": psnr(errors[1:].mean().item()),
                    "4 s": psnr(errors[88:113].mean().item()),
                    "16 s": psnr(errors[-25:].mean().item()),
                    "sharp 16 s": float(np.mean([sharpness(frames[p]) / sharpness(true[p]) for p in picked[-3:]])),
                }
            )
        shown = (true, *list(rows.values())[:-1])
        sheet += [torch.cat([frames[p].clamp(-1, 1) for p in picked], 2) for frames in shown]
    table = {
        name: {key: round(float(np.mean([one[key] for one in many])), 2) for key in many[0]}
        for name, many in figures.items()
    }
    options.output.mkdir(parents=True, exist_ok=True)
    width = max(row.shape[2] for row in sheet)
    image_ = torch.cat([F.pad(row, (0, width - row.shape[2])) for row in sheet], 1)
    pixels = ((image_ + 1) * 127.5).byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(options.output / f"{scene.name}.jpg", quality=85)
    (options.output / f"{scene.name}.json").write_text(json.dumps(table, indent=1) + "\n")
    for name, row in table.items():
        print(f"{scene.name:14} {name:18} " + "  ".join(f"{key} {value}" for key, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
