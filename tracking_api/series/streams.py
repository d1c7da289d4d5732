"""Series, live: the points of one series as they come from Kafka, one consumer for all viewers.

A stream begins with the last 10 s, so that it overlaps with the history read before it; points are
told apart by their instants. A slow viewer gets the latest record only.
"""

from __future__ import annotations

import msgspec
from confluent_kafka import Message

from doorstep.errors import MalformedFix
from doorstep.series import Point, decode_points, name_of
from tracking_api.live.frames import Frame
from tracking_api.live.topic_follower import Follower, Topics
from tracking_api.series.queries import SeriesName, epoch_ms

_encode = msgspec.json.Encoder().encode


def points_frame(message: Message, cursor: str) -> Frame | None:
    """Make a frame of a record; None if there is no good point in it."""
    name = name_of(message.key())
    try:
        decoded = decode_points(message.value() or b"")
    except MalformedFix:
        return None
    points = [(epoch_ms(one.at), one.value) for one in decoded if isinstance(one, Point)]
    if name is None or not points:
        return None
    return Frame("points", _encode({"name": name, "points": points}), cursor)


class SeriesStreams:
    """Who follows which series."""

    def __init__(self, topics: Topics, topic: str) -> None:
        self._topics = topics
        self._topic = topic

    async def open(self, name: SeriesName, last_event_id: str | None) -> Follower:
        """Find where a viewer begins. Raises UnusableRequest, KafkaUnavailable."""
        start = last_event_id or "recent"
        return await self._topics.find(self._topic, start, str(name).encode())
