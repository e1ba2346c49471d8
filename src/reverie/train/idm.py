"""Training the inverse-dynamics model: `reverie train idm --data DIR --held-out DIR -o RUN --minutes 10`.

A run ends with a folder of `config.json` and `idm.safetensors`, which `reverie evaluate --idm` takes.  What the model
sees of the recordings (`models.idm.look`) is worked out once and kept beside the run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from reverie.argument_markers import alias
from reverie.data.dataset import Dataset
from reverie.data.loader import ClipLoader
from reverie.data.workers import worker_pool
from reverie.errors import DataError, TrainError
from reverie.hardware import num_cores
from reverie.models.checkpoint import save_trained
from reverie.models.idm import FLOW_GRID, IDMConfig, InverseDynamics, look, ways
from reverie.train.config import LoopOptions, trainer_config
from reverie.train.display import SILENT, Display
from reverie.train.kept_arrays import Arrays, kept_arrays
from reverie.train.task import Task
from reverie.train.trainer import Trainer
from reverie.types import ActionSpace

MIRRORED = (("left", "right"), ("turn-left", "turn-right"), ("lean-left", "lean-right"))
"""Keys that are swapped in a mirrored clip."""

SMALL_TURN_DEG = 0.4
TURNED_UNTIL = 0.75
"""Part of the budget in which clips are turned a little more; then turns are as frequent again as they are in play."""

EDGE_STEPS = 8
"""Steps at either end of a clip that figures leave out: there the model's context is cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainIdmConfig(LoopOptions):
    """Train the model that names actions from frames, by which `reverie evaluate` measures obedience.

    Example: reverie train idm --data rec/vizdoom --held-out rec/vizdoom-heldout -o runs/idm --minutes 10
    """

    data: Path
    """A recording of one game."""
    output: Annotated[Path, alias("-o")]
    """Folder of the run."""
    held_out: Path | None = None
    """A held-out recording, for the figures; without it they are on the data itself, and are marked so."""
    clips: int = 1200
    """Clips taken from the recording."""
    held_out_clips: int = 200
    """Clips taken from the held-out recording."""
    clip_frames: int = 65
    """Frames of a clip."""
    batch: int = 12
    """Clips of a batch."""
    lr: float = 1.5e-3
    """Learning rate."""
    width: int = 128
    """Width of the network."""
    compile: bool = False
    """Compile the network."""
    workers: int | None = None
    """Processes that look at the recording (default: one for each core, at most 16)."""

    def __post_init__(self) -> None:
        if self.clip_frames < 2 * EDGE_STEPS + 8 or min(self.clips, self.held_out_clips, self.batch) < 1:
            raise TrainError(
                f"expected clips of at least {2 * EDGE_STEPS + 8} frames, and counts above zero, got "
                f"{self.clip_frames} frames, {self.clips} and {self.held_out_clips} clips, a batch of {self.batch}"
            )


@dataclass(frozen=True, slots=True)
class Looks:
    """Clips as the model's input: flow (n, t, 3, 16, 28), pictures (n, f, 3, 32, 56), rows (n, t, size)."""

    flow: npt.NDArray[np.float16]
    pictures: npt.NDArray[np.uint8]
    rows: npt.NDArray[np.float32]

    FIELDS = ("flow", "pictures", "rows")


class IdmTask(Task):
    """Batches, half of them mirrored and half of them turned a little more; the loss of the three heads; accuracy on
    held-out clips."""

    def __init__(
        self,
        model: InverseDynamics,
        config: TrainIdmConfig,
        looks: Looks,
        held_out: Looks,
        fov_deg: float | None = None,
    ) -> None:
        self.model = self.idm = model
        self.config, self.looks, self.held_out = config, looks, held_out
        self._space = model.config.action_space
        keys = looks.rows[..., : len(self._space.keys)]
        held = keys.mean((0, 1)).clip(0.01, 0.99)
        has_turns = fov_deg is not None and self._space.mouse
        self._field = torch.from_numpy(turn_field(fov_deg)) if has_turns else None  # type: ignore[arg-type]
        self._rare = torch.from_numpy(np.sqrt((1 - held) / held)).float()

    def batch(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """flow, pictures and rows."""
        picks = rng.integers(len(self.looks.rows), size=self.config.batch)
        flow, pictures, rows = (getattr(self.looks, field)[picks].copy() for field in Looks.FIELDS)
        for i in np.flatnonzero(rng.random(len(picks)) < 0.5):
            flow[i], pictures[i], rows[i] = mirror(flow[i], pictures[i], rows[i], self._space)
        return torch.from_numpy(flow), torch.from_numpy(pictures), torch.from_numpy(rows)

    def loss(
        self, batch: tuple[Tensor, Tensor, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """Keys by cross-entropy, rare ones weighted up; turns by their sign and by a robust distance."""
        flow, pictures, rows = batch
        if self._field is not None and self.progress < TURNED_UNTIL:
            flow, rows = turned(flow, rows, self._field.to(flow.device), generator)
        guess = self.idm(flow, pictures)
        num_keys = len(self._space.keys)
        weight = self._rare.to(rows.device).clamp(1, 4)
        keys = F.binary_cross_entropy_with_logits(guess.keys.float(), rows[..., :num_keys], pos_weight=weight)
        if not self._space.mouse:
            return keys, {"keys": keys}
        turn = rows[..., num_keys:]
        sign = F.cross_entropy(
            guess.sign.float().flatten(0, 2), ways(turn, self.idm.config.dead_zone_deg).flatten(), label_smoothing=0.02
        )
        size = F.smooth_l1_loss(guess.turn_deg.float(), turn, beta=0.2)
        return keys + sign + size, {"keys": keys, "sign": sign, "turn": size}

    def validate(self) -> dict[str, float]:
        """Share of right answers for each key and for the mouse's nine directions; the turn's mean error."""
        named, true = [], []
        inside = slice(EDGE_STEPS, -EDGE_STEPS)
        for flow, pictures, rows in zip(*(getattr(self.held_out, f) for f in Looks.FIELDS), strict=True):
            guess = self.idm(*(torch.from_numpy(np.array(x))[None].to(self.device) for x in (flow, pictures)))
            named.append(self.idm.rows(guess)[0, inside].cpu())
            true.append(torch.from_numpy(np.array(rows))[inside])
        guessed, told = torch.cat(named), torch.cat(true)
        num_keys = len(self._space.keys)
        right = (guessed[:, :num_keys] == told[:, :num_keys]).float().mean(0)
        figures = {f"key.{key}": share for key, share in zip(self._space.keys, right.tolist(), strict=True)}
        if self._space.mouse:
            zone = self.idm.config.dead_zone_deg
            turn, asked = guessed[:, num_keys:], told[:, num_keys:]
            same = (ways(turn, zone) == ways(asked, zone)).all(1)
            figures["mouse.direction"] = same.float().mean().item()
            figures["mouse.error_deg"] = (turn - asked).abs().mean().item()
        return figures

    def export(self, folder: Path, summary: dict[str, Any]) -> None:
        summary = {**summary, "held_out": str(self.config.held_out or "none: figures on the data")}
        save_trained(folder, "idm", self.idm, summary)


def turn_field(fov_deg: float) -> npt.NDArray[np.float32]:
    """Optical flow for a degree of pitch and of yaw, of a camera with this horizontal field of view.

    Returns (2, 2, 16, 28), pixels of an image 224 wide; (u right, v down) at the middles of the cells of `look`.

    A pinhole camera's rotation by w moves a pixel at (x, y) from the middle by -w (F + x^2 / F, x y / F) for yaw, by
    w (x y / F, F + y^2 / F) for pitch, at any depth.
    """
    rows, columns = FLOW_GRID
    cell = 224 / columns
    x = ((np.arange(columns) + 0.5) * cell - 112)[None]
    y = ((np.arange(rows) + 0.5 - rows / 2) * cell)[:, None]
    focal = 112 / math.tan(math.radians(fov_deg) / 2)
    across = np.broadcast_to(x * y / focal, FLOW_GRID)
    pitch = (across, np.broadcast_to(focal + y**2 / focal, FLOW_GRID))
    yaw = (np.broadcast_to(-(focal + x**2 / focal), FLOW_GRID), -across)
    return np.radians(np.array([pitch, yaw])).astype(np.float32)


def turned(flow: Tensor, rows: Tensor, field: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Half of the clips turned a little more than they were, in flow (b, t, 3, 16, 28) and rows (b, t, a) alike.

    Recorded play has few small turns, and they are all that is hard to see.  To add some costs nothing, and the small
    frames do not show them.  field: as `turn_field` gives it.
    """
    extra = small_turns(len(rows), rows.shape[1], generator)
    extra = extra * (torch.rand(len(rows), 1, 1, generator=generator, device=rows.device) < 0.5)
    uv, trust = flow.float().split((2, 1), 2)  # autocast on a CPU joins no float16
    uv = uv + torch.einsum("btk,kchw->btchw", extra, field).float()
    return torch.cat((uv, trust), 2), torch.cat((rows[..., :-2], rows[..., -2:] + extra), -1)


def small_turns(clips: int, steps: int, generator: torch.Generator) -> Tensor:
    """(clips, steps, 2) degrees: small turns, held for a while, some of them none."""
    shape, device = (clips, steps, 2), generator.device
    asked = torch.randn(shape, generator=generator, device=device) * SMALL_TURN_DEG
    asked *= torch.rand(shape, generator=generator, device=device) < 0.6
    changes = torch.rand(shape, generator=generator, device=device) < 1 / 8
    since = torch.where(changes, torch.arange(steps, device=device)[:, None], 0).cummax(1).values
    return asked.gather(1, since)


def mirror(
    flow: npt.NDArray[np.float16],
    pictures: npt.NDArray[np.uint8],
    rows: npt.NDArray[np.float32],
    space: ActionSpace,
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Mirrors a clip: left and right are swapped in images, optical flow, keys and yaw."""
    flow, pictures, rows = flow[..., ::-1].copy(), pictures[..., ::-1], rows.copy()
    flow[:, 0] *= -1
    for left, right in MIRRORED:
        if left in space.keys and right in space.keys:
            pair = [space.keys.index(left), space.keys.index(right)]
            rows[:, pair] = rows[:, pair[::-1]]
    if space.mouse:
        rows[:, -1] *= -1
    return flow, pictures, rows


def train_idm(config: TrainIdmConfig, display: Display = SILENT) -> dict[str, float]:
    """Trains the model.  Raises DataError for a missing or too short dataset, or held-out data of another game."""
    torch.manual_seed(config.seed)
    dataset, held_out = Dataset(config.data), Dataset(config.held_out or config.data)
    if dataset.action_space != held_out.action_space:
        raise DataError(
            f"{held_out.path} has the actions {', '.join(held_out.action_space.names)}, {dataset.path} has "
            f"{', '.join(dataset.action_space.names)}; take a held-out recording of the same game"
        )
    looks = load_looks(dataset, config, config.clips, config.output / "looks", config.seed, display)
    figures = load_looks(held_out, config, config.held_out_clips, config.output / "looks-held-out", 1, display)
    model = InverseDynamics(IDMConfig(action_space=dataset.action_space, width=config.width))
    chosen: dict[str, Any] = {"weight_decay": 0.02, "muon": True, "warmup_steps": 50, "decay": 0.5, "ema": 0.995}
    chosen |= {"checkpoint_minutes": 2.0, "validate_minutes": 2.0, "validate_first": False}
    options = trainer_config(config, config.output, workers=1, **chosen)  # its own workers decode
    return Trainer(IdmTask(model, config, looks, figures, dataset.fov_deg), options, display=display).run()


def load_looks(
    dataset: Dataset, config: TrainIdmConfig, clips: int, cache: Path, seed: int, display: Display = SILENT
) -> Looks:
    """`clips` random clips as the model's input, from `cache` if it holds them."""
    wanted = {
        "dataset": dataset.fingerprint,
        "frames": dataset.num_frames,
        "clips": clips,
        "clip_frames": config.clip_frames,
        "seed": seed,
    }

    def make() -> Arrays:
        workers = min(16, num_cores()) if config.workers is None else config.workers
        loader = ClipLoader(dataset, config.clip_frames, clips, seed=seed, workers=0)
        made = _look_at(dataset, loader.picks(0), config.clip_frames, workers, display)
        return dict(zip(Looks.FIELDS, map(np.stack, zip(*made, strict=True)), strict=True))

    return Looks(**kept_arrays(cache / "looks.json", wanted, Looks.FIELDS, make))


_Made = tuple[npt.NDArray[np.float16], npt.NDArray[np.uint8], npt.NDArray[np.float32]]


def _look_at(
    dataset: Dataset, picks: list[tuple[int, int]], length: int, workers: int, display: Display
) -> list[_Made]:
    name = f"looking at {dataset.path.name}"
    if workers < 1 or len(picks) < 32:
        return [_look_once(dataset, length, *pick) for pick in picks]
    pool: ProcessPoolExecutor = worker_pool(workers, _start_worker, (dataset, length))
    try:
        futures = [pool.submit(_look_here, *pick) for pick in picks]
        return [future.result() for future in display.track(futures, name)]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _look_once(dataset: Dataset, length: int, episode: int, start: int) -> _Made:
    clip = dataset.clip(episode, start, length, depth=False)
    views = look(clip.frames)
    return views.flow, views.pictures, clip.actions[:-1]


_worker: tuple[Dataset, int] | None = None


def _start_worker(dataset: Dataset, length: int) -> None:
    global _worker
    torch.set_num_threads(1)
    _worker = (dataset, length)


def _look_here(episode: int, start: int) -> _Made:
    assert _worker is not None, "a worker looks after _start_worker"
    return _look_once(*_worker, episode, start)
