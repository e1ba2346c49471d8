"""The player's modules in node, against what they are the same as."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from reverie import export
from reverie.engine import pace
from reverie.models.ego_motion import apply_motion
from reverie.scenes.selection import choose_keyframes, median_reach, probe_points
from reverie.serve.bindings import bindings_for
from reverie.types import ActionSpace
from reverie.vision.projection import VIEW_SIZE, focal_lengths, render_views

PLAYER = Path(export.__file__).parent / "player"
MODULES = ("projection", "selection", "memory", "pace", "bindings", "noise")
SIZE = (128, 224)
FOV = 75.0
FILLS = [False, False, True, False, True]
SPACE = ActionSpace(("forward", "left", "jump"), mouse=True)

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


def run(script: str, given: Any = None) -> Any:
    """What `script`, which may import the player's modules by name and use `given`, prints as JSON."""
    for name in MODULES:
        script = script.replace(f'"{name}.js"', json.dumps((PLAYER / f"{name}.js").as_uri()))
    head = 'import { readFileSync } from "node:fs";\nconst given = JSON.parse(readFileSync(0, "utf8"));\n'
    done = subprocess.run(
        ["node", "--input-type=module", "-e", head + script],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def smooth(generator: torch.Generator, *shape: int, cells: tuple[int, int] = (5, 7)) -> Tensor:
    """Random images that change slowly, in 0..1."""
    coarse = torch.rand(*shape[:-2], *cells, generator=generator)
    flat = coarse.reshape(-1, 1, *cells)
    return torch.nn.functional.interpolate(flat, shape[-2:], mode="bilinear", align_corners=True).reshape(shape)


@pytest.fixture(scope="module")
def keyframes() -> dict[str, Tensor]:
    """Five views of something uneven, with a body in each, near steps and sky."""
    generator = torch.Generator().manual_seed(3)
    depth = 2 + 12 * smooth(generator, 5, *VIEW_SIZE)
    depth[1, :, 60:] += 5.0
    depth[:, :12] = 300.0
    hidden = torch.zeros(5, *VIEW_SIZE, dtype=torch.bool)
    hidden[:, 50:, 40:70] = True
    pose = torch.tensor(
        [[0, 0, 0, 0, 0, 0], [0.7, 0.3, 0, 11, 2, 0], [-1, 0.5, 0.1, -18, 0, 1.5], [0, 4, 0, 3, -3, 0],
         [0, -30, 0, 150, 0, 0]],
        dtype=torch.float32,
    )  # fmt: skip
    colour = (smooth(generator, 5, 3, *SIZE, cells=(9, 16)) * 255).round().to(torch.uint8)
    return {"colour": colour, "depth": depth, "hidden": hidden, "pose": pose}


def described(keyframes: dict[str, Tensor]) -> list[dict[str, Any]]:
    """As the player has them, before `probe`."""
    return [
        {
            "colour": keyframes["colour"][i].permute(1, 2, 0).flatten().tolist(),
            "depth": keyframes["depth"][i].flatten().tolist(),
            "hidden": keyframes["hidden"][i].int().flatten().tolist(),
            "pose": keyframes["pose"][i].tolist(),
            "fills": FILLS[i],
        }
        for i in range(len(keyframes["pose"]))
    ]


def focal() -> Tensor:
    return focal_lengths(torch.tensor([FOV]), 1.2)


def batched(keyframes: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor[None] for name, tensor in keyframes.items()}


def test_views_are_rendered_as_the_engine_renders_them(keyframes: dict[str, Tensor]) -> None:
    poses = torch.tensor(
        [[0.2, 0.1, 0, 2, 0, 0], [0.5, 0.9, 0.1, 9, 1, 0.5], [3, -2, 0, -40, 4, 0], [0, 0, 0, 175, 0, 0]]
    )
    one = batched(keyframes)
    valid, fills = torch.ones(1, 5, dtype=torch.bool), torch.tensor([FILLS])
    pictures = (one["colour"], one["depth"], one["hidden"], one["pose"])
    wanted = render_views(*pictures, valid, poses[None], focal(), fills)
    got = run(
        """
        import { focalLengths, renderViews } from "projection.js";
        const { keyframes, poses, fov } = given;
        const view = renderViews(keyframes, poses, focalLengths(fov, 1.2), { width: 224, height: 128 });
        console.log(JSON.stringify(Object.fromEntries(Object.entries(view).map(([k, v]) => [k, [...v]]))));
        """,
        {"keyframes": described(keyframes), "poses": poses.tolist(), "fov": FOV},
    )
    cover = torch.tensor(got["cover"]).view(4, *VIEW_SIZE)
    assert 0.05 < float(wanted.cover.mean()) < 0.95, "the views have holes, and more than holes"
    # A point on the edge of two pixels may fall into the other one: float32 there, float64 here.
    assert (cover != wanted.cover[0]).sum() <= 4
    last = wanted.known[0, 3] > 0, wanted.keyframe[0, 3]
    for name, tensor in zip(("known", "keyframe"), last, strict=True):
        got_last = torch.tensor(got[name]).view(VIEW_SIZE)
        assert ((got_last != tensor.int()) & (wanted.cover[0, 3] > 0)).sum() <= 4, name
    for name, tensor in (("colour", wanted.colour), ("inverseDepth", wanted.inverse_depth)):
        error = (torch.tensor(got[name]).view_as(tensor[0]) - tensor[0]).abs()
        assert (error > 0.01).float().mean() < 5e-4, name
        assert error.mean() < 2e-4, name


def test_the_same_keyframes_are_chosen_in_the_same_order(keyframes: dict[str, Tensor]) -> None:
    one = batched(keyframes)
    probes, seen = probe_points(one["depth"], one["hidden"], one["pose"], focal())
    reach = median_reach(probes, seen, one["pose"])
    preference = torch.tensor([[1.0, 1.0, 1.0, 0.6, 1.0]])
    poses = torch.tensor(
        [[0.2, 0.1, 0, 2, 0, 0], [0.6, 0.4, 0, 14, 0, 0], [-0.7, 0.2, 0, -30, 0, 0], [0, 3, 0, 0, 0, 0]]
    )
    wanted = []
    for pose in poses:
        index, valid = choose_keyframes(
            probes, seen, one["pose"], preference, pose[None], focal(), reach.nanmedian(1).values, 3
        )
        wanted.append(index[0][valid[0]].tolist())
    got = run(
        """
        import { focalLengths } from "projection.js";
        import { chooseKeyframes, probe } from "selection.js";
        const focal = focalLengths(given.fov, 1.2);
        const keyframes = given.keyframes.map((one, i) => {
          return { ...one, i, preference: given.preference[i], ...probe(one, focal) };
        });
        const chosen = given.poses.map((pose) => chooseKeyframes(keyframes, pose, focal, 3).map(({ i }) => i));
        console.log(JSON.stringify({ chosen, reach: keyframes.map((one) => one.reach) }));
        """,
        {"keyframes": described(keyframes), "poses": poses.tolist(), "fov": FOV, "preference": preference[0].tolist()},
    )
    assert got["reach"] == pytest.approx(reach[0].tolist(), rel=1e-5)
    assert got["chosen"] == wanted
    assert len({tuple(one) for one in wanted}) > 1


def test_holes_are_filled_and_an_empty_memory_is_grey() -> None:
    assert run(
        """
        import { renderViews } from "projection.js";
        const view = renderViews([], [[0, 0, 0, 0, 0, 0]], [60, 60], { width: 224, height: 128 });
        console.log(JSON.stringify([Math.max(...view.cover), Math.max(...view.colour), Math.min(...view.colour)]));
        """
    ) == [0, 0, 0]


def test_the_camera_moves_as_told() -> None:
    pose, motion = torch.tensor([1.0, 2, 3, 130, 5, -2]), torch.tensor([0.4, -0.1, 0.05, 7, -1, 0.5])
    script = """
        import { applyMotion } from "memory.js";
        console.log(JSON.stringify([...applyMotion(given.pose, given.motion)]));
    """
    assert run(script, {"pose": pose.tolist(), "motion": motion.tolist()}) == pytest.approx(
        apply_motion(pose, motion).tolist(), rel=1e-6
    )


def test_the_start_image_is_never_overwritten_and_the_oldest_of_the_others_goes() -> None:
    kept = run("""
        import { SpatialMemory } from "memory.js";
        const config = { keyframes: 3, drawn: 3, write_below: 0.9, own_preference: 0.6, fov_deg: 80, pixel_aspect: 1 };
        const memory = new SpatialMemory(config, { width: 224, height: 128 });
        const n = 64 * 112;
        const grey = (value) => new Uint8Array(3 * 128 * 224).fill(value);
        const found = { depth: new Float32Array(n).fill(4), hidden: new Uint8Array(n), ahead: null };
        const turned = (degrees) => new Float32Array(24).map((_, i) => (i === 3 ? degrees : 0));
        memory.open(found, grey(10));
        for (const value of [20, 30, 40]) memory.commit(memory.next(turned(100)), found, grey(value));
        const shown = (degrees) => Math.round((memory.next(turned(degrees)).view.colour[0] + 1) * 127.5);
        console.log(JSON.stringify([60, 160, 260, 0].map(shown)));
    """)
    # At 0 degrees the start image; at 100 nothing any more (the middle grey of an empty view); then 200 and 300.
    assert kept == [10, 128, 30, 40]


def test_what_is_seen_through_three_times_is_deleted() -> None:
    covers = run("""
        import { SpatialMemory } from "memory.js";
        const config = { keyframes: 3, drawn: 3, write_below: 0.5, own_preference: 0.6, fov_deg: 80, pixel_aspect: 1 };
        const memory = new SpatialMemory(config, { width: 224, height: 128 });
        const n = 64 * 112;
        const near = { depth: new Float32Array(n).fill(4), hidden: new Uint8Array(n), ahead: null };
        // A box in the middle has left: there the frames see far, and the same as before around it.
        const isBox = (i) => Math.abs((i % 112) - 56) < 20 && Math.abs(Math.floor(i / 112) - 32) < 15;
        const without = { ...near, depth: near.depth.map((value, i) => (isBox(i) ? 40 : value)) };
        memory.open(near, new Uint8Array(3 * 128 * 224).fill(10));
        const covers = [];
        for (let block = 0; block < 5; block++) {
          const next = memory.next(new Float32Array(24));
          covers.push([next.view.cover[3 * n + 32 * 112 + 56], next.view.cover[3 * n + 5 * 112 + 5]]);
          memory.commit(next, without, new Uint8Array(3 * 128 * 224).fill(20));
        }
        console.log(JSON.stringify(covers));
    """)
    assert covers == [[1, 1], [1, 1], [1, 1], [0, 1], [0, 1]]


def test_input_becomes_the_same_action() -> None:
    bindings = bindings_for(SPACE)
    given = {
        "bindings": {**bindings.describe(), "max_turn_deg": list(bindings.max_turn_deg)},
        "keys": SPACE.keys,
        "inputs": [
            {"seq": 1, "codes": ["KeyW", "ArrowRight"], "mouse": [10, -4]},
            {"seq": 2, "codes": ["KeyA"], "mouse": [5, 1]},
            {"seq": 1, "codes": ["Space"], "mouse": [99, 99]},
        ],
    }
    taken = run(
        """
        import { InputBox } from "bindings.js";
        const box = new InputBox(given.bindings, given.keys, true);
        for (const input of given.inputs) box.put(input);
        const plain = ({ rows, action }) => ({ rows: [...rows], action });
        console.log(JSON.stringify([plain(box.take(4)), plain(box.take(4))]));
        """,
        given,
    )
    first = bindings.action(frozenset({"KeyW", "ArrowRight", "KeyA"}), (15, -3), 4)
    second = bindings.action(frozenset({"KeyA"}), (0, 0), 4)
    for got, action in zip(taken, (first, second), strict=True):
        assert got["action"] == 2, "the input that came too late is ignored"
        assert got["rows"] == pytest.approx(SPACE.encode([action] * 4).flatten().tolist(), rel=1e-6)


def test_blocks_are_begun_when_the_engine_would_begin_them() -> None:
    config = pace.PaceConfig(block_frames=4)
    state = pace.begin(config, 0.0)
    wanted, events = [], []
    for block in range(40):
        now = 0.16 * block + 0.01
        state = pace.made(config, state, 4, now, cost_s=0.02)
        events.append(["made", 1000 * now, 20])
        shown = 4 * block + 1
        state = pace.played(config, state, shown, now + 0.02)
        events.append(["played", 1000 * (now + 0.02), shown - 1])
        decision = pace.decide(config, state, now + 0.03)
        # The frame rate's own limit is for clients that say they have shown what they have not: here there is none.
        wanted.append(None if decision.reason == "lead" else decision)
        events.append(["ask", 1000 * (now + 0.03)])
    got = run(
        """
        import { Pace } from "pace.js";
        const pace = new Pace({ fps: 25, blockFrames: 4 });
        const waits = [];
        for (const [what, now, value] of given) {
          if (what === "made") { pace.frames(4, now); pace.cost(value); }
          else if (what === "played") pace.played(value, now);
          else waits.push(pace.waitMs(now));
        }
        console.log(JSON.stringify(waits));
        """,
        events,
    )
    for wait_ms, decision in zip(got, wanted, strict=True):
        if decision is None:
            assert wait_ms is None
        elif decision.reason != "rate":
            assert wait_ms == pytest.approx(1000 * decision.wait_s, abs=0.01)
    assert {"due", "early"} <= {decision.reason for decision in wanted if decision is not None}


def test_noise_is_normal_and_decided_by_its_seed() -> None:
    drawn = run("""
        import { gaussian } from "noise.js";
        const draw = gaussian(5);
        const values = draw(20000);
        const mean = values.reduce((a, b) => a + b) / values.length;
        const spread = Math.sqrt(values.reduce((a, b) => a + b * b, 0) / values.length - mean * mean);
        const parts = gaussian(5);
        const again = [...parts(2), ...parts(4)];
        const [first, other] = [[...values.slice(0, 6)], [...gaussian(6)(6)]];
        console.log(JSON.stringify({ mean, spread, first, again, other }));
    """)
    assert drawn["mean"] == pytest.approx(0, abs=0.02)
    assert drawn["spread"] == pytest.approx(1, abs=0.02)
    assert drawn["again"] == drawn["first"]
    assert drawn["other"] != drawn["first"]
