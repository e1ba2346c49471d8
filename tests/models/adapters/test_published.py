"""Folders in the published layout: what is read, what is refused and how."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.helpers.published_folders import CLIP_NAME, RESOLUTION, VAE_CLIP, make_published

from reverie.errors import CheckpointError, ShapeError
from reverie.models.adapters import published
from reverie.models.adapters.published import is_published, open_published
from reverie.models.clip_vision import ClipVision
from reverie.models.lazy_module import LazyModule
from reverie.types import ActionSpace


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_published(tmp_path_factory.mktemp("published"))


@pytest.fixture
def mine(folder: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(folder, tmp_path / "mine"))


SPACES = {
    "universal": ActionSpace(("forward", "back", "left", "right"), mouse=True),
    "gta": ActionSpace(("forward", "back"), mouse=True),
    "templerun": ActionSpace(("still", "jump", "crouch", "turn-left", "turn-right", "left", "right"), mouse=False),
}


@pytest.mark.parametrize("variant", SPACES)
def test_each_variant_is_told_from_its_config(folder: Path, variant: str) -> None:
    config = open_published(folder, variant, RESOLUTION).config
    assert config.name == f"matrix-game-2-{variant}"
    assert config.action_space == SPACES[variant]
    assert config.world.window == (4 if variant == "gta" else 6)
    assert config.world.block == 3
    assert config.world.actions.idle_key == ("still" if variant == "templerun" else None)
    sigmas = (1.0, 0.9375, 5 / 6, 0.625) if variant == "templerun" else (1.0, 0.908843, 0.713979)
    assert config.schedule.sigmas == pytest.approx(sigmas, abs=1e-6)
    assert config.resolution == RESOLUTION
    assert config.image_encoder.num_tokens == config.world.image.tokens == 5


def test_the_published_resolution_is_the_default(folder: Path) -> None:
    config = open_published(folder).config
    assert (config.resolution, config.world.latent, config.world.grid) == ((352, 640), (16, 44, 80), (22, 40))
    assert config.name == "matrix-game-2-universal"


def test_every_tensor_arrives(folder: Path) -> None:
    published = open_published(folder, "universal", RESOLUTION)
    bundle = published.load("cpu", torch.float32)
    stored = load_file(published.weights.path)
    used = {n for n in stored if "attn_q_norm" not in n and "attn_k_norm" not in n}
    assert sum(stored[n].numel() for n in used) == sum(t.numel() for t in bundle.model.state_dict().values())
    k = bundle.model.state_dict()["blocks.1.self_attn.qkv.weight"].chunk(3)[1]
    assert torch.equal(k, stored["model.blocks.1.self_attn.k.weight"])
    assert not any(p.requires_grad or p.is_meta for m in bundle.modules().values() for p in m.parameters())


def test_bfloat16_is_kept_small(folder: Path) -> None:
    bundle = open_published(folder, "gta", RESOLUTION).load("cpu", torch.bfloat16)
    assert {t.dtype for m in bundle.modules().values() for t in m.state_dict().values()} == {torch.bfloat16}


def test_the_image_encoder_waits_in_its_file(folder: Path) -> None:
    encoder = open_published(folder, "universal", RESOLUTION).load("cpu", torch.float32).image_encoder
    assert isinstance(encoder, LazyModule)
    tower = encoder.read()
    assert isinstance(tower, ClipVision)
    assert encoder(torch.zeros(1, 3, 40, 60)).shape == (1, 5, 32)
    white = torch.ones(1, 3, 28, 28)
    mean, std = tower.pixel_mean, tower.pixel_std
    torch.testing.assert_close(encoder(white), tower.tokens((white - mean) / std))


def test_a_variant_s_own_folder_will_do(folder: Path) -> None:
    assert open_published(folder / "gta_distilled_model", None, RESOLUTION).config.name == "matrix-game-2-gta"


def test_the_vae_in_the_layout_of_diffusers(mine: Path) -> None:
    before = open_published(mine, "universal", RESOLUTION).load("cpu", torch.float32).tokenizer
    stored = {n: t.view(-1, 1, 1, 1) if n.endswith("gamma") else t for n, t in before.state_dict().items()}
    (mine / "Wan2.1_VAE.pth").unlink()
    (mine / "vae").mkdir()
    save_file(stored, mine / "vae" / "diffusion_pytorch_model.safetensors")
    after = open_published(mine, "universal", RESOLUTION).load("cpu", torch.float32).tokenizer
    assert all(torch.equal(t, after.state_dict()[n]) for n, t in before.state_dict().items())


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    assert not is_published(tmp_path)
    (tmp_path / "config.json").write_text('{"kind": "reverie.world"}')
    assert not is_published(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    assert not is_published(tmp_path)
    with pytest.raises(CheckpointError, match="it holds none"):
        open_published(tmp_path)


def rewrite(path: Path, **changes: object) -> None:
    raw = json.loads(path.read_text())
    (raw["action_config"] if changes.keys() <= raw["action_config"].keys() else raw).update(changes)
    path.write_text(json.dumps(raw))


def drop_variant(mine: Path) -> None:
    shutil.rmtree(mine / "gta_distilled_model")


def cut_weights(mine: Path) -> None:
    path = mine / "gta_distilled_model" / "gta_keyboard2dim.safetensors"
    path.write_bytes(path.read_bytes()[:-4])


def cut_vae(mine: Path) -> None:
    path = mine / "Wan2.1_VAE.pth"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def evil_clip(mine: Path) -> None:
    torch.save({"visual.head": torch.zeros(1), "epoch": 3}, mine / CLIP_NAME)


def two_files(mine: Path) -> None:
    place = mine / "gta_distilled_model"
    shutil.copy(place / "gta_keyboard2dim.safetensors", place / "a.safetensors")
    (place / "gta_keyboard2dim.safetensors").rename(place / "b.safetensors")


DAMAGES = {
    "no variant": (drop_variant, "does not hold the variant 'gta'; it holds universal, templerun"),
    "cut weights": (cut_weights, "may have been cut off"),
    "cut vae": (cut_vae, "may have been cut off"),
    "no vae": (lambda mine: (mine / "Wan2.1_VAE.pth").unlink(), "no file for the VAE: expected Wan2.1_VAE.pth or vae/"),
    "no clip": (lambda mine: (mine / CLIP_NAME).unlink(), "no file for the CLIP image encoder"),
    "evil clip": (evil_clip, "more than tensors"),
    "another vae": (lambda mine: shutil.copy(mine / "taew2_1.pth", mine / "Wan2.1_VAE.pth"), "not Wan 2.1's VAE"),
    "another clip": (lambda mine: shutil.copy(mine / "taew2_1.pth", mine / CLIP_NAME), "holds no CLIP visual tower"),
    "two files": (two_files, "must hold one .safetensors file"),
    "foundation": (
        lambda mine: rewrite(mine / "gta_distilled_model" / "config.json", local_attn_size=-1),
        "is the foundation model",
    ),
    "sinks": (
        lambda mine: rewrite(mine / "gta_distilled_model" / "config.json", sink_size=1),
        "sink_size is 1, expected 0",
    ),
    "no norms": (lambda mine: rewrite(mine / "gta_distilled_model" / "config.json", qk_norm=False), "qk_norm is False"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_wrong_is_said_before_anything_is_read(mine: Path, name: str) -> None:
    damage, says = DAMAGES[name]
    damage(mine)
    with pytest.raises(CheckpointError, match=says) as caught:
        open_published(mine, "gta", RESOLUTION)
    assert "\n" not in str(caught.value)


def test_weights_of_another_variant_are_refused(mine: Path) -> None:
    place = mine / "gta_distilled_model"
    shutil.copy(mine / "base_distilled_model" / "base_distill.safetensors", place / "gta_keyboard2dim.safetensors")
    published = open_published(mine, "gta", RESOLUTION)
    with pytest.raises(CheckpointError, match=r"misshaped \(model.blocks.0.action_model.keyboard_embed.0.weight"):
        published.load("cpu", torch.float32)


def test_missing_unknown_and_misshaped_keys_are_named_at_once(mine: Path) -> None:
    path = mine / "gta_distilled_model" / "gta_keyboard2dim.safetensors"
    weights = load_file(path)
    del weights["model.blocks.1.self_attn.v.weight"]
    weights["model.blocks.1.wings"] = torch.zeros(1)
    weights["model.head.modulation"] = torch.zeros(1, 3, 32)
    save_file(weights, path)
    with pytest.raises(CheckpointError) as caught:
        open_published(mine, "gta", RESOLUTION).load("cpu", torch.float32)
    for said in (
        "1 missing (model.blocks.1.self_attn.v.weight)",
        "1 unknown (model.blocks.1.wings)",
        "1 misshaped (model.head.modulation [1, 3, 32], not [2, 32])",
    ):
        assert said in str(caught.value)


def test_names_and_sizes_that_cannot_be(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="no variant 'minecraft'; expected universal, gta, templerun"):
        open_published(folder, "minecraft")
    with pytest.raises(ShapeError, match="multiples of 16"):
        open_published(folder, "gta", (350, 640))


def test_clip_s_heads_are_those_of_vit_h() -> None:
    from reverie.models.adapters import clip
    from reverie.models.weights import TensorFile

    file = TensorFile(VAE_CLIP / "clip_visual.safetensors")
    file.shapes["visual.patch_embedding.weight"] = (1280, 3, 14, 14)
    assert clip.read_config(file).heads == 16


def test_companions_of_a_mac_are_no_weights(tmp_path: Path) -> None:
    for name in ("model.safetensors", "._model.safetensors"):
        (tmp_path / name).write_bytes(b"")
    assert published._weights_in(tmp_path) == tmp_path / "model.safetensors"
