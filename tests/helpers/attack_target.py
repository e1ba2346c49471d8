"""A real server of the toy dream in a process of its own:  python -m tests.helpers.attack_target MAX_PLAYERS [PORT]

Prints its port, serves until its standard input closes, then prints as JSON how long the longest callback of the event
loop took, in milliseconds of its thread's processor time (which other processes on the machine do not change).
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from asyncio import events

import uvicorn
from tests.helpers.rewinding_source import RewindingSource

from reverie.serve import app
from reverie.serve.host import Limits

longest_s, longest = 0.0, ""
_run_handle = events.Handle._run


def _timed(handle: events.Handle) -> None:
    global longest_s, longest
    what = repr(handle)  # some are spent once they have run
    began_s = time.thread_time()
    _run_handle(handle)
    if (took_s := time.thread_time() - began_s) > longest_s:
        longest_s, longest = took_s, what


async def main(max_players: int, port: int) -> None:
    global longest_s
    listener = app.bind("127.0.0.1", port)
    application = app.create_app(
        RewindingSource(cost_s=0.01), Limits(max_players=max_players), on_ready=app.freeze_memory
    )
    server = uvicorn.Server(app.server_config(application))
    running = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started or application.state.host.status.status != "ready":
        await asyncio.sleep(0.02)
    print(listener.getsockname()[1], flush=True)
    longest_s = 0.0
    events.Handle._run = _timed  # type: ignore[method-assign]

    loop = asyncio.get_running_loop()

    def stop_at_the_end_of_input() -> None:
        sys.stdin.buffer.read()
        loop.call_soon_threadsafe(setattr, server, "should_exit", True)

    threading.Thread(target=stop_at_the_end_of_input, daemon=True).start()
    await running
    print(json.dumps({"longest_ms": longest_s * 1000, "longest": longest}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
