"""MQTT packets as bytes. Pure: no seam is replaced."""

from __future__ import annotations

import pytest

from doorstep import mqtt_packets
from doorstep.errors import MalformedPacket


def test_connect__credentials__is_a_clean_session_of_mqtt_3_1_1() -> None:
    assert mqtt_packets.connect("d1", "pw", keepalive_s=10) == (
        b"\x10\x16\x00\x04MQTT\x04\xc2\x00\x0a\x00\x02d1\x00\x02d1\x00\x02pw"
    )


def test_connect__will__stands_between_client_id_and_username() -> None:
    will = mqtt_packets.Will("t", b"off")
    assert mqtt_packets.connect("d", "p", will=will) == (
        b"\x10\x1b\x00\x04MQTT\x04\xee\x00\x00\x00\x01d\x00\x01t\x00\x03off\x00\x01d\x00\x01p"
    )


@pytest.mark.parametrize("length", [0, 127, 128, 16_383, 16_384, 2_097_152])
def test_packet__any_length__is_read_back(length: int) -> None:
    packet = mqtt_packets.packet(mqtt_packets.PUBLISH, bytes(length))
    body_at, found = mqtt_packets.read_variable_int(packet, 1)
    assert (found, len(packet) - body_at) == (length, length)


def test_read_variable_int__incomplete__is_zero() -> None:
    assert mqtt_packets.read_variable_int(b"\x30\xff\xff", 1) == (0, 0)


def test_read_variable_int__five_bytes__is_malformed() -> None:
    with pytest.raises(MalformedPacket):
        mqtt_packets.read_variable_int(b"\xff\xff\xff\xff\x01", 0)
