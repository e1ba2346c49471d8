from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from itertools import pairwise

import pytest

from reverie import cli
from reverie.cli import use_malloc_hints
from reverie.errors import ReverieError


@pytest.mark.parametrize("command", cli.COMMANDS, ids=lambda command: command.name)
def test_every_command_exists_and_shows_an_example(command: cli.Command) -> None:
    assert callable(command.verb())
    assert f"reverie {command.name}" in str(inspect.getdoc(command.load()))


@pytest.mark.parametrize("command", cli.COMMANDS, ids=lambda command: command.name)
def test_every_option_is_described(command: cli.Command) -> None:
    kind = command.load()
    described = {name for one in kind.__mro__ if is_dataclass(one) for name in described_fields(one)}
    assert {field.name for field in fields(kind)} == described


def described_fields(kind: type) -> Iterator[str]:
    """Yields the fields of a dataclass that a docstring follows."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    for field, text in pairwise(definition.body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            yield ast.unparse(field.target)


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    """Do as told.

    Example: reverie toy --do fail
    """

    do: str = "nothing"


def toy_verb(config: ToyConfig) -> None:
    if config.do == "fail":
        raise ReverieError("got a thing,\nexpected another; do this")
    if config.do == "stop":
        raise KeyboardInterrupt
    if config.do == "crash":
        raise RuntimeError("a bug\nand more")


@pytest.fixture
def toy(monkeypatch) -> None:
    command = cli.Command("toy", "a toy", f"{__name__}:ToyConfig")
    monkeypatch.setattr(cli.Command, "load", lambda _: ToyConfig)
    monkeypatch.setattr(cli.Command, "verb", lambda _: toy_verb)
    monkeypatch.setattr(cli, "COMMANDS", (*cli.COMMANDS, command))


def test_help_and_version_need_no_heavy_import() -> None:
    heavy = "{'torch', 'numpy', 'fastapi', 'tyro'}"
    code = (
        f"import sys, reverie.cli as c; c.main(['--help']); c.main(['--version']); print({heavy} & sys.modules.keys())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "generate" in out
    assert out.splitlines()[-1] == "set()"


@pytest.mark.usefixtures("toy")
def test_a_command_runs() -> None:
    assert cli.main(["toy"]) == 0


@pytest.mark.usefixtures("toy")
def test_our_errors_are_one_line_and_exit_code_2(capsys) -> None:
    assert cli.main(["toy", "--do", "fail"]) == 2
    assert capsys.readouterr().err == "reverie: got a thing, expected another; do this\n"


@pytest.mark.usefixtures("toy")
def test_debug_shows_the_traceback(capsys) -> None:
    assert cli.main(["toy", "--do", "fail", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.usefixtures("toy")
def test_ctrl_c_and_bugs(capsys) -> None:
    assert cli.main(["toy", "--do", "stop"]) == 130
    assert cli.main(["toy", "--do", "crash"]) == 1
    assert "unexpected RuntimeError: a bug (" in capsys.readouterr().err


@pytest.mark.usefixtures("toy")
def test_help_of_a_command_shows_its_example(capsys) -> None:
    assert cli.main(["toy", "--help"]) == 0
    assert "Example: reverie toy --do fail" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["paly"], "unknown command 'paly'; expected one of play, "),
        (["train"], "train what? Say reverie train tokenizer, reverie train world"),
        (["train", "nothing"], "train what?"),
        (["toy", "--no-such-option"], "no-such-option"),
    ],
)
@pytest.mark.usefixtures("toy")
def test_what_cannot_be_read_exits_with_2(args: list[str], message: str, capsys) -> None:
    assert cli.main(args) == 2
    assert message in capsys.readouterr().err


def test_help_of_a_group(capsys) -> None:
    assert cli.main(["train", "--help"]) == 0
    assert "train world" in capsys.readouterr().out


def test_idle_threads_sleep_unless_told_otherwise(monkeypatch) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    cli.main(["--version"])
    assert "GOMP_SPINCOUNT" not in os.environ
    monkeypatch.delenv("OMP_WAIT_POLICY")
    cli.main(["--version"])
    assert os.environ["GOMP_SPINCOUNT"] == "10000"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    cli.main(["train", "--help"])
    assert os.environ["GOMP_SPINCOUNT"] == "1000"
    monkeypatch.setenv("GOMP_SPINCOUNT", "5")
    cli.main(["--version"])
    assert os.environ["GOMP_SPINCOUNT"] == "5"


@dataclass(frozen=True)
class Given:
    """A command that does nothing."""

    device: str = "cpu"


def test_commands_that_train_set_the_memory_first(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(cli, "use_malloc_hints", asked.append)
    monkeypatch.setattr(cli.Command, "load", lambda _: Given)
    monkeypatch.setattr(cli.Command, "verb", lambda _: lambda config: None)
    for name in ("train given", "bench train", "distill given"):
        assert cli._run(cli.Command(name, "", f"{__name__}:Given"), ["--device", name]) == 0
    assert asked == ["train given", "distill given"]


def test_malloc_hints_start_the_command_again_once(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[dict[str, str]] = []
    monkeypatch.setattr(os, "execve", lambda path, argv, environment: started.append(environment))
    for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    use_malloc_hints("cpu")
    assert started[0]["MALLOC_TOP_PAD_"] == "268435456"
    monkeypatch.setenv("MALLOC_TOP_PAD_", "1")
    use_malloc_hints("cpu")
    assert len(started) == 1
