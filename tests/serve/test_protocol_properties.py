"""The protocol on whatever may come: read as it was meant, or refused in one line; never anything else."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reverie.errors import ProtocolError
from reverie.serve.protocol import (
    CLOSE_CODES,
    MAX_CODES,
    MAX_MESSAGE_BYTES,
    MAX_MOUSE_PX,
    MAX_REASON_BYTES,
    MAX_SEED,
    MAX_UINT32,
    VERSION,
    Error,
    Format,
    FrameMessage,
    Input,
    Played,
    Refusal,
    Start,
    close_reason,
    parse,
    to_json,
)

PROPERTY = settings(derandomize=True, deadline=None, max_examples=300)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
names = st.sampled_from(
    ["version", "format", "start", "seed", "paused", "seq", "codes", "mouse", "epoch", "index", "time_ms"]
)
types = st.sampled_from(["hello", "start", "restart", "pause", "input", "played", "ping", "frame", "", "x"])
uint32 = st.integers(0, MAX_UINT32)
frames = st.builds(
    FrameMessage,
    format=st.sampled_from(list(Format)),
    flags=st.integers(0, 3),
    epoch=uint32,
    index=uint32,
    action=uint32,
    width=st.integers(0, 2**16 - 1),
    height=st.integers(0, 2**16 - 1),
    sampled_ms=st.floats(allow_nan=False),
    sent_ms=st.floats(allow_nan=False),
    payload=st.binary(max_size=200),
)


def read_or_refused(text: str | bytes) -> None:
    try:
        message = parse(text)
    except Refusal as refusal:
        told, code = str(refusal), refusal.code
        assert "\n" not in told, repr(text)
        assert len(told) < 300
        assert code in CLOSE_CODES
        assert len(close_reason(told).encode()) <= MAX_REASON_BYTES
        assert json.loads(to_json(Error(code, told, fatal=True)))["message"] == told
    else:
        played = ("hello", "start", "restart", "pause", "input", "played", "ping", "map")
        assert message.TYPE in (*played, "resume", "load", "seek", "save", "view")
        if isinstance(message, Input):
            assert len(message.codes) <= MAX_CODES
            assert all(math.isfinite(px) and abs(px) <= MAX_MOUSE_PX for px in message.mouse)
            assert 0 <= message.seq <= MAX_UINT32


@PROPERTY
@given(st.text(max_size=200) | st.binary(max_size=200))
def test_any_text(text: str | bytes) -> None:
    read_or_refused(text)


@PROPERTY
@given(json_values)
def test_any_json(body: object) -> None:
    read_or_refused(json.dumps(body))


@PROPERTY
@given(types, st.dictionaries(names, json_values, max_size=5))
def test_any_fields(kind: str, fields: dict[str, object]) -> None:
    read_or_refused(json.dumps({**fields, "type": kind}))
    read_or_refused(json.dumps({**fields, "type": kind}, ensure_ascii=False))


@pytest.mark.parametrize("size", [MAX_MESSAGE_BYTES - 1, MAX_MESSAGE_BYTES, MAX_MESSAGE_BYTES + 1])
@pytest.mark.parametrize("char", ["[", "{", "9", '"', " ", '{"a":'])
def test_long_and_deep(char: str, size: int) -> None:
    read_or_refused(char * (size // len(char)))
    read_or_refused('{"type":"input","seq":' + char * 9000)


@PROPERTY
@given(uint32, st.sets(st.from_regex(r"[A-Za-z][A-Za-z0-9]{0,31}", fullmatch=True), max_size=MAX_CODES),
       st.tuples(*[st.floats(-MAX_MOUSE_PX, MAX_MOUSE_PX)] * 2))  # fmt: skip
def test_what_is_right_is_read(seq: int, codes: set[str], mouse: tuple[float, float]) -> None:
    body = {"type": "input", "seq": seq, "codes": sorted(codes), "mouse": mouse}
    assert parse(json.dumps(body)) == Input(seq, frozenset(codes), mouse)


@PROPERTY
@given(uint32, uint32, st.none() | st.floats(0, 1e7), st.integers(0, MAX_SEED))
def test_numbers_are_read_as_they_are(epoch: int, index: int, round_trip_ms: float | None, seed: int) -> None:
    played = {"type": "played", "epoch": epoch, "index": index, "round_trip_ms": round_trip_ms}
    assert parse(json.dumps(played)) == Played(epoch, index, round_trip_ms)
    assert parse(json.dumps({"type": "start", "start": None, "seed": seed})) == Start(None, seed)


@PROPERTY
@given(frames)
def test_a_frame_comes_back(frame: FrameMessage) -> None:
    assert FrameMessage.decode(frame.encode()) == frame


@PROPERTY
@given(frames, st.data())
def test_a_damaged_frame_is_refused_or_another_frame(frame: FrameMessage, data: st.DataObject) -> None:
    """Cut off or longer: refused.  With a bit turned over: what is decoded says exactly what arrived."""
    whole = frame.encode()
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(ProtocolError):
        FrameMessage.decode(whole[:cut])
    with pytest.raises(ProtocolError):
        FrameMessage.decode(whole + b"x")
    damaged = bytearray(whole)
    damaged[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        decoded = FrameMessage.decode(bytes(damaged))
    except ProtocolError:
        return
    assert damaged[0] == VERSION
    assert decoded.encode() == bytes(damaged)


@PROPERTY
@given(st.text(max_size=300))
def test_a_close_reason_fits(text: str) -> None:
    reason = close_reason(text)
    assert len(reason.encode()) <= MAX_REASON_BYTES
    assert text.encode("utf-8", "replace").decode().startswith(reason)
    if len(text.encode("utf-8", "replace")) <= MAX_REASON_BYTES:
        assert reason == text.encode("utf-8", "replace").decode()
