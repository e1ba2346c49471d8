"""The laws of streams, for both causal convolutions."""

import pytest
import torch
from torch import Tensor, nn

from reverie.errors import ShapeError
from reverie.nn.conv import CausalConv3d, ChannelNorm, TemporalConv2d

CHUNKINGS = [(6,), (1,) * 6, (1, 5), (2, 2, 2), (4, 1, 1), (3, 3)]
CPU = torch.device("cpu")


class Stream:
    """One interface over both layouts: `b t c h w` in and out."""

    def __init__(self, layer: TemporalConv2d | CausalConv3d) -> None:
        self.layer = layer
        self.time = 2 if isinstance(layer, CausalConv3d) else 1

    def __call__(self, x: Tensor, carry: Tensor | None = None) -> Tensor:
        if self.time == 1:
            return self.layer(x, carry)
        return self.layer(x.transpose(1, 2), carry).transpose(1, 2)

    def carry(self, batch: int = 2) -> Tensor:
        return self.layer.new_carry(batch, 4, 6, CPU, torch.float32)

    def chunks(self, x: Tensor, sizes: tuple[int, ...], carry: Tensor) -> Tensor:
        return torch.cat([self(part, carry) for part in x.split(list(sizes), 1)], 1)


@pytest.fixture(params=["past all", "past some", "past none", "3d", "3d still"])
def stream(request: pytest.FixtureRequest) -> Stream:
    torch.manual_seed(0)
    layers: dict[str, TemporalConv2d | CausalConv3d] = {
        "past all": TemporalConv2d(5, 7),
        "past some": TemporalConv2d(5, 7, past=2),
        "past none": TemporalConv2d(5, 7, kernel=1, past=0),
        "3d": CausalConv3d(5, 7),
        "3d still": CausalConv3d(5, 7, (1, 3, 3)),
    }
    return Stream(layers[request.param].requires_grad_(False))


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 6, 5, 4, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("sizes", CHUNKINGS)
def test_streamed_is_whole(stream: Stream, x: Tensor, sizes: tuple[int, ...]) -> None:
    torch.testing.assert_close(stream.chunks(x, sizes, stream.carry()), stream(x), rtol=1e-5, atol=1e-6)


def test_the_future_never_alters_the_past(stream: Stream, x: Tensor) -> None:
    changed = x.clone()
    changed[:, 4:] += 1
    assert torch.equal(stream(changed)[:, :4], stream(x)[:, :4])


def test_restored_is_replayed_bit_for_bit(stream: Stream, x: Tensor) -> None:
    carry = stream.carry()
    stream(x[:, :3], carry)
    saved = carry.clone()
    once = stream(x[:, 3:], carry)
    carry.copy_(saved)
    assert torch.equal(stream(x[:, 3:], carry), once)


def test_zeroed_is_fresh(stream: Stream, x: Tensor) -> None:
    carry = stream.carry()
    stream(x, carry)
    carry.zero_()
    assert torch.equal(stream(x, carry), stream(x, stream.carry()))


def test_rows_are_independent(stream: Stream, x: Tensor) -> None:
    changed = x.clone()
    changed[1] += 1
    assert torch.equal(stream(changed)[0], stream(x)[0])


def test_a_carry_of_another_size_is_refused(stream: Stream, x: Tensor) -> None:
    with pytest.raises(ShapeError, match="make a new state"):
        stream(x, stream.carry(batch=3))


def test_kernels_must_be_odd_and_the_past_within_the_channels() -> None:
    with pytest.raises(ShapeError, match="odd kernel"):
        TemporalConv2d(4, 4, kernel=2)
    with pytest.raises(ShapeError, match=r"0\.\.4"):
        TemporalConv2d(4, 4, past=5)


def test_channel_norm_is_layer_norm_of_every_cell() -> None:
    x = torch.randn(2, 3, 8, 4, 5)
    expected = nn.LayerNorm(8)(x.movedim(2, -1)).movedim(-1, 2)
    torch.testing.assert_close(ChannelNorm(8)(x), expected)
