"""Spatial memory: keyframes with depth, of the scene and of the session, rendered into the next view.

What was seen need not be learnt, only placed.  For every block the camera's next poses are predicted from the actions
(or given), the keyframes that promise most are rendered into them, and the views become condition channels and the
latent that the network's output is a residual to.  After the block its last frame becomes a keyframe if it shows
something new: first seen, or seen from less than half as far as before.  What it sees through is deleted.  The player's
own body, where a scene has recorded it, is drawn into views and frames, and never written.

Legend: b batch of sessions, K keyframes of a session, k keyframes that a view is rendered from, m candidates,
(h w) = 64 x 112 views, (H W) frames, (c u v) a latent step.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reverie.models.conditioning.detail import add_detail, show_behind
from reverie.models.conditioning.erasure import (
    ROW_BYTES,
    count_seen_through,
    gone,
    gone_probes,
    is_farther,
    match_scale,
)
from reverie.models.conditioning.walls import heading_pose, stop_at_surfaces, surface_points
from reverie.models.depth import BODY_LOGIT, MAX_DEPTH_M, DepthNet
from reverie.models.state import ConditionChannels, SpatialMemoryState
from reverie.scenes.body_matching import Body, BodyLayer
from reverie.scenes.ego_motion import (
    AHEAD_GRID,
    HISTORY_FRAMES,
    EgoMotionNet,
    apply_motion,
    depth_ahead,
    motions_along,
)
from reverie.scenes.keyframes import Candidates, Choice, Keyframes
from reverie.scenes.view_sources import NUM_PROBES, median_reach, probe_points
from reverie.types import STEP_FRAMES, ActionSpace
from reverie.vision.pixels import shrink_frames, to_bytes
from reverie.vision.projection import FAR, VIEW_SIZE, focal_lengths, unproject
from reverie.vision.rendering import View, render_views, sample_colour

INVERSE_DEPTH_SCALE = 4.0
"""Inverse depths are about 0.1 per metre: brought to the size of latents."""
BASE_RANGE = 6.0
TRAIL_STEPS = 256
"""Steps whose places are kept, for the map: 41 s."""
MAP_STRIDE = 4
"""Every so many pixels of the session's own keyframes, across and down, is a point of the map."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpatialMemoryConfig:
    """Sizes of a session's memory, and the camera of images that come without one."""

    keyframes: int = 48
    """Keyframes of its own that a session keeps."""
    drawn: int = 6
    """Keyframes that a view is rendered from."""
    write_below: float = 0.93
    """A frame becomes a keyframe if the memory covers less of it."""
    scene_drawn: int = 4
    """Drawn keyframes that are chosen among the scene's alone, while they add anything."""
    own_preference: float = 0.6
    """Weight of own keyframes beside a scene's among the others: generated frames are softer than recorded ones."""
    fov_deg: float = 80.0
    """Horizontal field of view."""
    pixel_aspect: float = 1.0
    """Vertical focal length over the horizontal one, in pixels."""


class NextStep(NamedTuple):
    """The condition of the next step, and what `commit` needs of it.

    actions: (b, 4, a); poses: (b, 4, 6); motions: (b, 4, 6) with the speed ahead that the ground's end takes; view, and
    the keyframes that it was rendered from; body: the player's own before it, of scenes that have recorded it.
    """

    parts: ConditionChannels
    actions: Tensor
    poses: Tensor
    motions: Tensor
    view: View
    choice: Choice
    body: BodyLayer | None


class ViewEncoder(nn.Module):
    """Four half-size frames to a latent: a linear map, fitted in closed form (`reverie.train.spatial.geometry`).

    latent: (c, u, v); views of another size than (4 u, 4 v) are brought to it first (only test models need that).
    """

    def __init__(self, latent: tuple[int, int, int]) -> None:
        super().__init__()
        self.size = (4 * latent[1], 4 * latent[2])
        self.conv = nn.Conv2d(3 * STEP_FRAMES, latent[0], 8, stride=4, padding=2)

    def inputs(self, colour: Tensor) -> Tensor:
        """The four frames' channels, (b, 12, 4 u, 4 v).  colour: (b, 4, 3, h, w)."""
        joined = colour.flatten(1, 2)
        return joined if joined.shape[-2:] == self.size else F.interpolate(joined, self.size, mode="area")

    def forward(self, colour: Tensor) -> Tensor:
        """colour: (b, 4, 3, h, w) in [-1, 1].  Returns (b, c, u, v), float32.

        In float32 whatever the model computes in: of this convolution in bfloat16, torch 2.13 makes something else on
        processors with AMX.
        """
        weight, bias = self.conv.weight.float(), self.conv.bias
        assert bias is not None
        with torch.autocast(colour.device.type, enabled=False):
            x = F.conv2d(self.inputs(colour.float()), weight, bias.float(), self.conv.stride, self.conv.padding)  # type: ignore[arg-type]
        return x.clamp(-BASE_RANGE, BASE_RANGE)


class SpatialMemory(nn.Module):
    """The conditioner of models with a spatial memory: its networks, and what advances its state."""

    def __init__(self, config: SpatialMemoryConfig, action_space: ActionSpace, latent: tuple[int, int, int]) -> None:
        super().__init__()
        self.config, self.latent, self.action_size = config, latent, action_space.size
        self.view_encoder = ViewEncoder(latent)
        self.depth = DepthNet()
        self.ego_motion = EgoMotionNet(action_space.size)

    def init_state(
        self, batch: int, size: tuple[int, int], device: torch.device | str = "cpu", scene_keyframes: int = 0
    ) -> SpatialMemoryState:
        """An empty memory of `batch` sessions with frames of size (H, W).

        scene_keyframes: of the scene that the sessions open in; with 0, nothing of a scene is ever deleted.
        """
        count, (h, w) = self.config.keyframes, VIEW_SIZE

        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(batch, *shape, dtype=dtype, device=device)

        return SpatialMemoryState(
            colour=zeros(count, 3, *size, dtype=torch.uint8),
            depth=zeros(count, h, w),
            hidden=zeros(count, h, w, dtype=torch.bool),
            pose=zeros(count, 6),
            probes=zeros(count, NUM_PROBES, 3),
            seen=zeros(count, NUM_PROBES, dtype=torch.bool),
            reach=zeros(count),
            valid=zeros(count, dtype=torch.bool),
            written=zeros(dtype=torch.int64),
            camera=zeros(6),
            motion=zeros(HISTORY_FRAMES, 6),
            actions=zeros(HISTORY_FRAMES, self.action_size),
            focal=zeros(2),
            ahead=zeros(*AHEAD_GRID),
            trail=zeros(TRAIL_STEPS, 2),
            seen_through=zeros(scene_keyframes + count + 1, ROW_BYTES, dtype=torch.uint8),
            body=zeros(dtype=torch.int64),
        )

    def open(
        self,
        state: SpatialMemoryState,
        frame: Tensor,
        pose: Tensor | None = None,
        fov_deg: Tensor | None = None,
        pixel_aspect: Tensor | None = None,
        body: Body | None = None,
    ) -> None:
        """Resets the state to one keyframe, the start image.

        frame: (b, 3, H, W) in [-1, 1], as the decoder gives it; pose: (b, 6), fov_deg and pixel_aspect: (b,) of its
        camera, by default the origin and the configuration's; body: the scene's, of which the start image is
        taken to show what looks most like it.
        """
        for tensor in state.tensors():
            tensor.zero_()
        b = frame.shape[0]
        if pose is not None:
            state.camera.copy_(pose)
        state.trail.copy_(state.camera[:, None, :2])
        fov = torch.full((b,), self.config.fov_deg, device=frame.device) if fov_deg is None else fov_deg
        aspect = self.config.pixel_aspect if pixel_aspect is None else pixel_aspect
        state.focal.copy_(focal_lengths(fov, aspect))
        depth, hidden = self._measure(frame)
        state.ahead.copy_(depth_ahead(depth.log()))
        if body is not None:
            state.body.copy_(body.find(frame, hidden))
        self._write_keyframe(state, frame, depth, hidden, torch.ones(b, dtype=torch.bool, device=frame.device))

    def next(
        self,
        state: SpatialMemoryState,
        last: Tensor,
        actions: Tensor,
        scene: Candidates | None = None,
        poses: Tensor | None = None,
    ) -> NextStep:
        """The condition of the next step; `state` is left alone.

        last: (b, c, u, v) the last latent; actions: (b, 4, a) of the next frames; scene: keyframes beside the session's
        own; poses: (b, 4, 6) of the next frames where they are known, else they are predicted.
        """
        predicted = self.predict_poses(state, actions, scene) if poses is None else poses
        ground = None if scene is None or poses is not None else scene.ground
        poses, motions = predicted, motions_along(state.camera, predicted)
        if ground is not None:
            poses = ground.hold(state.camera, predicted)
            # No game has such an edge: a runner who is stopped there runs on the spot, and leaves it when told to turn.
            motions = torch.cat([motions[..., :1], motions_along(state.camera, poses)[..., 1:]], -1)
        view, choice = self.render(state, poses, scene)
        body = self._show_body(state, actions, motions, scene)
        if body is not None:
            view = body.draw_view(view)
        parts = self.channels(view.colour, view.cover, view.inverse_depth, last, choice.valid.any(1))
        return NextStep(parts, actions, poses, motions, view, choice, body)

    def _show_body(
        self, state: SpatialMemoryState, actions: Tensor, motions: Tensor, scene: Candidates | None
    ) -> BodyLayer | None:
        """The player's body in the next block, of a scene that has recorded it."""
        if scene is None or scene.body is None:
            return None
        with torch.autocast(motions.device.type, enabled=False):
            past = _append(state.actions, actions), _append(state.motion, motions.float())
            return scene.body.show(*past, state.body, (state.colour.shape[-2], state.colour.shape[-1]))

    def predict_poses(self, state: SpatialMemoryState, actions: Tensor, scene: Candidates | None) -> Tensor:
        """The next poses (b, 4, 6) as predicted, stopped by walls."""
        path = [state.camera]
        for motion in self.predict_motion(state, actions, scene).unbind(1):
            path.append(apply_motion(path[-1], motion))
        poses = torch.stack(path[1:], 1)
        return self.stop_at_walls(state, poses, scene) if scene is None or scene.walls else poses

    def predict_motion(self, state: SpatialMemoryState, actions: Tensor, scene: Candidates | None) -> Tensor:
        """Motions of the next four frames, (b, 4, 6), as one moves in the scene, where it has a network of its own."""
        own = None if scene is None else scene.ego_motion
        network = self.ego_motion if own is None else own
        dtype = next(network.parameters()).dtype
        rows = torch.cat([state.actions, actions.to(state.actions)], 1)
        inputs = (rows, state.motion, state.camera[:, 4:6], state.ahead)
        return network(*(x.to(dtype) for x in inputs)).float()

    def stop_at_walls(self, state: SpatialMemoryState, poses: Tensor, scene: Candidates | None) -> Tensor:
        """The next poses, (b, 4, 6), stopped by what the memory shows in their way."""
        with torch.autocast(poses.device.type, enabled=False):
            poses = poses.float()
            choice = self._choose(state, heading_pose(state.camera, poses), scene)
            points, drawn = surface_points(choice, state.seen_through, state.focal)
            return stop_at_surfaces(state.camera, poses, points, drawn)

    def render(self, state: SpatialMemoryState, poses: Tensor, scene: Candidates | None) -> tuple[View, Choice]:
        """Views of the next frames, and the keyframes that they are rendered from.  poses: (b, 4, 6)."""
        with torch.autocast(poses.device.type, enabled=False):  # geometry in float32, whatever the networks compute in
            poses = poses.float()
            choice = self._choose(state, poses[:, 2], scene)
            colour, depth, hidden, pose = (choice.gather(name) for name in ("colour", "depth", "hidden", "pose"))
            hidden = hidden | gone(state.seen_through, choice)
            fills = choice.valid & ~is_recorded(choice)
            return render_views(colour, depth, hidden, pose, choice.valid, poses, state.focal, fills), choice

    def _choose(self, state: SpatialMemoryState, pose: Tensor, scene: Candidates | None) -> Choice:
        sources, preference, leading = [own_keyframes(state)], [1.0], 0
        if scene is not None:
            sources, preference = [scene, *sources], [1.0, self.config.own_preference]
            leading = self.config.scene_drawn
        lost = gone_probes(state.seen_through, sources)
        return Choice.best(sources, preference, pose, state.focal, self.config.drawn, lost, leading)

    def channels(
        self, colour: Tensor, cover: Tensor, inverse_depth: Tensor, last: Tensor, drawn: Tensor
    ) -> ConditionChannels:
        """Cover (4), the view as a latent (c), the previous latent (c) and inverse depth (4), with the view's latent as
        the base; where nothing was drawn the previous latent takes its place.

        colour, cover, inverse_depth: of the view; last: (b, c, u, v); drawn: (b,) bool.
        """
        dtype = last.dtype
        latent = self.view_encoder(colour).to(dtype)
        base = torch.where(drawn.view(-1, 1, 1, 1), latent, last)
        pooled_cover, inverse = pooled(cover, inverse_depth, self.latent)
        return pack_channels(pooled_cover.to(dtype), base, last, inverse.to(dtype))

    def commit(self, state: SpatialMemoryState, step: NextStep, frames: Tensor) -> Tensor:
        """Advances the state by the block that was generated.  Returns its frames as they are shown, with fine detail.

        frames: (b, 4, 3, H, W) in [-1, 1], as decoded.
        """
        depth, hidden = self._measure(frames[:, -1])
        frames, hidden = self._with_view(state, step, frames, hidden)
        move_camera(state, step)
        with torch.autocast(frames.device.type, enabled=False):
            depth = match_scale(depth, hidden, step.view)
            state.ahead.copy_(depth_ahead(_seen_depth(depth, hidden, step.view).log()))
            count_seen_through(state.seen_through, step.choice, depth, hidden, state.camera, state.focal)
            stays, known = _find_known(step, depth)
            write = (~known & ~hidden).float().mean((1, 2)) > 1 - self.config.write_below
            # What is first seen stays as it was: what a scene or the start image shows is not seen from here as well.
            self._write_keyframe(state, frames[:, -1], depth, hidden | (known & stays), write)
        return frames

    def _with_view(
        self, state: SpatialMemoryState, step: NextStep, frames: Tensor, body: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Frames (b, 4, 3, H, W) with the fine detail of the view and the recorded body, and the pixels that are body.

        body: (b, h, w) as the network painted it into the last frame.
        """
        with torch.autocast(frames.device.type, enabled=False):
            view, choice, frames = step.view, step.choice, frames.float()
            hidden = choice.gather("hidden") | gone(state.seen_through, choice)
            detail = sample_colour(choice.gather("colour"), hidden, view.points.divided())
            if step.body is None:
                return add_detail(frames, detail, view.cover, view.inverse_depth, body), body
            frames = show_behind(frames, detail, view.points.found, body)
            body = body | step.body.hides
            frames = add_detail(frames, detail, view.cover, view.inverse_depth, body)
            return step.body.draw(frames), body

    def _measure(self, frame: Tensor) -> tuple[Tensor, Tensor]:
        """Depth in metres and hidden pixels (body), (b, h, w), of a frame."""
        log_depth, body = self.depth(shrink_frames(frame.clamp(-1, 1).to(next(self.depth.parameters()).dtype)))
        return log_depth.float().exp(), body > BODY_LOGIT

    def _write_keyframe(
        self, state: SpatialMemoryState, frame: Tensor, depth: Tensor, hidden: Tensor, write: Tensor
    ) -> None:
        """Writes a frame as a keyframe to the next slot, where `write` (b,) is true.  depth, hidden: (b, h, w)."""
        with torch.autocast(frame.device.type, enabled=False):
            probes, seen = probe_points(depth[:, None], hidden[:, None], state.camera[:, None], state.focal)
            reach = median_reach(probes, seen, state.camera[:, None])
        slot, count = self._next_slot(state), self.config.keyframes
        new = {
            "colour": to_bytes(frame),
            "depth": depth,
            "hidden": hidden,
            "pose": state.camera,
            "probes": probes[:, 0],
            "seen": seen[:, 0],
            "reach": reach[:, 0],
            "valid": torch.ones_like(write),
        }
        for name, value in new.items():
            _put(getattr(state, name), slot, value, write)
        counts = state.seen_through
        _put(counts, slot + counts.shape[1] - 1 - count, torch.zeros_like(counts[:, 0]), write)
        state.written += write

    def _next_slot(self, state: SpatialMemoryState) -> Tensor:
        """The slot of the next keyframe, (b,): the first one, the start image, is never overwritten."""
        count = self.config.keyframes
        return torch.where(state.written < count, state.written, 1 + (state.written - 1) % max(1, count - 1))


def move_camera(state: SpatialMemoryState, step: NextStep) -> None:
    """The camera stands where the step leads; its motions and actions, and the body shown, are the last ones."""
    state.camera.copy_(step.poses[:, -1])
    state.motion.copy_(_append(state.motion, step.motions))
    state.actions.copy_(_append(state.actions, step.actions))
    if step.body is not None:
        state.body.copy_(step.body.rows[:, -1] + 1)
    state.trail.copy_(torch.cat([state.trail[:, 1:], state.camera[:, None, :2]], 1))


def _append(history: Tensor, rows: Tensor) -> Tensor:
    """Histories (b, n, .) with new rows (b, f, .) at their ends, as long as before."""
    return torch.cat([history[:, rows.shape[1] :], rows.to(history)], 1)


def own_keyframes(state: SpatialMemoryState) -> Candidates:
    """A session's own keyframes, of all sessions in one row."""
    names = [field.name for field in fields(Keyframes)]
    keyframes = Keyframes(**{name: getattr(state, name).flatten(0, 1) for name in names})
    return Candidates(
        keyframes, torch.arange(len(keyframes), device=state.valid.device).view_as(state.valid), state.valid
    )


def remembered_points(state: SpatialMemoryState, scene: Candidates | None) -> Tensor:
    """World points (n, 3) in the memory of the first session of a batch, infinitely far ones left out.

    Of a scene the probes of its keyframes; of the session's own keyframes every fourth pixel.
    """
    part = slice(MAP_STRIDE // 2, None, MAP_STRIDE)
    points = unproject(state.depth[:1], state.pose[:1], state.focal[:1])[0].unflatten(1, VIEW_SIZE)[:, part, part]
    seen = ~state.hidden[0] & state.valid[0, :, None, None] & (state.depth[0] < FAR)
    found = [points[seen[:, part, part]]]
    if scene is not None:
        probes, pose = (getattr(scene.keyframes, name)[scene.members[0]] for name in ("probes", "pose"))
        near = (probes - pose[:, None, :3]).norm(dim=-1) < FAR
        usable = scene.keyframes.seen[scene.members[0]] & scene.usable[0, :, None]
        found.append(probes[usable & near])
    return torch.cat(found)


def is_recorded(choice: Choice) -> Tensor:
    """Returns whether each chosen keyframe was recorded and not generated, (b, k): a scene's, and a session's start
    image."""
    of_scene = sum(one.members.shape[1] for one in choice.sources[:-1])
    return choice.valid & (choice.chosen <= of_scene)


def _put(target: Tensor, slot: Tensor, value: Tensor, write: Tensor) -> None:
    """Writes value (b, ...) to target (b, n, ...) at slot (b,), where `write` (b,) is true."""
    rows = torch.arange(len(slot), device=slot.device)
    old = target[rows, slot]
    target[rows, slot] = torch.where(write.view(-1, *[1] * (old.ndim - 1)), value.to(old.dtype), old)


def pooled(cover: Tensor, inverse_depth: Tensor, latent: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Cover and inverse depth of a view on the latent grid, (b, 4, u, v) each."""
    inverse = F.adaptive_avg_pool2d(inverse_depth, latent[1:])
    return F.adaptive_avg_pool2d(cover, latent[1:]), inverse * INVERSE_DEPTH_SCALE


def pack_channels(cover: Tensor, base: Tensor, last: Tensor, inverse_depth: Tensor) -> ConditionChannels:
    """The one definition of the channels' order.  All (b, ., u, v), of one step."""
    return ConditionChannels(torch.cat([cover, base, last, inverse_depth], 1)[:, None], base[:, None])


def _seen_depth(depth: Tensor, hidden: Tensor, view: View) -> Tensor:
    """Depth (b, h, w) of a block's last frame: the view's where it shows what is there, else as it was measured."""
    inverse = view.inverse_depth[:, -1]
    shown = (view.cover[:, -1] > 0) & ~hidden
    return torch.where(shown, inverse.clamp(min=1 / MAX_DEPTH_M).reciprocal(), depth)


def _find_known(step: NextStep, depth: Tensor) -> tuple[Tensor, Tensor]:
    """Marks pixels of a block's last frame that show what was recorded, and those that show nothing new, (b, h, w).

    What was generated is renewed from less than half as far; what was recorded is never hidden by it.
    """
    view, shown = step.view, step.view.keyframe[:, -1].flatten(1)
    stays = is_recorded(step.choice).gather(1, shown).view_as(depth) & (view.cover[:, -1] > 0)
    return stays, ((view.known[:, -1] > 0) | stays) & ~is_farther(depth, view)
