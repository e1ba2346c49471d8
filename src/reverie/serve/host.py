"""One process's worlds: the source and its warm-up, the one thread that generates, the pictures, and who plays."""

from __future__ import annotations

import asyncio
import io
import logging
import uuid
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from PIL import Image

from reverie.engine.images import load_image
from reverie.errors import ReverieError
from reverie.serve.protocol import ErrorCode, Refusal, StartInfo, Status, Welcome
from reverie.serve.sources import Picture, Source, StartPicture, WorldSpec
from reverie.types import World

log = logging.getLogger("reverie.serve")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one server puts up with.

    max_players: connections at once.  max_upload_bytes, max_uploads: size and number of own pictures (the oldest go).
    messages_per_s, message_burst: how fast one client may talk; a mouse and a keyboard stay far below.
    hello_s: how long a connection may stay silent at first; send_s: how long a client may leave what we send unread.
    """

    max_players: int = 4
    max_upload_bytes: int = 32 * 1024 * 1024
    max_uploads: int = 64
    messages_per_s: float = 300.0
    message_burst: float = 600.0
    hello_s: float = 10.0
    send_s: float = 10.0


class Host:
    """What all connections share.

    Everything that touches the source or a World runs on one thread, in the order asked for; each player asks for one
    block at a time, so players take turns.
    """

    def __init__(self, source: Source, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.status = Status("warming", 0.0, f"loading {source.name}")
        self.spec: WorldSpec | None = None
        self.failure: Exception | None = None
        self.num_players = 0
        self._source = source
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reverie-generate")
        self._pictures: dict[str, StartPicture] = {}
        self._uploads: OrderedDict[str, StartPicture] = OrderedDict()
        self._decoding = asyncio.Semaphore(1)

    @property
    def name(self) -> str:
        return self.spec.name if self.spec else self._source.name

    async def warm_up(self) -> None:
        """Load the source in the background; `status` tells how far it is.  A failure is kept in `failure`."""
        try:
            spec = await self.call(lambda: self._source.load(self._progress))
        except Exception as error:
            self.failure = error
            if not isinstance(error, ReverieError):
                log.exception("warm-up failed")
            self.status = Status("failed", self.status.progress, one_line(error))
            return
        self._pictures = {start.id: start for start in spec.starts}
        self.spec = spec
        self.status = Status("ready", 1.0, f"{spec.name} is ready")

    def _progress(self, fraction: float, message: str) -> None:
        self.status = Status("warming", min(max(fraction, 0.0), 1.0), message)

    async def call(self, work: Callable[[], T]) -> T:
        """Run `work` on the generation thread when its turn comes."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def later(self, work: Callable[[], object]) -> None:
        """Run `work` on the generation thread after all that was asked for before; nobody waits for it."""
        try:
            self._thread.submit(_logged, work)
        except RuntimeError:  # the server is going down and the thread has ended: nothing else can be using it
            _logged(work)

    def close(self) -> None:
        """Finish what is under way (worlds that are closing), close the source and end the thread."""
        self.later(self._source.close)
        self._thread.shutdown(wait=True)

    def open(self, start_id: str | None, seed: int) -> World:
        """A World in the start picture `start_id` (None: the first there is).  Call on the generation thread."""
        return self._source.open(self._find(start_id), seed)

    def _find(self, start_id: str | None) -> Picture | None:
        if start_id is None:
            return next((start.picture for start in self._pictures.values()), None)
        start = self.start(start_id)
        if start is None:
            raise Refusal(ErrorCode.UNKNOWN_START, "this start picture is no longer there; choose another or upload it")
        return start.picture

    def start(self, start_id: str) -> StartPicture | None:
        """A bundled or uploaded picture by its id."""
        return self._pictures.get(start_id) or self._uploads.get(start_id)

    async def upload(self, data: bytes, name: str) -> StartInfo:
        """Keep an own picture to start in.  Raises Refusal where none can be used, ImageError for an unusable file."""
        spec = self.spec
        if spec is None:
            raise Refusal(ErrorCode.UNAVAILABLE, f"the world is not ready yet ({self.status.message}); try again soon")
        if not spec.uploads:
            raise Refusal(
                ErrorCode.UNAVAILABLE, f"{spec.name} is a real game and starts where it wants, not in a picture"
            )
        async with self._decoding:  # one at a time: a large picture takes much memory while it is decoded
            picture = await asyncio.to_thread(load_image, data, spec.resolution)
        start = StartPicture(f"own-{uuid.uuid4().hex}", name, picture)
        self._uploads[start.id] = start
        while len(self._uploads) > self.limits.max_uploads:
            self._uploads.popitem(last=False)
        return describe(start)

    def welcome(self, spec: WorldSpec) -> Welcome:
        height, width = spec.resolution
        return Welcome(
            model=spec.name,
            kind=spec.kind,
            keys=spec.action_space.keys,
            mouse=spec.action_space.mouse,
            width=width,
            height=height,
            fps=spec.fps,
            block_frames=spec.block_frames,
            uploads=spec.uploads,
            starts=tuple(describe(start) for start in spec.starts),
            bindings=spec.bindings.describe(),
        )


def describe(start: StartPicture) -> StartInfo:
    return StartInfo(start.id, start.name, f"starts/{start.id}.jpg")


def jpeg(picture: Picture, quality: int = 92) -> bytes:
    """A JPEG with full colour resolution: small pictures are shown large, and edges must stay clean."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def one_line(error: BaseException) -> str:
    """What a player is told of an error: ours as they are; others by kind, for their text is not meant for players."""
    if isinstance(error, ReverieError):
        return " ".join(str(error).split())
    return f"unexpected {type(error).__name__}; the server's log has more"


def _logged(work: Callable[[], object]) -> None:
    try:
        work()
    except Exception:
        log.exception("closing a world failed")
