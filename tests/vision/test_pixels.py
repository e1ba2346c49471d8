import pytest
import torch
import torch.nn.functional as F

from reverie.vision.pixels import shrink_frames, to_bytes, to_pixels
from reverie.vision.projection import VIEW_SIZE


def test_every_byte_survives_the_networks_range() -> None:
    stored = torch.arange(256, dtype=torch.uint8)
    assert to_pixels(stored).aminmax() == (-1, 1)
    assert torch.equal(to_bytes(to_pixels(stored)), stored)


@pytest.mark.parametrize("leading", [(2,), (2, 3)])
def test_frames_shrink_by_area_bytes_and_pixels_alike(leading: tuple[int, ...]) -> None:
    stored = torch.randint(0, 256, (*leading, 3, 128, 224), dtype=torch.uint8)
    pixels = to_pixels(stored)
    small = shrink_frames(stored)
    assert small.shape == (*leading, 3, *VIEW_SIZE)
    assert torch.equal(small, shrink_frames(pixels))
    torch.testing.assert_close(small.flatten(0, -4), F.avg_pool2d(pixels.flatten(0, -4), 2))
    assert shrink_frames(pixels.bfloat16(), (32, 56)).dtype == torch.bfloat16
