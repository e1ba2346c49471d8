"""Figures and contact sheets of held-out play while a model with a spatial memory is trained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from reverie import sampling
from reverie.models.checkpoint import ModelBundle
from reverie.models.schedule import Schedule
from reverie.train.spatial.clips import Clips, estimate, recorded_clip, smallest_step
from reverie.train.spatial.encoded_recordings import Store
from reverie.train.spatial.rollouts import image_tokens, roll_out
from reverie.train.spatial.views import ScenePool, ViewSet, with_previous
from reverie.vision.pixels import psnr_db, shrink_frames, to_pixels

PICKED = (0, 8, 16, 24, 36, 48, 64, 96, 128, 192, 256, 320, 396)
"""Frames on contact sheets."""
CONTEXT_NOISE = 0.06
CLIPS_A_GAME = 32
MIN_STEPS = 40
"""Shorter episodes are not rolled out."""


def held_out_figures(
    bundle: ModelBundle, views: Mapping[str, ViewSet], clip_steps: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Squared errors of a latent step from pure noise: in one pass labelled with the smallest (mse) and with the
    largest (one_step_mse) step size, of the memory's view alone and of the step before.

    views: by kind, such as `scene` and `image`.  Returns them by kind, game and name, and their means over the games.
    """
    figures: dict[str, float] = {}
    means: dict[str, list[float]] = {}
    for kind, view in views.items():
        for number, game in enumerate(view.store.games):
            for name, value in _figures_of_game(bundle, view, number, clip_steps).items():
                figures[f"{kind}_{game}_{name}"] = value
                means.setdefault(f"{kind}_{name}", []).append(value)
    return figures, {name: float(np.mean(values)) for name, values in means.items()}


def _figures_of_game(bundle: ModelBundle, view: ViewSet, game: int, clip_steps: int) -> dict[str, float]:
    store, last, world, encoder = view.store, clip_steps - 1, bundle.model, bundle.image_encoder
    assert isinstance(encoder, nn.Module)
    steps = np.arange(max(0, store.count - last))
    good = (view.start[steps] == view.start[steps + last]) & (store.episode[steps] == store.episode[steps + last])
    steps = steps[good & (store.game[steps] == game)]
    if not len(steps):
        return {}
    steps = steps[:: max(1, len(steps) // CLIPS_A_GAME)][:CLIPS_A_GAME]
    generator = torch.Generator(store.device).manual_seed(0)
    sums: dict[str, list[float]] = {}

    def noise(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, device=like.device)

    for part in np.array_split(steps, max(1, len(steps) // 16)):
        context, parts, drawn, windows, start = recorded_clip(view, torch.from_numpy(part).to(store.device), clip_steps)
        packed = with_previous(parts, drawn, context)
        levels = torch.full(context.shape[:2], CONTEXT_NOISE, device=store.device)
        seen = sampling.add_noise(context, noise(context), levels)
        clean = context[:, 1:]
        with store.autocast():
            image = image_tokens(encoder, store, start)
            clips = Clips(context, context, context, packed, windows, image, torch.ones_like(clean[:, :, 0]), False)
            for name, size in (("mse", smallest_step(world)), ("one_step_mse", 1.0)):
                sigma = torch.ones(clean.shape[:2], device=store.device)
                out = estimate(world, clips, seen, levels, noise(clean), sigma, sigma * size)
                sums.setdefault(name, []).append((out.float() - clean).square().mean().item())
        assert packed.base is not None
        sums.setdefault("memory_mse", []).append((packed.base[:, 1:] - clean).square().mean().item())
        sums.setdefault("repeat_mse", []).append((clean - context[:, :-1]).square().mean().item())
    return {name: float(np.mean(values)) for name, values in sums.items()}


@torch.no_grad()
def contact_sheet(
    bundle: ModelBundle,
    store: Store,
    pool: ScenePool,
    schedule: Schedule,
    folder: Path,
    steps: int,
    seeds: int = 2,
) -> dict[str, Any]:
    """Held-out play, rows of the game, in a scene along the recorded camera and with the model's own, and from one
    image: `folder`/sheet.jpg, and PSNR and sharpness over the game's in sheet.json.

    steps: of the rollouts, at most; seeds: episodes of each game.
    """
    first = _firsts(store, min(steps, MIN_STEPS), seeds)
    ends = np.array([store.first[int(store.episode[f]) + 1] for f in first])
    steps = int(min(steps, (ends - first).min()))
    pick = [i for i in PICKED if i < 4 * steps - 3]
    true = [to_pixels(store.views[f : f + steps].flatten(0, 1)[3:][pick]) for f in first]
    candidates = pool.candidates([store.places[p] for p in store.place[first]], None)
    rows = [[torch.cat(list(there.cpu()), 2)] for there in true]
    figures: dict[str, Any] = {"frames": pick}
    for kind, scene, camera in (
        ("scene", candidates, False),
        ("scene-own-camera", candidates, True),
        ("image", None, False),
    ):
        film = roll_out(bundle, store, first, steps, schedule, scene, camera, keep_frames=True).frames
        assert film is not None
        for i, there in enumerate(true):
            here = shrink_frames(film[i][pick])
            rows[i].append(torch.cat(list(here.cpu()), 2))
            figures.setdefault(kind, []).append(_compared(store.games[store.game[first[i]]], here, there))
    figures["still"] = [
        _compared(store.games[store.game[f]], there[:1].expand_as(there), there)
        for f, there in zip(first, true, strict=True)
    ]
    sheet = torch.cat([row for group in rows for row in group], 1)
    Image.fromarray(((sheet + 1) * 127.5).clamp(0, 255).byte().permute(1, 2, 0).numpy()).save(
        folder / "sheet.jpg", quality=85
    )
    (folder / "sheet.json").write_text(json.dumps(figures, indent=0))
    return figures


def _firsts(store: Store, least: int, seeds: int) -> np.ndarray:
    """The first steps of some episodes of each game that have at least so many steps."""
    found: list[int] = []
    for number in range(len(store.games)):
        episodes = zip(store.first[:-1], store.first[1:], strict=True)
        found += [f for f, end in episodes if store.game[f] == number and end - f >= least][:seeds]
    return np.array(found)


def _compared(game: str, here: Tensor, there: Tensor) -> dict[str, Any]:
    """PSNR in dB and sharpness over the game's, frame by frame."""
    errors = [psnr_db(e.item()) for e in (here - there).square().mean((1, 2, 3))]
    sharp = [_sharpness(a) / _sharpness(b) for a, b in zip(here, there, strict=True)]
    return {"game": game, "psnr": [round(x, 1) for x in errors], "sharp": [round(x, 2) for x in sharp]}


def _sharpness(frame: Tensor) -> float:
    """Mean absolute difference of neighbouring pixels."""
    return max((frame[..., 1:] - frame[..., :-1]).abs().mean().item(), 1e-6)
