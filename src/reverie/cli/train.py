"""`reverie train tokenizer | world | nano | geometry | idm | reward`."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from reverie.argument_markers import alias, positional
from reverie.errors import TrainError

if TYPE_CHECKING:
    from reverie.train.idm import TrainIdmConfig
    from reverie.train.reward import TrainRewardConfig
    from reverie.train.tokenizer import TrainTokenizerConfig
    from reverie.train.world_options import TrainWorldConfig

BUNDLED = Path(__file__).parents[1] / "weights" / "nano"


def train_tokenizer(config: TrainTokenizerConfig) -> None:
    """Trains a tokenizer, with a progress bar."""
    from reverie.cli.display import TrainingDisplay, tell
    from reverie.train import tokenizer
    from reverie.train.budget import announce

    announce(config, tell)
    tokenizer.train_tokenizer(config, TrainingDisplay())


def train_world(config: TrainWorldConfig) -> None:
    """Trains a world model, with a progress bar."""
    from reverie.cli.display import TrainingDisplay, tell
    from reverie.train import world
    from reverie.train.budget import announce

    announce(config, tell)
    world.train_world(config, TrainingDisplay())


def train_idm(config: TrainIdmConfig) -> None:
    """Trains an inverse-dynamics model, with a progress bar."""
    from reverie.cli.display import TrainingDisplay, tell
    from reverie.train import idm
    from reverie.train.budget import announce

    announce(config, tell)
    idm.train_idm(config, TrainingDisplay())


def train_reward(config: TrainRewardConfig) -> None:
    """Trains a reward, and prints its error beside the constant predictor's."""
    from reverie.cli.display import TrainingDisplay, tell
    from reverie.train import reward
    from reverie.train.budget import announce

    announce(config, tell)
    figures = reward.train_reward(config, TrainingDisplay())
    print(
        f"held-out squared error of a step's reward {figures['reward.mse']:.4g}, of the constant predictor "
        f"{figures['reward.constant_mse']:.4g} ({figures['reward.explained']:.0%} explained)"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainNanoConfig:
    """Train nano from recordings to a model folder within a budget.  Run it again to go on after a kill.

    Example: reverie train nano --recipe cpu-12h -o runs/nano
    Example: reverie train nano --recipe gpu-10min --packs packs/doom --held-out held-out/doom -o runs/nano

    Without data it records on this machine itself, on all cores.
    """

    recipe: str = "cpu-12h"
    """A plan and its budget: cpu-12h, gpu-10min, or the same with another time."""
    output: Annotated[Path, alias("-o")] = Path("runs/nano")
    """Folder of the run; the model is in run/model below it."""
    packs: tuple[Path, ...] = ()
    """Packs to train on (`reverie data pack`)."""
    held_out: tuple[Path, ...] = ()
    """Packs to measure on."""
    data: tuple[Path, ...] = ()
    """Recordings with poses and depth, which are packed first; every eighth episode is held out."""
    games: tuple[str, ...] = ()
    """Games to record where no data is given (default: vizdoom, city on foot, temple)."""
    tokenizer: Path = BUNDLED
    """A model folder whose tokenizer and keys are used."""
    start: Path | None = None
    """A model folder to go on from."""
    limit: int | None = None
    """Episodes of each pack, at most."""
    device: str = "auto"
    """auto, cuda or cpu."""
    compile: bool | None = None
    """Compile the transformer's pieces (default: on a GPU)."""
    max_shard_mb: float | None = None
    """Largest file of the model's weights; larger ones are sharded as on the Hugging Face Hub."""

    def __post_init__(self) -> None:
        if self.data and self.packs:
            raise TrainError("--data are recordings that are packed first, --packs are packs already; give one of them")
        if self.limit is not None and self.limit < 1:
            raise TrainError(f"--limit must be at least 1, got {self.limit}")


def train_nano(config: TrainNanoConfig) -> None:
    """Trains every stage that is not done yet, with a line a stage."""
    from reverie.cli.display import TrainingDisplay
    from reverie.hardware import num_cores
    from reverie.train.device import pick_device
    from reverie.train.recipes import run
    from reverie.train.spatial.machine import gpu_memory_gib
    from reverie.train.spatial.plans import GAMES, recipe_named

    recipe = recipe_named(config.recipe, gpu_memory_gib() or 80.0, num_cores(), refine=config.start is not None)
    if config.limit is not None:
        recipe = replace(recipe, limit=config.limit)
    on_gpu = pick_device(config.device).type == "cuda"
    run(
        recipe,
        config.packs,
        config.held_out,
        config.tokenizer,
        config.output,
        config.device,
        on_gpu if config.compile is None else config.compile,
        start=config.start,
        datasets=config.data,
        say=partial(print, flush=True),
        games=config.games or GAMES,
        display=TrainingDisplay(),
        max_shard_mb=config.max_shard_mb,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainGeometryConfig:
    """Train a model's geometry networks again, on recordings of games: depth, and how one moves where no scene says it.

    Of each recording every eighth episode is held out, and told how far depth and camera are off in it.

    Example: reverie train geometry nano recordings/walk recordings/doom --depth-minutes 60 -o models/nano
    """

    model: Annotated[str, positional()]
    """A model with a spatial memory: a folder, or a bundled one's name."""
    recordings: Annotated[tuple[Path, ...], positional()]
    """LeRobot datasets with camera poses and depth, one a game; each is drawn equally often."""
    output: Annotated[Path, alias("-o")]
    """The new model folder."""
    depth_minutes: float = 20.0
    """Minutes of training for the depth network, which goes on from what it is; 0 leaves it."""
    depth_batch: int = 16
    """Images of an update of the depth network; 64 suit a GPU."""
    epochs: int = 200
    """Passes through the recorded walks for the ego-motion network, which begins anew; 0 leaves it."""
    device: str = "auto"
    """auto, cuda or cpu."""

    def __post_init__(self) -> None:
        if self.depth_minutes < 0 or self.epochs < 0 or not (self.depth_minutes or self.epochs):
            raise TrainError(
                "--depth-minutes and --epochs must be at least 0, and one of them more, got "
                f"{self.depth_minutes:g} and {self.epochs}"
            )
        if self.depth_batch < 1:
            raise TrainError(f"--depth-batch must be at least 1, got {self.depth_batch}")


def train_geometry(config: TrainGeometryConfig) -> None:
    """Writes a copy of the model with other geometry networks, and prints their errors for each game."""
    import torch

    from reverie.engine.loading.models import find_model
    from reverie.models.checkpoint import file_of, load_model, save_weights
    from reverie.train.device import pick_device
    from reverie.train.spatial.depth import check_depth, read_depth_images, train_depth
    from reverie.train.spatial.walks import fit_ego_motion, read_walks

    device = pick_device(config.device)
    if config.output.exists():
        raise TrainError(f"{config.output} is there already; name another folder with -o")
    folder = find_model(config.model)
    bundle = load_model(folder)
    memory = bundle.memory
    if memory is None:
        raise TrainError(f"{bundle.config.name} has no spatial memory, so it has no geometry; take another model")
    if config.epochs:
        walks = read_walks(config.recordings, space=bundle.config.action_space)
        memory.ego_motion, drifts = fit_ego_motion(walks, config.epochs, memory.ego_motion.width, device)
        for name, drift in drifts.items():
            print(f"{name}, after a second: {drift}", flush=True)
    if config.depth_minutes:
        train, held_out, names = read_depth_images(config.recordings)
        memory.depth.to(device)
        before = check_depth(memory.depth, held_out.to(device), names)
        updates = train_depth(memory.depth, train.to(device), 60 * config.depth_minutes, config.depth_batch)
        after = check_depth(memory.depth, held_out.to(device), names)
        memory.depth.cpu()
        print(f"depth: {updates} updates of {config.depth_batch} images")
        for name, errors in after.items():
            print(f"{name}: {errors}; before: {before[name]}")
    shutil.copytree(folder, config.output)
    save_weights(config.output / file_of("memory"), memory, torch.float16)
