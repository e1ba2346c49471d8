"""`reverie evaluate`: a model measured against held-out recordings, as tables, JSON, images, clips and one page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Console

from reverie.argument_markers import positional
from reverie.errors import DataError
from reverie.evaluate.config import EvaluationConfig

if TYPE_CHECKING:
    from rich.table import Table as RichTable

    from reverie.evaluate.plan import Size
    from reverie.evaluate.scenes.walks import SceneSize
    from reverie.evaluate.tables import Table


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig(EvaluationConfig):
    """Measure a model against held-out recordings: does it obey, does it look real, does it last?

    Writes report.json, report.md, report.html, sheets and clips into the output folder.  Stopped, it goes on where it
    was when the same command is run again.
    Example: reverie evaluate nano --data data/vizdoom-heldout --idm runs/idm-vizdoom -o runs/nano-report
    A rival: reverie evaluate bench/rivals/oasis.py:runs/oasis --data data/vizdoom-heldout -o runs/oasis-report
    In a scene: reverie evaluate nano --data data/level-heldout --scene scenes/level --quick -o runs/nano-level
    Side by side: reverie evaluate --merge runs/nano-report runs/oasis-report -o runs/both
    Which is better: reverie evaluate --ours runs/a/model --against nano --data data/heldout --blind -o runs/duel
    """

    model: Annotated[str, positional()] = "nano"
    data: tuple[Path, ...] = ()

    merge: tuple[Path, ...] = ()
    """Make one page of finished reports, side by side, and nothing else."""

    ours: str | None = None
    """Compare this model, or finished report, with `--against` on the same starts and actions."""

    against: str | None = None
    """The other one."""

    blind: bool = False
    """With --ours and --against: also a page on which a person votes without knowing which is which."""

    def __post_init__(self) -> None:
        if self.starts is not None and not 1 <= self.starts <= 10_000:
            raise DataError(f"--starts must lie in 1 to 10000, got {self.starts}")
        if not 1 <= self.fov_deg <= 179:
            raise DataError(f"--fov-deg must lie in 1 to 179 degrees, got {self.fov_deg:g}")
        if (self.ours is None) != (self.against is None):
            raise DataError("a comparison takes both --ours A and --against B")
        if self.blind and self.ours is None:
            raise DataError("--blind compares two models: say --ours A --against B too")
        if self.scene and len(self.scene) != len(self.data):
            raise DataError(f"--scene takes one scene for each --data, got {len(self.scene)} for {len(self.data)}")
        if self.scene and self.suite is not None:
            raise DataError("--suite is measured from images: leave --scene out, or --suite")
        if self.merge and (self.output is None or self.ours is not None):
            raise DataError("--merge takes finished reports and -o FOLDER for the page, and no --ours")
        if not (self.merge or self.data or self._both_done()):
            raise DataError(
                "say which held-out recording to measure on: --data DIR (`reverie record vizdoom --heldout -o DIR` "
                "makes one)"
            )

    def _both_done(self) -> bool:
        sides = (self.ours, self.against)
        return all(side is not None and (Path(side) / "report.json").is_file() for side in sides)


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Does what is asked, and prints the tables; returns the report, the merged reports by name, or the comparison."""
    if config.merge:
        return print_merged(config.merge, _output(config))
    if config.ours is not None and config.against is not None:
        return print_comparison(config, config.ours, config.against)
    return print_evaluation(evaluation_of(config))


def evaluation_of(config: EvaluateConfig, **changes: Any) -> EvaluationConfig:
    """The evaluation of one model that the options name.  changes: other values of its fields."""
    return EvaluationConfig(**{field.name: getattr(config, field.name) for field in fields(EvaluationConfig)} | changes)


def print_evaluation(config: EvaluationConfig, size: Size | SceneSize | None = None) -> dict[str, Any]:
    """Evaluates a model, prints its tables, and returns the report.  size: other numbers than the config's."""
    from reverie.evaluate.run import run

    display = EvaluationDisplay()
    report = run(config, size, display)
    for game in report.games.values():
        for table in game.tables.values():
            display.console.print(rich_table(table))
            for upset in table.upsets():
                display.console.print(f"  {upset}", style="red")
    display.line(f"{report.seconds:.0f} s; the page is {config.folder / 'report.html'}")
    return report.to_json()


def print_merged(folders: tuple[Path, ...], output: Path) -> dict[str, Any]:
    """Sets finished reports side by side, prints the tables, and returns the reports by label."""
    from reverie.evaluate.merge import merge

    console, merged = Console(), merge(folders, output)
    for table in merged.tables:
        console.print(rich_table(table))
    console.print(f"the page is {output / 'report.html'} ({merged.page_bytes / 2**20:.1f} MiB)")
    return merged.reports


def print_comparison(config: EvaluateConfig, ours: str, against: str) -> dict[str, Any]:
    """Evaluates both where they are not finished reports, then compares; returns comparison.json's content."""
    from reverie.evaluate.compare import compare_reports
    from reverie.evaluate.store import make_folder

    output = make_folder(config.output or Path("runs/evaluate") / f"{Path(ours).name}-against-{Path(against).name}")
    first, second = (_report_of(config, model, output / side) for model, side in ((ours, "ours"), (against, "against")))
    console, found = Console(), compare_reports(first, second, output, blind=config.blind)
    for table in found.tables:
        console.print(rich_table(table))
    if found.blind is not None:
        console.print(f"open {found.blind} in a browser to vote; the votes are saved as a JSON file")
    console.print(f"the comparison is {output / 'comparison.md'}, the page {output / 'report.html'}")
    return found.facts


def _report_of(config: EvaluateConfig, model: str, folder: Path) -> Path:
    """The folder of a finished report, or of the one that is made now."""
    if (Path(model) / "report.json").is_file():
        return Path(model)
    print_evaluation(evaluation_of(config, model=model, output=folder))
    return folder


def _output(config: EvaluateConfig) -> Path:
    assert config.output is not None, "checked by the config"
    return config.output


def rich_table(table: Table) -> RichTable:
    """A table of figures for the terminal."""
    from rich.table import Table as RichTable

    shown = RichTable(title=table.title, caption=table.note, title_justify="left", caption_justify="left")
    (first, *others), rows = table.cells()
    shown.add_column(first)
    for label in others:
        shown.add_column(label, justify="right")
    for row in rows:
        shown.add_row(*row)
    return shown


class EvaluationDisplay:
    """Draws an evaluation (`reverie.evaluate.display.Display`)."""

    def __init__(self) -> None:
        self.console = Console()

    def line(self, text: str) -> None:
        """Prints a line."""
        self.console.print(text)

    def status(self, text: str) -> AbstractContextManager[object]:
        """Shows a spinner beside `text`."""
        return self.console.status(text)

    @contextmanager
    def bar(self, text: str, num_blocks: int) -> Iterator[Callable[[], None]]:
        """Shows a bar, which goes when it is done."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(text, total=num_blocks)
            yield lambda: progress.advance(task)
