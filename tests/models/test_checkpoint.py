import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from reverie.errors import CheckpointError
from reverie.models import presets
from reverie.models.checkpoint import (
    ModelBundle,
    ModelConfig,
    from_json,
    load_model,
    read_config,
    save_config,
    save_model,
    to_json,
)
from reverie.sampling import Schedule


def bundle() -> ModelBundle:
    preset = presets.tiny()
    config = ModelConfig(
        name="test",
        resolution=preset.resolution,
        schedule=Schedule((1.0, 0.5), context_sigma=0.1),
        world=preset.world,
        tokenizer=preset.tokenizer,
        image_encoder=preset.image_encoder,
        summary={"steps": 3},
    )
    return ModelBundle.new(config)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(tmp_path / "m", bundle(), card="# test\n")
    return tmp_path / "m"


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_configs_survive_json(preset: str) -> None:
    config = presets.PRESETS[preset]().world
    assert from_json(type(config), json.loads(json.dumps(to_json(config)))) == config


def test_a_model_survives_its_folder(tmp_path: Path) -> None:
    made = bundle()
    save_model(tmp_path / "m", made, dtype=None)
    read = load_model(tmp_path / "m")
    assert read.config == made.config
    for name, module in made.modules().items():
        for key, tensor in module.state_dict().items():
            assert torch.equal(tensor, read.modules()[name].state_dict()[key]), (name, key)


def test_weights_are_half_size_by_default(folder: Path) -> None:
    stored = load_file(folder / "dit.safetensors")
    assert {t.dtype for t in stored.values() if t.is_floating_point()} == {torch.bfloat16}


def break_nothing_there(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def break_no_weights(folder: Path) -> None:
    (folder / "dit.safetensors").unlink()


def break_cut_weights(folder: Path) -> None:
    path = folder / "tokenizer.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def break_foreign_weights(folder: Path) -> None:
    save_file({"conv.weight": torch.zeros(3)}, folder / "dit.safetensors")


def break_shape(folder: Path) -> None:
    stored = load_file(folder / "dit.safetensors")
    stored["head.bias"] = torch.zeros(3)
    save_file(stored, folder / "dit.safetensors")


def break_json(folder: Path) -> None:
    (folder / "config.json").write_text("{not json")


def break_kind(folder: Path) -> None:
    (folder / "config.json").write_text('{"_class_name": "CausalWanModel"}')


def break_field(folder: Path) -> None:
    raw = json.loads((folder / "config.json").read_text())
    raw["world"]["wings"] = 2
    (folder / "config.json").write_text(json.dumps(raw))


def break_type(folder: Path) -> None:
    raw = json.loads((folder / "config.json").read_text())
    raw["world"]["dim"] = "wide"
    (folder / "config.json").write_text(json.dumps(raw))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (break_nothing_there, "no config.json"),
        (break_no_weights, "dit.safetensors is missing"),
        (break_cut_weights, "not a readable safetensors"),
        (break_foreign_weights, "does not fit"),
        (break_shape, "misshaped"),
        (break_json, "not readable JSON"),
        (break_kind, "not the config of a Reverie model"),
        (break_field, "no field 'wings'"),
        (break_type, "expected int"),
    ],
)
def test_a_damaged_folder_gives_one_clear_line(folder: Path, damage: object, says: str) -> None:
    damage(folder)  # type: ignore[operator]
    with pytest.raises(CheckpointError, match=says) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def test_no_folder_at_all(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no model folder"):
        load_model(tmp_path / "nothing")


def test_a_model_survives_its_shards(tmp_path: Path) -> None:
    made = bundle()
    save_model(tmp_path / "m", made, dtype=None, shard_bytes=50_000)
    assert not (tmp_path / "m" / "dit.safetensors").exists()
    assert max(f.stat().st_size for f in (tmp_path / "m").glob("dit-*.safetensors")) < 60_000 + 2**14
    read = load_model(tmp_path / "m")
    for name, module in made.modules().items():
        for key, tensor in module.state_dict().items():
            assert torch.equal(tensor, read.modules()[name].state_dict()[key]), (name, key)
    (last,) = (tmp_path / "m").glob("dit-00002-of-*.safetensors")
    last.unlink()
    with pytest.raises(CheckpointError, match=r"dit-00002-of-\d+.safetensors is missing, one of"):
        load_model(tmp_path / "m")


OLD = Path(__file__).parents[1] / "data/golden/config_version_2.json"


def write_old_config(folder: Path, **world: object) -> Path:
    raw = json.loads(OLD.read_text())
    raw["world"] |= world
    (folder / "config.json").write_text(json.dumps(raw))
    return folder


def test_config_of_version_2_gives_the_same_model(tmp_path: Path) -> None:
    config = read_config(write_old_config(tmp_path))
    keys = config.action_space
    assert config.world == presets.nano(keys).world
    save_config(tmp_path, config)
    assert read_config(tmp_path) == config


@pytest.mark.parametrize(("name", "value"), [("action_frames", 8), ("before_start", "repeat"), ("eps", 1e-5)])
def test_config_of_version_2_with_a_setting_that_no_longer_varies(tmp_path: Path, name: str, value: object) -> None:
    with pytest.raises(CheckpointError, match=f"{name} is {value!r}; this Reverie has"):
        read_config(write_old_config(tmp_path, **{name: value}))


def test_config_of_an_unknown_version(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"kind": "reverie.world", "version": 9}')
    with pytest.raises(CheckpointError, match="version 9, this Reverie reads version 3"):
        read_config(tmp_path)
