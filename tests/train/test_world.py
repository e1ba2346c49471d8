"""World training on latents made up for the test: it learns, it listens, it leaves a model that loads."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.helpers.latent_clips import PRESET, clips, config, recording, task, trainer, world_task

from reverie.errors import CheckpointError, DataError, TrainError
from reverie.models import presets
from reverie.models.checkpoint import load_model
from reverie.train.forcing import sink_age
from reverie.train.latents import Clips, joint_space
from reverie.train.trainer import Trainer
from reverie.types import ActionSpace
from reverie.vision.projection import turn_scale


def test_training_learns_what_actions_do_and_leaves_a_model(tmp_path: Path) -> None:
    world = task(tmp_path)
    before = world.validate()
    after = Trainer(world, trainer(tmp_path, 60)).run()
    assert after["next_mse"] < 0.5 * before["next_mse"]
    assert after["wrong_actions_mse"] > 1.5 * after["next_mse"]
    bundle = load_model(tmp_path / "model")
    assert bundle.config.world == PRESET.world
    assert bundle.config.schedule == world.recipe.schedule
    assert list((tmp_path / "samples").glob("*.png"))


def test_a_killed_training_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole = task(tmp_path / "a")
    Trainer(whole, trainer(tmp_path / "a", 6)).run()
    half = task(tmp_path / "b")
    half_config = trainer(tmp_path / "b", 6)

    class Killed(Exception):
        pass

    real, calls = half.loss, []

    def dies(batch: object, generator: torch.Generator) -> object:
        calls.append(None)
        if len(calls) == 4:
            raise Killed
        return real(batch, generator)  # type: ignore[arg-type]

    half.loss = dies  # type: ignore[method-assign, assignment]
    with pytest.raises(Killed):
        Trainer(half, dataclasses.replace(half_config, checkpoint_minutes=0.0)).run()
    again = task(tmp_path / "b")
    Trainer(again, half_config).run()
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name


def test_a_training_that_is_cut_off_leaves_a_model_in_shards(tmp_path: Path) -> None:
    world = task(tmp_path, max_shard_mb=0.05)
    real, calls = world.loss, []

    def dies(batch: object, generator: torch.Generator) -> object:
        calls.append(None)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(batch, generator)  # type: ignore[arg-type]

    world.loss = dies  # type: ignore[method-assign, assignment]
    options = dataclasses.replace(trainer(tmp_path, 6), checkpoint_minutes=0.0, validate_first=False)
    with pytest.raises(KeyboardInterrupt):
        Trainer(world, options).run()
    bundle = load_model(tmp_path / "model")
    assert bundle.config.summary["steps"] == 2
    assert len(list((tmp_path / "model").glob("dit-*-of-*.safetensors"))) > 1
    assert (tmp_path / "model/dit.safetensors.index.json").is_file()
    average = Trainer(task(tmp_path), trainer(tmp_path, 6))
    average._resume()
    for mine, kept in zip(bundle.model.parameters(), average.average.tensors, strict=False):
        torch.testing.assert_close(mine, kept, rtol=1e-2, atol=1e-2)  # bfloat16
    with pytest.raises(CheckpointError, match="--max-shard-mb must be above zero, got -1"):
        task(tmp_path / "none", max_shard_mb=-1.0).export_so_far(tmp_path / "none", {})


def test_hidden_actions_and_own_predictions_train_too(tmp_path: Path) -> None:
    world = task(tmp_path, action_dropout=1.0, self_context=1.0, self_context_from=0.0)
    world.progress = 1.0
    loss, _ = world.loss(world.batch(np.random.default_rng(0)), torch.Generator().manual_seed(0))
    loss.backward()
    assert torch.isfinite(loss)
    assert world.world.head.weight.grad is not None


def test_a_world_that_keeps_its_start_learns_and_loads(tmp_path: Path) -> None:
    preset = dataclasses.replace(PRESET, world=dataclasses.replace(PRESET.world, window=3, sink=1))
    torch.manual_seed(0)
    world = world_task(preset, config(tmp_path), clips(), clips(seed=1))
    before = world.validate()
    after = Trainer(world, trainer(tmp_path, 60)).run()
    assert after["next_mse"] < 0.6 * before["next_mse"]
    assert load_model(tmp_path / "model").config.world.sink == 1
    ages = {sink_age(world.world, torch.Generator().manual_seed(i)) for i in range(50)}
    assert min(ages) < 10
    assert 10_000 < max(ages) < 100_000
    assert sink_age(task(tmp_path / "none").world, torch.Generator()) == 0


def test_clips_stay_inside_their_episode() -> None:
    data = recording(episodes=3, length=7)
    starts = data.starts(5)
    assert all(data.episode[s] == data.episode[s + 4] for s in starts)
    z, rows, picture, _ = Clips([data]).spread(2, 5)
    assert z.shape == (2, 5, 16, 4, 8)
    assert rows.shape == (2, 16, 6)
    assert picture.shape == (2, 3, 16, 32)
    with pytest.raises(DataError, match="8 latent steps"):
        Clips([data]).draw(np.random.default_rng(0), 1, 8)


def two_games() -> Clips:
    """A walker of 120 steps at latents of -1 and 1, and a car of 40 steps at latents of 5 that has no mouse."""
    car = recording(episodes=2)
    five = np.full_like(car.z, 5.0)
    keys = ActionSpace(("handbrake", "forward"), mouse=False)
    car = dataclasses.replace(car, z=five, still=five, rows=np.ones((40, 4, 2), np.float32), action_space=keys)
    return Clips([dataclasses.replace(recording(), fov_deg=60.0), car], fov_deg=90.0)


def test_games_are_joined_by_the_names_of_their_actions() -> None:
    games = two_games()
    assert games.action_space == ActionSpace(("forward", "back", "left", "right", "handbrake"), mouse=True)
    z, rows, *_ = games.draw(np.random.default_rng(0), 200, 5)
    is_car = z[:, 0, 0, 0, 0] == 5
    assert 70 < is_car.sum() < 130  # equally often, though the walker has three times as many
    assert rows[is_car].unique(dim=0).tolist() == [[[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]] * 16]
    assert rows[~is_car][..., 4].max() == 0
    walked = 2 * rows[~is_car][..., 0].unflatten(1, (4, 4)).mean(2) - 1
    assert torch.equal(walked, z[~is_car][:, 1:, 0, 0, 0])


def test_play_is_of_the_game_that_the_picture_is_of() -> None:
    z, rows, *_ = two_games().play(np.random.default_rng(0), 40, 30)
    assert z.shape == (40, 1, 16, 4, 8)
    assert rows.shape == (40, 120, 7)
    assert torch.equal(rows[..., 4].amin(1), (z[:, 0, 0, 0, 0] == 5).float())


def test_turns_are_scaled_to_one_field_of_view() -> None:
    walker = recording()
    walker.rows[..., -1] = 3.0
    _, rows, *_ = Clips([dataclasses.replace(walker, fov_deg=60.0)], fov_deg=90.0).spread(4, 5)
    # half a picture is tan(30) focal lengths in one, tan(45) in the other
    assert rows[..., -1].mean().item() == pytest.approx(3 / np.tan(np.radians(30)), rel=1e-5)
    assert turn_scale(None, 90.0) == turn_scale(90.0, None) == turn_scale(80.0, 80.0) == 1.0


def test_figures_and_sheets_take_from_every_game() -> None:
    games = two_games()
    assert (games.spread(6, 5)[0][:, 0, 0, 0, 0] == 5).sum() == 3
    assert (games.openings(2).z[:, 0, 0, 0, 0] == 5).sum() == 2
    first, again = games.spread(6, 5), games.spread(6, 5)
    assert all(torch.equal(a, b) for a, b in zip(first[:3], again[:3], strict=True))


def test_games_that_do_not_fit_are_refused() -> None:
    small = dataclasses.replace(recording(), z=recording().z[:, :, :2])
    with pytest.raises(DataError, match="several shapes"):
        Clips([recording(), small])
    with pytest.raises(DataError, match=r"has the action key\.back, expected some of key\.forward"):
        Clips([recording()], action_space=ActionSpace(("forward",), mouse=True))
    assert joint_space([ActionSpace((), mouse=False)]) == ActionSpace((), mouse=False)


def test_a_world_learns_two_games(tmp_path: Path) -> None:
    games = two_games()
    preset = presets.tiny(games.action_space)
    world = world_task(preset, config(tmp_path), games, games)
    before = world.validate()
    after = Trainer(world, trainer(tmp_path, 60)).run()
    assert after["next_mse"] < 0.5 * before["next_mse"]
    assert load_model(tmp_path / "model").config.action_space == games.action_space


def test_an_impossible_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="clip_steps"):
        config(tmp_path, clip_steps=1)
