"""Training of the depth network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.helpers.made_up_packs import load_model_config
from tests.helpers.small_model import save_untrained_model
from tests.helpers.yard_scene import record_yard

from reverie import cli
from reverie.data.dataset import Dataset
from reverie.errors import DataError
from reverie.models.checkpoint import ModelBundle, load_model
from reverie.train.spatial import depth
from reverie.train.spatial.depth import DepthImages, check_depth, read_depth_images, train_depth
from reverie.train.spatial.encoded_recordings import Store


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record_yard(tmp_path_factory.mktemp("recordings") / "yard", episodes=8, frames=29)


def test_the_depth_network_learns_the_room(store: Store, counted: None) -> None:
    memory = ModelBundle.new(load_model_config(store)).memory
    assert memory is not None
    torch.manual_seed(0)
    images = store.depth_images()
    before = check_depth(memory.depth, images, store.games)["room"]
    assert train_depth(memory.depth, images, 16.0, batch=2) == 15
    after = check_depth(memory.depth, images, store.games)["room"]
    assert after.depth < before.depth
    assert "of the view taken for one wrongly" in str(after)


def test_errors_are_of_each_game_alone() -> None:
    """A network that is right about one game, and half as far in the other."""
    depth = torch.full((4, 64, 112), 6.0)
    depth[2:] = 12.0
    hidden = torch.zeros(4, 64, 112, dtype=torch.bool)
    hidden[:, :32] = True
    images = DepthImages(torch.zeros(4, 3, 64, 112, dtype=torch.uint8), depth.half(), hidden, np.array([0, 0, 1, 1]))

    class Six(torch.nn.Module):
        def forward(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            logits = torch.full((len(frames), 64, 112), -9.0)
            logits[:, :16] = 9.0
            return torch.full((len(frames), 64, 112), 6.0).log(), logits

    errors = check_depth(Six(), images, ["near", "far", "absent"])  # type: ignore[arg-type]
    assert list(errors) == ["near", "far"]
    assert errors["near"].depth == pytest.approx(0.0, abs=1e-6)
    assert errors["far"].depth == errors["far"].near == pytest.approx(1.0, abs=1e-5)
    assert (errors["near"].body_found, errors["near"].body_false) == (0.5, 0.0)


def test_frames_with_depth_are_read_from_recordings(recording: Path) -> None:
    train, held_out, names = read_depth_images([recording])
    dataset = Dataset(recording)
    frames = sum(len(dataset.depth(i).frames) for i in range(len(dataset.episodes)))  # type: ignore[union-attr]
    assert names == ("yard",)
    assert len(train.game) + len(held_out.game) == frames
    assert 0 < len(held_out.game) < len(train.game)
    assert train.colour.shape[1:] == (3, *train.depth.shape[1:])
    with pytest.raises(DataError, match="expected frames with depth, got none"):
        DepthImages.join([])


def test_of_long_recordings_images_are_spread_evenly(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _, _ = read_depth_images([recording])
    monkeypatch.setattr(depth, "IMAGES", 16)
    train, held_out, _ = read_depth_images([recording])
    assert len(train.game) + len(held_out.game) == 16, "two of each of eight episodes"
    assert torch.equal(train.depth[0], whole.depth[0])
    per_episode = len(whole.game) // (len(train.game) // 2)
    assert torch.equal(train.depth[1], whole.depth[per_episode - 1]), "the first and the last"


def test_a_models_geometry_is_trained_again(
    recording: Path, tmp_path: Path, counted: None, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_untrained_model(tmp_path / "model", Dataset(recording).action_space)
    args = ["train", "geometry", str(model), str(recording), "--depth-minutes", "0.1", "--depth-batch", "2"]
    assert cli.main([*args, "--epochs", "2", "-o", str(tmp_path / "new")]) == 0
    told = capsys.readouterr().out
    assert "yard, after a second:" in told
    assert "% off (median;" in told
    assert "; before: " in told
    old, new = load_model(model), load_model(tmp_path / "new")
    changed = {
        name.split(".")[0]
        for (name, a), b in zip(old.memory.state_dict().items(), new.memory.state_dict().values(), strict=True)  # type: ignore[union-attr]
        if not torch.equal(a.half(), b.half())
    }
    assert changed == {"depth", "ego_motion"}
    assert all(torch.equal(a, b) for a, b in zip(old.model.parameters(), new.model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--depth-minutes", "0", "--epochs", "0"], "one of them more, got 0 and 0"),
        (["--depth-minutes", "-1"], "must be at least 0"),
        (["--depth-batch", "0"], "--depth-batch must be at least 1, got 0"),
    ],
)
def test_amounts_of_training_that_make_no_sense(
    recording: Path, tmp_path: Path, args: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", "geometry", "nano", str(recording), *args, "-o", str(tmp_path / "new")]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
