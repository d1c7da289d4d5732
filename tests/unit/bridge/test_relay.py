"""One round of the relay. The seams replaced: a publisher that only notes, no MQTT client."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.kafka_publisher import OnDelivery
from bridge.mqtt_packets import Arrival
from bridge.relay import Relay
from bridge.settings import BridgeSettings
from bridge.subscriber import DROPPED_TOPIC, Subscriber
from doorstep.settings import MqttBroker

POSITION = b"doorstep/v1/drivers/d1/position"


class NotingPublisher:
    """Takes `room` records, and confirms when told to."""

    has_failed = False
    is_reachable = True

    def __init__(self, room: int = 100) -> None:
        self.room = room
        self.records: list[tuple[str, bytes, bytes, Any]] = []
        self.callbacks: list[OnDelivery] = []

    def send(
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


def relay_with(subscriber: Subscriber, publisher: NotingPublisher, most: int = 5000) -> Relay:
    settings = BridgeSettings(bridge_max_in_flight=most)
    return Relay(settings, [subscriber], publisher)  # type: ignore[arg-type]


def test_hand_on__positions_and_states__go_to_their_topics_under_the_drivers_key(
    subscriber: Subscriber,
) -> None:
    publisher = NotingPublisher()
    subscriber.waiting = [
        Arrival(POSITION, b"\xff\x00", b"01"),
        Arrival(b"doorstep/v1/drivers/d2/status", b"", b"02"),
    ]
    relay_with(subscriber, publisher)._hand_on(subscriber)
    assert publisher.records == [
        ("driver-pos", b"d1", b"\xff\x00", None),
        ("driver-status", b"d2", b"", None),
    ]
    assert subscriber.waiting == []
    assert subscriber.in_flight == 2


def test_hand_on__the_producer_is_full__keeps_the_rest_waiting(subscriber: Subscriber) -> None:
    publisher = NotingPublisher(room=2)
    subscriber.waiting = [Arrival(POSITION, b"%d" % n, b"%02d" % n) for n in range(5)]
    relay = relay_with(subscriber, publisher)
    relay._hand_on(subscriber)
    assert [one.payload for one in subscriber.waiting] == [b"2", b"3", b"4"]
    for _ in range(2):
        publisher.poll()
        relay._hand_on(subscriber)
    assert [record[2] for record in publisher.records] == [b"0", b"1", b"2", b"3", b"4"]


def test_hand_on__one_message_raises__is_a_dead_letter_and_the_others_go_on(
    subscriber: Subscriber,
) -> None:
    publisher = NotingPublisher()
    subscriber.waiting = [
        Arrival(POSITION, b"1", b"01"),
        Arrival(POSITION, b"explosive", b"02"),
        Arrival(POSITION, b"3", b"03"),
    ]
    relay_with(subscriber, publisher)._hand_on(subscriber)
    assert [(topic, value) for topic, _, value, _ in publisher.records] == [
        ("driver-pos", b"1"),
        ("dead-letter", b"explosive"),
        ("driver-pos", b"3"),
    ]
    assert dict(publisher.records[1][3])["reason"] == b"bridge_error"
    assert subscriber.in_flight == 3  # acknowledged like the others, once Kafka has it


def test_hand_on__qos_0_while_too_much_is_in_flight__is_let_go(subscriber: Subscriber) -> None:
    publisher = NotingPublisher()
    publisher.callbacks = [lambda *_: None] * 3
    subscriber.waiting = [Arrival(POSITION, b"0", b""), Arrival(POSITION, b"1", b"01")]
    relay_with(subscriber, publisher, most=2)._hand_on(subscriber)
    assert [value for _, _, value, _ in publisher.records] == [b"1"]
    assert subscriber.waiting == []


def test_hand_on__broker_drops_while_too_much_is_in_flight__is_noted(
    subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[int] = []
    monkeypatch.setattr(subscriber, "note_dropped", noted.append)
    publisher = NotingPublisher()
    publisher.callbacks = [lambda *_: None] * 3
    subscriber.waiting = [Arrival(DROPPED_TOPIC.encode(), b"17", b"")]
    relay_with(subscriber, publisher, most=2)._hand_on(subscriber)
    assert noted == [17]
    assert subscriber.waiting == []
