"""An hour of everything at once, by hand:  make soak, or python -m tests.attacks.soak --minutes 5 --kills 4

Four players play while others open and close tabs, send random messages, and the server is restarted now and then.
Beside them a recorder, a recorded play, a tokenizer's training and the encoding of latents are killed (-9) at random
moments; after each kill nothing may be left running, no temporary file or shared memory, and no dataset damaged.

It talks to 127.0.0.1 only, stops by itself, and ends with 0 if all went well.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.helpers.attacked_server import GoodPlayer, Server, attacked_server
from tests.helpers.attacks import fuzz

NUM_PLAYERS = 4
RESTART_S = 240.0
SETTLE_S = 20.0
"""How long what was killed has to disappear."""


class Soak:
    """Counts what is done and what goes wrong, and tells the threads when to stop."""

    def __init__(self, minutes: float, kills: int, messages: int, seed: int, game: str, folder: Path) -> None:
        self.end_s = time.monotonic() + 60 * minutes
        self.kills, self.messages, self.game, self.folder = kills, messages, game, folder
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.environment = {**os.environ, "TMPDIR": str(self.temporary)}
        self.rng = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self.stop = threading.Event()
        self.may_fail = threading.Event()  # while the server restarts
        self.port = 0

    @property
    def is_over(self) -> bool:
        return self.stop.is_set() or time.monotonic() > self.end_s

    def fault(self, text: str) -> None:
        self.faults.append(text)
        print(f"FAULT: {text}", flush=True)


# ------------------------------------------------------------------------------------------------------- the server


def serve(soak: Soak, is_up: threading.Event) -> None:
    """A server that is started again every few minutes, on the same port."""
    before = 0.0
    while not soak.is_over:
        with attacked_server(NUM_PLAYERS + 4, soak.port) as server:
            soak.port = server.port
            if not server.port:
                soak.fault("the server did not start again on its port")
                return
            is_up.set()
            soak.may_fail.clear()
            _wait(soak, 30.0)
            before = server.rss_mib
            _wait(soak, RESTART_S * soak.rng.uniform(0.6, 1.4))
            _judge_memory(soak, server, before)
            soak.may_fail.set()
        soak.counts["restarts of the server"] += 1
        for line in server.errors:
            if "Traceback" in line or "Error" in line:
                soak.fault(f"the server's log: {line}")
        if server.longest_ms > 50:
            soak.fault(f"the event loop was held for {server.longest_ms:.0f} ms by {server.longest[:200]}")


def _judge_memory(soak: Soak, server: Server, before: float) -> None:
    if before and server.rss_mib - before > 48:
        soak.fault(f"the server grew from {before:.0f} to {server.rss_mib:.0f} MiB")


def open_and_close_tabs(soak: Soak) -> None:
    """Visitors who stay for a moment."""
    while not soak.is_over:
        if soak.may_fail.is_set():
            time.sleep(0.5)
            continue
        with contextlib.suppress(AssertionError), GoodPlayer(soak.port):
            time.sleep(soak.rng.uniform(0, 2))
        soak.counts["tabs opened and closed"] += 1


def send_messages(soak: Soak) -> None:
    rng = random.Random(soak.rng.random())
    while not soak.is_over and soak.counts["random messages"] < soak.messages:
        if soak.may_fail.is_set():
            time.sleep(0.5)
            continue
        with contextlib.suppress(OSError):
            soak.counts["random messages"] += fuzz(soak.port, rng, 50)


def _wait(soak: Soak, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not soak.is_over:
        time.sleep(0.2)


# -------------------------------------------------------------------------------------------------------- the kills


def reverie(*args: object) -> list[str]:
    return [sys.executable, "-c", "import sys; from reverie.cli import main; sys.exit(main())", *map(str, args)]


def run(soak: Soak, *args: object, good: tuple[int, ...] = (0,)) -> bool:
    """Whether a command that ends by itself ends well."""
    done = subprocess.run(
        reverie(*args), capture_output=True, text=True, timeout=900, cwd=soak.folder, env=soak.environment
    )
    if done.returncode not in good:
        print(f"{args}: exit code {done.returncode}\n{(done.stdout + done.stderr)[-800:]}", flush=True)
    return done.returncode in good


@contextlib.contextmanager
def started(soak: Soak, command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A command, killed at the end of the block."""
    with (soak.folder / "log.txt").open("a") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=soak.folder, env=soak.environment
        )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def kill_recorder(soak: Soak) -> None:
    hours = 10 * (1 + soak.counts["kills"])
    command = reverie("record", soak.game, "-o", soak.folder / "rec", "--hours", hours, "--episode-seconds", 10,
                      "--min-episode-seconds", 4)  # fmt: skip
    with started(soak, command):
        time.sleep(soak.rng.uniform(1, 30))


def kill_play(soak: Soak) -> None:
    command = reverie("play", "--world", soak.game, "--record", soak.folder / "play", "--port", 0, "--no-browser")
    with started(soak, command) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r":(\d+)", line)
        if found is None:
            soak.fault(f"play did not start: {line!r}")
            return
        with contextlib.suppress(AssertionError), GoodPlayer(int(found[1])):
            time.sleep(soak.rng.uniform(1, 20))
            process.send_signal(signal.SIGKILL)


def kill_trainer(soak: Soak) -> None:
    data, output = soak.folder / "rec", soak.folder / "tok"
    command = reverie("train", "tokenizer", "--preset", "tiny", "--data", data, "-o", output, "--steps", 100_000,
                      "--checkpoint-minutes", 0.05)  # fmt: skip
    with started(soak, command):
        time.sleep(soak.rng.uniform(5, 40))


def kill_encoder(soak: Soak) -> None:
    """Training a world begins by encoding what is not encoded yet."""
    data, tokenizer, output = soak.folder / "rec", soak.folder / "tok0", soak.folder / "world"
    command = reverie("train", "world", "--preset", "tiny", "--data", data, "--tokenizer", tokenizer, "-o", output,
                      "--steps", 100_000)  # fmt: skip
    with started(soak, command):
        time.sleep(soak.rng.uniform(3, 30))


KILLS: dict[str, Callable[[Soak], None]] = {
    "record": kill_recorder,
    "play --record": kill_play,
    "train tokenizer": kill_trainer,
    "encode": kill_encoder,
}


def kill_at_random(soak: Soak) -> None:
    """Kill one command after the other, and look at what is left."""
    if not run(soak, "record", soak.game, "-o", soak.folder / "rec", "--hours", 0.02, "--episode-seconds", 10,
           "--min-episode-seconds", 4):  # fmt: skip
        soak.fault("the first recording failed")
        return
    if not run(soak, "train", "tokenizer", "--preset", "tiny", "--data", soak.folder / "rec", "-o",
               soak.folder / "tok0", "--steps", 3, "--checkpoint-minutes", 0.05):  # fmt: skip
        soak.fault("the first training failed")
        return
    while soak.counts["kills"] < soak.kills and not soak.is_over:
        name = soak.rng.choice(list(KILLS))
        before = leftovers(soak)
        KILLS[name](soak)
        soak.counts["kills"] += 1
        soak.counts[f"kills of {name}"] += 1
        end = time.monotonic() + SETTLE_S
        while (new := leftovers(soak) - before) and time.monotonic() < end:
            time.sleep(0.5)
        if new:
            soak.fault(f"left behind by a killed {name}: {', '.join(sorted(new))[:600]}")
        for data in ("rec", "play"):
            if name in ("record", "play --record") and (soak.folder / data / "meta" / "episodes").exists():
                soak.counts["datasets checked"] += 1
                if not run(soak, "data", "check", soak.folder / data, good=(0, 1)):  # 1: poor play, but whole
                    soak.fault(f"{data} is damaged after a killed {name}")
        print(f"{soak.counts['kills']}/{soak.kills} killed: {name}; faults {len(soak.faults)}", flush=True)
    if not run(soak, "record", soak.game, "-o", soak.folder / "rec", "--hours", 0.02, "--episode-seconds", 10,
               "--min-episode-seconds", 4):  # fmt: skip
        soak.fault("the recording cannot be continued")
    if (soak.folder / "rec" / ".partial").exists():  # what was under way goes with the next start
        soak.fault("unfinished files stay in the recording")


def leftovers(soak: Soak) -> set[str]:
    """Processes and temporary files of what was started here, and shared memory that belongs to no process.

    What a dataset has under way (`.partial`) is no leftover: the next start of the recorder removes it.
    """
    found = {str(path) for path in soak.temporary.iterdir()}
    lines = {}
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines[int(entry.parent.name)] = entry.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    for pid, line in lines.items():
        if str(soak.folder) in line:
            found.add(f"process {pid}: {line[:160]}")
    for file in Path("/dev/shm").glob("ViZDoom*"):
        if not any(file.name[-10:] in line for line in lines.values()):
            found.add(str(file))
    for lock in Path("/tmp").glob(".X*-lock"):  # of a display that did not come to remove it
        with contextlib.suppress(OSError, ValueError):
            if int(lock.read_text()) not in lines:
                found.add(str(lock))
    return found


# -------------------------------------------------------------------------------------------------------------- all


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0, help="when to stop at the latest")
    parser.add_argument("--kills", type=int, default=50, help="commands to kill")
    parser.add_argument("--messages", type=int, default=100_000, help="random messages to send")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--game", default="vizdoom", help="the game that is recorded and played")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="reverie-soak-"))
    soak = Soak(args.minutes, args.kills, args.messages, args.seed, args.game, folder)
    is_up = threading.Event()
    works: list[Callable[[], None]] = [lambda: serve(soak, is_up)]
    threads = [threading.Thread(target=works[0])]
    threads[0].start()
    try:
        if not is_up.wait(60):
            soak.fault("the server did not start within 60 s")
            return 1
        works = [lambda: open_and_close_tabs(soak), lambda: send_messages(soak), lambda: kill_at_random(soak)]
        threads += [threading.Thread(target=work) for work in works]
        for thread in threads[1:]:
            thread.start()
        with contextlib.ExitStack() as stack:
            players = [stack.enter_context(GoodPlayer(soak.port)) for _ in range(NUM_PLAYERS)]
            watch(soak, players, threads[1:])
    except KeyboardInterrupt:
        print("stopping", flush=True)
    finally:
        soak.may_fail.set()
        soak.stop.set()
        for thread in threads:
            thread.join(180)
        shutil.rmtree(folder, ignore_errors=True)
    for name, count in sorted(soak.counts.items()):
        print(f"{name}: {count:,}")
    print(f"faults: {len(soak.faults)}")
    return 1 if soak.faults else 0


def watch(soak: Soak, players: list[GoodPlayer], threads: list[threading.Thread]) -> None:
    """Until the time is over or all is done: each player loses its connection at restarts only, and plays on."""
    while not soak.is_over and any(thread.is_alive() for thread in threads[1:]):
        known = [len(player.outages) for player in players]  # a restart's are no fault, however long it took
        frames = [player.num_frames for player in players]
        restarts, is_calm = soak.counts["restarts of the server"], not soak.may_fail.is_set()
        _wait(soak, 10.0)
        if not is_calm or soak.may_fail.is_set() or restarts != soak.counts["restarts of the server"]:
            _wait(soak, 5.0)
            continue
        for number, player in enumerate(players):
            if player.num_frames == frames[number]:
                soak.fault(f"player {number} stood still for 10 s")
            if len(player.outages) > known[number]:
                soak.fault(f"player {number} lost its connection: {player.outages[-1]}")
    soak.counts["frames played"] = sum(player.num_frames for player in players)


if __name__ == "__main__":
    sys.exit(main())
