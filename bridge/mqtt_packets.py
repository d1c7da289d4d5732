"""PUBLISH frames of MQTT 5, cut out of received bytes in one pass.

paho spends 20 µs and three system calls on each packet; nearly every packet that the bridge gets
is a PUBLISH, so those are read here and everything else is left to paho.
"""

from __future__ import annotations

from typing import NamedTuple

from doorstep.errors import DoorstepError

PUBLISH = 0x30
_QOS = 0x06
PUBACK_HEAD = b"\x40\x02"  # and the packet id: reason code 0 may be left out


class BrokenFrame(DoorstepError):
    """The broker sent bytes that are no MQTT packet."""


class Arrival(NamedTuple):
    """One message as the broker delivered it. `packet_id` is empty for QoS 0."""

    topic: bytes
    payload: bytes
    packet_id: bytes


_new = tuple.__new__  # half of what a NamedTuple's own costs


def take_publishes(data: bytes, start: int, arrivals: list[Arrival]) -> int:
    """Append each PUBLISH from `start` on, and return where the first other thing begins.

    That is the end, a frame that is not complete yet, or a packet of another type. Raises
    BrokenFrame.
    """
    end = len(data)
    while start < end and (head := data[start]) & 0xF0 == PUBLISH:
        if start + 2 < end and (low := data[start + 1]) > 0x7F and (high := data[start + 2]) < 0x80:
            # two bytes of length, as nearly always: 128 bytes to 16 KiB
            body, length = start + 3, low & 0x7F | high << 7
        else:
            body, length = _variable_int(data, start + 1)
        stop = body + length
        if body == 0 or stop > end:
            break
        at = body + 2 + (data[body] << 8 | data[body + 1]) if length >= 2 else stop + 1
        topic = data[body + 2 : at]
        packet_id = b""
        if head & _QOS:
            packet_id = data[at : at + 2]
            at += 2
        if at < stop and data[at] == 0:  # no properties, as nearly always
            at += 1
        else:
            after_length, properties = _variable_int(data, at)
            at = after_length + properties if after_length else stop + 1
        if at > stop:
            raise BrokenFrame
        arrivals.append(_new(Arrival, (topic, data[at:stop], packet_id)))
        start = stop
    return start


def is_whole_packet(data: bytes, start: int) -> bool:
    """Whether a packet of any type begins at `start` and all of it has arrived."""
    body, length = _variable_int(data, start + 1)
    return body != 0 and body + length <= len(data)


def _variable_int(data: bytes, at: int) -> tuple[int, int]:
    """Read a variable byte integer: (where it ends, its value); (0, 0) if it is not all there."""
    value = shift = 0
    for position in range(at, min(at + 4, len(data))):
        byte = data[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return position + 1, value
        shift += 7
    if len(data) >= at + 4:
        raise BrokenFrame
    return 0, 0
