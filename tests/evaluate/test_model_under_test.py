from pathlib import Path

import numpy as np
import pytest
from tests.helpers.synthetic_recordings import moving

from reverie.errors import CheckpointError, DeviceError
from reverie.evaluate.model_under_test import chunk_bounds, open_model

RIVAL = """
from tests.helpers.synthetic_recordings import FakeEngine
def load(folder, device="cpu"):
    engine = FakeEngine()
    engine.name = folder.name
    return engine
"""


def test_anybodys_model_behind_one_file(tmp_path: Path) -> None:
    script, folder = tmp_path / "rival.py", tmp_path / "weights"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    script.write_text(RIVAL)
    model = open_model(f"{script}:{folder}", device="cpu")
    assert model.name == "weights"
    assert model.block_frames == 4
    assert model.tokenizer is None, "it has no tokenizer"
    assert open_model(f"{script}:{folder}", device="cpu").fingerprint == model.fingerprint
    (folder / "config.json").write_text('{"steps": 2}')
    assert open_model(f"{script}:{folder}", device="cpu").fingerprint != model.fingerprint


def test_a_model_of_ours_runs_as_it_is_written(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where playing compiles and captures: an evaluation opens a session for every clip."""
    monkeypatch.setattr("reverie.engine.engine.pick_mode", lambda mode, device: asked.append(mode) or "eager")
    asked: list[str] = []
    assert open_model(str(tiny_model), device="cpu", dtype="float32").engine.mode == "eager"
    assert asked == ["eager"]


def test_a_rival_that_is_missing_or_broken_is_told(tmp_path: Path) -> None:
    script = tmp_path / "rival.py"
    with pytest.raises(CheckpointError, match=r"a rival is named as path/to/rival\.py:FOLDER"):
        open_model(f"{script}:{tmp_path}")
    script.write_text("import nothing_of_that_name")
    with pytest.raises(CheckpointError, match="cannot be imported: ModuleNotFoundError"):
        open_model(f"{script}:{tmp_path}")
    with pytest.raises(CheckpointError, match="train the rival first"):
        open_model(f"{script}:{tmp_path / 'none'}")
    script.write_text("x = 1")
    with pytest.raises(CheckpointError, match="has no load"):
        open_model(f"{script}:{tmp_path}")
    script.write_text("def load(folder, device): return 3")
    with pytest.raises(CheckpointError, match="has no open"):
        open_model(f"{script}:{tmp_path}")
    with pytest.raises(DeviceError, match="unknown device 'tpu'"):
        open_model(f"{script}:{tmp_path}", device="tpu")


def test_reconstruction_is_the_stream_of_the_whole(tiny_model: Path) -> None:
    model = open_model(str(tiny_model), device="cpu", dtype="float32")
    frames = moving(19, size=(32, 64))
    rebuilt, of_less = model.rebuild(frames), model.rebuild(frames[:14])
    assert rebuilt.shape == frames.shape
    assert np.array_equal(rebuilt[:14], of_less)


def test_chunks_cover_a_stream() -> None:
    assert list(chunk_bounds(1)) == [(0, 1)]
    assert list(chunk_bounds(29)) == [(0, 1), (1, 13), (13, 25), (25, 29)]
