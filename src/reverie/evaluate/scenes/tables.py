"""From the results of an evaluation in a scene to its tables and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from reverie.evaluate.collapse import KINDS, LOOK_SIZE, Detector, Looks, collapse_kind, curve_of
from reverie.evaluate.controllability import controllability, strict_accuracy
from reverie.evaluate.idm_scorer import IDMScorer, frechet_distance
from reverie.evaluate.scenes.units import (
    GAME,
    STILL,
    Errors,
    RealViews,
    TurnResult,
    ViewFeatures,
    WalkResult,
    WayResult,
)  # fmt: skip
from reverie.evaluate.scenes.walks import SceneSize
from reverie.evaluate.summary import obedience_columns, scorer_note
from reverie.evaluate.tables import Column, Metrics, Table
from reverie.types import FPS

SHARE, DB = "{:.3f}", "{:.2f}"
PSNR_S, SHARP_S = (4, 16), (4, 10, 20)
WINDOWS = 10
DRAWS = 16
"""Random choices of real seconds that a distance is averaged over."""
BLURRED = "the game, blurred"


def decibel(error: npt.ArrayLike) -> Errors:
    """PSNR, dB, of mean squared errors in grey levels; at most 60."""
    return np.minimum(10 * np.log10(255.0**2 / np.maximum(np.asarray(error, np.float64), 1e-9)), 60.0)


def likeness(walks: Mapping[str, WalkResult]) -> Table:
    """Frames along held-out walks, against the game's own."""
    columns = [Column(f"psnr_db_{s}s", f"PSNR dB, {s} s", DB, "high") for s in PSNR_S]
    columns.append(Column("psnr_worst", "PSNR dB, worst of ten windows", DB, "high"))
    columns += [Column(f"sharp_{s}s", f"sharpness, {s} s", DB, "one") for s in SHARP_S]
    columns.append(Column("again_db", "views that come again, dB", DB, "high"))
    game = walks[GAME]
    note = (
        f"{len(game.error)} held-out walks from their first frame and pose on, at half size. PSNR over the "
        "second that ends there; worst: the worst of ten parts of the walk. Sharpness over the game's own of that "
        "second (1 is equal). Views that come again: frames against those of 3 s or more before from the same place "
        "and direction; the game's own row is what can be reached."
    )
    rows = {}
    for row, walk in walks.items():
        rows[row] = ({} if row == GAME else _errors(walk.error)) | _sharpness(walk.signs, game.signs)
        again = walk.again[np.isfinite(walk.again)]
        if len(again):
            rows[row]["again_db"] = float(decibel(again).mean())
    if game.still is not None:
        rows[STILL] = _errors(game.still)
    return Table("In the scene, and from one image", tuple(columns), note, rows)


def _errors(errors: Errors) -> Metrics:
    row = {f"psnr_db_{s}s": _at(errors, s) for s in PSNR_S if errors.shape[1] > s * FPS}
    parts = _windows(errors[:, 1:])
    return {**row, "psnr_worst": min(float(decibel(part.mean(1)).mean()) for part in parts)}


def _windows(values: Errors) -> list[Errors]:
    """Ten parts of (n, t, ...) along time, or t where that is less."""
    return np.array_split(values, min(WINDOWS, values.shape[1]), axis=1)


def _at(errors: Errors, s: int) -> float:
    return float(decibel(errors[:, s * FPS - FPS + 1 : s * FPS + 1].mean(1)).mean())


def _sharpness(signs: Looks, game: Looks) -> Metrics:
    sharp, real = (curve_of(one, "sharpness") for one in (signs, game))
    return {
        f"sharp_{s}s": float(sharp[:, s - 1].mean() / max(real[:, s - 1].mean(), 1e-6))
        for s in SHARP_S
        if sharp.shape[1] >= s
    }


def returns(
    turns: Mapping[str, TurnResult],
    ways: Mapping[str, WayResult],
    views: Mapping[str, RealViews],
    size: SceneSize,
    has_scorer: bool,
) -> Table:
    """Turned away and back, out and back, and what half turns show."""
    out = size.out_s
    columns = (
        Column("turn_db", "turned away 4 s and back, dB", DB, "high"),
        Column("away_db", "half way, dB", DB),
        Column("turned_deg", "turned, degrees", "{:.0f}"),
        Column("way_db", f"out {out} s and back, dB", DB, "high"),
        Column("whole_way_db", "all of the way back, dB", DB, "high"),
        Column("views_looks", "half turn: distance of looks", DB, "low"),
        Column("views_features", "half turn: distance of picture features", DB, "low"),
    )
    note = (
        "To what the model itself showed before. Turned: the mouse says 180 degrees and back, the camera is the "
        "model's own; half way should be low, or nothing turned. Out and back: the camera is the model's own on the "
        "way out and is led back along the same way. Half turn: Fréchet distance of its frames to the game's own "
        "nearest to those views, over the distance of two halves of the game's own (even and odd episodes), equally "
        "many on each side; 1 is a half of the game. Looks: nine numbers a frame, of light, colour, contrast, and "
        "detail at three scales and its direction"
    )
    note += "; picture features are the inverse-dynamics model's." if has_scorer else "."
    rows = {}
    for row in dict.fromkeys([*turns, *ways]):
        metrics: Metrics = {}
        if row in turns:
            turn = turns[row]
            metrics["turn_db"] = float(decibel(turn.back).mean())
            metrics["away_db"] = float(decibel(turn.away).mean())
            metrics["turned_deg"] = turn.turned_deg
            metrics |= _compare_views(turn.half, views[row])
        if row in ways:
            metrics["way_db"] = float(decibel(ways[row].back).mean())
            metrics["whole_way_db"] = float(decibel(ways[row].way).mean())
        rows[row] = metrics
    if views:
        found = [_compare_views(real.blurred, real) for real in views.values()]
        rows[BLURRED] = {key: float(np.mean([one[key] for one in found])) for key in found[0]}
    return Table("Turning away and coming back", columns, note, rows)


def _compare_views(shown: ViewFeatures, real: RealViews) -> Metrics:
    metrics = {"views_looks": relative_distance(shown.looks, real.even.looks, real.odd.looks)}
    if shown.images is not None and real.even.images is not None and real.odd.images is not None:
        metrics["views_features"] = relative_distance(shown.images, real.even.images, real.odd.images)
    return metrics


def relative_distance(shown: Errors, first: Errors, second: Errors) -> float:
    """Fréchet distance of features (n, d) to two halves of real ones, over that of the halves; 1 is like a half.

    Features are scaled by their deviation in the real ones.  All sets are cut to the smallest number, because the
    distance grows as samples get fewer.
    """
    count = min(len(shown), len(first), len(second))
    shown, first, second = (x[:count].astype(np.float64) for x in (shown, first, second))
    scale = np.concatenate([first, second]).std(0) + 1e-6
    shown, first, second = (x / scale for x in (shown, first, second))
    apart = frechet_distance(first, second)
    own = (frechet_distance(shown, first) + frechet_distance(shown, second)) / 2
    return own / max(apart, 1e-9)


def plays(
    runs: Mapping[str, Sequence[Looks]], real: Sequence[Looks], detectors: Sequence[Detector], play_s: int
) -> Table:
    """Long plays: collapse, and drift as the worst of ten windows."""
    columns = (
        Column(f"collapsed_{play_s}s", f"collapsed by {play_s} s", SHARE, "low"),
        Column("lasts_s", "lasts, s", "{:.1f}", "high"),
        *(Column(kind, f"by {kind}", SHARE, "low") for kind in KINDS),
        Column("sharp_20s", "sharpness, 20 s", DB, "one"),
        Column("sharp_worst", "sharpness, worst of ten windows", DB, "one"),
        Column("looks_worst", "distance of looks, worst of ten windows", DB, "low"),
    )
    count = max((len(clips) for clips in runs.values()), default=0)
    note = (
        f"{count} plays of {play_s} s under recorded actions, with the model's own camera. Collapsed: see the table of "
        "the detector. Sharpness over the game's usual (1 is equal). Distance of looks: Fréchet, of all plays in a "
        "tenth of the time to as many seconds of other recordings, over that of two such sets; a few plays see less of "
        "the game than many recordings, so 1 is not reached."
    )
    seconds, rows = np.concatenate(list(real)), {}
    usual = max(float(curve_of(seconds, "sharpness").mean()), 1e-6)
    for row, clips in runs.items():
        metrics, signs = _collapses(clips, detectors), np.stack(clips)
        if metrics:
            metrics[f"collapsed_{play_s}s"] = metrics.pop("collapsed")
        sharp = curve_of(signs, "sharpness") / usual
        if sharp.shape[1] >= 20:
            metrics["sharp_20s"] = float(sharp[:, 19].mean())
        metrics["sharp_worst"] = float(min(part.mean() for part in _windows(sharp)))
        rows[row] = metrics | _drift(signs, seconds)
    return Table("Long play in the scene", columns, note, rows)


def _drift(played: Looks, real: Looks) -> Metrics:
    parts = [part.reshape(-1, part.shape[-1])[:, :LOOK_SIZE] for part in _windows(played)]
    count = min(min(map(len, parts)), len(real) // 2)
    if count < 2:
        return {}
    rng = np.random.default_rng(0)
    draws = [rng.permutation(len(real))[: 2 * count] for _ in range(DRAWS)]
    halves = [(real[draw[:count], :LOOK_SIZE], real[draw[count:], :LOOK_SIZE]) for draw in draws]
    distances = [np.mean([relative_distance(part, *half) for half in halves]) for part in parts]
    return {"looks_worst": float(max(distances))}


def _collapses(clips: Sequence[Looks], detectors: Sequence[Detector]) -> Metrics:
    """Share that collapse, how long they last on average, and the share of each kind."""
    if not detectors:
        return {}
    found = [collapse_kind(detectors, seen) for seen in clips]
    lasts = [len(seen) if one is None else one[0] for one, seen in zip(found, clips, strict=True)]
    kinds = {kind: float(np.mean([one is not None and one[1] == kind for one in found])) for kind in KINDS}
    return {"collapsed": float(np.mean([one is not None for one in found])), "lasts_s": float(np.mean(lasts)), **kinds}


def detector(ruined: Mapping[str, Sequence[Looks]], detectors: Sequence[Detector]) -> Table:
    """The collapse detector, tried on the held-out walks as they are and ruined."""
    columns = (
        Column("collapsed", "found", SHARE),
        Column("lasts_s", "after, s", "{:.1f}"),
        *(Column(kind, f"as {kind}", SHARE) for kind in KINDS),
    )
    limits = "; ".join(
        f"{name}: looks {d.limit:.1f} deviations, fold {d.fold:.2f}, mirrored start {d.mirror:.2f}, haze "
        f"{np.exp(d.haze):.2f} of the start's detail, frozen {d.still:.2f} levels"
        for name, d in zip(("the game", "the game through the tokenizer"), detectors, strict=False)
    )
    note = (
        "Recorded walks must not be found, ruined ones (from the fifth second on) must. Limits are set by other "
        "recordings of the game, as they are and through the tokenizer, and for looks by the scene's keyframes too; a "
        f"second counts where it is beyond all of them. {limits}."
    )
    rows = {name: _collapses(clips, detectors) for name, clips in ruined.items()} if detectors else {}
    return Table("The collapse detector", columns, note, rows)


def actions(walks: Mapping[str, WalkResult], scorer: IDMScorer | None) -> Table | None:
    """Actions that the inverse-dynamics model reads from frames, against those that were asked for, frame by frame."""
    if scorer is None:
        return None
    columns = (
        *obedience_columns(scorer.space),
        Column("above_shuffled", "keyboard, balanced, above shuffled actions", "{:+.3f}", "high"),
        Column("strict", "all right at once", SHARE, "high"),
    )
    note = (
        f"{scorer_note(scorer)} Shuffled: held to the actions of another walk. All right at once: every key and the "
        "mouse."
    )
    rows = {}
    for row, walk in walks.items():
        named, asked = walk.named, walk.asked
        if not named:
            continue
        others = asked[1:] + asked[:1] if len(asked) > 1 else [np.roll(asked[0], len(asked[0]) // 2, 0)]
        rows[row] = controllability(named, asked, scorer.space)
        if "keyboard_balanced" in rows[row]:
            shuffled = controllability(named, others, scorer.space)["keyboard_balanced"]
            rows[row]["above_shuffled"] = rows[row]["keyboard_balanced"] - shuffled
        rows[row]["strict"] = strict_accuracy(np.concatenate(named), np.concatenate(asked), scorer.space)
    return Table("Obedience, frame by frame", columns, note, rows)


def streamed(differences: dict[str, Metrics], dtype: str) -> Table:
    """Largest differences of streams to whole clips."""
    columns = tuple(Column(name, name, "{:.1e}", "low") for name in ("encoder", "network", "decoder"))
    note = (
        f"Largest difference, in {dtype}: latents of about unit variance, pixels in [-1, 1]. The clip is one that the "
        "session generated; the network is asked about noise at every step, block after block and all at once."
    )
    return Table("Streamed against whole", columns, note, differences)


def curves(walks: Mapping[str, WalkResult]) -> dict[str, dict[str, list[float]]]:
    """By second: `walk_psnr_db`, and `walk_sharpness` over the game's own; a line for each row."""
    game = walks[GAME]
    errors = {row: walk.error for row, walk in walks.items() if row != GAME}
    if game.still is not None:
        errors[STILL] = game.still
    sharp = {row: curve_of(walk.signs, "sharpness").mean(0) for row, walk in walks.items()}
    return {
        "walk_psnr_db": {row: _by_second(error) for row, error in errors.items()},
        "walk_sharpness": {row: [round(float(x), 4) for x in line / sharp[GAME]] for row, line in sharp.items()},
    }


def _by_second(errors: Errors) -> list[float]:
    seconds = errors[:, 1:].reshape(len(errors), -1, FPS)
    return [round(float(x), 3) for x in decibel(seconds.mean(2)).mean(0)]


def per_start(walk: WalkResult) -> list[Metrics]:
    """PSNR of every walk by itself: what a paired comparison takes."""
    times = [s for s in PSNR_S if walk.error.shape[1] > s * FPS]
    return [{f"psnr_db_{s}s": _at(one[None], s) for s in times} for one in walk.error]
