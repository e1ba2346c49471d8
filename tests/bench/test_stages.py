"""The bench of Matrix-Game 2.0, stage by stage, at toy size."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.helpers.published_folders import RESOLUTION, make_published

from reverie import cli
from reverie.bench import blocks
from reverie.bench.profiling import KERNELS
from reverie.bench.stages import Rates, Stage, Stopwatch, play_blocks, stages_of, watched
from reverie.cli import bench_log
from reverie.engine import engine as engine_module
from reverie.engine import runtime
from reverie.engine.accelerate.cuda_graphs import CountedCapture
from reverie.engine.engine import Engine, load
from reverie.engine.loading import flops
from reverie.models.adapters import published
from reverie.models.adapters.published import open_published
from reverie.models.checkpoint import ModelConfig
from reverie.models.compiled_blocks import compile_pieces
from reverie.types import Action

DECODE = Stage(name="decode", times=1, ms=1.0, gigaoperations=None, gigabytes=None, floor_ms=1.0, times_floor=None)
PASSES = ["dit pass 1", "dit pass 2", "dit pass 3", "commit pass"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_published(tmp_path_factory.mktemp("published"), ("universal",))


@pytest.fixture(scope="module")
def engine(folder) -> Engine:
    return load(folder, device="cpu", dtype="float32", resolution=RESOLUTION)


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*RESOLUTION, 3), dtype=np.uint8)


def test_watching_changes_nothing_and_leaves_nothing(engine, picture) -> None:
    plain = engine.open(picture)
    expected = [plain.step(Action()) for _ in range(2)]
    encoder, before = engine.bundle.image_encoder, {k: set(vars(m)) for k, m in engine.bundle.modules().items()}
    watch = Stopwatch(engine.device)
    with watched(engine, watch):
        session = engine.open(picture)
        got = [session.step(Action()) for _ in range(2)]
    assert all(np.array_equal(a, b) for a, b in zip(expected, got, strict=True))
    assert engine.bundle.image_encoder is encoder
    assert {k: set(vars(m)) for k, m in engine.bundle.modules().items()} == before
    num_times = {name: len(times) for name, times in watch.times_ms.items()}
    assert num_times == {
        "image encode": 1,
        "picture encode": 1,
        "condition": 5,  # steps 1 to 5; step 0 is the picture
        **dict.fromkeys(PASSES, 2),
        "decode": 2,
    }


def test_floors_are_those_of_the_last_block(engine, picture) -> None:
    for num_blocks in (1, 3):
        watch = Stopwatch(engine.device)
        with watched(engine, watch):
            play_blocks(engine, picture, num_blocks, lambda text: None)
        stages = {s.name: s for s in stages_of(engine, watch, num_blocks, Rates(gflops=1.0, gbytes_per_s=1e9))}
        world = engine.bundle.config.world
        one = flops.dit_pass(world, 3, min(3 * num_blocks, world.window), 4)
        for name in PASSES:
            assert stages[name].floor_ms == pytest.approx(one.operations / 1e6, abs=1e-6)
            assert stages[name].times == (1 if num_blocks == 1 else 2)  # the window is full from the second on
        assert (stages["condition"].floor_ms is None) == (num_blocks > 1)
        assert stages["decode"].floor_ms is not None
        assert stages["decode"].times_floor == pytest.approx(
            stages["decode"].ms / stages["decode"].floor_ms,
            abs=0.01,  # type: ignore[operator]
        )


def test_a_stage_that_takes_long_is_told_of(monkeypatch) -> None:
    told: list[str] = []
    monkeypatch.setattr("reverie.bench.stages.LONG_S", -1.0)
    with Stopwatch(torch.device("cpu"), told.append).time("decode"):
        pass
    assert told[0].startswith("decode: 0.0 s")


@pytest.fixture
def toy(monkeypatch, folder) -> ModelConfig:
    """The published sizes, but small."""
    config = dataclasses.replace(open_published(folder, "universal", RESOLUTION).config, name="matrix-game-2-universal")
    monkeypatch.setattr(blocks, "matrix_game_2", lambda variant: config)
    monkeypatch.setattr(published, "RESOLUTION", RESOLUTION)
    return config


def test_random_weights_need_no_files(toy, capsys) -> None:
    assert cli.main(["bench", "--model", "matrix-game-2", "--random-weights", "--device", "cpu", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    report = json.loads(line)
    assert report["random_weights"]
    assert report["machine"].endswith("bfloat16")
    assert (report["blocks"], report["frames"], report["denoising_steps"], report["mode"]) == (1, 9, 3, "eager")
    assert report["baseline_frames_per_s"] is None
    assert [stage["name"] for stage in report["stages"]] == [
        "image encode", "picture encode", "condition", *PASSES, "decode"
    ]  # fmt: skip
    positive = (
        "frames_per_s", "latency_p50_ms", "latency_p95_ms", "block_p50_ms", "block_p95_ms", "first_frame_s",
        "peak_memory_mib", "load_peak_mib", "session_mib", "matrix_gflops", "copy_gbytes_per_s",
        "floor_frames_per_s", "times_floor",
    )  # fmt: skip
    assert all(report[key] > 0 for key in positive)
    assert report["frames_per_s"] < report["frames_per_s_without_decode"]
    assert report["times_floor"] == pytest.approx(report["floor_frames_per_s"] / report["frames_per_s"], rel=0.02)
    assert (report["graphs"], report["graphs_refused"], report["compiled_in_play"]) == ({}, None, 0)


def test_a_folder_block_by_block(toy, folder, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # a wide terminal
    words = ["bench", "--model", str(folder), "--blocks", "3", "--device", "cpu", "--preset", "fast"]
    assert cli.main(words) == 0
    told = capsys.readouterr()
    for part in ("without decoding", "tiny decoder", "commit pass", "2 of 3 blocks", "bfloat16"):
        assert part in " ".join(told.out.split())
    assert "needs about" in told.err


def test_the_eager_path_stands_beside_the_compiled_one(monkeypatch, toy, capsys) -> None:
    monkeypatch.setattr(engine_module, "check_compiler", lambda device: None)
    monkeypatch.setattr(runtime, "compile_pieces", partial(compile_pieces, backend="eager"))
    words = ["bench", "--model", "matrix-game-2", "--random-weights", "--blocks", "3", "--device", "cpu", "--json"]
    assert cli.main([*words, "--decoder", "tiny", "--mode", "compiled"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["mode"] == "compiled"
    assert report["baseline_frames_per_s"] > 0
    ratio = report["frames_per_s"] / report["baseline_frames_per_s"]
    assert report["times_baseline"] == pytest.approx(ratio, rel=0.02)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--model", "nano", "--random-weights"], "--random-weights makes up matrix-game-2, not 'nano'"),
        (["--model", "matrix-game-2", "--random-weights", "--preset", "1gb"], "no preset '1gb'"),
        (["--model", "matrix-game-2", "--random-weights", "--preset", "int8"], "say --weights int8"),
        (["--model", "matrix-game-2", "--random-weights", "--weights", "int2"], "there are no int2 weights"),
        (["--model", "matrix-game-2", "--random-weights", "--mode", "fast"], "there is no mode 'fast'"),
        (["--model", "matrix-game-2", "--random-weights", "--blocks", "0"], "--blocks must be at least 1"),
        (["--model", "matrix-game-2"], "there is no model 'matrix-game-2'"),
    ],
)
def test_what_cannot_be_measured(toy, capsys, words, complaint: str) -> None:
    assert cli.main(["bench", "--device", "cpu", *words]) == 2
    assert complaint in capsys.readouterr().err


def test_blocks_are_of_large_models(model_folder, capsys) -> None:
    assert cli.main(["bench", "--model", str(model_folder), "--blocks", "2", "--device", "cpu"]) == 2
    assert "--blocks is for Matrix-Game 2.0" in capsys.readouterr().err


def test_without_tyro(toy, monkeypatch, capsys, tmp_path) -> None:
    """On a machine that has torch and little else: the module itself, and the command by its plain parser."""
    monkeypatch.setitem(sys.modules, "tyro", None)
    words = ["--model", "matrix-game-2", "--random-weights", "--decoder", "tiny", "--blocks", "2", "--device", "cpu"]
    assert bench_log.main([*words, "--json", str(tmp_path / "out.json"), "--profile"]) == 0
    out = capsys.readouterr().out
    assert "frames/s" in out
    assert "graphs: none; refused: no" in out
    report = json.loads((tmp_path / "out.json").read_text())
    assert (report["decoder"], report["blocks"]) == ("tiny", 2)
    kinds = {share["kind"]: share["part"] for share in report["profile"]["kinds"]}
    assert kinds["matrix products"] > 0
    assert sum(kinds.values()) == pytest.approx(1, abs=0.01)
    assert bench_log.main([*words[:3], "--preset", "1gb"]) == 2
    assert "no preset '1gb'" in capsys.readouterr().err
    assert cli.main(["bench", *words[:3], "--blocks", "0"]) == 2
    assert "--blocks must be at least 1" in capsys.readouterr().err


def test_graphs_stand_in_the_figures(toy, monkeypatch, capsys) -> None:
    """What was recorded, and what was not, as it would be on a GPU; with random weights nothing is refused."""

    class Again:
        def __init__(self, work) -> None:
            self.replay = lambda: setattr(self, "output", work())

    def refuse(work) -> None:
        raise RuntimeError("no capture here")

    real = Engine.set_mode

    def set_mode(self, mode: str) -> None:
        real(self, mode)
        self._captures = {} if mode == "eager" else {"passes": CountedCapture(Again), "decode": CountedCapture(refuse)}

    monkeypatch.setattr(Engine, "set_mode", set_mode)
    monkeypatch.setattr(Engine, "warm_up", lambda self, progress: None)
    monkeypatch.setattr(blocks, "watched", lambda engine, watch: contextlib.nullcontext())  # as those of a GPU
    monkeypatch.setattr(blocks, "stages_of", lambda *_: [DECODE, dataclasses.replace(DECODE, name="dit pass 1")])
    monkeypatch.setattr(engine_module, "check_compiler", lambda device: None)
    monkeypatch.setattr(runtime, "compile_pieces", lambda *networks: 0)
    words = ["bench", "--model", "matrix-game-2", "--random-weights", "--blocks", "6", "--device", "cpu", "--json"]
    with pytest.warns(UserWarning, match="decode cannot be recorded"):
        assert cli.main([*words, "--mode", "compiled"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["graphs"] == {"passes": 2, "decode": 0}
    assert report["graphs_refused"] == "decode: no capture here"
    assert report["blocks_counted"] == 3  # of 6, one fills the window and two are recorded


@pytest.mark.parametrize(
    ("sizes", "num_blocks", "recorded", "expected"),
    [
        ((6, 3, 0), 40, False, 1),
        ((6, 3, 0), 40, True, 3),
        ((5, 1, 0), 40, True, 9),
        ((9, 3, 3), 40, True, 4),
        ((5, 2, 0), 40, True, 7),
        ((6, 3, 0), 2, True, 1),
        ((6, 3, 0), 1, True, 0),
    ],
)
def test_blocks_that_do_not_count(engine, sizes, num_blocks, recorded, expected: int) -> None:
    window, block, sink = sizes
    world = dataclasses.replace(engine.bundle.config.world, window=window, block=block, sink=sink)
    assert blocks.uncounted_blocks(world, num_blocks, recorded) == expected


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("nvjet_tst_128x256_64x4_2x1_v_bz_coopB_TNT", "matrix products"),
        ("cutlass_80_wmma_tensorop_bf16_s161616gemm_bf16_32x32_64x1_tn_align8", "matrix products"),
        ("triton_red_fused__to_copy_native_layer_norm_3", "compiled"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_3", "attention"),
        ("void pytorch_flash::flash_fwd_kernel<...>", "attention"),
        ("sm80_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc", "convolutions"),
        ("void at::native::elementwise_kernel<128, 4, ...direct_copy_kernel_cuda...>", "copies and casts"),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add", "element-wise"),
    ],
)
def test_kernels_by_kind(name: str, kind: str) -> None:
    assert next(k for k, rule in KERNELS if re.search(rule, name, re.IGNORECASE)) == kind
