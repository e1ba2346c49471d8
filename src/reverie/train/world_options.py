"""Options of a world training (`TrainWorldConfig`), and their resolved values (`Recipe`)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from reverie.errors import TrainError
from reverie.models.checkpoint import ModelConfig
from reverie.sampling import Schedule
from reverie.train.config import WorldLoopOptions
from reverie.train.forcing import given_steps


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainWorldConfig(WorldLoopOptions):
    """Train a world model on a recording.  The model's keys are all of the datasets', or some of the start's.

    Example: reverie train world --data rec --tokenizer runs/tok -o runs/world --minutes 60
    Example: reverie train world --data rec --start Matrix-Game-2.0 --lora 16 --dtype bfloat16 -o runs/mine --minutes 60
    """

    tokenizer: Path | None = None
    """A folder that `reverie train tokenizer` or a model has written."""
    start: Path | None = None
    """A model folder, a world training's folder, or published Matrix-Game 2.0 weights to go on from, with all their
    settings; with a tokenizer, a model of the same preset, of which only the weights are taken, those of keys by
    name."""
    variant: str | None = None
    """Variant of published weights, as for `reverie play`."""
    resolution: tuple[int, int] | None = None
    """Height and width for published weights, as for `reverie play`."""
    lora: int = 0
    """Rank of the matrices that are trained beside the start's frozen weights; 0 trains these."""
    preset: Literal["tiny", "nano-plain"] | None = None
    """Size of a new model; nano-plain, the default, is nano without a spatial memory (for that, `reverie train
    nano`)."""
    name: str | None = None
    """The model's name (default: nano, or the start's)."""
    fov_deg: float | None = None
    """Horizontal field of view of the model; turns of games recorded with another are scaled to it (default: 105.4, or
    the start's; where that has none, turns stay)."""
    window: int | None = None
    """Latent steps that attention reaches (default: the preset's)."""
    sink: int = 0
    """Number of these steps that are the first of a session, kept for good."""
    clip_steps: int | None = None
    """Latent steps of a training clip (default: 8, or 5 blocks)."""
    copies: int = 2
    """Noisy copies of a clip that share one clean copy."""
    context_noise: float | None = None
    """The most noise that context gets (default: 0.25, or none for a start whose context is clean)."""
    action_dropout: float = 0.03
    """Share of clips whose actions are hidden."""
    by_key: float = 0.5
    """Share of clips that are chosen by a key, each of a game's as often: players press some keys seldom."""
    still_clips: float = 0.15
    """Share of clips that are made to stand still: recorded play seldom does, and standing still must not degrade the
    image."""
    self_context: float = 0.5
    """Share of batches whose context is the model's own prediction."""
    self_context_rounds: int = 3
    """Largest number of times that such a context is predicted anew."""
    self_context_from: float = 0.5
    """Share of the budget after which such batches begin."""
    sigmas: tuple[float, ...] | None = None
    """Noise levels of the model's denoising passes, which samples are drawn with (default: 1, 0.8, 0.5, or the
    start's)."""
    context_sigma: float | None = None
    """Noise on the context of sessions (default: 0.06, or the start's)."""
    lr: float | None = None
    """Learning rate (default: 1.5e-3, for a start 2e-5, with lora 1e-4)."""
    warmup_steps: int = 40
    muon: bool = True
    """Optimise matrices by Muon and the rest by AdamW; a start is trained by AdamW alone, whatever this says."""
    decay: float = 0.4

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
