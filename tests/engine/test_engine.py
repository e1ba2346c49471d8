from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import reverie
from reverie import cli
from reverie.engine.engine import load, pick_mode
from reverie.engine.loading import device as devices
from reverie.errors import CheckpointError, DeviceError, ImageError
from reverie.models.compiled_blocks import check_compiler
from reverie.types import Action


def test_importing_reverie_is_free() -> None:
    code = "import sys, reverie; print('torch' in sys.modules, 'numpy' in sys.modules, dir(reverie).count('load'))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["False", "False", "1"]


def test_the_public_face() -> None:
    assert reverie.load is load
    assert all(hasattr(reverie, name) for name in reverie.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        reverie.nonsense  # noqa: B018


def test_loading_tells_its_progress(model_folder) -> None:
    told: list[tuple[float, str]] = []
    engine = load(model_folder, device="cpu", progress=lambda share, text: told.append((share, text)))
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert "warming up" in {text for _, text in told}
    assert engine.dtype in (torch.float32, torch.bfloat16)
    assert (engine.name, engine.fps, engine.block_frames) == ("tiny", 25, 4)


def test_opens_any_picture(engine, tmp_path) -> None:
    image = Image.new("RGBA", (300, 200), (200, 30, 30, 128))
    image.save(tmp_path / "a.png")
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), (tmp_path / "a.png").read_bytes(), image):
        assert engine.open(source).step(Action()).shape == (4, 32, 64, 3)
    with pytest.raises(ImageError, match="at least 16x16"):
        engine.open(np.zeros((1, 1, 3), np.uint8))


def test_start_images_come_with_the_model(model_folder, tmp_path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(model_folder, folder)
    engine = load(folder, device="cpu", dtype="float32")
    assert engine.start_images() == []
    (folder / "starts").mkdir()
    Image.new("RGB", (100, 100)).save(folder / "starts" / "2-hall.png")
    Image.new("RGB", (100, 100)).save(folder / "starts" / "1-cave.jpg")
    assert [(name, image.size) for name, image in engine.start_images()] == [("1-cave", (64, 32)), ("2-hall", (64, 32))]


def test_a_model_folder_with_the_companions_of_a_mac(model_folder, tmp_path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(model_folder, folder)
    (folder / "starts").mkdir()
    Image.new("RGB", (100, 100)).save(folder / "starts" / "hall.png")
    before = load(folder, device="cpu", dtype="float32")
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        (path.parent / f"._{path.name}").write_bytes(bytes.fromhex("0005160700020000") + b"Mac OS X        ")
    engine = load(folder, device="cpu", dtype="float32")
    assert [name for name, _ in engine.start_images()] == ["hall"]
    assert engine.fingerprint == before.fingerprint


def test_the_fingerprint_knows_the_weights(engine, model_folder, tmp_path) -> None:
    folder = tmp_path / "renamed"
    shutil.copytree(model_folder, folder)
    assert load(folder, device="cpu", dtype="float32").fingerprint == engine.fingerprint
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"tiny"', '"another"'))
    assert load(folder, device="cpu", dtype="float32").fingerprint != engine.fingerprint


@pytest.mark.parametrize("name", ["no-such-model", "./no/such/folder"])
def test_a_model_that_is_not_there(name: str) -> None:
    with pytest.raises(CheckpointError, match="expected a bundled model"):
        load(name, device="cpu")


def test_a_file_is_no_model(tmp_path) -> None:
    (tmp_path / "x").write_text("x")
    with pytest.raises(CheckpointError, match="is a file"):
        load(tmp_path / "x", device="cpu")


def test_damaged_folders(model_folder, tmp_path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load(tmp_path, device="cpu")
    folder = tmp_path / "damaged"
    shutil.copytree(model_folder, folder)
    weights = folder / "dit.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="not a readable safetensors") as caught:
        load(folder, device="cpu", dtype="float32")
    assert "\n" not in str(caught.value)
    shutil.copy(folder / "tokenizer.safetensors", weights)
    with pytest.raises(CheckpointError, match="does not fit"):
        load(folder, device="cpu", dtype="float32")


@pytest.mark.parametrize(
    ("name", "message"), [("gpu", "unknown device"), ("meta", "not supported"), ("mps", "no Apple GPU")]
)
def test_unknown_devices(name: str, message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        devices.pick_device(name)


def test_cuda_where_there_is_none(monkeypatch, model_folder) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.pick_device("auto") == torch.device("cpu")
    with pytest.raises(DeviceError, match="cuda was asked for"):
        load(model_folder, device="cuda")


def test_a_cuda_device_too_many(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(DeviceError, match="has 1 CUDA"):
        devices.pick_device("cuda:3")


@pytest.mark.parametrize(("fast_ms", "picked"), [(5, torch.bfloat16), (9.9, torch.float32), (30, torch.float32)])
def test_the_faster_number_type_is_picked(monkeypatch, fast_ms: float, picked: torch.dtype) -> None:
    costs = {torch.float32: 10.0, torch.bfloat16: fast_ms}
    monkeypatch.setattr(devices, "measure_work_s", lambda dtype, device: costs[dtype])
    assert devices.pick_dtype("auto", torch.device("cpu")) == picked


def test_number_types() -> None:
    cpu = torch.device("cpu")
    assert devices.pick_dtype("bfloat16", cpu) == torch.bfloat16
    with pytest.raises(DeviceError, match="unknown dtype 'int3'"):
        devices.pick_dtype("int3", cpu)
    with pytest.raises(DeviceError, match="only supported on a GPU"):
        devices.pick_dtype("float16", cpu)


def test_the_machine_can_be_measured() -> None:
    cpu = torch.device("cpu")
    assert devices.measure_work_s(torch.float32, cpu, repeats=1) > 0


def test_modes(monkeypatch, model_folder, capsys) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert pick_mode("auto", cpu) == "eager"
    assert pick_mode("eager", cuda) == "eager"
    with pytest.raises(DeviceError, match="there is no mode 'turbo'; expected auto, eager or compiled"):
        pick_mode("turbo", cpu)
    monkeypatch.setattr("torch.utils._triton.has_triton", lambda: False)
    assert pick_mode("auto", cuda) == "eager"
    with pytest.raises(DeviceError, match="needs Triton"):
        pick_mode("compiled", cuda)
    monkeypatch.setattr("torch.utils._triton.has_triton", lambda: True)
    assert pick_mode("auto", cuda) == "compiled"
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(DeviceError, match="needs a C\\+\\+ compiler; install g\\+\\+"):
        check_compiler(cpu)
    assert cli.main(["bench", "--model", str(model_folder), "--mode", "turbo", "--seconds", "1"]) == 2
    assert "no mode 'turbo'" in capsys.readouterr().err
