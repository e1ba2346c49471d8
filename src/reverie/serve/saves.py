"""Saved sessions on the server's disk: a folder each, which appears whole or not at all.

ID/session.reverie    the session (`engine.session_file`), small
ID/card.json          title, time, length and model, for lists
ID/state.safetensors  the state at its end, so that it opens at once; missing for an imported session
ID/frame.png          its last frame; with the state
"""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from reverie.errors import CheckpointError, DataError
from reverie.serve.protocol import ErrorCode, Refusal
from reverie.types import FPS

if TYPE_CHECKING:
    from reverie.engine.sessions.session import Snapshot
    from reverie.engine.sessions.session_file import SessionFile

STALE_S = 3600.0
"""Seconds after which an unfinished file counts as left behind by a server that was killed."""
_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveCard:
    """A saved session in a list.  created_ms: milliseconds since 1970; seconds: its length; model: what made it."""

    id: str
    title: str
    created_ms: float
    seconds: float
    model: str


@dataclass(frozen=True, slots=True)
class SavedState:
    """The end of a saved session.  frame: (H, W, 3)."""

    snapshot: Snapshot
    frame: npt.NDArray[np.uint8]


def default_folder() -> Path:
    """Returns the folder of this user's saved sessions."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "reverie" / "saves"


class SaveFolder:
    """Saved sessions in `folder`, which is made when the first is saved.

    max_saves: beyond it nothing is saved until one is deleted.  is_listed: whether visitors may see all of them; else
    each sees those whose ids it knows, which cannot be guessed.  All methods may be called from any thread, and wait
    for the disk.  They raise Refusal, in one line.
    """

    def __init__(self, folder: Path, *, max_saves: int = 200, is_listed: bool = False) -> None:
        self.folder = folder
        self.max_saves = max_saves
        self.is_listed = is_listed
        self._lock = threading.Lock()

    def cards(self) -> list[SaveCard]:
        """Every saved session, newest first; those that cannot be read are left out."""
        found = []
        for path in self._folders():
            try:
                found.append(SaveCard(**json.loads((path / "card.json").read_text())))
            except (OSError, ValueError, TypeError):
                continue
        return sorted(found, key=lambda card: -card.created_ms)

    def add(self, file: SessionFile, state: SavedState | None = None) -> SaveCard:
        """Saves a session."""
        card = SaveCard(
            id=uuid.uuid4().hex,
            title=file.title,
            created_ms=round(file.created * 1000),
            seconds=(file.num_frames - 1) / FPS,
            model=file.model,
        )
        with self._lock:
            if len(self._folders()) >= self.max_saves:
                raise Refusal(ErrorCode.SAVE_FAILED, f"{self.max_saves} sessions are saved already; delete one first")
            self._sweep()
            partial = self.folder / f".{card.id}.partial"
            try:
                partial.mkdir(parents=True)
                file.save(partial / "session.reverie")
                if state is not None:
                    state.snapshot.save(partial / "state.safetensors")
                    Image.fromarray(state.frame).save(partial / "frame.png")
                (partial / "card.json").write_text(json.dumps(asdict(card)))
                partial.rename(self.folder / card.id)
            except (OSError, DataError, CheckpointError) as error:
                reason = getattr(error, "strerror", None) or str(error)
                reason = reason.replace(f"{partial}{os.sep}", "")  # where the server keeps what is its own affair
                raise Refusal(
                    ErrorCode.SAVE_FAILED, f"the session could not be saved ({reason}); it is played on as it was"
                ) from None
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        return card

    def read_bytes(self, save_id: str) -> bytes:
        """The session's file, to be downloaded."""
        try:
            return (self._path(save_id) / "session.reverie").read_bytes()
        except OSError:
            raise _unknown() from None

    def read(self, save_id: str) -> SessionFile:
        """The session."""
        from reverie.engine.sessions.session_file import SessionFile

        try:
            return SessionFile.from_bytes(self.read_bytes(save_id), "the saved session")
        except DataError as error:
            raise Refusal(ErrorCode.BAD_SESSION, str(error)) from None

    def read_thumbnail(self, save_id: str) -> bytes | None:
        """Its last frame as JPEG; None where the file has none.  The rest of the file is not read."""
        from reverie.engine.sessions.session_file import read_thumbnail

        try:
            return read_thumbnail(self.read_bytes(save_id))
        except DataError as error:
            raise Refusal(ErrorCode.BAD_SESSION, str(error)) from None

    def read_state(self, save_id: str) -> SavedState | None:
        """The session's end; None where it was not saved, or is damaged: the session is then generated again."""
        from reverie.engine.sessions.session import Snapshot

        path = self._path(save_id)
        try:
            with Image.open(path / "frame.png", formats=("PNG",)) as image:
                frame = np.array(image.convert("RGB"))
            return SavedState(Snapshot.load(path / "state.safetensors"), frame)
        except (OSError, CheckpointError):
            return None

    def remove(self, save_id: str) -> None:
        """Deletes a session."""
        path = self._path(save_id)
        with self._lock:
            doomed = self.folder / f".{save_id}.partial"
            try:
                path.rename(doomed)
            except OSError:
                raise _unknown() from None
            shutil.rmtree(doomed, ignore_errors=True)

    def _path(self, save_id: str) -> Path:
        if not _ID.fullmatch(save_id):
            raise _unknown()
        return self.folder / save_id

    def _sweep(self) -> None:
        """Remove what another server had under way when it was killed."""
        for path in self.folder.glob(".*.partial"):
            try:
                is_stale = time.time() - path.stat().st_mtime > STALE_S
            except OSError:
                continue
            if is_stale:
                shutil.rmtree(path, ignore_errors=True)

    def _folders(self) -> list[Path]:
        try:
            return [path for path in self.folder.iterdir() if _ID.fullmatch(path.name)]
        except OSError:
            return []


def _unknown() -> Refusal:
    return Refusal(ErrorCode.UNKNOWN_SAVE, "this saved session is no longer on the server")
