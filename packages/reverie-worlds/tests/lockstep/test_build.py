import multiprocessing
import os
from pathlib import Path

import pytest

from reverie.errors import WorldError
from reverie_worlds.lockstep import build as build_module
from reverie_worlds.lockstep.build import build

pytestmark = pytest.mark.usefixtures("toy")  # skips without a compiler


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "reverie"


def test_it_compiles_once(cache: Path) -> None:
    first = build()
    assert first.library.parent.parent == cache
    made = first.library.stat().st_mtime_ns
    assert os.access(first.keeper, os.X_OK)
    assert build() == first
    assert first.library.stat().st_mtime_ns == made
    assert [path.name for path in cache.iterdir()] == [first.library.parent.name]


def test_another_source_is_another_build(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build()
    changed = tmp_path / "changed"
    changed.mkdir()
    for path in build_module.SOURCES.iterdir():
        (changed / path.name).write_bytes(path.read_bytes() + b"\n")
    monkeypatch.setattr(build_module, "SOURCES", changed)
    assert build().library != first.library


def _build_in(cache: str) -> str:
    os.environ["XDG_CACHE_HOME"] = cache
    return str(build().library)


def test_several_may_compile_at_once(cache: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        made = pool.map(_build_in, [str(cache.parent)] * 3, chunksize=1)
    assert len(set(made)) == 1
    assert [path.name for path in cache.iterdir()] == [Path(made[0]).parent.name]


def test_no_compiler(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(WorldError, match=r"there is no no-such-compiler; sudo apt install gcc"):
        build()


def test_no_x11_headers(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poor = tmp_path / "poor-gcc"
    poor.write_text('#!/bin/sh\necho "input.c:5:10: fatal error: X11/Xlib.h: No such file or directory" >&2\nexit 1\n')
    poor.chmod(0o755)
    monkeypatch.setenv("CC", str(poor))
    with pytest.raises(WorldError, match=r"does not compile: .*X11/Xlib\.h.*; sudo apt .* libx11-dev") as e:
        build()
    assert "\n" not in str(e.value)
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(WorldError, match=r"cannot write .*; set XDG_CACHE_HOME"):
        build()
