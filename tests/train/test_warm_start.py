"""Trainings that go on from a model: published weights at toy size, and models of our own; all weights, or low rank."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.helpers.pretend_gpu import is_there, pretended_gpu
from tests.helpers.published_folders import RESOLUTION, make_published
from tests.helpers.synthetic_recordings import write_recording
from torch import nn
from torch.nn.utils import parametrize

import reverie
from reverie.data.dataset import Dataset
from reverie.engine.engine import Engine, load
from reverie.errors import CheckpointError, DataError, ReverieError, TrainError
from reverie.models import presets
from reverie.models.checkpoint import ModelBundle, ModelConfig, load_model, save_model
from reverie.models.compiled_blocks import TRAINING_PIECES, compile_pieces, num_compiled
from reverie.models.dit import count_parameters
from reverie.models.schedule import Schedule
from reverie.train import encode
from reverie.train.batches import move
from reverie.train.forcing import start_channels
from reverie.train.latents import Clips
from reverie.train.lora import LowRank, adapt, merge
from reverie.train.parallel import Ranks, Shards
from reverie.train.warm_start import open_start
from reverie.train.world import WorldTask, train_world, tuned_task
from reverie.train.world_options import TrainWorldConfig
from reverie.types import Action, ActionSpace

CPU = torch.device("cpu")
FORWARD = Action(frozenset({"forward"}), (0.5, 2.0))


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking takes longer than training at this size."""
    monkeypatch.setattr("reverie.train.world.SAMPLED_STEPS", 6)
    monkeypatch.setattr("reverie.train.world.VALIDATED", 8)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_published(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recording(tmp_path_factory.mktemp("data") / "plane", RESOLUTION, num_frames=61)


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Encoded once for all tests of the universal model."""
    return tmp_path_factory.mktemp("latents")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of our own, untrained but for what would be silent."""
    torch.manual_seed(0)
    preset = presets.tiny()
    parts = {"tokenizer": preset.tokenizer, "image_encoder": preset.image_encoder}
    schedule = Schedule((1.0, 0.6), renoise=True, context_sigma=0.06)
    config = ModelConfig(
        name="mine", resolution=preset.resolution, schedule=schedule, world=preset.world, mouse_fov_deg=90.0, **parts
    )
    bundle = ModelBundle.new(config)
    awaken(bundle.model)
    folder = tmp_path_factory.mktemp("own") / "mine"
    save_model(folder, bundle, dtype=None)
    return folder


def awaken(module: nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))


@pytest.fixture
def options(published: Path, data: Path, latents: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "data": (data,),
        "start": published,
        "resolution": RESOLUTION,
        "latents": latents,
        "output": tmp_path / "run",
        "clip_steps": 6,
        "batch": 4,
        "copies": 1,
        "warmup_steps": 2,
        "device": "cpu",
    }


def play(engine: Engine, picture: np.ndarray) -> np.ndarray:
    session = engine.open(picture, seed=1)
    return np.concatenate([session.step(FORWARD) for _ in range(2)])


def test_openings_are_conditions_of_a_session(options: dict[str, Any], published: Path, data: Path) -> None:
    task = tuned_task(TrainWorldConfig(**options, steps=1), CPU)
    (part,) = task.train.parts
    assert part.opens[:3].tolist() == [0, 9, 16]
    engine = load(published, device="cpu", dtype="float32", resolution=RESOLUTION)
    episode = int(part.episode[9])
    session = engine.open(Dataset(data).clip(episode, 36, 1).frames[0])
    picks = [(0, 9)]
    tokens = task.train._read("tokens", task.train._openings(picks))
    latents = task.train._read("latents", task.train._start_steps(picks, 15))
    assert session._start is not None
    np.testing.assert_allclose(tokens[0], session._image[0], rtol=2e-3, atol=2e-3)
    extra = start_channels(latents, 20)
    with torch.inference_mode():
        expected = torch.cat([session._start.condition(step, 3, 20) for step in range(0, 15, 3)], 1).clone()
    torch.testing.assert_close(extra, expected, rtol=2e-3, atol=2e-3)
    assert (extra[0, 1, 4:] - extra[0, 8, 4:]).abs().max() > 0.01  # the grey is on its way to where it rests
    z, rows, _, start = task.batch(np.random.default_rng(0))
    assert z.shape == (4, 6, 16, 4, 6)
    assert torch.equal(start[:, 0], z[:, 0])
    assert rows[..., -2:].abs().max() > 1  # degrees: the mouse module itself divides them by 15
    assert task.world.config.actions.mouse is not None
    assert task.world.config.actions.mouse.scale == 1 / 15


@pytest.mark.parametrize("lora", [0, 2])
def test_a_tuning_step_stays_on_the_device(options: dict[str, Any], lora: int, monkeypatch: pytest.MonkeyPatch) -> None:
    task = tuned_task(TrainWorldConfig(**options, steps=1, lora=lora), CPU)
    with pretended_gpu(monkeypatch) as gpu:
        task.device = gpu
        task.model.to(gpu)
        task.world.to(gpu)
        task.bundle.tokenizer.to(gpu)
        batch = move(task.batch(np.random.default_rng(0)), gpu)
        loss, scalars = task.loss(batch, torch.Generator(gpu).manual_seed(0))
        loss.backward()
        assert is_there(loss)
        assert all(is_there(value) for value in scalars.values() if isinstance(value, torch.Tensor))
        task.model.eval()
        with torch.no_grad():
            assert np.isfinite(list(task.validate().values())).all()


def test_starts_are_encoded_in_half_precision_too(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU."""
    whole = tuned_task(TrainWorldConfig(**options, steps=1), CPU).train.parts[0]
    monkeypatch.setattr(encode, "fast_autocast", lambda _: torch.autocast("cpu", torch.bfloat16))
    given = options | {"latents": options["output"] / "half"}
    half = tuned_task(TrainWorldConfig(**given, steps=1), CPU).train.parts[0]
    for name in ("z", "still", "tokens", "grey"):
        exact, found = (getattr(part, name).astype(np.float32) for part in (whole, half))
        assert 0 < np.abs(found - exact).max() < 0.1 * np.abs(exact).max() + 0.05, name


def test_latents_without_starts_are_refused_by_a_model_that_generates_its_start(options: dict[str, Any]) -> None:
    config = TrainWorldConfig(**options, steps=1)
    task = tuned_task(config, CPU)
    plain = Clips([dataclasses.replace(part, tokens=None, grey=None) for part in task.train.parts])
    with pytest.raises(DataError, match="encode them anew"):
        WorldTask(task.bundle, config, plain, plain)


def test_all_weights_learn_and_the_model_plays(options: dict[str, Any], published: Path, data: Path) -> None:
    figures = train_world(TrainWorldConfig(**options, steps=30, lr=3e-3, ema=0.5))
    first = json.loads((options["output"] / "log.jsonl").read_text().splitlines()[0])
    assert figures["next_mse"] < 0.9 * first["val/next_mse"]
    assert figures["trained_parameters"] == figures["parameters"]
    folder = options["output"] / "model"
    before, after = open_start(published, resolution=RESOLUTION).config, load_model(folder).config
    assert (after.world, after.schedule, after.resolution) == (before.world, before.schedule, RESOLUTION)
    assert after.summary["variant"] == "universal"
    assert after.summary["tuned"]["steps"] == 30
    picture = Dataset(data).clip(0, 0, 1).frames[0]
    engine = reverie.load(folder, device="cpu", dtype="float32")
    assert play(engine, picture).shape == (21, *RESOLUTION, 3)
    assert reverie.load(folder, device="cpu", dtype="float32", decoder="tiny").open(picture).step(FORWARD).shape[0] == 9
    assert list((options["output"] / "samples").glob("*.png"))


def adapted(task: WorldTask) -> list[LowRank]:
    return [module for module in task.model.modules() if isinstance(module, LowRank)]


def test_low_rank_starts_as_the_model_itself_and_trains_little(options: dict[str, Any], published: Path) -> None:
    task = tuned_task(TrainWorldConfig(**options, steps=1, lora=2), CPU)
    plain = tuned_task(TrainWorldConfig(**options, steps=1), CPU)
    batch = task.batch(np.random.default_rng(0))
    losses = [t.loss(batch, torch.Generator().manual_seed(0))[0] for t in (task, plain)]
    assert torch.equal(*losses)
    trained = [p for p in task.model.parameters() if p.requires_grad]
    linears = [m for m in plain.world.blocks.modules() if isinstance(m, nn.Linear)]
    assert sum(p.numel() for p in trained) == sum(2 * sum(m.weight.shape) for m in linears)
    assert sum(p.numel() for p in trained) < 0.25 * count_parameters([plain.world])
    assert {id(p) for p in task.world.parameters() if p.requires_grad} == {id(p) for p in trained}
    losses[0].backward()
    assert all(a.up.grad is not None and a.up.grad.abs().max() > 0 for a in adapted(task))


def test_low_rank_learns_is_merged_and_goes_on(options: dict[str, Any], data: Path) -> None:
    config = TrainWorldConfig(**options, steps=30, lora=4, lr=1e-2, ema=0.5, name="plane")
    figures = train_world(config)
    run = options["output"]
    first = json.loads((run / "log.jsonl").read_text().splitlines()[0])
    assert figures["next_mse"] < 0.95 * first["val/next_mse"]
    assert figures["trained_parameters"] < 0.5 * figures["parameters"]
    saved = load_file(run / "checkpoints/step-000000030/model.safetensors")
    assert {name.rsplit(".", 1)[1] for name in saved} == {"up", "down"}
    (optimizer,) = torch.load(run / "checkpoints/step-000000030/optimizers.pt", weights_only=True)
    moments = sum(state["exp_avg"].numel() for state in optimizer["state"].values())
    assert moments == figures["trained_parameters"]
    assert load_model(run / "model").config.summary["tuned"]["lora"] == 4
    assert play(reverie.load(run / "model", device="cpu"), Dataset(data).clip(0, 0, 1).frames[0]).shape[0] == 21
    again = train_world(config)  # the same command: nothing is left to do, and nothing is merged twice
    assert again["next_mse"] == pytest.approx(figures["next_mse"], rel=1e-5)


def test_low_rank_in_half_precision_with_activations_worked_out_again(options: dict[str, Any]) -> None:
    grads = []
    for remat in (False, True):
        task = tuned_task(TrainWorldConfig(**options, steps=1, lora=2, remat=remat), CPU)
        if remat:
            task.remat()
        awaken(task.model)
        with torch.autocast("cpu", torch.bfloat16):
            loss, _ = task.loss(task.batch(np.random.default_rng(0)), torch.Generator().manual_seed(0))
        loss.backward()
        grads.append([p.grad for p in task.model.parameters()])
    assert all(torch.equal(x, y) for x, y in zip(*grads, strict=True))
    with pytest.raises(TrainError, match="leave --shard out"):
        Shards(task.model, task.blocks(), Ranks(), CPU)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's doing
def test_low_rank_is_compiled_like_the_model_itself(options: dict[str, Any]) -> None:
    """The pieces of the frozen network around the adapters, once each."""
    torch._dynamo.reset()
    task = tuned_task(TrainWorldConfig(**options, steps=1, lora=2), CPU)
    awaken(task.model)
    batch = task.batch(np.random.default_rng(0))

    def gradients() -> list[torch.Tensor]:
        task.model.zero_grad()
        task.loss(batch, torch.Generator().manual_seed(0))[0].backward()
        return [p.grad.clone() for p in task.model.parameters() if p.grad is not None]

    expected = gradients()
    assert compile_pieces(*task.networks(), backend="eager", pieces=TRAINING_PIECES) > 0
    torch.testing.assert_close(gradients(), expected, rtol=1e-4, atol=1e-5)
    compiled = num_compiled()
    gradients()
    assert num_compiled() == compiled > 0


def test_what_is_merged_is_what_was_adapted(published: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 3))
    before, x = model.state_dict(), torch.randn(5, 6)
    adapters = adapt(model, model, rank=4)
    assert [tuple(a.up.shape) for a in adapters.values()] == [(8, 4), (3, 3)]  # type: ignore[union-attr]
    awaken(adapters)
    expected = model(x)
    with pytest.raises(TrainError, match="adapted already"):
        adapt(model, model, rank=4)
    merge(model)
    assert torch.equal(model(x), expected)
    assert model.state_dict().keys() == before.keys()
    assert not any(parametrize.is_parametrized(module) for module in model.modules())
    with pytest.raises(TrainError, match="at least 1, got 0"):
        adapt(model, model, rank=0)


@pytest.mark.parametrize("lora", [0, 2])
def test_a_model_of_our_own_goes_on(own: Path, tmp_path: Path, lora: int) -> None:
    data = write_recording(tmp_path / "plane", (32, 64), num_frames=61)
    common = {"data": (data,), "batch": 2, "clip_steps": 4, "device": "cpu", "steps": 2, "lora": lora}
    train_world(TrainWorldConfig(**common, start=own, output=tmp_path / "run"))
    before, after = load_model(own), load_model(tmp_path / "run/model")
    assert (after.config.world, after.config.schedule) == (before.config.world, before.config.schedule)
    frames = reverie.load(tmp_path / "run/model", device="cpu").open(np.zeros((32, 64, 3), np.uint8)).step(FORWARD)
    assert frames.shape == (4, 32, 64, 3)
    # and on from the training's own folder, with all that its model says
    train_world(TrainWorldConfig(**common, start=tmp_path / "run", output=tmp_path / "more"))
    assert load_model(tmp_path / "more/model").config.summary["tuned"]["lora"] == lora


def test_weights_alone_are_taken_by_a_preset(own: Path, tmp_path: Path) -> None:
    data = write_recording(tmp_path / "plane", (32, 64), num_frames=61)
    common = {
        "data": (data,),
        "tokenizer": own,
        "preset": "tiny",
        "batch": 2,
        "clip_steps": 4,
        "device": "cpu",
    }
    train_world(TrainWorldConfig(**common, steps=2, output=tmp_path / "run"))
    more = TrainWorldConfig(**common, steps=1, start=tmp_path / "run", output=tmp_path / "more")
    train_world(more)
    assert load_model(tmp_path / "more/model").config.name == "nano"


def test_a_key_that_is_down_when_no_other_is(published: Path, tmp_path: Path) -> None:
    space = ActionSpace(("jump", "left"), mouse=False)
    data = write_recording(tmp_path / "temple", RESOLUTION, space, num_frames=61)
    config = TrainWorldConfig(
        data=(data,), start=published, variant="templerun", resolution=RESOLUTION, output=tmp_path / "run", clip_steps=6
    )
    task = tuned_task(config, CPU)
    assert task.train.action_space.keys[0] == "still"
    _, rows, *_ = task.batch(np.random.default_rng(0))
    assert torch.equal(rows[..., 0], (rows[..., 1:].sum(-1) == 0).float())
    assert rows[..., 1].sum() + rows[..., 5].sum() > 0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"preset": "nano"}, "says what it is; leave --preset out"),
        ({"window": 4, "sink": 1}, "leave --window and --sink out"),
        ({"lora": -1}, "--lora is a rank"),
        ({"clip_steps": 8}, "blocks of 3 steps, so a clip has 3, 6, 9, 12, 15"),
        ({"resolution": (64, 64)}, r"plane was recorded at 32x48, matrix-game-2-universal was made for 64x64"),
        ({"variant": "gta"}, r"plane has the action key.left, which matrix-game-2-gta lacks; it knows key.forward"),
        ({"variant": "doom"}, "no variant 'doom'"),
        ({"start": Path("nowhere")}, "no model folder at nowhere"),
        ({"start": None}, "a world is trained on a tokenizer"),
        ({"start": None, "tokenizer": Path("tok"), "lora": 4}, "are for a model to start from"),
    ],
)
def test_what_does_not_fit_is_said_at_once(options: dict[str, Any], changes: dict[str, Any], says: str) -> None:
    if str(changes.get("start")) == "nowhere":
        changes = {**changes, "resolution": None}
    with pytest.raises(ReverieError, match=says):
        train_world(TrainWorldConfig(**{**options, "steps": 1, **changes}))
    assert not options["output"].exists()


def test_options_of_published_weights_alone(own: Path, options: dict[str, Any]) -> None:
    with pytest.raises(TrainError, match="leave --variant and --resolution out"):
        train_world(TrainWorldConfig(**{**options, "start": own, "steps": 1}))
    with pytest.raises(TrainError, match="field of view of 90"):
        train_world(TrainWorldConfig(**{**options, "start": own, "resolution": None, "fov_deg": 60.0, "steps": 1}))
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        open_start(options["data"][0].parent)
