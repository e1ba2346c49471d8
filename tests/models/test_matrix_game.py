"""Matrix-Game 2.0's own numbers: same weights, noise and actions must give the same latents."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from reverie import flow
from reverie.models.actions import action_windows
from reverie.models.adapters import matrix_game
from reverie.models.dit import WorldModel
from reverie.models.state import Condition

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
STEPS = {"universal": (1000, 666, 333), "templerun": (1000, 750, 500, 250)}


@pytest.mark.parametrize("variant", ["universal", "templerun"])
def test_a_rollout_equals_the_reference(variant: str) -> None:
    io = load_file(GOLDEN / variant / "io.safetensors")
    noise = io["noise"].transpose(1, 2)
    extra = io["cond_concat"].transpose(1, 2)
    raw = json.loads((GOLDEN / variant / "config.json").read_text())
    n, image_dim = io["visual_context"].shape[1:]
    config = matrix_game.read_config(raw, tuple(noise.shape[2:]), n, image_dim)
    model = WorldModel(config)
    model.load_state_dict(matrix_game.convert_weights(load_file(GOLDEN / variant / "model.safetensors")))
    schedule = matrix_game.schedule(STEPS[variant])
    torch.testing.assert_close(1000 * torch.tensor(schedule.sigmas), io["timesteps"], atol=1e-2, rtol=0)

    rows = torch.cat([io["keyboard"], io["mouse"] / matrix_game.TURN_SCALE], -1)[..., : config.action_space.size]
    windows = action_windows(rows, noise.shape[1], config.before_start)
    state = model.new_state()
    first, blocks = None, []
    with torch.inference_mode():
        for k, v in zip(state.image, model.image_keys_values(io["visual_context"]), strict=True):
            k[0].copy_(v[0])
            k[1].copy_(v[1])
        for block in range(noise.shape[1] // config.block):
            steps = slice(block * config.block, (block + 1) * config.block)
            time = torch.arange(steps.start, steps.stop)
            cond = Condition(extra[:, steps], windows[:, steps], time)
            if first is None:
                first = model(noise[:, steps], torch.ones(1, config.block), cond, state)
            fresh = io["renoise"][block]
            z = flow.denoise(model, noise[:, steps], cond, schedule, state, lambda i, fresh=fresh: fresh[i][None])
            flow.commit(model, z, cond, schedule, state, None)
            blocks.append(z)
    assert first is not None
    assert (first.transpose(1, 2) - io["first_flow"]).abs().max() < 1e-4
    assert (torch.cat(blocks, 1).transpose(1, 2) - io["latents"]).abs().max() < 1e-4
