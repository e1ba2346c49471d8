"""Sessions that make their blocks together: what each shows is what it shows alone."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from reverie.engine.engine import Engine, load
from reverie.engine.sessions.batch import make_blocks
from reverie.engine.sessions.session import BlockPlan
from reverie.errors import ActionError, ImageError, WorldError
from reverie.models.checkpoint import ModelBundle, ModelConfig
from reverie.models.presets import PRESETS, Preset
from reverie.models.state import ConditionChannels
from reverie.sampling import Schedule
from reverie.types import Action

MAX_LEVELS = 2
"""How many of 256 levels a frame may be off by, where kernels sum in another order for another number of rows."""
WALK = [
    Action(frozenset({"forward"})),
    Action(frozenset({"left"}), (0.0, 2.0)),
    Action(frozenset(), (-1.0, -3.0)),
    Action(),
]


def first_frame() -> Preset:
    """Of Matrix-Game 2's kind: blocks of two steps, the start's own step generated, a first block that is shorter."""
    preset = PRESETS["tiny"]()
    kind = {"conditioning": "first_frame", "predicts": "velocity", "block": 2}
    return replace(preset, world=replace(preset.world, **kind))


@pytest.fixture(scope="module", params=[PRESETS["tiny"], PRESETS["tiny-memory"], first_frame], ids=lambda f: f.__name__)
def shaken(request) -> Engine:
    """A model whose actions, noise and past all reach its frames, of each kind of conditioning."""
    torch.manual_seed(0)
    preset = request.param()
    bundle = ModelBundle.new(
        ModelConfig(
            name=request.param.__name__,
            resolution=preset.resolution,
            schedule=Schedule((1.0, 0.5), renoise=preset.memory is None, context_sigma=0.1),
            world=preset.world,
            tokenizer=preset.tokenizer,
            image_encoder=preset.image_encoder,
            memory=preset.memory,
        )
    )
    with torch.no_grad():
        for module in bundle.modules().values():
            module.eval().requires_grad_(False)
            for parameter in module.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return Engine(bundle, folder=Path("nowhere"), device=torch.device("cpu"), dtype=torch.float32, files=[])


@pytest.fixture
def images(shaken) -> list[np.ndarray]:
    return list(np.random.default_rng(1).integers(0, 256, (3, *shaken.resolution, 3), dtype=np.uint8))


def played_alone(engine: Engine, image: np.ndarray, seed: int, actions: list[Action]) -> list[np.ndarray]:
    session = engine.open(image, seed)
    return [session.step(action) for action in actions]


def assert_same(ours: np.ndarray | Exception, alone: np.ndarray) -> None:
    assert not isinstance(ours, Exception), ours
    assert ours.shape == alone.shape
    assert np.abs(ours.astype(int) - alone.astype(int)).max() <= MAX_LEVELS


@pytest.mark.parametrize("num_threads", [1, 2])
def test_together_is_as_alone(shaken, images, num_threads) -> None:
    """Through the window's filling and long past it, each session with images, seeds and actions of its own."""
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        scripts = [[WALK[(i + j) % 4] for j in range(7)] for i in range(3)]
        alone = [played_alone(shaken, image, 5 + i, scripts[i]) for i, image in enumerate(images)]
        batch = shaken.open_batch(images, seed=5)
        for j in range(7):
            for i, frames in enumerate(batch.step([script[j] for script in scripts])):
                assert_same(frames, alone[i][j])
        assert not np.array_equal(alone[0][-1], alone[1][-1]), "the sessions differ, or nothing was tested"
        assert torch.get_num_threads() == num_threads
    finally:
        torch.set_num_threads(before)


def test_late_comers_join_and_leavers_leave(shaken, images) -> None:
    """Sessions at different steps, with windows filled differently, share their passes."""
    alone = [played_alone(shaken, image, i, [WALK[0]] * 6) for i, image in enumerate(images)]
    first, late, last = (shaken.open(image, i) for i, image in enumerate(images))
    steps = [[first], [first, late], [first, late], [late, first, last], [late, last], [last, late], [last]]
    shown = {id(session): 0 for session in (first, late, last)}
    order = {id(first): 0, id(late): 1, id(last): 2}
    for members in steps:
        for session, frames in zip(members, make_blocks(members, [WALK[0]] * len(members)), strict=True):
            assert_same(frames, alone[order[id(session)]][shown[id(session)]])
            shown[id(session)] += 1
    assert sorted(shown.values()) == [4, 4, 5]
    assert_same(first.step(WALK[0]), alone[0][4])  # and it goes on alone


def test_sessions_of_other_passes_leave_a_batch_as_it_is(shaken, images) -> None:
    """Bit for bit: what the others show does not depend on how many passes one of them makes."""
    with_other = [shaken.open(image, i, passes=(2, 1, None)[i]) for i, image in enumerate(images)]
    without = [shaken.open(images[0], 0), shaken.open(images[2], 2)]
    fewer = shaken.open(images[1], 1, passes=1)
    for action in WALK:
        shown = make_blocks(with_other, [action] * 3)
        for ours, others in zip((shown[0], shown[2]), make_blocks(without, [action] * 2), strict=True):
            assert np.array_equal(ours, others)  # pyright: ignore[reportArgumentType]  # no errors among them
        assert np.array_equal(shown[1], fewer.step(action))  # pyright: ignore[reportArgumentType]


def test_a_batch_can_be_saved_and_goes_on_as_before(shaken, images) -> None:
    batch = shaken.open_batch(images)
    batch.step([WALK[0]] * 3)
    saves = [session.snapshot() for session in batch.sessions]
    expected = batch.step([WALK[1]] * 3)
    for session, save in zip(batch.sessions, saves, strict=True):
        session.restore(save)
    for ours, before in zip(batch.step([WALK[1]] * 3), expected, strict=True):
        assert np.array_equal(ours, before)  # pyright: ignore[reportArgumentType]  # no errors among them


def test_one_row_that_is_not_finite_ends_alone(shaken, images) -> None:
    alone = [played_alone(shaken, image, i, [WALK[0]] * 3) for i, image in enumerate(images)]
    batch = shaken.open_batch(images)
    batch.step([WALK[0]] * 3)
    broken = batch.sessions[1]
    with torch.inference_mode():
        broken.state["world"].last.fill_(float("nan"))
        for cache in broken.state["world"].caches:
            cache.v.fill_(float("nan"))
    results = batch.step([WALK[0]] * 3)
    assert isinstance(results[1], WorldError)
    assert f"no longer finite after {broken.num_frames} frames" in str(results[1])
    assert "start it again" in str(results[1])
    assert not broken.is_open
    for i in (0, 2):
        assert_same(results[i], alone[i][1])
    results = batch.step([WALK[0]] * 3)
    assert "closed" in str(results[1])
    for i in (0, 2):
        assert_same(results[i], alone[i][2])


def test_an_action_that_cannot_be_said_changes_nothing(shaken, images) -> None:
    alone = [played_alone(shaken, image, i, [WALK[0]] * 2) for i, image in enumerate(images)]
    batch = shaken.open_batch(images)
    results = batch.step([WALK[0], Action(frozenset({"fly"})), WALK[0]])
    assert isinstance(results[1], ActionError)
    assert_same(results[0], alone[0][0])
    results = batch.step([WALK[0]] * 3)
    assert_same(results[1], alone[1][0])
    assert_same(results[2], alone[2][1])


@pytest.mark.parametrize("num_threads", [1, 2])
def test_a_row_that_fails_is_closed_and_the_others_go_on(shaken, images, monkeypatch, num_threads) -> None:
    alone = played_alone(shaken, images[0], 0, [WALK[0]])[0]
    batch = shaken.open_batch(images[:2])

    def fail(row: object) -> None:
        raise MemoryError("no memory for this row")

    broken = batch.sessions[1]
    monkeypatch.setattr(broken, "show", fail)
    monkeypatch.setattr(torch, "get_num_threads", lambda: num_threads)
    results = batch.step([WALK[0]] * 2)
    assert_same(results[0], alone)
    assert isinstance(results[1], Exception)
    assert not broken.is_open


def test_a_session_that_is_closed_within_a_batch_is_closed_after_it(shaken, images, monkeypatch) -> None:
    """By another thread, as a player does who leaves: the others, and its own block, are not disturbed."""
    batch = shaken.open_batch(images[:2])
    leaver = batch.sessions[1]
    leaving = threading.Thread(target=leaver.close)
    condition = leaver.condition

    def leave_and_condition(plan: BlockPlan) -> ConditionChannels | None:
        leaving.start()
        leaving.join(0.05)
        return condition(plan)

    monkeypatch.setattr(leaver, "condition", leave_and_condition)
    results = batch.step([WALK[0]] * 2)
    leaving.join()
    assert all(isinstance(frames, np.ndarray) for frames in results)
    assert not leaver.is_open
    kept, gone = batch.step([WALK[0]] * 2)
    assert isinstance(kept, np.ndarray)
    assert isinstance(gone, WorldError)


def test_what_a_batch_cannot_be(shaken, images) -> None:
    session = shaken.open(images[0])
    with pytest.raises(WorldError, match="twice"):
        make_blocks([session, session], [WALK[0]] * 2)
    with pytest.raises(WorldError, match="takes as many actions, got 2"):
        make_blocks([session], [WALK[0]] * 2)
    other = Engine(shaken.bundle, folder=shaken.folder, device=shaken.device, dtype=shaken.dtype, files=[])
    with pytest.raises(WorldError, match="one engine"):
        make_blocks([session, other.open(images[0])], [WALK[0]] * 2)
    with pytest.raises(ImageError, match="at least one session"):
        shaken.open_batch([])
    with pytest.raises(ImageError, match="no start images"):
        shaken.open_batch(2)
    assert make_blocks([], []) == []


def test_closing_a_batch_closes_its_sessions(shaken, images) -> None:
    batch = shaken.open_batch(images)
    assert len(batch) == 3
    assert batch.num_bytes == 3 * batch.sessions[0].num_bytes
    batch.close()
    assert batch.num_bytes == 0
    assert all(isinstance(result, WorldError) for result in batch.step([WALK[0]] * 3))


def test_the_bundled_model_in_a_scene() -> None:
    """As shipped: two players of one scene, one of whom has walked ahead, each as alone."""
    engine = load("nano", device="cpu", dtype="float32")
    alone = [engine.open(scene="doom-halls", seed=i) for i in range(2)]
    batch = engine.open_batch(2, scene="doom-halls")
    for session in (alone[0], batch.sessions[0]):
        session.step(WALK[0])
    for j in range(2):
        actions = [WALK[j], WALK[j + 1]]
        for session, action, frames in zip(alone, actions, batch.step(actions), strict=True):
            assert_same(frames, session.step(action))
