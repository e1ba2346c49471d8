"""What is said, and what is refused, before gigabytes are read; presets."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.helpers.published_folders import RESOLUTION, make_published

from reverie import cli
from reverie.engine.engine import load
from reverie.engine.loading import flops, hardware_check
from reverie.engine.loading.hardware_check import Machine, check, driver_version, oldest_capability
from reverie.engine.loading.memory_estimate import GIB, fitting, needed, transformer_bytes
from reverie.engine.loading.presets import PRESETS, Settings, settings
from reverie.engine.loading.random_weights import RandomWeights, matrix_game_2
from reverie.errors import CheckpointError, DeviceError
from reverie.models.adapters import published
from reverie.models.adapters.published import open_published
from reverie.models.checkpoint import ModelConfig
from reverie.models.clip_vision import ClipVision
from reverie.models.dit import WorldModel, count_parameters
from reverie.models.lazy_module import LazyModule
from reverie.types import Action

FULL = matrix_game_2()
CARD = Machine(
    device="cuda:0",
    name="a card",
    driver="driver 550.54, CUDA 12.8",
    free_bytes=22 * GIB,
    total_bytes=24 * GIB,
    capability=(8, 9),
    oldest=(7, 5),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_published(tmp_path_factory.mktemp("published"), ("universal", "templerun"))


@pytest.fixture
def config(folder) -> ModelConfig:
    return open_published(folder, "universal", RESOLUTION).config


def with_free(free_gib: float) -> Machine:
    return dataclasses.replace(CARD, free_bytes=free_gib * GIB)


def test_what_is_said_names_device_driver_memory_needs_and_preset() -> None:
    said = check(FULL, PRESETS["12gb"], torch.bfloat16, CARD)
    for part in (
        "cuda:0 (a card, compute capability 8.9), driver 550.54, CUDA 12.8, 22.0 GiB of 24.0 GiB free",
        "matrix-game-2-universal in bfloat16 needs about 8.1 GiB (weights 3.3 GiB",
        "preset to use: 24gb",
    ):
        assert part in said
    assert "\n" not in said


def test_what_there_is_to_read(folder, config) -> None:
    files = open_published(folder, "universal", RESOLUTION).files
    size = sum(file.stat().st_size for file in files) / 2**20
    assert f"{size:.1f} MiB to read" in check(config, Settings(), torch.float32, CARD, files)


@pytest.mark.parametrize(("free", "preset"), [(22, "24gb"), (9, "12gb"), (7.7, "8gb"), (6.1, "8gb"), (5.8, None)])
def test_the_preset_that_fits(free: float, preset: str | None) -> None:
    assert fitting(FULL, free * GIB, "cuda") == preset


def test_without_the_tiny_decoder_its_presets_are_not_offered() -> None:
    assert fitting(matrix_game_2(tiny_decoder=False), 7.7 * GIB, "cuda") is None


def test_every_preset_fits_its_card() -> None:
    for name, card in (("24gb", 24), ("12gb", 12), ("8gb", 8)):
        for variant in ("universal", "gta", "templerun"):
            assert needed(matrix_game_2(variant), PRESETS[name], torch.bfloat16, "cuda").total < 0.95 * card * GIB


@pytest.mark.parametrize(
    ("free", "chosen", "dtype", "complaint"),
    [
        (9, Settings(), torch.float32, r"in float32: .* 9\.0 GiB is free on cuda:0; --preset 12gb would fit"),
        (7.7, PRESETS["24gb"], torch.bfloat16, r"needs about 9\.3 GiB .*; --preset 8gb would fit"),
        (4, PRESETS["8gb"], torch.bfloat16, r"no preset fits, the smallest \(8gb\) needs about 6\.0 GiB"),
    ],
)
def test_too_little_memory(free: float, chosen: Settings, dtype: torch.dtype, complaint: str) -> None:
    with pytest.raises(DeviceError, match=complaint):
        check(FULL, chosen, dtype, with_free(free))


def test_memory_that_the_system_does_not_tell_is_no_obstacle() -> None:
    assert "unknown of" in check(FULL, Settings(), torch.bfloat16, with_free(math.nan))


def test_cards_that_are_too_old() -> None:
    turing = dataclasses.replace(CARD, capability=(7, 5))
    with pytest.raises(DeviceError, match=r"compute capability 7\.5; bfloat16 needs 8\.0 or later .* float32"):
        check(FULL, Settings(), torch.bfloat16, turing)
    assert "7.5" in check(FULL, Settings(), torch.float32, turing)
    kepler = dataclasses.replace(CARD, capability=(3, 5))
    with pytest.raises(DeviceError, match=r"3\.5; the installed torch needs 7\.5 or later: use --device cpu"):
        check(FULL, Settings(), torch.float32, kepler)


def test_versions_are_read(tmp_path) -> None:
    file = tmp_path / "version"
    file.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5\nGCC version: 12.2.0\n")
    assert driver_version(str(file)) == "550.54.15"
    assert driver_version(str(tmp_path / "none")) == "unknown"
    assert oldest_capability(["sm_75", "sm_90", "sm_120", "compute_120"]) == (7, 5)
    assert oldest_capability(["sm_100", "sm_120"]) == (10, 0)
    assert oldest_capability([]) is None


@pytest.mark.parametrize("decoder", ["full", "tiny"])
def test_what_is_counted_is_what_is_there(folder, config, decoder: str) -> None:
    """Weights, caches and streams, against a loaded model and its session."""
    engine = load(folder, device="cpu", dtype="float32", variant="universal", resolution=RESOLUTION, decoder=decoder)
    session = engine.open(np.zeros((*RESOLUTION, 3), np.uint8))
    need = needed(config, Settings(decoder=decoder), torch.float32, "cpu")
    bundle = engine.bundle
    assert bundle.tiny_decoder is not None
    assert need.weights == 4 * count_parameters([bundle.model, bundle.tokenizer, bundle.tiny_decoder])  # type: ignore[list-item]
    assert isinstance(bundle.image_encoder, LazyModule)
    assert need.encoder == 4 * count_parameters([bundle.image_encoder.read()])
    assert not need.keeps_encoder
    rest = session.state["world"]
    small = sum(x.nbytes for x in (rest.actions, rest.last))
    encoder_bytes = 4 * flops.carry_numbers(bundle.config.tokenizer, *RESOLUTION, "encoder")  # type: ignore[arg-type]
    assert need.caches + need.streams == session.num_bytes - small + encoder_bytes


def test_the_worst_moment() -> None:
    kept, parked = (needed(FULL, PRESETS[name], torch.bfloat16, "cuda") for name in ("24gb", "12gb"))
    assert kept.total - parked.total == kept.encoder
    at_start = dataclasses.replace(parked, caches=0, streams=0, activations=0)
    assert at_start.total == parked.weights + parked.encoder + parked.system
    float32 = needed(FULL, PRESETS["12gb"], torch.float32, "cuda")
    assert float32.weights == 2 * parked.weights
    assert transformer_bytes(FULL.world, 2, "cpu") >= transformer_bytes(FULL.world, 2, "cuda")


def test_presets_and_what_holds_against_them() -> None:
    assert settings(None) == Settings()
    assert settings("8gb") == Settings(dtype="bfloat16", decoder="tiny", weights="int8")
    assert settings("8gb", "float32", "full", "full") == Settings(dtype="float32", decoder="full")
    assert settings("fast").keeps_encoder
    with pytest.raises(DeviceError, match="no preset '4gb'; expected 24gb, 12gb, 8gb, fast"):
        settings("4gb")
    with pytest.raises(DeviceError, match="int8 is no preset but a kind of weights: say --weights int8"):
        settings("int8")


def test_presets_set_what_they_say(folder) -> None:
    options = {"device": "cpu", "variant": "templerun", "resolution": RESOLUTION}
    fast, small = (load(folder, preset=name, **options) for name in ("fast", "12gb"))
    assert fast.decoder is fast.bundle.tiny_decoder
    assert fast.dtype == torch.bfloat16
    assert isinstance(fast.bundle.image_encoder, ClipVision)
    assert small.decoder is small.bundle.tokenizer
    assert isinstance(small.bundle.image_encoder, LazyModule)
    assert fast.open(np.zeros((*RESOLUTION, 3), np.uint8)).step(Action()).shape[0] == 9


def test_a_load_says_it_once_before_it_reads(folder, monkeypatch) -> None:
    said: list[str] = []
    load(folder, device="cpu", dtype="float32", variant="universal", resolution=RESOLUTION, say=said.append)
    assert len(said) == 1
    assert "matrix-game-2-universal in float32 needs about" in said[0]
    monkeypatch.setattr(hardware_check, "read_machine", lambda device: with_free(0.01))
    monkeypatch.setattr(published.Published, "load", lambda *_: pytest.fail("weights were read"))
    with pytest.raises(DeviceError, match="too little memory for matrix-game-2-universal"):
        load(folder, device="cpu", dtype="float32", variant="universal", resolution=RESOLUTION)
    with pytest.raises(DeviceError, match="too little memory"):  # and nothing is fetched either
        load("Skywork/Matrix-Game-2.0", device="cpu", dtype="bfloat16")


def test_a_missing_tiny_decoder_is_found_before_reading(tmp_path, monkeypatch) -> None:
    folder = make_published(tmp_path, ("gta",), tiny=False)
    monkeypatch.setattr(published.Published, "load", lambda *_: pytest.fail("weights were read"))
    with pytest.raises(CheckpointError, match=r"no tiny decoder; put taew2_1\.pth"):
        load(folder, device="cpu", preset="8gb", resolution=RESOLUTION)


def test_small_models_need_no_preset(model_folder) -> None:
    with pytest.raises(CheckpointError, match="needs no preset"):
        load(model_folder, device="cpu", dtype="float32", preset="8gb")


def test_the_doctor_on_a_model(folder, monkeypatch, capsys) -> None:
    monkeypatch.setattr(hardware_check, "read_machine", lambda device: with_free(10))
    assert cli.main(["doctor", "--model", "matrix-game-2", "--preset", "12gb", "--device", "cpu"]) == 0
    told = capsys.readouterr().out
    for part in ("matrix-game-2-universal, 352x640", "driver 550.54", "3.3 GiB", "an estimate", "24gb"):
        assert part in told
    assert cli.main(["doctor", "--model", str(folder), "--variant", "templerun", "--dtype", "float32"]) == 0
    assert "matrix-game-2-templerun" in capsys.readouterr().out
    monkeypatch.setattr(hardware_check, "read_machine", lambda device: with_free(3))
    assert cli.main(["doctor", "--model", "matrix-game-2", "--dtype", "bfloat16", "--device", "cpu"]) == 2
    assert "no preset fits" in capsys.readouterr().err
    assert cli.main(["doctor", "--model", "some/where", "--device", "cpu"]) == 2
    assert "the doctor fetches nothing" in capsys.readouterr().err


def test_made_up_weights_take_the_place_of_published_ones(config) -> None:
    bundle = RandomWeights(config).load("cpu", torch.bfloat16)
    assert {p.dtype for p in bundle.model.parameters()} == {torch.bfloat16}
    assert not any(p.is_meta for module in bundle.modules().values() for p in module.parameters())
    assert all(p.isfinite().all() for module in bundle.modules().values() for p in module.parameters())
    assert bundle.image_encoder(torch.zeros(1, 3, *RESOLUTION, dtype=torch.bfloat16)).isfinite().all()


def test_the_published_sizes_are_those_of_the_folders() -> None:
    for variant, keys, window in (("universal", 4, 6), ("gta", 2, 4), ("templerun", 7, 6)):
        world = matrix_game_2(variant).world
        assert (len(world.action_space.keys), world.window, world.tokens_per_step) == (keys, window, 880)
        assert world.action_space.mouse == (variant != "templerun")
    assert flops.num_parameters(WorldModel, FULL.world) == pytest.approx(1.62e9, rel=0.01)
    with pytest.raises(CheckpointError, match="no variant 'doom'"):
        matrix_game_2("doom")
