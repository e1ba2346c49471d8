"""Scenes of games that can be looked at from anywhere."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tests.helpers.yard_scene import YardWorld, record_yard

from reverie.scenes import capture
from reverie.scenes.assemble import Facts
from reverie.scenes.capture import look_round
from reverie.scenes.keyframes import Keyframes
from reverie.scenes.recordings import read_footage


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Facts, Keyframes]:
    footage = read_footage([record_yard(tmp_path_factory.mktemp("recordings") / "yard", episodes=2, frames=21)])
    space = footage.action_space
    facts = Facts("yard", "yard", footage.fov_deg, footage.pixel_aspect, space.keys, space.mouse, "MIT")
    return facts, footage.frames


def test_what_moved_before_a_recorded_keyframe_is_gone(recorded: tuple[Facts, Keyframes]) -> None:
    """A walker is painted over a tenth of each keyframe, and its depth is a metre."""
    facts, frames = recorded
    world = YardWorld()
    world.reset(0)
    colour, depth = frames.colour.clone(), frames.depth.clone()
    colour[:, :, 20:90, 60:90] = torch.tensor([250, 0, 0], dtype=torch.uint8).view(3, 1, 1)
    depth[:, 10:45, 30:45] = 1.0
    met = dataclasses.replace(frames, colour=colour, depth=depth)
    found = look_round(world, facts, frames, met, 0)
    assert torch.equal(found.pose, frames.pose)
    walker = (..., slice(20, 90), slice(60, 90))
    off = (found.colour.float() - frames.colour.float())[walker].abs().mean()
    assert off < 12.0, "grey levels: recordings have been through a video"
    assert (met.colour.float() - frames.colour.float())[walker].abs().mean() > 5 * off
    torch.testing.assert_close(found.depth, frames.depth, rtol=0.04, atol=0.05)


def test_a_keyframe_from_inside_of_something_stays_as_it_was_recorded(
    recorded: tuple[Facts, Keyframes], monkeypatch: pytest.MonkeyPatch
) -> None:
    facts, frames = recorded
    world = YardWorld()
    world.reset(0)
    blocked = iter([True, *[False] * 1000])
    monkeypatch.setattr(capture, "_is_inside", lambda geometry: next(blocked))
    found = look_round(world, facts, frames, frames, 0)
    assert len(found) == len(frames)
    assert torch.equal(found.colour[-1], frames.colour[0]), "it is the last one now"
    assert torch.equal(found.pose[:-1], frames.pose[1:])


def test_no_more_keyframes_are_added_than_are_wanted(recorded: tuple[Facts, Keyframes]) -> None:
    facts, frames = recorded
    world = YardWorld()
    world.reset(0)
    few = frames.select(torch.arange(0, len(frames), 5))
    found = look_round(world, facts, frames, few, 3)
    assert len(found) == len(few) + 3
    turned = (found.pose[-3:, None, 3] - few.pose[None, :, 3] + 180) % 360 - 180
    assert turned.abs().amin(1).max() > 20, "one of them at least looks where no keyframe does"
