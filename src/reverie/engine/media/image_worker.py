"""Reads the images and sessions of strangers in a process of its own, with limits on time and memory.

A file can be made so that decoding it takes minutes or gigabytes, or finds a fault in a decoder.  The process reads the
file from its standard input, writes the finished pixels, or the session anew, to its standard output, and ends; the
server only waits.

    frame = await load_untrusted(data, (128, 224))
    session = await load_untrusted_session(data, (128, 224))
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from reverie.errors import DataError, ImageError

MAX_SECONDS = 15
"""Processor time that one image may take; wall time is bounded by twice as much, for machines that are busy."""
MAX_MEMORY_BYTES = 1_000_000_000
"""Memory that one image may take, beyond what the worker needs to begin."""
MAX_FILE_BYTES = 64 * 1024 * 1024
"""The largest file that a worker reads."""

_DONE, _REFUSED = b"+", b"-"
_FAILED = {
    "picture": "the picture could not be read within the limits (%s); save it again as a PNG or JPEG of moderate size",
    "session": "the session could not be read within the limits (%s); save a shorter one, and export that",
}
"""Error message for each kind of input that is read."""


async def load_untrusted(
    data: bytes,
    resolution: tuple[int, int],
    *,
    max_seconds: float = MAX_SECONDS,
    max_memory_bytes: int = MAX_MEMORY_BYTES,
) -> npt.NDArray[np.uint8]:
    """`engine.images.load_image` of a stranger's file, in a worker process.

    Args:
        data: the file.
        resolution: (H, W) of the result.
        max_seconds: processor time for it; twice as much by the clock.
        max_memory_bytes: memory for it.

    Raises ImageError as `load_image` does, and for files that take too much time or memory.
    """
    body = await _ask("picture", data, resolution, max_seconds, max_memory_bytes)
    height, width = resolution
    if len(body) != height * width * 3:
        raise ImageError(_FAILED["picture"] % "the decoder stopped")
    return np.frombuffer(body, np.uint8).reshape(height, width, 3).copy()


async def load_untrusted_session(
    data: bytes,
    resolution: tuple[int, int],
    *,
    max_seconds: float = MAX_SECONDS,
    max_memory_bytes: int = MAX_MEMORY_BYTES,
) -> bytes:
    """A stranger's session (`engine.session_file`), read in a worker process and written anew: with what was understood
    of it, and its images at `resolution` (H, W).

    Raises DataError as `SessionFile.from_bytes` does, and for files that take too much time or memory.
    """
    try:
        return await _ask("session", data, resolution, max_seconds, max_memory_bytes)
    except ImageError as error:
        raise DataError(str(error)) from None


async def _ask(kind: str, data: bytes, resolution: tuple[int, int], max_seconds: float, max_memory_bytes: int) -> bytes:
    """A worker's answer.  Raises ImageError, with the worker's words."""
    height, width = resolution
    failed = _FAILED[kind]
    worker = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "reverie.engine.media.image_worker",
        str(height),
        str(width),
        str(max_seconds),
        str(max_memory_bytes),
        kind,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=_environment(),
        start_new_session=True,  # a Ctrl-C in the terminal is for the server
    )
    try:
        async with asyncio.timeout(2 * max_seconds):
            answer, _ = await worker.communicate(data)
    except TimeoutError:
        raise ImageError(failed % f"more than {2 * max_seconds:g} s") from None
    finally:
        if worker.returncode is None:
            with suppress(ProcessLookupError):
                worker.kill()
            await worker.wait()
    mark, body = answer[:1], answer[1:]
    if mark == _REFUSED:
        raise ImageError(body.decode("utf-8", "replace"))
    if mark != _DONE or worker.returncode:
        raise ImageError(failed % _reason(worker.returncode))
    return body


def _environment() -> dict[str, str]:
    """Builds the worker's environment: the variables needed to import the package, and one thread for each library."""
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH", "LANG") if name in os.environ}
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    return {
        **kept,
        "PYTHONPATH": path,
        "PYTHONDONTWRITEBYTECODE": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }


def _reason(code: int | None) -> str:
    if code is not None and code < 0:
        with suppress(ValueError):
            return f"the decoder was stopped by {signal.Signals(-code).name}"
    return "the decoder stopped"


def _limit(max_seconds: float, max_memory_bytes: int) -> None:
    """Bound this process; where the system has no such limits (Windows), the server's clock alone stops it."""
    if sys.platform == "win32":
        return
    import resource

    def lower(kind: int, value: int) -> None:
        with suppress(ValueError, OSError):
            hard = resource.getrlimit(kind)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (value, value))

    lower(resource.RLIMIT_AS, _address_space() + max_memory_bytes)
    lower(resource.RLIMIT_CPU, math.ceil(time.process_time() + max_seconds))
    lower(resource.RLIMIT_FSIZE, 0)
    lower(resource.RLIMIT_CORE, 0)
    lower(resource.RLIMIT_NPROC, 0)
    signal.alarm(math.ceil(2 * max_seconds))  # a server that was killed stops nobody


def _address_space() -> int:
    """Bytes of address space in use; a guess where there is no /proc."""
    with suppress(OSError, ValueError), open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    return 1_000_000_000


def main() -> None:
    """Read a file from standard input; write `+` and the pixels, or the session anew, or `-` and why not."""
    from reverie.engine.media.images import load_image  # all that is needed is loaded before the limits hold
    from reverie.engine.sessions.session_file import SessionFile, encode_png, encode_thumbnail

    resolution, kind = (int(sys.argv[1]), int(sys.argv[2])), sys.argv[5]
    _limit(float(sys.argv[3]), int(sys.argv[4]))
    try:
        data = sys.stdin.buffer.read(MAX_FILE_BYTES)
        if kind == "picture":
            answer = _DONE + load_image(data, resolution).tobytes()
        else:
            file = SessionFile.from_bytes(data)
            start = file.start and encode_png(load_image(file.start, resolution))
            thumbnail = file.thumbnail and encode_thumbnail(load_image(file.thumbnail, resolution))
            answer = _DONE + replace(file, start=start, thumbnail=thumbnail).to_bytes()
    except (ImageError, DataError) as error:
        answer = _REFUSED + str(error).encode("utf-8", "replace")
    except MemoryError:
        answer = _REFUSED + (_FAILED[kind] % "too much memory").encode()
    sys.stdout.buffer.write(answer)


if __name__ == "__main__":
    main()
