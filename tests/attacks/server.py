"""A real server of the toy dream in a process of its own:  python -m tests.attacks.server [MAX_PLAYERS]

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
from tests.serve.fake_source import FakeSource

from reverie.serve import app
from reverie.serve.host import Limits

longest_s = 0.0
_run_handle = events.Handle._run


def _timed(handle: events.Handle) -> None:
    global longest_s
    began_s = time.thread_time()
    _run_handle(handle)
    longest_s = max(longest_s, time.thread_time() - began_s)


async def main(max_players: int) -> None:
    global longest_s
    listener = app.bind("127.0.0.1", 0)
    application = app.create_app(FakeSource(cost_s=0.01), Limits(max_players=max_players))
    server = uvicorn.Server(app.server_config(application))
    running = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
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
    print(json.dumps({"longest_ms": longest_s * 1000}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 8))
