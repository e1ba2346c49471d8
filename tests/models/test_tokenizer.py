"""The video tokenizer: geometry, ranges, the laws of streams, and refusals."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from reverie.errors import ShapeError
from reverie.models.tokenizer import VideoTokenizer, nano, tiny

H, W, STEPS = 32, 48, 5
CHUNKINGS = [(5,), (1,) * 5, (2, 3), (1, 4), (3, 1, 1)]


@pytest.fixture(scope="module")
def tokenizer() -> VideoTokenizer:
    """Small, with every weight awake: fresh ones end in zeros and would hide mistakes."""
    torch.manual_seed(0)
    model = VideoTokenizer(tiny()).requires_grad_(False).eval()
    for part in (model.encoder, model.decoder):
        torch.nn.init.normal_(part.leave.weight, std=0.1)
    model.latent_mean.normal_(std=0.1)
    model.latent_std.fill_(1.5)
    return model


@pytest.fixture(scope="module")
def video() -> Tensor:
    return torch.rand(2, 4 * STEPS - 3, 3, H, W, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture(scope="module")
def z(tokenizer: VideoTokenizer, video: Tensor) -> Tensor:
    return tokenizer.encode(video)


def video_chunks(video: Tensor, sizes: tuple[int, ...]) -> list[Tensor]:
    frames = [4 * size for size in sizes]
    return list(video.split([frames[0] - 3, *frames[1:]], 1))


def test_geometry_is_wan_2_1s(tokenizer: VideoTokenizer, video: Tensor, z: Tensor) -> None:
    assert z.shape == (2, STEPS, 16, H // 8, W // 8)
    assert tokenizer.decode(z).shape == video.shape
    assert tokenizer.encode(video[:, :1]).shape == (2, 1, 16, H // 8, W // 8)
    assert tokenizer.decode(z[:, :1]).shape == (2, 1, 3, H, W)


@pytest.mark.parametrize("sizes", CHUNKINGS)
def test_streamed_encoding_is_whole(
    tokenizer: VideoTokenizer, video: Tensor, z: Tensor, sizes: tuple[int, ...]
) -> None:
    state = tokenizer.new_encoder_state(2, H, W)
    parts = [tokenizer.encode(part, state) for part in video_chunks(video, sizes)]
    torch.testing.assert_close(torch.cat(parts, 1), z, rtol=1e-4, atol=1e-4)
    assert state.steps == STEPS


@pytest.mark.parametrize("sizes", CHUNKINGS)
def test_streamed_decoding_is_whole(tokenizer: VideoTokenizer, z: Tensor, sizes: tuple[int, ...]) -> None:
    state = tokenizer.new_decoder_state(2, H, W)
    parts = [tokenizer.decode(part, state) for part in z.split(list(sizes), 1)]
    torch.testing.assert_close(torch.cat(parts, 1), tokenizer.decode(z), rtol=1e-4, atol=1e-4)


def test_the_future_never_alters_the_past(tokenizer: VideoTokenizer, video: Tensor, z: Tensor) -> None:
    changed = video.clone()
    changed[:, 9:] *= -1
    assert torch.equal(tokenizer.encode(changed)[:, :3], z[:, :3])
    other = z.clone()
    other[:, 3:] += 1
    assert torch.equal(tokenizer.decode(other)[:, :9], tokenizer.decode(z)[:, :9])


def test_the_past_matters(tokenizer: VideoTokenizer, video: Tensor, z: Tensor) -> None:
    changed = video.clone()
    changed[:, :9] *= -1
    assert not torch.allclose(tokenizer.encode(changed)[:, 3], z[:, 3])
    other = z.clone()
    other[:, 2] += 1
    assert not torch.allclose(tokenizer.decode(other)[:, 9:], tokenizer.decode(z)[:, 9:])


def test_restored_is_replayed_bit_for_bit(tokenizer: VideoTokenizer, video: Tensor, z: Tensor) -> None:
    encoder, decoder = tokenizer.new_encoder_state(2, H, W), tokenizer.new_decoder_state(2, H, W)
    tokenizer.encode(video[:, :5], encoder)
    tokenizer.decode(z[:, :2], decoder)
    saved = encoder.clone(), decoder.clone()
    once = tokenizer.encode(video[:, 5:], encoder), tokenizer.decode(z[:, 2:], decoder)
    encoder.copy_(saved[0])
    decoder.copy_(saved[1])
    assert (encoder.steps, decoder.steps) == (2, 2)
    assert torch.equal(tokenizer.encode(video[:, 5:], encoder), once[0])
    assert torch.equal(tokenizer.decode(z[:, 2:], decoder), once[1])


def test_a_clone_leaves_its_parent_alone(tokenizer: VideoTokenizer, z: Tensor) -> None:
    state = tokenizer.new_decoder_state(2, H, W)
    tokenizer.decode(z[:, :2], state)
    before = [carry.clone() for carry in state.carries]
    tokenizer.decode(z[:, 2:], state.clone())
    assert state.steps == 2
    assert all(torch.equal(mine, old) for mine, old in zip(state.carries, before, strict=True))


def test_reset_is_fresh(tokenizer: VideoTokenizer, video: Tensor, z: Tensor) -> None:
    encoder, decoder = tokenizer.new_encoder_state(2, H, W), tokenizer.new_decoder_state(2, H, W)
    first = tokenizer.encode(video, encoder), tokenizer.decode(z, decoder)
    encoder.reset()
    decoder.reset()
    assert torch.equal(tokenizer.encode(video, encoder), first[0])
    assert torch.equal(tokenizer.decode(z, decoder), first[1])


def test_rows_are_independent(tokenizer: VideoTokenizer, video: Tensor, z: Tensor) -> None:
    changed = video.clone()
    changed[1] *= -1
    assert torch.equal(tokenizer.encode(changed)[0], z[0])
    other = z.clone()
    other[1] += 1
    assert torch.equal(tokenizer.decode(other)[0], tokenizer.decode(z)[0])


def test_memory_is_flat(tokenizer: VideoTokenizer, z: Tensor) -> None:
    state = tokenizer.new_decoder_state(2, H, W)
    places = [carry.data_ptr() for carry in state.carries]
    for _ in range(3):
        tokenizer.decode(z[:, :1], state)
    assert [carry.data_ptr() for carry in state.carries] == places


def test_nano_is_within_its_budget() -> None:
    """Multiply-adds count two; 3 GFLOP to encode four frames at 128x224 and 7.5 to decode them."""
    from torch.utils.flop_counter import FlopCounterMode

    model = VideoTokenizer(nano()).requires_grad_(False)
    encoder, decoder = model.new_encoder_state(1, 128, 224), model.new_decoder_state(1, 128, 224)
    encoder.steps = decoder.steps = 1
    with FlopCounterMode(display=False) as counter:
        z = model.encode(torch.zeros(1, 4, 3, 128, 224), encoder)
    assert counter.get_total_flops() <= 3.0e9
    with FlopCounterMode(display=False) as counter:
        model.decode(z, decoder)
    assert counter.get_total_flops() <= 7.5e9


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 5, 3, 24, 48), "multiples of 16, got 24x48"),
        ((1, 5, 4, 32, 48), r"\(b, f, 3, H, W\)"),
        ((5, 3, 32, 48), r"\(b, f, 3, H, W\)"),
        ((1, 4, 3, 32, 48), r"1 \+ 4n frames at the start"),
        ((1, 0, 3, 32, 48), r"1 \+ 4n frames at the start"),
    ],
)
def test_odd_videos_are_refused(tokenizer: VideoTokenizer, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        tokenizer.encode(torch.zeros(shape))


def test_odd_frames_within_a_stream_are_refused(tokenizer: VideoTokenizer, video: Tensor) -> None:
    state = tokenizer.new_encoder_state(2, H, W)
    tokenizer.encode(video[:, :1], state)
    with pytest.raises(ShapeError, match="4n frames within a stream, got 3"):
        tokenizer.encode(video[:, 1:4], state)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((1, 1, 8, 4, 6), r"\(b, t, 16, h, w\)"), ((1, 0, 16, 4, 6), "t >= 1"), ((1, 1, 16, 3, 6), "multiples of 16")],
)
def test_odd_latents_are_refused(tokenizer: VideoTokenizer, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        tokenizer.decode(torch.zeros(shape))


def test_a_state_of_another_size_is_refused(tokenizer: VideoTokenizer, video: Tensor, z: Tensor) -> None:
    with pytest.raises(ShapeError, match="make a new state"):
        tokenizer.encode(video, tokenizer.new_encoder_state(2, H, W + 16))
    with pytest.raises(ShapeError, match="make a new state"):
        tokenizer.decode(z, tokenizer.new_decoder_state(1, H, W))
    with pytest.raises(ShapeError, match="multiples of 16, got 40x48"):
        tokenizer.new_decoder_state(1, 40, 48)


def test_odd_widths_are_refused() -> None:
    with pytest.raises(ShapeError, match="multiples of 4"):
        replace(tiny(), decoder_fine=6)
    with pytest.raises(ShapeError, match="fewer than 0 blocks"):
        replace(tiny(), encoder_blocks=(1, -1))
