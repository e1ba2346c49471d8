"""The documentation tells the truth: its Python runs, its commands parse, its links and paths exist, its site builds.

A shell block after `<!-- run -->` is really run, with the Python of its page and in its order, in one folder a page;
`<!-- run with OPTIONS -->` adds options to each of its commands, so that it is quick.
"""

from __future__ import annotations

import functools
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import tyro

import reverie
from reverie import cli
from reverie.worlds import WORLDS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
GENERATED = DOCS / "reference/command-line.md"
PAGES = sorted(path for path in DOCS.rglob("*.md") if path != GENERATED and "rivals" not in path.parts)
NAMES = [str(path.relative_to(DOCS)) for path in PAGES]
GUIDES = [name for name in NAMES if name != "LOG.md"]
FENCE = re.compile(r"(?:^<!-- run(?: with (?P<more>.+?))? -->\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
OTHERS = {"pip", "docker", "source", "cd", "for", "done"}
"""First words of commands that are not ours to parse."""


@dataclass(frozen=True, slots=True)
class Fence:
    """A fenced block.  run: whether it is marked to be run; more: options that are added then."""

    kind: str
    text: str
    run: bool
    more: list[str]


def fences(name: str) -> list[Fence]:
    text = (DOCS / name).read_text(encoding="utf-8")
    found = FENCE.finditer(text)
    return [
        Fence(one["kind"], one["text"], one[0].startswith("<!-- run"), shlex.split(one["more"] or "")) for one in found
    ]


def commands(text: str) -> Iterator[list[str]]:
    """The words of every simple command of a shell block."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
        lexer.whitespace_split, lexer.commenters = True, "#"
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word not in {";", "&&", "||", "|"}:
                words.append(word)
                continue
            while words and (words[0] == "do" or re.fullmatch(r"[A-Z_]+=.*", words[0])):
                words = words[1:]
            if words:
                yield words
            words = []


@functools.cache
def flags(command: cli.Command) -> frozenset[str]:
    """Every option that the command's help names."""
    tools = runpy.run_path(str(ROOT / "tools/docs.py"))
    return frozenset(re.findall(r"--[a-z][a-z0-9-]*", tools["help_of"](command)))


def check(words: list[str]) -> None:
    """Fails if a command line is not one that its program takes."""
    if words[:4] == ["uvx", "--from", "reverie-world", "reverie"]:
        words = words[3:]
    program, *rest = words
    if program == "reverie":
        command, options = cli._find(rest)
        assert command is not None, f"no such command: {shlex.join(words)}"
        if "..." in options:
            assert {word for word in options if word.startswith("--")} <= flags(command), shlex.join(words)
        else:
            try:
                tyro.cli(command.load(), args=options)
            except SystemExit as stop:
                pytest.fail(f"{shlex.join(words)}: does not parse ({stop.code})")
    elif program == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.M), shlex.join(words)
    elif program in {"python", "torchrun"}:
        module = words[words.index("-m") + 1]
        spec = find_spec(module)
        assert spec is not None, shlex.join(words)
        if module.startswith("reverie.") and spec.origin:
            source = Path(spec.origin).read_text() + (ROOT / "src/reverie/train/world_options.py").read_text()
            for option in [word[2:] for word in words[words.index("-m") + 2 :] if word.startswith("--")]:
                name = option.removeprefix("no-").replace("-", "_")
                assert f'"--{option}"' in source or f"    {name}: " in source, shlex.join(words)
    else:
        assert program in OTHERS, f"a command that no test knows: {shlex.join(words)}"


@pytest.mark.parametrize("name", GUIDES)
def test_commands_parse(name: str) -> None:
    for fence in fences(name):
        if fence.kind in {"sh", "bash"}:
            for words in commands(fence.text):
                check(words)


@pytest.mark.parametrize("name", GUIDES)
def test_commands_in_the_text_exist(name: str) -> None:
    """`reverie evaluate --quick` is a mention, without all that it needs; what it names must be there."""
    text = FENCE.sub("", (DOCS / name).read_text(encoding="utf-8"))
    for mention in re.findall(r"`reverie ([^`]+)`", text):
        words = shlex.split(mention)
        command, rest = cli._find([word for word in words if word != "|"])
        group = any(command.name.startswith(f"{words[0]} ") for command in cli.COMMANDS)
        assert command is not None or group, f"no such command: reverie {mention}"
        if command is not None:
            assert {word.split("=")[0] for word in rest if word.startswith("--")} <= flags(command) | {"--help"}


@functools.cache
def nano() -> Any:
    return reverie.load("nano", device="cpu")


def play_page(name: str, only: str = "") -> None:
    """Runs the Python of a page, and the commands that are marked, in the folder at hand; all share one nano."""
    names: dict[str, object] = {"nano": nano}
    for fence in fences(name):
        if fence.kind == "python":
            exec(compile(fence.text.replace('reverie.load("nano")', "nano()"), name, "exec"), names)
        elif fence.run and only != "python":
            for words in commands(fence.text):
                assert cli.main([*words[1:], *fence.more]) == 0, shlex.join(words)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recording of the tutorial on a first world."""
    folder = tmp_path_factory.mktemp("first")
    games = dict(WORLDS)
    before = Path.cwd()
    os.chdir(folder)
    try:
        play_page("tutorials/first-world.md", only="python")
    finally:
        os.chdir(before)
        for game in set(WORLDS) - set(games):
            del WORLDS[game]
    return folder / "recording"


RUN = [name for name in GUIDES if any(fence.kind == "python" or fence.run for fence in fences(name))]


@pytest.mark.parametrize("name", RUN)
def test_the_page_runs(name: str, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if name in ("reference/dataset.md", "guides/train.md"):  # the others make theirs
        shutil.copytree(recording, tmp_path / "recording")
    games = dict(WORLDS)
    try:
        play_page(name)
    finally:
        for game in set(WORLDS) - set(games):
            del WORLDS[game]


@pytest.mark.parametrize("name", NAMES)
def test_linked_files_exist(name: str) -> None:
    path = DOCS / name
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", FENCE.sub("", path.read_text(encoding="utf-8")))
    files = {(path.parent / link).resolve() for link in links if "://" not in link}
    assert {file for file in files if not file.exists()} <= {GENERATED}


@pytest.mark.parametrize("name", GUIDES)
def test_named_files_exist(name: str) -> None:
    """`evaluate/clips.py` is a file of the package; `tests/test_laws.py`, of the repository."""
    text = FENCE.sub("", (DOCS / name).read_text(encoding="utf-8"))
    homes = (ROOT, ROOT / "src/reverie", DOCS)
    named = re.findall(r"`((?:[\w-]+/)+[\w-]+\.(?:py|js|c|md))`", text)
    assert [one for one in named if not any((home / one).exists() for home in homes)] == []


def test_the_site_has_every_page() -> None:
    nav = (ROOT / "zensical.toml").read_text()
    shown = {str(path.relative_to(DOCS)) for path in [*PAGES, GENERATED]}
    assert set(re.findall(r'"([\w/-]+\.md)"', nav)) == shown
    tomllib.loads(nav)


@pytest.mark.skipif(find_spec("zensical") is None, reason='needs pip install "reverie-world[docs]"')
def test_the_site_builds_strictly(tmp_path: Path) -> None:
    """In a copy, so that the repository stays as it is; proxies that lead nowhere stand for no network."""
    shutil.copytree(DOCS, tmp_path / "docs")
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools/docs.py", tmp_path / "tools")
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    (tmp_path / "src").symlink_to(ROOT / "src")
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    env = {**os.environ, **nowhere, "PYTHONPATH": str(ROOT / "src"), "NO_COLOR": "1"}
    words = [sys.executable, str(tmp_path / "tools/docs.py")]
    done = subprocess.run(words, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    page = (tmp_path / "site/reference/command-line.html").read_text()
    for command in cli.COMMANDS:
        assert f'id="reverie-{command.name.replace(" ", "-")}"' in page
    assert "Snapshot" in (tmp_path / "site/reference/python.html").read_text()
    for page in (tmp_path / "site").rglob("*.html"):  # nothing is loaded from elsewhere
        assert not re.search(
            r'<(?:script|img)[^>]+src="https?://|<link[^>]+stylesheet[^>]+href="https?://', page.read_text()
        )
