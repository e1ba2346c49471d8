"""Matrix-Game 2.0 written down as plainly as can be, to compare with: no caches, no rings, no fused layers.

Works on the published tensors by their published names.  Every block keeps the keys and values of all steps in
lists, and looks at the last `window` of them.  One sample, float32 (positions in float64).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

Weights = dict[str, Tensor]


def make_config(
    *,
    dim: int = 48,
    ffn: int = 80,
    heads: int = 2,
    layers: int = 2,
    window: int = 6,
    keys: int = 4,
    mouse: bool = True,
    blocks: tuple[int, ...] = (0,),
    action_heads: int = 2,
    key_width: int = 32,
    mouse_width: int = 32,
    hidden: int = 8,
    freq: int = 32,
    rope: tuple[int, int, int] = (8, 4, 4),
) -> dict[str, Any]:
    actions = {
        "blocks": list(blocks),
        "enable_keyboard": True,
        "enable_mouse": mouse,
        "heads_num": action_heads,
        "hidden_size": hidden,
        "img_hidden_size": dim,
        "keyboard_dim_in": keys,
        "keyboard_hidden_dim": key_width,
        "patch_size": [1, 2, 2],
        "qk_norm": True,
        "qkv_bias": False,
        "rope_dim_list": list(rope),
        "rope_theta": 256,
        "vae_time_compression_ratio": 4,
        "windows_size": 3,
        "mouse_qk_dim_list": list(rope),
    }
    if mouse:
        actions |= {"mouse_dim_in": 2, "mouse_hidden_dim": mouse_width}
    return {
        "model_type": "i2v",
        "in_dim": 36,
        "out_dim": 16,
        "dim": dim,
        "ffn_dim": ffn,
        "freq_dim": freq,
        "num_heads": heads,
        "num_layers": layers,
        "local_attn_size": window,
        "sink_size": 0,
        "eps": 1e-6,
        "action_config": actions,
        "_class_name": "CausalWanModel",
    }


def make_weights(config: dict[str, Any], image_dim: int, seed: int = 0, patch: tuple[int, int] = (2, 2)) -> Weights:
    """Random tensors under the published names."""
    generator = torch.Generator().manual_seed(seed)
    dim, ffn, actions = config["dim"], config["ffn_dim"], config["action_config"]
    made: Weights = {}

    def add(name: str, *shape: int, scale: float | None = None, around: float = 0.0) -> None:
        spread = scale if scale is not None else 1 / math.sqrt(math.prod(shape[1:]))
        made[f"model.{name}"] = around + spread * torch.randn(*shape, generator=generator)

    def linear(name: str, out: int, into: int, bias: bool = True) -> None:
        add(f"{name}.weight", out, into)
        if bias:
            add(f"{name}.bias", out, scale=0.1)

    def norm(name: str, width: int, bias: bool = True) -> None:
        add(f"{name}.weight", width, scale=0.1, around=1.0)
        if bias:
            add(f"{name}.bias", width, scale=0.1)

    add("patch_embedding.weight", dim, 36, 1, *patch)
    add("patch_embedding.bias", dim, scale=0.1)
    linear("time_embedding.0", dim, config["freq_dim"])
    linear("time_embedding.2", dim, dim)
    linear("time_projection.1", 6 * dim, dim)
    norm("img_emb.proj.0", image_dim)
    linear("img_emb.proj.1", image_dim, image_dim)
    linear("img_emb.proj.3", dim, image_dim)
    norm("img_emb.proj.4", dim)
    for i in range(config["num_layers"]):
        for attention in ("self_attn", "cross_attn"):
            for part in "qkvo":
                linear(f"blocks.{i}.{attention}.{part}", dim, dim)
            norm(f"blocks.{i}.{attention}.norm_q", dim, bias=False)
            norm(f"blocks.{i}.{attention}.norm_k", dim, bias=False)
        norm(f"blocks.{i}.norm3", dim)
        linear(f"blocks.{i}.ffn.0", ffn, dim)
        linear(f"blocks.{i}.ffn.2", dim, ffn)
        add(f"blocks.{i}.modulation", 1, 6, dim, scale=0.3)
        if i not in actions["blocks"]:
            continue
        a, width = f"blocks.{i}.action_model", actions["keyboard_hidden_dim"]
        head = width // actions["heads_num"]
        linear(f"{a}.keyboard_embed.0", actions["hidden_size"], actions["keyboard_dim_in"])
        linear(f"{a}.keyboard_embed.2", actions["hidden_size"], actions["hidden_size"])
        linear(f"{a}.keyboard_attn_kv", 2 * width, 12 * actions["hidden_size"], bias=False)
        linear(f"{a}.mouse_attn_q", width, dim, bias=False)
        linear(f"{a}.proj_keyboard", dim, width, bias=False)
        for part in "qk":
            norm(f"{a}.key_attn_{part}_norm", head, bias=False)
        if actions["enable_mouse"]:
            width = actions["mouse_hidden_dim"]
            linear(f"{a}.mouse_mlp.0", width, dim + 24)
            linear(f"{a}.mouse_mlp.2", width, width)
            norm(f"{a}.mouse_mlp.3", width)
            linear(f"{a}.t_qkv", 3 * width, width, bias=False)
            linear(f"{a}.proj_mouse", dim, width, bias=False)
            for part in "qk":
                norm(f"{a}.img_attn_{part}_norm", width // actions["heads_num"], bias=False)
    linear("head.head", 16 * patch[0] * patch[1], dim)
    add("head.modulation", 1, 2, dim, scale=0.3)
    return made


class Naive:
    """One rollout.  `step` runs a block at one noise level; `keep` makes its keys and values the past."""

    def __init__(self, config: dict[str, Any], weights: Weights, context: Tensor) -> None:
        self.config, self.w = config, {name.removeprefix("model."): t for name, t in weights.items()}
        self.actions = config["action_config"]
        self.patch = self.w["patch_embedding.weight"].shape[3:]
        self.past: list[dict[str, tuple[Tensor, Tensor]]] = []
        self.block: list[dict[str, tuple[Tensor, Tensor]]] = []
        x = self.norm("img_emb.proj.0", context[0])
        x = self.linear("img_emb.proj.3", F.gelu(self.linear("img_emb.proj.1", x)))
        self.image = self.norm("img_emb.proj.4", x)

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.w[f"{name}.weight"], self.w.get(f"{name}.bias"))

    def norm(self, name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.w[f"{name}.weight"], self.w[f"{name}.bias"], eps)

    def rms(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * gain

    def step(self, x: Tensor, extra: Tensor, sigma: float, keys: Tensor, mouse: Tensor | None, first: int) -> Tensor:
        """x: (16, t, h, w); extra: (20, t, h, w); keys, mouse: (f, k) rows so far.  Returns velocity like x."""
        dim = self.config["dim"]
        _, t, h, w = x.shape
        embedded = F.conv3d(
            torch.cat([x, extra])[None],
            self.w["patch_embedding.weight"],
            self.w["patch_embedding.bias"],
            stride=(1, *self.patch),
        )[0]
        rows, columns = embedded.shape[2:]
        half = self.config["freq_dim"] // 2
        angle = 1000.0 * sigma * torch.pow(10000.0, -torch.arange(half, dtype=torch.float64) / half)
        emb = torch.cat([angle.cos(), angle.sin()]).float()
        emb = self.linear("time_embedding.2", F.silu(self.linear("time_embedding.0", emb)))
        e = self.linear("time_projection.1", F.silu(emb)).view(6, dim)
        self.block = [{} for _ in range(t)]
        steps = [embedded[:, i].reshape(dim, -1).T for i in range(t)]  # of (n, dim)
        for index in range(self.config["num_layers"]):
            steps = self.layer(index, steps, e, keys, mouse, first, rows, columns)
        shift, scale = emb + self.w["head.modulation"][0]
        p, q = self.patch
        out = []
        for tokens in steps:
            y = F.layer_norm(tokens, (dim,), eps=1e-6) * (1 + scale) + shift
            y = self.linear("head.head", y).view(rows, columns, p, q, 16)
            out.append(y.permute(4, 0, 2, 1, 3).reshape(16, h, w))
        return torch.stack(out, 1)

    def keep(self) -> None:
        self.past += self.block

    def seen(self, name: str) -> tuple[list[Tensor], list[Tensor]]:
        """Keys and values of every step in the window, the block at hand last."""
        window = self.config["local_attn_size"]
        steps = self.past + self.block
        steps = steps if window < 0 else steps[-window:]
        return [s[name][0] for s in steps], [s[name][1] for s in steps]

    def layer(
        self,
        index: int,
        steps: list[Tensor],
        e: Tensor,
        keys: Tensor,
        mouse: Tensor | None,
        first: int,
        rows: int,
        columns: int,
    ) -> list[Tensor]:
        at = f"blocks.{index}"
        dim = self.config["dim"]
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = e + self.w[f"{at}.modulation"][0]
        queries = []
        for i, x in enumerate(steps):
            y = F.layer_norm(x, (dim,), eps=1e-6) * (1 + scale_a) + shift_a
            q, k, v = (self.linear(f"{at}.self_attn.{part}", y) for part in "qkv")
            q, k = (self.rms(z, self.w[f"{at}.self_attn.norm_{p}.weight"]) for z, p in ((q, "q"), (k, "k")))
            q, k = (self.turn(self.heads(z), first + i, rows, columns) for z in (q, k))
            queries.append(q)
            self.block[i][f"{index}.self"] = (k, self.heads(v))
        k, v = (torch.cat(z, 1) for z in self.seen(f"{index}.self"))
        steps = [
            x + gate_a * self.linear(f"{at}.self_attn.o", self.attend(q, k, v))
            for x, q in zip(steps, queries, strict=True)
        ]
        k, v = (self.linear(f"{at}.cross_attn.{part}", self.image) for part in "kv")
        k, v = self.heads(self.rms(k, self.w[f"{at}.cross_attn.norm_k.weight"])), self.heads(v)
        crossed = []
        for x in steps:
            q = self.linear(f"{at}.cross_attn.q", self.norm(f"{at}.norm3", x, eps=1e-6))
            q = self.heads(self.rms(q, self.w[f"{at}.cross_attn.norm_q.weight"]))
            crossed.append(x + self.linear(f"{at}.cross_attn.o", self.attend(q, k, v)))
        steps = crossed
        if index in self.actions["blocks"]:
            if self.actions["enable_mouse"]:
                assert mouse is not None
                steps = self.mouse(index, steps, mouse, first)
            steps = self.keyboard(index, steps, keys, first)
        out = []
        for x in steps:
            y = F.layer_norm(x, (dim,), eps=1e-6) * (1 + scale_f) + shift_f
            y = self.linear(f"{at}.ffn.2", F.gelu(self.linear(f"{at}.ffn.0", y), approximate="tanh"))
            out.append(x + gate_f * y)
        return out

    def mouse(self, index: int, steps: list[Tensor], mouse: Tensor, first: int) -> list[Tensor]:
        at = f"blocks.{index}.action_model"
        heads = self.actions["heads_num"]
        queries = []
        for i, x in enumerate(steps):
            turns = window_rows(mouse, first + i).flatten().expand(len(x), -1)
            y = self.linear(f"{at}.mouse_mlp.0", torch.cat([x, turns], 1))
            y = self.norm(f"{at}.mouse_mlp.3", self.linear(f"{at}.mouse_mlp.2", F.gelu(y, approximate="tanh")))
            q, k, v = self.linear(f"{at}.t_qkv", y).view(len(x), 3, heads, -1).unbind(1)
            q, k = (self.turn_time(self.rms(z), first + i) for z in (q, k))
            queries.append(q)
            self.block[i][f"{index}.mouse"] = (k, v)
        k, v = (torch.stack(z, 2) for z in self.seen(f"{index}.mouse"))  # (n, heads, steps, d)
        out = []
        for x, q in zip(steps, queries, strict=True):
            y = self.attend_heads(q.unsqueeze(2), k, v)
            out.append(x + self.linear(f"{at}.proj_mouse", y.flatten(1)))
        return out

    def keyboard(self, index: int, steps: list[Tensor], keys: Tensor, first: int) -> list[Tensor]:
        at = f"blocks.{index}.action_model"
        heads = self.actions["heads_num"]
        embedded = self.linear(f"{at}.keyboard_embed.2", F.silu(self.linear(f"{at}.keyboard_embed.0", keys)))
        queries = []
        for i, x in enumerate(steps):
            k, v = self.linear(f"{at}.keyboard_attn_kv", window_rows(embedded, first + i).flatten()).view(2, heads, -1)
            q = self.linear(f"{at}.mouse_attn_q", x).view(len(x), heads, -1)
            queries.append(self.turn_time(self.rms(q), first + i))
            self.block[i][f"{index}.keys"] = (self.turn_time(self.rms(k), first + i), v)
        k, v = (torch.stack(z, 1) for z in self.seen(f"{index}.keys"))  # (heads, steps, d)
        out = []
        for x, q in zip(steps, queries, strict=True):
            y = self.attend_heads(q.transpose(0, 1), k, v).transpose(0, 1)
            out.append(x + self.linear(f"{at}.proj_keyboard", y.flatten(1)))
        return out

    def heads(self, x: Tensor) -> Tensor:
        """(n, dim) -> (heads, n, d)."""
        return x.view(len(x), self.config["num_heads"], -1).transpose(0, 1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.attend_heads(q, k, v).transpose(0, 1).flatten(1)

    @staticmethod
    def attend_heads(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1) @ v

    @staticmethod
    def turn(x: Tensor, step: int, rows: int, columns: int) -> Tensor:
        """Rotate (heads, rows * columns, d) to its place in time, height and width."""
        pairs = x.shape[-1] // 2
        space = x.shape[-1] // 6
        out = x.clone().double()
        for n in range(x.shape[1]):
            place = (step, n // columns, n % columns)
            offset = 0
            for axis, count in enumerate((pairs - 2 * space, space, space)):
                for j in range(count):
                    angle = place[axis] * 10000.0 ** (-j / count)
                    rotate_pair(out[:, n], x[:, n].double(), offset + j, angle)
                offset += count
        return out.float()

    def turn_time(self, x: Tensor, step: int) -> Tensor:
        """Rotate (..., d) in its leading pairs to its place in time."""
        count = self.actions["mouse_qk_dim_list"][0] // 2
        out = x.clone().double()
        for j in range(count):
            rotate_pair(out, x.double(), j, step * 256.0 ** (-j / count))
        return out.float()


def rotate_pair(out: Tensor, x: Tensor, pair: int, angle: float) -> None:
    a, b = x[..., 2 * pair], x[..., 2 * pair + 1]
    out[..., 2 * pair] = a * math.cos(angle) - b * math.sin(angle)
    out[..., 2 * pair + 1] = a * math.sin(angle) + b * math.cos(angle)


def window_rows(rows: Tensor, step: int) -> Tensor:
    """The 12 rows that lead to a step; row 0 stands for those before it."""
    return torch.stack([rows[max(0, j)] for j in range(4 * step - 12, 4 * step)])


@torch.inference_mode()
def write_golden(
    folder: Path,
    config: dict[str, Any],
    *,
    num_blocks: int = 3,
    block: int = 3,
    size: tuple[int, int] = (4, 6),
    tokens: int = 5,
    image_dim: int = 24,
    timesteps: tuple[float, ...] = (1000.0, 908.8427, 713.9794),
    patch: tuple[int, int] = (2, 2),
    seed: int = 0,
) -> None:
    """A folder as the reference's goldens are, with the naive model's numbers."""
    generator = torch.Generator().manual_seed(seed + 1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    weights = make_weights(config, image_dim, seed, patch)
    actions = config["action_config"]
    steps = num_blocks * block
    frames = 4 * (steps - 1) + 1
    io = {
        "noise": draw(1, 16, steps, *size),
        "cond_concat": draw(1, 20, steps, *size),
        "visual_context": draw(1, tokens, image_dim),
        "keyboard": (draw(1, frames, actions["keyboard_dim_in"]) > 0.3).float(),
        "mouse": 0.1 * draw(1, frames, 2),
        "renoise": draw(num_blocks, len(timesteps) - 1, block, 16, *size),
        "timesteps": torch.tensor(timesteps),
    }
    model = Naive(config, weights, io["visual_context"])
    sigmas = [t / 1000 for t in io["timesteps"].double().tolist()]
    clean = []
    for b in range(num_blocks):
        own = slice(b * block, (b + 1) * block)
        told = (io["cond_concat"][0, :, own],)
        last = (io["keyboard"][0], io["mouse"][0] if actions["enable_mouse"] else None, own.start)
        x = z = io["noise"][0, :, own]
        for i, sigma in enumerate(sigmas):
            v = model.step(x, *told, sigma, *last)
            if "first_flow" not in io:
                io["first_flow"] = v[None].clone()
            z = (x.double() - sigma * v.double()).float()
            if i + 1 < len(sigmas):
                x = (1 - sigmas[i + 1]) * z + sigmas[i + 1] * io["renoise"][b, i].transpose(0, 1)
        model.step(z, *told, 0.0, *last)
        model.keep()
        clean.append(z)
    io["latents"] = torch.cat(clean, 1)[None]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors")
    save_file({name: tensor.contiguous() for name, tensor in io.items()}, folder / "io.safetensors")
