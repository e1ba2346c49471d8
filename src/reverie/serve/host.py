"""One process's worlds: the source and its warm-up, the one thread that generates, the images, and who plays."""

from __future__ import annotations

import asyncio
import gc
import io
import logging
import tempfile
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

from PIL import Image

from reverie.engine.media.image_worker import load_untrusted, load_untrusted_session
from reverie.engine.sessions.session_file import SessionFile
from reverie.errors import CheckpointError, DataError, ImageError, ReverieError
from reverie.serve.protocol import ErrorCode, ModelInfo, Refusal, StartInfo, Status, Welcome
from reverie.serve.saves import SaveCard, SaveFolder
from reverie.serve.seats import Seats
from reverie.serve.sessions import Rewindable, Sessions
from reverie.serve.sources import (
    HasFiles,
    HasGame,
    HasMemory,
    HasScenes,
    Picture,
    PlaysTogether,
    Source,
    StartPicture,
    WorldSpec,
)
from reverie.serve.together import Together
from reverie.types import FPS, Action, World

if TYPE_CHECKING:
    from reverie.engine.sessions.timeline import Timeline

log = logging.getLogger("reverie.serve")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Resource limits of one server.

    Args:
        max_players: players at once.
        max_waiting: clients in the queue for a place; more are refused and may come again.
        max_greeting: connections that have not sent `hello` yet; beyond it the oldest goes.
        max_upload_bytes: size of an own image.
        max_uploads: number of own images that are kept; the oldest go.
        uploads_at_once: images that are received and decoded at the same time; more wait for `upload_wait_s`.
        upload_wait_s: how long an upload waits for its turn.
        upload_s: how long an upload may take; `upload_slow_s` if it comes slower than `upload_bytes_per_s`.
        max_session_s: the longest session of a stranger that is kept: it is generated again when it is opened.
        messages_per_s, message_burst: how fast one client may talk; a mouse and a keyboard stay far below.
        starts_per_s, start_burst: how often one client may open or restart a world; more wait.
        hello_s: how long a connection may stay silent at first.
        start_s: how long a client with a place may take to ask for a world.
        silence_s: how long a player who is not paused may send nothing; pages ping once a second, hidden ones once a
            minute.
        idle_s: how long a player may do nothing (not play, pause or leave the page hidden) while others wait.
        send_s: how long a client may leave what we send unread.
        max_kept: sessions that wait for players who have gone; each holds the memory of its snapshots.
        kept_s: how long they wait.
    """

    max_players: int = 4
    max_waiting: int = 16
    max_greeting: int = 16
    max_upload_bytes: int = 32 * 1024 * 1024
    max_uploads: int = 64
    uploads_at_once: int = 4
    upload_wait_s: float = 15.0
    upload_s: float = 120.0
    upload_slow_s: float = 10.0
    upload_bytes_per_s: float = 16_384.0
    max_session_s: float = 3600.0
    messages_per_s: float = 300.0
    message_burst: float = 600.0
    starts_per_s: float = 0.5
    start_burst: float = 8.0
    hello_s: float = 10.0
    start_s: float = 30.0
    silence_s: float = 75.0
    idle_s: float = 60.0
    send_s: float = 10.0
    max_kept: int = 2
    kept_s: float = 600.0


class Host:
    """State that all connections share.

    Everything that touches the source or a World runs on one thread, in the order asked for; each player asks for one
    block at a time.  Blocks of a source that can do so are made together, else players take turns.
    """

    def __init__(
        self,
        source: Source,
        limits: Limits | None = None,
        saves: SaveFolder | None = None,
        *,
        key: str = "",
        beside: Host | None = None,
    ) -> None:
        """saves: where sessions are saved; by default a folder that goes with the host.  key: what pages choose it by,
        where a server has several; beside: the host whose seats and generation thread it shares."""
        self.key = key
        self._own_saves = None if saves else tempfile.TemporaryDirectory(prefix="reverie-saves-")
        self.saves = saves or SaveFolder(Path(self._own_saves.name if self._own_saves else ""))
        self.limits = limits or Limits()
        self.status = Status("warming", 0.0, f"loading {source.name}")
        self.spec: WorldSpec | None = None
        self.failure: Exception | None = None
        self.is_loading = False
        self.num_here = 0
        """Players who have chosen this model."""
        self.seats = beside.seats if beside else Seats(self.limits.max_players, self.limits.max_waiting)
        self.sessions = Sessions(
            lambda world: self.later(world.close), max_waiting=self.limits.max_kept, wait_s=self.limits.kept_s
        )
        self.greeting: OrderedDict[object, asyncio.Timeout] = OrderedDict()
        self._source = source
        self._has_thread = beside is None
        self._thread = beside._thread if beside else ThreadPoolExecutor(1, thread_name_prefix="reverie-generate")
        together = isinstance(source, PlaysTogether)
        self.together = Together(source, self.call, self.limits.max_players) if together else None
        self._pictures: dict[str, StartPicture] = {}
        self._uploads: OrderedDict[str, StartPicture] = OrderedDict()
        self._thumbnails: OrderedDict[str, bytes] = OrderedDict()
        self._uploading = asyncio.Semaphore(self.limits.uploads_at_once)
        self._decoding = asyncio.Semaphore(2)

    @property
    def name(self) -> str:
        return self.spec.name if self.spec else self._source.name

    @property
    def num_players(self) -> int:
        return self.seats.num_seated

    @asynccontextmanager
    async def greeted_in_time(self) -> AsyncIterator[None]:
        """A time limit for the first message; TimeoutError when it is over, or too many others are silent as well."""
        key = object()
        try:
            async with asyncio.timeout(self.limits.hello_s) as timer:
                self.greeting[key] = timer
                while len(self.greeting) > self.limits.max_greeting:
                    self.greeting.popitem(last=False)[1].reschedule(asyncio.get_running_loop().time())
                yield
        finally:
            self.greeting.pop(key, None)

    async def warm_up(self, *, is_apart: bool = False) -> None:
        """Load the source in the background; `status` holds its progress.  A failure is kept in `failure`.

        is_apart: in another thread than the generation's, where others are playing meanwhile.
        """
        self.is_loading, self.failure = True, None
        try:
            load = partial(self._source.load, self._progress)
            spec = await (asyncio.to_thread(load) if is_apart else self.call(load))
        except Exception as error:
            self.is_loading = False
            self.failure = error
            if not isinstance(error, ReverieError):
                log.exception("warm-up failed")
            self.status = Status("failed", self.status.progress, one_line(error))
            return
        self._pictures = {start.id: start for start in spec.starts}
        self.spec, self.is_loading = spec, False
        self.status = Status("ready", 1.0, f"{spec.name} is ready")

    def too_little(self) -> str | None:
        """Tells in one line that memory is too small to load the source now; None where it is not, or unknown.  For any
        thread."""
        memory = self._source.memory() if isinstance(self._source, HasMemory) else None
        if memory is None or not memory[0] > memory[1]:  # what is free may not be known
            return None
        needed, free = (f"{num_bytes / 2**30:.1f} GiB" for num_bytes in memory)
        return f"{self.name} needs about {needed} of memory, and {free} is free"

    async def let_go(self) -> None:
        """Takes the source out of memory again; sessions that wait for their players end."""
        self.spec = None
        self.sessions.drop_waiting()
        await self.call(self._source.close)
        gc.unfreeze()  # what was loaded with the server is not looked through otherwise
        await asyncio.to_thread(gc.collect)

    def _progress(self, fraction: float, message: str) -> None:
        self.status = Status("warming", min(max(fraction, 0.0), 1.0), message)

    async def call(self, work: Callable[[], T], close: Callable[[T], object] | None = None) -> T:
        """Run `work` on the generation thread when its turn comes.

        close: gets what it made where nobody waits for that any more, because the player has left.
        """
        running = self._thread.submit(work)
        try:
            return await asyncio.wrap_future(running)
        except asyncio.CancelledError:
            if close is not None and not running.cancelled():
                self.later(lambda: None if running.exception() else close(running.result()))
            raise

    def later(self, work: Callable[[], object]) -> None:
        """Run `work` on the generation thread after all that was asked for before; nobody waits for it."""
        try:
            self._thread.submit(_logged, work)
        except RuntimeError:  # the server is going down and the thread has ended: nothing else can be using it
            _logged(work)

    def close(self) -> None:
        """Finish what is under way (worlds that are closing), close the source and end the thread."""
        self.later(self._source.close)
        if self._has_thread:
            self._thread.shutdown(wait=True)
        if self._own_saves is not None:
            self._own_saves.cleanup()

    def open(self, start_id: str | None, seed: int) -> World:
        """A World in the start image `start_id` (None: the first there is).  Call on the generation thread."""
        start = self._find(start_id)
        if start is not None and start.place is not None:
            assert isinstance(self._source, HasScenes)
            return self._source.open_scene(start.place, seed)
        return self._source.open(None if start is None else start.picture, seed)

    def open_file(self, file: SessionFile) -> tuple[Timeline, list[tuple[Action, ...]], list[str]]:
        """Opens a saved session, see `HasFiles.open_file`.  Raises Refusal.  Call on the generation thread."""
        if not isinstance(self._source, HasFiles):
            raise Refusal(ErrorCode.UNAVAILABLE, f"{self.name} is a real game and plays no saved sessions")
        try:
            return self._source.open_file(file)
        except (DataError, ImageError, CheckpointError) as error:
            raise Refusal(ErrorCode.BAD_SESSION, one_line(error)) from None

    def open_beside(self, file: SessionFile, session: Timeline, current: World | None) -> tuple[Rewindable, list[str]]:
        """A saved session with the game that is played beside it here, see `HasGame`; alone where there is none."""
        if isinstance(self._source, HasGame):
            return self._source.open_beside(file, session, current)
        return session, [] if file.game is None else [f"{file.game.name} is not played here; the dream of it goes on"]

    def start_of(self, file: SessionFile) -> str | None:
        """Id of the start that a saved session began at; None for an image, or a scene that is not offered."""
        for start in self._pictures.values():
            place = start.place
            if (
                place
                and file.scene
                and (place.folder.resolve().name, place.start) == (file.scene.name, file.scene.start)
            ):
                return start.id
        return None

    async def keep_file(self, data: bytes) -> SaveCard:
        """Keeps a stranger's session among the saves.  Raises Refusal, or DataError for one that is none."""
        spec = self.spec
        if spec is None or not isinstance(self._source, HasFiles):
            raise Refusal(ErrorCode.UNAVAILABLE, f"{self.name} plays no saved sessions now; {self.status.message}")
        async with self._decoding:
            data = await load_untrusted_session(data, spec.resolution)
        file = await asyncio.to_thread(SessionFile.from_bytes, data)
        if file.num_frames > self.limits.max_session_s * FPS:
            raise DataError(
                f"the session lasts {file.num_frames / FPS:.0f} s; one of at most {self.limits.max_session_s:g} s is "
                "generated again here"
            )
        return await asyncio.to_thread(self.saves.add, file)

    def _find(self, start_id: str | None) -> StartPicture | None:
        if start_id is None:
            return next(iter(self._pictures.values()), None)
        start = self.start(start_id)
        if start is None:
            raise Refusal(ErrorCode.UNKNOWN_START, "this start picture is no longer there; choose another or upload it")
        return start

    def start(self, start_id: str) -> StartPicture | None:
        """A bundled or uploaded image by its id."""
        return self._pictures.get(start_id) or self._uploads.get(start_id)

    async def thumbnail(self, start: StartPicture) -> bytes:
        """A start image as JPEG; encoded once, beside the event loop."""
        encoded = self._thumbnails.get(start.id)
        if encoded is None:
            encoded = self._thumbnails[start.id] = await asyncio.to_thread(jpeg, start.picture)
            while len(self._thumbnails) > len(self._pictures) + self.limits.max_uploads:
                self._thumbnails.popitem(last=False)
        return encoded

    @asynccontextmanager
    async def upload_slot(self) -> AsyncIterator[None]:
        """A turn to upload; raises Refusal if too many others do."""
        try:
            await asyncio.wait_for(self._uploading.acquire(), self.limits.upload_wait_s)
        except TimeoutError:
            raise Refusal(ErrorCode.BUSY, "too many images are being uploaded now; try again in a moment") from None
        try:
            yield
        finally:
            self._uploading.release()

    def spec_for_uploads(self) -> WorldSpec:
        """The world's description.  Raises Refusal where no images can be used."""
        spec = self.spec
        if spec is None:
            raise Refusal(ErrorCode.UNAVAILABLE, f"the world is not ready yet ({self.status.message}); try again soon")
        if not spec.uploads:
            raise Refusal(
                ErrorCode.UNAVAILABLE, f"{spec.name} is a real game and starts where it wants, not in a picture"
            )
        return spec

    async def upload(self, data: bytes, name: str) -> StartInfo:
        """Keep an own image to start in.  Raises Refusal where none can be used, ImageError for an unusable file."""
        spec = self.spec_for_uploads()
        async with self._decoding:  # few at a time: a large image takes much memory while it is decoded
            picture = await load_untrusted(data, spec.resolution)
        start = StartPicture(f"own-{uuid.uuid4().hex}", name, picture)
        self._uploads[start.id] = start
        while len(self._uploads) > self.limits.max_uploads:
            self._uploads.popitem(last=False)
        return describe(start, self.key)


def welcome(spec: WorldSpec, models: tuple[ModelInfo, ...] = (), key: str = "") -> Welcome:
    """Builds the first message to a player from the source's spec.  models: that can be chosen; key: of this one."""
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
        starts=tuple(describe(start, key) for start in spec.starts),
        bindings=spec.bindings.describe(),
        rewind_s=spec.rewind_s,
        views=spec.views,
        passes=spec.passes,
        own_passes=spec.own_passes,
        models=models,
        model_id=key,
    )


def describe(start: StartPicture, key: str = "") -> StartInfo:
    """key: of the model, where a server has several."""
    thumbnail = f"starts/{start.id}.jpg" + (f"?model={quote(key)}" if key else "")
    return StartInfo(start.id, start.name, thumbnail, start.keys, start.mouse, start.scene)


def jpeg(picture: Picture, quality: int = 92) -> bytes:
    """A JPEG with full colour resolution: small frames are shown large, and edges must stay clean."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def one_line(error: BaseException) -> str:
    """Formats an error for the player in one line: this project's own text in full, others by type only, for their text
    is not meant for players."""
    if isinstance(error, ReverieError):
        return " ".join(str(error).split())
    return f"unexpected {type(error).__name__}; the server's log has more"


def _logged(work: Callable[[], object]) -> None:
    try:
        work()
    except Exception:
        log.exception("closing a world failed")
