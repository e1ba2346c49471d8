"""Models, recordings and scenes go to the Hub and come back, whole or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from huggingface_hub import constants
from tests.helpers import toy_world
from tests.helpers.fake_hub import READER, FakeHub, Repository

import reverie
from reverie import cli
from reverie.data.dataset import Dataset
from reverie.data.hub import pull_dataset, push_dataset
from reverie.engine.loading.hub import pull_model, push_model
from reverie.engine.loading.models import find_model
from reverie.errors import CheckpointError, DataError, HubError, ReverieError
from reverie.hub.cards import licence_metadata, with_metadata
from reverie.hub.push_options import PushOptions
from reverie.models.checkpoint import load_model, save_model
from reverie.scenes.hub import pull_scene, push_scene
from reverie.scenes.scene import Scene

SCENE = Path(reverie.__file__).parent / "weights/scenes/temple-run"


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    toy_world.register(lambda table, name, info: table.__setitem__(name, info))
    return toy_world.record_toy(tmp_path_factory.mktemp("toy") / "set", frames=120)


def front_matter(card: bytes) -> dict[str, object]:
    return yaml.safe_load(card.decode().split("---\n")[1])


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_model_goes_to_the_hub_and_comes_back(hub: FakeHub, model: Path, tmp_path: Path) -> None:
    push_model(model, "somebody/tiny", PushOptions(message="first"))
    there = hub.repositories["model", "somebody/tiny"]
    assert there.commits == ["first"]
    assert set(there.files) == set(files_of(model)) - {"notes.txt"}
    card = front_matter(there.files["README.md"])
    assert (card["license"], card["library_name"], card["pipeline_tag"]) == ("mit", "reverie", "image-to-video")
    assert card["tags"] == ["mine", "world-model", "interactive", "real-time", "video-generation", "diffusion"]
    assert card["widget"] == [{"text": "room", "output": {"url": "starts/room.png"}}]
    assert there.files["README.md"].endswith(b"---\n\n# Tiny\n")
    pulled = pull_model("somebody/tiny", tmp_path / "pulled")
    assert files_of(pulled) == there.files
    ours, theirs = load_model(model).model.state_dict(), load_model(pulled).model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert list(tmp_path.glob(".*")) == []


def test_a_second_push_takes_stale_files_away_and_leaves_others(hub: FakeHub, model: Path, tmp_path: Path) -> None:
    push_model(model, "somebody/tiny")
    files = hub.repositories["model", "somebody/tiny"].files
    files |= {"dit-00009-of-00009.safetensors": b"old", "docs/figure.png": b"theirs", "extra/a.safetensors": b"theirs"}
    save_model(tmp_path / "whole", load_model(model))
    push_model(tmp_path / "whole", "somebody/tiny")
    kept = {"docs/figure.png", "extra/a.safetensors"}
    assert set(files) == set(files_of(tmp_path / "whole")) | {"README.md"} | kept


def test_the_hubs_own_names_for_it(hub: FakeHub, model: Path, tmp_path: Path) -> None:
    engine = reverie.Engine.from_pretrained(model, device="cpu", dtype="float32")
    engine.push_to_hub("somebody/tiny", private=True, commit_message="from Python")
    assert hub.repositories["model", "somebody/tiny"].private
    saved = engine.save_pretrained(tmp_path / "saved")
    assert files_of(saved) == hub.repositories["model", "somebody/tiny"].files
    fetched = reverie.Engine.from_pretrained("somebody/tiny", device="cpu", dtype="float32")
    assert fetched.weights_hash == engine.weights_hash


def test_a_fetched_model_plays_offline(hub: FakeHub, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    push_model(model, "somebody/tiny")
    first = find_model("somebody/tiny")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert find_model("somebody/tiny") == first
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE is set; unset it"):
        find_model("somebody/other")
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set; unset it"):
        push_model(model, "somebody/tiny")


def test_a_recording_goes_to_the_hub_and_comes_back(hub: FakeHub, recording: Path, tmp_path: Path) -> None:
    push_dataset(recording, "somebody/walks", licence="CC-BY-4.0")
    there = hub.repositories["dataset", "somebody/walks"]
    assert there.tags == {"v3.0": there.sha}
    card = front_matter(there.files["README.md"])
    assert card["license"] == "cc-by-4.0"
    assert "LeRobot" in card["tags"]  # type: ignore[operator]
    assert card["configs"] == [{"config_name": "default", "data_files": "data/*/*.parquet"}]
    assert not any(name.startswith(".") for name in there.files)
    pulled = pull_dataset("somebody/walks", tmp_path / "pulled", revision="v3.0")
    ours, theirs = Dataset(recording), Dataset(pulled)
    assert theirs.fingerprint == ours.fingerprint
    assert (theirs.clip(1).frames == ours.clip(1).frames).all()
    push_dataset(recording, "somebody/walks")  # the tag is moved
    assert there.tags == {"v3.0": there.sha}


def test_a_scene_goes_to_the_hub_and_comes_back(hub: FakeHub, tmp_path: Path) -> None:
    push_scene(SCENE, "somebody/temple")
    there = hub.repositories["dataset", "somebody/temple"]
    assert "reverie-scene" in front_matter(there.files["README.md"])["tags"]  # type: ignore[operator]
    pulled = pull_scene("somebody/temple", tmp_path / "temple")
    assert set(files_of(pulled)) == {*files_of(SCENE), "README.md"}, "how one moves there, and where, too"
    assert (Scene.load(pulled).colour == Scene.load(SCENE).colour).all()
    assert pq.read_table(pulled / "keyframes.parquet").equals(pq.read_table(SCENE / "keyframes.parquet"))


def test_the_commands(hub: FakeHub, model: Path, recording: Path, tmp_path: Path, capsys) -> None:
    for group, folder in (("models", model), ("data", recording), ("scene", SCENE)):
        assert cli.main([group, "push", str(folder), f"somebody/{group}"]) == 0
        assert "/commit/" in capsys.readouterr().out
        assert cli.main([group, "pull", f"somebody/{group}", "-o", str(tmp_path / group)]) == 0
        assert capsys.readouterr().out.strip() == str(tmp_path / group)
        assert cli.main([group, "pull", f"somebody/{group}", "-o", str(tmp_path / group)]) == 2
        assert "is there already; name a new folder with -o" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("token", "repository", "words"),
    [
        ("hf_wrong", "somebody/tiny", "does not accept this token"),
        (READER, "somebody/tiny", "use one that may write to it"),
        ("", "somebody/tiny", "or there is none; log in with `hf auth login`"),
        (None, "else/tiny", "or another owner's name"),
        (None, "not a name", "expected OWNER/NAME"),
    ],
)
def test_a_push_that_is_refused(
    hub: FakeHub, model: Path, token: str | None, repository: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(HubError, match=words) as caught:
        push_model(model, repository)
    assert "\n" not in str(caught.value)
    assert hub.repositories == {}


@pytest.mark.parametrize(
    ("repository", "words"),
    [
        ("somebody/missing", "the Hub has no dataset somebody/missing, or it is private and not yours to see"),
        ("somebody/private", "or it is private and not yours to see"),
        ("somebody/gated", "asks for consent first"),
        ("somebody/other", "holds nothing that Reverie knows: it has no meta/info.json"),
        ("somebody/old", r"is not in the layout v3.0: .*LeRobot version v1.6"),
    ],
)
def test_a_pull_that_is_refused(
    hub: FakeHub, repository: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "")
    info = {"codebase_version": "v1.6", "fps": 25, "features": {"action": {}}}
    old = {"meta/info.json": json.dumps(info).encode(), "data/chunk-000/file-000.parquet": b"large"}
    for name, one in {
        "private": Repository(private=True),
        "gated": Repository(gated=True, files=dict(old)),
        "other": Repository(files={"model.bin": b""}),
        "old": Repository(files=dict(old)),
    }.items():
        hub.repositories["dataset", f"somebody/{name}"] = one
    with pytest.raises(ReverieError, match=words) as caught:
        pull_dataset(repository, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert "data/chunk-000/file-000.parquet" not in hub.fetched
    assert not (tmp_path / "out").exists()


def test_a_pull_that_is_cut_off_goes_on(hub: FakeHub, model: Path, tmp_path: Path) -> None:
    push_model(model, "somebody/tiny")
    hub.broken = {"starts/room.png"}
    with pytest.raises(HubError, match="may not do that here"):
        pull_model("somebody/tiny", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    hub.broken, hub.fetched = set(), []
    pull_model("somebody/tiny", tmp_path / "out")
    assert "starts/room.png" in hub.fetched
    assert "config.json" not in hub.fetched
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(("out", ".out"))] == ["out"]


def test_what_is_not_sound_is_not_kept(hub: FakeHub, model: Path, tmp_path: Path) -> None:
    push_model(model, "somebody/tiny")
    files = hub.repositories["model", "somebody/tiny"].files
    del files[next(name for name in files if name.startswith("image_encoder") and name.endswith(".safetensors"))]
    with pytest.raises(CheckpointError, match=r"is missing, so .* is no whole model"):
        pull_model("somebody/tiny", tmp_path / "out")
    assert [path for path in tmp_path.iterdir() if "out" in path.name] == []


def test_a_folder_that_is_not_whole_is_not_pushed(hub: FakeHub, model: Path, recording: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(model, tmp_path / "model")
    next(broken.glob("tokenizer*.safetensors")).unlink()
    with pytest.raises(CheckpointError, match=r"is missing, so .* is no whole model"):
        push_model(broken, "somebody/tiny")
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        push_model(recording, "somebody/tiny")
    lacking = shutil.copytree(recording, tmp_path / "recording")
    next(lacking.rglob("*.mp4")).unlink()
    with pytest.raises(DataError, match="the file is missing"):
        push_dataset(lacking, "somebody/walks")
    with pytest.raises(DataError, match="is not a scene"):
        push_scene(model, "somebody/scene")
    assert hub.repositories == {}


def test_cards_keep_what_they_state() -> None:
    card = "---\nlicense: apache-2.0\nauthors: [me]\n---\n\n# Mine\n"
    merged = with_metadata(card, {"license": "mit", "tags": ["a"]})
    assert merged == "---\nlicense: apache-2.0\ntags:\n- a\nauthors:\n- me\n---\n\n# Mine\n"
    assert with_metadata(merged, {"license": "mit", "tags": ["a"]}) == merged
    assert with_metadata("# Bare\n---\nline\n", {}).endswith("# Bare\n---\nline\n")


@pytest.mark.parametrize(
    ("licence", "fields"),
    [
        ("MIT", {"license": "mit"}),
        ("CC BY 4.0", {"license": "cc-by-4.0"}),
        ("", {"license": "unknown"}),
        ("Freedoom's", {"license": "other", "license_name": "Freedoom's"}),
    ],
)
def test_licences(licence: str, fields: dict[str, str]) -> None:
    assert licence_metadata(licence) == fields
