"""A store of packs holds every step of every episode, encoded as it is streamed."""

from __future__ import annotations

import pytest
import torch
from tests.helpers.made_up_packs import PRESET, SIZE, SPACE, Given

from reverie.train.spatial.encoded_recordings import Store


def test_a_store_holds_every_step_of_every_episode(store: Store) -> None:
    assert store.count == 4 * 11
    assert store.first == [0, 11, 22, 33, 44]
    assert store.z.shape == (44, *PRESET.world.latent)
    assert store.last.shape == (44, 3, *SIZE)
    assert store.actions[0].abs().max() == 0, "nothing leads to the first frame"
    assert store.actions[1:11, :, 0].max() == 1
    assert sorted(store.places) == ["room/room 0", "room/room 1"]
    assert len(store.key_step) == len(store.key_depth) == 4 * 6
    assert store.key_step[:6].tolist() == [0, 2, 4, 6, 8, 10]
    # motions are those of the poses, and none leads across episodes
    assert store.motion[[0, 11, 22, 33]].abs().max() == 0
    assert store.motion[1:11, :, 0].amax() == pytest.approx(0.06, abs=1e-3)


def test_a_whole_clip_is_encoded_as_it_is_streamed(store: Store, given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reverie.train.spatial.encoded_recordings.ENCODED_STEPS", 3)
    again = Store([given.packs], store.tokenizer, SPACE, torch.device("cpu"), group=1)
    torch.testing.assert_close(again.z, store.z, atol=5e-3, rtol=1e-2)
    torch.testing.assert_close(again.still, store.still, atol=5e-3, rtol=1e-2)
    assert (again.last.int() - store.last.int()).abs().max() <= 2
    assert torch.equal(again.views, store.views)
