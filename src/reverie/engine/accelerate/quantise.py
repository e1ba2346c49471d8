"""Smaller weights for the transformer, each kind behind a measured gate.

    int8    8-bit weights, one scale for each output; activations as they were.  Half the memory; any device
    int4    4-bit weights in groups of 128; a quarter.  NVIDIA GPUs with the package `mslk`
    fp8     8-bit floating weights and activations: half the memory, and matrix products at twice the rate.  NVIDIA GPUs
            of compute capability 8.9 (Ada, Hopper) and later

Only the large linear layers of the blocks are changed; what tells the model of time, actions' first layers, the ends
and all norms stay.  The gate: before and after, the network is asked for the velocity of the same noise; the relative
difference must stay under the kind's limit, or the weights are refused.  The limits come from the bundled nano, where
bfloat16 itself makes 1.5 %, int8 1.0 %, fp8 3.5 %, and int4 12.5 %, which shows (docs/LOG.md).  Arithmetic by torchao.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from reverie import sampling
from reverie.errors import DeviceError
from reverie.models.conditioning.next_condition import start_condition
from reverie.models.dit import WorldModel

MIN_WIDTH = 128
"""Layers with fewer inputs or outputs stay: they are small, and some kernels need multiples of it."""
FP8_CAPABILITY = (8, 9)
PROBE_SIGMA = 0.75


@dataclass(frozen=True, slots=True)
class Kind:
    """config: torchao's, by name, made when needed; bits: of a weight; limit: the gate, a relative error."""

    config: Callable[[Any], Any]
    bits: int
    limit: float


KINDS = {
    "int8": Kind(lambda ao: ao.Int8WeightOnlyConfig(set_inductor_config=False), 8, 0.03),
    "int4": Kind(lambda ao: ao.Int4WeightOnlyConfig(group_size=128, set_inductor_config=False), 4, 0.10),
    "fp8": Kind(
        lambda ao: ao.Float8DynamicActivationFloat8WeightConfig(granularity=ao.PerRow(), set_inductor_config=False),
        8,
        0.06,
    ),
}
"""set_inductor_config would turn a search for faster kernels on for all that this process compiles afterwards: minutes,
and nothing of what is kept on the disk would fit."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Result of quantising a model: layers, bytes before and after, and the relative error of the velocity that the
    gate measured.

    gated: whether that error had to stay under the kind's limit.
    """

    kind: str
    layers: int
    bytes_before: int
    bytes_after: int
    error: float
    gated: bool = True

    def __str__(self) -> str:
        before, after = (b / 2**20 for b in (self.bytes_before, self.bytes_after))
        limit = f"limit {KINDS[self.kind].limit:.0%}" if self.gated else "no limit for weights that were made up"
        return (
            f"{self.kind} weights: {self.layers} layers, {before:,.0f} -> {after:,.0f} MiB; the velocity changes by "
            f"{self.error:.2%} ({limit})"
        )


def is_quantisable(name: str, module: nn.Module) -> bool:
    """Returns whether a layer of a `WorldModel` gets quantised weights."""
    if not isinstance(module, nn.Linear) or not name.startswith("blocks."):
        return False
    widths = (module.in_features, module.out_features)
    return min(widths) >= MIN_WIDTH and not any(width % 16 for width in widths)


def num_quantisable(model: WorldModel) -> int:
    """Numbers in the weights that would get smaller."""
    return sum(
        module.weight.numel()  # type: ignore[union-attr,operator]
        for name, module in model.named_modules()
        if is_quantisable(name, module)
    )


def check(kind: str, device: torch.device) -> Any:
    """torchao's config of `kind`.  Raises DeviceError for an unknown kind, and for what this machine cannot do."""
    if kind not in KINDS:
        raise DeviceError(f"there are no {kind} weights; expected full, {', '.join(KINDS)}")
    if kind == "fp8" and (device.type != "cuda" or torch.cuda.get_device_capability(device) < FP8_CAPABILITY):
        raise DeviceError("fp8 needs an NVIDIA GPU of compute capability 8.9 or later (Ada, Hopper); use int8")
    if kind == "int4" and device.type != "cuda":
        raise DeviceError("int4 needs an NVIDIA GPU; use int8")
    try:
        return KINDS[kind].config(_torchao())
    except ImportError as error:
        raise DeviceError(f"{kind} weights need a package that is not there: {error}") from error


@torch.inference_mode()
def quantise(model: WorldModel, kind: str, device: torch.device, dtype: torch.dtype, *, gated: bool = True) -> Quality:
    """Gives a transformer on `device`, which computes in `dtype`, smaller weights, in place.

    gated: False for random weights, whose errors add up over the blocks as those of trained ones do not (7.8 % for fp8
    where the trained nano has 1.2 %): the error is then measured and nothing is refused.

    Raises DeviceError where the machine cannot do it, or where the weights do not pass the gate: the model is then not
    to be used further.
    """
    config = check(kind, device)
    before, bytes_before = probe(model, device, dtype), _num_bytes(model)
    _torchao().quantize_(model, config, filter_fn=lambda module, name: is_quantisable(name, module))
    after = probe(model, device, dtype)
    layers = sum(is_quantisable(name, module) for name, module in model.named_modules())
    quality = Quality(kind, layers, bytes_before, _num_bytes(model), relative_error(after, before), gated)
    if gated and not quality.error <= KINDS[kind].limit:
        raise DeviceError(f"refused: {quality}; load the model without --weights {kind}")
    return quality


def probe(model: WorldModel, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The output for one step of fixed noise after nothing, under fixed actions and tokens."""
    config, generator = model.config, torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    state = model.new_state(1, device, dtype)
    sampling.show(model, draw(1, config.image.tokens, config.image.dim), state)
    cond = start_condition(model, state)
    cond.channels.copy_(draw(*cond.channels.shape))
    cond.actions.copy_((draw(*cond.actions.shape) > 0).to(cond.actions))
    return model(draw(1, 1, *config.latent), torch.full((1, 1), PROBE_SIGMA, device=device), cond, state)


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """The norm of the difference over the norm of what is wanted."""
    return float((found.float() - wanted.float()).norm() / wanted.float().norm())


def _num_bytes(model: nn.Module) -> int:
    """Counts the bytes of a model's weights; torchao's tensors count as they are stored."""
    total = 0
    for weight in model.parameters():
        parts = [getattr(weight, name) for name in getattr(weight, "tensor_data_names", ())] or [weight]
        total += sum(part.numel() * part.element_size() for part in parts)
    return total


def _torchao() -> Any:
    """torchao.quantization; it complains at import about kernels for cards that are not there."""
    logging.getLogger("torchao").setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torchao.quantization as ao
    except ImportError:
        raise DeviceError('smaller weights need torchao; pip install "reverie-world[quantise]"') from None
    return ao
