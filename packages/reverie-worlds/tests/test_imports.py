"""Holds the imports of the games: no circles of files, no torch, no game in another, little of reverie."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"

SHARED = {"geometry", "requirements", "shrink", "lockstep", "panda"}
"""Parts that every game may use; all others are games."""
OURS = ("reverie.types", "reverie.errors", "reverie.paths", "reverie.worlds", "reverie.data.policies")
"""Modules of reverie that a game may import."""

Imports = dict[str, list[tuple[int, str]]]


def read_imports(src: Path) -> Imports:
    """(line, module) of each import of each file, inside functions and for type checking too."""
    paths = {module_of(path, src): path for path in sorted(src.rglob("*.py"))}
    return {module: list(imports_of(path, paths)) for module, path in paths.items()}


def module_of(path: Path, src: Path) -> str:
    return ".".join(path.relative_to(src).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path, known: dict[str, Path]) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: write whole names"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [(node.lineno, name if name in known else str(node.module)) for name in names]
    return found


def problems_of(imports: Imports) -> list[str]:
    problems = []
    for module, found in imports.items():
        part = (*module.split("."), "")[1]
        for line, target in found:
            where, root = f"{module}:{line}", target.split(".")[0]
            if root == "torch":
                problems.append(f"{where}: must stay free of torch")
            if root == "reverie" and not target.startswith(OURS):
                problems.append(f"{where}: a game may not import {target}")
            other = (*target.split("."), "")[1]
            if root == "reverie_worlds" and other not in SHARED | {part}:
                problems.append(f"{where}: {part} may not import {other}")
    return problems + [f"a circle of files: {' -> '.join(circle)}" for circle in circles_of(imports)]


def circles_of(imports: Imports) -> list[list[str]]:
    """One circle for each file that its own imports lead back to, through files seen for the first time."""
    circles: list[list[str]] = []
    done: set[str] = set()

    def visit(module: str, way: list[str]) -> None:
        if module in way:
            circles.append([*way[way.index(module) :], module])
            return
        if module in done:
            return
        for _, target in imports[module]:
            if target in imports and target != module:
                visit(target, [*way, module])
        done.add(module)

    for module in imports:
        visit(module, [])
    return circles


def test_games_import_one_way() -> None:
    imports = read_imports(SRC)
    assert {"reverie_worlds.city.world", "reverie_worlds.lockstep.game"} <= set(imports)
    problems = problems_of(imports)
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    ("city", "plan", "complaint"),
    [
        ("from reverie_worlds.city import plan", "import reverie_worlds.city.world", "a circle of files"),
        (
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from reverie_worlds.city.plan import X",
            "def f():\n    from reverie_worlds.city.world import City",
            "a circle of files: reverie_worlds.city.plan -> reverie_worlds.city.world -> reverie_worlds.city.plan",
        ),
        ("def f():\n    import torch.nn", "", "must stay free of torch"),
        ("from reverie_worlds.temple.track import Leg", "", "city may not import temple"),
        ("from reverie.data.record import record", "", "a game may not import reverie.data.record"),
    ],
)
def test_a_violation_is_seen(city: str, plan: str, complaint: str, tmp_path: Path) -> None:
    folder = tmp_path / "reverie_worlds" / "city"
    folder.mkdir(parents=True)
    (folder / "world.py").write_text(city)
    (folder / "plan.py").write_text(plan)
    assert any(complaint in problem for problem in problems_of(read_imports(tmp_path)))


def test_what_is_allowed_passes(tmp_path: Path) -> None:
    folder = tmp_path / "reverie_worlds" / "city"
    folder.mkdir(parents=True)
    (folder / "world.py").write_text(
        "from reverie.types import World\nfrom reverie_worlds.city import plan\nfrom reverie_worlds.panda.mesh import M"
    )
    (folder / "plan.py").write_text("import numpy")
    assert problems_of(read_imports(tmp_path)) == []
