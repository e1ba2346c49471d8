"""Cards: the README.md of a repository on the Hub, whose front matter the Hub reads and shows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

LICENCES = frozenset({
    "agpl-3.0", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0",
    "cc-by-sa-3.0", "cc-by-sa-4.0", "cc0-1.0", "gpl-2.0", "gpl-3.0", "lgpl-2.1", "lgpl-3.0", "mit", "mpl-2.0",
    "unknown", "unlicense",
})  # fmt: skip
"""The Hub's identifiers, of those that are of use here."""
_FRONT = re.compile(r"\A---\r?\n(.*?)^---\r?\n?", re.DOTALL | re.MULTILINE)


def with_metadata(card: str, metadata: Mapping[str, Any]) -> str:
    """Returns `card` with `metadata` in its front matter; what the card states itself stays, lists are joined."""
    match = _FRONT.match(card)
    stated = _read(match[1]) if match else {}
    merged = {**metadata, **stated}
    for name, value in metadata.items():
        if isinstance(value, list) and isinstance(stated.get(name), list):
            merged[name] = [*stated[name], *(one for one in value if one not in stated[name])]
    body = card[match.end() :] if match else card
    return f"---\n{yaml.safe_dump(merged, sort_keys=False, allow_unicode=True)}---\n\n{body.lstrip()}"


def card_of(folder: Path, short: str, metadata: Mapping[str, Any]) -> str:
    """Returns a folder's README.md, or `short` where it has none, with metadata."""
    readme = folder / "README.md"
    return with_metadata(readme.read_text(encoding="utf-8") if readme.is_file() else short, metadata)


def licence_metadata(licence: str) -> dict[str, str]:
    """The Hub's fields for a licence; an unknown one is named as it is."""
    name = licence.strip().lower().replace(" ", "-") or "unknown"
    return {"license": name} if name in LICENCES else {"license": "other", "license_name": licence.strip()}


def size_category(count: int) -> str:
    """The Hub's word for a number of rows."""
    names = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B")
    return next((name for power, name in enumerate(names, 3) if count < 10**power), "n>1B")


def _read(front: str) -> dict[str, Any]:
    try:
        stated = yaml.safe_load(front)
    except yaml.YAMLError:
        return {}
    return stated if isinstance(stated, dict) else {}
