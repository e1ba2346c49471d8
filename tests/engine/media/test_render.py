"""Rollouts of a script: a session's frames, with the actions that led to them."""

from __future__ import annotations

import numpy as np

from reverie.engine.media.render import rollout
from reverie.engine.sessions.script import parse

SCRIPT = "forward 5f; yaw+3 1s"


def test_the_rollout_is_the_sessions(engine, picture) -> None:
    script = parse(SCRIPT)
    session = engine.open(picture, seed=4)
    frames = np.concatenate([frames for frames, _ in rollout(session, script)])
    assert len(frames) == 31
    twin = engine.open(picture, seed=4)
    expected = [twin.first_frame, *(twin.step(actions) for actions in script.blocks(4))]
    assert np.array_equal(frames, np.concatenate(expected)[:31])


def test_the_rollouts_actions_lead_to_its_frames(engine, picture) -> None:
    script = parse(SCRIPT)
    blocks = list(rollout(engine.open(picture), script))
    assert all(len(frames) == len(actions) for frames, actions in blocks)
    assert [action for _, actions in blocks[1:] for action in actions] == list(script.actions())
