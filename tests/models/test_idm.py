"""The inverse-dynamics model: what it sees, and the labels that it gives.  Its training: `train/test_idm.py`."""

from __future__ import annotations

import numpy as np
import pytest
from tests.helpers.synthetic_recordings import moving

from reverie.models.idm import IDMConfig, InverseDynamics, look
from reverie.types import ActionSpace


def test_what_it_sees_of_a_shift() -> None:
    views = look(moving(5, 3.0, size=(128, 224)))
    assert views.flow.shape == (4, 3, 16, 28)
    assert views.pictures.shape == (5, 3, 32, 56)
    assert float(np.median(views.flow[:, 0])) == pytest.approx(-3.0, abs=0.4)


def test_labels_fit_the_frames() -> None:
    model = InverseDynamics(IDMConfig(action_space=ActionSpace(("left",), mouse=False), width=32)).eval()
    assert model.label(moving(9, 1.0, size=(64, 112))).shape == (8, 1)
