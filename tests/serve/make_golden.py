"""Writes golden.json anew.  Only for a new version of the protocol: python tests/serve/make_golden.py"""

import json
from pathlib import Path

from reverie.serve.protocol import VERSION, Flags, Format, FrameMessage

NAMES = ["format", "flags", "epoch", "index", "action", "width", "height", "sampled_ms", "sent_ms", "payload"]
FRAMES = {
    name: dict(zip(NAMES, values, strict=True))
    for name, values in {
        "empty": (1, 0, 0, 0, 0, 0, 0, 0.0, 0.0, []),
        "first picture": (1, 1, 1, 0, 0, 224, 128, 12.5, 13.75, [255, 216, 255, 217]),
        "largest numbers": (2, 2, 2**32 - 1, 2**32 - 2, 2**32 - 3, 65535, 1, -1e300, 1.0000000000000002, [0, 1, 2]),
    }.items()
}

CLIENT = {
    "hello": '{"type":"hello","version":1,"format":"jpeg"}',
    "hello-model": '{"type":"hello","version":1,"format":"jpeg","model":"nano"}',
    "start": '{"type":"start","start":"start-1","seed":7}',
    "start-first": '{"type":"start","start":null,"seed":0}',
    "start-passes": '{"type":"start","start":"start-1","seed":7,"passes":2}',
    "restart": '{"type":"restart","seed":2147483647}',
    "resume": '{"type":"resume","session":"aB3_-x"}',
    "load": '{"type":"load","save":"0123abcd"}',
    "seek": '{"type":"seek","frame":251}',
    "view": '{"type":"view","view":"dream","epoch":3,"index":17}',
    "save": '{"type":"save","name":"by the \\"door\\"","whole":true}',
    "save-here": '{"type":"save","name":"","whole":false}',
    "pause": '{"type":"pause","paused":true}',
    "input": '{"type":"input","seq":3,"codes":["KeyW","Mouse0"],"mouse":[1.5,-2]}',
    "played": '{"type":"played","epoch":2,"index":9,"round_trip_ms":3.25}',
    "played-first": '{"type":"played","epoch":1,"index":0,"round_trip_ms":null}',
    "restart-passes": '{"type":"restart","seed":3,"passes":8}',
    "rate": '{"type":"rate","fps":12}',
    "rate-world": '{"type":"rate","fps":null}',
    "map": '{"type":"map"}',
    "ping": '{"type":"ping","time_ms":12.5}',
}


def encode(fields: dict) -> bytes:
    values = {**fields, "format": Format(fields["format"]), "flags": Flags(fields["flags"])}
    return FrameMessage(**{**values, "payload": bytes(fields["payload"])}).encode()


if __name__ == "__main__":
    good = encode(FRAMES["first picture"])
    broken = [b"", good[:39], good[:-1], good + b"x", b"\x09" + good[1:], good[:1] + b"\x09" + good[2:]]
    golden = {
        "version": VERSION,
        "frames": [{"name": name, "hex": encode(fields).hex(), "fields": fields} for name, fields in FRAMES.items()],
        "broken": [data.hex() for data in [*broken, good[:2] + b"\x09" + good[3:]]],
        "client": CLIENT,
    }
    (Path(__file__).parent / "golden.json").write_text(json.dumps(golden, indent=1) + "\n")
