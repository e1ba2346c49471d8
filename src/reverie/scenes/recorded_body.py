"""Recorded body: how the player's own body looked in a scene's recordings, frame by frame, and what led to it.

What was seen need not be learnt, only placed: that holds for who is seen from behind as well.  Clips of the body are
kept with their pasts, the actions and the camera's motions of a second; in play the clip with the past that is most
like the player's is shown (`scenes/body_matching.py`).  Which pasts are alike is fitted: by the looks that they led to.

Legend: n frames of clips, (H W) a frame, (h w) a view at half size, k numbers of a past's embedding.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from reverie.errors import DataError, first_line
from reverie.paths import local_path
from reverie.scenes.ego_motion import HISTORY_FRAMES, motions_along
from reverie.scenes.image_rows import decode_image, encode_image, read_rows
from reverie.types import STEP_FRAMES, Frames
from reverie.vision.pixels import to_bytes, to_pixels
from reverie.vision.rendering import push_pull

FILE = "body.parquet"
COLUMNS = ("image", "clip", "embedding")
MAX_NUMBER = 1e6
"""The largest number of an embedding, and of what it is fitted with."""
CLIP_FRAMES = 24
"""Frames of a clip: a second, about one step to the left and one to the right."""
CLIP_EVERY = CLIP_FRAMES // 4
"""Frames from one candidate to the next."""
EMBEDDING_SIZE = 24
"""Numbers of a past's embedding, and principal components of the looks that it is fitted to."""
LOOK_CELL = 8
"""Pixels, across and down, of which a look keeps the mean."""
OPACITY_WEIGHT = 2.0
"""A pixel that is body in one look and not in the other counts as much as black beside white."""
LOOK_WEIGHT = 0.7
"""Weight of looks beside embeddings of pasts in the choice of clips."""
FASTEST = (1.5, 1.5, 1.5, 15.0, 15.0, 15.0)
"""The largest motion of a frame that counts, metres and degrees."""
RIDGE = 1e-3
LEAST_SEEN = 0.5
"""A body that is less than so many times as large as it usually is has something before it: not to be shown again."""
SMALLEST_SHARE, LARGEST_SHARE = 0.002, 0.4
"""Shares of a frame's pixels; where a body has fewer or more on average, none is seen."""
QUALITY = 60


class BodyWalk(NamedTuple):
    """A recorded walk: frames (f, H, W, 3), body (f, h, w) bool, actions (f, a), of which each is the one whose effect
    first shows in the next frame, and poses (f, 6)."""

    frames: Frames
    body: npt.NDArray[np.bool_]
    actions: npt.NDArray[np.float32]
    poses: npt.NDArray[np.float32]


class RecordedBody(NamedTuple):
    """Clips of the player's own body.

    image: (n, y, x, 4) uint8, red, green, blue and opacity of a box of the frame; corner: row and column of its upper
    left pixel; clip: (n,) the number of each frame's clip; embedding: (n, k) of the frame's past; mean (p,), weights
    (p, k): the embedding of a past (p,) is (past - mean) @ weights.
    """

    image: npt.NDArray[np.uint8]
    corner: tuple[int, int]
    clip: npt.NDArray[np.int64]
    embedding: npt.NDArray[np.float32]
    mean: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float32]


def describe_past(actions: Tensor, motions: Tensor) -> Tensor:
    """Numbers (..., p) of the last frames' actions (..., 24, a) and motions (..., 24, 6): means of four frames each."""
    rows = torch.cat([actions, motions], -1)
    return rows.unflatten(-2, (-1, STEP_FRAMES)).mean(-2).flatten(-2)


def describe_looks(image: Tensor) -> Tensor:
    """Looks (n, l) of bodies: coarse opacity, and colour where they are opaque.

    image: (n, 4, y, x), colour in [-1, 1] and opacity in 0..1.
    """
    colour, opacity = image[:, :3], image[:, 3:]
    cells = F.avg_pool2d(torch.cat([OPACITY_WEIGHT * opacity, colour * opacity], 1), LOOK_CELL, ceil_mode=True)
    return cells.flatten(1)


def to_unit(image: Tensor) -> Tensor:
    """Images (n, 4, y, x) uint8 with colour in [-1, 1] and opacity in 0..1."""
    return torch.cat([to_pixels(image[:, :3]), image[:, 3:].float() / 255], 1)


def record_body(walks: Sequence[BodyWalk], count: int) -> RecordedBody | None:
    """The clips, of `count` frames together, that show best how the body looks in walks; None where none is seen."""
    usable = [walk for walk in walks if len(walk.frames) >= CLIP_FRAMES]
    shares = [walk.body.mean() for walk in usable]
    if not shares or not SMALLEST_SHARE <= np.mean(shares) <= LARGEST_SHARE:
        return None
    corner, images = _cut_out(usable)
    looks = [describe_looks(to_unit(image)) for image in images]
    pasts = [_describe_walk(walk) for walk in usable]
    basis = _principal_components(torch.cat(looks))
    mean, weights = _fit_embedding(torch.cat(pasts), torch.cat(looks) @ basis)
    embeddings = [(past - mean) @ weights for past in pasts]
    told = [torch.cat([one, LOOK_WEIGHT * look @ basis], 1) for one, look in zip(embeddings, looks, strict=True)]
    sizes = [torch.from_numpy(walk.body).float().mean((1, 2)) for walk in usable]
    least = LEAST_SEEN * torch.cat(sizes).median()
    clips = choose_clips(told, max(1, count // CLIP_FRAMES), [size >= least for size in sizes])
    parts = [(walk, slice(first, first + CLIP_FRAMES)) for walk, first in clips]
    if not parts:
        return None
    image = torch.cat([images[walk][part] for walk, part in parts])
    return RecordedBody(
        image.permute(0, 2, 3, 1).contiguous().numpy(),
        corner,
        np.repeat(np.arange(len(parts)), CLIP_FRAMES),
        torch.cat([embeddings[walk][part] for walk, part in parts]).numpy(),
        mean.numpy(),
        weights.numpy(),
    )


def _cut_out(walks: Sequence[BodyWalk]) -> tuple[tuple[int, int], list[Tensor]]:
    """The box of the frame that all bodies are in, and what each walk shows there, (f, 4, y, x) uint8."""
    height, width = walks[0].frames.shape[1:3]
    seen = np.logical_or.reduce([walk.body.any(0) for walk in walks])
    h, w = seen.shape
    (top, bottom), (left, right) = (
        (int(found[0]) * full // size, -(-(int(found[-1]) + 1) * full // size))
        for found, size, full in ((np.flatnonzero(seen.any(1)), h, height), (np.flatnonzero(seen.any(0)), w, width))
    )
    box = slice(top, bottom), slice(left, right)
    images = []
    for walk in walks:
        colour = to_pixels(torch.from_numpy(np.ascontiguousarray(walk.frames[:, *box].transpose(0, 3, 1, 2))))
        body = torch.from_numpy(walk.body)[:, None].float()
        opacity = F.interpolate(body, (height, width), mode="bilinear")[..., *box]
        # Around the body its own colours go on: what is behind it belongs to another place.
        colour = torch.where(opacity > 0.5, colour, push_pull(colour, (opacity > 0.5).float()))
        images.append(torch.cat([to_bytes(colour), (255 * opacity).round().to(torch.uint8)], 1))
    return (top, left), images


def _describe_walk(walk: BodyWalk) -> Tensor:
    """Pasts (f, p) of a walk's frames; before its beginning nothing was done."""
    poses, actions = torch.from_numpy(walk.poses), torch.from_numpy(walk.actions)
    most = poses.new_tensor(FASTEST)  # a camera that was put elsewhere after a fall has not moved there
    motions = motions_along(poses[:1], poses[None, 1:])[0].clamp(-most, most)
    motions = F.pad(motions, (0, 0, HISTORY_FRAMES, 0))
    actions = F.pad(actions[:-1], (0, 0, HISTORY_FRAMES, 0))
    actions, motions = (x.unfold(0, HISTORY_FRAMES, 1).transpose(1, 2) for x in (actions, motions))
    return describe_past(actions, motions)


def _principal_components(looks: Tensor) -> Tensor:
    """(l, k) of looks (n, l)."""
    looks = looks - looks.mean(0)
    _, vectors = torch.linalg.eigh(looks.T @ looks)
    return vectors[:, -EMBEDDING_SIZE:]


def _fit_embedding(past: Tensor, look: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (p,) and weights (p, k) that lead from pasts (n, p) to looks (n, k), by ridge regression."""
    mean, scale = past.mean(0), past.std(0) + 1e-3
    x = (past - mean) / scale
    products = x.T @ x + RIDGE * len(x) * torch.eye(x.shape[1])
    return mean, torch.linalg.solve(products, x.T @ (look - look.mean(0))) / scale[:, None]


def choose_clips(told: Sequence[Tensor], count: int, usable: Sequence[Tensor]) -> list[tuple[int, int]]:
    """The clips that all frames of walks are nearest to, greedily: their walk and first frame, in order.

    told: of each walk (f, d), what frames are compared by; usable: (f,) bool, the frames that clips are made of.
    """
    clips = [
        (i, at)
        for i, ok in enumerate(usable)
        for at in range(0, len(ok) - CLIP_FRAMES + 1, CLIP_EVERY)
        if bool(ok[at : at + CLIP_FRAMES].all())
    ]
    if not clips:
        return []
    frames = torch.cat([x[ok][2::5] for x, ok in zip(told, usable, strict=True)])
    away = torch.stack(
        [torch.cdist(frames, told[i][at + STEP_FRAMES : at + CLIP_FRAMES : 2]).amin(1) for i, at in clips]
    )
    nearest, chosen = torch.full((len(frames),), torch.inf), []
    for _ in range(min(count, len(clips))):
        best = int(torch.minimum(away, nearest).sum(1).argmin())
        nearest = torch.minimum(nearest, away[best])
        chosen.append(best)
    return [clips[i] for i in sorted(set(chosen))]


def write_body(folder: Path, body: RecordedBody | None) -> None:
    """Writes the file; without a body there is none afterwards."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / FILE
    if body is None:
        path.unlink(missing_ok=True)
        return
    images = [
        encode_image(Image.fromarray(image, "RGBA"), quality=QUALITY, alpha_quality=QUALITY, method=6)
        for image in body.image
    ]
    table = pa.table(
        {"image": images, "clip": body.clip, "embedding": pa.array(list(body.embedding), pa.list_(pa.float32()))}
    )
    fitted = {"corner": body.corner, "mean": _rounded(body.mean), "weights": [_rounded(row) for row in body.weights]}
    temporary = folder / f".{FILE}.{os.getpid()}.tmp"
    described = {name: json.dumps(value) for name, value in fitted.items()}
    pq.write_table(table.replace_schema_metadata(described), local_path(temporary), compression="zstd")
    os.replace(temporary, path)


def _rounded(numbers: npt.NDArray[np.float32]) -> list[float]:
    return [float(f"{number:.5g}") for number in numbers]


def read_body(folder: Path, resolution: tuple[int, int], action_size: int) -> RecordedBody | None:
    """The body of a scene with frames of that size and actions of so many numbers; None where it has none.

    Raises DataError for another file.
    """
    import pyarrow.parquet as pq

    path = folder / FILE
    if not path.is_file():
        return None
    try:
        rows = read_rows(path, COLUMNS)
        told = {
            key.decode(): json.loads(text) for key, text in (pq.read_schema(local_path(path)).metadata or {}).items()
        }
        clip = np.array([row["clip"] for row in rows], np.int64)
        embedding = np.array([row["embedding"] for row in rows], np.float32)
        mean, weights = (np.asarray(told[name], np.float32) for name in ("mean", "weights"))
        past = HISTORY_FRAMES // STEP_FRAMES * (action_size + 6)
        if (mean.shape, weights.shape) != ((past,), (past, embedding.shape[1])):
            raise ValueError(f"its numbers are not those of actions of {action_size} numbers")
        if not all(bool((np.abs(numbers) <= MAX_NUMBER).all()) for numbers in (embedding, mean, weights)):
            raise ValueError("its numbers are out of range")
        if not (clip[STEP_FRAMES - 1 :] == clip[: 1 - STEP_FRAMES]).any():
            raise ValueError(f"no clip has {STEP_FRAMES} frames")
        image = np.stack([decode_image(row["image"], "RGBA") for row in rows])
        top, left = map(int, told["corner"])
        if top < 0 or left < 0 or top + image.shape[1] > resolution[0] or left + image.shape[2] > resolution[1]:
            raise ValueError(f"images of {image.shape[1:3]} pixels at {top}, {left} lie outside of the frame")
    except Exception as error:  # decoders raise nearly anything on a damaged image
        raise DataError(
            f"{path}: not readable as a recorded body ({first_line(error)}); build the scene again"
        ) from error
    return RecordedBody(image, (top, left), clip, embedding, mean, weights)
