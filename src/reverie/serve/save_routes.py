"""Saved sessions over HTTP.

GET    /saves             every saved session, where visitors may see them all: [{"id", "title", ...}] (`SaveCard`)
POST   /saves             the body is a session's file (.reverie); answers `saved` or `error` of `serve.protocol`
GET    /saves/ID.reverie  the session's file
GET    /saves/ID.jpg      its last frame, small
DELETE /saves/ID          deletes it
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import asdict
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from reverie.errors import DataError, ImageError
from reverie.serve.answers import FRESH, STATUS, error_answer, read_body
from reverie.serve.host import Host
from reverie.serve.protocol import ErrorCode, Refusal, Saved, to_json


def add_saves(app: FastAPI) -> None:
    """Adds the routes to `app`, whose `state.host` has the saves."""

    @app.api_route("/saves", methods=["GET", "HEAD"])
    async def saves() -> Response:
        host: Host = app.state.host
        cards = await asyncio.to_thread(host.saves.cards) if host.saves.is_listed else []
        return JSONResponse([asdict(card) for card in cards], headers=FRESH)

    @app.post("/saves")
    async def keep(request: Request, model: str | None = None) -> Response:
        host: Host = app.state.shelf.pick(model)
        try:
            async with host.upload_slot():
                card = await host.keep_file(await read_body(request, host.limits, "session"))
        except (DataError, ImageError) as error:
            return error_answer(400, ErrorCode.BAD_SESSION, str(error))
        except Refusal as refusal:
            return error_answer(STATUS.get(refusal.code, 409), refusal.code, str(refusal))
        except ClientDisconnect:
            return Response(status_code=400)
        saved = Saved(card.id, card.title, card.created_ms, card.seconds, card.model)
        return Response(to_json(saved), media_type="application/json")

    @app.api_route("/saves/{save_id}.reverie", methods=["GET", "HEAD"])
    async def file(save_id: str, name: str = "") -> Response:
        host: Host = app.state.host
        try:
            data = await asyncio.to_thread(host.saves.read_bytes, save_id)
        except Refusal as refusal:
            return error_answer(404, refusal.code, str(refusal))
        title = re.sub(r"[^\w -]", "", name)[:40].strip() or "session"
        attachment = f"attachment; filename*=UTF-8''{quote(title)}.reverie"
        return Response(data, media_type="application/zip", headers={**FRESH, "Content-Disposition": attachment})

    @app.api_route("/saves/{save_id}.jpg", methods=["GET", "HEAD"])
    async def thumbnail(save_id: str) -> Response:
        host: Host = app.state.host
        try:
            image = await asyncio.to_thread(host.saves.read_thumbnail, save_id)
        except Refusal as refusal:
            return error_answer(404, refusal.code, str(refusal))
        if image is None:
            return error_answer(404, ErrorCode.UNKNOWN_SAVE, "this saved session has no thumbnail")
        return Response(image, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    @app.delete("/saves/{save_id}")
    async def remove(save_id: str) -> Response:
        host: Host = app.state.host
        try:
            await asyncio.to_thread(host.saves.remove, save_id)
        except Refusal as refusal:
            return error_answer(404, refusal.code, str(refusal))
        return Response(status_code=204)
