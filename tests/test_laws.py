"""The laws of DESIGN section 5, over every stateful module, in several chunkings and seeds.

streamed == whole · the future never alters the past · reset == fresh · restore == replay, bit for bit · a copy leaves
its original alone · rows of a batch are independent · the ring's eviction == the windowed mask · memory and cost are
flat · clip condition == streamed condition.  Each subject streams a sequence of steps: the tokenizer's two halves, the
transformer, and a session's loop, without and with a spatial memory, in a scene and from an image.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from reverie import sampling
from reverie.engine.loading.models import find_model
from reverie.models import presets, tokenizer
from reverie.models.checkpoint import read_config
from reverie.models.conditioning.next_condition import clip_condition, next_condition, start_condition
from reverie.models.conditioning.spatial_memory import NextStep, SpatialMemory
from reverie.models.config import WorldModelConfig
from reverie.models.dit import WorldModel
from reverie.models.state import Condition, ConditionChannels, WorldState
from reverie.models.tokenizer import DecoderState, VideoTokenizer
from reverie.nn.attention import Visibility
from reverie.sampling import Schedule
from reverie.scenes.keyframes import Candidates, Keyframes
from reverie.train.spatial.views import with_previous
from reverie.vision.projection import VIEW_SIZE, focal_lengths

STEPS = 9
BATCH = 2
SCHEDULE = Schedule((1.0, 0.5), context_sigma=0.1)
QUIET = Schedule((1.0, 0.5))
M = TypeVar("M", bound=nn.Module)


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


def _config(block: int = 1, window: int = 4, sink: int = 0, preset: str = "tiny") -> WorldModelConfig:
    return dataclasses.replace(presets.PRESETS[preset]().world, block=block, window=window, sink=sink)


def _awake(module: M, seed: int) -> M:
    """A network whose every path is awake: nothing at zero."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.eval().requires_grad_(False).parameters():
        parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return module


def _model(config: WorldModelConfig, seed: int) -> WorldModel:
    torch.manual_seed(seed)
    return _awake(WorldModel(config), seed)


def _pictures(seed: int, frames: int) -> Tensor:
    return torch.rand(BATCH, frames, 3, 32, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def _codec(seed: int) -> VideoTokenizer:
    torch.manual_seed(seed)
    return _awake(VideoTokenizer(tokenizer.tiny()), seed)


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


def transformer(seed: int, block: int = 1, window: int = 4, sink: int = 0, preset: str = "tiny") -> Subject:
    """Committed block by block, against the whole clip under the windowed mask."""
    config = _config(block, window, sink, preset)
    model = _model(config, seed)
    generator = torch.Generator().manual_seed(seed)
    steps = STEPS // block * block
    x = torch.randn(BATCH, steps, *config.latent, generator=generator)
    sigma = torch.rand(BATCH, steps, generator=generator)
    rows = torch.randn(BATCH, 4 * (steps - 1), config.action_space.size, generator=generator)
    image = torch.randn(BATCH, config.image.tokens, config.image.dim, generator=generator)
    parts = None
    if config.conditioning == "spatial_memory":  # whatever the memory shows: a conditioner is a subject of its own
        channels = torch.randn(BATCH, steps, config.cond_channels, *config.latent[1:], generator=generator)
        parts = ConditionChannels(channels, channels[:, :, 4 : 4 + config.latent[0]])
    cond = clip_condition(model, rows, x, image, parts)

    def told(i: int) -> Told:
        return Told(x[:, i : i + block], sigma[:, i : i + block], torch.arange(i, i + block))

    def picked(inputs: list[Told]) -> Condition:
        rows_of = slice(0, len(inputs[0].x))
        chosen = cond.select(torch.cat([told.rows for told in inputs]))
        base = None if chosen.base is None else chosen.base[rows_of]
        return dataclasses.replace(
            chosen, channels=chosen.channels[rows_of], actions=chosen.actions[rows_of], base=base, image=None
        )

    def run(inputs: list[Told], state: WorldState) -> Tensor:
        out = []
        for one in inputs:
            if state.step == 0:
                sampling.show(model, image[: len(one.x)], state)
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


def _noise(config: WorldModelConfig, batch: int, step: int) -> Callable[[], Tensor]:
    """A session's noise that is the same for a row, however many rows there are."""
    generator = torch.Generator().manual_seed(step)
    return lambda: torch.randn(BATCH, config.block, *config.latent, generator=generator)[:batch]


def sampled(seed: int) -> Subject:
    """The session's loop: begin on an image, then blocks of actions."""
    config = _config()
    model = _model(config, seed)
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(BATCH, STEPS, 4, config.action_space.size, generator=generator)
    z0 = torch.randn(BATCH, 1, *config.latent, generator=generator)
    image = torch.randn(BATCH, config.image.tokens, config.image.dim, generator=generator)

    def run(inputs: list[Tensor], state: WorldState) -> Tensor:
        out = []
        for one in inputs:
            b = len(one)
            if state.step == 0:
                sampling.begin(model, z0[:b], image[:b], QUIET, state, torch.Generator())
            out.append(sampling.advance_with(model, one, SCHEDULE, state, _noise(config, b, state.step)))
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


@dataclass
class Playing:
    """All that a session with a spatial memory keeps: of its networks, of its decoder, of its memory."""

    world: WorldState
    decoder: DecoderState

    def reset(self) -> None:
        self.world.reset()
        self.decoder.reset()

    def clone(self) -> Playing:
        return Playing(self.world.clone(), self.decoder.clone())

    def copy_(self, other: Playing) -> None:
        self.world.copy_(other.world)
        self.decoder.copy_(other.decoder)


@dataclass
class Player:
    """Plays a model with a spatial memory step by step, as a session does.

    open: resets a state to the start image; next: the condition of the next step; play: a step's frames.
    """

    model: WorldModel
    codec: VideoTokenizer
    memory: SpatialMemory
    scene: Keyframes | None
    z0: Tensor
    image: Tensor

    @classmethod
    def new(cls, seed: int, has_scene: bool) -> Player:
        preset = presets.tiny_memory()
        assert preset.memory is not None
        config, generator = preset.world, torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)
        memory = _awake(SpatialMemory(preset.memory, config.action_space, config.latent), seed)
        memory.depth.out.bias[1] = -9.0  # nobody is in view: what is, is remembered
        scene = None
        if has_scene:
            pose = torch.randn(6, 6, generator=generator) * torch.tensor([1.0, 1.0, 0.1, 40.0, 5.0, 0.0])
            scene = Keyframes.new(
                torch.randint(0, 256, (6, 3, 32, 64), dtype=torch.uint8, generator=generator),
                2 + 8 * torch.rand(6, *VIEW_SIZE, generator=generator),
                torch.rand(6, *VIEW_SIZE, generator=generator) < 0.1,
                pose,
                focal_lengths(torch.tensor([80.0]))[0],
            )
        return cls(
            _model(config, seed),
            _codec(seed),
            memory,
            scene,
            torch.randn(BATCH, 1, *config.latent, generator=generator),
            torch.randn(BATCH, config.image.tokens, config.image.dim, generator=generator),
        )

    def make_state(self, batch: int) -> Playing:
        world = self.model.new_state(batch)
        in_scene = 0 if self.scene is None else len(self.scene)
        world.memory = self.memory.init_state(batch, (32, 64), scene_keyframes=in_scene)
        return Playing(world, self.codec.new_decoder_state(batch, 32, 64))

    def open(self, state: Playing) -> None:
        b = len(state.world.last)
        sampling.begin(self.model, self.z0[:b], self.image[:b], QUIET, state.world, torch.Generator())
        assert state.world.memory is not None
        self.memory.open(state.world.memory, self.codec.decode(self.z0[:b], state.decoder)[:, -1])

    def next(self, state: Playing, actions: Tensor) -> NextStep:
        world = state.world
        assert world.memory is not None
        scene = None if self.scene is None else Candidates.of_scene(self.scene, len(actions))
        return self.memory.next(world.memory, world.last, actions, scene)

    def play(self, state: Playing, actions: Tensor) -> Tensor:
        """Frames (b, 4, 3, H, W) of the next step."""
        world = state.world
        if world.step == 0:
            self.open(state)
        step = self.next(state, actions)
        noise = _noise(self.model.config, len(actions), world.step)
        z = sampling.advance_with(self.model, actions, SCHEDULE, world, noise, step.parts)
        frames = self.codec.decode(z, state.decoder)
        assert world.memory is not None
        self.memory.commit(world.memory, step, frames)
        return frames

    def actions(self, seed: int) -> list[Tensor]:
        size = self.model.config.action_space.size
        rows = torch.randn(BATCH, STEPS, 4, size, generator=torch.Generator().manual_seed(seed))
        return [10 * rows[:, i] for i in range(STEPS)]  # far enough that the session writes keyframes


def playing(seed: int, has_scene: bool = True) -> Subject:
    """A session with a spatial memory: its camera, keyframes, networks and frames."""
    player = Player.new(seed, has_scene)
    return Subject(
        make_state=player.make_state,
        inputs=player.actions(seed),
        run=lambda inputs, state: torch.cat([player.play(state, one) for one in inputs], 1),
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
    "transformer with a spatial memory": lambda seed: transformer(seed, preset="tiny-memory"),
    "sampling": sampled,
    "playing from an image": lambda seed: playing(seed, has_scene=False),
    "playing in a scene": playing,
}
every_subject = pytest.mark.parametrize("name", SUBJECTS)
LOOPS = ("sampling", "playing from an image", "playing in a scene")
# loops have no whole-clip form: what a block is conditioned on is generated
every_network = pytest.mark.parametrize("name", [name for name in SUBJECTS if name not in LOOPS])
every_smooth = pytest.mark.parametrize("name", [name for name in SUBJECTS if "playing" not in name])
every_loop = pytest.mark.parametrize("name", LOOPS)
every_seed = pytest.mark.parametrize("seed", [0, 1])


def switches(config: WorldModelConfig) -> dict[str, object]:
    """Everything of a network that is there or not, rather than larger or smaller."""
    modules = {"keyboard": config.actions.keyboard, "mouse": config.actions.mouse}
    return {
        "conditioning": config.conditioning,
        "predicts": config.predicts,
        "modulation": config.actions.modulation,
        "positions": (config.positions.learned, config.positions.local_start),
        **{name: (module is not None, module is not None and module.gain) for name, module in modules.items()},
        **{name: bool(getattr(config, name)) for name in ("sink", "step_sizes", "refine")},
    }


def test_the_laws_hold_for_what_is_bundled() -> None:
    """The small model of the subjects differs from nano in its sizes alone."""
    bundled = read_config(find_model("nano"))
    assert switches(presets.tiny_memory().world) == switches(bundled.world)
    assert bundled.memory is not None


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


@every_smooth
def test_rows_of_a_batch_are_independent(name: str) -> None:
    subject = SUBJECTS[name](0)
    both = stream(subject, subject.make_state(BATCH), subject.inputs)
    alone = stream(subject, subject.make_state(1), [subject.rows(x, slice(0, 1)) for x in subject.inputs])
    torch.testing.assert_close(both[:1], alone, atol=1e-4, rtol=1e-4)


@every_loop
def test_what_one_session_of_a_batch_does_leaves_the_others_alone(name: str) -> None:
    """Bit for bit: rendering is not continuous, so a batch of another size may differ by more than rounding."""
    subject = SUBJECTS[name](0)
    changed = [torch.cat([x[:1], subject.perturb(x[1:])]) for x in subject.inputs]
    both, other = (stream(subject, subject.make_state(BATCH), x) for x in (subject.inputs, changed))
    assert torch.equal(both[:1], other[:1])
    assert not torch.allclose(both[1:], other[1:])


@every_subject
def test_the_same_inputs_give_the_same_outputs(name: str) -> None:
    outputs = []
    for _ in range(2):
        subject = SUBJECTS[name](1)
        outputs.append(stream(subject, subject.make_state(BATCH), subject.inputs))
    assert torch.equal(*outputs)


def _tensors(state: Any) -> list[Tensor]:
    if isinstance(state, Playing):
        return _tensors(state.world) + _tensors(state.decoder)
    if isinstance(state, WorldState):
        return state.tensors() + [x for cache in state.caches for x in (cache.k, cache.v)]
    return list(state.carries)


@every_subject
def test_a_state_never_grows(name: str) -> None:
    subject = SUBJECTS[name](0)
    state = subject.make_state(BATCH)

    def places() -> list[tuple[int, int]]:
        return [(x.data_ptr(), x.numel()) for x in _tensors(state)]

    before = places()
    stream(subject, state, subject.inputs)
    assert places() == before


@every_loop
def test_every_block_costs_the_same_once_the_window_is_full(name: str) -> None:
    subject = SUBJECTS[name](0)
    state, costs = subject.make_state(1), []
    for one in subject.inputs:
        with FlopCounterMode(display=False) as counter:
            subject.run([subject.rows(one, slice(0, 1))], state)
        costs.append(counter.get_total_flops())
    assert len(set(costs[4:])) == 1


@pytest.mark.parametrize("has_scene", [False, True])
def test_a_clips_condition_is_the_streamed_one(has_scene: bool) -> None:
    """A played session's condition, recomputed for the whole clip at once, gives every block's network output."""
    player = Player.new(0, has_scene)
    model, state = player.model, player.make_state(BATCH)
    player.open(state)
    latents, conditions, streamed = [player.z0], [], []
    sigma = torch.full((BATCH, 1), 0.7)
    for actions in player.actions(0):
        step = player.next(state, actions)
        conditions.append(step.parts)
        noisy = _noise(model.config, BATCH, state.world.step)()
        streamed.append(model(noisy, sigma, next_condition(model, actions, state.world, step.parts), state.world))
        z = sampling.advance_with(
            model, actions, QUIET, state.world, _noise(model.config, BATCH, state.world.step), step.parts
        )
        assert state.world.memory is not None
        player.memory.commit(state.world.memory, step, player.codec.decode(z, state.decoder))
        latents.append(z)

    # The same, all at once: only what the memory showed is taken over.
    zeros = torch.zeros(BATCH, 1, *conditions[0].channels.shape[2:])
    start = ConditionChannels(zeros, zeros[:, :, : model.config.latent[0]])
    parts = ConditionChannels(*(torch.cat(one, 1) for one in zip(start, *conditions, strict=True)))
    context, rows = torch.cat(latents, 1), torch.cat(player.actions(0), 1)
    t = context.shape[1]
    cond = clip_condition(model, rows, context, player.image, parts)
    noisy = torch.cat([_noise(model.config, BATCH, i)() for i in range(1, t)], 1)
    steps = torch.arange(t)
    cond = cond.select(torch.cat([steps[:-1], steps[1:]]))
    levels = torch.cat([torch.zeros(BATCH, t - 1), sigma.expand(-1, t - 1)], 1)
    visibility = Visibility.teacher_forced(t, model.config.window, given=1, copies=1)
    whole = model(torch.cat([context[:, :-1], noisy], 1), levels, cond, visibility=visibility)[:, t - 1 :]
    torch.testing.assert_close(whole, torch.cat(streamed, 1), atol=1e-4, rtol=1e-4)
    # and the previous latent, which training adds itself, lies where a session has it
    c = model.config.latent[0]
    drawn = torch.ones(BATCH, t, dtype=torch.bool)
    stored = torch.cat([parts.channels[:, :, : 4 + c], parts.channels[:, :, 4 + 2 * c :]], 2)
    again = with_previous(stored, drawn, context)
    torch.testing.assert_close(again.channels, parts.channels)
    torch.testing.assert_close(again.base, parts.base)
    assert state.world.memory.written.min() > 1, "the session must have written keyframes"


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
            cond = start_condition(model, state)
            cond = dataclasses.replace(cond, time=cond.time + late + state.step)
            last = model(one.x, one.sigma, cond, state, commit=True)
            state.step += 1
        out.append(last)
    torch.testing.assert_close(out[0], out[1], atol=1e-4, rtol=1e-4)
