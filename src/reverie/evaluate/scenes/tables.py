"""From the units of an evaluation in a scene to its tables and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from reverie.evaluate import features
from reverie.evaluate.collapse import FINE, KINDS, LOOK_SIZE, Detector, collapse_kind
from reverie.evaluate.obedience import obedience_figures, strict_accuracy
from reverie.evaluate.plan import Judge
from reverie.evaluate.scenes.units import GAME, RUINS, STILL, judged_actions
from reverie.evaluate.scenes.walks import SceneSize
from reverie.evaluate.store import Unit
from reverie.evaluate.summary import judge_note, obedience_columns
from reverie.evaluate.tables import Column, Table
from reverie.types import FPS

SHARE, DB = "{:.3f}", "{:.2f}"
PSNR_S, SHARP_S = (4, 16), (4, 10, 20)
WINDOWS = 10
DRAWS = 16
"""Random choices of real seconds that a distance is averaged over."""
BLURRED = "the game, blurred"

Errors = npt.NDArray[np.float64]


def decibel(error: npt.ArrayLike) -> Errors:
    """PSNR, dB, of mean squared errors in grey levels; at most 60."""
    return np.minimum(10 * np.log10(255.0**2 / np.maximum(np.asarray(error, np.float64), 1e-9)), 60.0)


def likeness(units: Mapping[str, Unit]) -> Table:
    """Frames along held-out walks, against the game's own."""
    columns = [Column(f"psnr_db_{s}s", f"PSNR dB, {s} s", DB, "high") for s in PSNR_S]
    columns.append(Column("psnr_worst", "PSNR dB, worst of ten windows", DB, "high"))
    columns += [Column(f"sharp_{s}s", f"sharpness, {s} s", DB, "one") for s in SHARP_S]
    columns.append(Column("again_db", "views that come again, dB", DB, "high"))
    game = units[GAME]
    note = (
        f"{len(game.arrays['error'])} held-out walks from their first frame and pose on, at half size. PSNR over the "
        "second that ends there; worst: the worst of ten parts of the walk. Sharpness over the game's own of that "
        "second (1 is equal). Views that come again: frames against those of 3 s or more before from the same place "
        "and direction; the game's own row is what can be reached."
    )
    table = Table("scene", "In the scene, and from one image", tuple(columns), note)
    for row, unit in units.items():
        errors = None if row == GAME else unit.arrays["error"]
        table.rows[row] = {**_errors(errors), **_sharpness(unit.arrays["sharp"], game.arrays["sharp"])}
        again = unit.arrays["again"]
        if np.isfinite(again).any():
            table.rows[row]["again_db"] = float(decibel(again[np.isfinite(again)]).mean())
    table.rows[STILL] = _errors(game.arrays["still"])
    return table


def _errors(errors: Errors | None) -> dict[str, float]:
    if errors is None:
        return {}
    row = {f"psnr_db_{s}s": _at(errors, s) for s in PSNR_S if errors.shape[1] > s * FPS}
    parts = _windows(errors[:, 1:])
    return {**row, "psnr_worst": min(float(decibel(part.mean(1)).mean()) for part in parts)}


def _windows(values: Errors) -> list[Errors]:
    """Ten parts of (n, t, ...) along time, or t where that is less."""
    return np.array_split(values, min(WINDOWS, values.shape[1]), axis=1)


def _at(errors: Errors, s: int) -> float:
    return float(decibel(errors[:, s * FPS - FPS + 1 : s * FPS + 1].mean(1)).mean())


def _sharpness(sharp: Errors, real: Errors) -> dict[str, float]:
    return {
        f"sharp_{s}s": float(sharp[:, s - 1].mean() / max(real[:, s - 1].mean(), 1e-6))
        for s in SHARP_S
        if sharp.shape[1] >= s
    }


def returns(
    turns: Mapping[str, Unit], ways: Mapping[str, Unit], views: Mapping[str, Unit], size: SceneSize, has_judge: bool
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
    note += "; picture features are the inverse-dynamics model's." if has_judge else "."
    table = Table("scene_returns", "Turning away and coming back", columns, note)
    for row in dict.fromkeys([*turns, *ways]):
        figures: dict[str, float] = {}
        if row in turns:
            arrays = turns[row].arrays
            figures["turn_db"] = float(decibel(arrays["back"]).mean())
            figures["away_db"] = float(decibel(arrays["away"]).mean())
            figures["turned_deg"] = turns[row].facts["turned_deg"]
            figures |= _views(turns[row].arrays, views[row].arrays, "half")
        if row in ways:
            figures["way_db"] = float(decibel(ways[row].arrays["back"]).mean())
            figures["whole_way_db"] = float(decibel(ways[row].arrays["way"]).mean())
        table.rows[row] = figures
    if views:
        found = [_views(unit.arrays, unit.arrays, "blurred") for unit in views.values()]
        table.rows[BLURRED] = {key: float(np.mean([one[key] for one in found])) for key in found[0]}
    return table


def _views(shown: Mapping[str, Errors], real: Mapping[str, Errors], name: str) -> dict[str, float]:
    figures = {}
    for key, suffix in (("views_looks", ""), ("views_features", ".features")):
        if name + suffix in shown:
            sets = (shown[name + suffix], real["even" + suffix], real["odd" + suffix])
            figures[key] = relative_distance(*(x.astype(np.float64) for x in sets))
    return figures


def relative_distance(shown: Errors, first: Errors, second: Errors) -> float:
    """Fréchet distance of features (n, d) to two halves of real ones, over that of the halves; 1 is like a half.

    Features are scaled by their deviation in the real ones.  All sets are cut to the smallest number, because the
    distance grows as samples get fewer.
    """
    count = min(len(shown), len(first), len(second))
    scale = np.concatenate([first[:count], second[:count]]).std(0) + 1e-6
    shown, first, second = (x[:count] / scale for x in (shown, first, second))
    apart = features.frechet_distance(first, second)
    own = (features.frechet_distance(shown, first) + features.frechet_distance(shown, second)) / 2
    return own / max(apart, 1e-9)


def plays(units: Mapping[str, Unit], real: Unit, detectors: Sequence[Detector], play_s: int) -> Table:
    """Long plays: collapse, and drift as the worst of ten windows."""
    columns = (
        Column(f"collapsed_{play_s}s", f"collapsed by {play_s} s", SHARE, "low"),
        Column("lasts_s", "lasts, s", "{:.1f}", "high"),
        *(Column(kind, f"by {kind}", SHARE, "low") for kind in KINDS),
        Column("sharp_20s", "sharpness, 20 s", DB, "one"),
        Column("sharp_worst", "sharpness, worst of ten windows", DB, "one"),
        Column("looks_worst", "distance of looks, worst of ten windows", DB, "low"),
    )
    count = max((len(unit.arrays["looks"]) for unit in units.values()), default=0)
    note = (
        f"{count} plays of {play_s} s under recorded actions, with the model's own camera. Collapsed: see the table of "
        "the detector. Sharpness over the game's usual (1 is equal). Distance of looks: Fréchet, of all plays in a "
        "tenth of the time to as many seconds of other recordings, over that of two such sets; a few plays see less of "
        "the game than many recordings, so 1 is not reached."
    )
    table = Table("scene_play", "Long play in the scene", columns, note)
    looks = np.concatenate([x for name, x in real.arrays.items() if name.startswith("looks.")])
    usual = float(np.exp(looks[:, FINE]).mean() - 1)
    for row, unit in units.items():
        figures = _collapses(list(unit.arrays["looks"]), detectors)
        if figures:
            figures[f"collapsed_{play_s}s"] = figures.pop("collapsed")
        sharp = unit.arrays["sharp"] / max(usual, 1e-6)
        if sharp.shape[1] >= 20:
            figures["sharp_20s"] = float(sharp[:, 19].mean())
        figures["sharp_worst"] = float(min(part.mean() for part in _windows(sharp)))
        figures |= _drift(unit.arrays["looks"], looks)
        table.rows[row] = figures
    return table


def _drift(played: Errors, real: Errors) -> dict[str, float]:
    parts = [part.reshape(-1, part.shape[-1])[:, :LOOK_SIZE] for part in _windows(played)]
    count = min(min(map(len, parts)), len(real) // 2)
    if count < 2:
        return {}
    rng = np.random.default_rng(0)
    draws = [rng.permutation(len(real))[: 2 * count] for _ in range(DRAWS)]
    halves = [(real[draw[:count], :LOOK_SIZE], real[draw[count:], :LOOK_SIZE]) for draw in draws]
    distances = [np.mean([relative_distance(part, *half) for half in halves]) for part in parts]
    return {"looks_worst": float(max(distances))}


def _collapses(clips: Sequence[Errors], detectors: Sequence[Detector]) -> dict[str, float]:
    """Share that collapse, how long they last on average, and the share of each kind."""
    if not detectors:
        return {}
    found = [collapse_kind(detectors, seen) for seen in clips]
    lasts = [len(seen) if one is None else one[0] for one, seen in zip(found, clips, strict=True)]
    kinds = {kind: float(np.mean([one is not None and one[1] == kind for one in found])) for kind in KINDS}
    return {"collapsed": float(np.mean([one is not None for one in found])), "lasts_s": float(np.mean(lasts)), **kinds}


def detector(ruined: Unit, detectors: Sequence[Detector], num_walks: int) -> Table:
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
        f"recordings of the game, and a second counts where it is beyond those of both kinds. {limits}."
    )
    table = Table("scene_detector", "The collapse detector", columns, note)
    if detectors:
        for name in RUINS:
            table.rows[name] = _collapses([ruined.arrays[f"{name}.{k}"] for k in range(num_walks)], detectors)
    return table


def actions(units: Mapping[str, Unit], judge: Judge | None) -> Table | None:
    """Actions that the inverse-dynamics model reads from frames, against those that were asked for, frame by frame."""
    if judge is None:
        return None
    columns = (
        *obedience_columns(judge.space),
        Column("above_shuffled", "keyboard, balanced, above shuffled actions", "{:+.3f}", "high"),
        Column("strict", "all right at once", SHARE, "high"),
    )
    note = (
        f"{judge_note(judge)} Shuffled: held to the actions of another walk. All right at once: every key and the "
        "mouse."
    )
    table = Table("scene_actions", "Obedience, frame by frame", columns, note)
    for row, unit in units.items():
        said, asked = judged_actions(unit)
        if not said:
            continue
        others = asked[1:] + asked[:1] if len(asked) > 1 else [np.roll(asked[0], len(asked[0]) // 2, 0)]
        figures = obedience_figures(said, asked, judge.space)
        if "keyboard_balanced" in figures:
            shuffled = obedience_figures(said, others, judge.space)["keyboard_balanced"]
            figures["above_shuffled"] = figures["keyboard_balanced"] - shuffled
        figures["strict"] = strict_accuracy(np.concatenate(said), np.concatenate(asked), judge.space)
        table.rows[row] = figures
    return table


def streamed(differences: Mapping[str, Mapping[str, float]], dtype: str) -> Table:
    """Largest differences of streams to whole clips."""
    columns = tuple(Column(name, name, "{:.1e}", "low") for name in ("encoder", "network", "decoder"))
    note = (
        f"Largest difference, in {dtype}: latents of about unit variance, pixels in [-1, 1]. The clip is one that the "
        "session generated; the network is asked about noise at every step, block after block and all at once."
    )
    table = Table("scene_streamed", "Streamed against whole", columns, note)
    table.rows.update({row: dict(figures) for row, figures in differences.items()})
    return table


def curves(units: Mapping[str, Unit]) -> dict[str, dict[str, list[float]]]:
    """By second: `walk_psnr_db`, and `walk_sharpness` over the game's own; a line for each row."""
    game = units[GAME].arrays["sharp"].mean(0)
    lines: dict[str, dict[str, list[float]]] = {"walk_psnr_db": {}, "walk_sharpness": {}}
    for row, unit in units.items():
        lines["walk_sharpness"][row] = [round(float(x), 4) for x in unit.arrays["sharp"].mean(0) / game]
        if row != GAME:
            lines["walk_psnr_db"][row] = _by_second(unit.arrays["error"])
    lines["walk_psnr_db"][STILL] = _by_second(units[GAME].arrays["still"])
    return lines


def _by_second(errors: Errors) -> list[float]:
    seconds = errors[:, 1:].reshape(len(errors), -1, FPS)
    return [round(float(x), 3) for x in decibel(seconds.mean(2)).mean(0)]


def per_start(unit: Unit) -> list[dict[str, float]]:
    """PSNR of every walk by itself: what a paired comparison takes."""
    errors = unit.arrays["error"]
    times = [s for s in PSNR_S if errors.shape[1] > s * FPS]
    return [{f"psnr_db_{s}s": _at(one[None], s) for s in times} for one in errors]
