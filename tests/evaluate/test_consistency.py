import numpy as np
import pytest
import torch
from tests.helpers.synthetic_recordings import moving

from reverie.errors import ShapeError
from reverie.evaluate import consistency, metrics
from reverie.types import Action, ActionSpace

VIDEO = moving(9, 2.0)


def test_smooth_motion_is_foretold_by_its_neighbours() -> None:
    shuffled = VIDEO[[0, 4, 1, 7, 3, 8, 2, 6, 5]]
    noisy = np.clip(VIDEO + np.random.default_rng(0).normal(0, 40, VIDEO.shape), 0, 255).astype(np.uint8)
    smooth = consistency.motion_smoothness(VIDEO)
    assert consistency.motion_smoothness(np.repeat(VIDEO[:1], 4, 0)) == pytest.approx(1, abs=1e-3)
    assert smooth > 0.98
    assert consistency.motion_smoothness(shuffled) < smooth - 0.02
    assert consistency.motion_smoothness(noisy) < smooth - 0.02
    with pytest.raises(ShapeError):
        consistency.motion_smoothness(VIDEO[:2])


def test_steadiness_of_features() -> None:
    maps = torch.nn.functional.normalize(torch.randn(4, 6, 3, 5), dim=1)
    assert consistency.temporal_consistency(maps[:1].repeat(3, 1, 1, 1)) == pytest.approx(1)
    assert consistency.temporal_consistency(torch.cat((maps[:1], -maps[:1]))) == pytest.approx(-1)
    assert abs(consistency.temporal_consistency(maps)) < 0.5


def test_the_way_back_undoes_the_way_there() -> None:
    there = [Action(frozenset({"forward", "jump"}), (0.5, 2.0)), Action(frozenset({"left"}))]
    path = consistency.there_and_back(there)
    assert path[:2] == there
    assert path[2:] == [Action(frozenset({"right"})), Action(frozenset({"back", "jump"}), (-0.5, -2.0))]


def test_a_retraced_walk_is_alike_and_a_walk_on_is_not() -> None:
    retraced = np.concatenate([VIDEO, VIDEO[-2::-1]])
    assert consistency.scenario_consistency(retraced) == 1
    assert consistency.scenario_consistency(moving(17, 2.0)) < 0.95
    with pytest.raises(ShapeError, match="1 \\+ 2 n"):
        consistency.scenario_consistency(VIDEO[:4])


def test_a_full_turn_comes_back() -> None:
    turn = consistency.full_turn(ActionSpace(()))
    assert sum(action.mouse[1] for action in turn) == pytest.approx(360)
    assert consistency.full_turn(ActionSpace((), mouse=False)) == []
    assert consistency.loop_closure_db(np.concatenate([VIDEO, VIDEO[:1]])) == metrics.PSNR_CAP_DB
    assert consistency.loop_closure_db(VIDEO) < 25
