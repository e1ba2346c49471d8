import torch
import torch.nn.functional as F

from reverie.nn.activation import TanhGELU


def test_compiled_gelu_equals_the_tanh_approximation() -> None:
    x = torch.linspace(-8, 8, 1001, requires_grad=True)
    found = []
    for function in (torch.compile(TanhGELU(), backend="aot_eager"), lambda y: F.gelu(y, approximate="tanh")):
        out = function(x)
        found.append((out.detach(), *torch.autograd.grad(out.sum(), x)))
    torch.testing.assert_close(*found, atol=1e-6, rtol=1e-5)
    assert torch.equal(TanhGELU()(x), F.gelu(x, approximate="tanh"))
