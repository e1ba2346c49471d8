from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from reverie.errors import DataError
from reverie.evaluate.held_actions import Rate
from reverie.evaluate.store import Record, Store
from reverie.evaluate.tables import Metrics


@dataclass(frozen=True, slots=True)
class Row(Record):
    metrics: Metrics
    actions: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Result(Record):
    rows: dict[str, Row]
    windows: dict[int, npt.NDArray[np.float64]]
    rates: list[Rate]


def result() -> Result:
    rows = {"the dream": Row({"psnr": 1.5}, np.eye(3, dtype=np.float32)), "static": Row({})}
    return Result(rows, {5: np.zeros((0, 4))}, [Rate("turn", 1, float("nan"))])


def test_a_result_is_made_once_and_comes_back_as_it_was(tmp_path: Path) -> None:
    store = Store(tmp_path, {"model": "a", "seed": 0})
    store.get("x-short-0", Result, result)
    again = Store(tmp_path, {"seed": 0, "model": "a"}).get("x-short-0", Result, lambda: pytest.fail("made twice"))
    assert again.rows["the dream"].metrics == {"psnr": 1.5}
    actions = again.rows["the dream"].actions
    assert actions is not None
    assert actions.dtype == np.float32
    assert np.array_equal(actions, np.eye(3))
    assert again.rows["static"] == Row({})
    assert again.windows[5].shape == (0, 4)
    assert again.rates[0][:2] == ("turn", 1)
    assert np.isnan(again.rates[0].rate)
    assert [file.name for file in sorted(store.folder.iterdir())] == ["stamp.json", "x-short-0.npz"], "nothing partial"


def test_a_damaged_result_or_one_of_another_kind_is_made_again(tmp_path: Path) -> None:
    store, made = Store(tmp_path, {}), []

    def make() -> Result:
        made.append(1)
        return result()

    store.get("a", Result, make)
    path = store.folder / "a.npz"
    path.write_bytes(path.read_bytes()[:100])
    store.get("a", Result, make)
    store.get("a", Result, make)
    assert len(made) == 2
    store.get("a", Row, lambda: Row({}))
    store.get("a", Result, make)
    assert len(made) == 3
    np.savez(path, facts=np.zeros(1))
    store.get("a", Result, make)
    assert len(made) == 4, "as an earlier version wrote it"


def test_nothing_is_kept_of_a_result_that_fails(tmp_path: Path) -> None:
    store = Store(tmp_path, {})
    with pytest.raises(KeyboardInterrupt):
        store.get("a", Result, lambda: (_ for _ in ()).throw(KeyboardInterrupt()))
    assert not (store.folder / "a.npz").exists()


def test_another_evaluation_is_not_mixed_in(tmp_path: Path) -> None:
    Store(tmp_path, {"model": "nano/1", "settings": {"seed": 0}})
    with pytest.raises(
        DataError, match=r"another evaluation \(model was nano/1, is nano/2\); say -o ANOTHER, or delete"
    ):
        Store(tmp_path, {"model": "nano/2", "settings": {"seed": 0}})
