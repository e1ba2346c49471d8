from pathlib import Path

import numpy as np
import pytest

from reverie.errors import DataError
from reverie.evaluate.store import Store, Unit


def unit() -> Unit:
    return Unit({"rows": {"the dream": {"psnr": 1.5}}}, {"said.the dream": np.eye(3, dtype=np.float32)})


def test_a_unit_is_made_once(tmp_path: Path) -> None:
    store = Store(tmp_path, {"model": "a", "seed": 0})
    made, was_there = store.get("x-short-0", unit)
    assert not was_there
    again, was_there = Store(tmp_path, {"seed": 0, "model": "a"}).get("x-short-0", lambda: pytest.fail("made twice"))
    assert was_there
    assert again.facts == made.facts
    assert np.array_equal(again.arrays["said.the dream"], np.eye(3))
    assert [file.name for file in sorted(store.folder.iterdir())] == ["stamp.json", "x-short-0.npz"], "nothing partial"


def test_a_damaged_unit_is_made_again(tmp_path: Path) -> None:
    store = Store(tmp_path, {})
    store.get("a", unit)
    path = store.folder / "a.npz"
    path.write_bytes(path.read_bytes()[:100])
    assert store.get("a", unit)[1] is False
    assert store.get("a", unit)[1] is True


def test_nothing_is_kept_of_a_unit_that_fails(tmp_path: Path) -> None:
    store = Store(tmp_path, {})
    with pytest.raises(KeyboardInterrupt):
        store.get("a", lambda: (_ for _ in ()).throw(KeyboardInterrupt()))
    assert not store.has("a")


def test_another_evaluation_is_not_mixed_in(tmp_path: Path) -> None:
    Store(tmp_path, {"model": "nano/1", "settings": {"seed": 0}})
    with pytest.raises(
        DataError, match=r"another evaluation \(model was nano/1, is nano/2\); say -o ANOTHER, or delete"
    ):
        Store(tmp_path, {"model": "nano/2", "settings": {"seed": 0}})
