"""The networks of one block as ONNX graphs.

    open     picture -> its latent; keys and values of its image tokens
    view     rendered views, last latent -> condition channels, base
    pass     one evaluation of the transformer: noisy latent, level, condition, past -> output; the step's own `present`
    decode   latent, carries -> four frames, carries
    behind   frames, rendered views at full size -> frames without the body that the network painted
    detail   frames, rendered views at full size -> frames with the fine detail of the views
    depth    last frame -> depth, body mask

What lies between them (noise, rings, the camera's way, choice and rendering of keyframes) is the player's (`player/`).
State is the caller's: a graph takes it and returns what is new.  `past` and `present` hold the keys and values of every
attention layer of a step as one row of numbers, so that a ring is a table, and committing a step writes one row.

Legend: t past steps, r numbers of a row of the past, (c u v) a latent step, a numbers in an action row, d width.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reverie.errors import CheckpointError
from reverie.models.actions import WINDOW_FRAMES
from reverie.models.checkpoint import ModelBundle
from reverie.models.conditioning.detail import add_detail, show_behind
from reverie.models.conditioning.spatial_memory import SpatialMemory
from reverie.models.depth import BODY_LOGIT
from reverie.models.dit import WorldModel
from reverie.models.schedule import Schedule
from reverie.models.state import Condition, RotaryTables, TimestepEmbedding, WorldState
from reverie.models.tokenizer import VideoTokenizer
from reverie.vision.pixels import shrink_frames
from reverie.vision.projection import VIEW_SIZE

OPSET = 18
HALVED_AXES = (2, 4)
"""Axes of the weights of linear and convolution layers.  All else (biases, gains, folded constants such as the depth
network's pixel positions, which float16 would move) stays float32: it weighs nothing."""
MAX_JOINED = 8
TRACED_STEPS = 3
"""Past steps of the example that `pass` is traced with; any number from 0 will do afterwards."""


@dataclass(frozen=True, slots=True)
class Graph:
    """A network to export: example inputs by name, names of the outputs, and inputs whose first axis varies."""

    network: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    varying: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class PastLayer:
    """The shape (rows, heads, tokens, head width) of one attention layer's keys, and of its values, of a step."""

    shape: tuple[int, int, int, int]

    @property
    def size(self) -> int:
        """Numbers of its keys and values."""
        rows, heads, tokens, width = self.shape
        return 2 * rows * heads * tokens * width


def past_layers(model: WorldModel) -> list[PastLayer]:
    caches = model.new_state().caches
    return [PastLayer((c.k.shape[0], c.k.shape[1], c.tokens, c.k.shape[3])) for c in caches]


class _GraphCache:
    """Stands in for a KVCache: reads the past from a graph's input, and keeps what the step adds to it."""

    def __init__(self, past: Tensor, layer: PastLayer) -> None:
        self.keys, self.values = past.unflatten(1, (2, *layer.shape)).unbind(1)
        self.added: tuple[Tensor, Tensor] | None = None

    def read(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        self.added = (k, v)
        return self._joined(self.keys, k), self._joined(self.values, v)

    @staticmethod
    def _joined(past: Tensor, new: Tensor) -> Tensor:
        return torch.cat([past.permute(1, 2, 0, 3, 4).flatten(2, 3), new], 2)


class OpenGraph(nn.Module):
    """picture (1, 3, H, W) in [-1, 1] -> latent (1, c, u, v), image keys and values, flat."""

    def __init__(self, bundle: ModelBundle) -> None:
        super().__init__()
        self.model, self.tokenizer, self.image_encoder = bundle.model, bundle.tokenizer, bundle.image_encoder

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        latent = self.tokenizer.encode(picture[:, None])[:, 0]  # type: ignore[operator]
        pairs = self.model.image_keys_values(self.image_encoder(picture))  # type: ignore[operator]
        flat = [x.flatten() for pair in pairs for x in pair]
        return (latent, torch.cat(flat)) if flat else (latent,)


class PassGraph(nn.Module):
    """One evaluation of the transformer.

    x (1, c, u, v); level (1, d), see `level_vectors`; actions (1, 12, a); channels (1, ., u, v); base (1, c, u, v);
    tables of rotary positions; past (t, r); image as `OpenGraph` gives it.  Returns out (1, c, u, v), present (r,).
    """

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        self.model, self.layers = model, past_layers(model)

    def forward(
        self,
        x: Tensor,
        level: Tensor,
        actions: Tensor,
        channels: Tensor,
        base: Tensor,
        past: Tensor,
        tokens: Tensor,
        keyboard: Tensor | None = None,
        mouse: Tensor | None = None,
        image: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        model = self.model
        rotary = RotaryTables(tokens, keyboard, mouse)
        condition = Condition(channels[:, None], actions[:, None], torch.zeros(1), base[:, None], None, rotary)
        ends = list(accumulate(layer.size for layer in self.layers))
        caches = [
            _GraphCache(past[:, end - layer.size : end], layer) for end, layer in zip(ends, self.layers, strict=True)
        ]
        state = WorldState(caches, actions, x, self._image(image))  # type: ignore[arg-type]
        out = model(x[:, None], self._embedding(level, actions), condition, state)
        added = [part.flatten() for cache in caches for part in cache.added or ()]
        return out[:, 0], _joined(added)

    def _embedding(self, level: Tensor, actions: Tensor) -> TimestepEmbedding:
        embedding = level[:, None]
        if self.model.action_embedding is not None:
            embedding = embedding + self.model.action_embedding(self.model._scale_mouse(actions).flatten(1))[:, None]
        modulation = self.model.time_projection(F.silu(embedding)).unflatten(-1, (6, -1))
        return TimestepEmbedding(level[:, :1], embedding, modulation)

    def _image(self, flat: Tensor | None) -> list[tuple[Tensor, Tensor]]:
        config = self.model.config
        if flat is None:
            return []
        pairs = flat.view(len(config.image.blocks), 2, 1, config.heads, config.image.tokens, config.head_dim)
        return [(pair[0], pair[1]) for pair in pairs.unbind(0)]


def _joined(parts: list[Tensor]) -> Tensor:
    """All of `parts` one after another, a few at a time: a GPU binds ten buffers at once."""
    while len(parts) > 1:
        parts = [torch.cat(parts[i : i + MAX_JOINED]) for i in range(0, len(parts), MAX_JOINED)]
    return parts[0]


class ViewGraph(nn.Module):
    """colour (1, 4, 3, h, w); cover, inverse_depth (1, 4, h, w); last (1, c, u, v); drawn (1,), 0 where no keyframe was
    drawn -> channels, base."""

    def __init__(self, memory: SpatialMemory) -> None:
        super().__init__()
        self.memory = memory

    def forward(
        self, colour: Tensor, cover: Tensor, inverse_depth: Tensor, last: Tensor, drawn: Tensor
    ) -> tuple[Tensor, ...]:
        parts = self.memory.channels(colour, cover, inverse_depth, last, drawn > 0)
        assert parts.base is not None
        return parts.channels[:, 0], parts.base[:, 0]


class DecodeGraph(nn.Module):
    """latent (1, c, u, v), a carry for each temporal layer -> frames (4, 3, H, W), the new carries."""

    def __init__(self, tokenizer: VideoTokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, latent: Tensor, *carries: Tensor) -> tuple[Tensor, ...]:
        tokenizer, new = self.tokenizer, [carry.clone() for carry in carries]
        z = latent[:, None] * tokenizer.latent_std + tokenizer.latent_mean.view(-1, 1, 1)
        return tokenizer.decoder(z, iter(new))[0], *new


class BehindGraph(nn.Module):
    """frames (1, 4, 3, H, W), detail (1, 4, 3, 2 h, 2 w) in [-1, 1]; found (1, 4, h, w), cover without the recorded
    body; painted (1, h, w), the body that the network painted -> frames in which the view is seen there."""

    def forward(self, frames: Tensor, detail: Tensor, found: Tensor, painted: Tensor) -> tuple[Tensor, ...]:
        return (show_behind(frames, detail, found, painted),)


class DetailGraph(nn.Module):
    """frames (1, 4, 3, H, W), detail (1, 4, 3, 2 h, 2 w) in [-1, 1]; cover, inverse_depth (1, 4, h, w); body (1, h, w)
    -> frames as shown."""

    def forward(
        self, frames: Tensor, detail: Tensor, cover: Tensor, inverse_depth: Tensor, body: Tensor
    ) -> tuple[Tensor, ...]:
        return (add_detail(frames, detail, cover, inverse_depth, body),)


class DepthGraph(nn.Module):
    """frame (1, 3, H, W) in [-1, 1] -> depth (1, h, w) metres, hidden (1, h, w), 1 on the player's body."""

    def __init__(self, memory: SpatialMemory) -> None:
        super().__init__()
        self.depth = memory.depth

    def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
        log_depth, body = self.depth(shrink_frames(frame))
        return log_depth.exp(), (body > BODY_LOGIT).float()


def graphs_of(bundle: ModelBundle) -> dict[str, Graph]:
    """The graphs of a model, by name.  Raises CheckpointError for a model that the player cannot play."""
    memory, model, tokenizer, config = bundle.memory, bundle.model, bundle.tokenizer, bundle.config
    if memory is None or not isinstance(tokenizer, VideoTokenizer):
        raise CheckpointError(
            f"{config.name} is no model with a spatial memory and Reverie's own tokenizer: expected one, such as nano; "
            "play this one with `reverie play`"
        )
    world, (height, width), (h, w) = model.config, config.resolution, VIEW_SIZE
    latent, picture = torch.randn(1, *world.latent), torch.rand(1, 3, height, width) * 2 - 1
    actions = torch.rand(1, WINDOW_FRAMES, world.action_space.size)
    views = {
        "colour": torch.rand(1, 4, 3, h, w),
        "cover": torch.rand(1, 4, h, w),
        "inverse_depth": torch.rand(1, 4, h, w),
    }
    carries = [torch.randn_like(carry) for carry in tokenizer.new_decoder_state(1, height, width).carries]
    names = [f"carry_{i}" for i in range(len(carries))]
    opened = ("latent", "image") if world.image.blocks else ("latent",)
    return {
        "open": Graph(OpenGraph(bundle), {"picture": picture}, opened),
        "view": Graph(ViewGraph(memory), {**views, "last": latent, "drawn": torch.ones(1)}, ("channels", "base")),
        "pass": Graph(PassGraph(model), _pass_inputs(model, latent, actions), ("out", "present"), ("past",)),
        "decode": Graph(
            DecodeGraph(tokenizer),
            {"latent": latent, **dict(zip(names, carries, strict=True))},
            ("frames", *(f"new_{name}" for name in names)),
        ),
        "behind": Graph(
            BehindGraph(),
            {
                "frames": torch.rand(1, 4, 3, height, width) * 2 - 1,
                "detail": torch.rand(1, 4, 3, 2 * h, 2 * w) * 2 - 1,
                "found": (torch.rand(1, 4, h, w) > 0.2).float(),
                "painted": (torch.rand(1, h, w) > 0.95).float(),
            },
            ("shown",),
        ),
        "detail": Graph(
            DetailGraph(),
            {
                "frames": torch.rand(1, 4, 3, height, width) * 2 - 1,
                "detail": torch.rand(1, 4, 3, 2 * h, 2 * w) * 2 - 1,
                "cover": views["cover"],
                "inverse_depth": 0.1 + 0.3 * (torch.rand(1, 4, h, w) > 0.5),
                "body": (torch.rand(1, h, w) > 0.9).float(),
            },
            ("shown",),
        ),
        "depth": Graph(DepthGraph(memory), {"frame": picture}, ("depth", "hidden")),
    }


def _pass_inputs(model: WorldModel, latent: Tensor, actions: Tensor) -> dict[str, Tensor]:
    config = model.config
    row = sum(layer.size for layer in past_layers(model))
    channels = torch.randn(1, config.cond_channels, *config.latent[1:])
    rotary = model.with_rotary(Condition(channels, actions, torch.ones(1))).rotary
    assert rotary is not None
    inputs = {
        "x": latent,
        "level": torch.randn(1, config.dim),
        "actions": actions,
        "channels": channels,
        "base": torch.randn_like(latent),
        "past": torch.randn(TRACED_STEPS, row),
        "tokens": rotary.tokens,
    }
    if rotary.keyboard is not None:
        inputs["keyboard"] = rotary.keyboard
    if rotary.mouse is not None:
        inputs["mouse"] = rotary.mouse
    if config.image.blocks:
        size = 2 * len(config.image.blocks) * config.image.tokens * config.dim
        inputs["image"] = torch.randn(size)
    return inputs


@torch.no_grad()
def level_vectors(model: WorldModel, schedule: Schedule) -> Tensor:
    """Embeds each noise level for `pass`, the context's last: (levels, d), actions left out."""
    config, count = model.config, len(schedule.sigmas)
    idle = torch.zeros(1, 1, WINDOW_FRAMES, config.action_space.size)
    condition = Condition(idle, idle, torch.zeros(1))
    told = torch.full((1, 1), 1 / count) if config.step_sizes and not schedule.renoise else None
    vectors = []
    for sigma, step_size in [*((sigma, told) for sigma in schedule.sigmas), (schedule.context_sigma, None)]:
        embedding = model.embed_sigma(torch.full((1, 1), sigma), condition, step_size).embedding[:, 0]
        if model.action_embedding is not None:
            embedding = embedding - model.action_embedding(idle.flatten(2))[:, 0]
        vectors.append(embedding)
    return torch.cat(vectors)


@torch.no_grad()
def onnx_bytes(graph: Graph) -> bytes:
    """Exports a graph as the content of an ONNX file, its weights as float16; what is computed stays float32."""
    # Not `strict`: einops looks at shapes in ways that a compiler cannot follow.
    steps = torch.export.Dim("steps", min=2, max=512)
    shapes = tuple({0: steps} if name in graph.varying else {} for name in graph.inputs) if graph.varying else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about itself, as its note that there is no torchvision
        logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
        program = torch.onnx.export(
            graph.network.eval(),
            tuple(graph.inputs.values()),
            dynamo=True,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            opset_version=OPSET,
            dynamic_shapes=shapes,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    halve_weights(model)
    return model.SerializeToString()


def halve_weights(model: Any) -> None:
    """Stores the weights of an ONNX model as float16, each behind a cast to float32, where they are finite so."""
    import onnx  # pyright: ignore[reportMissingImports]  # an extra
    from onnx import numpy_helper  # pyright: ignore[reportMissingImports]

    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or len(tensor.dims) not in HALVED_AXES:
            continue
        name, half = tensor.name, f"{tensor.name}.half"
        values = numpy_helper.to_array(tensor).astype("float16")
        if not (abs(values) < float("inf")).all():
            continue
        tensor.CopyFrom(numpy_helper.from_array(values, half))
        casts.append(onnx.helper.make_node("Cast", [half], [name], to=onnx.TensorProto.FLOAT))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*casts, *nodes])
