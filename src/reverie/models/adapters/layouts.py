"""Names and configurations under which others store Matrix-Game 2.0's transformer.

    original   as it was published, and as ForgeWM's training saves it
    fastvideo  FastVideo's own modules, which its checkpoints of this model have
    diffusers  the names that FastVideo's loader takes besides

Evidence: github.com/asdfo123/ForgeWM (`trainer/distillation.py`, `utils/distributed.py`, `inference.py`,
`configs/stage3_dmd.yaml`) and github.com/hao-ai-lab/FastVideo (`fastvideo/models/dits/matrixgame2/causal_model.py`,
`fastvideo/configs/models/dits/matrixgame2.py`, `fastvideo/training/training_utils.py`), both of August 2026.

Before any of these names may stand what trainings wrap a model in: `generator.`, `generator_ema.`, `model.`, `module.`
and, anywhere, `_fsdp_wrapped_module.` and its like.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from reverie.errors import CheckpointError
from reverie.models.adapters import matrix_game
from reverie.models.config import WorldModelConfig
from reverie.models.dit import WorldModel
from reverie.models.weights import Names, Shape, TensorFile

Renaming = tuple[tuple[str, str], ...]
"""Patterns and replacements: one of our names, with queries, keys and values apart -> the name in a layout."""

ORIGINAL: Renaming = (
    (r"^time_projection\.", "time_projection.1."),
    (r"^img_emb\.", "img_emb.proj."),
    (r"^head\.", "head.head."),
    (r"^head_modulation$", "head.modulation"),
    (r"\.cross_attn\.norm\.", ".norm3."),
    (r"\.(mouse|keyboard)\.", ".action_model."),
)
_SHARED: Renaming = (
    (r"^head\.", "proj_out."),
    (r"^head_modulation$", "scale_shift_table"),
    (r"\.modulation$", ".scale_shift_table"),
    (r"^img_emb\.0\.", "condition_embedder.image_embedder.norm1."),
    (r"^img_emb\.4\.", "condition_embedder.image_embedder.norm2."),
    (r"\.(mouse|keyboard)\.", ".action_model."),
)
FASTVIDEO: Renaming = (
    *_SHARED,
    (r"^patch_embedding\.", "patch_embedding.proj."),
    (r"^time_embedding\.0\.", "condition_embedder.time_embedder.mlp.fc_in."),
    (r"^time_embedding\.2\.", "condition_embedder.time_embedder.mlp.fc_out."),
    (r"^time_projection\.", "condition_embedder.time_modulation.linear."),
    (r"^img_emb\.1\.", "condition_embedder.image_embedder.ff.fc_in."),
    (r"^img_emb\.3\.", "condition_embedder.image_embedder.ff.fc_out."),
    (r"\.cross_attn\.norm\.", ".self_attn_residual_norm.norm."),
    (r"\.self_attn\.([qkv])\.", r".to_\1."),
    (r"\.self_attn\.o\.", ".to_out."),
    (r"\.self_attn\.", "."),
    (r"\.cross_attn\.([qkv])\.", r".attn2.to_\1."),
    (r"\.cross_attn\.o\.", ".attn2.to_out."),
    (r"\.cross_attn\.", ".attn2."),
    (r"\.ffn\.0\.", ".ffn.fc_in."),
    (r"\.ffn\.2\.", ".ffn.fc_out."),
)
DIFFUSERS: Renaming = (
    *_SHARED,
    (r"^time_embedding\.0\.", "condition_embedder.time_embedder.linear_1."),
    (r"^time_embedding\.2\.", "condition_embedder.time_embedder.linear_2."),
    (r"^time_projection\.", "condition_embedder.time_proj."),
    (r"^img_emb\.1\.", "condition_embedder.image_embedder.ff.net.0.proj."),
    (r"^img_emb\.3\.", "condition_embedder.image_embedder.ff.net.2."),
    (r"\.cross_attn\.norm\.", ".norm2."),
    (r"\.self_attn\.([qkv])\.", r".attn1.to_\1."),
    (r"\.self_attn\.o\.", ".attn1.to_out.0."),
    (r"\.self_attn\.", ".attn1."),
    (r"\.cross_attn\.([qkv])\.", r".attn2.to_\1."),
    (r"\.cross_attn\.o\.", ".attn2.to_out.0."),
    (r"\.cross_attn\.", ".attn2."),
    (r"\.ffn\.0\.", ".ffn.net.0.proj."),
    (r"\.ffn\.2\.", ".ffn.net.2."),
)
LAYOUTS: dict[str, Renaming] = {"original": ORIGINAL, "fastvideo": FASTVIDEO, "diffusers": DIFFUSERS}

GAIN = r"\.action_model\.(img|key)_attn_[qk]_norm\.weight$"
"""Gains of the action modules' norms: the reference and ForgeWM store, but never apply them; FastVideo applies them."""
HEAD_DIM = 128
"""Head width of Wan 2.1's self-attention; without a config no file holds the number of heads."""
NUM_LAYERS = 30
WINDOW = 6
"""Steps that ForgeWM's few-step stage looks back, which its checkpoints do not hold."""

_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_fsdp_wrapped_module|_checkpoint_wrapped_module|_orig_mod|module)\.")
_ROOTS = re.compile(r"^(?:(?:generator_ema|generator|model)\.)+")
_STACKED = re.compile(r"\.(qkv|kv)\.(weight|bias)$")
_AVERAGED = "generator_ema."
_FIRST_KEYS = ".action_model.keyboard_embed.0.weight"
_BLOCK = re.compile(r"^blocks\.(\d+)\.")


def bare_name(stored: str) -> str:
    """A stored name without what a training wraps its model in."""
    return _ROOTS.sub("", _WRAPPERS.sub("", stored))


def rename(ours: str, layout: Renaming) -> tuple[str, ...]:
    """Names of the parts of one of our tensors in a layout."""
    match = _STACKED.search(ours)
    parts = [f"{ours[: match.start()]}.{part}.{match[2]}" for part in match[1]] if match else [ours]
    for pattern, replacement in layout:
        parts = [re.sub(pattern, replacement, part) for part in parts]
    return tuple(parts)


@dataclass(frozen=True)
class Stored:
    """A file's names, whatever wraps them.  Of a model and its moving average in one file the average is meant."""

    file: TensorFile

    @cached_property
    def is_averaged(self) -> bool:
        return any(name.startswith(_AVERAGED) for name in self.file.shapes)

    @cached_property
    def names(self) -> dict[str, str]:
        """Bare names -> stored ones."""
        kept = _AVERAGED if self.is_averaged else ""
        return {bare_name(name): name for name in self.file.shapes if name.startswith(kept)}

    @property
    def ignored(self) -> str:
        """A pattern of stored names that the model has no use for."""
        return rf"{GAIN}|^(?!{re.escape(_AVERAGED)})" if self.is_averaged else GAIN

    @cached_property
    def layout(self) -> str:
        """The layout with which most of the file's blocks agree."""
        marks = {"original": ".self_attn.q.weight", "fastvideo": ".to_q.weight", "diffusers": ".attn1.to_q.weight"}
        number = {layout: sum(bool(_is_self(name, mark)) for name in self.names) for layout, mark in marks.items()}
        return max(number, key=number.__getitem__)

    def find(self, ours: str) -> tuple[str, ...]:
        """Bare names of one of our tensors: those that the file has, or for a missing one those of the file's layout.

        FastVideo's loader takes each tensor under either of its names; so does this.
        """
        order = dict.fromkeys([self.layout, *LAYOUTS])
        options = [rename(ours, LAYOUTS[name]) for name in order]
        return next((option for option in options if all(part in self.names for part in option)), options[0])

    @cached_property
    def prefix(self) -> str:
        """Wrapping that most names share, for those that are missing."""
        found = [stored.removesuffix(bare) for bare, stored in self.names.items() if stored.endswith(bare)]
        return max(set(found), key=found.count) if found else ""

    @property
    def to_stored(self) -> Names:
        """Our names -> the file's."""
        return lambda ours: tuple(self.names.get(part, self.prefix + part) for part in self.find(ours))

    def shape(self, ours: str) -> Shape:
        """Raises KeyError, with the name in the file's layout, for a tensor that is missing."""
        (part,) = self.find(ours)
        return self.file.shapes[self.names[part]] if part in self.names else _missing(part)

    @cached_property
    def has_gain(self) -> bool:
        """Returns whether the action modules' norms have gains other than 1: FastVideo's do, where training has changed
        them."""
        if self.layout == "original":
            return False
        gains = [stored for bare, stored in self.names.items() if re.search(GAIN, bare)]
        return any(not torch.equal(gain, torch.ones_like(gain)) for gain in map(self.file.read, gains))


def _is_self(name: str, mark: str) -> bool:
    match = _BLOCK.match(name)
    return match is not None and name == f"blocks.{match[1]}{mark}"


def _missing(name: str) -> Shape:
    raise KeyError(name)


def normalise(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A config in the fields of the published ones: FastVideo's has those of diffusers."""
    if "num_attention_heads" not in raw:
        return dict(raw)
    try:
        dim = int(raw["num_attention_heads"]) * int(raw["attention_head_dim"])
    except (KeyError, TypeError, ValueError):
        return dict(raw)  # the reader says what is wrong
    fields = ("ffn_dim", "num_layers", "local_attn_size", "sink_size", "eps", "action_config")
    return {
        "out_dim": raw.get("out_channels", 16),
        "dim": dim,
        "freq_dim": raw.get("freq_dim", 256),
        "num_heads": raw["num_attention_heads"],
        **{name: raw[name] for name in fields if name in raw},
    }


def infer_config(file: TensorFile) -> dict[str, Any]:
    """The config that a checkpoint without one implies, as published ones have it, inferred from its tensors' shapes.

    Raises CheckpointError for a file that is no such model, and for one of ForgeWM's stages that are not few-step.
    """
    stored = Stored(file)
    try:
        return _infer(stored)
    except (KeyError, IndexError, ValueError) as error:
        raise find_closest(file) from error


def _infer(stored: Stored) -> dict[str, Any]:
    patch = stored.shape("patch_embedding.weight")
    dim = patch[0]
    layers = 1 + max((int(match[1]) for name in stored.names if (match := _BLOCK.match(name))), default=-1)
    if not layers:
        raise KeyError("blocks.0")
    blocks = [i for i in range(layers) if any(True for _ in _actions(stored, i))]
    if not blocks:
        raise KeyError("blocks.0.action_model")
    if len(blocks) == layers > 1:
        raise CheckpointError(
            f"{stored.file.path} has action modules in all of its {layers} blocks, as ForgeWM's stages 0 to 2 and the "
            "foundation model have, which need dozens of steps; use stage 3, or put a config.json with local_attn_size "
            "beside it"
        )
    place = f"blocks.{blocks[0]}"
    actions: dict[str, Any] = {"blocks": blocks, "rope_theta": 256, "windows_size": 3, "mouse_qk_dim_list": [8, 28, 28]}
    names = set(_actions(stored, blocks[0]))
    actions["enable_mouse"], actions["enable_keyboard"] = "proj_mouse.weight" in names, "proj_keyboard.weight" in names
    width, head_dim = 0, 1
    if actions["enable_keyboard"]:
        hidden, keys = stored.shape(f"{place}.keyboard.keyboard_embed.0.weight")
        width = stored.shape(f"{place}.keyboard.proj_keyboard.weight")[1]
        actions |= {"hidden_size": hidden, "keyboard_dim_in": keys, "keyboard_hidden_dim": width}
        head_dim = stored.shape(f"{place}.keyboard.key_attn_q_norm.weight")[0]
    if actions["enable_mouse"]:
        width = stored.shape(f"{place}.mouse.proj_mouse.weight")[1]
        actions |= {"mouse_dim_in": 2, "mouse_hidden_dim": width}
        head_dim = stored.shape(f"{place}.mouse.img_attn_q_norm.weight")[0]
    actions.setdefault("hidden_size", 128)
    actions.setdefault("keyboard_dim_in", 0)
    actions["heads_num"] = width // head_dim
    return {
        "model_type": "i2v",
        "out_dim": stored.shape("head.weight")[0] // (patch[3] * patch[4]),
        "dim": dim,
        "ffn_dim": stored.shape("blocks.0.ffn.0.weight")[0],
        "freq_dim": stored.shape("time_embedding.0.weight")[1],
        "num_heads": max(1, dim // HEAD_DIM),
        "num_layers": layers,
        "local_attn_size": WINDOW,
        "action_config": actions,
    }


def _actions(stored: Stored, block: int) -> Iterator[str]:
    """Names within a block's action module."""
    place = f"blocks.{block}.action_model."
    return (name.removeprefix(place) for name in stored.names if name.startswith(place))


def check_names(file: TensorFile, config: WorldModelConfig, variant: str) -> None:
    """Raises CheckpointError, in one line, for a file whose names are not those of the model of `config`."""
    stored = Stored(file)
    missing, surplus = _compare(stored, _our_names(config))
    if missing or surplus:
        raise _misfit(stored, variant, missing, surplus)


def find_closest(file: TensorFile) -> CheckpointError:
    """One line of a file from whose names no config can be inferred: the variant that comes closest."""
    stored = Stored(file)
    found = [int(match[1]) for name in stored.names if (match := _BLOCK.match(name))]
    layers = 1 + max(found, default=NUM_LAYERS - 1)
    blocks = tuple(i for i in range(layers) if any(_actions(stored, i))) or tuple(range(layers // 2))
    width = next((file.shapes[stored.names[name]][-1] for name in stored.names if name.endswith(_FIRST_KEYS)), 0)
    options, compared = [], {}
    for (keys, mouse), variant in matrix_game.VARIANTS.items():
        if mouse not in compared:  # all else that sets variants apart is in no name
            config = matrix_game.read_config(_template(keys, mouse, layers, blocks), (16, 2, 2))
            compared[mouse] = _compare(stored, _our_names(config))
        missing, surplus = compared[mouse]
        options.append((len(missing) + len(surplus), keys != width, variant, missing, surplus))
    return _misfit(stored, *min(options)[2:])


def _misfit(stored: Stored, variant: str, missing: list[str], surplus: list[str]) -> CheckpointError:
    said = {"missing": missing, "left over": surplus}
    return CheckpointError(
        f"{stored.file.path} fits no variant of Matrix-Game 2.0; closest is {variant} under the {stored.layout} names,"
        " with " + ", ".join(f"{len(found)} {what} (first {found[0]})" for what, found in said.items() if found)
    )


def _compare(stored: Stored, ours: list[str]) -> tuple[list[str], list[str]]:
    """Bare names that are missing for our tensors, and those left over."""
    places = [part for name in ours for part in stored.find(name)]
    used = {*places, *(name for name in stored.names if re.search(GAIN, name))}
    return [part for part in places if part not in stored.names], [name for name in stored.names if name not in used]


def _our_names(config: WorldModelConfig) -> list[str]:
    with torch.device("meta"):
        return list(WorldModel(config).state_dict())


def _template(keys: int, mouse: bool, layers: int, blocks: tuple[int, ...]) -> dict[str, Any]:
    """A small config with the names of a variant's model."""
    actions = {"keyboard_dim_in": keys, "keyboard_hidden_dim": 16, "hidden_size": 8, "heads_num": 1, "rope_theta": 256}
    actions |= {"enable_mouse": mouse, "mouse_dim_in": 2, "mouse_hidden_dim": 16, "blocks": blocks}
    sizes = {"dim": 16, "ffn_dim": 16, "freq_dim": 16, "num_heads": 1, "num_layers": layers, "local_attn_size": WINDOW}
    return {**sizes, "out_dim": 16, "action_config": {**actions, "mouse_qk_dim_list": [8, 4, 4]}}
