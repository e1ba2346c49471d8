import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.evaluate.conftest import write_recording
from tests.evaluate.synthetic import SPACE, moving

from reverie.cli import main
from reverie.engine.engine import load
from reverie.errors import CheckpointError, DataError
from reverie.evaluate import suite
from reverie.evaluate.report import EvaluateConfig, check_fit, evaluate
from reverie.types import ActionSpace


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long rollouts of 2 s in place of 20."""
    size = suite.Size(starts=2, likeness_starts=2, plays=1, idles=1, drift_s=2)
    monkeypatch.setattr(suite, "quick_size", lambda starts: size)


def test_an_evaluation_writes_tables_json_sheets_and_videos(
    tiny_model: Path, recording: Path, tmp_path: Path, short: None, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report"
    args = [str(tiny_model), "--data", str(recording), "-o", str(out), "--quick", "--videos", "--dtype", "float32"]
    assert main(["evaluate", *args]) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["heldout"] is True
    assert set(report["obedience"]) == {"the dream", "real recording", "static picture"}
    assert report["obedience"]["static picture"]["turn"] == 0
    assert report["obedience"]["the dream"]["clips"] == 16
    assert 0 < report["likeness"]["the dream"]["psnr_db_4s"] < 60
    assert report["drift"]["static picture"]["frame_change"] == 0
    assert report["tokenizer"]["reconstruction"]["psnr_db"] > 5
    assert "| the dream |" in (out / "report.md").read_text()
    assert "Obedience" in capsys.readouterr().out
    for name in ("obedience", "likeness", "play", "idle"):
        with Image.open(out / f"{name}.png") as sheet:
            assert min(sheet.size) > 60
    assert (out / "play-0.mp4").stat().st_size > 1000


def test_the_same_seed_gives_the_same_figures(
    tiny_model: Path, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = suite.Size(starts=1, likeness_starts=1, plays=1, idles=1, drift_s=1, quick=True)
    monkeypatch.setattr(suite, "quick_size", lambda starts: size)

    def figures(seed: int) -> dict[str, dict[str, float]]:
        out = tmp_path / str(seed)
        config = EvaluateConfig(
            model=str(tiny_model), data=recording, output=out, quick=True, seed=seed, dtype="float32"
        )
        return evaluate(config)["likeness"]

    assert figures(1) == figures(1)


def test_reconstruction_is_the_stream_of_the_whole(tiny_model: Path) -> None:
    engine = load(tiny_model, device="cpu", dtype="float32")
    frames = moving(19, size=(32, 64))
    rebuilt = suite.reconstruct(engine, frames)
    assert rebuilt.shape == frames.shape
    assert np.array_equal(rebuilt[:14], suite.reconstruct(engine, frames[:14]))


def test_chunks_cover_a_stream() -> None:
    assert list(suite.chunk_bounds(1)) == [(0, 1)]
    assert list(suite.chunk_bounds(29)) == [(0, 1), (1, 13), (13, 25), (25, 29)]


def test_a_missing_dataset_is_one_line(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(tiny_model), "--data", str(tmp_path / "none")]) == 2
    error = capsys.readouterr().err.strip()
    assert "no dataset at" in error
    assert len(error.splitlines()) == 1


def test_a_missing_model_is_told(recording: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no model"):
        evaluate(EvaluateConfig(model="nessie", data=recording, output=tmp_path))


def test_a_recording_of_another_game_or_size_is_refused() -> None:
    jumper = ActionSpace(("forward", "jump"), mouse=True)
    with pytest.raises(DataError, match=r"the model takes .*key\.left.* the dataset holds .*key\.jump"):
        check_fit(SPACE, (32, 64), jumper, (32, 64))
    with pytest.raises(DataError, match=r"pictures of 32x64, the dataset holds 64x112"):
        check_fit(SPACE, (32, 64), SPACE, (64, 112))
    check_fit(SPACE, (32, 64), SPACE, (32, 64))


def test_a_recording_of_another_size_is_refused_by_the_command(tiny_model: Path, tmp_path: Path) -> None:
    other = write_recording(tmp_path / "other", (48, 64), num_frames=30)
    with pytest.raises(DataError, match="record it at the model's size"):
        evaluate(EvaluateConfig(model=str(tiny_model), data=other, output=tmp_path / "out"))


def test_an_output_that_cannot_be_made_is_told_before_the_work(recording: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write the report"):
        evaluate(EvaluateConfig(data=recording, output=tmp_path / "file" / "report"))


@pytest.mark.parametrize("wrong", [{"starts": 0}, {"fov_deg": 0.0}, {"fov_deg": 180.0}])
def test_numbers_out_of_range_are_told(wrong: dict[str, float]) -> None:
    with pytest.raises(DataError, match="must lie in"):
        EvaluateConfig(data=Path("x"), **wrong)  # type: ignore[arg-type]
