"""Our numbers beside the reference's, and beside a naive model's in shapes that no golden has."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.helpers.naive_matrix_game import make_config, write_golden

from reverie.bench.reference_check import TOLERANCE, check_rollout, check_vae
from reverie.cli.reference_check import main
from reverie.errors import CheckpointError

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
needs_rollouts = pytest.mark.skipif(
    not (GOLDEN / "universal").is_dir(), reason="the sdist leaves the reference's rollouts out; run this in a checkout"
)

SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "gta": ({"keys": 2, "window": 4}, {"num_blocks": 4}),
    "temple run": (
        {"keys": 7, "mouse": False, "layers": 3, "blocks": (0, 2)},
        {"timesteps": (1000.0, 937.5, 833.3333, 625.0)},
    ),
    "no window": ({"window": -1}, {"num_blocks": 4}),
    "window of one block": ({"window": 3}, {}),
    "257 tokens": ({"layers": 1}, {"tokens": 257, "image_dim": 40, "num_blocks": 2}),
    "odd grid": ({"heads": 3, "dim": 54, "key_width": 24, "mouse_width": 48}, {"size": (6, 10), "num_blocks": 2}),
    "actions nowhere": ({"blocks": ()}, {"num_blocks": 2}),
    "deep, actions late": ({"layers": 4, "blocks": (1, 3), "hidden": 5}, {"num_blocks": 2}),
    "blocks of two": ({}, {"block": 2, "num_blocks": 4}),
    "blocks of one": ({"window": 2}, {"block": 1, "num_blocks": 4}),
    "one pass": ({}, {"timesteps": (1000.0,), "num_blocks": 2}),
    "other patches": ({}, {"patch": (1, 2), "num_blocks": 2}),
    "longer": ({"window": 4, "layers": 1}, {"num_blocks": 7, "size": (2, 4)}),
}


@needs_rollouts
@pytest.mark.parametrize("variant", ["universal", "templerun"])
def test_the_reference_s_rollouts(variant: str) -> None:
    differences = check_rollout(GOLDEN / variant)
    assert differences.keys() == {"first_flow", "latents"}
    assert max(differences.values()) < TOLERANCE / 10


@pytest.mark.parametrize("name", SHAPES)
def test_other_shapes_equal_a_naive_model(name: str, tmp_path: Path) -> None:
    config, sizes = SHAPES[name]
    write_golden(tmp_path, make_config(**config), **sizes)
    assert max(check_rollout(tmp_path).values()) < TOLERANCE / 10


def test_the_reference_s_vae_and_clip() -> None:
    differences = check_vae(GOLDEN / "vae_clip")
    assert differences.keys() == {"latents", "decoded", "image_padded_latents", "hidden"}
    assert max(differences.values()) < TOLERANCE / 10


@needs_rollouts
def test_the_command_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(GOLDEN / "universal", folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.blocks.1.self_attn.k.weight"][0, 0] += 0.5
    save_file(weights, folder / "model.safetensors")
    assert main(["check", str(GOLDEN / "universal")]) == 0
    assert re.search(r"latents \d.*: the same", capsys.readouterr().out)
    assert main(["check", str(GOLDEN / "universal"), str(folder)]) == 1
    assert "NOT THE SAME" in capsys.readouterr().out
    assert main(["check-vae", str(GOLDEN / "vae_clip")]) == 0
    assert main(["check", str(tmp_path)]) == 2
    assert main(["check"]) == 2
    assert main(["chess", str(tmp_path)]) == 2


@needs_rollouts
def test_numbers_that_are_none_are_not_the_same(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "universal", tmp_path / "x")
    io = load_file(tmp_path / "x" / "io.safetensors")
    io["latents"][0, 0, 0, 0, 0] = torch.nan
    save_file(io, tmp_path / "x" / "io.safetensors")
    assert main(["check", str(tmp_path / "x")]) == 1


@needs_rollouts
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda io: io.pop("renoise"), "lacks renoise"),
        (lambda io: io.update(keyboard=io["keyboard"][:, :8]), r"keyboard must be \(b, 44 or more, 4\)"),
        (lambda io: io.update(noise=io["noise"][:, :, :11].clone()), "no blocks of 3"),
        (lambda io: io.update(visual_context=io["visual_context"][..., :32].clone()), "misshaped"),
    ],
)
def test_inputs_that_do_not_fit(change: Any, says: str, tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "universal", tmp_path / "x")
    io = load_file(tmp_path / "x" / "io.safetensors")
    change(io)
    save_file({n: t.contiguous() for n, t in io.items()}, tmp_path / "x" / "io.safetensors")
    with pytest.raises(CheckpointError, match=says):
        check_rollout(tmp_path / "x")
