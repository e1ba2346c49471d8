"""The bundled model's networks in bfloat16, on this processor, against float32."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from reverie.engine.loading.models import WEIGHTS
from reverie.models.checkpoint import ModelBundle, load_model
from reverie.models.conditioning.next_condition import next_condition
from reverie.models.state import ConditionChannels
from reverie.vision.projection import VIEW_SIZE

LIMIT = 0.03


@pytest.fixture(scope="module")
def nanos() -> tuple[ModelBundle, ModelBundle]:
    return load_model(WEIGHTS / "nano"), load_model(WEIGHTS / "nano", dtype=torch.bfloat16)


def outputs(bundle: ModelBundle, dtype: torch.dtype) -> dict[str, Tensor]:
    """What every network of a bundle makes of the same inputs."""
    torch.manual_seed(0)
    config, memory, model = bundle.config, bundle.memory, bundle.model
    assert memory is not None
    world = config.world
    z = torch.randn(1, 3, *world.latent).to(dtype)
    pixels = (torch.rand(1, 5, 3, *config.resolution) * 2 - 1).to(dtype)
    half = torch.rand(1, 4, 3, *VIEW_SIZE) * 2 - 1
    log_depth, body = memory.depth(half[:, 0].to(dtype))
    actions = torch.zeros(1, 4, world.action_space.size)
    channels = torch.randn(1, 1, world.cond_channels, *world.latent[1:]).to(dtype)
    state = model.new_state(1, "cpu", dtype)
    parts = ConditionChannels(channels, z[:, :1])
    condition = next_condition(model, actions, state, parts)
    rows = torch.zeros(1, 28, world.action_space.size), torch.randn(1, 24, 6) * 0.1
    motion = memory.ego_motion(*(x.to(dtype) for x in (*rows, torch.zeros(1, 2), torch.randn(1, 8, 14))))
    return {
        "decoder": bundle.tokenizer.decode(z),
        "encoder": bundle.tokenizer.encode(pixels),
        "image encoder": bundle.image_encoder(pixels[:, 0]),
        "depth": log_depth,
        "body": body,
        "view encoder": memory.view_encoder(half),
        "ego-motion": motion,
        "transformer": model(z[:, 1:2], torch.full((1, 1), 0.7), condition, state),
    }


def test_every_network_says_the_same_in_bfloat16(nanos: tuple[ModelBundle, ModelBundle]) -> None:
    """On processors with AMX one convolution did not, and nano was grey stripes there."""
    with torch.inference_mode():
        exact, rounded = outputs(nanos[0], torch.float32), outputs(nanos[1], torch.bfloat16)
    off = {name: float((rounded[name].float() - x).norm() / x.norm()) for name, x in exact.items()}
    assert not {name: value for name, value in off.items() if not value < LIMIT}, off
    assert max(off.values()) > 1e-4, "they are computed in another precision"
