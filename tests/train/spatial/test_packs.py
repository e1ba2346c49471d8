"""Packs: what is written is what is read, and what is wrong is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.helpers.made_up_packs import EVERY, SIZE, SPACE, write_pack
from tests.helpers.rendered_room import look

from reverie.errors import DataError
from reverie.train.spatial.encoded_recordings import common_actions
from reverie.train.spatial.packs import PackInfo, list_episodes, read_episode, read_episodes, write_episode
from reverie.types import ActionSpace


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    return write_pack(tmp_path / "room", frames=18)


def test_an_episode_is_read_as_it_was_written(pack: Path) -> None:
    [(info, first), (_, second)] = list_episodes([pack])
    assert info == PackInfo("room", 90.0, 1.0, SPACE, EVERY)
    episode = read_episode(info, first)
    assert episode.frames.shape == (17, *SIZE, 3), "whole latent steps: 1 + 4 n frames of 18"
    assert episode.pose.shape == (17, 6)
    assert episode.actions.shape == (16, 4)
    assert episode.depth.shape == episode.body.shape == (3, 64, 112)
    assert (episode.name, episode.place) == ("00000", "room 0")
    assert read_episode(info, second).place == "room 1"
    for i in (0, 16):
        true, _ = look(episode.pose[i].astype(float), SIZE)
        assert np.abs(episode.frames[i].astype(int) - true).mean() < 12, "the video is of these poses, in this order"
        _, depth = look(episode.pose[i].astype(float))
        assert np.abs(episode.depth[i // EVERY] / depth - 1).max() < 0.02
    assert episode.body[0, 60:, 40:70].all()
    assert episode.body.sum() == 3 * 4 * 30


def test_less_of_an_episode(pack: Path) -> None:
    info, path = list_episodes([pack])[0]
    short = read_episode(info, path, max_frames=11)
    assert (len(short.frames), len(short.pose), len(short.actions), len(short.depth)) == (9, 9, 8, 2)
    assert read_episode(info, path, frames=False).frames.size == 0


def test_episodes_come_in_order_whatever_the_threads(pack: Path) -> None:
    write_pack(pack, episodes=5, frames=5)
    episodes = list_episodes([pack])
    assert [one.name for one in read_episodes(episodes, threads=3, ahead=2)] == [f"{i:05d}" for i in range(5)]
    assert len(list_episodes([pack, pack], limit=2)) == 4


def test_what_is_wrong_is_said(pack: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a pack"):
        PackInfo.read(tmp_path)
    for content in ("{", "[]", '{"name": "a"}', "[" * 100_000):
        (tmp_path / "pack.json").write_text(content)
        with pytest.raises(DataError, match="is not a pack"):
            PackInfo.read(tmp_path)
    info, path = list_episodes([pack])[0]
    info.write(tmp_path)
    with pytest.raises(DataError, match="expected episodes"):
        list_episodes([tmp_path])
    zeros, longer = np.zeros((2, 64, 112)), np.zeros((30, 6), np.float32)
    with pytest.raises(DataError, match=r"depth images are \(64, 112\)"):
        write_episode(tmp_path, "a", longer[:5], longer[:4, :4], zeros[:, :32], zeros[:, :32] > 0)
    write_episode(pack, path.stem, longer, np.zeros((29, 4), np.float32), zeros, zeros > 0)
    with pytest.raises(DataError, match="has 18 frames, expected 29; pack the recording again"):
        read_episode(info, path)
    path.with_suffix(".mp4").unlink()
    with pytest.raises(DataError, match="has 0 frames"):
        read_episode(info, path)


def test_actions_are_joined_by_their_names() -> None:
    rows = np.array([[1.0, 0.0, 2.0, 3.0]], np.float32)
    common = ActionSpace(("left", "jump", "forward"), mouse=True)
    assert common_actions(rows, SPACE, common).tolist() == [[0, 0, 1, 2, 3]]
    keys_alone = ActionSpace(("forward", "left"), mouse=False)
    assert common_actions(rows[:, :2], keys_alone, common).tolist() == [[0, 0, 1, 0, 0]]
    with pytest.raises(DataError, match="the model has no key 'forward'"):
        common_actions(rows, SPACE, ActionSpace(("left",), mouse=True))
