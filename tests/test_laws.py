"""The laws of DESIGN section 5, over every stateful module, in several chunkings and seeds.

streamed == whole · the future never alters the past · reset == fresh · restore == replay, bit for bit · a copy leaves
its original alone · rows of a batch are independent · the ring's eviction == the windowed mask · memory is flat. Each
subject streams a sequence of steps: the tokenizer's two halves, the transformer, and the session's loop.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from reverie import flow
from reverie.flow import Schedule
from reverie.models import presets, tokenizer
from reverie.models.dit import WorldModel, WorldModelConfig
from reverie.models.state import WorldState
from reverie.models.tokenizer import VideoTokenizer
from reverie.nn.attention import Visibility

STEPS = 9
BATCH = 2
SCHEDULE = Schedule((1.0, 0.5), context_sigma=0.1)


@dataclass
class Subject:
    """A stateful module under test: `steps` inputs of one latent step each.

    run(inputs, state) -> outputs for those inputs, advancing `state`; whole(inputs) -> outputs without a state, or None
    where there is no such thing (sampling).  concat joins inputs along time.
    """

    make_state: Callable[[int], Any]
    inputs: list[Any]
    run: Callable[[list[Any], Any], Tensor]
    whole: Callable[[list[Any]], Tensor] | None
    chunkings: tuple[tuple[int, ...], ...]
    rows: Callable[[Any, slice], Any]
    perturb: Callable[[Any], Any]


def _config(block: int = 1, window: int = 4, sink: int = 0) -> WorldModelConfig:
    return dataclasses.replace(presets.tiny().world, block=block, window=window, sink=sink)


def _model(config: WorldModelConfig, seed: int) -> WorldModel:
    """A model whose every path is awake: nothing at zero."""
    generator = torch.Generator().manual_seed(seed)
    model = WorldModel(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


def _pictures(seed: int, frames: int) -> Tensor:
    return torch.rand(BATCH, frames, 3, 32, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def _codec(seed: int) -> VideoTokenizer:
    generator = torch.Generator().manual_seed(seed)
    codec = VideoTokenizer(tokenizer.tiny()).eval().requires_grad_(False)
    for parameter in codec.parameters():
        parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return codec


def encoder(seed: int) -> Subject:
    codec = _codec(seed)
    video = _pictures(seed, 4 * (STEPS - 1) + 1)
    steps = [video[:, :1], *video[:, 1:].split(4, 1)]

    def run(inputs: list[Tensor], state: Any) -> Tensor:
        return codec.encode(torch.cat(inputs, 1), state)

    return Subject(
        make_state=lambda batch: codec.new_encoder_state(batch, 32, 64),
        inputs=steps,
        run=run,
        whole=lambda inputs: run(inputs, None),
        chunkings=((1,) * STEPS, (2, 3, 4), (STEPS,)),
        rows=lambda x, rows: x[rows],
        perturb=lambda x: -x,
    )


def decoder(seed: int) -> Subject:
    codec = _codec(seed)
    z = torch.randn(BATCH, STEPS, 16, 4, 8, generator=torch.Generator().manual_seed(seed))

    def run(inputs: list[Tensor], state: Any) -> Tensor:
        return codec.decode(torch.cat(inputs, 1), state)

    return Subject(
        make_state=lambda batch: codec.new_decoder_state(batch, 32, 64),
        inputs=list(z.split(1, 1)),
        run=run,
        whole=lambda inputs: run(inputs, None),
        chunkings=((1,) * STEPS, (2, 3, 4), (STEPS,)),
        rows=lambda x, rows: x[rows],
        perturb=lambda x: -x,
    )


@dataclass
class Told:
    """One block of a transformer's stream: noisy steps, noise levels and action rows."""

    x: Tensor
    sigma: Tensor
    rows: Tensor


def transformer(seed: int, block: int = 1, window: int = 4, sink: int = 0) -> Subject:
    """Committed block by block, against the whole clip under the windowed mask."""
    config = _config(block, window, sink)
    model = _model(config, seed)
    generator = torch.Generator().manual_seed(seed)
    steps = STEPS // block * block
    x = torch.randn(BATCH, steps, *config.latent, generator=generator)
    sigma = torch.rand(BATCH, steps, generator=generator)
    rows = torch.randn(BATCH, 4 * (steps - 1), config.action_space.size, generator=generator)
    image = torch.randn(BATCH, config.image_tokens, config.image_dim, generator=generator)
    cond = model.clip_condition(rows, x, image)

    def told(i: int) -> Told:
        return Told(x[:, i : i + block], sigma[:, i : i + block], torch.arange(i, i + block))

    def picked(inputs: list[Told]) -> Any:
        rows_of = slice(0, len(inputs[0].x))
        steps_of = torch.cat([told.rows for told in inputs])
        chosen = cond.select(steps_of)
        assert chosen.turn is not None
        return dataclasses.replace(
            chosen, extra=chosen.extra[rows_of], rows=chosen.rows[rows_of], turn=chosen.turn[rows_of], image=None
        )

    def run(inputs: list[Told], state: WorldState) -> Tensor:
        out = []
        for one in inputs:
            if state.step == 0:
                for (k, v), (new_k, new_v) in zip(state.image, model.image_keys_values(image), strict=True):
                    k.copy_(new_k[: len(k)])
                    v.copy_(new_v[: len(v)])
            out.append(model(one.x, one.sigma, picked([one]), state, commit=True))
            state.step += block
        return torch.cat(out, 1)

    def whole(inputs: list[Told]) -> Tensor:
        visibility = Visibility.windowed(sum(one.x.shape[1] for one in inputs), config.window, block, sink)
        clip = dataclasses.replace(picked(inputs), image=image[: len(inputs[0].x)])
        return model(
            torch.cat([one.x for one in inputs], 1),
            torch.cat([one.sigma for one in inputs], 1),
            clip,
            visibility=visibility,
        )

    return Subject(
        make_state=lambda batch: model.new_state(batch),
        inputs=[told(i) for i in range(0, steps, block)],
        run=run,
        whole=whole,
        chunkings=((1,) * (steps // block), (1, 2) + (1,) * (steps // block - 3)),
        rows=lambda one, rows: Told(one.x[rows], one.sigma[rows], one.rows),
        perturb=lambda one: Told(-one.x, one.sigma, one.rows),
    )


def sampling(seed: int) -> Subject:
    """The session's loop: begin on a picture, then blocks of actions."""
    config = _config()
    model = _model(config, seed)
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(BATCH, STEPS, 4, config.action_space.size, generator=generator)
    z0 = torch.randn(BATCH, 1, *config.latent, generator=generator)
    image = torch.randn(BATCH, config.image_tokens, config.image_dim, generator=generator)

    def run(inputs: list[Tensor], state: WorldState) -> Tensor:
        out = []
        for one in inputs:
            noise = torch.Generator().manual_seed(state.step)
            if state.step == 0:
                flow.begin(model, z0[: len(one)], image[: len(one)], SCHEDULE, state, noise)
            out.append(flow.advance(model, one, SCHEDULE, state, noise))
        return torch.cat(out, 1)

    return Subject(
        make_state=lambda batch: model.new_state(batch),
        inputs=[rows[:, i] for i in range(STEPS)],
        run=run,
        whole=None,
        chunkings=((1,) * STEPS,),
        rows=lambda one, rows: one[rows],
        perturb=lambda one: -one,
    )


SUBJECTS: dict[str, Callable[[int], Subject]] = {
    "encoder": encoder,
    "decoder": decoder,
    "transformer": transformer,
    "transformer, blocks of 3": lambda seed: transformer(seed, block=3, window=6),
    "transformer, blocks that wrap the ring": lambda seed: transformer(seed, block=3, window=4),
    "transformer that keeps its start": lambda seed: transformer(seed, sink=2),
    "sampling": sampling,
}
every_subject = pytest.mark.parametrize("name", SUBJECTS)
# sampling has no whole-clip form, and its rows draw their noise from one generator
every_network = pytest.mark.parametrize("name", [name for name in SUBJECTS if name != "sampling"])
every_seed = pytest.mark.parametrize("seed", [0, 1])


def stream(subject: Subject, state: Any, inputs: list[Any], chunking: tuple[int, ...] | None = None) -> Tensor:
    out, done = [], 0
    for size in chunking or (1,) * len(inputs):
        out.append(subject.run(inputs[done : done + size], state))
        done += size
    return torch.cat(out, 1)


@every_seed
@every_network
def test_streamed_equals_whole(name: str, seed: int) -> None:
    subject = SUBJECTS[name](seed)
    assert subject.whole is not None
    whole = subject.whole(subject.inputs)
    for chunking in subject.chunkings:
        streamed = stream(subject, subject.make_state(BATCH), subject.inputs, chunking)
        torch.testing.assert_close(streamed, whole, atol=1e-4, rtol=1e-4)


@every_seed
@every_subject
def test_the_future_never_alters_the_past(name: str, seed: int) -> None:
    subject = SUBJECTS[name](seed)
    changed = list(subject.inputs)
    changed[-1] = subject.perturb(changed[-1])
    for run in ([subject.whole] if subject.whole else []) + [lambda x: stream(subject, subject.make_state(BATCH), x)]:
        before, after = run(subject.inputs), run(changed)
        kept = before.shape[1] // len(subject.inputs) * (len(subject.inputs) - 1)
        torch.testing.assert_close(before[:, :kept], after[:, :kept], atol=1e-5, rtol=1e-5)
        assert not torch.allclose(before[:, -1], after[:, -1])


@every_subject
def test_reset_equals_fresh(name: str) -> None:
    subject = SUBJECTS[name](0)
    state = subject.make_state(BATCH)
    stream(subject, state, [subject.perturb(x) for x in subject.inputs])
    state.reset()
    assert torch.equal(
        stream(subject, state, subject.inputs), stream(subject, subject.make_state(BATCH), subject.inputs)
    )


@every_subject
def test_restore_equals_replay_and_a_copy_leaves_its_original_alone(name: str) -> None:
    subject = SUBJECTS[name](0)
    half = len(subject.inputs) // 2
    state = subject.make_state(BATCH)
    stream(subject, state, subject.inputs[:half])
    saved, twin = state.clone(), state.clone()
    first = stream(subject, state, subject.inputs[half:])
    stream(subject, twin, [subject.perturb(x) for x in subject.inputs[half:]])
    state.copy_(saved)
    assert torch.equal(stream(subject, state, subject.inputs[half:]), first)
    assert torch.equal(stream(subject, saved, subject.inputs[half:]), first)


@every_network
def test_rows_of_a_batch_are_independent(name: str) -> None:
    subject = SUBJECTS[name](0)
    both = stream(subject, subject.make_state(BATCH), subject.inputs)
    alone = stream(subject, subject.make_state(1), [subject.rows(x, slice(0, 1)) for x in subject.inputs])
    torch.testing.assert_close(both[:1], alone, atol=1e-4, rtol=1e-4)


@every_subject
def test_a_state_never_grows(name: str) -> None:
    subject = SUBJECTS[name](0)
    state = subject.make_state(BATCH)

    def places() -> list[tuple[int, int]]:
        if isinstance(state, WorldState):
            tensors = state.tensors() + [x for cache in state.caches for x in (cache.k, cache.v)]
        else:
            tensors = list(state.carries)
        return [(x.data_ptr(), x.numel()) for x in tensors]

    before = places()
    stream(subject, state, subject.inputs)
    assert places() == before


def test_a_window_does_not_depend_on_how_long_ago_the_session_began() -> None:
    """The same last steps after 3 and after 3,000,000 steps: the same numbers."""
    subject = transformer(0)
    config = _config()
    model = _model(config, 0)
    out = []
    for late in (0, 3_000_000):
        state = model.new_state(1)
        for (k, v), shape in zip(state.image, [x[0].shape for x in state.image], strict=True):
            k.copy_(torch.ones(shape))
            v.copy_(torch.ones(shape))
        for one in subject.inputs:
            one = subject.rows(one, slice(0, 1))
            cond = model.start_condition(state)
            cond = dataclasses.replace(cond, time=cond.time + late + state.step)
            last = model(one.x, one.sigma, cond, state, commit=True)
            state.step += 1
        out.append(last)
    torch.testing.assert_close(out[0], out[1], atol=1e-4, rtol=1e-4)
