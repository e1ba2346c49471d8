"""The models of one server: each is loaded when it is first chosen, and makes room for another if memory is short."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from reverie.serve.host import Host, Limits
from reverie.serve.protocol import ErrorCode, ModelInfo, Refusal, Status
from reverie.serve.saves import SaveFolder
from reverie.serve.sources import Source


class Shelf:
    """A Host for each source, by a key that pages choose it with.  They share seats, saves and the generation thread.

    The first is loaded with the server.  All methods run on the event loop.
    """

    def __init__(
        self, sources: Mapping[str, Source], limits: Limits | None = None, saves: SaveFolder | None = None
    ) -> None:
        (key, source), *others = sources.items()
        self.first = first = Host(source, limits, saves, key=key if others else "")
        self._hosts = {key: first}
        self._hosts |= {key: Host(source, first.limits, first.saves, key=key, beside=first) for key, source in others}
        self._loading: set[asyncio.Task[None]] = set()
        self._lock = asyncio.Lock()

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        """The models that can be chosen; empty where there is one."""
        if len(self._hosts) == 1:
            return ()
        return tuple(ModelInfo(key, host.name) for key, host in self._hosts.items())

    def pick(self, key: str | None) -> Host:
        """The host of a key; for another, or none, the first that is loaded."""
        if key in self._hosts:
            return self._hosts[key]
        return next((host for host in (self.first, *self._hosts.values()) if host.spec is not None), self.first)

    def wake(self, host: Host) -> None:
        """Has a host loaded, if it is not: its `status` holds the progress."""
        if host.spec is not None or host.is_loading:
            return
        host.is_loading = True
        host.status = Status("warming", 0.0, f"loading {host.name}")
        task = asyncio.create_task(self._load(host))
        self._loading.add(task)
        task.add_done_callback(self._loading.discard)

    async def _load(self, host: Host) -> None:
        async with self._lock:  # one at a time: each takes memory that the next must not count on
            try:
                await self._make_room(host)
            except Refusal as refusal:
                host.status, host.is_loading = Status("failed", 0.0, str(refusal)), False
                return
            await host.warm_up(is_apart=True)

    async def _make_room(self, host: Host) -> None:
        """Lets models go that nobody plays, until `host`'s fits.  Raises Refusal where it does not."""
        while (short := await asyncio.to_thread(host.too_little)) is not None:
            loaded = [one for one in self._hosts.values() if one.spec is not None]
            idle = next((one for one in loaded if not one.num_here), None)
            if idle is None:
                played = ", ".join(one.name for one in loaded)
                until = f" while {played} is played; choose it again when its players have gone" if played else ""
                raise Refusal(ErrorCode.UNAVAILABLE, f"{short}{until}")
            await idle.let_go()

    async def close(self) -> None:
        """Ends what is being loaded, and closes every host."""
        for task in self._loading:
            task.cancel()
        await asyncio.gather(*self._loading, return_exceptions=True)
        for host in reversed(self._hosts.values()):  # the first has the thread
            host.sessions.close()
            await asyncio.to_thread(host.close)
