"""The live feed's thread. The seam is Kafka's consumer."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from doorstep.kafka.access import KafkaAccess
from tracking_api.live import feed as feed_module
from tracking_api.live.feed import Feed, FeedBatch

ORDER_ID = UUID(int=1)


class Record:
    """What confluent-kafka's message has."""

    def __init__(self, topic: str, value: Any) -> None:
        self._topic, self._value = topic, json.dumps(value).encode()

    def topic(self) -> str:
        return self._topic

    def value(self) -> bytes:
        return self._value

    def error(self) -> None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return 1, 0


class Waiting:
    """A consumer that, like librdkafka's, waits for as many records as it was asked for."""

    def __init__(self, *_: Any) -> None:
        self.left: list[Record] = []
        self.waits: list[int] = []

    def list_topics(self, timeout: float) -> Any:
        del timeout
        partitions = SimpleNamespace(partitions={0: None})
        return SimpleNamespace(topics={"updates": partitions, "positions": partitions})

    def assign(self, _: Any) -> None:
        pass

    def consume(self, at_most: int, within_s: float) -> list[Record]:
        found, self.left = self.left[:at_most], self.left[at_most:]
        if len(found) < at_most and within_s:
            self.waits.append(len(found))
        return found

    def close(self) -> None:
        pass


def test_feed__available_records__are_consumed_at_once_in_one_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    consumer = Waiting()
    consumer.left = [
        Record("updates", {"order_id": str(ORDER_ID), "order_seq": 3, "driver_id": "d1"}),
        Record("updates", {"order_id": str(ORDER_ID), "order_seq": 2, "driver_id": None}),
        Record("positions", {"v": 1, "positions": [["d1", 1, 1, 11.0, 43.0, None, None, None]]}),
    ]
    monkeypatch.setattr(feed_module, "Consumer", lambda *_: consumer)
    heard: list[FeedBatch] = []

    def on_batch(one: FeedBatch) -> None:
        heard.append(one)
        feed._stopping.set()

    feed = Feed(
        KafkaAccess("nowhere:1"),
        updates_topic="updates",
        positions_topic="positions",
        on_batch=on_batch,
        watched_drivers={"d1"},
    )
    feed._consume()

    [one] = heard
    assert (one.orders, one.order_drivers, one.moved_drivers) == ({ORDER_ID: 3}, {"d1"}, {"d1"})
    assert consumer.waits == []  # no wait while records were available
