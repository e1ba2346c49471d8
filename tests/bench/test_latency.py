from __future__ import annotations

import json

import numpy as np
import pytest

from reverie import cli
from reverie.bench.latency import latency_ms, near_frame
from reverie.engine import runtime

KEYS = {
    "frames_per_s", "latency_p50_ms", "latency_p95_ms", "dit_pass_ms", "decode_block_ms", "peak_memory_mib", "machine"
}  # fmt: skip


def test_json_is_one_line_with_the_agreed_keys(model_folder, capsys) -> None:
    args = [
        "bench",
        "--model",
        str(model_folder),
        "--device",
        "cpu",
        "--dtype",
        "float32",
        "--seconds",
        "0.3",
        "--json",
    ]
    assert cli.main(args) == 0
    (line,) = capsys.readouterr().out.splitlines()
    report = json.loads(line)
    assert report.keys() >= KEYS
    assert all(report[key] > 0 for key in KEYS - {"machine"})
    assert report["times_real_time"] == pytest.approx(report["frames_per_s"] / 25, abs=0.01)
    assert "float32" in report["machine"]
    assert report["baseline"] == "the same in bfloat16"


def test_the_table(model_folder, capsys) -> None:
    assert cli.main(["bench", "--model", str(model_folder), "--device", "cpu", "--seconds", "0.1"]) == 0
    assert "frames per second" in capsys.readouterr().out


def test_latency_is_the_wait_for_the_boundary_and_the_block() -> None:
    p50, p95 = latency_ms(np.full(100, 100.0), 4)
    assert p50 == pytest.approx(100 + 80, abs=1)
    assert p95 == pytest.approx(100 + 152, abs=3)


def test_a_slow_model_makes_inputs_wait_longer() -> None:
    p50, _ = latency_ms(np.full(100, 400.0), 4)
    assert p50 == pytest.approx(600, abs=5)


@pytest.mark.parametrize(("blocks", "frame"), [(2000, 300), (2000, 3000), (200, 3000), (10, 300), (1, 3000)])
def test_blocks_near_a_frame_are_blocks_that_were_played(blocks: int, frame: int) -> None:
    near = near_frame(blocks, frame, 4)
    assert 0 <= near.start < near.stop <= blocks
    if blocks == 2000:
        assert near.start <= frame // 4 < near.stop


def test_compiled_is_compared_with_eager(model_folder, capsys, monkeypatch) -> None:
    """Not with a second model in another number type, which would be compiled first."""
    monkeypatch.setattr(runtime, "compile_pieces", lambda *networks: 0)
    words = ["bench", "--model", str(model_folder), "--device", "cpu", "--dtype", "float32", "--seconds", "0.3"]
    assert cli.main([*words, "--mode", "compiled", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["mode"], report["baseline"]) == ("compiled", "the same, eager")
    assert (report["graphs"], report["graphs_refused"], report["compiled_in_play"]) == ({}, None, 0)
    assert cli.main([*words, "--mode", "compiled"]) == 0
    assert "CUDA graphs recorded" in capsys.readouterr().out
