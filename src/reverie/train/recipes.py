"""Recipes: complete plans for a budget of compute, from packs of recordings to a model folder.

    python3 -m reverie.train.recipes --packs packs/* --held-out held/* --tokenizer weights/nano -o out --minutes 8

runs decode and encode, geometry, views, training, sheets and export on the clock, with torch, numpy, OpenCV and
safetensors alone, and stops itself in time.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reverie.errors import TrainError
from reverie.models.checkpoint import ModelBundle, ModelConfig, from_json, load_model, load_weights
from reverie.models.presets import PRESETS
from reverie.models.tokenizer import VideoTokenizer
from reverie.train.loop import Trainer, TrainerConfig, pick_device
from reverie.train.spatial.figures import contact_sheet
from reverie.train.spatial.geometry import train_geometry
from reverie.train.spatial.store import Store
from reverie.train.spatial.task import SpatialPlan, SpatialTask
from reverie.train.spatial.views import standard_views
from reverie.types import ActionSpace


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How much of everything.

    preset: sizes; seconds: of all stages; lr: the highest learning rate; ema: of the averaged weights; depth_seconds,
    ego_seconds: of the geometry networks; tail_seconds: kept for sheets and export; keyframes: of a place's scene while
    training; limit, held_limit: episodes of each pack, to train on and held out; max_frames: of an episode; threads:
    that decode; sheet_steps: length of the contact sheets' rollouts, 0 for none; decode: whether sessions' own frames
    are taken through the decoder; half_known: whether half-known scenes are trained.
    """

    preset: str
    seconds: float
    depth_seconds: float
    ego_seconds: float
    tail_seconds: float
    keyframes: int
    plan: SpatialPlan
    lr: float = 1.5e-3
    ema: float = 0.998
    limit: int | None = None
    max_frames: int | None = None
    threads: int = 2
    sheet_steps: int = 100
    decode: bool = True
    half_known: bool = True
    held_limit: int | None = None


def gpu_minutes(minutes: float, cores: int | None = None) -> Recipe:
    """One short visit to a large GPU: an eighth for geometry, most for training, the rest for sheets and export."""
    seconds = 60 * minutes
    return Recipe(
        preset="nano",
        seconds=seconds,
        depth_seconds=min(45.0, 0.09 * seconds),
        ego_seconds=min(20.0, 0.05 * seconds),
        tail_seconds=min(60.0, 0.125 * seconds),
        keyframes=450,
        plan=SpatialPlan(),
        threads=max(2, (cores or os.cpu_count() or 2) - 2),
    )


def gpu_refining_minutes(minutes: float, cores: int | None = None) -> Recipe:
    """A shorter visit that goes on from a model: own rollouts and the discriminator from the beginning."""
    recipe = gpu_minutes(minutes, cores)
    plan = replace(
        recipe.plan,
        own_from=0.02,
        own_share=0.55,
        own_sessions=96,
        own_steps=40,
        own_times=5,
        adversarial_from=0.0,
        adversarial_full=0.2,
    )
    return replace(recipe, plan=plan, depth_seconds=0, ego_seconds=0, lr=8e-4, ema=0.996)


def cpu_minutes(minutes: float) -> Recipe:
    """What two cores can do for one pass: small batches, one noisy copy, most of it pure noise, few episodes."""
    seconds = 60 * minutes
    return Recipe(
        preset="nano",
        seconds=seconds,
        depth_seconds=min(300.0, 0.1 * seconds),
        ego_seconds=min(120.0, 0.04 * seconds),
        tail_seconds=20.0,
        keyframes=450,
        plan=SpatialPlan(
            batch=3, copies=1, pure_noise=0.9, clip_steps=9, own_share=0.0, own_from=2.0, adversarial_from=2.0
        ),
        lr=1.0e-3,
        threads=2,
        limit=9,
        held_limit=1,
        sheet_steps=0,
        decode=False,
        half_known=False,
    )


def rehearsal(minutes: float) -> Recipe:
    """`gpu_minutes` at toy size on a CPU: every line of it runs."""
    return Recipe(
        preset="nano",
        seconds=60 * minutes,
        depth_seconds=5,
        ego_seconds=3,
        tail_seconds=20,
        keyframes=40,
        plan=SpatialPlan(
            batch=2,
            clip_steps=5,
            own_sessions=2,
            own_steps=6,
            own_times=2,
            own_from=0.1,
            own_share=0.9,
            shortcut_from=0.05,
            adversarial_from=0.5,
            adversarial_full=0.6,
        ),
        limit=2,
        max_frames=61,
        sheet_steps=6,
    )


def run(
    recipe: Recipe,
    packs: list[Path],
    held_out: list[Path],
    tokenizer_from: Path,
    output: Path,
    device: str = "auto",
    use_compiler: bool = False,
    say: Callable[[str], None] | None = None,
    start: Path | None = None,
) -> dict[str, Any]:
    """Runs every stage; returns the figures.

    start: a model folder of the same sizes to go on from: its geometry networks are taken as they are.  Raises
    TrainError where the budget is too small for what comes first.
    """
    begun = time.monotonic()
    output.mkdir(parents=True, exist_ok=True)

    def tell(line: str) -> None:
        line = f"[{time.monotonic() - begun:6.1f}] {line}"
        print(line, flush=True)
        with (output / "log.txt").open("a", encoding="utf-8") as log:
            log.write(line + "\n")

    say = say or tell
    on = pick_device(device)
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    torch.backends.cuda.enable_cudnn_sdp(False)  # its masked attention was not checked against ours
    say(f"torch {torch.__version__}, {torch.cuda.get_device_name() if on.type == 'cuda' else 'cpu'}")
    bundle = new_bundle(recipe, tokenizer_from) if start is None else trainable(load_model(start))
    bundle.tokenizer.to(on)
    space = bundle.config.action_space

    def read(folders: list[Path], limit: int | None) -> Store:
        assert isinstance(bundle.tokenizer, VideoTokenizer)
        return Store(
            folders,
            bundle.tokenizer,
            space,
            on,
            threads=recipe.threads,
            limit=limit,
            max_frames=recipe.max_frames,
            decode=recipe.decode,
        )

    train, held = read(packs, recipe.limit), read(held_out, recipe.held_limit or recipe.limit)
    say(
        f"{train.count} steps to train on, {held.count} held out: "
        + ", ".join(f"{game} {int((train.game == i).sum())}" for i, game in enumerate(train.games))
    )
    assert bundle.memory is not None
    bundle.memory.to(on)
    if start is None:
        batches = (64, 512) if on.type == "cuda" else (8, 64)
        train_geometry(bundle.memory, train, held, recipe.depth_seconds, recipe.ego_seconds, say, batches)
    else:
        for store in (train, held):
            store.measure_depth(bundle.memory.depth)
    views, held_views, scene = standard_views(train, held, bundle.memory, recipe.keyframes, say, recipe.half_known)
    bundle.model.to(on)
    task = SpatialTask(bundle, train, held, recipe.plan, views, held_views, scene, say)
    left = recipe.seconds - (time.monotonic() - begun) - recipe.tail_seconds
    if left < 5:
        raise TrainError(f"a budget of {recipe.seconds:.0f} s leaves {left:.0f} s for training; give more minutes")
    say(f"training for {left:.0f} s")
    trainer = Trainer(
        task,
        TrainerConfig(
            folder=output / "run",
            minutes=left / 60,
            lr=recipe.lr,
            muon=True,
            warmup_steps=60,
            decay=0.5,
            ema=recipe.ema,
            device=str(on),
            dtype="bfloat16" if on.type == "cuda" else "float32",
            compile=use_compiler,
            skip_above=100.0,
            checkpoint_minutes=4,
            validate_minutes=max(0.5, left / 60 / 6),
            validate_first=False,
            track="none",
        ),
    )
    metrics = trainer.run()
    say("trained: " + ", ".join(f"{k} {v:.4f}" for k, v in metrics.items()))
    if not recipe.sheet_steps:
        say("done")
        return {}
    with trainer.averaged_weights(), torch.compiler.set_stance("force_eager"):
        figures = contact_sheet(bundle, held, scene, recipe.plan.schedule, output, recipe.sheet_steps)
    for kind in ("scene", "scene-own-camera", "image"):
        for one in figures[kind]:
            say(f"{kind} {one['game']}: psnr {one['psnr']} sharp {one['sharp']}")
    say("done")
    return figures


def new_bundle(recipe: Recipe, tokenizer_from: Path) -> ModelBundle:
    """Fresh networks of the preset with a trained tokenizer, and the action space of the model that it comes from."""
    from reverie.models.tokenizer import TokenizerConfig

    raw = json.loads((tokenizer_from / "config.json").read_text())
    space = ActionSpace(tuple(raw["world"]["action_space"]["keys"]), raw["world"]["action_space"]["mouse"])
    preset = PRESETS[recipe.preset](space)
    config = ModelConfig(
        name=recipe.preset,
        resolution=preset.resolution,
        schedule=recipe.plan.schedule,
        world=preset.world,
        tokenizer=from_json(TokenizerConfig, raw["tokenizer"]),
        image_encoder=preset.image_encoder,
        memory=preset.memory,
    )
    bundle = ModelBundle.new(config)
    load_weights(tokenizer_from / "tokenizer.safetensors", bundle.tokenizer)
    bundle.tokenizer.eval().requires_grad_(False)
    return bundle


def trainable(bundle: ModelBundle) -> ModelBundle:
    """A loaded model whose world network and image encoder may be trained on."""
    for part in (bundle.model, bundle.image_encoder):
        assert isinstance(part, nn.Module)
        part.train().requires_grad_(True)
    return bundle


def changed_plan(plan: SpatialPlan, settings: list[str]) -> SpatialPlan:
    """The plan with some of its numbers changed, as `batch=32`.  Raises TrainError for what it does not have."""
    numbers = {f.name: type(getattr(plan, f.name)) for f in fields(plan) if f.name != "schedule"}
    changes: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        try:
            changes[name] = numbers[name](text)
        except (KeyError, ValueError):
            known = ", ".join(numbers)
            raise TrainError(f"--plan takes NAME=NUMBER, got {setting!r}; the plan has {known}") from None
        if not equals:
            raise TrainError(f"--plan takes NAME=NUMBER, got {setting!r}")
    return replace(plan, **changes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--packs", nargs="+", type=Path, required=True)
    parser.add_argument("--held-out", nargs="+", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True, help="a model folder whose tokenizer is used")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--cpu", action="store_true", help="the plan for two cores")
    parser.add_argument("--rehearse", action="store_true", help="toy size: every line runs, on a CPU")
    parser.add_argument("--no-sheets", action="store_true", help="no contact sheets at the end")
    parser.add_argument("--limit", type=int, help="episodes of each pack")
    parser.add_argument("--start", type=Path, help="a model folder to go on from")
    parser.add_argument("--plan", nargs="+", default=[], metavar="NAME=NUMBER", help="fields of the training's plan")
    options = parser.parse_args()
    on_gpu = gpu_minutes if options.start is None else gpu_refining_minutes
    recipe = (rehearsal if options.rehearse else cpu_minutes if options.cpu else on_gpu)(options.minutes)
    if options.no_sheets:
        recipe = replace(recipe, sheet_steps=0, tail_seconds=12.0)
    if options.limit is not None:
        recipe = replace(recipe, limit=options.limit)
    recipe = replace(recipe, plan=changed_plan(recipe.plan, options.plan))
    run(
        recipe,
        options.packs,
        options.held_out,
        options.tokenizer,
        options.output,
        options.device,
        options.compile,
        start=options.start,
    )


if __name__ == "__main__":
    main()
