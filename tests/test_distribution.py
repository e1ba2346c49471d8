"""The wheels and the sdist: they carry all that is needed, build the same bytes twice, and play from another folder."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import tomllib
import urllib.error
import urllib.request
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="hatchling is not installed: pip install hatchling")

ROOT = Path(__file__).parents[1]
GAMES = ROOT / "packages/reverie-worlds"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MAX_BYTES = 64 * 2**20
EPOCH = "1767225600"


def build(root: Path, target: str, out: Path, epoch: str = EPOCH) -> Path:
    """Builds `root` without a network; target: wheel or sdist."""
    words = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(out)]
    subprocess.run(words, cwd=root, check=True, capture_output=True, env={**os.environ, "SOURCE_DATE_EPOCH": epoch})
    (found,) = out.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def games_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(GAMES, "wheel", tmp_path_factory.mktemp("games-wheel"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def installed(wheel: Path, games_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both wheels in a folder of their own; their dependencies are those of this environment."""
    target = tmp_path_factory.mktemp("installed")
    words = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*words, str(wheel), str(games_wheel)], check=True, capture_output=True)
    return target


def package_files(src: Path = ROOT / "src") -> set[str]:
    """Every file of the package in `src`, as the wheel names it."""
    files = (path for path in src.rglob("*") if path.is_file())
    return {path.relative_to(src).as_posix() for path in files if "__pycache__" not in path.parts}


def test_the_wheel_carries_weights_and_page(wheel: Path) -> None:
    assert wheel.stat().st_size < MAX_BYTES
    assert wheel.name.startswith(f"reverie_world-{PROJECT['version']}-py3-none-any")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = message_from_bytes(archive.read(next(name for name in names if name.endswith("/METADATA"))))
        scripts = archive.read(next(name for name in names if name.endswith("/entry_points.txt"))).decode()
        record = archive.read(next(name for name in names if name.endswith("/RECORD"))).decode()
        for name, digest, _ in csv.reader(io.StringIO(record)):  # names with commas too
            if digest:
                assert digest == "sha256=" + _digest(archive.read(name)), name
    inside = {name for name in names if ".dist-info/" not in name}
    assert inside == package_files()
    for part in ("weights/nano/dit.safetensors", "serve/static/index.html", "worlds/yard.py"):
        assert f"reverie/{part}" in inside
    assert metadata["Name"] == "reverie-world"
    assert metadata["License-Expression"] == "MIT"
    assert "reverie = reverie.cli:main" in scripts
    assert "reverie-worlds" in " ".join(metadata.get_all("Requires-Dist", [])), "the extra `worlds`"


def test_the_wheel_of_the_games_carries_shim_mods_and_entry_points(games_wheel: Path) -> None:
    assert games_wheel.name.startswith(f"reverie_worlds-{PROJECT['version']}-py3-none-any")
    with zipfile.ZipFile(games_wheel) as archive:
        names = set(archive.namelist())
        points = archive.read(next(name for name in names if name.endswith("/entry_points.txt"))).decode()
    inside = {name for name in names if ".dist-info/" not in name}
    assert inside == package_files(GAMES / "src")
    assert {"reverie_worlds/lockstep/shim/shim.h", "reverie_worlds/minetest/mods/server/init.lua"} <= inside
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert (GAMES / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert "[reverie.worlds]" in points


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def test_two_builds_are_equal(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    """A copy elsewhere, with other times, is built from the sdist."""
    assert sdist.stat().st_size < MAX_BYTES
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (copy,) = tmp_path.iterdir()
    for path in copy.rglob("*.py"):
        os.utime(path, (1, 1))
    assert build(copy, "wheel", tmp_path / "wheel").read_bytes() == wheel.read_bytes()
    assert build(copy, "sdist", tmp_path / "sdist").read_bytes() == sdist.read_bytes()


def test_the_sdist_carries_the_tests(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in ("tests/test_cli.py", "examples/gym_env.py", "Makefile", "constraints.txt", "Dockerfile", "AGENTS.md"):
        assert name in names
    assert not any(part in name for name in names for part in ("__pycache__", ".venv", "golden/universal"))


@pytest.fixture
def elsewhere(installed: Path, tmp_path: Path) -> dict[str, str]:
    """The environment of a user with the installed package and a home that nothing can be written to.

    The home is a file, so that it refuses even the superuser.
    """
    (tmp_path / "home").write_text("")
    kept = {name: value for name, value in os.environ.items() if not re.match(r"XDG_|HF_|TORCHINDUCTOR_|PYTHON", name)}
    home = {"HOME": str(tmp_path / "home"), "USERPROFILE": str(tmp_path / "home")}
    return {**kept, **home, "PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1"}


GAMES_OF = """
import sys
from importlib import import_module
from reverie.worlds import WORLDS
assert {"city", "minetest", "temple", "trigger-rally", "tux-racer", "vizdoom"} == WORLDS.installed, WORLDS.installed
assert import_module("reverie_worlds").__file__.startswith(sys.argv[1])
"""


def test_it_generates_from_another_folder(installed: Path, elsewhere: dict[str, str], tmp_path: Path) -> None:
    script = str(installed / "bin" / "reverie")
    where = "import reverie, sys; sys.exit(0 if reverie.__file__.startswith(sys.argv[1]) else reverie.__file__)"
    for words in (
        [sys.executable, "-c", where, str(installed)],
        [sys.executable, script, "generate", "--actions", "forward 0.3s", "-o", "walk.mp4"],
        [sys.executable, "-c", GAMES_OF, str(installed)],
        [sys.executable, "-m", "reverie", "scene", "list"],
    ):
        done = subprocess.run(words, cwd=tmp_path, env=elsewhere, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "walk.mp4").stat().st_size > 1000
    assert "temple-run" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "walk.mp4"]


def test_the_page_opens_from_another_folder(elsewhere: dict[str, str], tmp_path: Path) -> None:
    words = [sys.executable, "-m", "reverie", "serve", "--port", "0"]
    server = subprocess.Popen(words, cwd=tmp_path, env=elsewhere, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        assert server.stdout is not None
        said = server.stdout.readline().decode()
        match = re.search(r"http://\S+", said)
        assert match, said + server.stdout.read().decode()
        page = get(match[0])
        scripts = re.findall(rb'(?:src|href)="/?(static/[^"]+)"', page)
        assert scripts
        for script in scripts:
            assert get(f"{match[0]}/{script.decode()}")
        assert wait_until_warm(match[0])["status"] == "ready"
        starts = json.loads(get(f"{match[0]}/starts"))
        assert get(f"{match[0]}/starts/{starts[0]['id']}.jpg").startswith(b"\xff\xd8")
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=60)


def wait_until_warm(address: str) -> dict[str, str]:
    """Returns the server's health once it no longer warms up."""
    while True:
        try:
            return json.loads(get(f"{address}/health"))
        except urllib.error.HTTPError as error:
            health = json.loads(error.read())
            if health["status"] != "warming":
                return health
        time.sleep(0.2)


def get(address: str) -> bytes:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address, timeout=30) as answer:
        return answer.read()


def test_nothing_of_the_package_is_ignored_by_the_build() -> None:
    """Files that git ignores are left out of a wheel, however much they are needed."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git repository")
    words = ["git", "check-ignore", "--stdin", "--no-index"]
    folders = (ROOT / "src", GAMES / "src")
    asked = "\n".join(f"{src.relative_to(ROOT).as_posix()}/{name}" for src in folders for name in package_files(src))
    done = subprocess.run(words, cwd=ROOT, input=asked, capture_output=True, text=True)
    assert done.stdout == ""
