"""The wire: golden bytes that Python and the page read alike, and a Refusal for everything that is no message."""

import json
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest

from reverie.errors import ProtocolError
from reverie.serve import protocol
from reverie.serve.protocol import (
    ErrorCode,
    Flags,
    Format,
    FrameMessage,
    Hello,
    Input,
    Load,
    MapRequest,
    Pause,
    Ping,
    Played,
    Rate,
    Refusal,
    Restart,
    Resume,
    Save,
    Seek,
    Start,
    StartInfo,
    View,
    parse,
    to_json,
)

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())
STATIC = Path(protocol.__file__).parent / "static"


def frame_of(fields: dict) -> FrameMessage:
    return FrameMessage(
        **{
            **fields,
            "format": Format(fields["format"]),
            "flags": Flags(fields["flags"]),
            "payload": bytes(fields["payload"]),
        }
    )


@pytest.mark.parametrize("case", GOLDEN["frames"], ids=lambda case: case["name"])
def test_golden_frames(case: dict):
    frame = frame_of(case["fields"])
    assert frame.encode().hex() == case["hex"]
    assert FrameMessage.decode(bytes.fromhex(case["hex"])) == frame


def test_golden_version():
    assert GOLDEN["version"] == protocol.VERSION, "a new version needs new golden bytes"


CLIENT_MESSAGES = {
    "hello": Hello(protocol.VERSION),
    "hello-model": Hello(protocol.VERSION, model="nano"),
    "start": Start("start-1", 7),
    "start-first": Start(None, 0),
    "start-passes": Start("start-1", 7, 2),
    "restart": Restart(2**31 - 1),
    "restart-passes": Restart(3, 8),
    "resume": Resume("aB3_-x"),
    "load": Load("0123abcd"),
    "seek": Seek(251),
    "view": View("dream", 3, 17),
    "save": Save('by the "door"', True),
    "save-here": Save("", False),
    "pause": Pause(True),
    "input": Input(3, frozenset({"KeyW", "Mouse0"}), (1.5, -2.0)),
    "played": Played(2, 9, 3.25),
    "played-first": Played(1, 0, None),
    "rate": Rate(12.0),
    "rate-world": Rate(None),
    "map": MapRequest(),
    "ping": Ping(12.5),
}


@pytest.mark.parametrize("name", GOLDEN["client"])
def test_golden_client_messages(name: str):
    assert parse(GOLDEN["client"][name]) == CLIENT_MESSAGES[name]


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed; the page's own test covers this")
def test_the_page_reads_and_writes_the_same_bytes():
    script = f"""
        import * as p from {json.dumps((STATIC / "protocol.js").as_uri())};
        import {{ readFileSync }} from "node:fs";
        const golden = JSON.parse(readFileSync({json.dumps(str(Path(__file__).parent / "golden.json"))}));
        const frames = golden.frames.map(({{ hex }}) => {{
          const bytes = Uint8Array.from(Buffer.from(hex, "hex"));
          const frame = p.decodeFrame(bytes.buffer);
          return {{ ...frame, payload: [...frame.payload] }};
        }});
        let refused = 0;
        for (const hex of golden.broken) {{
          try {{ p.decodeFrame(Uint8Array.from(Buffer.from(hex, "hex")).buffer); }}
          catch (error) {{ if (error instanceof p.ProtocolError) refused++; }}
        }}
        const client = {{
          "hello": p.hello(), "hello-model": p.hello("nano"),
          "start": p.start("start-1", 7), "start-first": p.start(null, 0),
          "start-passes": p.start("start-1", 7, 2), "restart-passes": p.restart(3, 8),
          "rate": p.rate(12), "rate-world": p.rate(null),
          "restart": p.restart(2 ** 31 - 1), "resume": p.resume("aB3_-x"), "load": p.load("0123abcd"),
          "seek": p.seek(251), "view": p.view("dream", 3, 17),
          "save": p.save('by the "door"', true), "save-here": p.save(""), "pause": p.pause(true),
          "input": p.input(3, ["KeyW", "Mouse0"], [1.5, -2]),
          "played": p.played(2, 9, 3.25), "played-first": p.played(1, 0, null), "map": p.map(), "ping": p.ping(12.5),
        }};
        console.log(JSON.stringify({{ version: p.VERSION, frames, refused, client }}));
    """
    run = subprocess.run(["node", "--input-type=module", "-e", script], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    page = json.loads(run.stdout)
    assert page["version"] == protocol.VERSION
    assert page["refused"] == len(GOLDEN["broken"])
    assert page["client"] == GOLDEN["client"]
    for case, frame in zip(GOLDEN["frames"], page["frames"], strict=True):
        renamed = {"sampledMs": "sampled_ms", "sentMs": "sent_ms"}
        assert {renamed.get(key, key): value for key, value in frame.items()} == case["fields"]


@pytest.mark.parametrize("broken", GOLDEN["broken"])
def test_broken_frames(broken: str):
    with pytest.raises(ProtocolError):
        FrameMessage.decode(bytes.fromhex(broken))


BAD = {
    "not json": "hello?",
    "empty": "",
    "binary rubbish": b"\xff\xfe\x00",
    "a list": "[1]",
    "a number": "7",
    "no type": "{}",
    "type is a list": '{"type": ["hello"]}',
    "unknown type": '{"type": "dance"}',
    "deep": '{"type": ' + "[" * 8000,
    "NaN": '{"type": "ping", "time_ms": NaN}',
    "endless": '{"type": "ping", "time_ms": 1e999}',
    "a view of nothing": '{"type": "view", "view": "back"}',
    "a view at half a place": '{"type": "view", "view": "game", "epoch": 1}',
    "hello without version": '{"type": "hello"}',
    "hello in another format": '{"type": "hello", "version": 1, "format": "bmp"}',
    "true is no number": '{"type": "hello", "version": true}',
    "seed below 0": '{"type": "restart", "seed": -1}',
    "seed with a fraction": '{"type": "restart", "seed": 1.5}',
    "seed of a thousand digits": '{"type": "restart", "seed": ' + "9" * 1000 + "}",
    "a path as start": '{"type": "start", "start": "../../etc/passwd"}',
    "start is a number": '{"type": "start", "start": 3}',
    "a path as session": '{"type": "resume", "session": "../x"}',
    "no save": '{"type": "load"}',
    "a moment below 0": '{"type": "seek", "frame": -1}',
    "a name that is too long": json.dumps({"type": "save", "name": "x" * 81}),
    "a name that is none": '{"type": "save", "name": 3}',
    "whole is a number": '{"type": "save", "name": "x", "whole": 1}',
    "pause is a word": '{"type": "pause", "paused": "yes"}',
    "codes are a word": '{"type": "input", "seq": 1, "codes": "KeyW"}',
    "too many codes": json.dumps({"type": "input", "seq": 1, "codes": [f"F{i}" for i in range(33)]}),
    "a code with a space": '{"type": "input", "seq": 1, "codes": ["Key W"]}',
    "a code of a kilobyte": json.dumps({"type": "input", "seq": 1, "codes": ["K" * 1000]}),
    "a lone surrogate": '{"type": "input", "seq": 1, "codes": ["\\ud800"]}',
    "mouse of one number": '{"type": "input", "seq": 1, "mouse": [1]}',
    "mouse that jumps": '{"type": "input", "seq": 1, "mouse": [1e9, 0]}',
    "mouse beyond floats": '{"type": "input", "seq": 1, "mouse": [' + "9" * 400 + ", 0]}",
    "input without seq": '{"type": "input"}',
    "played without epoch": '{"type": "played", "index": 1}',
    "played in the past": '{"type": "played", "epoch": 1, "index": -1}',
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
def test_bad_messages_are_refused_in_one_line(text: str | bytes):
    with pytest.raises(Refusal) as refusal:
        parse(text)
    assert refusal.value.code == ErrorCode.BAD_MESSAGE
    assert len(str(refusal.value)) < 240
    str(refusal.value).encode()


def test_an_oversized_message_is_not_even_read():
    with pytest.raises(Refusal) as refusal:
        parse(json.dumps({"type": "ping", "time_ms": 1, "more": "x" * protocol.MAX_MESSAGE_BYTES}))
    assert refusal.value.code == ErrorCode.TOO_LARGE


def test_unknown_fields_are_left_alone():
    assert parse('{"type": "pause", "paused": false, "colour": "red"}') == Pause(False)


def test_server_messages_are_json_with_a_type():
    message = protocol.Uploaded(StartInfo("own-1", "attic", "starts/own-1.jpg"))
    assert json.loads(to_json(message)) == {"type": "uploaded", **asdict(message)}
