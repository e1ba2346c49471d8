"""Two models on the same starts and actions: which is better, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from reverie.evaluate.blind import write_blind
from reverie.evaluate.merge import open_alike
from reverie.evaluate.obedience import GROUPS
from reverie.evaluate.page import Report, write_page
from reverie.evaluate.plan import LIKENESS_S
from reverie.evaluate.store import make_folder
from reverie.evaluate.tables import Column, Table
from reverie.models.checkpoint import write_json_atomic

if TYPE_CHECKING:
    from reverie.evaluate.report import EvaluateConfig

RESAMPLES, LEVEL = 4000, 0.95
HIGHER = {
    *(f"{metric}_{s}s" for metric in ("psnr_db", "ssim") for s in LIKENESS_S),
    *("keyboard", "keyboard_balanced", "mouse", *GROUPS, "temporal", "smoothness", "scenario", "loop_db"),
    *("gain_db_1s", "lasts_s"),
}
LOWER = {*(f"picture_{s}s" for s in LIKENESS_S), "turn_error_deg"}

COLUMNS = (
    Column("ours", "ours", "{:.3f}"),
    Column("against", "against", "{:.3f}"),
    Column("difference", "difference", "{:+.3f}"),
    Column("low", "95% from", "{:+.3f}"),
    Column("high", "to", "{:+.3f}"),
    Column("starts", "starts", "{:.0f}"),
    Column("verdict", "better (1), worse (-1)", "{:+.0f}"),
)


def bootstrap(differences: npt.ArrayLike, seed: int = 0) -> tuple[float, float]:
    """The 95% percentile interval of the mean of paired differences (Efron 1979), over RESAMPLES draws of the starts.

    One difference has no interval: minus and plus infinity.
    """
    values = np.asarray(differences, np.float64)
    if len(values) < 2:
        return float("-inf"), float("inf")
    picks = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(values[picks].mean(1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def compare(ours: Sequence[Mapping[str, float]], against: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Rows by metric of two lists of figures by start, in the same order; verdict is 0 where zero is inside."""
    rows: dict[str, dict[str, float]] = {}
    for name in ours[0] if ours else ():
        if name not in HIGHER | LOWER:
            continue
        pairs = [(a[name], b[name]) for a, b in zip(ours, against, strict=True) if name in a and name in b]
        if not pairs:
            continue
        first, second = np.array(pairs, np.float64).T
        low, high = bootstrap(first - second)
        sign = 1 if name in HIGHER else -1
        rows[name] = {
            "ours": float(first.mean()),
            "against": float(second.mean()),
            "difference": float((first - second).mean()),
            "low": low,
            "high": high,
            "starts": float(len(pairs)),
            "verdict": float(sign * ((low > 0) - (high < 0))),
        }
    return rows


def duel(config: EvaluateConfig, ours: str, against: str) -> dict[str, Any]:
    """Evaluate both where they are not finished reports, then compare; returns comparison.json's content."""
    output = make_folder(config.output or Path("runs/evaluate") / f"{Path(ours).name}-against-{Path(against).name}")
    folders = [_side(config, model, output / side) for model, side in ((ours, "ours"), (against, "against"))]
    reports = open_alike(folders)
    result: dict[str, Any] = {
        "ours": reports[0].raw["fingerprint"],
        "against": reports[1].raw["fingerprint"],
        "games": {},
    }
    console = Console()
    markdown = [f"# {reports[0].label} against {reports[1].label}\n"]
    for game in reports[0].raw["games"]:
        if game not in reports[1].raw["games"]:
            continue
        tables = compare_game(game, reports)
        result["games"][game] = {table.name: table.to_json() for table in tables}
        for table in tables:
            console.print(table.to_rich())
            markdown.append(table.to_markdown())
    write_json_atomic(output / "comparison.json", result)
    (output / "comparison.md").write_text("\n".join(markdown), encoding="utf-8")
    write_page(reports, output / "report.html")
    if config.blind:
        page = write_blind(reports, output / "blind.html")
        console.print(f"open {page} in a browser to vote; the votes are saved as a JSON file")
    console.print(f"the comparison is {output / 'comparison.md'}, the page {output / 'report.html'}")
    return result


def compare_game(game: str, reports: Sequence[Report]) -> list[Table]:
    """A table for each section: 4 s, 16 s, there and back, long play, in a scene."""
    titles = {"short": "4 s clips", "16s": "16 s clips", "return": "there and back", "play": "long play"}
    titles |= {"scene": "in the scene, own camera", "image": "from one image"}
    sides = [report.raw["games"][game]["per_start"] for report in reports]
    tables = []
    for section, title in titles.items():
        if section not in sides[0] or section not in sides[1]:
            continue
        note = "Mean over the same starts and actions; the interval is a bootstrap over the starts."
        table = Table(section, f"{game}: {title}", COLUMNS, note)
        table.rows.update(compare(sides[0][section], sides[1][section]))
        tables.append(table)
    return tables


def _side(config: EvaluateConfig, model: str, folder: Path) -> Path:
    from reverie.evaluate.run import run

    if (Path(model) / "report.json").is_file():
        return Path(model)
    run(replace(config, model=model, output=folder, ours=None, against=None, blind=False))
    return folder
