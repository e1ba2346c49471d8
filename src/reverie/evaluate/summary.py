"""From the units of an evaluation to its tables and curves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from reverie.evaluate import features, long
from reverie.evaluate.clips import EDGE_STEPS
from reverie.evaluate.collapse import Detector, collapse_of
from reverie.evaluate.obedience import groups_of, obedience_figures
from reverie.evaluate.plan import DRIFT_S, LIKENESS_S, LONG_S, SHORT_S, Judge
from reverie.evaluate.store import Unit
from reverie.evaluate.suites import Suite
from reverie.evaluate.tables import COPY, DREAM, OTHER_REAL, REAL, REBUILT, SHUFFLED, STATIC, Column, Table
from reverie.types import FPS, ActionSpace

IDLE = "the dream, standing still"
ORDER = (REAL, REBUILT, DREAM, SHUFFLED, STATIC, COPY)
SHARE = "{:.3f}"


def obedience(units: Sequence[Unit], judge: Judge | None) -> Table | None:
    """Compares the judge's actions with the requested ones, over all steps of all starts."""
    if judge is None:
        return None
    table = Table("obedience", "Obedience to recorded actions", obedience_columns(judge.space), judge_note(judge))
    inside = slice(EDGE_STEPS, -EDGE_STEPS)
    asked = [unit.arrays["asked"][inside] for unit in units]
    for row in _rows_of(units):
        said = [unit.arrays[f"said.{row}"][inside] for unit in units]
        table.rows[row] = obedience_figures(said, asked, judge.space)
    return table


def obedience_columns(space: ActionSpace) -> tuple[Column, ...]:
    groups = groups_of(space)
    single = [key for key in space.keys if not any(key in pair for pair in groups.values())]
    return (
        Column("keyboard", "keyboard", SHARE, "high"),
        Column("keyboard_balanced", "keyboard, balanced", SHARE, "high"),
        Column("mouse", "mouse, 9 directions", SHARE, "high"),
        Column("turn_error_deg", "turn error, deg/frame", "{:.2f}", "low"),
        *(Column(name, name, SHARE, "high") for name in (*groups, *single)),
    )


def judge_note(judge: Judge) -> str:
    own = ", ".join(f"{name.removeprefix('key.')} {share:.3f}" for name, share in judge.figures.items())
    return (
        f"Actions that the inverse-dynamics model {judge.name} names from the pictures, against those asked; groups, "
        f"dead zone and nine directions of the GameWorld Score. Its own accuracy on held-out recordings: "
        f"{own or 'not stated in its folder'}. Balanced: averaged over the answers instead of the frames; a still "
        "picture gets a third."
    )


def true_actions(units: Sequence[Unit]) -> Table:
    """Compares the rollout under the recorded actions with one under another clip's: which is nearer to the real
    clip."""
    columns = tuple(
        column
        for s in (1, SHORT_S)
        for column in (
            Column(f"nearer_{s}s", f"true actions nearer, {s} s", SHARE, "high"),
            Column(f"gain_db_{s}s", f"gain, {s} s, dB", "{:+.2f}", "high"),
        )
    )
    note = (
        "PSNR against the real clip under its own actions, less that under another clip's: share of starts above zero, "
        "and the mean. The real recording would get 1 by definition; what cannot be steered gets 0."
    )
    table = Table("true_actions", "True actions against another's", columns, note)
    gains = {s: np.array([_gain(unit, DREAM, s) for unit in units]) for s in (1, SHORT_S)}
    table.rows[DREAM] = {}
    for s, gain in gains.items():
        table.rows[DREAM][f"nearer_{s}s"] = float((gain > 0).mean())
        table.rows[DREAM][f"gain_db_{s}s"] = float(gain.mean())
    table.rows[STATIC] = {column.key: 0.0 for column in columns}
    return table


def _gain(unit: Unit, row: str, s: int) -> float:
    rows = unit.facts["rows"]
    return rows[row][f"psnr_db_{s}s"] - rows[SHUFFLED][f"psnr_db_{s}s"]


def likeness(short: Sequence[Unit], longer: Sequence[Unit], bank: Unit, judge: Judge | None) -> Table:
    """Against the real frames under the recorded actions."""
    columns = []
    for s in LIKENESS_S:
        columns += [
            Column(f"psnr_db_{s}s", f"PSNR dB, {s} s", "{:.2f}", "high"),
            Column(f"ssim_{s}s", f"SSIM, {s} s", SHARE, "high"),
            Column(f"picture_{s}s", f"picture distance, {s} s", SHARE, "low"),
            Column(f"play_{s}s", f"Fréchet distance of play, {s} s", "{:.2f}", "low"),
        ]
    note = (
        f"Same start, same actions, over the 4 frames that end at that time ({len(short)} starts; {len(longer)} at "
        f"{LONG_S} s); the Fréchet distance over all steps until then. The tokenizer's row is the ceiling; the copy "
        "sees the true frame before each."
    )
    if judge is not None:
        note += (
            f" Picture distance and Fréchet distance of play are on features of {judge.name}, a network of ours: they "
            "are not LPIPS and not FVD, and compare with no other paper's."
        )
    table = Table("likeness", "Likeness to the real game", tuple(columns), note)
    for row in _rows_of(short):
        figures = _means(unit.facts["rows"].get(row, {}) for unit in short)
        far = _means(unit.facts["rows"].get(row, {}) for unit in longer)
        figures.update({name: value for name, value in far.items() if name.endswith(f"_{LONG_S}s")})
        table.rows[row] = {column.key: figures[column.key] for column in columns if column.key in figures}
        if judge is not None:
            for s in LIKENESS_S:
                units = longer if s == LONG_S else short
                if units:
                    pair = [_steps(units, name, s) for name in (row, REAL)]
                    table.rows[row][f"play_{s}s"] = features.frechet_distance(pair[0], pair[1])
    if judge is not None and "play" in bank.arrays:
        others = bank.arrays["play"][: len(short)].astype(np.float64)
        table.rows[OTHER_REAL] = {
            f"play_{s}s": features.frechet_distance(
                others[:, : s * FPS].reshape(-1, others.shape[-1]), _steps(short, REAL, s)
            )
            for s in (1, SHORT_S)
        }
    return table


def _steps(units: Sequence[Unit], row: str, s: int) -> npt.NDArray[np.float64]:
    return np.concatenate([unit.arrays[f"features.{row}"][: s * FPS] for unit in units]).astype(np.float64)


def drift(
    runs: Mapping[str, Sequence[Unit]], bank: Unit, pictures: npt.NDArray[Any] | None, detectors: Sequence[Detector]
) -> Table:
    """Long rollouts against what the game looks like."""
    names = {"sharpness": "sharpness", "contrast": "contrast", "saturation": "colour"}
    columns = [
        Column(f"{name}_{s}s", f"{label}, {_time(s)}", "{:.2f}", "one")
        for name, label in names.items()
        for s in DRIFT_S
    ]
    columns += [Column(f"pictures_{s}s", f"feature distance, {_time(s)}", SHARE, "low") for s in DRIFT_S]
    columns += [Column(f"{long.KEPT}_{s}s", f"start kept, dB, {_time(s)}", "{:.1f}", "high") for s in DRIFT_S[:3]]
    columns += [Column(f"collapsed_{s}s", f"collapsed by {_time(s)}", "{:.2f}", "low") for s in DRIFT_S]
    columns.append(Column("frame_change", "change/frame", "{:.2f}"))
    note = (
        "Sharpness, contrast and colour of the second that ends there, over the mean of real clips of the game (1 is "
        "equal). Feature distance: Fréchet, of the 4 s before. Collapsed: further from real seconds, for 2 s on end, "
        "than all but one in a thousand of them, as the game shows them and "
        "as this model's tokenizer does. Actions are the recording's own, one episode's after another; the "
        "real rows end with the recorded episodes. Start kept: PSNR against the start picture where nobody moves. "
        "Shuffled actions do not apply."
    )
    table = Table("drift", "Drift in long play", tuple(columns), note)
    for row, units in runs.items():
        table.rows[row] = long.drift_figures(units, bank, pictures)
        if detectors:
            table.rows[row].update(long.collapse_figures(units, detectors))
    return table


def _time(s: int) -> str:
    return f"{s} s" if s < 120 else f"{s // 60} min"


def curves(runs: Mapping[str, Sequence[Unit]], bank: Unit, detectors: Sequence[Detector]) -> dict[str, dict[str, list]]:
    """By name of the curve and row, one value a second: looks over the bank's mean, and the share that has collapsed.

    At every second the mean of the runs that last so long.
    """
    result: dict[str, dict[str, list]] = {name: {} for name in (*long.LOOKS, "collapsed")}
    for row, units in runs.items():
        seconds = max(len(unit.facts["curves"]["sharpness"]) for unit in units)
        for name in long.LOOKS:
            usual = max(float(np.mean(bank.facts["curves"][name])), 1e-6)
            lines = [unit.facts["curves"][name] for unit in units]
            means = [float(np.mean([line[i] for line in lines if len(line) > i])) / usual for i in range(seconds)]
            result[name][row] = [round(value, 4) for value in means]
        if detectors:
            ends = [(collapse_of(detectors, u.arrays["looks"]), len(u.arrays["looks"])) for u in units]
            result["collapsed"][row] = [
                round(float(np.mean([at is not None and at <= i for at, length in ends if length > i])), 4)
                for i in range(seconds)
            ]
    return {name: lines for name, lines in result.items() if lines}


def lasts(plays: Sequence[Unit], detectors: Sequence[Detector]) -> list[dict[str, float]]:
    """For each long play the seconds until it collapses, or its length."""
    if not detectors:
        return []
    ends = [(collapse_of(detectors, unit.arrays["looks"]), len(unit.arrays["looks"])) for unit in plays]
    return [{"lasts_s": float(length if at is None else at)} for at, length in ends]


def consistency(short: Sequence[Unit], returns: Sequence[Unit]) -> Table:
    columns = (
        Column("temporal", "temporal", "{:.4f}", "high"),
        Column("smoothness", "smoothness", "{:.4f}", "high"),
        Column("scenario", "there and back", SHARE, "high"),
        Column("loop_db", "once round, PSNR dB", "{:.2f}", "high"),
    )
    note = (
        "Temporal and smoothness over one second of the 4 s clips; there and back: mirrored actions; once round: 360 "
        "degrees of yaw, the last frame against the first. The last two need a game that can be replayed: no real row. "
        "A frozen video does best on all of these: read them beside obedience."
    )
    table = Table("consistency", "Consistency", columns, note)
    for row in _rows_of(short):
        figures = _means(unit.facts["rows"][row] for unit in short)
        figures.update(_means(unit.facts["rows"].get(row, {}) for unit in returns))
        table.rows[row] = {column.key: figures[column.key] for column in columns if column.key in figures}
    return table


def tokenizer(short: Sequence[Unit]) -> Table | None:
    """Measures the loss of the tokenizer alone on the 4 s clips."""
    if REBUILT not in short[0].facts["rows"]:
        return None
    columns = (
        Column("psnr_db_4s", "PSNR dB", "{:.2f}", "high"),
        Column("ssim_4s", "SSIM", SHARE, "high"),
        Column("picture_4s", "picture distance", SHARE, "low"),
        Column("sharpness", "sharpness / real", "{:.2f}", "one"),
        Column("temporal", "temporal", "{:.4f}", "high"),
    )
    note = "Encoded and decoded as the model uses it, at 4 s into held-out clips; sharpness over the whole clip."
    table = Table("tokenizer", "Tokenizer", columns, note)
    real = _means(unit.facts["rows"][REAL] for unit in short)["sharpness"]
    for row in (REAL, REBUILT, STATIC, COPY):
        figures = _means(unit.facts["rows"][row] for unit in short)
        figures["sharpness"] /= max(real, 1e-6)
        table.rows[row] = {column.key: figures[column.key] for column in columns if column.key in figures}
    return table


def suite(published: Suite, units: Sequence[Unit], judge: Judge) -> Table:
    """A published suite's actions, judged as `obedience` does."""
    note = (
        f"{published.title}: {len(units)} of {len(published.actions)} actions can be said to this model. Shuffled: "
        f"judged against the action after. {judge_note(judge)}"
    )
    table = Table(f"suite_{published.name}", f"Suite {published.name}", obedience_columns(judge.space), note)
    if not units:
        return table
    asked = [unit.arrays["asked"] for unit in units]
    for row in (DREAM, STATIC):
        table.rows[row] = obedience_figures([unit.arrays[f"said.{row}"] for unit in units], asked, judge.space)
    dreamt = [unit.arrays[f"said.{DREAM}"] for unit in units]
    table.rows[SHUFFLED] = obedience_figures(dreamt, asked[1:] + asked[:1], judge.space)
    return table


def per_start(
    short: Sequence[Unit], longer: Sequence[Unit], returns: Sequence[Unit], ends: list[dict[str, float]]
) -> dict[str, list[dict[str, float]]]:
    """The rollouts' figures for every start by itself, by section: what a paired comparison takes."""
    sections = {"short": short, "16s": longer, "return": returns}
    result = {name: [dict(unit.facts["rows"][DREAM]) for unit in units] for name, units in sections.items() if units}
    for figures, unit in zip(result.get("short", []), short, strict=True):
        figures["gain_db_1s"] = _gain(unit, DREAM, 1)
    return {**result, **({"play": ends} if ends else {})}


def idm_notes(judge: Judge | None) -> list[str]:
    if judge is not None:
        return []
    return [
        "No inverse-dynamics model (--idm) of this game: obedience to recorded actions, picture distance, Fréchet "
        "distance of play, feature distance and temporal consistency are left out. Train one with `reverie train idm`."
    ]


def _rows_of(units: Sequence[Unit]) -> list[str]:
    return [row for row in ORDER if units and row in units[0].facts["rows"]]


def _means(rows: Iterable[Mapping[str, float]]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            found.setdefault(name, []).append(value)
    return {name: float(np.mean(values)) for name, values in found.items()}
