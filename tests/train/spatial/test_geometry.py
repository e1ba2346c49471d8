"""Training of the depth network."""

from __future__ import annotations

import torch
from tests.helpers.made_up_packs import load_model_config

from reverie.models.checkpoint import ModelBundle
from reverie.train.spatial.geometry import check_depth, train_depth
from reverie.train.spatial.store import Store


def test_the_depth_network_learns_the_room(store: Store, counted: None) -> None:
    memory = ModelBundle.new(load_model_config(store)).memory
    assert memory is not None
    torch.manual_seed(0)
    before = check_depth(memory.depth, store)["room"]["depth_error"]
    assert train_depth(memory.depth, store, 16.0, batch=1) == 15
    assert check_depth(memory.depth, store)["room"]["depth_error"] < before
