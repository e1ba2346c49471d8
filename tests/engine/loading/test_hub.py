"""The hub out of reach: told within seconds, before a page is announced, and never in the way of a cached model."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from reverie import cli
from reverie.engine.loading import hub
from reverie.engine.loading.models import check_model
from reverie.errors import CheckpointError
from reverie.hub import client


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache, no proxy, and a hub at an address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    for name in (*client.PROXIES, *map(str.lower, client.PROXIES)):
        monkeypatch.delenv(name, raising=False)


class FakeSession:
    """A client of the hub that answers with `status`, or fails."""

    def __init__(self, status: int = 200, failure: Exception | None = None) -> None:
        self.status, self.failure = status, failure

    def head(self, url: str, timeout: float) -> SimpleNamespace:
        if self.failure is not None:
            raise self.failure
        return SimpleNamespace(status_code=self.status)


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Each call of the hub's client: whether it was to keep to the cache, which is empty."""
    calls: list[bool] = []

    def download(repository: str, name: str, *, local_files_only: bool) -> str:
        calls.append(local_files_only)
        raise LocalEntryNotFoundError("not here")

    monkeypatch.setattr(hub, "hf_hub_download", download)
    return calls


def test_a_hub_that_nobody_answers_for_is_asked_once(downloads: list[bool]) -> None:
    with pytest.raises(CheckpointError, match="refused; go online"):
        check_model("somebody/nano")
    assert downloads
    assert all(downloads)  # the client that tries for a minute is kept to the cache


def test_a_hub_that_never_answers(monkeypatch: pytest.MonkeyPatch, downloads: list[bool]) -> None:
    gate = threading.Event()
    monkeypatch.setattr(client, "CONNECT_S", 0.05)
    monkeypatch.setattr(client, "get_session", lambda: gate.wait(60))
    with pytest.raises(CheckpointError, match="does not answer; go online"):
        check_model("somebody/nano")
    gate.set()


def test_a_hub_that_is_ill(monkeypatch: pytest.MonkeyPatch, downloads: list[bool]) -> None:
    monkeypatch.setattr(client, "get_session", lambda: FakeSession(503))
    with pytest.raises(CheckpointError, match="status 503; try later"):
        check_model("somebody/nano")


def test_offline_mode_asks_nobody(monkeypatch: pytest.MonkeyPatch, downloads: list[bool]) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(client, "get_session", lambda: pytest.fail("offline, and yet the hub is asked"))
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE is set; unset it"):
        check_model("somebody/nano")


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (
            ImportError("Using SOCKS proxy, but the 'socksio' package is not installed."),
            "pip install socksio, or unset",
        ),
        (ValueError("Unknown scheme for proxy URL URL('socks://u:secret@here:9')"), "no usable proxy; write http://"),
        (OSError("Connection refused\nmore"), "Connection refused; check the proxy of ALL_PROXY, or unset it"),
    ],
)
def test_proxies_that_do_not_work(
    monkeypatch: pytest.MonkeyPatch, downloads: list[bool], failure: Exception, words: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks://u:secret@here:9")
    monkeypatch.setattr(client, "get_session", lambda: FakeSession(failure=failure))
    with pytest.raises(CheckpointError, match=words) as caught:
        check_model("somebody/nano")
    assert "ALL_PROXY" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_whatever_a_download_fails_with_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: object, **__: object) -> str:
        raise RuntimeError("a proxy's own words\nand a page of them")

    monkeypatch.setattr(client, "get_session", FakeSession)
    monkeypatch.setattr(hub, "hf_hub_download", download)
    with pytest.raises(CheckpointError, match=r"failed \(a proxy's own words\); try again"):
        check_model("somebody/nano")


@pytest.mark.parametrize("model", ["somebody/nano", "no-such-model"])
@pytest.mark.usefixtures("downloads")
def test_play_refuses_before_it_announces_a_page(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["play", "--model", model, "--no-browser", "--port", "0"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert model in said.err


def test_a_folder_of_fastvideo_is_fetched_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Sharded weights, the VAE and the image encoder that lie in folders of their own, and nothing of the rest."""
    weights = ("transformer/diffusion_pytorch_model-00001-of-00001.safetensors", *hub.DIFFUSERS_PARTS[1:])
    index = tmp_path / "transformer/diffusion_pytorch_model.safetensors.index.json"
    for name in (*weights, "model_index.json", "transformer/config.json", "vae/config.json", "scheduler/config.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    index.write_text('{"weight_map": {"a": "diffusion_pytorch_model-00001-of-00001.safetensors"}}')
    fetched = []

    def download(repository: str, name: str, *, local_files_only: bool) -> str:
        if not (tmp_path / name).is_file():
            raise EntryNotFoundError(name)
        fetched.append(name)
        return str(tmp_path / name)

    monkeypatch.setattr(client, "get_session", FakeSession)
    monkeypatch.setattr(hub, "hf_hub_download", download)
    assert hub.fetch("FastVideo/Matrix-Game-2.0-Base-Distilled-Diffusers", None) == tmp_path
    assert set(weights) < set(fetched)
    assert not {"model_index.json", "scheduler/config.json"} & set(fetched)
