"""Whatever stops a recipe is one line, and nothing that was finished is lost."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from tests.helpers.made_up_packs import SPACE, write_pack
from tests.helpers.small_model import save_untrained_model
from tests.helpers.synthetic_recordings import write_recording

from reverie.errors import CheckpointError, DataError, DeviceError, ReverieError, TrainError
from reverie.models.checkpoint import load_model
from reverie.models.presets import PRESETS
from reverie.train import recipes
from reverie.train.checkpoints import FolderLock
from reverie.train.recipes import run
from reverie.train.spatial import machine
from reverie.train.spatial import stages as stages_module
from reverie.train.spatial.plans import Recipe, tiny
from reverie.train.spatial.stages import Stages, training_seconds
from reverie.train.spatial.task import SpatialTask
from reverie.types import ActionSpace

GPU_IS_GONE = "CUDA error: unspecified launch failure\nCUDA kernel errors might be asynchronously reported"
RECIPE = dataclasses.replace(tiny(), steps=6, sheet_steps=0, export_minutes=1e-4)


pytestmark = pytest.mark.usefixtures("counted")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("given")
    write_pack(folder / "room", 3)
    write_pack(folder / "held" / "room", 1, seed=1)
    save_untrained_model(folder / "tokenizer", SPACE)
    return folder


def begin(given: Path, output: Path, recipe: Recipe = RECIPE, **options: Any) -> list[str]:
    """A run; returns its lines, without the seconds in front."""
    lines: list[str] = []
    packs, held_out = options.pop("packs", given / "room"), given / "held" / "room"
    run(recipe, [packs], [held_out], given / "tokenizer", output, "cpu", say=lines.append, **options)
    return [line.partition("] ")[2] if line.startswith("[") else line for line in lines]


def failing(at: int, error: BaseException, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, whose call number `at` raises."""
    calls = itertools.count()

    def call(*args: Any, **options: Any) -> Any:
        if next(calls) == at:
            raise error
        return function(*args, **options)

    return call


def test_a_gpu_that_vanishes_is_one_line_and_loses_nothing(
    given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(recipes, "train_ego_motion_of", failing(0, RuntimeError(GPU_IS_GONE), lambda *_: None))
        with pytest.raises(
            TrainError, match=r"the GPU failed in the stage ego-motion .CUDA error: unspecified"
        ) as told:
            begin(given, tmp_path)
    assert "\n" not in str(told.value)
    assert "run the same command to go on" in str(told.value)
    encoded = {path: path.stat().st_mtime_ns for path in (tmp_path / "latents").iterdir()}
    assert encoded

    with monkeypatch.context() as patch:
        patch.setattr(recipes, "train_depth_of", lambda *_: pytest.fail("depth was trained before"))
        patch.setattr(SpatialTask, "loss", failing(3, torch.OutOfMemoryError("CUDA out of memory."), SpatialTask.loss))
        with pytest.raises(TrainError, match=r"the GPU failed in training .CUDA out of memory.*end what else uses"):
            begin(given, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "latents").iterdir()} == encoded
    assert (tmp_path / "run/model/config.json").is_file()
    checkpoints = sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir())
    assert checkpoints[-1] == "step-000000003"

    taken = []
    loss = SpatialTask.loss
    monkeypatch.setattr(SpatialTask, "loss", lambda *args: taken.append(1) or loss(*args))
    lines = begin(given, tmp_path)
    assert len(taken) == 3, "steps 3, 4 and 5"
    assert any(line.startswith("done") for line in lines)
    assert begin(given, tmp_path) == [f"done already: {tmp_path / 'run/model'}"]


def test_what_a_killed_start_has_used_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages_module, "BEAT_S", 0.01)
    monkeypatch.setattr(stages_module, "MIN_REMINDER_S", 0.05)
    lines: list[str] = []
    killed, after, deadline = tmp_path / "killed", tmp_path / "after", time.monotonic() + 20
    killed.mkdir()
    stages = Stages(killed, ["a", "b", "c"], {}, 4.0, lines.append)

    def on_disk() -> dict[str, Any]:
        return json.loads((killed / "stages.json").read_text())

    with stages.stage("a"):
        pass
    with stages.stage("b"):
        while (on_disk()["used_s"] < 0.3 or len(lines) < 4) and time.monotonic() < deadline:
            time.sleep(0.01)
        shutil.copytree(killed, after)  # what a kill would leave
    kept = json.loads((after / "stages.json").read_text())
    assert set(kept["done"]) == {"a"}
    assert kept["now"].startswith("stage 2 of 3: b; done: a; then: c; ")
    assert all(line.startswith("stage 2 of 3: b; done: a; then: c; ") for line in lines[1:4]), "said again"
    again = Stages(after, ["a", "b", "c"], {}, 4.0, lines.append)
    assert again.used_s >= kept["used_s"] >= 0.3
    assert again.left_s == pytest.approx(4.0 - again.used_s, abs=0.01)
    with stages.stage("c"):
        pass
    assert on_disk()["now"] == "done"


def test_lost_time_is_taken_from_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(monotonic=lambda: clock.now, now=0.0)
    monkeypatch.setattr(stages_module, "time", clock)

    def start(at: float) -> Stages:
        clock.now = at
        return Stages(tmp_path, ["views", "training"], {}, 100.0, lambda _: None)

    stages = start(0.0)
    clock.now = 30.0
    assert training_seconds(stages, 10.0, 0.0) == 60.0, "100 less 30 and a tail of 10"
    stages.keep("training_seconds", 60.0)
    clock.now = 50.0
    stages.keep("x", 1)  # the last note: 20 s trained, 15 of which are in a checkpoint
    stages = start(1000.0)
    clock.now = 1008.0  # views again
    assert training_seconds(stages, 10.0, 15.0) == 15.0 + 100.0 - 50.0 - 8.0 - 10.0
    clock.now = 2000.0
    assert training_seconds(stages, 10.0, 15.0) == 15.0, "what is trained is kept, and exported"
    with pytest.raises(TrainError, match=r"a budget of 100 s leaves -\d+ s for training; give more minutes"):
        training_seconds(stages, 10.0, 0.0)


def test_a_gpu_with_too_little_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (3 * 2**30, 80 * 2**30))
    gpu, recipe = torch.device("cuda"), dataclasses.replace(RECIPE, gpu_memory_gib=10.0)
    with pytest.raises(DeviceError, match=r"needs 10 GiB of GPU memory, 3\.0 are free; end what else uses it"):
        machine.check_machine(recipe, gpu, tmp_path, 0.0)
    fits = dataclasses.replace(RECIPE, gpu_memory_gib=1.0)
    machine.check_machine(fits, gpu, tmp_path, 0.0)
    preset = PRESETS["nano"](SPACE)
    machine.check_data_fits(1000, 10, preset, fits, gpu)
    with pytest.raises(TrainError, match=r"100 episodes \(10000 steps\) need .* give packs of \d+ episodes in all"):
        machine.check_data_fits(10_000, 100, preset, fits, gpu)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("I/O error: no space")])
def test_a_disk_that_is_full_is_one_line(tmp_path: Path, error: Exception) -> None:
    stages = Stages(tmp_path, ["pack"], {}, 60, lambda _: None)
    with (
        pytest.raises(TrainError, match=r"disk failed in the stage pack \(.*pace.*\); finished .*: free some space"),
        stages.stage("pack"),
    ):
        raise error
    assert not stages.is_done("pack")
    with pytest.raises(FileNotFoundError), stages.stage("pack"):
        (tmp_path / "none").read_text()


def test_other_errors_are_not_taken_for_a_gpus(tmp_path: Path) -> None:
    stages = Stages(tmp_path, ["a"], {}, 60, lambda _: None)
    with pytest.raises(RuntimeError, match="shapes do not fit"), stages.stage("a"):
        raise RuntimeError("shapes do not fit")
    assert not stages.is_done("a")


def test_a_run_goes_on_only_as_it_was_begun(given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes, "Store", failing(0, KeyboardInterrupt(), lambda *_: None))
    with pytest.raises(KeyboardInterrupt):
        begin(given, tmp_path)
    longer = dataclasses.replace(RECIPE, seconds=7200.0)
    wider = dataclasses.replace(RECIPE, plan=dataclasses.replace(RECIPE.plan, batch=3))
    with pytest.raises(TrainError, match="was begun with seconds 3600, got 7200; run it as it was begun"):
        begin(given, tmp_path, longer)
    with pytest.raises(TrainError, match="was begun with plan batch 2, got 3"):
        begin(given, tmp_path, wider)
    with pytest.raises(TrainError, match="was begun with start none, got"):
        begin(given, tmp_path, start=given / "tokenizer")
    more = write_pack(tmp_path / "more" / "room", 4)
    with pytest.raises(TrainError, match=r"was begun with data packs .*got"):
        begin(given, tmp_path, packs=more)
    (tmp_path / "stages.json").write_text('{"given": 3')
    with pytest.raises(TrainError, match=r"stages.json is damaged .*delete it"):
        begin(given, tmp_path)
    with FolderLock(tmp_path), pytest.raises(TrainError, match="is being trained already"):
        begin(given, tmp_path)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda pack: (pack / "00001.mp4").unlink(), "00001.mp4 is missing; pack the recording again"),
        (lambda pack: cut(pack / "00001.mp4"), "00001.mp4 is cut short: .* of 41 frames; pack the recording again"),
        (lambda pack: cut(pack / "00001.npz"), "00001.npz is damaged .*pack the recording again"),
    ],
)
def test_a_shard_that_is_missing_or_cut_short_is_found_first(
    given: Path, tmp_path: Path, damage: Callable[[Path], Any], said: str
) -> None:
    pack = Path(shutil.copytree(given / "room", tmp_path / "room"))
    damage(pack)
    with pytest.raises(DataError, match=said) as told:
        begin(given, tmp_path / "run", packs=pack)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "run" / "stages.json").exists(), "nothing was begun"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_recordings_of_another_resolution_or_game_are_refused(given: Path, tmp_path: Path) -> None:
    nano = dataclasses.replace(RECIPE, preset="nano")
    with pytest.raises(DataError, match="is 32x64, the model takes 128x224; record at that resolution"):
        run(nano, [given / "room"], [given / "held/room"], BUNDLED, tmp_path, "cpu")
    other = Path(shutil.copytree(given / "room", tmp_path / "other"))
    info = json.loads((other / "pack.json").read_text())
    (other / "pack.json").write_text(json.dumps(info | {"keys": ["forward", "fly"]}))
    with pytest.raises(DataError, match="has the key fly, the model has forward, left"):
        begin(given, tmp_path / "run", packs=other)


def test_recordings_are_looked_at_before_they_are_packed(
    given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tall = write_recording(tmp_path / "tall" / "walk", (48, 64), RECORDED, num_frames=30)
    flying = write_recording(tmp_path / "flying" / "walk", (32, 64), ActionSpace(("fly", "left")), num_frames=30)
    walk = write_recording(tmp_path / "right" / "walk", (32, 64), RECORDED, num_frames=30)

    def start(data: Path) -> None:
        run(RECIPE, [], [], given / "tokenizer", tmp_path / "run", "cpu", datasets=[data])

    for data, said in (
        (tall, "walk is 48x64, the model takes 32x64; record at that resolution"),
        (flying, "walk has the key fly, the model has forward, left"),
        (tmp_path / "none", "none"),
    ):
        with pytest.raises(DataError, match=said) as told:
            start(data)
        assert "\n" not in str(told.value)
        assert not (tmp_path / "run" / "stages.json").exists(), "nothing was begun"
    monkeypatch.setattr("reverie.train.spatial.gather.gather_packs", failing(0, KeyboardInterrupt(), lambda *_: None))
    with pytest.raises(KeyboardInterrupt):
        start(walk)
    longer = write_recording(tmp_path / "longer" / "walk", (32, 64), RECORDED, num_frames=34)
    with pytest.raises(TrainError, match=r"was begun with data datasets \[\[.walk., .*got .*run it as it was begun"):
        start(longer)


RECORDED = ActionSpace(("forward", "left"))


def test_weights_are_written_and_read_in_shards(given: Path, tmp_path: Path) -> None:
    short = dataclasses.replace(RECIPE, steps=2)
    begin(given, tmp_path / "first", short, max_shard_mb=0.05)
    model = tmp_path / "first/run/model"
    shards = sorted(model.glob("dit-*-of-*.safetensors"))
    assert len(shards) > 1
    assert max(path.stat().st_size for path in shards) < 60_000
    assert load_model(model).config.memory is not None
    assert any(line.startswith("done") for line in begin(given, tmp_path / "second", short, start=model))
    whole = shards[1].read_bytes()
    for damage, said in ((cut, "is not a readable safetensors file"), (Path.unlink, "is missing, one of")):
        shards[1].write_bytes(whole)
        damage(shards[1])
        with pytest.raises(CheckpointError, match=f"{shards[1].name} {said}") as told:
            begin(given, tmp_path / "third", short, start=model)
        assert "\n" not in str(told.value)
        assert not (tmp_path / "third" / "stages.json").exists(), "nothing was begun"


def test_a_recipe_is_one_process(given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainError, match="a recipe runs in one process, on one GPU; start it without torchrun"):
        begin(given, tmp_path)


BUNDLED = Path(recipes.__file__).parents[1] / "weights" / "nano"


def test_machines_that_are_too_small_are_refused(given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(recipe: Recipe, kind: type[ReverieError], said: str) -> None:
        with pytest.raises(kind, match=said):
            begin(given, tmp_path, recipe)
        assert not (tmp_path / "stages.json").exists(), "nothing was begun"

    refused(dataclasses.replace(RECIPE, cores=10_000), TrainError, "needs 10000 cores, this machine has")
    refused(dataclasses.replace(RECIPE, gpu_memory_gib=10.0), DeviceError, "is for a GPU and this machine has none")
    refused(dataclasses.replace(RECIPE, memory_gib=1e6), TrainError, "needs 1e.06 GiB of memory, .* are free")
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    refused(RECIPE, TrainError, "of disk, 0.0 are free; give another folder with -o")
    monkeypatch.undo()
    monkeypatch.setattr(machine, "free_memory_gib", lambda: RECIPE.memory_gib + 2**-9)
    with pytest.raises(TrainError, match=r"4 episodes \(44 steps\) need .* give packs of \d episodes in all, or take"):
        begin(given, tmp_path)


def test_games_that_cannot_be_recorded_here_are_refused(given: Path, tmp_path: Path) -> None:
    with pytest.raises(ReverieError, match="unknown game 'chess'"):
        run(RECIPE, [], [], given / "tokenizer", tmp_path, "cpu", games=("chess",))
    with pytest.raises(DataError, match="the game yard is 64x112, the model takes 32x64; record at that resolution"):
        run(RECIPE, [], [], given / "tokenizer", tmp_path / "run", "cpu", games=("yard",))
    assert not list((tmp_path / "run").glob("rec*")), "nothing was recorded"
    with pytest.raises(TrainError, match="give both --packs and --held-out"):
        run(RECIPE, [given / "room"], [], given / "tokenizer", tmp_path, "cpu")
