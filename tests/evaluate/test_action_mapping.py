import numpy as np
import pytest
from tests.helpers.synthetic_recordings import SPACE

from reverie.errors import DataError
from reverie.evaluate.action_mapping import check_frames, columns_of, match_actions, match_idm, shared_space
from reverie.types import Action, ActionSpace

SHOOTER = ActionSpace(("attack", "forward", "back"))
CAR = ActionSpace(("forward", "back", "left", "right"), mouse=False)


def test_actions_are_matched_by_name() -> None:
    mapping = match_actions(SPACE, SHOOTER)
    rows = SHOOTER.encode([Action(frozenset({"attack", "forward"}), (1.0, -2.0))])
    assert mapping.map_rows(rows) == [Action(frozenset({"forward"}), (1.0, -2.0))]
    assert mapping.dropped == ("attack",)
    assert mapping.common.names == ("key.forward", "key.back", "mouse.pitch", "mouse.yaw")
    assert [note.split(":")[0] for note in mapping.notes()] == [
        "The model lacks attack",
        "The recording lacks left, right",
    ]
    assert match_actions(SPACE, SPACE).notes() == []
    assert np.array_equal(columns_of(rows, SHOOTER, mapping.common), [[1, 0, 1, -2]])


def test_a_model_of_several_games_is_never_turned_where_there_is_no_mouse() -> None:
    mapping = match_actions(SPACE, CAR)
    assert mapping.map_rows(CAR.encode([Action(frozenset({"left"}))])) == [Action(frozenset({"left"}))]
    assert not mapping.common.mouse
    assert mapping.notes() == ["The recording has no mouse: the model is never turned."]


def test_turns_are_said_in_the_models_field_of_view() -> None:
    mapping = match_actions(SPACE, SPACE, turn_scale=1.5)
    assert mapping.map_rows(SPACE.encode([Action(mouse=(2.0, -4.0))])) == [Action(mouse=(3.0, -6.0))]
    assert mapping.map_action(Action(mouse=(0.0, 150.0))).mouse == (0.0, 180.0)
    assert "1.50 times" in mapping.notes()[0]


def test_a_mouse_that_the_model_lacks_and_no_common_key_are_refused() -> None:
    with pytest.raises(DataError, match="rec/walk has a mouse, the model has none"):
        match_actions(CAR, SPACE, "rec/walk")
    with pytest.raises(DataError, match="none is shared"):
        match_actions(SPACE, ActionSpace(("trick",)))


def test_another_size_or_rate_is_refused() -> None:
    check_frames((32, 64), (32, 64), 25, 25)
    with pytest.raises(DataError, match="pictures of 32x64, the dataset holds 64x112; record it at the model's size"):
        check_frames((32, 64), (64, 112))
    with pytest.raises(DataError, match="25 frames a second, the dataset holds 16; bring it to 25 with"):
        check_frames((32, 64), (32, 64), 25, 16)


def test_each_recording_finds_its_judge() -> None:
    assert match_idm(SPACE, [CAR, SPACE], 0, 1) == 1, "by its actions"
    assert match_idm(CAR, [SPACE], 0, 2) is None
    assert match_idm(CAR, [CAR, CAR], 1, 2) == 1, "by its place"
    assert match_idm(SPACE, [SHOOTER], 0, 1) == 0, "what they share is judged"
    with pytest.raises(DataError, match="one --idm for each --data"):
        match_idm(CAR, [CAR, CAR], 0, 1)
    assert shared_space(SHOOTER, SPACE).keys == ("forward", "back")
