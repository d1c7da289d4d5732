"""The admin client, which is replaced after a time-out. The seam replaced: AdminClient."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from doorstep.errors import KafkaUnavailable
from doorstep.kafka.access import KafkaAccess
from driver_events import consumer as consumer_module
from driver_events import metrics
from driver_events.consumer import PartitionConsumer


def test_identify__client_waits_for_a_dead_controller__is_replaced(monkeypatch):
    asked: list[object] = []

    class Waiting:
        """An AdminClient whose controller has died."""

        def __init__(self, _: dict[str, Any]) -> None:
            pass

        def describe_topics(self, *_: Any, **__: Any) -> Any:
            asked.append(self)
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "waiting for controller"))

    monkeypatch.setattr(consumer_module, "AdminClient", Waiting)
    consumer = PartitionConsumer(KafkaAccess("127.0.0.1:1"), "driver-pos", "a-group", "a-name")
    for _ in range(2):
        with pytest.raises(KafkaUnavailable, match="waiting for controller"):
            consumer.identify()
    consumer.close()
    first, second = asked
    assert first is not second


def test_advance__offsets_without_records__are_counted_as_deleted():
    consumer = PartitionConsumer(KafkaAccess("127.0.0.1:1"), "a-topic", "a-group", "a-name")
    counted = metrics.DELETED_UNREAD.labels("a-topic")._value.get
    before = counted()
    consumer.advance({0: (0, 10), 1: (5, 10)}, 15)
    assert counted() == before
    consumer.advance({0: (10, 40)}, 10)
    assert counted() == before + 20
    consumer.close()
