import torch
import torch.nn.functional as F

from reverie.nn.norm import EPS, RMSNorm, rms_norm


def test_rms_norm() -> None:
    norm = RMSNorm(6, offset=True)
    x = 5 * torch.randn(3, 6)
    torch.testing.assert_close(norm(x).square().mean(-1), torch.ones(3))
    assert norm.bias is not None
    torch.nn.init.constant_(norm.bias, 2.0)
    torch.testing.assert_close(norm(x), F.rms_norm(x, (6,)) + 2)


def test_rms_norm_and_its_gradients_equal_torchs() -> None:
    x, weight = torch.randn(5, 4, 8, dtype=torch.double, requires_grad=True), torch.rand(8, dtype=torch.double)
    x_part = x[..., 2:]  # as queries and keys are, parts of one tensor
    out, expected = rms_norm(x_part, weight[2:]), F.rms_norm(x_part, (6,), weight[2:], EPS)
    torch.testing.assert_close(out, expected)
    along = torch.randn_like(out)
    torch.testing.assert_close(*(torch.autograd.grad((y * along).sum(), x)[0] for y in (out, expected)))


def test_rms_norm_in_bfloat16_rounds_once() -> None:
    x = (5 * torch.randn(64, 32)).bfloat16().requires_grad_()
    assert torch.equal(rms_norm(x), F.rms_norm(x, (32,), None, EPS))
