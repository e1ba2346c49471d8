"""Snapshot files: whole, or refused.  A single bit that is not as it was written must not be played on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from tests.helpers.damage import ANY, Damage, examples

from reverie.engine.sessions.session import Snapshot
from reverie.errors import CheckpointError
from reverie.types import Action


def small() -> Snapshot:
    generator = torch.Generator().manual_seed(0)
    return Snapshot(
        model="tiny/0123/float32/cpu",
        seed=5,
        num_frames=9,
        picture=np.arange(32 * 64 * 3, dtype=np.uint8).reshape(32, 64, 3),
        tensors={
            "world.k": torch.randn(2, 3, 4, generator=generator),
            "world.half": torch.randn(5, generator=generator).bfloat16(),
            "world.step": torch.tensor(3),
            "world.none": torch.zeros(0, 4),
            "noise": generator.get_state(),
        },
        numbers={"world.step": 3, "decoder.steps": 2},
    )


def same(a: Snapshot, b: Snapshot) -> bool:
    facts = [(x.model, x.seed, x.num_frames, x.numbers, x.tensors.keys()) for x in (a, b)]
    return facts[0] == facts[1] and np.array_equal(a.picture, b.picture) and all(
        a.tensors[name].dtype == b.tensors[name].dtype and torch.equal(a.tensors[name], b.tensors[name])
        for name in a.tensors
    )  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("snapshot") / "a.safetensors"
    small().save(path)
    assert same(Snapshot.load(path), small())
    return path.read_bytes()


@examples(400)
@given(damage=ANY)
def test_a_damaged_snapshot_is_the_same_or_refused(written: bytes, tmp_path_factory, damage: Damage) -> None:
    path: Path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(damage.apply(written))
    try:
        loaded = Snapshot.load(path)
    except CheckpointError:
        return
    assert same(loaded, small()), f"{damage} changed the snapshot silently"


@examples(30)
@given(st.binary(max_size=300))
def test_any_other_file_is_refused(tmp_path_factory, content: bytes) -> None:
    path: Path = tmp_path_factory.getbasetemp() / "other.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"other.safetensors"):
        Snapshot.load(path)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("facts", lambda text: text.replace('"seed": 5', '"seed": 6')),
        ("facts", lambda text: "[" * 100_000),
        ("checksum", lambda text: text[::-1]),
        ("checksum", None),
        ("kind", lambda text: "reverie.model"),
    ],
)
def test_metadata_that_was_changed(written: bytes, tmp_path: Path, name: str, change) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(written)
    with safe_open(str(path), "pt") as file:
        metadata, tensors = file.metadata(), {one: file.get_tensor(one) for one in file.keys()}  # noqa: SIM118
    if change is None:
        del metadata[name]
    else:
        metadata[name] = change(metadata[name])
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(CheckpointError):
        Snapshot.load(path)


def test_a_tensor_swapped_with_another_is_refused(written: bytes, tmp_path: Path) -> None:
    snapshot = small()
    snapshot.tensors["world.other"] = torch.zeros(2, 3, 4)
    path = tmp_path / "a.safetensors"
    snapshot.save(path)
    with safe_open(str(path), "pt") as file:
        metadata, tensors = file.metadata(), {one: file.get_tensor(one) for one in file.keys()}  # noqa: SIM118
    tensors["state.world.k"], tensors["state.world.other"] = tensors["state.world.other"], tensors["state.world.k"]
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(CheckpointError, match="does not match its checksum"):
        Snapshot.load(path)


def test_a_snapshot_that_does_not_fit_changes_nothing(engine, picture) -> None:
    session, control = engine.open(picture), engine.open(picture)
    for change in (
        {"tensors": {"noise": torch.zeros(3, dtype=torch.uint8)}},
        {"tensors": {"noise": torch.zeros(5056)}},
        {"tensors": {"world.last": None}},
        {"picture": np.zeros((16, 64, 3), np.uint8)},
    ):
        taken = session.snapshot()
        tensors = {**taken.tensors, **change.get("tensors", {})}
        if "world.last" in change.get("tensors", {}):
            tensors = {**taken.tensors, "world.last": taken.tensors["world.last"].half()}
        changed = Snapshot(
            model=taken.model, seed=taken.seed, num_frames=taken.num_frames,
            picture=change.get("picture", taken.picture), tensors=tensors, numbers=taken.numbers,
        )  # fmt: skip
        with pytest.raises(CheckpointError):
            session.restore(changed)
    assert np.array_equal(session.step(Action()), control.step(Action()))
