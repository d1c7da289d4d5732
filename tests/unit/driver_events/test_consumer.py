"""The consumer's admin client and offsets. The seams replaced: AdminClient, Consumer."""

from __future__ import annotations

from typing import Any, cast

import prometheus_client
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


def test_metrics__before_anything_is_counted__have_a_value_to_rise_from():
    topic = "a-topic-that-loses-nothing"
    PartitionConsumer(KafkaAccess("127.0.0.1:1"), topic, "a-group", "a-name").close()
    read = prometheus_client.REGISTRY.get_sample_value
    name = "doorstep_driver_events_deleted_unread_total"
    assert read(name, {"topic": topic}) == 0
    for outcome in ("committed", "parked"):
        assert read("doorstep_driver_events_fixes_total", {"outcome": outcome}) is not None


def test_advance__offsets_without_records__are_counted_as_deleted():
    consumer = PartitionConsumer(KafkaAccess("127.0.0.1:1"), "a-topic", "a-group", "a-name")
    counted = metrics.DELETED_UNREAD.labels("a-topic")._value.get
    before = counted()
    consumer.advance({0: (0, 10), 1: (5, 10)}, 15)
    assert counted() == before
    consumer.advance({0: (10, 40)}, 10)
    assert counted() == before + 20
    consumer.close()


class OnePartition:
    """A Consumer that delivers what was assigned, with offsets up to 9."""

    def __init__(self) -> None:
        self._next = 10

    def assign(self, partitions):
        self._next = partitions[0].offset

    def consume(self, limit, _timeout_s):
        first, self._next = self._next, min(10, self._next + limit)
        return [FakeMessage(offset) for offset in range(first, self._next)]


class FakeMessage:
    def __init__(self, offset):
        self._offset = offset

    def offset(self):
        return self._offset

    def partition(self):
        return 0

    def error(self):
        return None


@pytest.mark.parametrize("offset", [0, 1, 7])
def test_assign__from_an_offset__the_record_before_it_goes_elsewhere(monkeypatch, offset):
    monkeypatch.setattr(PartitionConsumer, "_join", lambda _: OnePartition())
    monkeypatch.setattr(consumer_module, "_partition_of", FakeMessage.partition)
    monkeypatch.setattr(consumer_module, "_offset_of", FakeMessage.offset)
    consumer = PartitionConsumer(KafkaAccess("127.0.0.1:1"), "a-topic", "a-group", "a-name")
    consumer._assigned = [0]
    preceding = []
    consumer.on_preceding = preceding.extend
    consumer.assign({0: offset})
    first = consumer.consume(1, 0.0)
    read = [one.offset() for one in [*first, *consumer.consume(100, 0.0)]]
    assert read == list(range(offset, 10))
    assert [one.offset() for one in preceding] == ([offset - 1] if offset else [])
    assert consumer.offset_ranges_of([cast("Any", FakeMessage(9))]) == {0: (offset, 10)}
