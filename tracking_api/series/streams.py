"""Streams of series: the points of one series from Kafka, with one consumer for all viewers.

A stream starts with the last 10 s, so it overlaps with the history read before it; clients drop
duplicate points by their instants. A slow viewer gets only the latest record.
"""

from __future__ import annotations

import msgspec
from confluent_kafka import Message

from doorstep.errors import MalformedFix
from doorstep.series import Point, decode_points, name_of
from tracking_api.live.frames import Frame
from tracking_api.live.topic_follower import Follower, TopicStreams
from tracking_api.series.queries import SeriesName, epoch_ms

_encode = msgspec.json.Encoder().encode


def points_frame(message: Message, record_id: str) -> Frame | None:
    """Return a record's frame; None if it has no valid point."""
    name = name_of(message.key())
    try:
        decoded = decode_points(message.value() or b"")
    except MalformedFix:
        return None
    points = [(epoch_ms(one.at), one.value) for one in decoded if isinstance(one, Point)]
    if name is None or not points:
        return None
    return Frame("points", _encode({"name": name, "points": points}), record_id)


class SeriesStreams:
    """Followers of series."""

    def __init__(self, topics: TopicStreams, topic: str) -> None:
        self._topics = topics
        self._topic = topic

    async def open(self, name: SeriesName, last_event_id: str | None) -> Follower:
        """Return a follower of one series. Raises UnusableRequest, KafkaUnavailable."""
        start = last_event_id or "recent"
        return await self._topics.open(self._topic, start, str(name).encode())
