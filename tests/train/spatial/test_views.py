"""Views of a training: rendered of other episodes, or of the session's own frames."""

from __future__ import annotations

import numpy as np
import torch
from tests.helpers.made_up_packs import PRESET, load_model_config

from reverie.models.checkpoint import ModelBundle
from reverie.train.spatial.encoded_recordings import Store
from reverie.train.spatial.geometry import fit_view_encoder
from reverie.train.spatial.views import ScenePool, ViewPlan, ViewSet, cut_sessions, with_previous


def test_views_are_of_other_episodes_or_of_the_sessions_own_frames(store: Store) -> None:
    memory = ModelBundle.new(load_model_config(store)).memory
    assert memory is not None
    with torch.no_grad():
        assert memory.depth.out.bias is not None
        memory.depth.out.bias[1] = -9.0  # an untrained network must not take everything for the player's body
    store.measure_depth(memory.depth.eval())
    assert fit_view_encoder(memory.view_encoder, store) < 1
    pool = ScenePool(store, per_place=5)
    assert len(pool.keyframes) == 10
    candidates = pool.candidates(["room/room 0", "room/room 1", "elsewhere"], torch.tensor([0, 1, 0]))
    for row, (place, episode) in enumerate((("room/room 0", 0), ("room/room 1", 1))):
        taken = candidates.members[row][candidates.usable[row]].tolist()
        assert {pool.place[i] for i in taken} <= {place}
        assert episode not in {int(pool.episode[i]) for i in taken}
    assert not candidates.usable[2].any()
    whole = ViewSet(store, memory, pool, ViewPlan(scene=1.0, own=True, spoil=False, whole=True))
    assert not whole.drawn[[0, 11, 22, 33]].any(), "a session's first step is given"
    assert whole.cover[whole.drawn].mean() > 0.02
    alone = ViewSet(store, memory, pool, ViewPlan(scene=0.0, own=True, spoil=False, whole=True))
    assert alone.drawn[1:11].all(), "own frames show something, from the second step on"
    assert torch.isfinite(whole.parts).all()
    context = store.z[:11].float()[None]
    parts = with_previous(whole.parts[None, :11], whole.drawn[None, :11], context)
    assert parts.channels.shape == (1, 11, PRESET.world.cond_channels, *PRESET.world.latent[1:])
    assert parts.channels[:, 0].abs().max() == 0
    c = PRESET.world.latent[0]
    torch.testing.assert_close(parts.channels[:, 1:, 4 + c : 4 + 2 * c], context[:, :-1])


def test_sessions_are_cut_within_episodes(store: Store) -> None:
    start = cut_sessions(store, np.random.default_rng(0), whole=False)
    assert (store.episode[start] == store.episode).all()
    assert (start <= np.arange(store.count)).all()
    assert (cut_sessions(store, np.random.default_rng(0), whole=True) == 11 * store.episode).all()
