"""Recipes: every stage from recordings to a model folder, on the clock.

    reverie train nano --recipe cpu-12h -o runs/nano
    python3 -m reverie.train.recipes --recipe gpu-8min --packs packs/* --held-out held/* --tokenizer weights/nano -o out

The second line needs torch, numpy, OpenCV and safetensors alone.  A run that was killed goes on with the same command:
finished stages are on disk, views are computed again, and training goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reverie.errors import CheckpointError, TrainError
from reverie.hardware import num_cores
from reverie.models.checkpoint import (
    ModelBundle,
    ModelConfig,
    from_json,
    load_model,
    load_weights,
    save_weights,
    shard_bytes_of,
)
from reverie.models.conditioning.spatial_memory import SpatialMemory
from reverie.models.presets import PRESETS, Preset
from reverie.models.tokenizer import TokenizerConfig, VideoTokenizer
from reverie.models.weights import fingerprint
from reverie.train.checkpoints import Checkpoints, FolderLock, Progress
from reverie.train.config import TrainerConfig
from reverie.train.device import matrix_precision, pick_device
from reverie.train.display import SILENT, Display, PlainLines
from reverie.train.parallel import Ranks
from reverie.train.spatial.encoded_recordings import Store
from reverie.train.spatial.figures import contact_sheet
from reverie.train.spatial.geometry import train_depth_of, train_ego_motion_of
from reverie.train.spatial.latent_cache import LatentCache
from reverie.train.spatial.machine import check_data_fits, check_machine, disk_needed_gib, gpu_memory_gib
from reverie.train.spatial.packs import PackSummary, check_packs
from reverie.train.spatial.plans import GAMES, Recipe, changed_plan, recipe_named, rehearsal
from reverie.train.spatial.stages import Stages, training_seconds
from reverie.train.spatial.task import SpatialTask
from reverie.train.spatial.views import standard_views
from reverie.train.trainer import Trainer
from reverie.types import ActionSpace

Say = Callable[[str], None]


def run(
    recipe: Recipe,
    packs: Sequence[Path],
    held_out: Sequence[Path],
    tokenizer_from: Path,
    output: Path,
    device: str = "auto",
    use_compiler: bool = False,
    say: Say = lambda line: None,
    start: Path | None = None,
    datasets: Sequence[Path] = (),
    games: Sequence[str] = GAMES,
    display: Display = SILENT,
    max_shard_mb: float | None = None,
) -> dict[str, Any]:
    """Runs every stage that is not done yet; returns the figures.

    packs, held_out: where there are none, `datasets` are packed, and where there are none either, `games` are recorded.
    say: called with each line of the log, which begins with the seconds of this start.  display: shows the training.
    start: a model folder of the same sizes to go on from: its geometry networks are taken as they are.
    max_shard_mb: largest file of the model's weights.
    Raises TrainError where the budget is too small for what comes first, for a folder that was begun otherwise, and
    for a GPU that fails; DataError for packs that cannot be used.
    """
    if bool(packs) != bool(held_out):
        raise TrainError(
            "packs to train on and held-out packs go together; give both --packs and --held-out, or neither"
        )
    if Ranks.from_environment().count > 1:
        raise TrainError("a recipe runs in one process, on one GPU; start it without torchrun")
    shard_bytes = shard_bytes_of(max_shard_mb)
    on = pick_device(device)
    torch.manual_seed(0)
    torch.backends.cuda.enable_cudnn_sdp(False)  # its masked attention was not checked against ours
    with FolderLock(output), matrix_precision(on):
        say = _log(output, say)
        begun = _Begun(recipe, tokenizer_from, start)
        found = begun.check(packs, held_out) if packs else None
        check_machine(
            recipe, on, output, disk_needed_gib(recipe, _steps(found), begun.preset, _recorded(recipe, found))
        )
        first = () if packs else ("pack",) if datasets else ("record", "pack")
        names = (*first, "encode", *(() if start else ("depth", "ego-motion")), "views", "training", "sheets")
        data: dict[str, Any] = {"packs": found.identity} if found else {"games": list(games)}
        config = begun.bundle.config
        if datasets and not packs:
            from reverie.train.spatial.gather import check_datasets

            data = {"datasets": check_datasets(datasets, config.resolution, config.action_space)}
        given = begun.identity | {"recipe": _plain(recipe), "data": data}
        stages = Stages(output, names, given, recipe.seconds, say)
        if stages.is_done("sheets"):
            say(f"done already: {output / 'run/model'}")
            return _figures(output)
        if not packs:
            from reverie.train.spatial.gather import check_games, gather_packs

            if not datasets and not stages.is_done("record"):
                check_games(games, config.resolution)
            packs, held_out = gather_packs(recipe, datasets, games, output, num_cores(), stages, say)
            found = begun.check(packs, held_out)
        assert found is not None
        check_data_fits(found.steps, found.episodes, begun.preset, recipe, on)
        made = _Run(recipe, begun.bundle, stages, output, on, use_compiler, say, display, start is None, shard_bytes)
        return made.run(packs, held_out)


class _Begun:
    """Networks that a run begins with.  identity: of the tokenizer and of the start."""

    def __init__(self, recipe: Recipe, tokenizer_from: Path, start: Path | None) -> None:
        self.recipe = recipe
        self.bundle = new_bundle(recipe, tokenizer_from) if start is None else trainable(load_model(start))
        self.preset: Preset = PRESETS[recipe.preset](self.bundle.config.action_space)
        weights = self.bundle.model.state_dict() if start is not None else None
        self.identity: dict[str, Any] = {
            "tokenizer": fingerprint(self.bundle.tokenizer.state_dict()),
            "start": None if weights is None else fingerprint(weights),
        }

    def check(self, packs: Sequence[Path], held_out: Sequence[Path]) -> PackSummary:
        """Sums up the contents of both kinds of packs.  Raises DataError as `check_packs`."""
        recipe, config = self.recipe, self.bundle.config
        train = check_packs(packs, config.resolution, config.action_space, recipe.limit, recipe.max_frames)
        limit = recipe.held_limit or recipe.limit
        held = check_packs(held_out, config.resolution, config.action_space, limit, recipe.max_frames)
        return PackSummary(train.episodes + held.episodes, train.steps + held.steps, train.identity + held.identity)


class _Run:
    """The stages on the device."""

    def __init__(
        self,
        recipe: Recipe,
        bundle: ModelBundle,
        stages: Stages,
        output: Path,
        device: torch.device,
        use_compiler: bool,
        say: Say,
        display: Display,
        is_new: bool,
        shard_bytes: int | None,
    ) -> None:
        assert bundle.memory is not None
        self.recipe, self.bundle, self.memory, self.stages, self.output = recipe, bundle, bundle.memory, stages, output
        self.device, self.use_compiler, self.is_new, self.shard_bytes = device, use_compiler, is_new, shard_bytes
        self.say, self.display = say, display

    def run(self, packs: Sequence[Path], held_out: Sequence[Path]) -> dict[str, Any]:
        recipe, bundle, stages = self.recipe, self.bundle, self.stages
        gpu = torch.cuda.get_device_name() if self.device.type == "cuda" else "cpu"
        self.say(f"torch {torch.__version__}, {gpu}")
        with stages.stage("encode"):
            for module in (bundle.tokenizer, self.memory, bundle.model):
                module.to(self.device)
            train, held = self._read(packs, recipe.limit), self._read(held_out, recipe.held_limit or recipe.limit)
            games = (f"{game} {int((train.game == i).sum())}" for i, game in enumerate(train.games))
            self.say(f"{train.count} steps to train on, {held.count} held out: {', '.join(games)}")
        self._train_geometry(train, held)
        with stages.stage("views"):
            made = standard_views(train, held, self.memory, recipe.keyframes, self.say, recipe.half_known)
        views, held_views, scene = made
        with stages.stage("training"):
            task = SpatialTask(bundle, train, held, recipe.plan, views, held_views, scene, self.say, self.shard_bytes)
            trainer = self._trainer(task)
            metrics = trainer.run()
            self.say("trained: " + ", ".join(f"{k} {v:.4f}" for k, v in metrics.items()))
        figures: dict[str, Any] = {}
        with stages.stage("sheets"):
            if recipe.sheet_steps:
                figures = self._sheets(trainer, held, scene)
        self.say(f"done: {self.output / 'run/model'}")
        return figures

    def _read(self, folders: Sequence[Path], limit: int | None) -> Store:
        recipe, tokenizer = self.recipe, self.bundle.tokenizer
        assert isinstance(tokenizer, VideoTokenizer)
        return Store(
            folders,
            tokenizer,
            self.bundle.config.action_space,
            self.device,
            threads=recipe.threads,
            limit=limit,
            max_frames=recipe.max_frames,
            decode=recipe.decode,
            cache=LatentCache(self.output / "latents", tokenizer) if recipe.keep_latents else None,
        )

    def _train_geometry(self, train: Store, held: Store) -> None:
        """Depth, then ego-motion and the view encoder, each kept on disk when it is done."""
        stages, recipe, say, memory = self.stages, self.recipe, self.say, self.memory
        batches = (64, 512) if self.device.type == "cuda" else (8, 64)
        file = self.output / "geometry.safetensors"
        if self.is_new and stages.is_done("depth"):
            _load(file, memory)
        elif self.is_new:
            with stages.stage("depth"):
                train_depth_of(memory, train, held, recipe.depth_seconds, say, batches[0])
                save_weights(file, memory)
        memory.eval().requires_grad_(False)
        for store in (train, held):
            with stages.device_failures():
                store.measure_depth(memory.depth)
        if self.is_new and not stages.is_done("ego-motion"):
            memory.ego_motion.train().requires_grad_(True)
            with stages.stage("ego-motion"):
                train_ego_motion_of(memory, train, held, recipe.ego_seconds, say, batches[1])
                save_weights(file, memory)

    def _budget(self) -> dict[str, Any]:
        """Budget of the training: steps, or the rest of the seconds."""
        recipe, stages = self.recipe, self.stages
        if recipe.steps is not None:
            return {"steps": recipe.steps}
        seconds = training_seconds(stages, recipe.tail_seconds, Checkpoints(self.output / "run").elapsed_s())
        stages.keep("training_seconds", seconds)
        return {"minutes": seconds / 60}

    def _trainer(self, task: SpatialTask) -> Trainer:
        recipe, on, folder = self.recipe, self.device, self.output / "run"

        def tell(progress: Progress) -> None:
            left = progress.elapsed_s / 60 * (1 / max(task.progress, 1e-3) - 1)
            self.say(
                f"training: step {progress.step}, {100 * task.progress:.0f} %, {left:.1f} minutes left, then sheets; "
                "exported the averaged weights"
            )

        budget = self._budget()
        minutes = budget.get("minutes", recipe.seconds / 60)
        self.say(f"training for {budget}; the model so far: {folder / 'model'}")
        config = TrainerConfig(
            folder=folder,
            **budget,
            lr=recipe.lr,
            muon=True,
            warmup_steps=60,
            decay=0.5,
            ema=recipe.ema,
            device=str(on),
            compile=self.use_compiler,
            skip_above=100.0,
            checkpoint_minutes=recipe.export_minutes,
            validate_minutes=max(0.5, minutes / 6),
            validate_first=False,
            track="none",
        )
        return Trainer(task, config, tell, self.display)

    def _sheets(self, trainer: Trainer, held: Store, scene: Any) -> dict[str, Any]:
        recipe = self.recipe
        with trainer.averaged_weights(), torch.compiler.set_stance("force_eager"):
            figures = contact_sheet(self.bundle, held, scene, recipe.plan.schedule, self.output, recipe.sheet_steps)
        for kind in ("scene", "scene-own-camera", "image"):
            for one in figures[kind]:
                self.say(f"{kind} {one['game']}: psnr {one['psnr']} sharp {one['sharp']}")
        return figures


def new_bundle(recipe: Recipe, tokenizer_from: Path) -> ModelBundle:
    """Fresh networks of the preset with a trained tokenizer, and the action space of the model that it comes from.

    Raises CheckpointError for a folder that is no model's.
    """
    try:
        raw = json.loads((tokenizer_from / "config.json").read_text(encoding="utf-8"))
        space = ActionSpace(tuple(raw["world"]["action_space"]["keys"]), raw["world"]["action_space"]["mouse"])
        tokenizer = from_json(TokenizerConfig, raw["tokenizer"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{tokenizer_from} is no model folder ({error!r}); give one with --tokenizer") from error
    preset = PRESETS[recipe.preset](space)
    config = ModelConfig(
        name=recipe.preset,
        resolution=preset.resolution,
        schedule=recipe.plan.schedule,
        world=preset.world,
        tokenizer=tokenizer,
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


def _load(file: Path, memory: SpatialMemory) -> None:
    try:
        load_weights(file, memory)
    except CheckpointError as error:
        raise TrainError(
            f"{file} is damaged or gone ({error}); delete stages.json beside it to train the geometry again"
        ) from error


def _log(output: Path, say: Say) -> Say:
    """Lines for `say` and in `output`/log.txt, with the seconds of this start."""
    begun = time.monotonic()

    def tell(line: str) -> None:
        line = f"[{time.monotonic() - begun:6.1f}] {line}"
        say(line)
        with (output / "log.txt").open("a", encoding="utf-8") as log:
            log.write(line + "\n")

    return tell


def _steps(found: PackSummary | None) -> int:
    return found.steps if found else 0


def _recorded(recipe: Recipe, found: PackSummary | None) -> int:
    """Frames that may be recorded here, at least: one place of each game, and its packs."""
    return 0 if found else 2 * len(GAMES) * recipe.recording.place_frames


def _plain(recipe: Recipe) -> dict[str, Any]:
    """The recipe for comparison; how many threads decode it does not matter."""
    return {name: value for name, value in asdict(recipe).items() if name not in ("threads", "cores")}


def _figures(output: Path) -> dict[str, Any]:
    path = output / "sheet.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--recipe", help="cpu-12h, gpu-10min, or the same with another time")
    parser.add_argument("--packs", nargs="+", type=Path, required=True)
    parser.add_argument("--held-out", nargs="+", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True, help="a model folder whose tokenizer is used")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=8.0, help="where no recipe is named")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--cpu", action="store_true", help="the plan for two cores")
    parser.add_argument("--rehearse", action="store_true", help="toy size: every line runs, on a CPU")
    parser.add_argument("--no-sheets", action="store_true", help="no contact sheets at the end")
    parser.add_argument("--limit", type=int, help="episodes of each pack")
    parser.add_argument("--start", type=Path, help="a model folder to go on from")
    parser.add_argument("--max-shard-mb", type=float, help="largest file of the model's weights")
    parser.add_argument("--plan", nargs="+", default=[], metavar="NAME=NUMBER", help="fields of the training's plan")
    options = parser.parse_args()
    name = f"cpu-{options.minutes:g}min" if options.cpu else options.recipe or f"gpu-{options.minutes:g}min"
    if options.rehearse:
        recipe = rehearsal(options.minutes)
    else:
        recipe = recipe_named(name, gpu_memory_gib() or 80.0, num_cores(), refine=options.start is not None)
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
        partial(print, flush=True),
        start=options.start,
        display=PlainLines(partial(print, file=sys.stderr, flush=True)),
        max_shard_mb=options.max_shard_mb,
    )


if __name__ == "__main__":
    main()
