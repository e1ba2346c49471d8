"""Operations: what the config says is what torch counts, and what a hand counts."""

from __future__ import annotations

import pytest
import torch
from tests.helpers.naive_matrix_game import make_config
from torch.utils.flop_counter import FlopCounterMode

from reverie.engine.loading import flops
from reverie.engine.loading.random_weights import matrix_game_2
from reverie.models.adapters import matrix_game
from reverie.models.clip_vision import ClipVision, ClipVisionConfig
from reverie.models.conditioning.next_condition import next_condition
from reverie.models.config import WorldModelConfig
from reverie.models.dit import WorldModel
from reverie.models.state import ConditionChannels
from reverie.models.tiny_decoder import TinyDecoder, TinyDecoderConfig
from reverie.models.wan_vae import WanVAE, WanVAEConfig

VAE = WanVAEConfig(dim=8)


def counted(run) -> int:
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def world(**sizes) -> WorldModelConfig:
    return matrix_game.read_config(make_config(**sizes), (16, 4, 6), image_tokens=5, image_dim=8)


@pytest.mark.parametrize(
    "sizes", [{"layers": 3, "blocks": (0, 2), "window": 4}, {"keys": 7, "mouse": False}, {"window": 3, "dim": 32}]
)
def test_a_pass_of_the_transformer(sizes) -> None:
    config = world(**sizes)
    torch.manual_seed(0)
    model, state = WorldModel(config), WorldModel(config).new_state()
    for block in range(3):
        rows = torch.zeros(1, config.block_rows(state.step), config.action_space.size)
        extra = ConditionChannels(torch.zeros(1, 3, 20, 4, 6))
        cond = next_condition(model, rows, state, extra)
        x, sigma = torch.zeros(1, 3, 16, 4, 6), torch.ones(1, 3)
        seen = min(3 * (block + 1), config.window)
        got = counted(lambda x=x, sigma=sigma, cond=cond: model(x, sigma, cond, state, commit=True))
        assert flops.dit_pass(config, 3, seen, 4).operations == got
        state.step += 3


def test_a_hand_count() -> None:
    """1.8B at 352x640: the matrices of a block's 2,640 tokens, and attention over 5,280."""
    config = matrix_game_2().world
    d, ffn, tokens = 1536, 8960, 2640
    layers = 30 * tokens * (4 * d * d + 2 * d * ffn + 2 * 5280 * d)
    image = 30 * tokens * (2 * d * d + 2 * 257 * d)
    mouse = 15 * tokens * (1560 * 1024 + 1024 * 1024 + 3 * 1024 * 1024 + 1024 * d + 2 * 6 * 1024)
    keyboard = 15 * tokens * (2 * d * 1024 + 2 * 6 * 1024)
    by_hand = 2 * (layers + image + mouse + keyboard)
    assert flops.dit_pass(config, 3, 6, 2).operations == pytest.approx(by_hand, rel=0.005)


def test_the_image_encoder() -> None:
    config = ClipVisionConfig(size=28, width=32, heads=2, layers=3, hidden=64)
    tower = ClipVision(config)
    assert flops.clip(config, 4).operations == counted(lambda: tower.tokens(torch.zeros(1, 3, 28, 28)))


@pytest.mark.parametrize("is_first", [True, False])
def test_the_vae(is_first: bool) -> None:
    vae = WanVAE(VAE)
    encoder, decoder = vae.new_encoder_state(1, 32, 48), vae.new_decoder_state(1, 32, 48)
    encoder.steps = decoder.steps = 0 if is_first else 1
    video = torch.zeros(1, 1 if is_first else 4, 3, 32, 48)
    expected = flops.wan_encode(VAE, 32, 48, 4, is_first=is_first)
    assert expected.operations == counted(lambda: vae.encode(video, encoder))
    expected = flops.wan_decode(VAE, 32, 48, 4, is_first=is_first)
    assert expected.operations == counted(lambda: vae.decode(torch.zeros(1, 1, 16, 4, 6), decoder))


def test_the_tiny_decoder() -> None:
    config = TinyDecoderConfig(widths=(16, 12, 8, 8))
    decoder = TinyDecoder(config)
    state = decoder.new_decoder_state(1, 32, 48)
    got = counted(lambda: decoder.decode(torch.zeros(1, 3, 16, 4, 6), state))
    assert flops.tiny_decode(config, 32, 48, 4, steps=3).operations == got


def test_bytes_are_those_of_weights_and_rings() -> None:
    config = world()
    model = WorldModel(config)
    state = model.new_state()
    rings = sum(cache.k.numel() + cache.v.numel() for cache in state.caches)
    assert flops.ring_numbers(config) == rings
    assert flops.image_numbers(config) == sum(k.numel() + v.numel() for k, v in state.image)
    read = {name: p.numel() for name, p in model.named_parameters()}
    for name in list(read):
        if name.startswith("img_emb") or ".cross_attn.kv." in name or ".cross_attn.norm_k." in name:
            del read[name]
    latents = 3 * 4 * 6 * (16 + 16 + 20)
    whole = sum(read.values()) + rings + flops.image_numbers(config) + latents
    assert flops.dit_pass(config, 3, config.window, 2).num_bytes == 2 * whole
    assert flops.carry_numbers(VAE, 32, 48, "decoder") == sum(
        c.numel() for c in WanVAE(VAE).new_decoder_state(1, 32, 48).carries
    )


def test_the_floor_is_the_slower_of_computing_and_moving() -> None:
    one = flops.Work(operations=2 * 10**9, num_bytes=10**9)
    assert one.floor_ms(gflops=1000, gbytes_per_s=1000) == pytest.approx(2.0)
    assert one.floor_ms(gflops=1000, gbytes_per_s=100) == pytest.approx(10.0)
