"""The published geometry, 1.6 billion parameters, with random weights: what it takes to load it and to dream a block.

Writes 6 GB into pytest's temporary folder and removes them; takes minutes, most of them the block.  Run it with
`pytest -m slow tests/engine/test_engine_full_size.py -s` to see the figures.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.helpers.naive_matrix_game import make_config, make_weights
from tests.helpers.published_folders import CLIP_NAME, VARIANTS
from torch import Tensor, nn

from reverie.models.adapters import clip, wan_vae
from reverie.models.clip_vision import ClipVision, ClipVisionConfig
from reverie.models.wan_vae import WanVAE, WanVAEConfig

pytestmark = pytest.mark.slow

LOAD = """
import json, resource, sys, time
import numpy as np
from reverie.engine.engine import load
from reverie.types import Action

def now():
    return time.perf_counter(), sum(resource.getrusage(resource.RUSAGE_SELF)[:2])

def told(name, start):
    wall, cpu = (b - a for a, b in zip(start, now()))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"stage": name, "wall_s": round(wall, 1), "cpu_s": round(cpu, 1), "peak_mib": round(peak)}

start = now()
engine = load(sys.argv[1], device="cpu", dtype="bfloat16")
stages = [told("load", start)]
start = now()
session = engine.open(np.random.default_rng(0).integers(0, 256, (352, 640, 3), dtype=np.uint8))
stages.append(told("open", start))
start = now()
frames = session.step(Action(frozenset({"forward"})))
stages.append(told("block", start) | {"frames": list(frames.shape), "spread": float(frames.std())})
print(json.dumps(stages))
"""


def random_like(module: Callable[[], nn.Module], names: Callable[[str], tuple[str, ...]]) -> dict[str, Tensor]:
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in module().state_dict().items()}
    return {names(name)[0]: 0.02 * torch.randn(shape) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("full")
    if shutil.disk_usage(folder).free < 10 * 2**30:
        pytest.skip("needs 10 GiB of temporary disk space")
    place, name, _ = VARIANTS["universal"]
    (folder / place).mkdir()
    config = make_config(
        dim=1536,
        ffn=8960,
        heads=12,
        layers=30,
        blocks=tuple(range(15)),
        action_heads=16,
        key_width=1024,
        mouse_width=1024,
        hidden=128,
        freq=256,
        rope=(8, 28, 28),
    )
    (folder / place / "config.json").write_text(json.dumps(config))
    save_file({n: t.bfloat16() for n, t in make_weights(config, 1280).items()}, folder / place / name)
    vae = WanVAEConfig()
    torch.save(random_like(lambda: WanVAE(vae), wan_vae.original_names(vae)), folder / "Wan2.1_VAE.pth")
    tower = random_like(lambda: ClipVision(ClipVisionConfig(layers=32)), clip.names)
    torch.save(tower, folder / CLIP_NAME)
    yield folder
    shutil.rmtree(folder)


def test_it_loads_in_half_precision_under_six_gigabytes_and_finishes_a_block(folder: Path) -> None:
    run = subprocess.run([sys.executable, "-c", LOAD, str(folder)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    stages = {stage["stage"]: stage for stage in json.loads(run.stdout.splitlines()[-1])}
    print(*stages.values(), sep="\n")
    assert stages["load"]["peak_mib"] < 6000
    assert stages["block"]["frames"] == [9, 352, 640, 3]
    assert stages["block"]["spread"] > 0
