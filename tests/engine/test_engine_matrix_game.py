"""Matrix-Game 2.0 played: from a folder, from a hub's cache and converted; sessions without end."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.helpers.naive_matrix_game import make_config
from tests.helpers.published_folders import RESOLUTION, VARIANTS, make_published

from reverie import cli, sampling
from reverie.engine.engine import Engine, load
from reverie.engine.loading import hardware_check
from reverie.engine.sessions import states
from reverie.engine.sessions.start_latents import StartStream
from reverie.errors import ActionError, CheckpointError
from reverie.models.adapters import matrix_game
from reverie.models.dit import WorldModel
from reverie.models.state import ConditionChannels, WorldState
from reverie.serve.sources import ModelSource
from reverie.types import Action, World

FORWARD = Action(frozenset({"forward"}), (0.5, 2.0))
BACK = Action(frozenset({"back"}), (0.0, -3.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_published(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def engine(folder) -> Engine:
    return load(folder, device="cpu", dtype="float32", variant="universal", resolution=RESOLUTION)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*RESOLUTION, 3), dtype=np.uint8)


def play(session, num_blocks: int) -> np.ndarray:
    return np.concatenate([session.step((FORWARD, BACK)[i % 2]) for i in range(num_blocks)])


def test_a_session_is_a_world(engine, picture) -> None:
    session = engine.open(picture)
    world: object = session
    assert isinstance(world, World)
    assert np.array_equal(session.reset(1), picture[None])
    assert (session.block_frames, session.next_frames) == (12, 9)
    frames = session.step(FORWARD)
    assert frames.shape == (9, *RESOLUTION, 3)
    assert frames.dtype == np.uint8
    assert session.next_frames == 12
    assert session.step(FORWARD).shape == (12, *RESOLUTION, 3)
    assert session.num_frames == 1 + 9 + 12
    assert np.array_equal(session.reset(0), picture[None])
    assert session.next_frames == 9


def test_one_action_for_each_frame(engine, picture) -> None:
    one, two, three = (engine.open(picture) for _ in range(3))
    assert np.array_equal(one.step(FORWARD), two.step([FORWARD] * 9))
    assert np.array_equal(one.step(FORWARD), two.step([FORWARD] * 12))
    changed = three.step([FORWARD] * 8 + [BACK])
    assert not np.array_equal(changed, engine.open(picture).step(FORWARD))  # the last frame's action counts too
    with pytest.raises(ActionError, match="one action or 12, one per frame; got 9"):
        one.step([FORWARD] * 9)
    with pytest.raises(ActionError, match="one action or 9"):
        engine.open(picture).step([FORWARD] * 12)


def test_nothing_leads_to_the_start_frame(engine, picture) -> None:
    one, two = engine.open(picture), engine.open(picture)
    assert np.array_equal(one.step([BACK] + [FORWARD] * 8), two.step([FORWARD] * 9))
    assert np.array_equal(one.step(FORWARD), two.step(FORWARD))


def test_the_laws_of_sessions(engine, picture, tmp_path) -> None:
    session = engine.open(picture, seed=3)
    fresh = play(session, 4)
    snapshot, twin = session.snapshot(), session.fork()
    expected = play(session, 3)
    assert np.array_equal(play(twin, 3), expected)
    session.restore(snapshot)
    assert np.array_equal(play(session, 3), expected)
    session.reset(3)
    assert np.array_equal(play(session, 4), fresh)
    other = engine.open(picture[::-1].copy(), seed=9)
    other.restore(snapshot)
    assert np.array_equal(play(other, 3), expected)
    assert np.array_equal(other.reset(3), picture[None])
    assert np.array_equal(play(other, 4), fresh)
    other.reset(4)
    assert not np.array_equal(play(other, 4), fresh)


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_variant_plays(folder, picture, variant: str) -> None:
    engine = load(folder, device="cpu", dtype="float32", variant=variant, resolution=RESOLUTION)
    session = engine.open(picture)
    key = engine.action_space.keys[-1]
    assert session.step(Action(frozenset({key}))).shape[0] == 9
    assert not np.array_equal(session.step(Action(frozenset({key}))), session.fork().step(Action()))


def test_no_key_held_is_standing_still(folder, picture) -> None:
    engine = load(folder, device="cpu", dtype="float32", variant="templerun", resolution=RESOLUTION)
    still, jump = frozenset({"still"}), frozenset({"jump"})
    session = engine.open(picture)
    assert session._encode(Action())[0, 0].tolist() == [1, 0, 0, 0, 0, 0, 0]
    assert session._encode(Action(still))[0, 0].tolist() == [1, 0, 0, 0, 0, 0, 0]
    assert session._encode(Action(jump))[0, 0].tolist() == [0, 1, 0, 0, 0, 0, 0]
    assert session._encode(Action(jump | still))[0, 0].tolist() == [0, 1, 0, 0, 0, 0, 0]


def test_the_tiny_decoder(folder, picture) -> None:
    options = {"device": "cpu", "dtype": "float32", "variant": "universal", "resolution": RESOLUTION}
    tiny = load(folder, decoder="tiny", **options)
    session = tiny.open(picture)
    assert [session.step(FORWARD).shape[0] for _ in range(2)] == [9, 12]
    snapshot = session.snapshot()
    expected = play(session, 2)
    session.restore(snapshot)
    assert np.array_equal(play(session, 2), expected)
    with pytest.raises(CheckpointError, match="tiny"):
        load(folder, **options).open(picture).restore(snapshot)
    with pytest.raises(CheckpointError, match="no decoder 'huge'"):
        load(folder, decoder="huge", **options)


def test_half_precision_plays(folder, picture) -> None:
    engine = load(folder, device="cpu", dtype="bfloat16", variant="gta", resolution=RESOLUTION)
    assert play(engine.open(picture), 3).shape[0] == 33


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_converted_folder_plays_the_same(folder, engine, picture, tmp_path, dtype: str) -> None:
    target = tmp_path / "mine"
    words = ["convert", str(folder), str(target), "--variant", "universal", "--resolution", *map(str, RESOLUTION)]
    assert cli.main([*words, "--dtype", dtype]) == 0
    files = {file.name for file in target.iterdir()}
    own = {"dit.safetensors", "tokenizer.safetensors", "image_encoder.safetensors", "tiny_decoder.safetensors"}
    assert files == {"config.json", "README.md", *own}
    mine = load(target, device="cpu", dtype="float32")
    assert mine.action_space == engine.action_space
    frames, expected = (play(e.open(picture, seed=5), 3) for e in (mine, engine))
    if dtype == "float32":
        assert np.array_equal(frames, expected)
    else:
        assert np.abs(frames.astype(int) - expected).mean() < 10
    assert load(target, device="cpu", dtype="float32", decoder="tiny").open(picture).step(FORWARD).shape[0] == 9


def test_a_converted_folder_in_shards(folder, engine, picture, tmp_path) -> None:
    target = tmp_path / "mine"
    words = ["convert", str(folder), str(target), "--variant", "universal", "--resolution", *map(str, RESOLUTION)]
    assert cli.main([*words, "--dtype", "float32", "--max-shard-mb", "0.1"]) == 0
    assert len(list(target.glob("dit-*-of-*.safetensors"))) > 1
    mine = load(target, device="cpu", dtype="float32")
    assert np.array_equal(play(mine.open(picture, seed=5), 2), play(engine.open(picture, seed=5), 2))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["SRC", "DST", "--dtype", "int3"], "unknown dtype 'int3'"),
        (["SRC", "DST", "--max-shard-mb", "0"], "--max-shard-mb must be above zero, got 0"),
        (["SRC", "SRC"], "is there already"),
        (["EMPTY", "DST"], "holds no published Matrix-Game 2.0 weights"),
        (["SRC", "DST", "--variant", "doom"], "no variant 'doom'"),
        (["SRC", "DST", "--tiny-decoder", "nowhere.pth"], "nowhere.pth is missing"),
    ],
)
def test_what_cannot_be_converted(folder, tmp_path, capsys, words: list[str], says: str) -> None:
    (tmp_path / "empty").mkdir()
    places = {"SRC": str(folder), "DST": str(tmp_path / "new"), "EMPTY": str(tmp_path / "empty")}
    assert cli.main(["convert", *(places.get(word, word) for word in words)]) == 2
    assert says in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "new").exists()


def test_a_wrong_variant_for_a_converted_folder(folder, tmp_path) -> None:
    target = tmp_path / "gta"
    assert cli.main(["convert", str(folder), str(target), "--variant", "gta", "--resolution", "32", "48"]) == 0
    with pytest.raises(CheckpointError, match="holds the variant 'gta', not 'universal'"):
        load(target, device="cpu", variant="universal")
    with pytest.raises(CheckpointError, match="resolution is chosen when it is converted"):
        load(target, device="cpu", resolution=(64, 64))
    with pytest.raises(CheckpointError, match="has no variants"):
        load("nano", device="cpu", variant="gta")


def test_a_video_and_a_measured_rollout(folder, picture, tmp_path) -> None:
    """Callers that give one action per frame meet a first block of another length."""
    from reverie.engine.media.render import rollout
    from reverie.engine.sessions.script import parse
    from reverie.env import DreamEnv
    from reverie.evaluate.rollout import roll

    engine = load(folder, device="cpu", dtype="float32", variant="templerun", resolution=RESOLUTION)
    script = parse("turn-left 6f; jump 20f")
    pieces = list(rollout(engine.open(picture), script))
    assert [len(frames) for frames, _ in pieces] == [1, 9, 12, 5]
    assert [a for _, actions in pieces[1:] for a in actions] == list(script.actions())
    frames = np.concatenate([frames for frames, _ in pieces])
    assert np.array_equal(roll(engine, picture, list(script.actions()), seed=0), frames)
    env = DreamEnv(engine.open(picture), per_frame=True)
    env.reset(seed=0)
    lengths = [len(env.step(env.action_space.sample())[4]["frames"]) for _ in range(2)]
    assert lengths == [12, 12], "a shorter first block is filled up, so that all infos are alike"


@pytest.fixture
def hub(folder, tmp_path, monkeypatch) -> Path:
    """A hub's cache that holds the published repository, but for one variant's weights."""
    repository = tmp_path / "models--Skywork--Matrix-Game-2.0"
    commit = "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(folder, repository / "snapshots" / commit)
    (repository / "snapshots" / commit / "gta_distilled_model" / "gta_keyboard2dim.safetensors").unlink()
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


def test_a_hub_s_model_is_found_in_the_cache(hub, picture) -> None:
    told: list[str] = []
    engine = load(
        "Skywork/Matrix-Game-2.0",
        device="cpu",
        dtype="float32",
        variant="templerun",
        resolution=RESOLUTION,
        progress=lambda share, text: told.append(text),
    )
    assert engine.name == "matrix-game-2-templerun"
    fetched = [text.split()[1] for text in told if text.startswith("fetching")]
    assert "templerun_distilled_model/templerun_7dim_onlykey.safetensors" in fetched
    assert not any("base_distilled_model" in name or "gta" in name for name in fetched)
    assert engine.open(picture).step(Action()).shape[0] == 9


def test_a_hub_s_model_of_our_own(hub, folder, picture) -> None:
    place = hub / "models--someone--mine" / "snapshots" / "abc"
    words = ["--variant", "gta", "--resolution", "32", "48"]
    assert cli.main(["convert", str(folder), str(place), *words]) == 0
    (hub / "models--someone--mine" / "refs").mkdir()
    (hub / "models--someone--mine" / "refs" / "main").write_text("abc")
    assert load("someone/mine", device="cpu", dtype="float32").open(picture).step(Action()).shape[0] == 9
    source = ModelSource("someone/mine", device="cpu", variant="gta", decoder="full")
    spec = source.load(lambda share, text: None)
    assert (spec.name, spec.block_frames, spec.resolution) == ("matrix-game-2-gta", 12, RESOLUTION)
    world = source.open(picture, seed=1)
    assert np.array_equal(world.reset(1), picture[None])
    steer = spec.bindings.action(frozenset({"KeyW", "KeyD"}), (4.0, 0.0), spec.block_frames)
    assert [len(world.step(steer)) for _ in range(2)] == [9, 12]
    world.close()


def test_what_a_hub_has_not(hub, monkeypatch) -> None:
    roomy = hardware_check.Machine(device="cpu", name="roomy", driver="", free_bytes=2**40, total_bytes=2**40)
    monkeypatch.setattr(hardware_check, "read_machine", lambda device: roomy)
    with pytest.raises(CheckpointError, match=r"gta_keyboard2dim.safetensors.* is not in the local cache"):
        load("Skywork/Matrix-Game-2.0", device="cpu", variant="gta")
    with pytest.raises(CheckpointError, match=r"someone/else .* is not in the local cache"):
        load("someone/else", device="cpu")
    with pytest.raises(CheckpointError, match="no variant 'doom'"):
        load("Skywork/Matrix-Game-2.0", device="cpu", variant="doom")


# ------------------------------------------------------------------------------------------------- without end


@torch.inference_mode()
def test_the_grey_after_the_picture_comes_to_rest(engine, picture) -> None:
    tokenizer = engine.bundle.tokenizer
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 127.5 - 1
    stream = StartStream(tokenizer, pixels)
    assert stream.num_steps == 1
    stream.latents(0, 3)
    assert (stream.num_steps, stream.is_settled) == (3, False)
    late = stream.latents(5000, 3)
    assert stream.is_settled
    kept = stream.num_steps
    assert 20 < kept < 40
    assert torch.equal(late[:, 0], late[:, 2])
    whole = torch.cat([pixels[:, None], torch.zeros(1, 4 * (kept + 4), 3, *RESOLUTION)], 1)
    wanted = tokenizer.encode(whole)
    torch.testing.assert_close(stream.latents(0, kept + 5), wanted, atol=1e-5, rtol=0)
    assert torch.equal(stream.latents(10**9, 1), late[:, :1])
    assert stream.num_steps == kept
    mask = stream.condition(0, 3, 20)[0, :, :4]
    assert mask[0].eq(1).all()
    assert mask[1:].eq(0).all()
    assert stream.condition(3, 3, 20)[0, :, :4].eq(0).all()


def small_model() -> WorldModel:
    config = matrix_game.read_config(make_config(dim=24, ffn=24, layers=1, hidden=4), (16, 2, 2), 3, 8)
    model = WorldModel(dataclasses.replace(config, freq_dim=16)).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


def at(model: WorldModel, step: int) -> WorldState:
    """A state that has come to `step`, its window filled with the same blocks whatever `step` is."""
    state = model.new_state()
    sampling.show(model, torch.ones(1, 3, 8), state)
    state.step = step
    for cache in state.caches:
        cache.step = step
    generator = torch.Generator().manual_seed(1)
    rows = torch.rand(1, 12, 6, generator=generator)
    for _ in range(2):
        advance(model, state, rows, generator)
    return state


def advance(model: WorldModel, state: WorldState, rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    extra = ConditionChannels(torch.zeros(1, 3, 20, 2, 2))
    rows = rows[:, -model.config.block_rows(state.step) :]
    return sampling.advance(model, rows, matrix_game.schedule(), state, generator, extra)


@torch.inference_mode()
@pytest.mark.parametrize("step", [30, 1023, 1026, 10_002, 3_000_000])
def test_a_window_does_not_know_how_long_ago_it_all_began(step: int) -> None:
    model = small_model()
    early, late = at(model, 6), at(model, step)
    rows = torch.rand(1, 12, 6)
    for seed in range(3):
        z = [advance(model, state, rows, torch.Generator().manual_seed(seed)) for state in (early, late)]
        torch.testing.assert_close(z[0], z[1], atol=2e-5, rtol=0)


@torch.inference_mode()
def test_a_dream_goes_on_past_the_reference_s_last_step() -> None:
    """The public code has positions for 1,024 steps; here 1,100 are dreamt one after another, and memory stays."""
    model = small_model()
    state = model.new_state()
    sampling.show(model, torch.ones(1, 3, 8), state)
    generator = torch.Generator().manual_seed(0)
    rows = torch.rand(1, 12, 6)
    places = [tensor.data_ptr() for tensor in states.flatten(state)[0].values()]
    z = torch.zeros(())
    for _ in range(367):
        z = advance(model, state, rows, generator)
    assert state.step == 1101
    assert z.isfinite().all()
    assert [tensor.data_ptr() for tensor in states.flatten(state)[0].values()] == places


@pytest.mark.slow
def test_a_session_of_ten_thousand_steps(engine, picture) -> None:
    """Frames and all: memory is flat, and it still obeys.  (That the numbers are right is shown above.)"""
    from reverie.hardware import rss_mib

    session = engine.open(picture)
    before, frames = 0.0, session.first_frame
    for block in range(3400):
        frames = session.step((FORWARD, BACK)[block // 5 % 2])
        if block == 100:
            before = rss_mib()
    assert session.state["world"].step == 10_200
    assert rss_mib() - before < 20
    assert frames.std() > 0
    assert not np.array_equal(session.fork().step(FORWARD), session.fork().step(BACK))
