import numpy as np
import pytest

from reverie.errors import WorldError
from reverie_worlds.lockstep import protocol
from reverie_worlds.lockstep.build import SOURCES


def test_numbers_agree_with_the_header() -> None:
    header = (SOURCES / "protocol.h").read_text()
    assert f"LOCKSTEP_MAGIC {protocol.MAGIC:#x}u" in header
    assert f"LOCKSTEP_VERSION {protocol.VERSION}u" in header
    assert f"LOCKSTEP_MAX_EVENTS {protocol.MAX_EVENTS}" in header


def test_golden_bytes_of_an_action() -> None:
    message = protocol.pack_action([(protocol.KEY, 0x77, 1)], (-1, 2), 40_000_000)
    assert len(message) == 416
    head = "4b434f4c01000000ffffffff02000000005a620200000000" + "0000000000000000" + "000000007700000001000000"
    assert message[:44].hex() == head
    assert not any(message[44:])


def test_frames_carry_matrices_for_column_vectors() -> None:
    floats = [float(i) for i in range(32)]
    frame = protocol.unpack_frame(protocol.FRAME.pack(protocol.MAGIC, 7, 448, 256, 123, 1, 0, *floats))
    assert frame[:3] == (7, (448, 256), 123)
    assert frame.modelview is not None
    assert frame.projection is not None
    assert frame.modelview[:, 3].tolist() == [12, 13, 14, 15]
    assert frame.projection[0].tolist() == [16, 20, 24, 28]
    assert frame.modelview.dtype == np.float32
    blind = protocol.unpack_frame(protocol.FRAME.pack(protocol.MAGIC, 7, 448, 256, 123, 0, 0, *floats))
    assert blind.modelview is None


def test_another_protocol_is_refused() -> None:
    assert protocol.check_hello(protocol.HELLO.pack(protocol.MAGIC, protocol.VERSION, 99, 0)) == 99
    with pytest.raises(WorldError, match="speaks protocol 0x1/1"):
        protocol.check_hello(protocol.HELLO.pack(1, 1, 99, 0))
    with pytest.raises(WorldError, match=f"0x4c4f434b/{protocol.VERSION + 1}, expected"):
        protocol.check_hello(protocol.HELLO.pack(protocol.MAGIC, protocol.VERSION + 1, 99, 0))
    with pytest.raises(WorldError, match="3 bytes, expected 16"):
        protocol.check_hello(b"abc")
    with pytest.raises(WorldError, match="5 bytes, expected 160"):
        protocol.unpack_frame(b"abcde")
    with pytest.raises(WorldError, match="magic 0x0"):
        protocol.unpack_frame(bytes(protocol.FRAME.size))


def test_key_names() -> None:
    assert protocol.keysym("w") == 0x77
    assert protocol.keysym("Shift_L") == 0xFFE1
    with pytest.raises(WorldError, match="unknown X11 key name 'Upp'"):
        protocol.keysym("Upp")
