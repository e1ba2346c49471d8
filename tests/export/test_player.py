"""The player's modules in node, against what they are the same as."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.helpers import player_body
from tests.helpers import rendered_room as rooms
from torch import Tensor

from reverie import export
from reverie.engine.sessions import pace
from reverie.export.web import describe_ways, write_body_images, write_ego_motion
from reverie.models import presets
from reverie.models.conditioning.erasure import gone
from reverie.models.conditioning.spatial_memory import SpatialMemory, SpatialMemoryConfig, own_keyframes
from reverie.scenes.body_matching import Body
from reverie.scenes.ego_motion import EgoMotionNet, apply_motion, relative_motion
from reverie.scenes.ground import Ground
from reverie.scenes.keyframes import Candidates, Choice, Keyframes
from reverie.scenes.recorded_body import write_body
from reverie.scenes.recorded_ways import RecordedWays
from reverie.scenes.view_sources import median_reach, pick_keyframes, probe_points, view_promise
from reverie.serve.bindings import bindings_for
from reverie.types import ActionSpace
from reverie.vision.pixels import to_bytes, to_pixels
from reverie.vision.projection import VIEW_SIZE, focal_lengths
from reverie.vision.rendering import Points, View, render_views, sample_colour

PLAYER = Path(export.__file__).parent / "player"
MODULES = ("projection", "selection", "memory", "walls", "ground", "pace", "bindings", "noise", "ego-motion", "body")
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
        view.detail = view.detail();
        console.log(JSON.stringify(Object.fromEntries(Object.entries(view).map(([k, v]) => [k, [...v]]))));
        """,
        {"keyframes": described(keyframes), "poses": poses.tolist(), "fov": FOV},
    )
    cover = torch.tensor(got["cover"]).view(4, *VIEW_SIZE)
    assert 0.05 < float(wanted.cover.mean()) < 0.95, "the views have holes, and more than holes"
    # A point on the edge of two pixels may fall into the other one: float32 there, float64 here.
    assert (cover != wanted.cover[0]).sum() <= 12
    last = wanted.known[0, 3] > 0, wanted.keyframe[0, 3]
    for name, tensor in zip(("known", "keyframe"), last, strict=True):
        got_last = torch.tensor(got[name]).view(VIEW_SIZE)
        assert ((got_last != tensor.int()) & (wanted.cover[0, 3] > 0)).sum() <= 4, name
    detail = sample_colour(one["colour"], one["hidden"], wanted.points.divided())
    drawn = wanted.cover.repeat_interleave(2, -1).repeat_interleave(2, -2)[:, :, None]
    detail = detail * drawn  # holes are black there, and nobody's pixel here
    planes = (("colour", wanted.colour), ("inverseDepth", wanted.inverse_depth), ("detail", detail))
    for name, tensor in planes:
        error = (torch.tensor(got[name]).view_as(tensor[0]) - tensor[0]).abs()
        assert (error > 0.01).float().mean() < 5e-4, name
        assert error.mean() < 2e-4, name


@pytest.mark.parametrize("leading", [0, 2])
def test_the_same_keyframes_are_chosen_in_the_same_order(keyframes: dict[str, Tensor], leading: int) -> None:
    one = batched(keyframes)
    probes, seen = probe_points(one["depth"], one["hidden"], one["pose"], focal())
    reach = median_reach(probes, seen, one["pose"])
    preference = torch.tensor([[1.0, 1.0, 1.0, 0.6, 1.0]])
    poses = torch.tensor(
        [[0.2, 0.1, 0, 2, 0, 0], [0.6, 0.4, 0, 14, 0, 0], [-0.7, 0.2, 0, -30, 0, 0], [0, 3, 0, 0, 0, 0]]
    )
    wanted = []
    for pose in poses:
        promise = view_promise(probes, seen, one["pose"], pose[None], focal(), reach.nanmedian(1).values)
        index, valid = pick_keyframes(promise * preference[..., None], 3, leading, first=2)
        wanted.append(index[0][valid[0]].tolist())
    got = run(
        """
        import { focalLengths } from "projection.js";
        import { chooseKeyframes, probe } from "selection.js";
        const focal = focalLengths(given.fov, 1.2);
        const keyframes = given.keyframes.map((one, i) => {
          return { ...one, i, preference: given.preference[i], ...probe(one, focal) };
        });
        const choose = (pose) => chooseKeyframes(keyframes, pose, focal, 3, null, given.leading, 2);
        const chosen = given.poses.map((pose) => choose(pose).map(({ i }) => i));
        console.log(JSON.stringify({ chosen, reach: keyframes.map((one) => one.reach) }));
        """,
        {
            "keyframes": described(keyframes), "poses": poses.tolist(), "fov": FOV,
            "preference": preference[0].tolist(), "leading": leading,
        },
    )  # fmt: skip
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
        import { applyMotion } from "ego-motion.js";
        console.log(JSON.stringify([...applyMotion(given.pose, given.motion)]));
    """
    assert run(script, {"pose": pose.tolist(), "motion": motion.tolist()}) == pytest.approx(
        apply_motion(pose, motion).tolist(), rel=1e-6
    )


def test_the_motion_between_two_poses_is_the_engines() -> None:
    before, after = torch.tensor([1.0, 2, 3, 170, 5, -2]), torch.tensor([1.3, 1.9, 3.1, -175, 4, -1])
    script = """
        import { relativeMotion } from "ego-motion.js";
        console.log(JSON.stringify(relativeMotion(given.before, given.after)));
    """
    got = run(script, {"before": before.tolist(), "after": after.tolist()})
    assert got == pytest.approx(relative_motion(before, after).tolist(), abs=1e-5)


@torch.inference_mode()
def test_the_camera_is_led_as_the_engines_is(tmp_path: Path) -> None:
    """By a network of a scene, which reads some numbers of a row, over three blocks that follow each other."""
    torch.manual_seed(0)
    network = EgoMotionNet(3, 24, columns=[4, 0, 3]).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    described = write_ego_motion(tmp_path, network)
    history, motion, pitch = torch.randn(1, 24, 5), torch.randn(1, 24, 6), torch.tensor([[7.0, -2.0]])
    ahead, rows = torch.randn(1, 8, 14) + 2, torch.randn(3, 1, 4, 5)
    given = {
        "described": described,
        "bytes": list(gzip.decompress((tmp_path / "ego-motion.bin.gz").read_bytes())),
        "actions": history.flatten().tolist(), "motions": motion.flatten().tolist(),
        "tilt": pitch[0].tolist(), "ahead": ahead.flatten().tolist(), "rows": rows.flatten(1).tolist(),
    }  # fmt: skip
    wanted = []
    for block in rows:
        made = network(torch.cat([history, block], 1), motion, pitch, ahead)
        wanted.append(made.flatten().tolist())
        history, motion = torch.cat([history[:, 4:], block], 1), torch.cat([motion[:, 4:], made], 1)
    got = run(
        """
        import { EgoMotion } from "ego-motion.js";
        import { SpatialMemory } from "memory.js";
        const egoMotion = new EgoMotion(given.described, Uint8Array.from(given.bytes));
        const config = { keyframes: 1, drawn: 1, write_below: 0, own_preference: 1, fov_deg: 80, pixel_aspect: 1 };
        const memory = new SpatialMemory(config, { width: 112, height: 64 }, null, null, egoMotion, 5);
        const n = 64 * 112;
        const found = { depth: new Float32Array(n).fill(4), hidden: new Uint8Array(n) };
        memory.open(found, new Uint8Array(3 * n));
        memory.actions.set(given.actions);
        memory.motion.set(given.motions);
        const taken = given.rows.map((rows) => {
          memory.camera = Float32Array.of(0, 0, 0, 0, ...given.tilt);
          memory.ahead = given.ahead;
          const motions = memory.predictMotion(rows);
          memory.commit({ ...memory.next(motions, rows), motions }, found, new Uint8Array(3 * n));
          return [...motions];
        });
        console.log(JSON.stringify(taken));
        """,
        given,
    )
    for one, other in zip(wanted, got, strict=True):
        assert other == pytest.approx(one, rel=1e-3, abs=1e-4)
    assert write_ego_motion(tmp_path, None) is None


class Scripted(torch.nn.Module):
    """A depth network that finds what it is told, and no body."""

    def __init__(self) -> None:
        super().__init__()
        self.depth = torch.nn.Parameter(torch.full(VIEW_SIZE, 4.0), requires_grad=False)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        return self.depth[None].log(), torch.full_like(self.depth[None], -9.0)


def scripted_motions() -> list[Tensor]:
    """Motions (4, 6) of blocks: slowly on, to a wall, aside, back, and into what the scene does not show."""
    blocks = [(0.02, 0.0, 0.0)] * 4 + [(0.2, 0.0, 0.0)] * 4 + [(0.2, 0.1, 4.0)] * 4 + [(-0.2, 0.0, 0.0)] * 3
    blocks += [(0.1, -0.3, -9.0)] * 6
    return [torch.tensor([[forward, right, 0.0, yaw, 0.2, 0.0]]).repeat(4, 1) for forward, right, yaw in blocks]


def recorded(frames: Keyframes) -> list[dict[str, Any]]:
    """Grey keyframes of a scene, as the player has them, before `probe`."""
    size = VIEW_SIZE[0] * VIEW_SIZE[1]
    return [
        {"colour": [128] * (3 * size), "depth": depth.flatten().tolist(), "hidden": [0] * size, "pose": pose.tolist()}
        for depth, pose in zip(frames.depth, frames.pose, strict=True)
    ]


@torch.inference_mode()
def test_walls_stop_the_camera_where_they_stop_the_engines() -> None:
    """Straight into a wall, and at an angle along one."""
    preset, config = presets.tiny_memory(), SpatialMemoryConfig(keyframes=2, fov_deg=rooms.FOV_DEG)
    memory = SpatialMemory(config, preset.world.action_space, preset.world.latent).eval()
    frames = rooms.keyframes(np.concatenate([rooms.around(8), rooms.around(8, radius=1.5)]))
    room, given, wanted = Candidates.of_scene(frames), [], []
    for yaw, start, count in ((0.0, (0.0, 0.0), 10), (55.0, (1.0, -2.5), 12)):
        state = memory.init_state(1, VIEW_SIZE)
        state.focal.copy_(rooms.FOCAL)
        state.camera[0, :2], angle = torch.tensor(start), np.radians(yaw)
        for _ in range(count):
            poses = state.camera[:, None].repeat(1, 4, 1)
            poses[..., :2] += 0.14 * torch.arange(1, 5)[:, None] * torch.tensor([np.sin(angle), np.cos(angle)]).float()
            given.append({"camera": state.camera[0].tolist(), "poses": poses[0].tolist()})
            wanted.append(memory.stop_at_walls(state, poses, room)[0])
            state.camera.copy_(wanted[-1][None, -1])
    got = run(
        """
        import { focalLengths } from "projection.js";
        import { chooseKeyframes, probe } from "selection.js";
        import { headingPose, stopAtSurfaces } from "walls.js";
        const focal = focalLengths(given.fov);
        const keyframes = given.keyframes.map((one) => ({ ...one, preference: 1, ...probe(one, focal) }));
        const taken = given.blocks.map((block) => {
          const [camera, poses] = [Float32Array.from(block.camera), block.poses.map((one) => Float32Array.from(one))];
          const chosen = chooseKeyframes(keyframes, headingPose(camera, poses), focal, given.drawn);
          return stopAtSurfaces(camera, poses, chosen, focal).map((pose) => [...pose]);
        });
        console.log(JSON.stringify(taken));
        """,
        {"keyframes": recorded(frames), "blocks": given, "fov": rooms.FOV_DEG, "drawn": config.drawn},
    )
    changed = [
        float((one - torch.tensor(block["poses"])).abs().max()) for one, block in zip(wanted, given, strict=True)
    ]
    assert sum(change > 0.1 for change in changed) > 5
    assert sum(change < 1e-3 for change in changed) > 5
    for one, other in zip(wanted, got, strict=True):
        torch.testing.assert_close(torch.tensor(other), one, atol=1e-3, rtol=0)


@torch.inference_mode()
def test_a_camera_stays_on_the_ground_where_the_engines_does() -> None:
    generator = torch.Generator().manual_seed(5)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    keyframes = torch.cat([12 * rand(30, 2), rand(30, 1), 360 * rand(30, 1), 10 * rand(30, 2)], 1)
    rows = torch.cat([12 * rand(80, 2), rand(80, 1), 720 * rand(80, 1) - 360], 1).round(decimals=2)
    ways = RecordedWays(rows.numpy(), (15 + 40 * rand(80)).round(decimals=2).numpy(), 0.8)
    wanted: list[list[list[float]]] = []
    cases, held = [], 0
    for known in (ways, None):
        ground, camera = Ground.of(keyframes, known), torch.tensor([[6.0, 6.0, 0.5, 40.0, 3.0, 0.0]])
        for _ in range(25):
            motions = torch.cat([rand(1, 4, 2) - 0.2, 0.2 * rand(1, 4, 1) - 0.1, 24 * rand(1, 4, 3) - 12], 2)
            path = [camera]
            for motion in motions.unbind(1):
                path.append(apply_motion(path[-1], motion))
            poses = torch.stack(path[1:], 1)
            cases.append({"ways": describe_ways(known), "camera": camera[0].tolist(), "poses": poses[0].tolist()})
            result = ground.hold(camera, poses)
            held += bool((result - poses).abs().max() > 0.1)
            wanted.append(result[0].tolist())
            camera = result[:, -1]
    got = run(
        """
        import { Ground } from "ground.js";
        const keyframes = given.keyframes.map((pose) => ({ pose }));
        console.log(JSON.stringify(given.cases.map(({ ways, camera, poses }) =>
          new Ground(keyframes, ways).hold(camera, poses).map((pose) => Array.from(pose)))));
        """,
        {"keyframes": keyframes.tolist(), "cases": cases},
    )
    assert held > 20
    torch.testing.assert_close(torch.tensor(got), torch.tensor(wanted), atol=1e-3, rtol=0)


@torch.inference_mode()
def test_a_session_goes_where_the_engines_goes_and_remembers_what_it_remembers() -> None:
    """In a room of which one side was recorded, with a box in the way that is gone when it is played."""
    preset = presets.tiny_memory()
    config = SpatialMemoryConfig(keyframes=3, drawn=4, fov_deg=rooms.FOV_DEG)
    memory = SpatialMemory(config, preset.world.action_space, preset.world.latent).eval()
    memory.depth = depth = Scripted()  # type: ignore[assignment]
    frames = rooms.keyframes(np.array([[0.05, 0.03, 0, yaw, 0, 0] for yaw in (-30, 0, 30)], np.float32))
    frames.depth[1, 20:44, 40:70] = 1.5
    frames = Keyframes.new(frames.colour, frames.depth, frames.hidden, frames.pose, rooms.FOCAL)
    scene = Candidates.of_scene(frames, ground=Ground.of(frames.pose))
    state = memory.init_state(1, VIEW_SIZE, scene_keyframes=len(frames))
    grey = torch.zeros(1, 3, *VIEW_SIZE)
    memory.open(state, grey, fov_deg=torch.tensor([rooms.FOV_DEG]))
    start, blocks = depth.depth.flatten().tolist(), []
    last, actions = torch.zeros(1, *preset.world.latent), torch.zeros(1, 4, preset.world.action_space.size)
    wanted: list[dict[str, Any]] = []
    for motions in scripted_motions():
        memory.predict_motion = lambda *_, motions=motions: motions[None]  # type: ignore[method-assign]
        path = [state.camera[0]]
        for motion in motions:
            path.append(apply_motion(path[-1], motion))
        walled = memory.stop_at_walls(state, torch.stack(path[1:])[None], scene)
        step = memory.next(state, last, actions, scene)
        depth.depth.copy_(torch.from_numpy(rooms.look(step.poses[0, -1].numpy())[1]))
        wanted.append(
            {
                "poses": step.poses[0],
                "motion": step.motions[0],
                "is_held": float((step.poses - walled).abs().max()) > 0.1,
                "cover": float(step.view.cover.mean()),
            }
        )
        memory.commit(state, step, grey.expand(1, 4, -1, -1, -1))
        of_scene = Choice((scene, own_keyframes(state)), torch.arange(3)[None], torch.ones(1, 3, dtype=torch.bool))
        lost = gone(state.seen_through, of_scene)
        wanted[-1] |= {
            "written": int(state.written),
            "gone": int(lost.sum()),
            "ahead": state.ahead[0].flatten().clone(),
        }
        blocks.append({"motions": motions.flatten().tolist(), "depth": depth.depth.flatten().tolist()})
    got = run(
        """
        import { focalLengths } from "projection.js";
        import { probe } from "selection.js";
        import { SpatialMemory } from "memory.js";
        const focal = focalLengths(given.config.fov_deg);
        const keyframes = given.keyframes.map((one) => ({ ...one, preference: 1, ...probe(one, focal) }));
        const scene = { fovDeg: given.config.fov_deg, pixelAspect: 1, keyframes };
        const memory = new SpatialMemory(given.config, { width: 112, height: 64 }, scene, [0, 0, 0, 0, 0, 0]);
        const [hidden, colour] = [new Uint8Array(64 * 112), new Uint8Array(3 * 64 * 112).fill(128)];
        const found = (depth) => ({ depth: Float32Array.from(depth), hidden });
        memory.open(found(given.start), colour);
        const told = given.blocks.map(({ motions, depth }) => {
          const next = memory.next(Float32Array.from(motions));
          memory.commit(next, found(depth), colour);
          const cover = next.view.cover.reduce((a, b) => a + b) / next.view.cover.length;
          const { poses, motions: taken } = next;
          const gone = keyframes.reduce((sum, one) => sum + memory.hidden(one).reduce((a, b) => a + b), 0);
          const ahead = [...memory.ahead];
          const { written } = memory;
          return { poses: poses.map((pose) => [...pose]), motion: [...taken], cover, gone, ahead, written };
        });
        console.log(JSON.stringify(told));
        """,
        {
            "config": asdict(config),
            "start": start,
            "blocks": blocks,
            "keyframes": recorded(frames),
        },
    )
    for number, (one, other) in enumerate(zip(wanted, got, strict=True)):
        poses, motion = torch.tensor(other["poses"]), torch.tensor(other["motion"]).view(4, 6)
        torch.testing.assert_close(poses, one["poses"], atol=2e-3, rtol=0, msg=f"poses of block {number}")
        torch.testing.assert_close(motion, one["motion"], atol=2e-3, rtol=0, msg=f"motions of block {number}")
        assert other["cover"] == pytest.approx(one["cover"], abs=2e-3), f"block {number}"
        assert other["gone"] == pytest.approx(one["gone"], abs=20), f"block {number}"
        assert other["written"] == one["written"], f"block {number}"
        torch.testing.assert_close(torch.tensor(other["ahead"]), one["ahead"], atol=0.02, rtol=0, msg=f"block {number}")
    assert sum(one["is_held"] for one in wanted) > 2, "the edge of the scene stops it"
    assert wanted[-1]["written"] > 4, "the oldest own keyframe is overwritten"
    assert wanted[-1]["gone"] > 100, "points of the scene are deleted"


@torch.inference_mode()
def test_the_player_s_body_is_shown_as_the_engine_shows_it(tmp_path: Path) -> None:
    recorded, columns, size = player_body.recorded(96), [3, 1], player_body.SIZE
    write_body(tmp_path, recorded)
    (tmp_path / "page").mkdir()
    described = write_body_images(tmp_path / "page", tmp_path, recorded, columns, 5)
    assert described is not None
    assert described["offsets"][-1] == (tmp_path / "page/body.bin").stat().st_size
    body = Body.of(recorded, columns, 5)
    rand = torch.Generator().manual_seed(3)
    begin = player_body.walk(["left"] * 2)
    frame, mask = torch.from_numpy(begin.frames[30:31]), torch.from_numpy(begin.body[30:31])
    shown = body.find(to_pixels(frame.permute(0, 3, 1, 2)), mask)
    blocks, wanted = [], [{"found": int(shown)}]
    colour = torch.rand(1, 4, 3, *VIEW_SIZE, generator=rand) * 2 - 1
    cover = (torch.rand(1, 4, *VIEW_SIZE, generator=rand) > 0.5).float()
    frames = torch.randint(0, 256, (1, 4, *size, 3), generator=rand, dtype=torch.uint8)
    for number in range(6):
        actions = (torch.rand(1, 24, 5, generator=rand) > 0.6).float()
        motions = torch.rand(1, 24, 6, generator=rand) * 0.3
        before = 0 if number == 3 else int(shown)
        layer = body.show(actions, motions, torch.tensor([before]), size)
        shown = layer.rows[:, -1] + 1
        view = layer.draw_view(View(colour, cover, cover, cover, cover.long(), Points(cover.long(), *[cover] * 5)))
        drawn = to_bytes(layer.draw(to_pixels(frames.permute(0, 1, 4, 2, 3)))).permute(0, 1, 3, 4, 2)
        wanted.append(
            {
                "rows": layer.rows[0].tolist(),
                "colour": view.colour,
                "cover": view.cover,
                "frames": drawn.float(),
                "hides": (mask | layer.hides).float(),
            }
        )
        blocks.append({"actions": actions.flatten().tolist(), "motions": motions.flatten().tolist(), "shown": before})
    got = run(
        """
        import { Body } from "body.js";
        const body = new Body(given.described, given.images, { width: 224, height: 128 });
        const told = [{ found: body.find(given.frame, given.mask) }];
        for (const { actions, motions, shown } of given.blocks) {
          const layer = body.show(Float32Array.from(actions), Float32Array.from(motions), shown);
          const [colour, cover] = [given.colour, given.cover].map((values) => Float32Array.from(values));
          const view = layer.drawView({ colour, cover });
          const frames = given.frames.map((one) => Uint8Array.from(one));
          layer.draw(frames);
          told.push({ rows: layer.rows, colour: [...view.colour], cover: [...view.cover],
            frames: frames.map((one) => [...one]), hides: [...layer.hides(given.mask)] });
        }
        console.log(JSON.stringify(told));
        """,
        {
            "described": described,
            "images": recorded.image.reshape(len(recorded.image), -1).tolist(),
            "frame": frame.flatten().tolist(),
            "mask": mask.int().flatten().tolist(),
            "blocks": blocks,
            "colour": colour.flatten().tolist(),
            "cover": cover.flatten().tolist(),
            "frames": frames[0].flatten(1).tolist(),
        },
    )
    assert got[0] == wanted[0]
    assert len({tuple(one["rows"]) for one in wanted[1:]}) > 3, "the pasts are told apart"
    for one, other in zip(wanted[1:], got[1:], strict=True):
        assert other["rows"] == one["rows"]
        for name, tolerance in (("colour", 1e-4), ("cover", 1e-4), ("frames", 1.01), ("hides", 0)):
            given = torch.tensor(other[name]).float().view_as(one[name])
            torch.testing.assert_close(given, one[name], atol=tolerance, rtol=0, msg=name)


def test_the_start_image_is_never_overwritten_and_the_oldest_of_the_others_goes() -> None:
    kept = run("""
        import { SpatialMemory } from "memory.js";
        const config = { keyframes: 3, drawn: 3, write_below: 0.9, own_preference: 0.6, fov_deg: 80, pixel_aspect: 1 };
        const memory = new SpatialMemory(config, { width: 224, height: 128 });
        const n = 64 * 112;
        const grey = (value) => new Uint8Array(3 * 128 * 224).fill(value);
        const found = { depth: new Float32Array(n).fill(4), hidden: new Uint8Array(n) };
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
        const near = { depth: new Float32Array(n).fill(4), hidden: new Uint8Array(n) };
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
