"""Which kernels and number types a CPU is fast in: the choices behind nano's speed.

    python bench/kernels.py

Processor time of one thread, so the figures hold on a busy machine too.  Prints a table, then one line of JSON.
Shapes are nano's: 112 tokens of width 256 (4 heads of 64) over 560 keys; its decoder's two widest convolutions.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table

from reverie.hardware import cpu_name

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def best_ms(work: Callable[[], object], tries: int = 15) -> float:
    """Least processor time of `tries` runs, after two that do not count."""
    best = math.inf
    for i in range(tries + 2):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start) if i > 1 else best
    return best * 1000


def measure(dtype: torch.dtype) -> dict[str, float]:
    """Milliseconds of each kernel in `dtype`."""

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape).to(dtype)

    def picture(*shape: int) -> torch.Tensor:
        return random(*shape).contiguous(memory_format=torch.channels_last)

    tokens, up, down = random(112, 256), random(1024, 256), random(256, 1024)
    q, k, v = random(1, 4, 112, 64), random(1, 4, 560, 64), random(1, 4, 560, 64)
    middle, middle_weight = picture(1, 240, 32, 56), picture(192, 240, 3, 3)
    fine, fine_weight = picture(4, 48, 64, 112), picture(32, 48, 3, 3)
    return {
        "feed-forward": best_ms(lambda: F.linear(F.gelu(F.linear(tokens, up), approximate="tanh"), down)),
        "attention, explicit": best_ms(lambda: ((q * 0.125) @ k.transpose(-1, -2)).softmax(-1) @ v),
        "attention, fused": best_ms(lambda: F.scaled_dot_product_attention(q, k, v)),
        "convolution 4x4 px": best_ms(lambda: F.conv2d(middle, middle_weight, padding=1)),
        "convolution 2x2 px": best_ms(lambda: F.conv2d(fine, fine_weight, padding=1)),
    }


def main() -> None:
    torch.set_num_threads(1)
    with torch.inference_mode():
        results = {str(dtype).removeprefix("torch."): measure(dtype) for dtype in DTYPES}
    table = Table("ms, one thread", *results, title=cpu_name())
    for kernel in next(iter(results.values())):
        table.add_row(kernel, *(f"{figures[kernel]:.2f}" for figures in results.values()))
    Console().print(table)
    figures = {dtype: {name: round(ms, 3) for name, ms in kernels.items()} for dtype, kernels in results.items()}
    print(json.dumps({"machine": cpu_name(), "torch": torch.__version__, "ms": figures}))


if __name__ == "__main__":
    main()
