from __future__ import annotations

import gc

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from reverie.engine.engine import load
from reverie.engine.sessions import states
from reverie.engine.sessions.session import Snapshot
from reverie.errors import ActionError, CheckpointError, WorldError
from reverie.types import Action, World

WALK = [Action(frozenset({"forward"}), (0.0, 3.0)), Action(), Action(frozenset({"left"}), (1.0, -5.0))]


def play(session, num_blocks: int, start: int = 0) -> np.ndarray:
    blocks = [session.step(WALK[(start + i) % len(WALK)]) for i in range(num_blocks)]
    return np.concatenate([np.zeros((0, 32, 64, 3), np.uint8), *blocks])


def test_is_a_world(engine, picture) -> None:
    session = engine.open(picture)
    assert isinstance(session, World)
    assert session.resolution == (32, 64)
    assert session.block_frames == 4
    assert session.action_space == engine.action_space
    assert session.first_frame.shape == (1, 32, 64, 3)
    frames = session.step(Action())
    assert frames.shape == (4, 32, 64, 3)
    assert frames.dtype == np.uint8
    assert session.num_frames == 5


@pytest.mark.parametrize("seed", [0, 7, -1, 2**70])
def test_reset_equals_fresh(engine, picture, seed: int) -> None:
    session = engine.open(picture, seed=3)
    play(session, 7)
    first = session.reset(seed)
    fresh = engine.open(picture, seed=seed)
    assert np.array_equal(first, fresh.first_frame)
    assert np.array_equal(play(session, 7), play(fresh, 7))


def test_seeds_and_actions_matter(engine, picture) -> None:
    expected = play(engine.open(picture, seed=0), 3)
    assert not np.array_equal(play(engine.open(picture, seed=1), 3), expected)
    assert not np.array_equal(play(engine.open(picture, seed=0), 3, start=1), expected)
    other = np.ascontiguousarray(picture[::-1])
    assert not np.array_equal(play(engine.open(other, seed=0), 3), expected)


def test_the_future_never_alters_the_past(engine, picture) -> None:
    one, two = engine.open(picture), engine.open(picture)
    assert np.array_equal(play(one, 3), play(two, 3))
    assert not np.array_equal(one.step(WALK[0]), two.step(WALK[2]))


@pytest.mark.parametrize("before", [0, 1, 3, 6])
def test_restore_equals_replay(engine, picture, before: int, tmp_path) -> None:
    session = engine.open(picture, seed=5)
    play(session, before)
    snapshot = session.snapshot()
    expected = play(session, 6)
    session.restore(snapshot)
    assert session.num_frames == 1 + 4 * before
    assert np.array_equal(play(session, 6), expected)
    snapshot.save(tmp_path / "here.safetensors")
    elsewhere = engine.open(np.zeros((50, 50, 3), np.uint8), seed=9)
    elsewhere.step(WALK[0])
    elsewhere.restore(Snapshot.load(tmp_path / "here.safetensors"))
    assert elsewhere.seed == 5
    assert np.array_equal(elsewhere.first_frame, session.first_frame)
    assert np.array_equal(play(elsewhere, 6), expected)
    assert np.array_equal(elsewhere.reset(1), session.reset(1))
    assert np.array_equal(play(elsewhere, 2), play(session, 2))


def test_a_snapshot_is_independent(engine, picture) -> None:
    session = engine.open(picture)
    play(session, 2)
    snapshot = session.snapshot()
    expected = play(session, 3)
    session.reset(4)
    play(session, 3)
    session.close()
    other = engine.open(picture)
    other.restore(snapshot)
    assert np.array_equal(play(other, 3), expected)


def test_fork_leaves_the_parent_alone(engine, picture) -> None:
    parent, control = engine.open(picture, seed=2), engine.open(picture, seed=2)
    assert np.array_equal(play(parent, 3), play(control, 3))
    twin = parent.fork()
    play(twin, 4, start=1)
    twin.reset(8)
    twin.close()
    assert np.array_equal(play(parent, 5), play(control, 5))


def test_fork_goes_on_as_the_parent_would(engine, picture) -> None:
    parent = engine.open(picture)
    play(parent, 3)
    twin = parent.fork()
    expected = play(parent, 5)
    assert np.array_equal(play(twin, 5), expected)


def test_sessions_do_not_disturb_each_other(engine, picture) -> None:
    alone = play(engine.open(picture, seed=0), 4)
    one, two = engine.open(picture, seed=0), engine.open(picture[::-1].copy(), seed=1)
    frames = []
    for i in range(4):
        frames.append(play(one, 1, start=i))
        play(two, 1, start=i + 1)
    assert np.array_equal(np.concatenate(frames), alone)


def test_one_action_is_held_for_the_block(engine, picture) -> None:
    one, two = engine.open(picture), engine.open(picture)
    assert np.array_equal(one.step(WALK[0]), two.step([WALK[0]] * 4))
    assert not np.array_equal(one.step([WALK[0]] * 3 + [WALK[2]]), two.step(WALK[0]))


def test_frames_belong_to_the_caller(engine, picture) -> None:
    one, two = engine.open(picture), engine.open(picture)
    for _ in range(3):
        frames, expected = one.step(WALK[0]), two.step(WALK[0])
        assert np.array_equal(frames, expected)
        assert frames.flags.writeable
        frames[:] = 0
        one.first_frame[:] = 0
    assert one.first_frame.any()


def test_the_callers_picture_is_copied(engine, picture) -> None:
    mine = picture.copy()
    session = engine.open(mine)
    mine[:] = 0
    assert np.array_equal(session.picture[0], picture)


def test_memory_is_flat(engine, picture) -> None:
    session = engine.open(picture)
    play(session, 8)
    tensors, _ = states.flatten(session.state)
    addresses = {name: tensor.data_ptr() for name, tensor in tensors.items()}
    gc.collect()
    alive = sum(type(thing) is torch.Tensor for thing in gc.get_objects())
    play(session, 30)
    session.reset(1)
    play(session, 2)
    gc.collect()
    assert sum(type(thing) is torch.Tensor for thing in gc.get_objects()) <= alive
    assert {name: tensor.data_ptr() for name, tensor in states.flatten(session.state)[0].items()} == addresses


def test_bfloat16_plays_too(model_folder, picture) -> None:
    engine = load(model_folder, device="cpu", dtype="bfloat16")
    session = engine.open(picture)
    snapshot = session.snapshot()
    expected = play(session, 5)
    session.restore(snapshot)
    assert np.array_equal(play(session, 5), expected)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (Action(frozenset({"fly"})), "unknown key 'fly'"),
        (Action(mouse=(0.0, float("nan"))), "finite"),
        ([Action()] * 3, "one action or 4"),
        ([], "one action or 4"),
    ],
)
def test_a_bad_action_changes_nothing(engine, picture, action, message: str) -> None:
    session, control = engine.open(picture), engine.open(picture)
    with pytest.raises(ActionError, match=message):
        session.step(action)
    assert np.array_equal(play(session, 2), play(control, 2))


def test_a_closed_session_says_so(engine, picture) -> None:
    session = engine.open(picture)
    session.close()
    session.close()
    for use in (lambda: session.step(Action()), lambda: session.reset(0), session.snapshot, session.fork):
        with pytest.raises(WorldError, match="closed"):
            use()


def test_a_snapshot_of_another_model_is_refused(engine, model_folder, picture) -> None:
    session, control = engine.open(picture), engine.open(picture)
    other = load(model_folder, device="cpu", dtype="bfloat16").open(picture)
    with pytest.raises(CheckpointError, match=r"bfloat16.*float32"):
        session.restore(other.snapshot())
    assert np.array_equal(play(session, 2), play(control, 2))


def test_a_snapshot_of_another_shape_is_refused(engine, picture) -> None:
    session, control = engine.open(picture), engine.open(picture)
    for change in ({"world.last": torch.zeros(3)}, {"world.last": None}, {"noise": None}):
        snapshot = session.snapshot()
        for name, tensor in change.items():
            snapshot.tensors.pop(name)
            if tensor is not None:
                snapshot.tensors[name] = tensor
        with pytest.raises(CheckpointError):
            session.restore(snapshot)
    assert np.array_equal(play(session, 2), play(control, 2))


def test_bad_snapshot_files(engine, picture, tmp_path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(CheckpointError, match="no snapshot"):
        Snapshot.load(path)
    path.write_bytes(b"garbage")
    with pytest.raises(CheckpointError, match="not a readable snapshot"):
        Snapshot.load(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="not a snapshot"):
        Snapshot.load(path)
    save_file({"a": torch.zeros(1)}, path, metadata={"kind": "reverie.snapshot", "facts": "{}"})
    with pytest.raises(CheckpointError, match="not a readable snapshot"):
        Snapshot.load(path)
    with pytest.raises(CheckpointError, match="cannot write"):
        engine.open(picture).snapshot().save(tmp_path / "no" / "folder")
