"""Encode and decode the MQTT 3.1.1 packets of a device."""

from __future__ import annotations

from collections.abc import Iterator

from doorstep import mqtt_packets
from doorstep.mqtt_topics import ACK, COMMAND, POSITION, STATUS, topic_of

# Ranges of packet ids, by purpose (1 to 65,535).
FIX_IDS = 60_000  # 1 to 60,000, cyclic
RESENT_ID = 60_001  # to 60,100
RESENT_IDS = 100
STATUS_ID = 65_534
SUBSCRIBE_ID = 65_535

_PUBLISH_QOS_1 = mqtt_packets.PUBLISH | mqtt_packets.QOS_1
_LENGTHS = [bytes([n & 0x7F | 0x80, n >> 7]) for n in range(1 << 14)]  # as two bytes, 128 and up


def connect(driver_id: str, password: str, will: bytes, keepalive_s: int) -> bytes:
    """CONNECT with credentials and a last will on the device's status."""
    last_will = mqtt_packets.Will(topic_of(driver_id, STATUS), will)
    return mqtt_packets.connect(driver_id, password, keepalive_s=keepalive_s, will=last_will)


def subscribe(driver_id: str) -> bytes:
    """SUBSCRIBE to the device's acks and commands, QoS 1."""
    return mqtt_packets.subscribe(
        SUBSCRIBE_ID, [topic_of(driver_id, kind) for kind in (ACK, COMMAND)]
    )


def status(driver_id: str, payload: bytes) -> bytes:
    """PUBLISH of the device's status, QoS 1, retained."""
    return mqtt_packets.publish(topic_of(driver_id, STATUS), STATUS_ID, payload, retain=True)


def position_topic(driver_id: str) -> bytes:
    """The encoded topic of a device's positions."""
    return mqtt_packets.field(topic_of(driver_id, POSITION).encode())


def position(topic: bytes, packet_id: int, payload: bytes) -> bytes:
    """PUBLISH of a position, QoS 1."""
    length = len(topic) + 2 + len(payload)
    if 127 < length < len(_LENGTHS):
        return b"2%b%b%c%c%b" % (_LENGTHS[length], topic, packet_id >> 8, packet_id & 0xFF, payload)
    return mqtt_packets.packet(_PUBLISH_QOS_1, topic + mqtt_packets.uint16(packet_id) + payload)


def take_packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield each complete packet as (first byte, body), then (0, remaining bytes)."""
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
    """Decode a PUBLISH: (topic, packet id or 0 with QoS 0, payload)."""
    end = 2 + int.from_bytes(body[:2], "big")
    if first & mqtt_packets.QOS_MASK:
        return body[2:end], int.from_bytes(body[end : end + 2], "big"), body[end + 2 :]
    return body[2:end], 0, body[end:]
