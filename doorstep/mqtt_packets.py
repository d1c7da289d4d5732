"""MQTT 3.1.1 control packets as bytes, for probes, load generators and tests.

Clients that need sessions and reconnects use paho; these encoders cost a few microseconds.
"""

from __future__ import annotations

from typing import NamedTuple

from doorstep.errors import MalformedPacket

CONNECT = 0x10
CONNACK = 0x20
PUBLISH = 0x30
PUBACK = 0x40
SUBSCRIBE = 0x82
SUBACK = 0x90
PINGRESP = 0xD0
PINGREQ_PACKET = b"\xc0\x00"
DISCONNECT_PACKET = b"\xe0\x00"
ACCEPTED_PACKET = b"\x20\x02\x00\x00"  # CONNACK of a new session, return code 0
REFUSED = 0x80  # a return code of SUBACK

QOS_1 = 0x02  # flags of PUBLISH
QOS_MASK = 0x06
RETAIN = 0x01

_PROTOCOL = b"\x00\x04MQTT\x04"  # protocol level 4 is MQTT 3.1.1
_USERNAME_PASSWORD_CLEAN_SESSION = 0b1100_0010
_RETAINED_WILL_QOS_1 = 0b0010_1100


class Will(NamedTuple):
    """A last will, sent retained with QoS 1."""

    topic: str
    payload: bytes


def connect(
    username: str, password: str, *, keepalive_s: int = 0, will: Will | None = None
) -> bytes:
    """CONNECT with a clean session. The client id is the username; keepalive 0 turns it off."""
    flags, fields = _USERNAME_PASSWORD_CLEAN_SESSION, [username.encode()]
    if will is not None:
        flags |= _RETAINED_WILL_QOS_1
        fields += [will.topic.encode(), will.payload]
    fields += [username.encode(), password.encode()]
    head = _PROTOCOL + bytes([flags]) + uint16(keepalive_s)
    return packet(CONNECT, head + b"".join(map(field, fields)))


def subscribe(packet_id: int, filters: list[str]) -> bytes:
    """SUBSCRIBE to topic filters with QoS 1."""
    body = b"".join(field(one.encode()) + b"\x01" for one in filters)
    return packet(SUBSCRIBE, uint16(packet_id) + body)


def publish(topic: str, packet_id: int, payload: bytes, *, retain: bool = False) -> bytes:
    """PUBLISH with QoS 1."""
    first = PUBLISH | QOS_1 | (RETAIN if retain else 0)
    return packet(first, field(topic.encode()) + uint16(packet_id) + payload)


def puback(packet_id: int) -> bytes:
    """PUBACK of a message with QoS 1."""
    return b"\x40\x02" + uint16(packet_id)


def packet(first: int, body: bytes) -> bytes:
    """A control packet: its first byte, the remaining length, the body."""
    head, length = bytearray((first,)), len(body)
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head) + body


def field(value: bytes) -> bytes:
    """A string or binary field: its length in two bytes, then the value."""
    return uint16(len(value)) + value


def uint16(value: int) -> bytes:
    """A two-byte integer, big-endian."""
    return value.to_bytes(2, "big")


def read_variable_int(data: bytes, at: int) -> tuple[int, int]:
    """Read a variable byte integer: (index after it, value), or (0, 0) if it is incomplete.

    Raises MalformedPacket if it has more than four bytes.
    """
    value = shift = 0
    for position in range(at, min(at + 4, len(data))):
        byte = data[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return position + 1, value
        shift += 7
    if len(data) >= at + 4:
        raise MalformedPacket
    return 0, 0
