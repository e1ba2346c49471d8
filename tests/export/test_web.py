"""The exported folder: its graphs against the networks, its files, and what is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from reverie.cli import main
from reverie.engine.engine import Engine, load
from reverie.errors import CheckpointError
from reverie.export import runtime
from reverie.export.graphs import graphs_of
from reverie.export.packing import pack, unpack
from reverie.export.runtime import find_archive
from reverie.export.web import check_target, model_json
from reverie.models import presets
from reverie.models.checkpoint import ModelBundle, ModelConfig
from reverie.models.schedule import Schedule


def test_each_graph_computes_what_its_network_computes(engine: Engine, page: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    for name, graph in graphs_of(engine.bundle).items():
        session = onnxruntime.InferenceSession(unpack((page / "model" / f"{name}.onnx.gz").read_bytes()), options)
        for steps in (0, 1, 5) if graph.varying else (0,):
            inputs = dict(graph.inputs)
            for varying in graph.varying:
                inputs[varying] = torch.randn(steps, inputs[varying].shape[1])
            with torch.no_grad():
                wanted = graph.network(*inputs.values())
            got = session.run(None, {key: value.numpy() for key, value in inputs.items()})
            for one, other in zip(wanted, got, strict=True):
                np.testing.assert_allclose(other, one.numpy(), rtol=1e-4, atol=1e-4, err_msg=f"{name}, {steps} steps")


def test_the_folder_is_whole_and_weights_are_halved(engine: Engine, page: Path, yard: Path) -> None:
    model = json.loads((page / "model" / "model.json").read_text())
    sizes = {name: (page / "model" / graph["file"]).stat().st_size for name, graph in model["graphs"].items()}
    assert sizes == {name: graph["bytes"] for name, graph in model["graphs"].items()}
    assert model["runtime"] == {path.name: path.stat().st_size for path in (page / "runtime").glob("*.gz")}
    parameters = sum(p.numel() for p in engine.bundle.model.parameters())
    unpacked = unpack((page / "model" / model["graphs"]["pass"]["file"]).read_bytes())
    assert 2 * parameters < len(unpacked) < 3.2 * parameters + 2**20
    assert sizes["pass"] < 0.95 * len(unpacked)
    first, *others = model["welcome"]["starts"]
    assert (first["scene"], first["name"]) == ("The yard", "looking north")
    assert [start["name"] for start in others] == ["a patch", "another"]
    assert all((page / start["thumbnail"]).is_file() for start in model["welcome"]["starts"])
    assert model["places"] == {first["id"]: {"scene": "scenes/yard", "pose": [0.0] * 6}}
    assert (page / "static" / "source.js").read_text().count("player/source.js") == 1
    worker = (page / "sw.js").read_text()
    assert '"player/worker.js"' in worker
    assert 'DIGEST = ""' not in worker


@pytest.mark.parametrize("content", [b"", b"a", bytes(range(256)) * 3, bytes(range(255))])
def test_packed_files_are_unpacked_to_the_byte(content: bytes) -> None:
    assert unpack(pack(content)) == content


@pytest.mark.slow  # a minute
def test_nano_with_all_its_scenes_weighs_less_than_60_mib(export_web: Callable[..., int], tmp_path: Path) -> None:
    num_bytes = export_web(load("nano", device="cpu", dtype="float32"), tmp_path / "site")
    assert len(list((tmp_path / "site" / "scenes").iterdir())) == 6
    assert num_bytes == sum(path.stat().st_size for path in (tmp_path / "site").rglob("*") if path.is_file())
    assert num_bytes < 60 * 2**20


def test_levels_and_sizes_are_those_of_the_model(engine: Engine) -> None:
    told = model_json(engine.bundle)
    assert len(told["levels"]) == 3, "two noise levels and the context's"
    assert all(len(level) == engine.bundle.config.world.dim for level in told["levels"])
    state = engine.bundle.model.new_state()
    window = engine.bundle.config.world.window
    assert told["past_row"] == sum(cache.k.numel() + cache.v.numel() for cache in state.caches) // window


def test_models_without_a_memory_are_refused() -> None:
    preset = presets.tiny()
    config = ModelConfig(
        name="plain",
        resolution=preset.resolution,
        schedule=Schedule((1.0,)),
        world=preset.world,
        tokenizer=preset.tokenizer,
        image_encoder=preset.image_encoder,
    )
    with pytest.raises(CheckpointError, match="plain is no model with a spatial memory"):
        graphs_of(ModelBundle.new(config))


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(CheckpointError, match="no exported page"):
        check_target(tmp_path)
    check_target(tmp_path / "new")
    assert main(["export", "web", "nano", "-o", str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_another_archive_than_the_pinned_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / runtime.ARCHIVE
    with pytest.raises(CheckpointError, match="there is no file"):
        find_archive(archive)
    archive.write_bytes(b"something else")
    with pytest.raises(CheckpointError, match="its SHA-512 is"):
        find_archive(archive)
    digest = hashlib.sha512(b"something else").digest()
    monkeypatch.setattr(runtime, "SHA512", __import__("base64").b64encode(digest).decode())
    assert find_archive(archive) == archive


def test_without_npm_it_says_how_to_fetch_the_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"no npm.*npm pack onnxruntime-web@.* --runtime"):
        find_archive()
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'npm error: no such host' >&2\nexit 1\n")
    npm.chmod(0o755)
    with pytest.raises(CheckpointError, match=r"npm could not fetch .*no such host"):
        find_archive()
    assert not (tmp_path / "reverie" / runtime.ARCHIVE).exists()
