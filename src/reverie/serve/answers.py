"""Bodies of requests, read within limits, and errors as answers."""

from __future__ import annotations

import asyncio
import time

from fastapi import Request, Response

from reverie.errors import ImageError
from reverie.serve.host import Limits
from reverie.serve.protocol import Error, ErrorCode, Refusal, to_json

FRESH = {"Cache-Control": "no-cache"}

STATUS = {ErrorCode.TOO_LARGE: 413, ErrorCode.TIMEOUT: 408, ErrorCode.BUSY: 503}
"""The HTTP status of a refused upload, where it is not 409."""


async def read_body(request: Request, limits: Limits, kind: str) -> bytes:
    """The whole body.  kind: a word for what is sent, for messages.

    Raises Refusal as soon as it is known to be too large or comes too slowly, ImageError if it is empty.
    """
    too_large = f"a {kind} file has at most {limits.max_upload_bytes // 2**20} MiB; make it smaller"
    if int(request.headers.get("content-length", 0)) > limits.max_upload_bytes:
        raise Refusal(ErrorCode.TOO_LARGE, too_large)
    body = bytearray()
    began_s = time.monotonic()
    parts = aiter(request.stream())
    try:
        while True:
            allowed_s = min(limits.upload_slow_s + len(body) / limits.upload_bytes_per_s, limits.upload_s)
            async with asyncio.timeout(began_s + allowed_s - time.monotonic()):
                part = await anext(parts, None)
            if part is None:
                break
            body += part
            if len(body) > limits.max_upload_bytes:
                raise Refusal(ErrorCode.TOO_LARGE, too_large)
    except TimeoutError:
        raise Refusal(
            ErrorCode.TIMEOUT, f"the {kind} came too slowly; try a smaller one, or a faster network"
        ) from None
    if not body:
        raise ImageError(f"no {kind} came with the upload; choose a file")
    return bytes(body)


def error_answer(status: int, code: ErrorCode, message: str) -> Response:
    headers = FRESH if status in (400, 404, 409) else {**FRESH, "Connection": "close"}  # the rest is not read
    return Response(to_json(Error(code, message, fatal=False)), status, media_type="application/json", headers=headers)
