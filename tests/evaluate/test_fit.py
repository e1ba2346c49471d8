import numpy as np
import pytest
from tests.evaluate.synthetic import SPACE

from reverie.errors import DataError
from reverie.evaluate.fit import check_pictures, columns_of, fit_actions, match_idm, shared_space
from reverie.types import Action, ActionSpace

SHOOTER = ActionSpace(("attack", "forward", "back"))
CAR = ActionSpace(("forward", "back", "left", "right"), mouse=False)


def test_actions_are_matched_by_name() -> None:
    fit = fit_actions(SPACE, SHOOTER)
    rows = SHOOTER.encode([Action(frozenset({"attack", "forward"}), (1.0, -2.0))])
    assert fit.actions(rows) == [Action(frozenset({"forward"}), (1.0, -2.0))]
    assert fit.dropped == ("attack",)
    assert fit.common.names == ("key.forward", "key.back", "mouse.pitch", "mouse.yaw")
    assert [note.split(":")[0] for note in fit.notes()] == ["The model lacks attack", "The recording lacks left, right"]
    assert fit_actions(SPACE, SPACE).notes() == []
    assert np.array_equal(columns_of(rows, SHOOTER, fit.common), [[1, 0, 1, -2]])


def test_a_mouse_on_one_side_and_no_common_key_are_refused() -> None:
    with pytest.raises(DataError, match="the model has a mouse, rec/car has none"):
        fit_actions(SPACE, CAR, "rec/car")
    with pytest.raises(DataError, match="rec/walk has a mouse, the model has none"):
        fit_actions(CAR, SPACE, "rec/walk")
    with pytest.raises(DataError, match="none is shared"):
        fit_actions(SPACE, ActionSpace(("trick",)))


def test_another_size_or_rate_is_refused() -> None:
    check_pictures((32, 64), (32, 64), 25, 25)
    with pytest.raises(DataError, match="pictures of 32x64, the dataset holds 64x112; record it at the model's size"):
        check_pictures((32, 64), (64, 112))
    with pytest.raises(DataError, match="25 frames a second, the dataset holds 16; bring it to 25 with"):
        check_pictures((32, 64), (32, 64), 25, 16)


def test_each_recording_finds_its_judge() -> None:
    assert match_idm(SPACE, [CAR, SPACE], 0, 1) == 1, "by its actions"
    assert match_idm(CAR, [SPACE], 0, 2) is None
    assert match_idm(CAR, [CAR, CAR], 1, 2) == 1, "by its place"
    assert match_idm(SPACE, [SHOOTER], 0, 1) == 0, "what they share is judged"
    with pytest.raises(DataError, match="one --idm for each --data"):
        match_idm(CAR, [CAR, CAR], 0, 1)
    assert shared_space(SHOOTER, SPACE).keys == ("forward", "back")
