"""`reverie data view`: a recording in rerun's viewer, with its camera, depth, actions, and the places that it visited.

world/camera/frame      the frames, seen from the camera's pose
world/camera/depth      the recorded depth, in metres
world/path              the camera's way
world/memory/N          a keyframe with depth as points, one every few seconds: what a spatial memory holds by then
actions/keys, mouse     keys held (0 or 1), degrees turned in a frame
"""

from __future__ import annotations

import io
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from reverie.data.dataset import Dataset
from reverie.errors import DataError
from reverie.types import Clip

JPEG_QUALITY = 90
CENTIMETRES = 100.0
"""Units of a metre in logged depth images."""
MAX_DEPTH_M = 95.0
"""Points that are farther away are left out of the memory."""
POINT_RADIUS_M = 0.03


def show_clip(dataset: Dataset, clip: Clip, name: str, memory_s: float = 2.0) -> None:
    """Opens the viewer on a clip of `dataset`.  Raises DataError without rerun or a screen."""
    rr = import_rerun()
    _check_display()
    stream = rr.RecordingStream("reverie", recording_id=name)
    stream.spawn(default_blueprint=_layout(rr))
    log_clip(stream, dataset, clip, memory_s)
    stream.flush()


def save_clip(path: Path, dataset: Dataset, clip: Clip, name: str, memory_s: float = 2.0) -> None:
    """Writes a clip of `dataset` as one of rerun's files, whole or not at all.  Raises DataError if it cannot."""
    rr = import_rerun()
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.touch()
        stream = rr.RecordingStream("reverie", recording_id=name)
        stream.save(partial, default_blueprint=_layout(rr))
        log_clip(stream, dataset, clip, memory_s)
        stream.flush()
        stream.disconnect()
        os.replace(partial, path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}; name another file") from error
    finally:
        partial.unlink(missing_ok=True)


def log_clip(stream: Any, dataset: Dataset, clip: Clip, memory_s: float) -> None:
    """Logs a clip of `dataset` on the timeline `time`, seconds after its first frame.

    stream: a `rerun.RecordingStream`.  Without poses there is no camera in the world, without a field of view or depth
    no memory.
    """
    rr = import_rerun()
    times = np.arange(len(clip.frames)) / clip.fps
    _log_actions(rr, stream, dataset, clip, times)
    focal = _focal_across(dataset)
    axes = None if clip.poses is None else _camera_axes(clip.poses)
    stream.log("world", rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
    if focal is not None:
        stream.log("world/camera/frame", _pinhole(rr, dataset, focal, clip.frames.shape[1:3]), static=True)
        if clip.depth is not None:
            stream.log("world/camera/depth", _pinhole(rr, dataset, focal, clip.depth.depth.shape[1:]), static=True)
    with_depth = {} if clip.depth is None else {int(frame): i for i, frame in enumerate(clip.depth.frames)}
    next_keyframe_s = 0.0 if memory_s else np.inf
    for i, time in enumerate(times):
        stream.set_time("time", duration=float(time))
        stream.log("world/camera/frame", rr.EncodedImage(contents=_jpeg(clip.frames[i]), media_type="image/jpeg"))
        if clip.poses is not None and axes is not None:
            stream.log("world/camera", rr.Transform3D(translation=clip.poses[i, :3], mat3x3=axes[i]))
        if clip.depth is None or i not in with_depth:
            continue
        depth = clip.depth.depth[with_depth[i]]
        stream.log("world/camera/depth", rr.DepthImage(_centimetres(depth), meter=CENTIMETRES))
        if time >= next_keyframe_s and focal is not None and clip.poses is not None and axes is not None:
            next_keyframe_s = time + memory_s
            shown = np.isfinite(depth) & (depth < MAX_DEPTH_M) & ~clip.depth.body[with_depth[i]]
            points = _unproject(depth, focal, dataset.pixel_aspect, axes[i], clip.poses[i, :3])[shown]
            colours = _resize(clip.frames[i], depth.shape)[shown]
            stream.log(f"world/memory/{i:05d}", rr.Points3D(points, colors=colours, radii=POINT_RADIUS_M))
    if clip.poses is not None:
        stream.log("world/path", rr.LineStrips3D([clip.poses[:, :3]]), static=True)


def _log_actions(rr: Any, stream: Any, dataset: Dataset, clip: Clip, times: npt.NDArray[Any]) -> None:
    for name, values in zip(dataset.action_space.names, clip.actions.T, strict=True):
        group, _, label = name.partition(".")
        path = f"actions/{'keys' if group == 'key' else group}/{label}"
        columns = rr.Scalars.columns(scalars=values.astype(np.float64))
        stream.send_columns(path, indexes=[rr.TimeColumn("time", duration=times)], columns=columns)


def _focal_across(dataset: Dataset) -> float | None:
    """Horizontal focal length over the frame's width; None where the recording does not state the field of view."""
    return None if dataset.fov_deg is None else 0.5 / np.tan(np.radians(dataset.fov_deg) / 2)


def _camera_axes(poses: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Columns right, down and forward of each camera in the world, `(f, 3, 3)`.  poses: `(f, 6)`."""
    import torch

    from reverie.vision.projection import rotation

    right, up, forward = rotation(torch.from_numpy(poses)).unbind(-2)
    return torch.stack([right, -up, forward], -1).numpy()


def _pinhole(rr: Any, dataset: Dataset, focal: float, size: tuple[int, ...]) -> Any:
    height, width = size
    return rr.Pinhole(
        focal_length=[focal * width, focal * width * dataset.pixel_aspect],
        width=width,
        height=height,
        camera_xyz=rr.ViewCoordinates.RDF,
    )


def _unproject(
    depth: npt.NDArray[np.float32],
    focal: float,
    pixel_aspect: float,
    axes: npt.NDArray[np.float32],
    position: npt.NDArray[np.float32],
) -> npt.NDArray[np.float32]:
    """World points `(h, w, 3)` of a depth image `(h, w)` in metres."""
    height, width = depth.shape
    y, x = np.mgrid[:height, :width] + 0.5
    across = focal * width
    right, down = (x - width / 2) / across, (y - height / 2) / (across * pixel_aspect)
    near = np.where(np.isfinite(depth), depth, 0.0)
    camera = np.stack([right, down, np.ones_like(right)], -1) * near[..., None]
    return (camera @ axes.T + position).astype(np.float32)


def _centimetres(depth: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Whole centimetres; 0, which rerun leaves out, for the sky."""
    shown = np.where(np.isfinite(depth), depth * CENTIMETRES, 0.0)
    return shown.round().clip(0, 65_535).astype(np.uint16)


def _jpeg(frame: npt.NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


def _resize(frame: npt.NDArray[np.uint8], size: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.fromarray(frame).resize((size[1], size[0]), Image.Resampling.BOX))


def _layout(rr: Any) -> Any:
    """The world beside frame, depth and actions."""
    rrb = import_module("rerun.blueprint")
    flat = (rrb.Spatial2DView(origin=f"world/camera/{name}", name=name) for name in ("frame", "depth"))
    actions = (rrb.TimeSeriesView(origin=f"actions/{name}", name=name) for name in ("keys", "mouse"))
    return rrb.Blueprint(
        rrb.Horizontal(
            rrb.Spatial3DView(origin="world", name="world"), rrb.Vertical(*flat, *actions), column_shares=[2, 1]
        )
    )


def import_rerun() -> Any:
    """Imports rerun.  Raises DataError where it is not installed."""
    try:
        return import_module("rerun")
    except ModuleNotFoundError as error:
        raise DataError('the viewer needs rerun; pip install "reverie-world[viewer]"') from error


def _check_display() -> None:
    """Raises DataError on a Linux machine without a screen, where the viewer would end unseen."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise DataError("there is no screen here for the viewer; write a file with -o walk.rrd and open it elsewhere")
