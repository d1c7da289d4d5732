"""What driver_events asks Kafka, where it must not go on asking the same client."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from driver_events import consumer as source_module
from driver_events.consumer import KafkaUnavailable, PartitionConsumer


def test_identify__a_client_that_waits_for_a_dead_controller__is_not_asked_again(monkeypatch):
    asked: list[object] = []

    class Waiting:
        """An AdminClient as it is after the broker that it took for the controller has died."""

        def __init__(self, _: dict[str, Any]) -> None:
            pass

        def describe_topics(self, *_: Any, **__: Any) -> Any:
            asked.append(self)
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "waiting for controller"))

    monkeypatch.setattr(source_module, "AdminClient", Waiting)
    source = PartitionConsumer("127.0.0.1:1", "driver-pos", "a-group", "a-name")
    for _ in range(2):
        with pytest.raises(KafkaUnavailable, match="waiting for controller"):
            source.identify()
    source.close()
    first, second = asked
    assert first is not second
