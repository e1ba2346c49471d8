"""What attacks are measured with: a server process, and a good player beside the attackers."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from reverie.serve.protocol import VERSION, FrameMessage

ROOT = Path(__file__).parents[2]
FRAME_S = 0.04
HELLO = json.dumps({"type": "hello", "version": VERSION})


@dataclass
class Server:
    """A server process under attack."""

    process: subprocess.Popen[str]
    port: int
    errors: list[str] = field(default_factory=list)
    longest_ms: float = 0.0
    longest: str = ""

    @property
    def rss_mib(self) -> float:
        """Memory of the server process; 0 where there is no /proc."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) / 1024
        return 0.0


@contextlib.contextmanager
def attacked_server(max_players: int = 8, port: int = 0) -> Iterator[Server]:
    """A server process.

    After the block `errors` has what it wrote to its terminal, and `longest_ms` the time of its longest callback.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.attack_target", str(max_players), str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in [str(ROOT), *sys.path] if entry)},
    )
    assert process.stdout is not None
    server = Server(process, int(process.stdout.readline() or "0"))
    try:
        yield server
    finally:
        try:
            out, errors = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            out, errors = process.communicate()
            server.errors.append("the server did not stop within 60 s")
        server.errors += errors.splitlines()
        with contextlib.suppress(ValueError):
            told = json.loads(out)
            server.longest_ms, server.longest = told["longest_ms"], told["longest"]


class GoodPlayer:
    """Plays as the page does, in a thread, and measures: frames shown, the gaps between them, and lost connections."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.num_frames = 0
        self.outages: list[str] = []
        self.gaps_s: list[float] = []
        self._shown_s: float | None = None

    def __enter__(self) -> GoodPlayer:
        self._thread.start()
        self.wait_for_frames(25)
        self.forget()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def forget(self) -> None:
        """Begin to measure anew."""
        self.num_frames, self.gaps_s, self.outages = 0, [], []

    def wait_for_frames(self, count: int, seconds: float = 60.0) -> None:
        """Until `count` more frames have been shown; raises AssertionError if they do not come."""
        wanted, end = self.num_frames + count, time.monotonic() + seconds
        while self.num_frames < wanted:
            assert time.monotonic() < end, (
                f"no {count} frames within {seconds:g} s: {self.outages or 'it stands still'}"
            )
            time.sleep(0.02)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._play()
            except (OSError, WebSocketException, TimeoutError) as error:
                if not self._stop.is_set():
                    self.outages.append(f"{type(error).__name__}: {error}")
                    time.sleep(0.2)

    def _play(self) -> None:
        with connect(f"ws://127.0.0.1:{self._port}/ws", compression=None, max_size=None, ping_interval=None) as ws:
            ws.send(HELLO)
            ws.send(json.dumps({"type": "start", "seed": 1}))
            queue: deque[FrameMessage] = deque()
            due_s, seq, pinged_s, heard_s = 0.0, 0, 0.0, time.monotonic()
            while not self._stop.is_set():
                now_s = time.monotonic()
                try:
                    message = ws.recv(timeout=max(0.0, min(due_s - now_s, 0.02)) if queue else 0.02)
                    heard_s = time.monotonic()
                    if isinstance(message, bytes):
                        queue.append(FrameMessage.decode(message))
                except TimeoutError:
                    if now_s - heard_s > 20:
                        raise
                now_s = time.monotonic()
                if queue and now_s >= due_s:
                    self._show(ws, queue.popleft(), now_s)
                    due_s = (due_s if now_s - due_s < 0.02 else now_s) + FRAME_S
                if now_s - pinged_s > 0.1:
                    seq, pinged_s = seq + 1, now_s
                    ws.send(json.dumps({"type": "input", "seq": seq, "codes": ["KeyW"], "mouse": [2, 0]}))
                    ws.send(json.dumps({"type": "ping", "time_ms": now_s * 1000}))

    def _show(self, ws, frame: FrameMessage, now_s: float) -> None:
        if self._shown_s is not None:
            self.gaps_s.append(now_s - self._shown_s)
        self._shown_s = now_s
        self.num_frames += 1
        ws.send(json.dumps({"type": "played", "epoch": frame.epoch, "index": frame.index, "round_trip_ms": 1}))
