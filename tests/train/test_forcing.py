"""Teacher forcing is what a session does, for every block of a clip at once."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tests.helpers.latent_clips import PRESET, clips
from tests.helpers.naive_matrix_game import make_config
from torch import Tensor

from reverie import sampling
from reverie.errors import TrainError
from reverie.models import presets
from reverie.models.actions import WINDOW_FRAMES
from reverie.models.adapters import matrix_game
from reverie.models.checkpoint import ModelBundle
from reverie.models.conditioning.next_condition import next_condition
from reverie.models.config import WorldModelConfig
from reverie.models.dit import WorldModel
from reverie.models.state import Condition, ConditionChannels
from reverie.nn.attention import Visibility
from reverie.sampling import Schedule
from reverie.train.forcing import Guided, Past, check_clip_steps, clean_estimates, given_steps, start_channels

CLEAN = Schedule((1.0, 0.5), renoise=True)


def published(window: int, mouse: bool = True) -> WorldModelConfig:
    raw = make_config(dim=32, ffn=48, layers=3, window=window, blocks=(0, 1), mouse=mouse, keys=4 if mouse else 7)
    return matrix_game.read_config(raw, (16, 4, 8), image_tokens=5, image_dim=32)


def own(**changes: object) -> WorldModelConfig:
    return dataclasses.replace(presets.tiny().world, window=3, **changes)  # type: ignore[arg-type]


CASES = {
    "matrix-game": (published(6), 15),
    "matrix-game, the window ends within a block": (published(4), 12),
    "matrix-game, keys alone": (published(6, mouse=False), 12),
    "matrix-game, one block": (published(6), 3),
    "a start of its own, steps one by one": (dataclasses.replace(published(4), block=1), 6),
    "tiny": (own(), 6),
    "tiny with its start kept": (own(sink=1), 6),
}


def random_model(config: WorldModelConfig) -> WorldModel:
    """Nothing of it is silent: fresh models have zero heads and zero timestep projections."""
    torch.manual_seed(0)
    world = WorldModel(config)
    with torch.no_grad():
        for parameter in world.parameters():
            parameter.copy_(torch.randn(parameter.shape) / max(1, parameter.shape[-1]) ** 0.5)
    return world.eval().requires_grad_(False)


def by_session(
    world: WorldModel, z: Tensor, noisy: Tensor, sigma: Tensor, rows: Tensor, image: Tensor, extra: Tensor | None
) -> Tensor:
    """The clean estimate of each block, after the clean blocks before it were committed as a session commits them."""
    config, given = world.config, given_steps(world.config)
    state, found = world.new_state(len(z)), []
    sampling.begin(world, z[:, :1], image, CLEAN, state, torch.Generator())
    for i in range(given, z.shape[1], config.block):
        mine = slice(i, i + config.block)
        # The actions of the block's own frames; the first block of a model that makes its start has fewer.
        block = rows[:, max(0, 4 * i - 4) :][:, : config.block_rows(state.step)]
        parts = None if extra is None else ConditionChannels(extra[:, mine])
        cond = next_condition(world, block, state, parts)
        place = slice(i - given, i - given + config.block)
        out = world(noisy[:, place], sigma[:, place], cond, state)
        found.append(sampling.clean_estimate(config, noisy[:, place], out, sigma[:, place]))

        def recorded(*_: object, place: slice = mine, cond: object = cond) -> Tensor:
            sampling.commit(world, z[:, place], cond, CLEAN, state, None)  # type: ignore[arg-type]
            return z[:, place]

        sampling.advance(world, block, CLEAN, state, torch.Generator(), parts, run=recorded)
    return torch.cat(found, 1)


@pytest.mark.parametrize("case", CASES)
def test_every_block_is_what_a_session_makes_of_it(case: str) -> None:
    config, t = CASES[case]
    world, given, copies, b = random_model(config), given_steps(config), 2, 2
    z = torch.randn(b, t, *config.latent)
    rows = torch.randn(b, 4 * (t - 1), config.action_space.size)
    rows[..., : len(config.action_space.keys)] = (rows[..., : len(config.action_space.keys)] > 0).float()
    image = torch.randn(b, config.image.tokens, config.image.dim)
    extra = start_channels(torch.randn(b, t, *config.latent), config.cond_channels) if config.generates_start else None
    noisy = torch.randn(b, copies * (t - given), *config.latent)
    past = Past(z, z, torch.zeros(b, t))
    sigma = torch.rand(b, copies * (t - given) // config.block).clamp(min=0.1).repeat_interleave(config.block, 1)
    forced = clean_estimates(world, past, noisy, sigma, rows, image, extra=extra)
    ones = zip(noisy.chunk(copies, 1), sigma.chunk(copies, 1), strict=True)
    expected = torch.cat([by_session(world, z, x, s, rows, image, extra) for x, s in ones], 1)
    torch.testing.assert_close(forced, expected, rtol=5e-4, atol=5e-4)
    assert forced.std() > 0.1


def test_clips_are_whole_blocks() -> None:
    check_clip_steps(published(6), 15)
    check_clip_steps(own(), 5)
    with pytest.raises(TrainError, match=r"blocks of 3 steps, so a clip has 3, 6, 9, 12, 15, ... steps; got 8"):
        check_clip_steps(published(6), 8)
    with pytest.raises(TrainError, match="blocks of 3 steps after the first step, so a clip has 4, 7"):
        check_clip_steps(dataclasses.replace(published(6), conditioning="previous_latent"), 6)


@pytest.mark.parametrize("layers", [2, 3])
def test_what_nobody_asks_of_the_context_changes_nothing(layers: int) -> None:
    """Outputs and gradients, with a last block that has action modules and with one that has none."""
    world = presets.tiny_memory().world
    assert world.actions.keyboard is not None
    keyboard = dataclasses.replace(world.actions.keyboard, blocks=(0, 1))
    actions = dataclasses.replace(world.actions, keyboard=keyboard)
    config, t, b = dataclasses.replace(world, layers=layers, actions=actions, window=3), 5, 2
    model = random_model(config).requires_grad_(True)
    assert model._blocks()[-1].attends_once == (layers == 3)
    assert model.refine is not None
    clean, visibility = t - 1, Visibility.teacher_forced(t, 3, copies=2)
    steps = len(visibility)
    shape = (b, steps, *config.latent)
    channels = torch.randn(b, steps, config.cond_channels, *config.latent[1:])
    actions = torch.rand(b, steps, WINDOW_FRAMES, config.action_space.size)
    image = torch.randn(b, config.image.tokens, config.image.dim)
    cond = Condition(channels, actions, torch.arange(steps), torch.randn(shape), image)
    x, sigma, goal = torch.randn(shape), torch.rand(b, steps), torch.randn(b, steps - clean, *config.latent)
    found = []
    for first in (0, clean):
        out = model(x, sigma, cond, visibility=visibility, first=first)[:, clean - first :]
        model.zero_grad()
        (out * goal).mean().backward()
        found.append([out.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    assert len(found[0]) == len(found[1])
    for whole, part in zip(*found, strict=True):
        torch.testing.assert_close(part, whole, rtol=1e-5, atol=1e-5 * float(whole.abs().max()))
    assert found[0][0].std() > 0.01


def test_guidance_moves_away_from_what_knows_no_actions(teacher: ModelBundle) -> None:
    z, rows, picture, _ = clips().spread(2, 5)
    image = teacher.image_encoder(picture.float() / 127.5 - 1)
    sigma = torch.ones(2, 4)
    given = (Past(z, z, torch.zeros(2, 5)), torch.randn(2, 4, *PRESET.world.latent), sigma)
    plain, hidden, strong = (Guided(teacher.model, s)(*given, rows, image) for s in (1.0, 0.0, 2.0))
    assert torch.equal(plain, clean_estimates(teacher.model, *given, rows, image))
    torch.testing.assert_close(strong, 2 * plain - hidden, atol=1e-4, rtol=1e-4)
    assert (plain - hidden).abs().max() > 1e-3
