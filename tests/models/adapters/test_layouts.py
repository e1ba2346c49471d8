"""Checkpoints of other trainings of Matrix-Game 2.0: every form loads to the bit, misfits are told in one line."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.helpers.naive_matrix_game import make_config, make_weights
from tests.helpers.published_folders import CLIP_NAME, CLIP_WIDTH, RESOLUTION, VAE_CLIP
from torch import Tensor

from reverie.engine.loading.convert import convert
from reverie.errors import CheckpointError
from reverie.models.adapters.published import is_published, open_published
from reverie.models.checkpoint import load_model
from reverie.models.weights import write_tensors

CONFIG = make_config(dim=128, ffn=48, heads=1, layers=2, keys=6)
Weights = dict[str, Tensor]

# Written down as the two repositories have them, not derived from the code that is tested.
FASTVIDEO = (
    ("time_embedding.0", "condition_embedder.time_embedder.mlp.fc_in"),
    ("time_embedding.2", "condition_embedder.time_embedder.mlp.fc_out"),
    ("time_projection.1", "condition_embedder.time_modulation.linear"),
    ("img_emb.proj.0", "condition_embedder.image_embedder.norm1"),
    ("img_emb.proj.1", "condition_embedder.image_embedder.ff.fc_in"),
    ("img_emb.proj.3", "condition_embedder.image_embedder.ff.fc_out"),
    ("img_emb.proj.4", "condition_embedder.image_embedder.norm2"),
    ("patch_embedding", "patch_embedding.proj"),
    ("self_attn.q.", "to_q."), ("self_attn.k.", "to_k."), ("self_attn.v.", "to_v."), ("self_attn.o.", "to_out."),
    ("self_attn.norm_", "norm_"),
    ("cross_attn.q.", "attn2.to_q."), ("cross_attn.k.", "attn2.to_k."), ("cross_attn.v.", "attn2.to_v."),
    ("cross_attn.o.", "attn2.to_out."), ("cross_attn.norm_", "attn2.norm_"),
    ("norm3", "self_attn_residual_norm.norm"), ("ffn.0", "ffn.fc_in"), ("ffn.2", "ffn.fc_out"),
    ("head.head", "proj_out"), ("head.modulation", "scale_shift_table"), (".modulation", ".scale_shift_table"),
)  # fmt: skip
DIFFUSERS = (
    ("time_embedding.0", "condition_embedder.time_embedder.linear_1"),
    ("time_embedding.2", "condition_embedder.time_embedder.linear_2"),
    ("time_projection.1", "condition_embedder.time_proj"),
    ("img_emb.proj.0", "condition_embedder.image_embedder.norm1"),
    ("img_emb.proj.1", "condition_embedder.image_embedder.ff.net.0.proj"),
    ("img_emb.proj.3", "condition_embedder.image_embedder.ff.net.2"),
    ("img_emb.proj.4", "condition_embedder.image_embedder.norm2"),
    ("self_attn.q.", "attn1.to_q."), ("self_attn.k.", "attn1.to_k."), ("self_attn.v.", "attn1.to_v."),
    ("self_attn.o.", "attn1.to_out.0."), ("self_attn.norm_", "attn1.norm_"),
    ("cross_attn.q.", "attn2.to_q."), ("cross_attn.k.", "attn2.to_k."), ("cross_attn.v.", "attn2.to_v."),
    ("cross_attn.o.", "attn2.to_out.0."), ("cross_attn.norm_", "attn2.norm_"),
    ("norm3", "norm2"), ("ffn.0", "ffn.net.0.proj"), ("ffn.2", "ffn.net.2"),
    ("head.head", "proj_out"), ("head.modulation", "scale_shift_table"), (".modulation", ".scale_shift_table"),
)  # fmt: skip
FASTVIDEO_CONFIG = {
    "_class_name": "CausalMatrixGame2WanModel", "num_attention_heads": 1, "attention_head_dim": 128, "ffn_dim": 48,
    "num_layers": 2, "in_channels": 36, "out_channels": 16, "freq_dim": 32, "qk_norm": "rms_norm_across_heads",
    "eps": 1e-6, "local_attn_size": 6, "sink_size": 0, "image_dim": 1280, "text_len": 512,
    "action_config": CONFIG["action_config"],
}  # fmt: skip


def bare(seed: int = 0, config: dict[str, Any] = CONFIG) -> Weights:
    """Random weights under the published names without a prefix; the stored gains are ones, as they were never used."""
    made = {name.removeprefix("model."): tensor for name, tensor in make_weights(config, CLIP_WIDTH, seed).items()}
    return {
        name: torch.ones_like(t) if "_attn_q_norm" in name or "_attn_k_norm" in name else t for name, t in made.items()
    }


def renamed(weights: Weights, table: tuple[tuple[str, str], ...]) -> Weights:
    def one(name: str) -> str:
        for theirs, new in table:
            if theirs in name and "action_model" not in name:
                name = name.replace(theirs, new)
        return name

    return {one(name): tensor for name, tensor in weights.items()}


def wrapped(weights: Weights, prefix: str, inner: str = "") -> Weights:
    """A prefix before each name, and `inner` after the number of each block."""
    return {prefix + re.sub(r"^(blocks\.\d+\.)", rf"\1{inner}", name): tensor for name, tensor in weights.items()}


def with_parts(folder: Path) -> Path:
    """A folder with the VAE and the image encoder."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(VAE_CLIP / "Wan2.1_VAE.pth", folder)
    torch.save(load_file(VAE_CLIP / "clip_visual.safetensors"), folder / CLIP_NAME)
    return folder


def pickled(content: Any) -> Callable[[Path], None]:
    return lambda folder: torch.save(content, folder / "model.pt")


def transformer(weights: Weights, shard_bytes: int | None = None) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        place = folder / "transformer"
        place.mkdir()
        (place / "config.json").write_text(json.dumps(FASTVIDEO_CONFIG))
        files = write_tensors(place / "diffusion_pytorch_model.safetensors", weights, shard_bytes)
        assert len(files) > 2 or shard_bytes is None

    return make


FSDP = "_fsdp_wrapped_module."
FORMS: dict[str, Callable[[Path], None]] = {
    "forgewm generator": pickled({"generator": wrapped(bare(), "model.")}),
    "forgewm generator_ema": pickled({"generator_ema": wrapped(bare(), "model.")}),
    "forgewm both": pickled({"generator": wrapped(bare(1), "model."), "generator_ema": wrapped(bare(), "model.")}),
    "fsdp": pickled({"generator": wrapped(bare(), f"model.{FSDP}", FSDP)}),
    "checkpointing": pickled({"generator": wrapped(bare(), "model.", "_checkpoint_wrapped_module.")}),
    "module": pickled(wrapped(bare(), "module.model.")),
    "state_dict": pickled({"state_dict": bare(), "step": 3}),
    "flat generator": pickled(wrapped(bare(), "generator.model.")),
    "flat both": pickled(wrapped(bare(1), "generator.model.") | wrapped(bare(), "generator_ema.model.")),
    "fastvideo": transformer(renamed(bare(), FASTVIDEO)),
    "fastvideo sharded": transformer(renamed(bare(), FASTVIDEO), 100_000),
    "fastvideo ema": lambda folder: save_file(renamed(bare(), FASTVIDEO), folder / "generator_ema.safetensors"),
    "diffusers": transformer(renamed(bare(), DIFFUSERS)),
    "diffusers sharded": transformer(renamed(bare(), DIFFUSERS), 100_000),
    "diffusers with a patch embedding of fastvideo": transformer(
        renamed(bare(), (*DIFFUSERS, ("patch_embedding", "patch_embedding.proj")))
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """Our weights, read from the published form."""
    folder = with_parts(tmp_path_factory.mktemp("published"))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    save_file(wrapped(bare(), "model."), folder / "base_distill.safetensors")
    return open_published(folder, None, RESOLUTION).read_model("cpu", torch.float32).state_dict()


@pytest.mark.parametrize("form", FORMS)
def test_each_form_loads_to_the_bit(published: dict[str, Tensor], tmp_path: Path, form: str) -> None:
    FORMS[form](with_parts(tmp_path))
    assert is_published(tmp_path)
    opened = open_published(tmp_path, None, RESOLUTION)
    found = opened.read_model("cpu", torch.float32).state_dict()
    assert found.keys() == published.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in published.items())
    world = opened.config.world
    assert (world.heads, world.window, world.block, opened.config.name) == (1, 6, 3, "matrix-game-2-six-key")
    assert world.action_space.keys == ("forward", "back", "left", "right", "turn-left", "turn-right")
    assert len(opened.config.schedule.sigmas) == (3 if "fastvideo" in form or "diffusers" in form else 4)


def test_forgewm_keeps_its_stages_beside_the_base(published: dict[str, Tensor], tmp_path: Path) -> None:
    with_parts(tmp_path / "MG2-base")
    (tmp_path / "stage3").mkdir()
    FORMS["forgewm generator"](tmp_path / "stage3")
    found = open_published(tmp_path / "stage3", None, RESOLUTION).load("cpu", torch.float32).model.state_dict()
    assert torch.equal(found["blocks.1.self_attn.qkv.weight"], published["blocks.1.self_attn.qkv.weight"])


def test_an_image_encoder_as_transformers_has_it(tmp_path: Path) -> None:
    FORMS["fastvideo"](with_parts(tmp_path))
    before = open_published(tmp_path, None, RESOLUTION)
    old = before.read_clip("cpu", torch.float32).state_dict()
    theirs = {
        "cls_embedding": "embeddings.class_embedding",
        "patch_embedding.weight": "embeddings.patch_embedding.weight",
        "pos_embedding": "embeddings.position_embedding.weight",
    }
    moved: Weights = {"vision_model.post_layernorm.weight": torch.ones(CLIP_WIDTH)}
    for name, tensor in load_file(VAE_CLIP / "clip_visual.safetensors").items():
        if not name.startswith("visual.") or "post_norm" in name or name == "visual.head":
            continue
        place = theirs.get(name.removeprefix("visual."), name.removeprefix("visual."))
        place = place.replace("pre_norm", "pre_layrnorm").replace("transformer.", "encoder.layers.")
        place = place.replace(".norm1.", ".layer_norm1.").replace(".norm2.", ".layer_norm2.")
        place = place.replace(".attn.proj.", ".self_attn.out_proj.").replace(".mlp.0.", ".mlp.fc1.")
        place = place.replace(".mlp.2.", ".mlp.fc2.")
        if "to_qkv" in place:
            for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                moved["vision_model." + place.replace("attn.to_qkv", f"self_attn.{part}_proj")] = piece.clone()
        else:
            moved[f"vision_model.{place}"] = tensor.squeeze(0) if "position" in place else tensor.reshape(tensor.shape)
    (tmp_path / CLIP_NAME).unlink()
    (tmp_path / "image_encoder").mkdir()
    save_file(moved, tmp_path / "image_encoder/model.safetensors")
    after = open_published(tmp_path, None, RESOLUTION)
    assert after.config.image_encoder == before.config.image_encoder
    new = after.read_clip("cpu", torch.float32).state_dict()
    assert all(torch.equal(tensor, new[name]) for name, tensor in old.items())


def gains(weights: Weights, q: float, k: float) -> Weights:
    """Every gain on queries and keys set to a number."""
    return {
        name: torch.full_like(t, q if "_attn_q_norm" in name else k) if re.search("_attn_[qk]_norm", name) else t
        for name, t in weights.items()
    }


def test_gains_that_fastvideo_trained_are_applied(tmp_path: Path) -> None:
    """Twice the queries and half the keys attend alike; other gains do not."""
    outputs = {}
    for name, (q, k) in {"ones": (1.0, 1.0), "cancel": (2.0, 0.5), "sharper": (3.0, 1.0)}.items():
        folder = with_parts(tmp_path / name)
        transformer(renamed(gains(bare(), q, k), FASTVIDEO))(folder)
        opened = open_published(folder, None, RESOLUTION)
        assert opened.config.world.actions.mouse is not None
        assert opened.config.world.actions.mouse.gain == (name != "ones")
        block = opened.read_model("cpu", torch.float32).blocks[0]
        generator = torch.Generator().manual_seed(0)
        x, turns, time = (
            torch.randn(*shape, generator=generator) for shape in ((1, 3, 4, 128), (1, 3, 12, 2), (3, 4, 2))
        )
        q_, k_, _ = block.mouse.project_qkv(x, turns, time)
        outputs[name] = q_ @ k_.mT
        asked, answers, _ = block.keyboard.project_qkv(x, torch.ones(1, 3, 12, 6), time)
        outputs[name + " keys"] = asked @ answers.mT
    for part in ("", " keys"):
        torch.testing.assert_close(outputs["cancel" + part], outputs["ones" + part])
        torch.testing.assert_close(outputs["sharper" + part], 3 * outputs["ones" + part])


def test_the_reference_and_forgewm_store_gains_and_never_apply_them(
    published: dict[str, Tensor], tmp_path: Path
) -> None:
    pickled({"generator": wrapped(gains(bare(), 2.0, 3.0), "model.")})(with_parts(tmp_path))
    opened = open_published(tmp_path, None, RESOLUTION)
    assert opened.read_model("cpu", torch.float32).state_dict().keys() == published.keys()


def test_a_converted_model_keeps_its_gains(tmp_path: Path) -> None:
    transformer(renamed(gains(bare(), 2.0, 0.25), FASTVIDEO))(with_parts(tmp_path / "src"))
    convert(str(tmp_path / "src"), tmp_path / "dst", resolution=RESOLUTION, dtype="float32")
    model = load_model(tmp_path / "dst").model
    assert model.config.actions.mouse is not None
    assert model.config.actions.mouse.gain
    assert torch.equal(model.state_dict()["blocks.0.mouse.img_attn_k_norm.weight"], torch.full((16,), 0.25))


def without(weights: Weights, *names: str) -> Weights:
    return {name: tensor for name, tensor in weights.items() if name not in names}


WINGS = {"blocks.1.wings": torch.zeros(1)}
MISFITS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a tensor lacks": (
        transformer(without(renamed(bare(), FASTVIDEO), "blocks.1.to_v.weight")),
        r"fits no variant of Matrix-Game 2\.0; closest is six-key under the fastvideo names, with 1 missing \(first "
        r"blocks\.1\.to_v\.weight\)$",
    ),
    "a tensor is left over": (
        transformer(renamed(bare(), DIFFUSERS) | WINGS),
        r"under the diffusers names, with 1 left over \(first blocks\.1\.wings\)$",
    ),
    "both, without a config": (
        pickled({"generator": wrapped(without(bare(), "head.modulation") | WINGS, "model.")}),
        r"under the original names, with 1 missing \(first head\.modulation\), 1 left over \(first blocks\.1\.wings\)$",
    ),
    "something else": (
        pickled({"state_dict": {"encoder.weight": torch.zeros(3, 4)}}),
        r"closest is \w+ under the original names, with \d+ missing \(first [\w.]+\), "
        r"1 left over \(first encoder\.weight\)$",
    ),
    "bidirectional fastvideo": (
        transformer(renamed(bare(), FASTVIDEO) | {"blocks.0.attn2.add_k_proj.weight": torch.zeros(2, 2)}),
        r"1 left over \(first blocks\.0\.attn2\.add_k_proj\.weight\)$",
    ),
    "an early stage": (
        pickled({"generator": bare(0, make_config(dim=128, ffn=48, heads=1, layers=2, keys=6, blocks=(0, 1)))}),
        r"action modules in all of its 2 blocks, as ForgeWM's stages 0 to 2",
    ),
    "more than tensors": (
        pickled({"optimizer": {"lr": 0.1}}),
        r"expected a state dict, alone or under one of generator_ema",
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_what_fits_no_variant_is_said_in_one_line(tmp_path: Path, name: str) -> None:
    make, text = MISFITS[name]
    make(with_parts(tmp_path))
    with pytest.raises(CheckpointError, match=text) as caught:
        open_published(tmp_path, None, RESOLUTION)
    assert "\n" not in str(caught.value)


def test_a_model_of_our_own_is_not_taken_for_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"kind": "reverie.world"}')
    torch.save({}, tmp_path / "model.pt")
    assert not is_published(tmp_path)
