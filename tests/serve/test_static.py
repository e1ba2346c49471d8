"""The page's playback and read-outs under a fake clock, and its table of controls, in node."""

import json
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from reverie.serve import protocol
from reverie.serve.bindings import bindings_for
from reverie.types import ActionSpace

STATIC = Path(protocol.__file__).parent / "static"
MOVES = ("forward", "back", "left", "right")

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


def run(script: str):
    """What the module `script`, which may import the page's modules by name, prints as JSON."""
    for name in ("playback", "meters", "controls"):
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


def controls(space: ActionSpace, start: dict[str, object] | None = None) -> dict[str, Any]:
    """What the page makes of a world's bindings, and of a start picture that says what its game knows."""
    bindings = json.dumps(bindings_for(space).describe())
    given = f"{bindings}, {json.dumps(space.mouse)}, {json.dumps(start)}"
    return run(f"""
        import {{ codesOfPad, codesOfStick, controlsOf, helpRows }} from "controls.js";
        const controls = controlsOf({given});
        const stick = (x, y) => codesOfStick(controls, x, y, 0.25);
        const pad = (...buttons) => codesOfPad(controls, 0, 0, 0.25, (button) => buttons.includes(button));
        console.log(JSON.stringify({{
          caps: controls.entries.map((entry) => entry.meaning), looks: controls.looks,
          sticks: [stick(0, -1), stick(0, 1), stick(-1, 0), stick(1, 0), stick(0.1, 0.2), stick(-1, -1)],
          cross: [pad(12), pad(13), pad(14), pad(15)], buttons: [0, 1, 2, 3, 4, 5, 7].map((one) => pad(one)),
          none: pad(), help: helpRows(controls), aliases: controls.aliases,
        }}));
    """)


NANO = ActionSpace((*MOVES, "attack", "use", "jump", "crouch", "handbrake", "trick", "turn-left", "turn-right"))


def test_only_what_the_game_of_the_picture_knows_is_shown():
    doom = controls(NANO, {"keys": [*MOVES, "attack", "use"], "mouse": True})
    assert sorted(doom["caps"]) == sorted([*MOVES, "attack", "use"])
    rally = controls(NANO, {"keys": [*MOVES, "handbrake"], "mouse": False})
    assert sorted(rally["caps"]) == sorted([*MOVES, "handbrake"])
    assert (doom["looks"], rally["looks"]) == (True, False)
    assert "look around" not in [row["does"] for row in rally["help"]]
    own = controls(NANO, {"id": "own-1", "keys": None, "mouse": None})
    assert sorted(own["caps"]) == sorted(NANO.keys)
    assert own["looks"]


def test_a_gamepad_reaches_everything():
    found = controls(NANO)
    assert found["sticks"] == [["KeyW"], ["KeyS"], ["KeyA"], ["KeyD"], [], ["KeyW", "KeyA"]]
    assert found["cross"] == [["KeyW"], ["KeyS"], ["KeyA"], ["KeyD"]]
    assert found["none"] == []
    bound = bindings_for(NANO).keys
    held = [{bound[code] for code in codes} for codes in found["buttons"]]
    assert held == [{"jump"}, {"crouch", "handbrake"}, {"use"}, {"trick"}, {"turn-left"}, {"turn-right"}, {"attack"}]


def test_a_runner_s_stick_jumps_and_crouches():
    temple = ActionSpace(("left", "right", "jump", "crouch", "turn-left", "turn-right"), mouse=False)
    bound = bindings_for(temple).keys
    ways = controls(temple)["sticks"][:4]
    assert [bound[codes[0]] for codes in ways] == ["jump", "crouch", "left", "right"]


def test_arrows_steer_where_the_game_at_hand_has_no_camera():
    rally = controls(NANO, {"keys": [*MOVES, "handbrake"], "mouse": False})
    assert rally["aliases"] == {"ArrowLeft": "KeyA", "ArrowRight": "KeyD"}  # up and down drive as they are
    told = {row["does"]: row["keys"] for row in rally["help"]}
    assert told["left"] == "A or ←"
    assert told["forward"] == "W or ↑"
    temple = controls(NANO, {"keys": ["left", "right", "jump", "crouch"], "mouse": False})
    assert temple["aliases"] == {"ArrowLeft": "KeyA", "ArrowRight": "KeyD", "ArrowUp": "Space", "ArrowDown": "KeyC"}
    assert controls(NANO, {"keys": [*MOVES], "mouse": True})["aliases"] == {}
    assert controls(ActionSpace(MOVES, mouse=False))["aliases"] == {}  # the server binds them itself


def test_a_car_without_keys_to_steer_is_steered_by_turning():
    found = controls(ActionSpace(("forward", "back"), mouse=True))
    assert found["sticks"][2:4] == [["KeyA"], ["KeyD"]]


def test_the_help_says_for_every_key_what_it_does():
    told = {row["does"]: row for row in controls(NANO)["help"]}
    assert told["forward"]["keys"] == "W or ↑"
    assert told["attack"]["keys"] == "F or click"
    assert told["attack"]["pad"] == "RT"
    assert told["turn left"]["touch"] == "button turn left"
    assert told["jump"] == {"does": "jump", "keys": "space", "pad": "A", "touch": "button jump"}
    bound = bindings_for(NANO).keys
    assert {meaning.replace("-", " ") for meaning in bound.values()} <= told.keys()
