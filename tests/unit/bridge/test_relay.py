"""One iteration of the relay. The seams replaced: a publisher that records, no MQTT client."""

from __future__ import annotations

from typing import Any

import pytest

from bridge import metrics
from bridge.kafka_publisher import OnDelivery
from bridge.publish_parser import ReceivedMessage
from bridge.relay import Relay
from bridge.settings import BridgeSettings
from bridge.subscriber import DROPPED_TOPIC, Subscriber
from doorstep.settings import MqttBroker

POSITION = b"doorstep/v1/drivers/d1/position"


class FakePublisher:
    """Accepts `room` records and confirms them in `poll`."""

    has_failed = False
    is_reachable = True

    def __init__(self, room: int = 100) -> None:
        self.room = room
        self.records: list[tuple[str, bytes, bytes, Any]] = []
        self.callbacks: list[OnDelivery] = []

    def produce(
        self, topic: str, key: bytes, value: bytes, on_delivery: OnDelivery, headers: Any = None
    ) -> bool:
        if value == b"explosive" and headers is None:
            raise TypeError("boom")
        if len(self.callbacks) >= self.room:
            return False
        self.records.append((topic, key, value, headers))
        self.callbacks.append(on_delivery)
        return True

    def __len__(self) -> int:
        return len(self.callbacks)

    def poll(self) -> None:
        callbacks, self.callbacks = self.callbacks, []
        for callback in callbacks:
            callback(None, None)


@pytest.fixture
def subscriber() -> Subscriber:
    return Subscriber(
        MqttBroker("127.0.0.1", 1, tls=False),
        client_id="b",
        username="b",
        password="b",
        receive_maximum=10,
    )


def relay_with(subscriber: Subscriber, publisher: FakePublisher, most: int = 5000) -> Relay:
    settings = BridgeSettings(bridge_max_in_flight=most)
    return Relay(settings, [subscriber], publisher)  # type: ignore[arg-type]


def test_forward__positions_and_status__go_to_their_topics_keyed_by_driver(
    subscriber: Subscriber,
) -> None:
    publisher = FakePublisher()
    subscriber.received = [
        ReceivedMessage(POSITION, b"\xff\x00", b"01"),
        ReceivedMessage(b"doorstep/v1/drivers/d2/status", b"", b"02"),
        ReceivedMessage(b"owntracks/d3/phone", b"{}", b"03"),
    ]
    relay_with(subscriber, publisher)._forward(subscriber)
    assert publisher.records == [
        ("driver-pos", b"d1", b"\xff\x00", None),
        ("driver-status", b"d2", b"", None),
        ("phone-pos", b"d3", b"{}", None),
    ]
    assert subscriber.received == []
    assert subscriber.in_flight == 3


def test_forward__producer_queue_full__keeps_the_rest(subscriber: Subscriber) -> None:
    publisher = FakePublisher(room=2)
    subscriber.received = [ReceivedMessage(POSITION, b"%d" % n, b"%02d" % n) for n in range(5)]
    relay = relay_with(subscriber, publisher)
    relay._forward(subscriber)
    assert [one.payload for one in subscriber.received] == [b"2", b"3", b"4"]
    for _ in range(2):
        publisher.poll()
        relay._forward(subscriber)
    assert [record[2] for record in publisher.records] == [b"0", b"1", b"2", b"3", b"4"]


def test_forward__one_message_raises__becomes_a_counted_dead_letter(
    subscriber: Subscriber,
) -> None:
    publisher = FakePublisher()
    subscriber.received = [
        ReceivedMessage(POSITION, b"1", b"01"),
        ReceivedMessage(POSITION, b"explosive", b"02"),
        ReceivedMessage(POSITION, b"3", b"03"),
    ]
    before = metrics.POISON._value.get()
    relay_with(subscriber, publisher)._forward(subscriber)
    assert metrics.POISON._value.get() == before + 1
    assert [(topic, value) for topic, _, value, _ in publisher.records] == [
        ("driver-pos", b"1"),
        ("dead-letter", b"explosive"),
        ("driver-pos", b"3"),
    ]
    assert dict(publisher.records[1][3])["reason"] == b"bridge_error"
    assert subscriber.in_flight == 3  # acknowledged like the others, once Kafka has it


def test_forward__qos_0_over_the_in_flight_limit__is_dropped(subscriber: Subscriber) -> None:
    publisher = FakePublisher()
    publisher.callbacks = [lambda *_: None] * 3
    subscriber.received = [
        ReceivedMessage(POSITION, b"0", b""),
        ReceivedMessage(POSITION, b"1", b"01"),
    ]
    relay_with(subscriber, publisher, most=2)._forward(subscriber)
    assert [value for _, _, value, _ in publisher.records] == [b"1"]
    assert subscriber.received == []


def test_forward__broker_drops_over_the_in_flight_limit__are_counted(
    subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[int] = []
    monkeypatch.setattr(subscriber, "update_broker_dropped", noted.append)
    publisher = FakePublisher()
    publisher.callbacks = [lambda *_: None] * 3
    subscriber.received = [ReceivedMessage(DROPPED_TOPIC.encode(), b"17", b"")]
    relay_with(subscriber, publisher, most=2)._forward(subscriber)
    assert noted == [17]
    assert subscriber.received == []
