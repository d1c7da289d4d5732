"""MQTT 3.1.1 packets as bytes: what a device sends, and the little that it gets to read."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from doorstep.mqtt_topics import ACK, COMMAND, POSITION, STATUS, topic_of

CONNACK = 0x20
PUBLISH = 0x30
PUBACK = 0x40
SUBACK = 0x90
PINGRESP = 0xD0
PINGREQ_PACKET = b"\xc0\x00"
REFUSED = 0x80  # a return code of SUBACK

# Ids of a device's packets, by what they are for; 65,535 in all.
FIX_IDS = 60_000  # 1 to 60,000, again and again
RESENT_ID = 60_001  # to 60,100
RESENT_IDS = 100
STATUS_ID = 65_534
SUBSCRIBE_ID = 65_535

_QOS_1 = 0x02
_RETAIN = 0x01
_CONNECT_FLAGS = 0b1110_1110  # user, password, retained will with QoS 1, clean session
_LENGTHS = [bytes([n & 0x7F | 0x80, n >> 7]) for n in range(1 << 14)]  # as two bytes, 128 and up


def connect(driver_id: str, password: str, will: bytes, keepalive_s: int) -> bytes:
    """CONNECT with credentials and a last will on the device's status."""
    name, topic = driver_id.encode(), topic_of(driver_id, STATUS).encode()
    texts = (name, topic, will, name, password.encode())
    head = struct.pack("!H4sBBH", 4, b"MQTT", 4, _CONNECT_FLAGS, keepalive_s)
    return packet(0x10, head + b"".join(map(text, texts)))


def subscribe(driver_id: str) -> bytes:
    """SUBSCRIBE to the device's acks and commands, QoS 1."""
    topics = (topic_of(driver_id, kind).encode() for kind in (ACK, COMMAND))
    return packet(0x82, _pair(SUBSCRIBE_ID) + b"".join(text(topic) + b"\x01" for topic in topics))


def status(driver_id: str, payload: bytes) -> bytes:
    """PUBLISH of the device's status, QoS 1, retained."""
    body = text(topic_of(driver_id, STATUS).encode()) + _pair(STATUS_ID) + payload
    return packet(PUBLISH | _QOS_1 | _RETAIN, body)


def position_topic(driver_id: str) -> bytes:
    """The beginning of each of a device's positions, as it stands in the packet."""
    return text(topic_of(driver_id, POSITION).encode())


def position(topic: bytes, packet_id: int, payload: bytes) -> bytes:
    """PUBLISH of a position, QoS 1."""
    length = len(topic) + 2 + len(payload)
    if 127 < length < len(_LENGTHS):
        return b"2%b%b%c%c%b" % (_LENGTHS[length], topic, packet_id >> 8, packet_id & 0xFF, payload)
    return packet(PUBLISH | _QOS_1, topic + _pair(packet_id) + payload)


def puback(packet_id: int) -> bytes:
    """PUBACK: we have got a message with QoS 1."""
    return b"\x40\x02" + _pair(packet_id)


def packet(first: int, body: bytes) -> bytes:
    """A whole packet: its first byte, the length of its body, its body."""
    length, encoded = len(body), bytearray()
    while True:
        length, digit = divmod(length, 128)
        encoded.append(digit | (0x80 if length else 0))
        if not length:
            return bytes([first]) + bytes(encoded) + body


def text(value: bytes) -> bytes:
    """A string in a packet: its length, and itself."""
    return _pair(len(value)) + value


def _pair(value: int) -> bytes:
    return value.to_bytes(2, "big")


def take_packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Cut out each whole packet, (first byte, body); at the end (0, what is left over)."""
    start = 0
    while True:
        shift = length = 0
        at = start + 1
        while at < len(data):
            length |= (data[at] & 0x7F) << shift
            shift += 7
            at += 1
            if data[at - 1] < 0x80:
                break
        else:
            break
        if at + length > len(data):
            break
        yield data[start], data[at : at + length]
        start = at + length
    yield 0, data[start:]


def read_publish(first: int, body: bytes) -> tuple[bytes, int, bytes]:
    """Read a PUBLISH: (topic, packet id or 0 with QoS 0, payload)."""
    end = 2 + int.from_bytes(body[:2], "big")
    if first & 0x06:
        return body[2:end], int.from_bytes(body[end : end + 2], "big"), body[end + 2 :]
    return body[2:end], 0, body[end:]
