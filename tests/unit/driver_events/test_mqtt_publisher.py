"""Acks as packets, parsed by the bridge's parser. Pure: no seam is replaced."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bridge.publish_parser import ReceivedMessage, parse_publishes
from driver_events.mqtt_publisher import encode_publish


@given(st.lists(st.tuples(st.text(max_size=80), st.binary(max_size=20_000)), max_size=5))
def test_publish_frame__several_joined__are_read_as_they_were(
    messages: list[tuple[str, bytes]],
) -> None:
    data = b"".join(encode_publish(topic, payload) for topic, payload in messages)
    received: list[ReceivedMessage] = []
    assert parse_publishes(data, 0, received) == len(data)
    assert received == [
        ReceivedMessage(topic.encode(), payload, b"") for topic, payload in messages
    ]
