"""Two models on the same starts and actions: which is better, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reverie.evaluate.blind import write_blind
from reverie.evaluate.controllability import GROUPS
from reverie.evaluate.page import write_page
from reverie.evaluate.plan import LIKENESS_S
from reverie.evaluate.report import GameReport, open_alike
from reverie.evaluate.tables import Column, Metrics, Table
from reverie.models.checkpoint import write_json_atomic

RESAMPLES, LEVEL = 4000, 0.95
HIGHER = {
    *(f"{metric}_{s}s" for metric in ("psnr_db", "ssim") for s in LIKENESS_S),
    *("keyboard", "keyboard_balanced", "mouse", *GROUPS, "temporal", "smoothness", "scenario", "loop_db"),
    *("gain_db_1s", "lasts_s"),
}
LOWER = {*(f"{metric}_{s}s" for metric in ("picture", "lpips") for s in LIKENESS_S), "turn_error_deg"}

SECTIONS = {
    "short": "4 s clips",
    "16s": "16 s clips",
    "return": "there and back",
    "play": "long play",
    "scene": "in the scene, own camera",
    "image": "from one image",
}
"""Sections of figures by start, and their titles."""

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


def compare(ours: Sequence[Metrics], against: Sequence[Metrics]) -> dict[str, Metrics]:
    """Rows by metric of two lists of figures by start, in the same order; verdict is 0 where zero is inside."""
    rows: dict[str, Metrics] = {}
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


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models compared.  facts: what comparison.json holds; blind: the page to vote on, if it was asked for."""

    facts: dict[str, Any]
    tables: list[Table]
    blind: Path | None


def compare_reports(ours: Path, against: Path, output: Path, *, blind: bool = False) -> Comparison:
    """Compares two finished reports, and writes comparison.json, comparison.md and the page into `output`."""
    reports = open_alike([ours, against])
    first, second = reports
    games = {
        name: compare_game(name, game, second.games[name]) for name, game in first.games.items() if name in second.games
    }
    facts = {
        "ours": first.fingerprint,
        "against": second.fingerprint,
        "games": {game: {name: table.to_json() for name, table in tables.items()} for game, tables in games.items()},
    }
    tables = [table for game in games.values() for table in game.values()]
    markdown = [f"# {first.label} against {second.label}\n", *(table.to_markdown() for table in tables)]
    write_json_atomic(output / "comparison.json", facts)
    (output / "comparison.md").write_text("\n".join(markdown), encoding="utf-8")
    write_page(reports, output / "report.html")
    return Comparison(facts, tables, write_blind(reports, output / "blind.html") if blind else None)


def compare_game(name: str, ours: GameReport, against: GameReport) -> dict[str, Table]:
    """A table for each section that both have."""
    note = "Mean over the same starts and actions; the interval is a bootstrap over the starts."
    return {
        section: Table(f"{name}: {title}", COLUMNS, note, compare(ours.per_start[section], against.per_start[section]))
        for section, title in SECTIONS.items()
        if section in ours.per_start and section in against.per_start
    }
