from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from reverie.errors import CheckpointError, ShapeError
from reverie.models.adapters import wan_vae
from reverie.models.wan_vae import MEAN, STD, WanVAE, WanVAEConfig
from reverie.models.weights import TensorFile, fill

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "vae_clip"


def read(path: Path) -> WanVAE:
    file = TensorFile(path)
    config, names = wan_vae.read_layout(file)
    with torch.device("meta"):
        vae = WanVAE(config)
    fill(vae, file, names=names)
    return vae.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def vae() -> WanVAE:
    return read(GOLDEN / "Wan2.1_VAE.pth")


@torch.inference_mode()
@pytest.mark.parametrize("cuts", [(1, 1, 1, 1), (2, 2), (3, 1), (1, 3)])
def test_streamed_equals_whole_bit_for_bit(vae: WanVAE, cuts: tuple[int, ...]) -> None:
    video = load_file(GOLDEN / "vae_io.safetensors")["video"].transpose(1, 2)
    whole = vae.encode(video)
    state = vae.new_encoder_state(1, 32, 48)
    frames = [4 * count - 3 if i == 0 else 4 * count for i, count in enumerate(cuts)]
    assert torch.equal(torch.cat([vae.encode(part, state) for part in video.split(frames, 1)], 1), whole)
    decoder = vae.new_decoder_state(1, 32, 48)
    pieces = [vae.decode(part, decoder) for part in whole.split(cuts, 1)]
    assert [piece.shape[1] for piece in pieces] == frames
    assert torch.equal(torch.cat(pieces, 1), vae.decode(whole))
    state.reset()
    assert torch.equal(vae.encode(video, state), whole)


@torch.inference_mode()
def test_rows_of_a_batch_are_independent(vae: WanVAE) -> None:
    video = torch.rand(2, 5, 3, 32, 32) * 2 - 1
    z = vae.encode(video)
    torch.testing.assert_close(z[1:], vae.encode(video[1:]), atol=1e-5, rtol=0)
    torch.testing.assert_close(vae.decode(z)[1:], vae.decode(z[1:]), atol=1e-5, rtol=0)


@torch.inference_mode()
def test_half_precision_stays_near(vae: WanVAE) -> None:
    half = read(GOLDEN / "Wan2.1_VAE.pth").to(torch.bfloat16)
    z = torch.randn(1, 2, 16, 4, 4)
    out = half.decode(z.bfloat16())
    assert out.dtype == torch.bfloat16
    assert (out.float() - vae.decode(z)).abs().mean() < 0.05


def test_the_layout_of_diffusers(vae: WanVAE, tmp_path: Path) -> None:
    """The same numbers from AutoencoderKLWan's names, and the statistics that its config holds."""
    stored = {n: t.view(-1, 1, 1, 1) if n.endswith("gamma") else t for n, t in vae.state_dict().items()}
    save_file(stored, tmp_path / "diffusion_pytorch_model.safetensors")
    other = read(tmp_path / "diffusion_pytorch_model.safetensors")
    assert other.config == vae.config
    assert all(torch.equal(t, other.state_dict()[n]) for n, t in vae.state_dict().items())
    config = {"_class_name": "AutoencoderKLWan", "latents_mean": [0.0] * 16, "latents_std": [2.0] * 16}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read(tmp_path / "diffusion_pytorch_model.safetensors").config.std == (2.0,) * 16
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not a readable config"):
        read(tmp_path / "diffusion_pytorch_model.safetensors")


@torch.inference_mode()
def test_equals_diffusers_at_full_width() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.AutoencoderKLWan().eval().requires_grad_(False)
    for parameter in theirs.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.02)
    with torch.device("meta"):
        ours = WanVAE(WanVAEConfig())
    stored = {n: t.flatten() if n.endswith("gamma") else t for n, t in theirs.state_dict().items()}
    ours.load_state_dict(stored, assign=True)
    mean, std = (torch.tensor(values).view(-1, 1, 1, 1) for values in (MEAN, STD))
    video = torch.rand(1, 3, 9, 32, 48) * 2 - 1
    wanted = (theirs.encode(video).latent_dist.mean - mean) / std
    torch.testing.assert_close(ours.encode(video.transpose(1, 2)).transpose(1, 2), wanted, atol=1e-4, rtol=0)
    z = torch.randn(1, 16, 3, 4, 6)
    wanted = theirs.decode(z * std + mean).sample
    got = ours.decode(z.transpose(1, 2)).transpose(1, 2).clamp(-1, 1)
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=0)


def test_bad_shapes(vae: WanVAE) -> None:
    with pytest.raises(ShapeError, match="multiples of 16"):
        vae.encode(torch.zeros(1, 1, 3, 24, 32))
    with pytest.raises(ShapeError, match="1 \\+ 4n frames"):
        vae.encode(torch.zeros(1, 4, 3, 32, 32))
    with pytest.raises(ShapeError, match="the carry is"):
        vae.decode(torch.zeros(1, 1, 16, 4, 4), vae.new_decoder_state(1, 32, 48))
    with pytest.raises(ShapeError, match="halves time twice"):
        dataclasses.replace(vae.config, halves_time=(True, True, True))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda w: w.pop("decoder.middle.1.proj.bias"), r"1 missing \(decoder.middle.1.proj.bias\)"),
        (lambda w: w.update({"decoder.wings": torch.zeros(1)}), r"1 unknown \(decoder.wings\)"),
        (
            lambda w: w.update({"decoder.upsamples.13.residual.2.bias": torch.zeros(9)}),
            r"1 misshaped \(decoder.upsamples.13.residual.2.bias \[9\], not \[8\]\)",
        ),
        (lambda w: w.pop("encoder.conv1.weight"), "not Wan 2.1's VAE"),
        (lambda w: w.update({"conv2.weight": torch.zeros(48, 48, 1, 1, 1)}), "48 channels"),
    ],
)
def test_keys_that_do_not_fit_are_named(change, says: str, tmp_path: Path) -> None:
    weights = torch.load(GOLDEN / "Wan2.1_VAE.pth", weights_only=True)
    change(weights)
    torch.save(weights, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=says) as caught:
        read(tmp_path / "x.pth")
    assert "\n" not in str(caught.value)
