"""Docstrings open with a verb or a noun of the field, and names are made of the glossary's words."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = (ROOT / "src" / "reverie", ROOT / "packages" / "reverie-worlds" / "src")

OPENERS = {"what", "whether", "how", "where", "which", "as", "of", "when", "who"}
PARTICIPLES = {"told", "moved", "covered", "seen", "worn", "kept"}

# Names of before the rule.  Take a line out with its function's new name; add none.
OLD_NAMES = {"src/reverie/train/spatial/stages.py: kept"}

# Words that the glossary has others for, in names of functions and classes.
BANNED = {
    "bank", "canvas", "coming", "crew", "dreamt", "duel", "hire", "lane", "obedience", "obey", "parked",
    "preflight", "retrace", "ruler", "stays", "subject", "tape", "tapes", "told", "trust", "upset", "worn",
}  # fmt: skip
# Names in which such a word means what it means elsewhere too; and those that a report's files are named after.
COLLISIONS = {
    "packages/reverie-worlds/src/reverie_worlds/city/chunks.py: parked_car",
    "packages/reverie-worlds/src/reverie_worlds/city/player.py: _nearest_lane",
    "packages/reverie-worlds/src/reverie_worlds/city/textures.py: canvas",
    "packages/reverie-worlds/src/reverie_worlds/temple/textures.py: _worn",
    "src/reverie/evaluate/summary.py: obedience",
    "src/reverie/evaluate/summary.py: obedience_columns",
    "src/reverie/vision/optical_flow.py: _trust",
}

# An example of each kind of docstring, and of each kind that is not one.
BAD = '''"""What a module holds."""
LIMIT = 3
"""How many."""
class Thing:
    """Where it is."""
    size: int = 0
    """Of the thing."""
    def told(self):
        """Whether: it was."""
class HereLane:
    pass
'''
GOOD = '''"""Whatever follows, and ownership."""
def _moved():
    """Asks what it is."""
    return "What is no docstring"
class Landing:
    pass
'''


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yields line and text of each string that stands as a statement: docstrings, and those below assignments."""
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield node.lineno, text


def openers(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yields line and first word of each docstring that opens with one of OPENERS."""
    for line, text in docstrings(tree):
        words = text.split(maxsplit=1)
        if words and words[0].rstrip(",.:;").lower() in OPENERS:
            yield line, words[0]


def participles(tree: ast.Module) -> Iterator[str]:
    """Yields the names of functions and methods that are one of PARTICIPLES."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name in PARTICIPLES:
            yield node.name


def banned(tree: ast.Module) -> Iterator[str]:
    """Yields the names of functions, methods and classes with one of BANNED among their words."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                if {word.lower() for word in re.findall(r"[A-Z]?[a-z]+", name)} & BANNED:
                    yield name


@cache
def trees() -> dict[str, ast.Module]:
    """Parses every source file; keys are paths from the repository's root."""
    files = sorted(file for source in SOURCES for file in source.rglob("*.py"))
    return {file.relative_to(ROOT).as_posix(): ast.parse(file.read_text(encoding="utf-8")) for file in files}


def test_checks_find_what_they_look_for() -> None:
    bad, good = ast.parse(BAD), ast.parse(GOOD)
    assert sorted(openers(bad)) == [(1, "What"), (3, "How"), (5, "Where"), (7, "Of"), (9, "Whether:")]
    assert list(participles(bad)) == ["told"]
    assert sorted(banned(bad)) == ["HereLane", "told"]
    assert not list(banned(good))
    assert not list(openers(good))
    assert not list(participles(good))


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.relative_to(ROOT).parts[0])
def test_docstrings_open_with_a_verb_or_a_noun(source: Path) -> None:
    prefix = source.relative_to(ROOT).as_posix()
    here = {path: tree for path, tree in trees().items() if path.startswith(prefix)}
    assert sum(1 for tree in here.values() for _ in docstrings(tree)) > 100
    found = [f"{path}:{line}: {word}" for path, tree in here.items() for line, word in openers(tree)]
    assert not found, "begin with a verb or a noun of what it is:\n" + "\n".join(found)


def test_public_functions_are_no_participles() -> None:
    found = {f"{path}: {name}" for path, tree in trees().items() for name in participles(tree)}
    assert found <= OLD_NAMES, f"name them verb + object: {sorted(found - OLD_NAMES)}"
    assert found == OLD_NAMES, f"renamed; take them out of the list: {sorted(OLD_NAMES - found)}"


def test_names_are_the_glossarys() -> None:
    found = {f"{path}: {name}" for path, tree in trees().items() for name in banned(tree)}
    assert found <= COLLISIONS, f"docs/glossary.md has other words: {sorted(found - COLLISIONS)}"
    assert found == COLLISIONS, f"renamed; take them out of the list: {sorted(COLLISIONS - found)}"
