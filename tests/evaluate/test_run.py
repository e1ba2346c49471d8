"""The command from end to end, on a model of toy size and a fake world's recording."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image
from tests.helpers.synthetic_recordings import write_recording

from reverie.cli import main
from reverie.cli.evaluate import EvaluateConfig, evaluate
from reverie.errors import CheckpointError, DataError
from reverie.evaluate import clips, run, speed
from reverie.evaluate.compare import compare
from reverie.evaluate.model_under_test import open_model
from reverie.evaluate.perceptual import LPIPS
from reverie.evaluate.plan import Size
from reverie.evaluate.report import open_report
from reverie.evaluate.tables import COPY, DREAM, REAL, REBUILT, SHUFFLED, STATIC
from reverie.types import ActionSpace

SIZE = Size(
    starts=2, long_starts=1, held=2, returns=1, plays=1, play_s=5, idles=1, idle_s=2, endurances=1, endurance_s=6,
    bank=10, clips=2, speed_s=0,
)  # fmt: skip


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "size_of", lambda quick, starts, long_s: SIZE)


@pytest.fixture(scope="module")
def finished(
    tiny_model: Path, recording: Path, tiny_idm: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Two finished reports: of the tiny model, and of a rival that obeys by construction."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "size_of", lambda quick, starts, long_s: SIZE)
        root = tmp_path_factory.mktemp("reports")
        script = root / "fake.py"
        script.write_text(
            "from tests.helpers.synthetic_recordings import FakeEngine\n"
            "def load(folder, device='cpu'):\n"
            "    engine = FakeEngine(resolution=(32, 64))\n"
            "    engine.name = 'fake'\n"
            "    return engine\n"
        )
        folders = {"tiny": root / "tiny", "fake": root / "fake"}
        for name, model in (("tiny", str(tiny_model)), ("fake", f"{script}:{root}")):
            options = ["--idm", str(tiny_idm), "-o", str(folders[name]), "--device", "cpu", "--dtype", "float32"]
            assert main(["evaluate", model, "--data", str(recording), *options]) == 0
    return folders


def test_a_report_has_every_section_with_its_controls(finished: dict[str, Path]) -> None:
    report = json.loads((finished["tiny"] / "report.json").read_text())
    game = report["games"]["heldout"]
    rows = {name: set(table["rows"]) for name, table in game["tables"].items()}
    assert rows["obedience"] == rows["consistency"] == {DREAM, REAL, REBUILT, STATIC, COPY, SHUFFLED}
    assert rows["likeness"] >= rows["obedience"]
    assert rows["held"] == rows["obedience"]
    assert rows["drift"] >= {DREAM, REAL, REBUILT, STATIC, COPY, "the dream, standing still"}
    assert rows["tokenizer"] == {REAL, REBUILT, STATIC, COPY}
    assert set(rows) >= {"true_actions", "speed"}
    likeness = game["tables"]["likeness"]["rows"]
    assert likeness[REAL]["psnr_db_4s"] == 60
    assert likeness[REAL]["play_4s"] == pytest.approx(0, abs=1e-6)
    assert likeness[REAL]["picture_4s"] == pytest.approx(0, abs=1e-6)
    assert likeness[COPY]["psnr_db_4s"] > likeness[STATIC]["psnr_db_4s"]
    drift = game["tables"]["drift"]["rows"]
    assert drift[STATIC]["frame_change"] == 0
    assert "collapsed_5s" in drift[DREAM]
    assert len(game["curves"]["sharpness"][DREAM]) == 6, "as long as the longest play"
    assert "No episode lasts 16 s" in " ".join(game["notes"])
    assert game["idm"]["held_out"] == {"key.forward": 0.875}
    assert "forward 0.875" in game["tables"]["obedience"]["note"], "the judge's own accuracy stands beside its figures"
    upsets = game["tables"]["consistency"]["upsets"]
    assert upsets[0].startswith("static picture beats the real recording on temporal (")


def test_a_model_that_obeys_is_seen_to(finished: dict[str, Path]) -> None:
    held = json.loads((finished["fake"] / "report.json").read_text())["games"]["heldout"]["tables"]["held"]["rows"]
    assert held[DREAM]["turn"] == held[DREAM]["walk_clips"] == 1
    assert held[SHUFFLED]["turn"] == 0.5
    assert held[STATIC]["turn"] == 0


def test_files_of_a_report(finished: dict[str, Path]) -> None:
    folder = finished["tiny"]
    for sheet in ("compared", "held", "play", "idle"):
        with Image.open(folder / f"heldout-{sheet}.png") as picture:
            assert min(picture.size) >= 32
    assert {file.name for file in (folder / "clips").iterdir()} >= {"heldout-short-0.mp4", "heldout-play-0.mp4"}
    assert "| the dream |" in (folder / "report.md").read_text()
    page = (folder / "report.html").read_text()
    assert len(page) < 3e6
    assert page.count("<svg") >= 6
    assert page.count("data:image/jpeg") >= 4
    assert not re.search(r'(src|href)="http', page), "nothing is fetched"


def test_a_finished_report_is_not_measured_again(
    finished: dict[str, Path], tiny_model: Path, recording: Path, tiny_idm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = EvaluateConfig(
        model=str(tiny_model),
        data=(recording,),
        idm=(tiny_idm,),
        output=finished["tiny"],
        device="cpu",
        dtype="float32",
    )
    before = json.loads((finished["tiny"] / "report.json").read_text())
    (finished["tiny"] / "report.json").unlink()
    with pytest.raises(DataError, match="is not finished; run its `reverie evaluate` again"):
        evaluate(EvaluateConfig(merge=tuple(finished.values()), output=finished["tiny"].parent / "half"))
    for module in ("clips.compare", "scripted.hold", "long_play.play_long"):
        monkeypatch.setattr(f"reverie.evaluate.{module}", lambda *args: pytest.fail("measured again"))
    again = evaluate(config)
    assert again["games"] == before["games"]


def test_an_interrupted_evaluation_goes_on(
    tiny_model: Path, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = EvaluateConfig(
        model=str(tiny_model), data=(recording,), output=tmp_path, videos=False, device="cpu", dtype="float32"
    )
    compare, starts = clips.compare, []

    def once(*args, **kwargs):
        starts.append(args[2])
        if len(starts) == 2:
            raise KeyboardInterrupt
        return compare(*args, **kwargs)

    monkeypatch.setattr(clips, "compare", once)
    with pytest.raises(KeyboardInterrupt):
        evaluate(config)
    assert not (tmp_path / "report.json").exists()
    report = evaluate(config)
    assert len(starts) == 3, "the second start was done twice, the first once"
    assert "obedience" not in report["games"]["heldout"]["tables"]
    assert any("No inverse-dynamics model" in note for note in report["games"]["heldout"]["notes"])
    with pytest.raises(DataError, match="holds another evaluation"):
        evaluate(EvaluateConfig(model=config.model, data=(recording,), output=tmp_path, seed=1, device="cpu"))


def test_reports_side_by_side(finished: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--merge", *map(str, finished.values()), "-o", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    head = re.search(r"Obedience to recorded actions.*?</thead>", page, re.S)
    assert head is not None
    names = re.findall(r"<th[^>]*>([^<]+)</th>", head[0])
    assert names[:2] == ["real recording", "tiny, tokenizer&#39;s reconstruction"]
    assert names[2:4] == ["tiny", "fake"]
    assert names.count("static picture") == 1
    assert set(json.loads((tmp_path / "report.json").read_text())["merged"]) == {"tiny", "fake"}


@pytest.mark.parametrize("change", [{"version": 3}, {"games": None}, {"games": {"x": {"tables": 3}}}])
def test_a_report_of_another_version_is_refused_in_one_line(
    finished: dict[str, Path], tmp_path: Path, change: dict[str, object]
) -> None:
    raw = json.loads((finished["tiny"] / "report.json").read_text())
    (tmp_path / "report.json").write_text(json.dumps(raw | change))
    with pytest.raises(
        DataError, match=r"^\S+report.json was written by another version of reverie evaluate; run it again$"
    ):
        open_report(tmp_path)


def test_a_duel_and_its_blind_page(finished: dict[str, Path], tmp_path: Path) -> None:
    ours, against = map(str, finished.values())
    assert main(["evaluate", "--ours", ours, "--against", against, "--blind", "-o", str(tmp_path)]) == 0
    tables = json.loads((tmp_path / "comparison.json").read_text())["games"]["heldout"]
    row = tables["short"]["rows"]["psnr_db_4s"]
    assert row["low"] <= row["difference"] <= row["high"]
    assert row["starts"] == 2
    data = re.search(r"const D=(\{.*?\});const KEY", (tmp_path / "blind.html").read_text(), re.S)
    assert data is not None
    pairs = json.loads(data[1])["pairs"]
    assert len(pairs) == 2
    assert all({*side} == {"video", "is"} and "tiny" not in side["is"] for pair in pairs for side in pair["sides"])


def test_a_suite_is_measured(
    tiny_model: Path, recording: Path, tiny_idm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    least = Size(starts=1, long_starts=0, held=0, returns=0, plays=0, idles=0, endurances=0, bank=1, clips=0, speed_s=0)
    monkeypatch.setattr(run, "size_of", lambda quick, starts, long_s: least)
    mine = tmp_path / "mine.json"
    actions = [
        {"name": key, "segments": [{"keys": [key], "mouse_deg": [0, 0], "frames": 1}]} for key in ("forward", "fly")
    ]
    mine.write_text(
        json.dumps({"name": "mine", "title": "Mine", "source": "", "seed": 0, "frames": 24, "actions": actions})
    )
    config = EvaluateConfig(
        model=str(tiny_model), data=(recording,), idm=(tiny_idm,), output=tmp_path / "out", suite=str(mine),
        videos=False, device="cpu", dtype="float32",
    )  # fmt: skip
    game = evaluate(config)["games"]["heldout"]
    assert "The recording is too short for the collapse detector (40 s): left out." in game["notes"]
    table = game["tables"]["suite_mine"]
    assert "1 of 2 actions can be said" in table["note"]
    assert set(table["rows"]) == {DREAM, STATIC, SHUFFLED}


def test_what_cannot_be_evaluated_is_one_line(
    tiny_model: Path, tiny_idm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def error_of(*args: str) -> str:
        assert main(["evaluate", str(tiny_model), "--device", "cpu", *args, "-o", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err.strip()
        assert len(error.splitlines()) == 1
        return error

    assert "no dataset at" in error_of("--data", str(tmp_path / "none"))
    assert "say which held-out recording" in error_of()
    short = write_recording(tmp_path / "short", (32, 64), num_frames=30)
    assert "episodes of at least 101 frames, the longest of 2 has 30" in error_of("--data", str(short))
    other = write_recording(tmp_path / "other", (48, 64), num_frames=30)
    assert "record it at the model's size" in error_of("--data", str(other))
    car = write_recording(tmp_path / "car", (32, 64), ActionSpace(("handbrake",), mouse=False), num_frames=30)
    assert "none is shared" in error_of("--data", str(car))
    assert "train one first" in error_of("--data", str(short), "--idm", str(tmp_path))
    assert "say --idm DIR too" in error_of("--data", str(short), "--suite", "driving")
    assert "no report in" in error_of("--merge", str(tmp_path / "a"))
    assert "both --ours A and --against B" in error_of("--data", str(short), "--ours", "nano")


def test_a_recording_without_a_held_out_split_is_refused(tiny_model: Path, tmp_path: Path, recording: Path) -> None:
    seen = write_recording(tmp_path / "seen", (32, 64))
    episodes = next((seen / "meta" / "episodes").rglob("*.parquet"))
    import pyarrow.parquet as pq

    table = pq.read_table(episodes)
    place = table.column_names.index("heldout")
    pq.write_table(table.set_column(place, "heldout", [[False] * table.num_rows]), episodes)
    with pytest.raises(DataError, match=r"has no held-out episodes; record some .* or say --any-split"):
        evaluate(EvaluateConfig(model=str(tiny_model), data=(seen,), output=tmp_path / "out", device="cpu"))


def test_a_missing_model_is_told(recording: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no model"):
        evaluate(EvaluateConfig(model="nessie", data=(recording,), output=tmp_path))


def test_an_output_that_cannot_be_made_is_told_before_the_work(recording: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write the report"):
        evaluate(EvaluateConfig(data=(recording,), output=tmp_path / "file" / "report"))


@pytest.mark.parametrize("wrong", [{"starts": 0}, {"fov_deg": 0.0}, {"fov_deg": 180.0}])
def test_numbers_out_of_range_are_told(wrong: dict[str, float]) -> None:
    with pytest.raises(DataError, match="must lie in"):
        EvaluateConfig(data=(Path("x"),), **wrong)  # type: ignore[arg-type]


def test_the_output_of_the_bench_is_taken(tiny_model: Path, tmp_path: Path) -> None:
    model = open_model(str(tiny_model), device="cpu", dtype="float32")
    path = tmp_path / "bench.json"
    path.write_text(json.dumps({"model": model.fingerprint, "frames_per_s": 31.0, "machine": "a machine"}))
    table = speed.speed_table(speed.read_bench(path, model.fingerprint))
    assert table.rows[DREAM] == {"frames_per_s": 31.0}
    path.write_text(json.dumps({"model": "nano/123/float32", "frames_per_s": 31.0}))
    with pytest.raises(DataError, match="run `reverie bench` with this model"):
        speed.read_bench(path, model.fingerprint)
    path.write_text("frames")
    with pytest.raises(DataError, match="is not the output of `reverie bench --json`"):
        speed.read_bench(path, model.fingerprint)


def test_lpips_is_a_column_where_it_is_installed(
    tiny_model: Path, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    least = Size(starts=2, long_starts=0, held=0, returns=0, plays=0, idles=0, endurances=0, bank=1, clips=0, speed_s=0)
    monkeypatch.setattr(run, "size_of", lambda quick, starts, long_s: least)
    lpips = LPIPS(lambda first, second: (first - second).square().mean(), "0123456789ab")
    monkeypatch.setattr(run, "open_lpips", lambda: lpips)
    config = EvaluateConfig(
        model=str(tiny_model), data=(recording,), output=tmp_path, videos=False, device="cpu", dtype="float32"
    )
    game = evaluate(config)["games"]["heldout"]
    rows = game["tables"]["likeness"]["rows"]
    assert rows[REAL]["lpips_4s"] == 0
    assert 0 < rows[REBUILT]["lpips_4s"] == game["tables"]["tokenizer"]["rows"][REBUILT]["lpips_4s"]
    assert "LPIPS: version 0.1 on AlexNet" in game["tables"]["likeness"]["note"]
    assert "lpips_4s" in compare(game["per_start"]["short"], game["per_start"]["short"])
    monkeypatch.setattr(run, "open_lpips", lambda: None)
    with pytest.raises(DataError, match="holds another evaluation \\(lpips was 0123456789ab, is None"):
        evaluate(config)
