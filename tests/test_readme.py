"""The README tells the truth: its Python runs, its commands parse, its files exist.  The examples do too."""

from __future__ import annotations

import dataclasses
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tyro

from reverie import cli
from reverie.errors import ReverieError
from reverie.models.checkpoint import ModelBundle, ModelConfig, save_model
from reverie.models.presets import tiny
from reverie.sampling import Schedule

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
SCRIPT = (ROOT / "examples/record_and_train.sh").read_text()


def blocks(text: str, language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [content for name, content in found if name == language]


def commands(text: str, program: str) -> list[list[str]]:
    """The words of every line that calls `program`, comments and line continuations taken out."""
    lines = text.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith(f"{program} ")]


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model folder with one start picture."""
    from PIL import Image

    torch.manual_seed(0)
    preset = tiny()
    config = ModelConfig(
        name="tiny",
        resolution=preset.resolution,
        schedule=Schedule((1.0,)),
        world=preset.world,
        tokenizer=preset.tokenizer,
        image_encoder=preset.image_encoder,
    )
    folder = tmp_path_factory.mktemp("readme") / "tiny"
    save_model(folder, ModelBundle.new(config))
    (folder / "starts").mkdir()
    Image.new("RGB", (64, 32), (90, 60, 40)).save(folder / "starts" / "room.png")
    return folder


@pytest.mark.parametrize("block", blocks(README, "python"))
def test_the_python_runs(block: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block.replace('"nano"', repr(str(tiny_model))), "README.md", "exec"), {})


def config_of(words: list[str]) -> Any:
    """The command's configuration as the command line reads it, `reverie` itself left out."""
    command, rest = cli._find(words)
    assert command is not None, f"no such command: {' '.join(words)}"
    return tyro.cli(command.load(), args=rest)


@pytest.mark.parametrize(
    "words", [c[1:] for c in commands("\n".join(blocks(README, "sh")) + "\n" + SCRIPT, "reverie")], ids=" ".join
)
def test_the_commands_parse(words: list[str]) -> None:
    numbers = {"$HOURS": "1", "$TOKENIZER_MINUTES": "30", "$WORLD_MINUTES": "120"}
    config_of([numbers.get(word, word.replace("$OUT", "out")) for word in words])


@pytest.mark.parametrize("words", [c.split() for c in re.findall(r"`reverie ([^`]+)`", README)], ids=" ".join)
def test_the_commands_in_the_text_parse(words: list[str]) -> None:
    """`reverie evaluate --quick` is a mention, without all that it needs; what it names must be there."""
    command, rest = cli._find(words)
    assert command is not None, f"no such command: {' '.join(words)}"
    names = {f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(command.load())}
    assert {word for word in rest if word.startswith("--")} <= names
    if not any(field.default is dataclasses.MISSING for field in dataclasses.fields(command.load())):
        with suppress(ReverieError):  # it parses, and asks for more
            config_of(words)


def test_the_command_is_on_the_path_where_the_readme_uses_it() -> None:
    """`make setup` and pip put `reverie` into an environment; the shell finds it there once that is active."""
    for block in blocks(README, "sh"):
        uses = [i for i, line in enumerate(block.splitlines()) if line.startswith("reverie ")]
        shown = README[: README.index(block)] + "\n".join(block.splitlines()[: uses[0]]) if uses else ""
        assert not uses or "source .venv/bin/activate" in shown or "pip install reverie-world" in shown


INTERRUPT = """
import os, select, signal, subprocess, sys, pty
screen, terminal = pty.openpty()
play = subprocess.Popen(sys.argv[1:], stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True)
os.close(terminal)
said, end = b"", False
while not end:
    ready, _, _ = select.select([screen], [], [], 60)
    try:
        part = os.read(screen, 4096) if ready else b""
    except OSError:  # the last one on the terminal has gone
        part = b""
    end, said = not part, said + part
    if b"playing" in part:
        os.killpg(play.pid, signal.SIGINT)  # what a terminal does on Ctrl-C: to make and to its child
play.kill()
play.wait()
print(said.decode())
"""


@pytest.mark.skipif(shutil.which("make") is None or os.name != "posix", reason="no make, or no terminals, here")
@pytest.mark.parametrize(("does", "complains"), [("time.sleep(60)", False), ("sys.exit(2)", True)])
def test_ctrl_c_of_make_play_is_no_error(does: str, complains: bool, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "stamp").touch()
    program = tmp_path / "bin/reverie"
    says = "failing" if complains else "playing"
    program.write_text(
        f"#!{sys.executable}\nimport sys, time\ntry:\n    print({says!r}, flush=True)\n"
        f"    {does}\nexcept KeyboardInterrupt:\n    sys.exit(130)\n"
    )
    program.chmod(0o755)
    make = ["make", "-C", str(ROOT), "play", f"BIN={tmp_path}/bin", f"STAMP={tmp_path}/stamp"]
    done = subprocess.run([sys.executable, "-c", INTERRUPT, *make], capture_output=True, text=True, check=True)
    assert ("Error" in done.stdout) == complains, done.stdout
    assert ("Error 2" in done.stdout) == complains


@pytest.mark.parametrize("text", [README, CONTRIBUTING], ids=["README", "CONTRIBUTING"])
def test_make_targets_exist(text: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {words[1] for block in blocks(text, "sh") for words in commands(block, "make")}
    assert named
    assert named <= targets


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/LOG.md"])
def test_linked_files_exist(name: str) -> None:
    path = ROOT / name
    links = re.findall(r"\]\(([^)#]+)\)", path.read_text())
    missing = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert not missing


def test_files_of_the_tree_exist_and_no_part_of_the_package_is_missing() -> None:
    tree = blocks(CONTRIBUTING, "")[0]
    names = [re.match(r"((?:[\w/*]+(?:/|\.py),? +)+)", line.strip() + " ") for line in tree.splitlines()]
    paths = [path.strip(",/") for name in names if name for path in name[1].split()]
    assert len(paths) > 12
    package = ROOT / "src/reverie"
    assert [path for path in paths if not [*ROOT.glob(path), *package.glob(path)]] == []
    parts = {path.name for path in package.iterdir() if (path / "__init__.py").is_file() or path.suffix == ".py"}
    parts |= {f"engine/{room.parent.name}" for room in package.glob("engine/*/__init__.py")}
    unnamed = {
        part for part in parts - {"__init__.py", "__main__.py"} if not any(fnmatch(part, path) for path in paths)
    }
    assert unnamed == set()


@pytest.mark.parametrize("name", ["AGENTS.md", ".github/workflows/ci.yml"])
def test_named_paths_exist(name: str) -> None:
    if not (ROOT / name).exists():
        pytest.skip(f"the sdist has no {name}")
    named = set(
        re.findall(r"(?<![\w/.-])(?:src|tests|packages|tools|docs|bench)/[\w/.-]*[\w/]", (ROOT / name).read_text())
    )
    assert len(named) > 8
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_the_results_have_a_place() -> None:
    assert re.search(r"<!-- results -->\n.+\n<!-- /results -->", README, re.DOTALL)


def test_the_walk_example_makes_a_video(tiny_model: Path, tmp_path: Path) -> None:
    example = runpy.run_path(str(ROOT / "examples/play_offline.py"))
    example["main"](str(tiny_model), None, str(tmp_path / "walk.mp4"), blocks=3)
    assert (tmp_path / "walk.mp4").stat().st_size > 500


def test_the_environment_example_runs(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "examples/gym_env.py"))["main"](str(tiny_model), num_steps=3)
    assert "3 steps of 4 frames" in capsys.readouterr().out


def test_the_policy_example_trains(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = runpy.run_path(str(ROOT / "examples/train_policy.py"))
    arguments = ["--updates", "2", "--steps", "3", "--num-envs", "2", "--no-game"]
    image = np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    returns = example["main"](arguments, model=str(tiny_model), image=image, device="cpu", dtype="float32")
    assert len(returns) == 2
    assert "update 2:" in capsys.readouterr().out


def test_the_shell_example_is_valid() -> None:
    subprocess.run(["bash", "-n", str(ROOT / "examples/record_and_train.sh")], check=True)
