"""`.reverie` files: a session as its start, seed and actions, from which the same model generates it again.

A ZIP archive, a few tens of kilobytes for minutes of play:

    session.json    kind, version, model, seed, keys, mouse, scene, title, created, frames, last_frame; where there are
                    such: passes, camera, game
    actions.json    an action script (`engine.script`), one action a frame; missing where nothing was played
    start.png       the start image at the model's size; missing for a session that began at a start of a scene
    thumbnail.jpg   the last frame, small; may be missing

Files of strangers are read with limits on every part.  `start` stays a file's bytes until a session opens on it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import zipfile
import zlib
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import numpy.typing as npt
from PIL import Image

from reverie.engine.sessions.script import ActionScript, parse_json
from reverie.errors import ActionError, DataError
from reverie.types import POSE_NAMES, VIEWS, Camera, Frames

if TYPE_CHECKING:
    from reverie.engine.engine import Engine
    from reverie.engine.sessions.session import Session

KIND, VERSION = "reverie.session", 1
SUFFIX = ".reverie"
MAX_FILE_BYTES = 32 * 2**20
MAX_TITLE = 80
MAX_REASON = 240
"""Longest reason in an error message: it may quote the file."""
MAX_OPTIONS = 400
"""Longest text of a game's options."""
THUMBNAIL_PX = 240
_PARTS = {"session.json": 64 * 2**10, "actions.json": 8 * 2**20, "start.png": 16 * 2**20, "thumbnail.jpg": 2**20}
"""The parts of a file, and the most bytes of each."""
MAX_ENTRIES = 64
"""Entries of an archive; each takes memory, whatever it is called."""
_ENTRY = b"PK\x01\x02"
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class SceneStart:
    """Start of a session in a scene.  fingerprint: the scene's name and a hash of its content; start: its number."""

    fingerprint: str
    start: int

    @property
    def name(self) -> str:
        return self.fingerprint.partition("/")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class GameState:
    """A real game beside a session.

    Args:
        name: the game.
        options: its options as text, such as `map=downtown place=2`.
        seed: of its episode.
        pose: (6,) of its camera, see `reverie.types.POSE_NAMES`; None for a game that does not report it.
        view: what was shown, one of `reverie.types.VIEWS`.
    """

    name: str
    options: str
    seed: int
    pose: tuple[float, ...] | None
    view: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFile:
    """A session that can be generated again.

    Args:
        model: fingerprint of the engine that generated it: name, hash of the weights, number type, device.
        seed: decides the noise.
        keys, mouse: what of the model's action space it was played with.
        start: the start image, a PNG file's bytes; None for a session that began at a start of a scene.
        scene: where in a scene it began; None for one outside of any.
        script: one action for each frame after the start; None where nothing was played.
        title: for people.
        created: seconds since 1970.
        last_frame: SHA-256 of the last frame's pixels; None where it is not known.
        thumbnail: the last frame as JPEG.
        passes: denoising passes of a block; None for the model's own number.
        camera: that of the start image, which may then lie in a scene; None where it is not known.
        game: the real game beside the session; None for a session alone.
    """

    model: str
    seed: int
    keys: tuple[str, ...]
    mouse: bool
    start: bytes | None = None
    scene: SceneStart | None = None
    script: ActionScript | None = None
    title: str = ""
    created: float = 0.0
    last_frame: str | None = None
    thumbnail: bytes | None = None
    passes: int | None = None
    camera: Camera | None = None
    game: GameState | None = None

    @property
    def num_frames(self) -> int:
        """Frames of the whole session, the first one included."""
        return 1 + (self.script.num_frames if self.script else 0)

    def to_bytes(self) -> bytes:
        head: dict[str, Any] = {
            "kind": KIND,
            "version": VERSION,
            "model": self.model,
            "seed": self.seed,
            "keys": list(self.keys),
            "mouse": self.mouse,
            "scene": self.scene and {"fingerprint": self.scene.fingerprint, "start": self.scene.start},
            "title": self.title,
            "created": datetime.fromtimestamp(self.created, UTC).isoformat(timespec="milliseconds"),
            "frames": self.num_frames,
            "last_frame": self.last_frame,
        }
        if self.passes is not None:
            head["passes"] = self.passes
        if (camera := self.camera) is not None:
            head["camera"] = {
                "pose": camera.pose.tolist(), "fov_deg": camera.fov_deg, "pixel_aspect": camera.pixel_aspect
            }  # fmt: skip
        if self.game is not None:
            head["game"] = asdict(self.game)
        parts = {
            "session.json": json.dumps(head, indent=1, ensure_ascii=False).encode(),
            "actions.json": self.script and self.script.to_json().encode(),
            "start.png": self.start,
            "thumbnail.jpg": self.thumbnail,
        }
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in parts.items():
                if content is None:
                    continue
                if len(content) > _PARTS[name]:
                    raise DataError(f"the session is too long for a file: its {name} has {len(content)} bytes")
                archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
        return buffer.getvalue()

    def save(self, path: str | Path) -> None:
        """Writes the file, atomically.  Raises DataError where that cannot be."""
        path = Path(path)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            temporary.write_bytes(self.to_bytes())
            os.replace(temporary, path)
        except OSError as error:
            raise DataError(f"cannot write the session {str(path)!r}: {error.strerror or error}") from None
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path) -> SessionFile:
        """Reads what `save` wrote.  Raises DataError for any other file."""
        path = Path(path)
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise DataError(f"{str(path)!r} is larger than a session's file can be, {MAX_FILE_BYTES >> 20} MiB")
            data = path.read_bytes()
        except OSError as error:
            raise DataError(f"cannot read the session {str(path)!r}: {error.strerror or error}") from None
        return cls.from_bytes(data, repr(str(path)))

    @classmethod
    def from_bytes(cls, data: bytes, name: str = "the file") -> SessionFile:
        """Parses a session from a file's content; see `load`.  name: the file, for messages."""
        parts = _read_parts(data, name)
        if "session.json" not in parts:
            raise DataError(f"{name} is a ZIP archive, but not a session: session.json is missing")
        try:
            return _parse(parts)
        except (ActionError, DataError) as error:
            reason = " ".join(str(error).split())[:MAX_REASON]
            raise DataError(f"{name} is not a session that can be read: {reason}; export it again") from None

    def titled(self, title: str) -> SessionFile:
        text = title.encode("utf-8", "replace").decode()  # half of an emoji is no text
        return replace(self, title=" ".join(text.split())[:MAX_TITLE])

    def check(self, engine: Engine) -> None:
        """Raises DataError where `engine` cannot play the actions, naming the model that can."""
        if self.scene is not None and engine.bundle.memory is None:
            raise DataError(f"this session began in a scene, and {engine.name} opens none; load {self.model_name}")
        try:
            if self.script is not None:
                self.script.check(engine.action_space)
        except ActionError as error:
            raise DataError(f"this session was played with {self.model_name}; load that model ({error})") from None
        if self.passes is not None and self.passes not in engine.pass_counts:
            raise DataError(
                f"this session was played with {self.passes} passes a block, and {engine.name} makes "
                f"{', '.join(map(str, engine.pass_counts))}; load {self.model_name}"
            )

    @property
    def model_name(self) -> str:
        return self.model.partition("/")[0]

    def warnings(self, session: Session) -> list[str]:
        """Reasons why `session`, opened on this file, may not generate the very same frames; one line each."""
        found = []
        if self.model != session.fingerprint:
            found.append(f"it was made by {self.model} and is played by {session.fingerprint}: its frames will differ")
        if self.scene is not None and self.scene.fingerprint != session.scene:
            found.append(f"it was made in {self.scene.fingerprint} and the scene here is {session.scene}")
        return found


def open_session(engine: Engine, file: SessionFile, scenes: Mapping[str, Path] | None = None) -> Session:
    """Opens the session of `file` at its start.

    scenes: folders by name; the bundled scenes by default.  Raises DataError for a session that `engine` cannot play,
    or whose scene is not there, ImageError for a start image that cannot be read.
    """
    from reverie.engine.loading.scenes import bundled_scenes

    file.check(engine)
    folder, start = None, 0
    if file.scene is not None:
        folders = {folder.name: folder for folder in bundled_scenes()} if scenes is None else scenes
        folder, start = folders.get(file.scene.name), file.scene.start
        if folder is None:
            raise DataError(
                f"this session began in the scene {file.scene.name!r}, which is not here; "
                f"expected one of {', '.join(sorted(folders)) or 'none'}, or its folder with --scene"
            )
    return engine.open(file.start, file.seed, scene=folder, start=start, camera=file.camera, passes=file.passes)


def hash_frame(frame: npt.NDArray[np.uint8]) -> str:
    """SHA-256 of a frame's pixels (H, W, 3)."""
    return hashlib.sha256(np.ascontiguousarray(frame).data).hexdigest()


def describe_session(session: Session, script: ActionScript | None, last: Frames, title: str = "") -> SessionFile:
    """The file of a session that has played `script` and shows `last` (f, H, W, 3)."""
    is_start = bool(session.scene) and session.start_camera is None
    return SessionFile(
        model=session.fingerprint,
        seed=session.seed,
        keys=session.action_space.keys,
        mouse=session.action_space.mouse,
        start=None if is_start else encode_png(session.picture[0]),
        scene=SceneStart(session.scene, session.start_number) if session.scene else None,
        script=script,
        created=datetime.now(UTC).timestamp(),
        last_frame=hash_frame(last[-1]),
        thumbnail=encode_thumbnail(last[-1]),
        passes=None if session.schedule == session.engine.schedule() else session.passes,
        camera=session.start_camera,
    ).titled(title)


def encode_png(frame: npt.NDArray[np.uint8]) -> bytes:
    """A PNG of (H, W, 3)."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "PNG")
    return buffer.getvalue()


def encode_thumbnail(frame: npt.NDArray[np.uint8]) -> bytes:
    """A JPEG of (H, W, 3), at most THUMBNAIL_PX wide."""
    buffer = io.BytesIO()
    image = Image.fromarray(frame)
    image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


# ---------------------------------------------------------------------------------------------------- reading


def read_thumbnail(data: bytes, name: str = "the file") -> bytes | None:
    """The thumbnail of a session's file, without reading the rest; None where it has none.  Raises DataError."""
    part = "thumbnail.jpg"
    return _read_parts(data, name, (part,)).get(part)


def _read_parts(data: bytes, name: str, wanted: Collection[str] = tuple(_PARTS)) -> dict[str, bytes]:
    """The parts of an archive by name; others are ignored."""
    if data.count(_ENTRY) > MAX_ENTRIES:
        raise DataError(f"{name} is not a session: it has more than {MAX_ENTRIES} entries")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            found: dict[str, bytes] = {}
            for part in archive.infolist():
                if part.filename not in wanted or part.filename in found:
                    continue
                limit = _PARTS[part.filename]
                if part.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others take any memory
                    raise DataError(f"{name} is not a session: its {part.filename} is not deflated")
                with archive.open(part) as file:
                    found[part.filename] = file.read(limit + 1)
                if len(found[part.filename]) > limit:
                    raise DataError(f"{name} is not a session: its {part.filename} is larger than {limit} bytes")
            return found
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__  # some quote the file
        raise DataError(f"{name} is not a session's file, or was cut short ({reason}); export it again") from None


def _parse(parts: Mapping[str, bytes]) -> SessionFile:
    try:
        head = json.loads(parts["session.json"])
    except (ValueError, RecursionError):
        raise DataError("its session.json is not valid JSON") from None
    if not isinstance(head, dict) or head.get("kind") != KIND:
        raise DataError(f"its session.json is not of the kind {KIND!r}")
    if head.get("version") != VERSION:
        raise DataError(f"it is of version {head.get('version')!r}, expected {VERSION}; update reverie")
    script = parse_json(_text(parts["actions.json"])) if "actions.json" in parts else None
    scene, camera = _scene(head), _camera(head)
    if (scene is None or camera is not None) != ("start.png" in parts):
        raise DataError("it begins on an image or in a scene: expected start.png or scene, or both with a camera")
    file = SessionFile(
        model=_field(head, "model", str, lambda text: 0 < len(text) <= 300),
        seed=_field(head, "seed", int, _is_seed),
        keys=tuple(_field(head, "keys", list, lambda keys: all(map(_is_text, keys)))),
        mouse=_field(head, "mouse", bool),
        start=parts.get("start.png"),
        scene=scene,
        script=script,
        title=_field(head, "title", str, lambda text: len(text) <= MAX_TITLE),
        created=_seconds(head),
        last_frame=None if head.get("last_frame") is None else _field(head, "last_frame", str, _HASH.fullmatch),
        thumbnail=parts.get("thumbnail.jpg"),
        passes=None if head.get("passes") is None else _field(head, "passes", int, lambda count: 0 < count <= 1000),
        camera=camera,
        game=_game(head),
    )
    if head.get("frames") != file.num_frames:
        raise DataError(f"it has {file.num_frames} frames, and its session.json says {head.get('frames')!r}")
    return file


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise DataError("its actions.json is not UTF-8 text") from None


def _scene(head: Mapping[str, Any]) -> SceneStart | None:
    scene = head.get("scene")
    if scene is None:
        return None
    if not isinstance(scene, dict):
        _wrong("scene", scene)
    return SceneStart(
        _field(scene, "fingerprint", str, lambda text: re.fullmatch(r"[^/\\]{1,100}/[0-9a-f]{12}", text)),
        _field(scene, "start", int, lambda number: 0 <= number < 10_000),
    )


def _camera(head: Mapping[str, Any]) -> Camera | None:
    if head.get("camera") is None:
        return None
    camera = _field(head, "camera", dict)
    return Camera(
        np.array(_field(camera, "pose", list, _is_pose), np.float32),
        float(_field(camera, "fov_deg", int | float, lambda degrees: 1 < degrees < 179)),
        float(_field(camera, "pixel_aspect", int | float, lambda aspect: 0.1 < aspect < 10)),
    )


def _game(head: Mapping[str, Any]) -> GameState | None:
    if head.get("game") is None:
        return None
    game = _field(head, "game", dict)
    return GameState(
        name=_field(game, "name", str, lambda text: 0 < len(text) <= MAX_TITLE),
        options=_field(game, "options", str, lambda text: len(text) <= MAX_OPTIONS),
        seed=_field(game, "seed", int, _is_seed),
        pose=None if game.get("pose") is None else tuple(map(float, _field(game, "pose", list, _is_pose))),
        view=_field(game, "view", str, VIEWS.__contains__),
    )


def _is_seed(seed: int) -> bool:
    return abs(seed) < 2**63


def _is_pose(pose: list[Any]) -> bool:
    """Tests for six numbers of at most a million: metres and degrees."""
    is_number = [isinstance(value, int | float) and not isinstance(value, bool) for value in pose]
    return len(pose) == len(POSE_NAMES) and all(is_number) and all(abs(value) <= 1e6 for value in pose)


def _seconds(head: Mapping[str, Any]) -> float:
    text = _field(head, "created", str)
    try:
        seconds = datetime.fromisoformat(text).timestamp()
        datetime.fromtimestamp(seconds, UTC)  # a time zone can carry it out of all calendars
        return seconds
    except (ValueError, OverflowError, OSError):
        _wrong("created", text)


def _field(head: Mapping[str, Any], name: str, kind: Any, is_valid: Any = lambda _: True) -> Any:
    value = head.get(name)
    is_kind = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if not is_kind or (kind is str and not _is_text(value)) or not is_valid(value):
        _wrong(name, value)
    return value


def _is_text(value: object) -> bool:
    """Returns whether a value is a string that UTF-8 can encode: JSON can also hold half of a surrogate pair."""
    return isinstance(value, str) and value == value.encode("utf-8", "replace").decode()


def _wrong(name: str, value: object) -> NoReturn:
    raise DataError(f"its {name} is not of the expected form, got {repr(value)[:60]}")
