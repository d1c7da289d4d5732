"""Acks as packets, read by the bridge's scanner. Pure: no seam is replaced."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bridge.mqtt_packets import Arrival, take_publishes
from driver_events.mqtt_publisher import publish_frame


@given(st.lists(st.tuples(st.text(max_size=80), st.binary(max_size=20_000)), max_size=5))
def test_publish_frame__several_joined__are_read_as_they_were(
    messages: list[tuple[str, bytes]],
) -> None:
    data = b"".join(publish_frame(topic, payload) for topic, payload in messages)
    arrivals: list[Arrival] = []
    assert take_publishes(data, 0, arrivals) == len(data)
    assert arrivals == [Arrival(topic.encode(), payload, b"") for topic, payload in messages]
