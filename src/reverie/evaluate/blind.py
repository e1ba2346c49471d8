"""A page on which a person votes: two clips of one start and the same actions, left and right by lot, names hidden."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reverie.errors import DataError
from reverie.evaluate.plots import TEMPLATES
from reverie.evaluate.report import Report

QUESTIONS = ("obeys its keys better", "looks more real", "would you rather play")


def write_blind(reports: Sequence[Report], path: Path) -> Path:
    """Write the page, with all clips inside.  Raises DataError where the reports have no clips in common."""
    lot = secrets.SystemRandom()
    first, second = reports
    pairs: list[dict[str, Any]] = []
    for game in first.games:
        for file in sorted((first.folder / "clips").glob(f"{game}-short-*.mp4")):
            other = second.folder / "clips" / file.name
            if other.is_file():
                sides = [_side(file, 0), _side(other, 1)]
                lot.shuffle(sides)
                pairs.append({"name": file.stem, "sides": sides})
    if not pairs:
        raise DataError(
            f"{first.folder} and {second.folder} have no clips of the same starts; evaluate both with --videos"
        )
    lot.shuffle(pairs)
    names = [report.label for report in reports]
    data = {"id": secrets.token_hex(4), "names": names, "questions": QUESTIONS, "pairs": pairs}
    path.write_text(TEMPLATES.get_template("blind.html").render(data=data), encoding="utf-8")
    return path


def _side(file: Path, which: int) -> dict[str, str]:
    """The clip and which side it is of, the latter so that a glance at the page's source does not give it away."""
    code = base64.b64encode(f"{secrets.token_hex(6)}{which}".encode()).decode()
    return {"video": base64.b64encode(file.read_bytes()).decode(), "is": code}
