"""Options of a world training (`TrainWorldConfig`), and their resolved values (`Recipe`)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from reverie.argument_markers import alias
from reverie.errors import TrainError
from reverie.models.checkpoint import ModelConfig
from reverie.sampling import Schedule
from reverie.train.forcing import given_steps
from reverie.train.tracking import Track


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainWorldConfig:
    """Train a world model on a recording.

    Example: reverie train world --data rec --tokenizer runs/tok -o runs/world --minutes 60
    Example: reverie train world --data rec --start Matrix-Game-2.0 --lora 16 --dtype bfloat16 -o runs/mine --minutes 60

    data, held_out: datasets in the LeRobot v3 layout, one or several games, each drawn equally often; the model's
    keys are all of theirs, or some of the start's. tokenizer: a folder that `reverie train tokenizer` or a model
    has written. max_hours, held_out_hours: how much of each is used. latents: where encoded recordings are kept, to
    share them between runs (default: in the run's folder). start: a model folder, a world training's folder, or
    published Matrix-Game 2.0 weights to go on from, with all their settings; with a tokenizer, a model of the same
    preset, of which only the weights are taken, those of keys by name. variant, resolution: of published weights,
    as for `reverie play`. lora: rank of the matrices that are trained beside the start's frozen weights; 0 trains
    these. preset: default nano-plain, the size of nano without a spatial memory (for that, see
    `reverie.train.recipes`). fov_deg: horizontal field of view of the model; the turns of games recorded with
    another are scaled to it (default 105.4, or the start's; where that has none, turns stay). window: steps that
    attention reaches (default: the preset's). sink: how many of them are the first steps of a session, kept for
    good. clip_steps: latent steps of a training clip (default 8, or 5 blocks). copies: noisy copies of a clip that
    share one clean copy. context_noise: the most noise that context gets (default 0.25, or none for a start whose
    context is clean). lr: default 1.5e-3, for a start 2e-5, with lora 1e-4. muon: not used for a start. shift:
    moves training noise levels towards 1. shard: weights over several processes (FSDP2). remat: activation
    checkpointing. action_dropout: share of clips whose actions are hidden. by_key: share of clips that
    are chosen by a key, each of a game's as often, because players press some keys seldom.
    still_clips: share of clips that are made to stand still: recorded play seldom does, and standing still must not
    degrade the image. self_context: share of batches whose context is the model's own prediction, made up to
    self_context_rounds times over, from self_context_from of the budget on. sigmas, context_sigma: the schedule
    that the model folder names and samples are drawn with (default 1, 0.8, 0.5 and 0.06, or the start's).
    """

    data: tuple[Path, ...]
    output: Annotated[Path, alias("-o")]
    held_out: tuple[Path, ...] = ()
    latents: Path | None = None
    tokenizer: Path | None = None
    start: Path | None = None
    variant: str | None = None
    resolution: tuple[int, int] | None = None
    lora: int = 0
    preset: Literal["tiny", "nano-plain"] | None = None
    name: str | None = None
    fov_deg: float | None = None
    window: int | None = None
    sink: int = 0
    max_hours: float | None = None
    held_out_hours: float = 0.1
    minutes: float | None = None
    """Time for training steps, and figures between them; preparing the recordings and the last figures come on top."""
    steps: int | None = None
    batch: int = 4
    clip_steps: int | None = None
    copies: int = 2
    context_noise: float | None = None
    shift: float = 3.0
    action_dropout: float = 0.03
    by_key: float = 0.5
    still_clips: float = 0.15
    self_context: float = 0.5
    self_context_rounds: int = 3
    self_context_from: float = 0.5
    sigmas: tuple[float, ...] | None = None
    context_sigma: float | None = None
    lr: float | None = None
    warmup_steps: int = 40
    muon: bool = True
    ema: float = 0.999
    decay: float = 0.4
    seed: int = 0
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number type of the computation; auto is bfloat16 on a GPU that has it, else float32."""
    compile: bool = False
    accumulate: int = 1
    workers: int = 1
    """Threads that make batches ahead."""
    shard: bool = False
    remat: bool = False
    max_shard_mb: float | None = None
    """Largest file of the model's weights; larger ones are sharded as on the Hugging Face Hub."""
    checkpoint_minutes: float = 4.0
    """Between checkpoints, and exports of the model so far."""
    validate_minutes: float = 8.0
    track: Track = "auto"
    """Tracker of figures and sheets besides log.jsonl; auto is TensorBoard if it is installed."""

    def __post_init__(self) -> None:
        if self.batch < 1 or self.copies < 1 or (self.clip_steps is not None and self.clip_steps < 2):
            raise TrainError(
                "expected batch and copies of at least 1 and clip_steps of at least 2, "
                f"got {self.batch}, {self.copies}, {self.clip_steps}"
            )
        if self.tokenizer is None and self.start is None:
            raise TrainError("a world is trained on a tokenizer (--tokenizer), or goes on from a model (--start)")
        foreign = {"--preset": self.preset, "--window": self.window, "--sink": self.sink or None}
        if self.tunes and (given := [option for option, value in foreign.items() if value is not None]):
            raise TrainError(f"the model that is started from says what it is; leave {' and '.join(given)} out")
        if not self.tunes and (self.lora or self.variant or self.resolution):
            raise TrainError("--lora, --variant and --resolution are for a model to start from; give it as --start")
        if self.lora < 0:
            raise TrainError(f"--lora is a rank, or 0 to train all weights; got {self.lora}")

    @property
    def tunes(self) -> bool:
        """Tests whether the training continues a model with its tokenizer and settings, not only from its weights."""
        return self.start is not None and self.tokenizer is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Training settings after defaults are resolved: fields as in `TrainWorldConfig`."""

    name: str
    clip_steps: int
    context_noise: float
    fov_deg: float | None
    lr: float
    schedule: Schedule

    @classmethod
    def new(cls, config: TrainWorldConfig, start: ModelConfig | None = None) -> Recipe:
        """start: of the model that the training goes on from.  Raises TrainError where the two do not agree."""
        fov_deg: float | None
        if start is None:
            name, fov_deg, clip_steps, lr = "nano", 105.4, 8, 1.5e-3
            schedule = Schedule((1.0, 0.8, 0.5), context_sigma=0.06)
        else:
            name, world = start.name, start.world
            fov_deg = start.mouse_fov_deg
            if None not in (fov_deg, config.fov_deg) and fov_deg != config.fov_deg:
                raise TrainError(f"{name} has a field of view of {fov_deg} degrees; leave --fov-deg out")
            clip_steps = given_steps(world) + (5 if world.block > 1 else 7) * world.block
            lr, schedule = 1e-4 if config.lora else 2e-5, start.schedule
        if config.sigmas is not None:
            schedule = replace(schedule, sigmas=config.sigmas)
        if config.context_sigma is not None:
            schedule = replace(schedule, context_sigma=config.context_sigma)
        return cls(
            name=config.name or name,
            clip_steps=config.clip_steps or clip_steps,
            context_noise=_given(config.context_noise, 0.25 if schedule.context_sigma else 0.0),
            fov_deg=fov_deg if config.fov_deg is None else config.fov_deg,
            lr=_given(config.lr, lr),
            schedule=schedule,
        )


def _given(value: float | None, default: float) -> float:
    return default if value is None else value
