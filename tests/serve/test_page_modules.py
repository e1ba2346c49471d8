"""The page's playback and read-outs under a fake clock, in node."""

import json
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from reverie.serve import protocol

STATIC = Path(protocol.__file__).parent / "static"

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


def run(script: str):
    """What the module `script`, which may import the page's modules by name, prints as JSON."""
    for name in ("playback", "meters"):
        script = script.replace(f'"{name}.js"', json.dumps((STATIC / f"{name}.js").as_uri()))
    done = subprocess.run(["node", "--input-type=module", "-e", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


PLAY = """
    import { Playback } from "playback.js";
    const playback = new Playback({ fps: 25, blockFrames: 4 });
    const shown = [];
    let index = 0;
    for (let now = 0; now < 6000; now += 1) {
      if (now % BLOCK_MS === 0) for (let i = 0; i < 4; i++)
        playback.push({ index: index++, flags: i ? 0 : 2, ready: true }, now);
      if (now % 16 === 0) { const frame = playback.next(now); if (frame) shown.push([frame.index, now]); }
    }
    console.log(JSON.stringify({ shown, left: playback.queue.length }));
"""


def test_frames_come_in_order_at_25_a_second():
    played = run(PLAY.replace("BLOCK_MS", "160"))
    indices, times = zip(*played["shown"], strict=True)
    assert list(indices) == list(range(len(indices)))
    assert len(indices) == pytest.approx(150, abs=3)
    gaps = [b - a for a, b in pairwise(times)]
    assert set(gaps) <= {32, 48}
    assert played["left"] <= 4


def test_a_slow_world_is_shown_evenly():
    played = run(PLAY.replace("BLOCK_MS", "240"))
    times = [now for _, now in played["shown"]][40:]
    gaps = [b - a for a, b in pairwise(times)]
    assert max(gaps) <= 96
    assert sum(gaps) / len(gaps) == pytest.approx(60, abs=3)


def test_a_frame_waits_until_it_is_decoded():
    frames = run("""
        import { Playback } from "playback.js";
        const playback = new Playback({ fps: 25, blockFrames: 4 });
        const first = { index: 0, flags: 2, ready: false };
        playback.push(first, 0);
        playback.push({ index: 1, flags: 0, ready: true }, 0);
        const early = playback.next(50);
        first.ready = true;
        console.log(JSON.stringify([early, playback.next(51).index, playback.next(60), playback.next(91).index]));
    """)
    assert frames == [None, 0, None, 1]


def test_latency_is_from_the_oldest_input_to_the_frame_that_obeys_it():
    assert run("""
        import { Meters } from "meters.js";
        const meters = new Meters();
        const seen = [meters.latencyMs];
        meters.sent(1, 100); meters.sent(2, 150); meters.sent(3, 400);
        meters.shown(0, 120); seen.push(meters.latencyMs);
        meters.shown(2, 300); seen.push(meters.latencyMs);
        meters.shown(2, 340); meters.shown(3, 460); seen.push(meters.latencyMs);
        console.log(JSON.stringify(seen));
    """) == [None, None, 200, 200]


def test_frames_per_second():
    assert run("""
        import { Meters } from "meters.js";
        const meters = new Meters();
        for (let now = 0; now <= 3000; now += 40) meters.shown(0, now);
        console.log(JSON.stringify([meters.fps(3000), meters.fps(5000)]));
    """) == [25, 0]
