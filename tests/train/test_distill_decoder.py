"""A smaller decoder for the same latents."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.helpers.latent_clips import trainer

from reverie.errors import TrainError
from reverie.models.checkpoint import ModelBundle, load_model
from reverie.models.wan_vae import WanVAE, WanVAEConfig
from reverie.train.distill_decoder import DecoderTask, DistillDecoderConfig
from reverie.train.trainer import Trainer


def test_a_narrower_decoder_for_the_same_latents(teacher: ModelBundle, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shape = (12, 17, 32, 64)
    grey = np.cumsum(rng.normal(0, 4, shape), 3).clip(-120, 120) + 128  # smooth across
    pool = np.repeat(grey[..., None], 3, -1).astype(np.uint8)
    config = DistillDecoderConfig(
        teacher=tmp_path, data=(tmp_path,), output=tmp_path, coarse=8, middle=8, fine=8, crop=(32, 64), clip_frames=5
    )
    torch.manual_seed(0)
    decoder = DecoderTask(config, teacher, pool, pool[:3])
    old, new = teacher.tokenizer, decoder.tokenizer
    video = torch.rand(1, 5, 3, 32, 64) * 2 - 1
    before = decoder.validate()
    after = Trainer(decoder, dataclasses.replace(trainer(tmp_path, 40), lr=2e-3)).run()
    assert after["psnr"] > before["psnr"] + 0.1
    assert after["teacher_psnr"] == pytest.approx(before["teacher_psnr"])
    assert torch.equal(new.encode(video), old.encode(video))
    made = load_model(tmp_path / "model")
    assert made.config.world == teacher.config.world
    assert made.tokenizer.config == new.config
    assert sum(p.numel() for p in new.decoder.parameters()) < sum(p.numel() for p in old.decoder.parameters())


def test_another_decoder_needs_a_tokenizer_of_ours(teacher: ModelBundle, tmp_path: Path) -> None:
    teacher.tokenizer = WanVAE(WanVAEConfig(dim=4))
    config = DistillDecoderConfig(teacher=tmp_path, data=(tmp_path,), output=tmp_path)
    with pytest.raises(TrainError, match="not our own"):
        DecoderTask(config, teacher, np.zeros((1, 17, 32, 64, 3), np.uint8), np.zeros((1, 17, 32, 64, 3), np.uint8))
