"""Holds the import direction of the package by reading every module's syntax tree.

types, errors, paths, hardware <- nn <- models <- sampling <- {train, engine} <- bench <- {evaluate, serve, env} <- cli
No files import each other in a circle, imports for type checking and inside functions included; only cli prints.
worlds, the registry of games, needs types and errors only; the games themselves are a distribution of their own, and
no module here imports it; train, evaluate and serve may use data; engine and train never meet;
serve/protocol and worlds are free of torch; types imports errors alone, errors, paths and locks nothing of ours.

Tests lie where their module lies, and import from tests.helpers, never from each other.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"

BASE = {"types", "errors", "paths", "locks"}
NETWORK = BASE | {"hardware", "nn", "vision", "scenes", "models", "sampling"}
ALLOWED = {
    "errors": set[str](),
    "paths": set[str](),
    "locks": set[str](),
    "types": {"errors"},
    "argument_markers": set[str](),
    "hardware": {"errors"},
    "overlay": BASE,
    "hub": BASE,
    "nn": BASE,
    "models": BASE | {"nn", "vision", "scenes"},
    "sampling": BASE | {"nn", "vision", "scenes", "models"},
    "worlds": BASE,
    "vision": BASE,
    "scenes": BASE | {"hub", "vision", "worlds"},
    "data": BASE | {"hub", "argument_markers", "overlay", "vision", "scenes", "worlds"},
    "train": NETWORK | {"data", "argument_markers", "worlds"},
    "engine": NETWORK | {"hub", "overlay", "worlds"},
    "bench": NETWORK | {"engine", "train"},
    "evaluate": NETWORK | {"argument_markers", "bench", "engine", "data", "overlay"},
    "serve": NETWORK | {"engine", "worlds", "data"},
    "export": NETWORK | {"engine", "serve"},
    "env": NETWORK | {"engine", "worlds"},
    "env_vector": NETWORK | {"engine", "env"},
    "cli": NETWORK
    | {
        "bench",
        "data",
        "engine",
        "env",
        "evaluate",
        "export",
        "hub",
        "argument_markers",
        "overlay",
        "serve",
        "train",
        "worlds",
    },
    "__init__": NETWORK | {"engine"},
    "__main__": {"cli"},
}
"""What each part of the package may import besides itself."""

EXCEPTIONS = {
    "reverie.scenes.recordings": {"data"},
    "reverie.serve.drift": {"evaluate"},
}
"""Modules that may import more than their part: scenes are made of recordings; the page's drift meter is the
evaluation's."""

PRINTS = {"reverie.train.recipes"}
"""Modules outside `cli` that may print: the program for machines that have torch and little else."""

ROOT = SRC.parent
TESTS = {
    ROOT / "tests": SRC / "reverie",
    ROOT / "packages/reverie-worlds/tests": ROOT / "packages/reverie-worlds/src/reverie_worlds",
}
"""Folders of tests, with the package that each mirrors."""

OF_NO_MODULE = {"attacks", "e2e"} | {
    f"test_{name}.py"
    for name in (
        "distribution",
        "docs",
        "few_packages",
        "games",
        "imports",
        "laws",
        "platforms",
        "prose",
        "readme",
        "rivals",
    )
}
"""Tests that are of no single module."""

TORCH_FREE = ("worlds", "types", "errors", "serve.protocol")
TORCH = {"torch", "torchvision", "torchaudio"}


def test_imports_run_one_way() -> None:
    problems = [problem for path in sorted(SRC.rglob("*.py")) for problem in problems_of(module_of(path), path)]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    ("module", "code", "complaint"),
    [
        ("reverie.nn.attention", "from reverie.models.dit import WorldModel", "nn may not import models"),
        ("reverie.engine.sessions.session", "import reverie.train.trainer", "engine may not import train"),
        ("reverie.train.trainer", "def f():\n    from reverie import engine", "train may not import engine"),
        ("reverie.types", "from reverie.nn import rope", "types may not import nn"),
        ("reverie.errors", "from . import types", "errors may not import types"),
        ("reverie.vision.projection", "from reverie.worlds import open_world", "vision may not import worlds"),
        ("reverie.worlds.limits", "from reverie.data.checks import judge", "worlds may not import data"),
        ("reverie.data.record", "from reverie_worlds.city.world import CityWorld", "must do without the games"),
        ("reverie.serve.sources", "import reverie_worlds", "must do without the games"),
        ("reverie.data.dataset", "from ..train.trainer import Trainer", "data may not import train"),
        ("reverie.worlds.yard", "import torch.nn", "must stay free of torch"),
        ("reverie.serve.protocol", "from torch import Tensor", "must stay free of torch"),
        ("reverie.models.dit", "import reverie", "imports the whole package"),
        ("reverie.surprise.thing", "import json", "unknown part"),
    ],
)
def test_a_violation_is_seen(module: str, code: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(code)
    assert any(complaint in problem for problem in problems_of(module, path))


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("reverie.engine.sessions.session", "from reverie.sampling import denoise\nimport torch\nfrom . import pace"),
        ("reverie.engine.media.render", "def f():\n    from reverie import __version__"),
        ("reverie.train.world", "from reverie.data.loader import ClipLoader"),
        ("reverie.data.record", "from reverie.worlds import open_world"),
        (
            "reverie.types",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from reverie.nn.cache import KVCache",
        ),
    ],
)
def test_what_is_allowed_passes(module: str, code: str, tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(code)
    assert problems_of(module, path) == []


@pytest.mark.parametrize("package", ["src", "packages/reverie-worlds/src"])
def test_no_files_import_each_other_in_a_circle(package: str) -> None:
    found = circles(file_imports(SRC.parent / package))
    assert not found, "\n".join(" -> ".join(circle) for circle in found)


def test_circles_are_seen(tmp_path: Path) -> None:
    files = {
        "toy/__init__.py": "",
        "toy/a.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from toy.b import B\n",
        "toy/b.py": "def f():\n    from toy import c\n",
        "toy/c.py": "import toy.room.a\n",
        "toy/room/__init__.py": "",
        "toy/room/a.py": "from ..a import A\nfrom . import d\n",
        "toy/room/d.py": "import json\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert circles(file_imports(tmp_path)) == [["toy.a", "toy.b", "toy.c", "toy.room.a"]]
    (tmp_path / "toy/c.py").write_text("import toy.room.d\n")
    assert circles(file_imports(tmp_path)) == []


def test_only_the_command_line_prints() -> None:
    names = {module_of(path): path for path in sorted(SRC.rglob("*.py"))}
    talkative = {name for name, path in names.items() if is_talkative(path.read_text(encoding="utf-8"))}
    assert len(talkative) > 10
    assert {name for name in talkative if part_of(name) != "cli"} == PRINTS


@pytest.mark.parametrize("code", ["print(1)", "tell = print", "from rich.console import Console", "import rich"])
def test_printing_is_seen(code: str) -> None:
    assert is_talkative(code)
    assert not is_talkative('"print"\nrich = 1\n')


@pytest.mark.parametrize("tests", TESTS, ids=lambda tests: tests.parent.name)
def test_tests_import_from_helpers_alone(tests: Path) -> None:
    problems = [problem for path in sorted(tests.rglob("*.py")) for problem in imported_tests(path)]
    assert not problems, "code that tests share belongs to tests/helpers:\n" + "\n".join(problems)


@pytest.mark.parametrize("tests", TESTS, ids=lambda tests: tests.parent.name)
def test_tests_lie_where_their_module_lies(tests: Path) -> None:
    found = [path.relative_to(tests) for path in tests.rglob("test_*.py")]
    strays = sorted(str(path) for path in found if is_stray(path, TESTS[tests]))
    assert not strays, "name them after a module of that folder of the package:\n" + "\n".join(strays)


@pytest.mark.parametrize(
    ("code", "imported"),
    [
        ("from tests.train.test_world import task", "tests.train.test_world"),
        ("def f():\n    import tests.engine.conftest", "tests.engine.conftest"),
        ("from tests import e2e", "tests.e2e"),
        ("from test_loop import Line", "test_loop"),
        ("import conftest", "conftest"),
    ],
)
def test_a_test_that_imports_a_test_is_seen(code: str, imported: str, tmp_path: Path) -> None:
    path = tmp_path / "test_thing.py"
    path.write_text(f"from tests import helpers\nfrom tests.helpers.damage import ANY\n{code}")
    assert [problem.rpartition(" ")[2] for problem in imported_tests(path)] == [imported]


def test_a_stray_test_is_seen(tmp_path: Path) -> None:
    for name in ("models/conditioning/walls.py", "models/conditioning/__init__.py", "models/dit.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    right = ["models/conditioning/test_walls.py", "models/test_dit_laws.py", "models/test_conditioning.py"]
    right += ["models/test_models.py", "e2e/test_page.py", "test_docs.py"]
    wrong = ["models/test_walls.py", "models/test_dits.py", "nn/test_dit.py", "test_thing.py"]
    assert [name for name in right + wrong if is_stray(Path(name), tmp_path)] == wrong


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__")


def problems_of(module: str, path: Path) -> list[str]:
    """Every breach of the direction in one file, one line each."""
    part = part_of(module)
    if part not in ALLOWED:
        return [f"{module}: unknown part {part!r} of the package; give it a place in ALLOWED"]
    torch_free = any(module.startswith(f"reverie.{name}") for name in TORCH_FREE)
    problems = []
    for line, target in imports_of(module, path):
        where = f"{module}:{line}"
        if torch_free and target.split(".")[0] in TORCH:
            problems.append(f"{where}: must stay free of torch, imports {target}")
        if target == "reverie" and part not in ("cli", "evaluate", "serve", "env"):
            problems.append(f"{where}: imports the whole package; import the module that is needed")
        if target.split(".")[0] == "reverie_worlds":
            problems.append(f"{where}: the core must do without the games, imports {target}")
        if not target.startswith("reverie.") or (other := part_of(target)) == part:
            continue
        if other not in ALLOWED[part] | EXCEPTIONS.get(module, set()):
            problems.append(f"{where}: {part} may not import {other} ({target})")
    return problems


def part_of(module: str) -> str:
    """The part of the package that a module belongs to: `reverie.nn.rope` -> `nn`, `reverie` -> `__init__`."""
    return ([*module.split("."), "__init__"])[1]


def imports_of(module: str, path: Path) -> list[tuple[int, str]]:
    """(line, full module name) of each import, inside functions too, those for type checking only left out."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found: list[tuple[int, str]] = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.orelse:
                visit(child)
            return
        if isinstance(node, ast.Import):
            found.extend((node.lineno, alias.name) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            found.extend((node.lineno, name) for name in targets_of(node, package))
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8"), str(path)))
    return found


def targets_of(node: ast.ImportFrom, package: str) -> list[str]:
    """The modules that a `from` import may load: `from reverie import engine` -> `reverie.engine`."""
    base = base_of(node, package)
    if base != "reverie":
        return [base]
    parts = {path.stem for path in (SRC / "reverie").iterdir()}
    names = [alias.name for alias in node.names if alias.name != "__version__"]
    return [f"reverie.{name}" if name in parts else "reverie" for name in names]


def base_of(node: ast.ImportFrom, package: str) -> str:
    """The full name of the module that a `from` import names first."""
    base = node.module or ""
    if not node.level:
        return base
    parents = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*parents, base] if base else parents)


def is_talkative(text: str) -> bool:
    """Returns whether code names `print`, or imports rich."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Name(id="print"):
                return True
            case ast.Import(names=names) if any(alias.name.split(".")[0] == "rich" for alias in names):
                return True
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] == "rich":
                return True
    return False


def file_imports(source: Path) -> dict[str, set[str]]:
    """The modules below `source` that each module there names in an import, wherever it stands in the file."""
    files = {
        ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(source.rglob("*.py"))
    }
    found: dict[str, set[str]] = {}
    for module, path in files.items():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        found[module] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            if isinstance(node, ast.Import):
                found[module] |= {alias.name for alias in node.names}
            if isinstance(node, ast.ImportFrom):
                base = base_of(node, package)
                named = {f"{base}.{alias.name}" for alias in node.names}
                found[module] |= {full if full in files else base for full in named}
        found[module] = {name for name in found[module] if name in files and name != module}
    return found


def circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """The sets of modules that reach each other by their imports, each sorted."""
    reached: dict[str, set[str]] = {}
    for start in imports:
        seen: set[str] = set()
        waiting = list(imports[start])
        while waiting:
            if (module := waiting.pop()) not in seen:
                seen.add(module)
                waiting += imports[module]
        reached[start] = seen
    members = {name: sorted(other for other in seen if name in reached[other]) for name, seen in reached.items()}
    return [list(circle) for circle in sorted({tuple(circle) for circle in members.values() if circle})]


def imported_tests(path: Path) -> list[str]:
    """Every import of a test module or a conftest in one file, one line each."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"tests.{name}" for name in names] if node.module == "tests" else [node.module or ""]
        for name in names:
            parts = name.split(".")
            is_helper = parts[:2] == ["tests", "helpers"]
            if not is_helper and (parts[0] in ("tests", "conftest") or parts[0].startswith("test_")):
                found.append(f"{path}:{node.lineno}: imports {name}")
    return found


def is_stray(test: Path, package: Path) -> bool:
    """Returns whether `test`, a path below the tests, is named after no module of that folder of `package`.

    `test_dit.py` and `test_dit_anything.py` are of `dit.py`, or of the folder `dit`; `models/test_models.py` is of the
    whole folder `models`.
    """
    if test.parts[0] in OF_NO_MODULE:
        return False
    folder = package / test.parent
    name = test.stem.removeprefix("test_") + "_"
    modules = [folder.name, *(entry.stem for entry in folder.glob("*") if entry.name != "__init__.py")]
    return not any(name.startswith(f"{module.strip('_')}_") for module in modules if folder.is_dir())
