"""PUBLISH packets parsed out of received bytes. Pure: no seam is replaced."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from bridge.publish_parser import ReceivedMessage, is_whole_packet, parse_publishes
from doorstep.errors import MalformedPacket
from doorstep.mqtt_packets import PUBLISH, packet


def frame(
    topic: bytes, payload: bytes, packet_id: int = 0, *, flags: int = 0, properties: bytes = b"\0"
) -> bytes:
    body = len(topic).to_bytes(2, "big") + topic
    if packet_id:
        body += packet_id.to_bytes(2, "big")
        flags |= 0x02
    body += properties + payload
    return packet(PUBLISH | flags, body)


MESSAGES = st.tuples(
    st.binary(max_size=40),
    st.binary(max_size=400),
    st.integers(0, 65_535),
    st.sampled_from([0, 1, 8]),
)


@given(st.lists(MESSAGES, max_size=20), st.integers(0, 2000))
def test_parse_publishes__cut_anywhere__returns_complete_messages_first(
    messages: list[tuple[bytes, bytes, int, int]], cut: int
) -> None:
    data = b"".join(frame(t, p, i, flags=f & 0x09) for t, p, i, f in messages)
    expected = [
        ReceivedMessage(t, p, i.to_bytes(2, "big") if i else b"") for t, p, i, _ in messages
    ]
    first: list[ReceivedMessage] = []
    taken = parse_publishes(data[:cut], 0, first)
    assert first == expected[: len(first)]
    rest: list[ReceivedMessage] = []
    assert parse_publishes(data[taken:], 0, rest) == len(data) - taken
    assert first + rest == expected


def test_parse_publishes__another_packet_type__stops_there() -> None:
    ping = b"\xd0\x00"
    data = frame(b"t", b"1", 1) + ping + frame(b"t", b"2", 2)
    received: list[ReceivedMessage] = []
    at = parse_publishes(data, 0, received)
    assert data[at:].startswith(ping)
    assert is_whole_packet(data, at)
    assert parse_publishes(data, at + 2, received) == len(data)
    assert [one.payload for one in received] == [b"1", b"2"]


def test_parse_publishes__properties__are_skipped() -> None:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.UserProperty = ("key", "v" * 200)
    properties.ContentType = "application/json"
    data = frame(b"t", b"payload", 7, properties=properties.pack())  # type: ignore[no-untyped-call]
    received: list[ReceivedMessage] = []
    assert parse_publishes(data, 0, received) == len(data)
    assert received == [ReceivedMessage(b"t", b"payload", b"\0\7")]


@pytest.mark.parametrize(
    "data",
    [
        b"\x30\xff\xff\xff\xff\x01",  # a length of more than four bytes
        b"\x30\x00",  # no room for a topic
        b"\x30\x03\x00\x09a\x00\x00",  # a topic longer than its packet
        b"\x32\x04\x00\x01a\x00",  # no room for a packet id
    ],
)
def test_parse_publishes__not_mqtt__is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedPacket):
        parse_publishes(data, 0, [])
