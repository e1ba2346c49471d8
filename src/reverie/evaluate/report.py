"""`reverie evaluate`: a model measured against a held-out recording, as tables, JSON and pictures."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from reverie.errors import DataError
from reverie.types import ActionSpace

if TYPE_CHECKING:
    from reverie.evaluate.tables import Table


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """Measure a model against a held-out recording: does it obey, does it look real, does it last?

    Prints tables and writes report.json, report.md and sheets of pictures into the output folder.
    Example: reverie evaluate nano --data data/vizdoom-heldout -o runs/nano-report
    """

    model: tyro.conf.Positional[str] = "nano"
    """A bundled model's name, or a model folder."""

    data: Path
    """The held-out recording: a dataset folder of the model's own game."""

    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """Folder of the report.  Default: runs/evaluate/MODEL."""

    starts: int = 32
    """Start pictures, spread over the recording's episodes."""

    quick: bool = False
    """A short look (8 starts, 1 long rollout): for the shape of things, not for a model card."""

    seed: int = 0
    """Chooses the starts, the scripts and the dreams' noise."""

    videos: bool = False
    """Also write the long rollouts as MP4, the keys drawn below."""

    fov_deg: float = 105.4
    """Horizontal field of view of the pictures, for turns in degrees (VizDoom as recorded here: 105.4)."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    dtype: str = "auto"
    """auto, float32 or bfloat16."""

    def __post_init__(self) -> None:
        if not 1 <= self.starts <= 10_000:
            raise DataError(f"--starts must lie in 1 to 10000, got {self.starts}")
        if not 1 <= self.fov_deg < 180:
            raise DataError(f"--fov-deg must lie in 1 to 180, got {self.fov_deg:g}")

    def run(self) -> None:
        evaluate(self)


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Run the whole evaluation; returns what report.json holds.

    Raises DataError for a dataset that is missing, of another game or size than the model's, or whose episodes are too
    short, and for an output folder that cannot be made.
    """
    from rich.console import Console

    from reverie.data.dataset import Dataset
    from reverie.engine.engine import load
    from reverie.evaluate.suite import Suite, full_size, quick_size

    began = time.monotonic()
    console = Console()
    dataset = Dataset(config.data)
    folder = make_folder(config.output or Path("runs/evaluate") / Path(config.model).name)
    with console.status("loading the model"):
        engine = load(config.model, device=config.device, dtype=config.dtype)
    check_fit(engine.action_space, engine.resolution, dataset.action_space, dataset.resolution)
    size = quick_size(config.starts) if config.quick else full_size(config.starts)
    suite = Suite(engine, dataset, size, folder, seed=config.seed, fov_deg=config.fov_deg, write_videos=config.videos)
    tables = suite.run(console)
    report: dict[str, Any] = {
        "model": engine.name,
        "fingerprint": engine.fingerprint,
        "data": str(config.data),
        "heldout": any(episode.is_heldout for episode in dataset.episodes),
        "settings": {**asdict(size), "seed": config.seed, "fov_deg": config.fov_deg},
        "seconds": round(time.monotonic() - began, 1),
        **{table.name: table.to_json() for table in tables},
    }
    write_report(folder, report, tables)
    for table in tables:
        console.print(table.to_rich())
    console.print(f"{report['seconds']:.0f} s; the report and its sheets are in {folder}")
    return report


def check_fit(
    model_space: ActionSpace, model_size: tuple[int, int], data_space: ActionSpace, data_size: tuple[int, int]
) -> None:
    """Raise DataError unless the recording has the model's actions and picture size."""
    if model_space != data_space:
        raise DataError(
            f"the model takes the actions {', '.join(model_space.names)}, "
            f"the dataset holds {', '.join(data_space.names)}; evaluate it on a recording of its own game"
        )
    if tuple(model_size) != tuple(data_size):
        sizes = [f"{height}x{width}" for height, width in (model_size, data_size)]
        raise DataError(
            f"the model makes pictures of {sizes[0]}, the dataset holds {sizes[1]}; record it at the model's size"
        )


def make_folder(folder: Path) -> Path:
    """The folder, made if it is not there.  Raises DataError where that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot write the report into {str(folder)!r}: {error.strerror}; say -o FOLDER") from None
    return folder


def write_report(folder: Path, report: dict[str, Any], tables: list[Table]) -> None:
    """report.json, and report.md with the same figures as Markdown tables."""
    settings = report["settings"]
    head = (
        f"# {report['model']} on {report['data']}\n\n{settings['starts']} starts, seed {settings['seed']}, "
        f"weights {report['fingerprint']}, {report['seconds']:.0f} s.\n\n"
    )
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (folder / "report.md").write_text(head + "\n".join(table.to_markdown() for table in tables), encoding="utf-8")
