"""TAEHV's `taew2_1` weights: a decoder as one flat list of layers."""

from __future__ import annotations

import re

from reverie.errors import CheckpointError
from reverie.models.tiny_decoder import GROWTH, TinyDecoderConfig
from reverie.models.weights import Names, TensorFile

UNUSED = r"^encoder\."
"""Such a file also holds an encoder."""
FIRST = 3
"""Place of the first memory block: before it come a clamp, a convolution and an activation."""


def read_config(file: TensorFile) -> TinyDecoderConfig:
    """The decoder that a file holds, inferred from its tensors' shapes.  Raises CheckpointError for another thing."""
    try:
        entry = file.shapes["decoder.1.weight"]
        blocks = sum(bool(re.fullmatch(r"decoder\.\d+\.conv\.0\.weight", name)) for name in file.shapes) // 3
        places = [_place(blocks, stage) for stage in range(3)]
        grown = [file.shapes[f"decoder.{place + blocks + 1}.conv.weight"] for place in places]
        last = file.shapes[f"decoder.{places[2] + blocks + 2}.weight"][0]
    except (KeyError, IndexError) as error:
        raise CheckpointError(f"{file.path} is not a TAEHV decoder ({error} is missing); expected taew2_1") from error
    growth = tuple(rows // width for rows, width, *_ in grown)
    if growth != GROWTH or entry[1] != 16:
        raise CheckpointError(
            f"{file.path} is not for Wan 2.1's latents: it has {entry[1]} channels and multiplies frames by {growth}; "
            f"expected 16 and {GROWTH} (taew2_1)"
        )
    widths = (grown[0][1], grown[1][1], grown[2][1], last)
    return TinyDecoderConfig(widths=widths, blocks=blocks, channels=entry[1])


def names(config: TinyDecoderConfig) -> Names:
    """Our names -> the published ones."""
    within = {"mix.conv": "conv.0", "middle": "conv.2", "out": "conv.4"}

    def published(ours: str) -> tuple[str, ...]:
        if match := re.match(r"stages\.(\d+)\.blocks\.(\d+)\.(mix\.conv|middle|out)\.(\w+)$", ours):
            place = _place(config.blocks, int(match[1])) + int(match[2])
            return (f"decoder.{place}.{within[match[3]]}.{match[4]}",)
        if match := re.match(r"stages\.(\d+)\.(grow|conv)\.(\w+)$", ours):
            place = _place(config.blocks, int(match[1])) + config.blocks
            return (
                f"decoder.{place + 1}.conv.{match[3]}" if match[2] == "grow" else f"decoder.{place + 2}.{match[3]}",
            )
        part, kind = ours.split(".")
        return (f"decoder.{1 if part == 'enter' else _place(config.blocks, 3) + 1}.{kind}",)

    return published


def _place(blocks: int, stage: int) -> int:
    """Index of a stage's first layer in the list: a stage has its blocks, an upsampling, a growth in time and a
    convolution."""
    return FIRST + stage * (blocks + 3)
