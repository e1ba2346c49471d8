"""Folders as Matrix-Game 2.0 was published, at toy size with random weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from tests.helpers.naive_matrix_game import make_config, make_weights
from torch import Tensor

VAE_CLIP = Path(__file__).parents[1] / "data" / "golden" / "vae_clip"
RESOLUTION = (32, 48)
CLIP_WIDTH, CLIP_TOKENS = 32, 5
CLIP_NAME = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
VARIANTS = {
    "universal": ("base_distilled_model", "base_distill.safetensors", {"keys": 4}),
    "gta": ("gta_distilled_model", "gta_keyboard2dim.safetensors", {"keys": 2, "window": 4}),
    "templerun": ("templerun_distilled_model", "templerun_7dim_onlykey.safetensors", {"keys": 7, "mouse": False}),
}


def make_published(folder: Path, variants: tuple[str, ...] = tuple(VARIANTS), tiny: bool = True) -> Path:
    """The published layout; the VAE and the CLIP tower are the goldens'."""
    for seed, variant in enumerate(variants):
        place, name, sizes = VARIANTS[variant]
        config = make_config(dim=32, ffn=48, layers=2, **sizes)
        (folder / place).mkdir(parents=True)
        (folder / place / "config.json").write_text(json.dumps(config))
        save_file(make_weights(config, CLIP_WIDTH, seed), folder / place / name)
    shutil.copy(VAE_CLIP / "Wan2.1_VAE.pth", folder)
    from safetensors.torch import load_file

    tower = load_file(VAE_CLIP / "clip_visual.safetensors")
    text = {"textual.token_embedding.weight": torch.zeros(7, 3), "log_scale": torch.zeros(())}
    torch.save(tower | text, folder / CLIP_NAME)
    if tiny:
        torch.save(make_taehv(), folder / "taew2_1.pth")
    return folder


def make_taehv(widths: tuple[int, int, int, int] = (16, 12, 8, 8), seed: int = 0) -> dict[str, Tensor]:
    """Random tensors under the names of `taew2_1.pth`, an encoder's among them."""
    generator = torch.Generator().manual_seed(seed)
    made: dict[str, Tensor] = {}

    def conv(name: str, out: int, into: int, kernel: int = 3, bias: bool = True) -> None:
        made[f"{name}.weight"] = torch.randn(out, into, kernel, kernel, generator=generator) / (into * kernel**2) ** 0.5
        if bias:
            made[f"{name}.bias"] = 0.1 * torch.randn(out, generator=generator)

    conv("decoder.1", widths[0], 16)
    for stage, growth in enumerate((1, 2, 2)):
        place, width = 3 + 6 * stage, widths[stage]
        for block in range(3):
            conv(f"decoder.{place + block}.conv.0", width, 2 * width)
            conv(f"decoder.{place + block}.conv.2", width, width)
            conv(f"decoder.{place + block}.conv.4", width, width)
        conv(f"decoder.{place + 4}.conv", growth * width, width, 1, bias=False)
        conv(f"decoder.{place + 5}", widths[stage + 1], width, bias=False)
    conv("decoder.22", 3, widths[3])
    conv("encoder.0", 8, 3)
    return made
