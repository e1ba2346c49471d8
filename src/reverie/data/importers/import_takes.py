"""Import of what others recorded: takes of a folder become episodes of a dataset."""

from __future__ import annotations

import json
import shutil
from importlib import import_module
from typing import Any

from reverie.data.importers.config import ImportConfig
from reverie.data.importers.take import Source, read_json
from reverie.data.importers.transfer import Report, Transfer
from reverie.data.writer import DatasetWriter
from reverie.errors import DataError
from reverie.types import FPS, POSE_NAMES


def open_source(config: ImportConfig) -> Source:
    """The takes at `config.src`.  Raises DataError if there are none of that kind."""
    if not config.src.exists():
        raise DataError(f"{config.src}: there is no such file or folder")
    module = import_module(f"reverie.data.importers.{config.kind.replace('-', '_')}")
    return module.open_source(config)


def import_takes(config: ImportConfig) -> Report:
    """Bring in every take that can be used.  Raises DataError if not one episode can, leaving nothing behind."""
    source = open_source(config)
    is_new = not config.dst.exists() or (config.dst.is_dir() and not any(config.dst.iterdir()))
    notes = _notes(config)
    writer = DatasetWriter(
        config.dst,
        source.space,
        config.resolution,
        FPS,
        pose_names=POSE_NAMES if source.has_poses else (),
        task=f"play {config.kind}",
        notes=notes,
    )
    try:
        transfer = Transfer(config, source, writer)
    except BaseException:
        writer.close()
        raise
    try:
        with writer:
            transfer.run()
            if transfer.report.episodes:
                writer.write_notes(_with_import(notes, config))
    finally:
        if is_new and not writer.rows:
            shutil.rmtree(config.dst, ignore_errors=True)
    if not writer.rows:
        notes = transfer.report.notes
        why = notes[0] if notes else "every stretch was too short"
        raise DataError(f"{config.src}: nothing could be imported; the first reason: {why}")
    return transfer.report


def _notes(config: ImportConfig) -> dict[str, Any]:
    """Notes of a dataset on how it was made; for a new one, this import.

    Raises DataError for a recording of our own.
    """
    path = config.dst / "meta/reverie.json"
    if not path.is_file():
        return _with_import({}, config)
    notes = read_json(path)
    if not isinstance(notes, dict) or not isinstance(notes.get("importer"), dict):
        raise DataError(f"{config.dst}: holds a recording of our own; import into another folder")
    return notes


def _with_import(notes: dict[str, Any], config: ImportConfig) -> dict[str, Any]:
    """`notes` with this import as the last: `importer` is the last one, `imports` all that brought something in.

    Which options an episode came of is in its row of the episode table, as `source_options`.
    """
    this = json.loads(json.dumps({"src": str(config.src), **config.options()}))
    before = [one for one in notes.get("imports", ()) if one != this]
    return {**notes, "importer": this, "imports": [*before, this]}
