"""Compiled pieces of a model: the same numbers by another road."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.helpers.captured_play import picture_for, play

from reverie.engine.engine import load
from reverie.errors import DeviceError
from reverie.models.compiled_blocks import PIECES, check_compiler, compile_pieces, restore_pieces


@pytest.mark.parametrize("fresh", ["own", "matrix-game-2"], indirect=True)
def test_compiled_pieces_make_the_same_frames(fresh) -> None:
    picture = picture_for(fresh)
    expected = play(fresh.open(picture), 4)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compile_pieces(fresh.bundle.model, fresh.decoder, backend="aot_eager")
    got = play(fresh.open(picture), 4)  # until the window is full
    assert np.abs(got.astype(int) - expected).max() <= 1
    num_graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    play(fresh.open(picture), 5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == num_graphs  # the window fills: nothing anew
    restore_pieces(fresh.bundle.model, fresh.decoder)
    assert not any(name in m.__dict__ for m in fresh.bundle.model.modules() for _, name in PIECES)
    assert np.array_equal(play(fresh.open(picture), 4), expected)


def test_blocks_share_what_is_compiled(model_folder) -> None:
    """However deep the model, a piece is compiled once for each kind of block."""
    engine = load(model_folder, device="cpu", dtype="float32")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compile_pieces(engine.bundle.model, backend="aot_eager")
    session = engine.open(picture_for(engine))
    play(session, 3)
    # What is in a block can differ (image, mouse, keyboard), and the start picture's own step has its own shape.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 2 * (len(PIECES) + 1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, by torch
def test_inductor_on_this_machine(model_folder, tmp_path, monkeypatch) -> None:
    try:
        check_compiler(torch.device("cpu"))
    except DeviceError as error:
        pytest.skip(str(error))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    torch._dynamo.reset()
    expected = play(load(model_folder, device="cpu", dtype="float32").open(np.zeros((32, 64, 3), np.uint8)))
    told: list[str] = []
    engine = load(
        model_folder,
        device="cpu",
        dtype="float32",
        mode="compiled",
        progress=lambda share, text: told.append(text),
    )
    assert engine.mode == "compiled"
    assert any("compiling" in text for text in told)
    assert np.abs(play(engine.open(np.zeros((32, 64, 3), np.uint8))).astype(int) - expected).max() <= 1
