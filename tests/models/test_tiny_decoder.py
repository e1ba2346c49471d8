from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tests.helpers.published_folders import make_taehv
from torch import Tensor

from reverie.errors import CheckpointError, ShapeError
from reverie.models.adapters import taehv
from reverie.models.tiny_decoder import TinyDecoder
from reverie.models.weights import TensorFile, fill


@pytest.fixture
def path(tmp_path: Path) -> Path:
    torch.save(make_taehv(), tmp_path / "anything.pth")
    return tmp_path / "anything.pth"


@pytest.fixture
def decoder(path: Path) -> TinyDecoder:
    return read(path)


def read(path: Path) -> TinyDecoder:
    file = TensorFile(path)
    config = taehv.read_config(file)
    with torch.device("meta"):
        made = TinyDecoder(config)
    fill(made, file, names=taehv.names(config), ignore=taehv.UNUSED)
    return made.eval().requires_grad_(False)


def naive(w: dict[str, Tensor], z: Tensor) -> Tensor:
    """TAEHV as published, a frame at a time and layer by layer: z (t, 16, h, w) -> (f, 3, H, W) in [0, 1]."""

    def conv(name: str, x: Tensor) -> Tensor:
        weight = w[f"decoder.{name}.weight"]
        return F.conv2d(x[None], weight, w.get(f"decoder.{name}.bias"), padding=weight.shape[-1] // 2)[0]

    frames = [F.relu(conv("1", torch.tanh(x / 3) * 3)) for x in z]
    for stage in range(3):
        place = 3 + 6 * stage
        for block in range(place, place + 3):
            before, out = torch.zeros_like(frames[0]), []
            for x in frames:
                y = F.relu(conv(f"{block}.conv.0", torch.cat([x, before])))
                y = conv(f"{block}.conv.4", F.relu(conv(f"{block}.conv.2", y)))
                out.append(F.relu(y + x))
                before = x
            frames = out
        frames = [x.repeat_interleave(2, 1).repeat_interleave(2, 2) for x in frames]
        width = frames[0].shape[0]
        frames = [part for x in frames for part in conv(f"{place + 4}.conv", x).split(width)]
        frames = [conv(f"{place + 5}", x) for x in frames]
    return torch.stack([conv("22", F.relu(x)) for x in frames]).clamp(0, 1)[3:]


@torch.inference_mode()
def test_equals_the_published_architecture(decoder: TinyDecoder) -> None:
    z = torch.randn(2, 4, 16, 4, 6)
    video = decoder.decode(z)
    assert video.shape == (2, 13, 3, 32, 48)
    for ours, latents in zip(video, z, strict=True):
        torch.testing.assert_close((ours + 1) / 2, naive(make_taehv(), latents), atol=1e-5, rtol=0)


@torch.inference_mode()
@pytest.mark.parametrize("cuts", [(1, 1, 1, 1, 1), (2, 3), (3, 1, 1)])
def test_streamed_equals_whole(decoder: TinyDecoder, cuts: tuple[int, ...]) -> None:
    z = torch.randn(1, 5, 16, 4, 6)
    state = decoder.new_decoder_state(1, 32, 48)
    streamed = torch.cat([decoder.decode(part, state) for part in z.split(cuts, 1)], 1)
    torch.testing.assert_close(streamed, decoder.decode(z), atol=1e-5, rtol=0)
    assert state.steps == 5
    state.reset()
    torch.testing.assert_close(decoder.decode(z, state), streamed, atol=1e-5, rtol=0)


def test_latents_of_another_kind(decoder: TinyDecoder) -> None:
    with pytest.raises(ShapeError, match=r"expected latents \(b, t, 16, h, w\)"):
        decoder.decode(torch.zeros(1, 1, 4, 4, 6))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda w: w.pop("decoder.1.weight"), "not a TAEHV decoder"),
        (lambda w: w.update({"decoder.7.conv.weight": torch.zeros(32, 16, 1, 1)}), "not for Wan 2.1's latents"),
        (lambda w: w.update({"decoder.1.weight": torch.zeros(16, 48, 3, 3)}), "48 channels"),
        (lambda w: w.update({"decoder.1.bias": torch.zeros(3)}), r"1 misshaped \(decoder.1.bias \[3\], not \[16\]\)"),
        (lambda w: w.update(extra=torch.zeros(3)), r"1 unknown \(extra\)"),
    ],
)
def test_other_files_are_refused(change, says: str, tmp_path: Path) -> None:
    weights = make_taehv()
    change(weights)
    torch.save(weights, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=says):
        read(tmp_path / "x.pth")
