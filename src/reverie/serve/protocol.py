"""Protocol between the page and the server.  Torch-free; `static/protocol.js` is the page's copy.

A client opens the WebSocket and sends `hello` with its protocol version.  The server reports `status` while its world
warms up, then answers `welcome` (what can be played and how).  `start` opens a world and is answered by `started`;
from then on the server sends binary frames and the client sends `input`, and `played` for each frame that it shows.
A session of a model can also be left and taken up again (`resume`), sought through (`seek`, answered by `position` and
a frame of a new epoch), saved (`save`, `saved`) and loaded (`load`, `loading`, `started`).
`rate` bounds the frames shown a second, also while a world is played (answered by `rate`).
Where a game and the dream of it can be played, `view` swaps them (answered by `view`, and frames of a new epoch).
While all places are taken, `queued` counts the clients that come before; the client waits, and is served in its turn.

Text messages are JSON objects with a `type`; unknown fields are ignored.  Binary messages are frames, see `serve.wire`:
their `epoch` counts the starts and restarts of one connection, and frames of an older one are dropped.  Keys travel as
W3C `KeyboardEvent.code` names (plus `Mouse0`-`Mouse2`), the mouse as pixels moved; what they mean is the world's
business (see `bindings`).  A client that breaks these rules gets an `error` and, if it is fatal, a close.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Annotated, Any, ClassVar, NoReturn, get_args

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from reverie.errors import ProtocolError
from reverie.serve.wire import VERSION as VERSION
from reverie.serve.wire import Flags as Flags
from reverie.serve.wire import Format as Format
from reverie.serve.wire import FrameMessage as FrameMessage
from reverie.serve.wire import Kind as Kind
from reverie.types import VIEWS as VIEWS

MAX_MESSAGE_BYTES = 16 * 1024
"""The largest text message of a client."""
MAX_CODES = 32
"""Keys that may be held at once."""
MAX_MOUSE_PX = 1e5
MAX_UINT32 = 2**32 - 1
MAX_SEED = 2**31 - 1
MAX_PASSES = 1000
MAX_MODEL_ID = 80

MAX_SAVE_NAME = 80
"""The longest name of a saved session."""


class ErrorCode(StrEnum):
    """Reason for which the server refused a request."""

    BAD_MESSAGE = "bad-message"
    TOO_LARGE = "too-large"
    VERSION = "version"
    FLOOD = "flood"
    FULL = "full"
    TIMEOUT = "timeout"
    IDLE = "idle"
    FORBIDDEN = "forbidden"
    BUSY = "busy"
    UNAVAILABLE = "unavailable"
    UNKNOWN_START = "unknown-start"
    BAD_PICTURE = "bad-picture"
    WORLD_FAILED = "world-failed"
    UNKNOWN_SESSION = "unknown-session"
    UNKNOWN_SAVE = "unknown-save"
    BAD_SESSION = "bad-session"
    SAVE_FAILED = "save-failed"
    TAKEN = "taken"
    INTERNAL = "internal"


CLOSE_CODES = {
    ErrorCode.BAD_MESSAGE: 4400,
    ErrorCode.TIMEOUT: 4408,
    ErrorCode.TAKEN: 4409,
    ErrorCode.IDLE: 4410,
    ErrorCode.TOO_LARGE: 4413,
    ErrorCode.VERSION: 4426,
    ErrorCode.FLOOD: 4429,
    ErrorCode.FULL: 4503,
    ErrorCode.UNAVAILABLE: 4504,
}
"""The fatal errors, and the WebSocket close code that follows each."""


MAX_REASON_BYTES = 123
"""Largest close reason in bytes: the room in a WebSocket's close frame."""


def close_reason(text: str) -> str:
    """Truncates `text` to the room in a close frame: the limit is in bytes, and no character is cut in half."""
    return text.encode("utf-8", "replace")[:MAX_REASON_BYTES].decode("utf-8", "ignore")


class Refusal(ProtocolError):
    """A ProtocolError with the code that the client is sent."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


# ---------------------------------------------------------------------------------------------- client -> server


def _read_format(name: object) -> Format:
    if name not in ("jpeg", "rgb"):
        raise ValueError("expected jpeg or rgb")
    return Format[str(name).upper()]


Count = Annotated[int, Field(strict=True, ge=0, le=MAX_UINT32)]
Seed = Annotated[int, Field(strict=True, ge=0, le=MAX_SEED)]
Passes = Annotated[int, Field(strict=True, ge=0, le=MAX_PASSES)]
Flag = Annotated[bool, Field(strict=True)]
Identifier = Annotated[str, Field(strict=True, pattern="^[A-Za-z0-9_.-]{1,80}$")]
KeyCode = Annotated[str, Field(strict=True, pattern="^[A-Za-z][A-Za-z0-9]{0,31}$")]
Pixels = Annotated[float, Field(strict=True, ge=-MAX_MOUSE_PX, le=MAX_MOUSE_PX)]


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message: the version spoken, the encoding of frames (`jpeg` or `rgb`), and the model to play, an id of
    `welcome.models`; for another, or None, the server's own choice."""

    TYPE: ClassVar = "hello"
    version: Count
    format: Annotated[Format, BeforeValidator(_read_format)] = Format.JPEG
    model: Annotated[str, Field(strict=True, max_length=MAX_MODEL_ID)] | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """Open a world on the image named `start` (an id of `welcome.starts` or of an upload; None: the first).

    passes: denoising passes of its blocks, one of `welcome.passes`; None for the model's own number.
    """

    TYPE: ClassVar = "start"
    start: Identifier | None = None
    seed: Seed = 0
    passes: Passes | None = None


@dataclass(frozen=True, slots=True)
class Restart:
    """Begin again on the same image; everything under way is dropped.  passes: as in Start."""

    TYPE: ClassVar = "restart"
    seed: Seed = 0
    passes: Passes | None = None


@dataclass(frozen=True, slots=True)
class Resume:
    """Take up the session of an earlier connection, by the token of its `started`."""

    TYPE: ClassVar = "resume"
    session: Identifier


@dataclass(frozen=True, slots=True)
class Load:
    """Open the saved session `save` at its end."""

    TYPE: ClassVar = "load"
    save: Identifier


@dataclass(frozen=True, slots=True)
class Seek:
    """Go to the block that shows frame number `frame` (the start is 1), and pause there."""

    TYPE: ClassVar = "seek"
    frame: Count


@dataclass(frozen=True, slots=True)
class View:
    """Show the game, the dream of it, or both, one of `welcome.views`.

    epoch, index: the frame on the screen, at which another view begins; None for the latest.
    """

    TYPE: ClassVar = "view"
    view: Annotated[str, Field(strict=True, pattern=f"^({'|'.join(VIEWS)})$")]
    epoch: Count | None = None
    index: Count | None = None

    def __post_init__(self) -> None:
        if (self.epoch is None) != (self.index is None):
            raise ValueError("expected epoch and index, or neither")


def _well_formed(text: object) -> object:
    """Text with a question mark for each half of a character, which JSON can say and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode() if isinstance(text, str) else text


@dataclass(frozen=True, slots=True)
class Save:
    """Save the session under a name.  whole: with what was played after the frame that a `seek` has gone to."""

    TYPE: ClassVar = "save"
    name: Annotated[str, BeforeValidator(_well_formed), Field(strict=True, max_length=MAX_SAVE_NAME)]
    whole: Flag = False


@dataclass(frozen=True, slots=True)
class Pause:
    TYPE: ClassVar = "pause"
    paused: Flag


@dataclass(frozen=True, slots=True)
class Input:
    """All keys held now, and how far the mouse moved since the last `input`, in pixels: right and down are positive."""

    TYPE: ClassVar = "input"
    seq: Count
    codes: Annotated[frozenset[KeyCode], Field(max_length=MAX_CODES)] = frozenset()
    mouse: tuple[Pixels, Pixels] = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Played:
    """The frame `index` of `epoch` has come on the screen.  round_trip_ms: what the client's last ping measured."""

    TYPE: ClassVar = "played"
    epoch: Count
    index: Count
    round_trip_ms: Annotated[float, Field(strict=True, ge=0, le=1e7)] | None = None


@dataclass(frozen=True, slots=True)
class Ping:
    TYPE: ClassVar = "ping"
    time_ms: Annotated[float, Field(strict=True, ge=-1e15, le=1e15)]


@dataclass(frozen=True, slots=True)
class Rate:
    """Show at most `fps` frames a second from now on; None for as many as the world has.  Answered by `rate`."""

    TYPE: ClassVar = "rate"
    fps: Annotated[float, Field(strict=True, ge=1, le=1000)] | None = None


@dataclass(frozen=True, slots=True)
class MapRequest:
    """Asks for the top view of the spatial memory; answered at most once a second."""

    TYPE: ClassVar = "map"


ClientMessage = (
    Hello | Start | Restart | Resume | Load | Seek | View | Save | Pause | Input | Played | Rate | Ping | MapRequest
)
_READERS: dict[str, TypeAdapter[ClientMessage]] = {kind.TYPE: TypeAdapter(kind) for kind in get_args(ClientMessage)}


def parse(text: str | bytes) -> ClientMessage:
    """Read a client's text message.  Raises Refusal (too-large or bad-message) for all that is not one."""
    if len(text) > MAX_MESSAGE_BYTES:
        raise Refusal(ErrorCode.TOO_LARGE, f"a message has at most {MAX_MESSAGE_BYTES} bytes, got {len(text)}")
    try:
        body = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        _bad("a message is a JSON object", text[:40])
    if not isinstance(body, dict):
        _bad("a message is a JSON object", body)
    kind = body.get("type")
    if not isinstance(kind, str) or kind not in _READERS:
        _bad(f"its type is one of {', '.join(_READERS)}", kind)
    try:
        return _READERS[kind].validate_python(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        _bad(f"{'.'.join(map(str, (kind, *first['loc'])))}: {first['msg']}", first["input"])


def _bad(expected: str, got: object) -> NoReturn:
    shown = repr(got)
    raise Refusal(ErrorCode.BAD_MESSAGE, f"{expected}; got {shown if len(shown) <= 60 else shown[:57] + '...'}")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


# ---------------------------------------------------------------------------------------------- server -> client


@dataclass(frozen=True, slots=True)
class StartInfo:
    """An image to start on: its id, its title, and its thumbnail's address (relative to the page).

    keys, mouse: the controls of the game that it is from, of all that the model has; None where that is unknown.
    scene: the title of the scene that it lies in; None for an image alone.
    """

    id: str
    name: str
    thumbnail: str
    keys: tuple[str, ...] | None = None
    mouse: bool | None = None
    scene: str | None = None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model of the server that can be chosen."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Status:
    """Progress of the warm-up (`warming`, `ready` or `failed`); progress 0..1.  Also the heart of GET /health."""

    TYPE: ClassVar = "status"
    status: str
    progress: float
    message: str


@dataclass(frozen=True, slots=True)
class Queued:
    """All places are taken.  place: the client's place in the queue, 1 for the next one; waiting: its length."""

    TYPE: ClassVar = "queued"
    place: int
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """Description of the loaded world: controls, starts and abilities.

    kind: `dream` or `game`.  bindings: {keys: {code: key}, turns: {code: [pitch, yaw]}}.  rewind_s: how far back a
    session can go; 0 where it cannot be sought through or saved.  views: what `view` may ask for; empty where there is
    one world only.  passes: numbers of denoising passes that a world's blocks can be made in, ascending, and own_passes
    the model's own; empty for a game.  models: that `hello` may choose, empty where there is one; model_id: which of
    them this is.
    """

    TYPE: ClassVar = "welcome"
    version: int = VERSION
    model: str
    kind: str
    keys: tuple[str, ...]
    mouse: bool
    width: int
    height: int
    fps: float
    block_frames: int
    uploads: bool
    starts: tuple[StartInfo, ...]
    bindings: dict[str, Any] = field(default_factory=dict)
    rewind_s: float = 0.0
    views: tuple[str, ...] = ()
    passes: tuple[int, ...] = ()
    own_passes: int = 0
    models: tuple[ModelInfo, ...] = ()
    model_id: str = ""


@dataclass(frozen=True, slots=True)
class Started:
    """A world is open: frames of `epoch` follow.

    session: the token to `resume` it with; None where that cannot be.  frame: number of the frame that follows first,
    of the session's; earliest, last: the numbers that `seek` reaches.  passes: of its blocks; None for a game.
    """

    TYPE: ClassVar = "started"
    epoch: int
    start: str | None
    seed: int
    session: str | None = None
    frame: int = 1
    earliest: int = 1
    last: int = 1
    passes: int | None = None


@dataclass(frozen=True, slots=True)
class Position:
    """The answer to `seek`: one frame of `epoch`, number `frame`, follows.  As in Started."""

    TYPE: ClassVar = "position"
    epoch: int
    frame: int
    earliest: int
    last: int


@dataclass(frozen=True, slots=True)
class Viewed:
    """The answer to `view`: frames of `epoch` follow, which show `view`.  frame, earliest, last: as in Started.

    It also follows a `started` of a session that shows another view than the game.
    """

    TYPE: ClassVar = "view"
    epoch: int
    view: str
    frame: int = 1
    earliest: int = 1
    last: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """Distance of a generated rollout from its game, while it is shown.

    psnr_db: of the latest block against the game's; None while the game is not shown.  seconds: of the dream that are
    judged.  shares: kind of collapse -> how far the last one of them is on the way to it, 1 and more is beyond the
    limit, None where it is unknown.  collapsed: the kind that the dream has come to, and collapsed_s when.
    real_s: seconds of the game that the limits are from, of real_needed_s; before, its looks are not judged.
    """

    TYPE: ClassVar = "drift"
    psnr_db: float | None
    seconds: int
    shares: dict[str, float | None]
    collapsed: str | None
    collapsed_s: float | None
    real_s: int
    real_needed_s: int


@dataclass(frozen=True, slots=True)
class Rated:
    """The answer to `rate`: frames are shown at `fps` a second."""

    TYPE: ClassVar = "rate"
    fps: float


@dataclass(frozen=True, slots=True)
class Loading:
    """A loaded session is being generated again.  progress: 0..1."""

    TYPE: ClassVar = "loading"
    progress: float


@dataclass(frozen=True, slots=True)
class Saved:
    """The answer to `save`, and to POST /saves: the session is kept as `id`."""

    TYPE: ClassVar = "saved"
    id: str
    title: str
    created_ms: float
    seconds: float
    model: str


@dataclass(frozen=True, slots=True)
class Notice:
    """One line for the player that is no error."""

    TYPE: ClassVar = "notice"
    message: str


@dataclass(frozen=True, slots=True)
class Paused:
    TYPE: ClassVar = "paused"
    paused: bool


@dataclass(frozen=True, slots=True)
class Pong:
    TYPE: ClassVar = "pong"
    time_ms: float


@dataclass(frozen=True, slots=True)
class Error:
    """One line for the player.  After a fatal one the connection is closed with `CLOSE_CODES[code]`."""

    TYPE: ClassVar = "error"
    code: str
    message: str
    fatal: bool


@dataclass(frozen=True, slots=True)
class Uploaded:
    """The answer of POST /upload: a start image that any later `start` may name."""

    TYPE: ClassVar = "uploaded"
    start: StartInfo


@dataclass(frozen=True, slots=True)
class MemoryMap:
    """Top view of the spatial memory.  image: a data URL; None for a world without a memory."""

    TYPE: ClassVar = "map"
    image: str | None


ServerMessage = (
    Status
    | Queued
    | Welcome
    | Started
    | Position
    | Viewed
    | Drift
    | Rated
    | Loading
    | Saved
    | Notice
    | Paused
    | Pong
    | Error
    | Uploaded
    | MemoryMap
)


def to_json(message: ServerMessage) -> str:
    """A server's text message."""
    return json.dumps({"type": message.TYPE, **asdict(message)}, separators=(",", ":"), allow_nan=False)
