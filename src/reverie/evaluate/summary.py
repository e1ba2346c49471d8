"""From the results of an evaluation to its tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from reverie.evaluate.clips import ClipResult
from reverie.evaluate.collapse import Detector
from reverie.evaluate.controllability import controllability, groups_of, single_keys
from reverie.evaluate.idm_scorer import INSIDE, IDMScorer, frechet_distance
from reverie.evaluate.long_play import LongResult, ReferenceResult, collapse_metrics, collapse_times, drift_metrics
from reverie.evaluate.plan import DRIFT_S, LIKENESS_S, LONG_S, SHORT_S
from reverie.evaluate.scripted import ReturnResult, SuiteResult
from reverie.evaluate.suites import Suite
from reverie.evaluate.tables import (
    COPY,
    DREAM,
    OTHER_REAL,
    REAL,
    REBUILT,
    SHUFFLED,
    STATIC,
    Column,
    Metrics,
    Table,
)  # fmt: skip
from reverie.types import FPS, ActionSpace

IDLE = "the dream, standing still"
ORDER = (REAL, REBUILT, DREAM, SHUFFLED, STATIC, COPY)
SHARE = "{:.3f}"


def obedience(results: Sequence[ClipResult], scorer: IDMScorer | None) -> Table | None:
    """Compares the scorer's actions with the requested ones, over all steps of all starts."""
    if scorer is None:
        return None
    asked = [result.asked[INSIDE] for result in results if result.asked is not None]
    rows = {}
    for row in _rows_of(results):
        named = [actions[INSIDE] for result in results if (actions := result.rows[row].actions) is not None]
        rows[row] = controllability(named, asked, scorer.space)
    return Table("Obedience to recorded actions", obedience_columns(scorer.space), scorer_note(scorer), rows)


def obedience_columns(space: ActionSpace) -> tuple[Column, ...]:
    return (
        Column("keyboard", "keyboard", SHARE, "high"),
        Column("keyboard_balanced", "keyboard, balanced", SHARE, "high"),
        Column("mouse", "mouse, 9 directions", SHARE, "high"),
        Column("turn_error_deg", "turn error, deg/frame", "{:.2f}", "low"),
        *(Column(name, name, SHARE, "high") for name in (*groups_of(space), *single_keys(space))),
    )


def scorer_note(scorer: IDMScorer) -> str:
    own = ", ".join(f"{name.removeprefix('key.')} {share:.3f}" for name, share in scorer.held_out.items())
    return (
        f"Actions that the inverse-dynamics model {scorer.name} names from the pictures, against those asked; groups, "
        f"dead zone and nine directions of the GameWorld Score. Its own accuracy on held-out recordings: "
        f"{own or 'not stated in its folder'}. Balanced: averaged over the answers instead of the frames; a still "
        "picture gets a third."
    )


def true_actions(results: Sequence[ClipResult]) -> Table:
    """Compares the rollout under the recorded actions with one under another clip's: the nearer to the real clip."""
    columns = []
    row = {}
    for s in (1, SHORT_S):
        columns.append(Column(f"nearer_{s}s", f"true actions nearer, {s} s", SHARE, "high"))
        columns.append(Column(f"gain_db_{s}s", f"gain, {s} s, dB", "{:+.2f}", "high"))
        gains = np.array([_gain_db(result, s) for result in results])
        row |= {f"nearer_{s}s": float((gains > 0).mean()), f"gain_db_{s}s": float(gains.mean())}
    note = (
        "PSNR against the real clip under its own actions, less that under another clip's: share of starts above zero, "
        "and the mean. The real recording would get 1 by definition; what cannot be steered gets 0."
    )
    rows = {DREAM: row, STATIC: {column.key: 0.0 for column in columns}}
    return Table("True actions against another's", tuple(columns), note, rows)


def _gain_db(result: ClipResult, s: int) -> float:
    return result.rows[DREAM].metrics[f"psnr_db_{s}s"] - result.rows[SHUFFLED].metrics[f"psnr_db_{s}s"]


def likeness(
    short: Sequence[ClipResult], longer: Sequence[ClipResult], reference: ReferenceResult, scorer: IDMScorer | None
) -> Table:
    """Compares videos with the real frames under the recorded actions."""
    columns = []
    for s in LIKENESS_S:
        columns += [
            Column(f"psnr_db_{s}s", f"PSNR dB, {s} s", "{:.2f}", "high"),
            Column(f"ssim_{s}s", f"SSIM, {s} s", SHARE, "high"),
            Column(f"lpips_{s}s", f"LPIPS, {s} s", SHARE, "low"),
            Column(f"picture_{s}s", f"picture distance, {s} s", SHARE, "low"),
            Column(f"play_{s}s", f"Fréchet distance of play, {s} s", "{:.2f}", "low"),
        ]
    note = (
        f"Same start, same actions, over the 4 frames that end at that time ({len(short)} starts; {len(longer)} at "
        f"{LONG_S} s); the Fréchet distance over all steps until then. The tokenizer's row is the ceiling; the copy "
        "sees the true frame before each."
    )
    rows = {}
    for row in _rows_of(short):
        means = _means(result.rows[row].metrics for result in short)
        far = _means(result.rows[row].metrics for result in longer)
        rows[row] = _pick(means | {name: x for name, x in far.items() if name.endswith(f"_{LONG_S}s")}, columns)
    if any("lpips_1s" in row for row in rows.values()):
        note += " LPIPS: version 0.1 on AlexNet, comparable with other papers' at the same size."
    if scorer is not None:
        note += (
            f" Picture distance and Fréchet distance of play are on features of {scorer.name}, a network of ours: they "
            "are not LPIPS and not FVD, and compare with no other paper's."
        )
        for row, s in ((row, s) for row in rows for s in LIKENESS_S):
            results = longer if s == LONG_S else short
            if results:
                rows[row][f"play_{s}s"] = frechet_distance(_steps(results, row, s), _steps(results, REAL, s))
    if reference.play is not None:
        others = reference.play[: len(short)]
        rows[OTHER_REAL] = {
            f"play_{s}s": frechet_distance(np.concatenate(list(others[:, : s * FPS])), _steps(short, REAL, s))
            for s in (1, SHORT_S)
        }
    return Table("Likeness to the real game", tuple(columns), note, rows)


def _steps(results: Sequence[ClipResult], row: str, s: int) -> npt.NDArray[np.float32]:
    found = (result.rows[row].features for result in results)
    return np.concatenate([features[: s * FPS] for features in found if features is not None])


def drift(runs: Mapping[str, Sequence[LongResult]], reference: ReferenceResult, detectors: Sequence[Detector]) -> Table:
    """Compares long rollouts with what the game looks like."""
    names = {"sharpness": "sharpness", "contrast": "contrast", "saturation": "colour"}
    columns = [
        Column(f"{name}_{s}s", f"{label}, {_time(s)}", "{:.2f}", "one")
        for name, label in names.items()
        for s in DRIFT_S
    ]
    columns += [Column(f"pictures_{s}s", f"feature distance, {_time(s)}", SHARE, "low") for s in DRIFT_S]
    columns += [Column(f"kept_{s}s", f"start kept, dB, {_time(s)}", "{:.1f}", "high") for s in DRIFT_S[:3]]
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
    rows = {row: drift_metrics(found, reference) | collapse_metrics(found, detectors) for row, found in runs.items()}
    return Table("Drift in long play", tuple(columns), note, rows)


def _time(s: int) -> str:
    return f"{s} s" if s < 120 else f"{s // 60} min"


def consistency(short: Sequence[ClipResult], returns: Sequence[ReturnResult]) -> Table:
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
    rows = {}
    for row in _rows_of(short):
        means = _means(result.rows[row].metrics for result in short)
        rows[row] = _pick(means | _means(result.rows.get(row, {}) for result in returns), columns)
    return Table("Consistency", columns, note, rows)


def tokenizer(short: Sequence[ClipResult]) -> Table | None:
    """Measures the loss of the tokenizer alone on the 4 s clips."""
    if REBUILT not in short[0].rows:
        return None
    columns = (
        Column("psnr_db_4s", "PSNR dB", "{:.2f}", "high"),
        Column("ssim_4s", "SSIM", SHARE, "high"),
        Column("lpips_4s", "LPIPS", SHARE, "low"),
        Column("picture_4s", "picture distance", SHARE, "low"),
        Column("sharpness", "sharpness / real", "{:.2f}", "one"),
        Column("temporal", "temporal", "{:.4f}", "high"),
    )
    note = "Encoded and decoded as the model uses it, at 4 s into held-out clips; sharpness over the whole clip."
    means = {row: _means(result.rows[row].metrics for result in short) for row in (REAL, REBUILT, STATIC, COPY)}
    real = max(means[REAL]["sharpness"], 1e-6)
    rows = {row: _pick(found | {"sharpness": found["sharpness"] / real}, columns) for row, found in means.items()}
    return Table("Tokenizer", columns, note, rows)


def suite(published: Suite, results: Sequence[SuiteResult], scorer: IDMScorer) -> Table:
    """Scores a published suite's actions as `obedience` does."""
    note = (
        f"{published.title}: {len(results)} of {len(published.actions)} actions can be said to this model. Shuffled: "
        f"judged against the action after. {scorer_note(scorer)}"
    )
    rows = {}
    if results:
        asked, dream = [result.asked for result in results], [result.dream for result in results]
        rows[DREAM] = controllability(dream, asked, scorer.space)
        rows[STATIC] = controllability([result.static for result in results], asked, scorer.space)
        rows[SHUFFLED] = controllability(dream, asked[1:] + asked[:1], scorer.space)
    return Table(f"Suite {published.name}", obedience_columns(scorer.space), note, rows)


def per_start(
    short: Sequence[ClipResult],
    longer: Sequence[ClipResult],
    returns: Sequence[ReturnResult],
    plays: Sequence[LongResult],
    detectors: Sequence[Detector],
) -> dict[str, list[Metrics]]:
    """The rollouts' figures for every start by itself, by section: what a paired comparison takes."""
    sections = {
        "short": [{**result.rows[DREAM].metrics, "gain_db_1s": _gain_db(result, 1)} for result in short],
        "16s": [result.rows[DREAM].metrics for result in longer],
        "return": [result.rows[DREAM] for result in returns],
    }
    if detectors:
        ends = collapse_times(plays, detectors)
        sections["play"] = [{"lasts_s": float(length if at is None else at)} for at, length in ends]
    return {name: rows for name, rows in sections.items() if rows}


def _rows_of(results: Sequence[ClipResult]) -> list[str]:
    return [row for row in ORDER if results and row in results[0].rows]


def _means(rows: Iterable[Metrics]) -> Metrics:
    found: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            found.setdefault(name, []).append(value)
    return {name: float(np.mean(values)) for name, values in found.items()}


def _pick(metrics: Metrics, columns: Iterable[Column]) -> Metrics:
    return {column.key: metrics[column.key] for column in columns if column.key in metrics}
