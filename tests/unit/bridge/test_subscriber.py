"""Acknowledging in order. The seam replaced: the MQTT client records what it would send."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError

from bridge import metrics
from bridge.subscriber import Chunk, Subscriber
from doorstep.settings import MqttBroker


@pytest.fixture
def subscriber(monkeypatch: pytest.MonkeyPatch) -> Subscriber:
    subscriber = Subscriber(
        MqttBroker("127.0.0.1", 1, tls=False),
        client_id="b",
        username="b",
        password="b",
        receive_maximum=10,
    )
    subscriber.sent = []  # type: ignore[attr-defined]
    monkeypatch.setattr(subscriber._client, "acknowledge", subscriber.sent.extend)  # type: ignore[attr-defined]
    return subscriber


def chunk(*packet_ids: bytes) -> Chunk:
    return Chunk(list(packet_ids), waits_for=len(packet_ids))


def confirm(one: Chunk, error: KafkaError | None = None) -> None:
    for _ in one.packet_ids:
        one.on_delivery(error, None)


def test_acknowledge__confirmed_out_of_order__goes_out_in_the_order_received(
    subscriber: Subscriber,
) -> None:
    first, second = chunk(b"a", b"b"), chunk(b"c")
    subscriber.expect(first)
    subscriber.expect(second)
    confirm(second)
    subscriber.acknowledge()
    assert subscriber.sent == []  # type: ignore[attr-defined]
    confirm(first)
    subscriber.acknowledge()
    assert subscriber.sent == [b"a", b"b", b"c"]  # type: ignore[attr-defined]
    assert subscriber.in_flight == 0


def test_acknowledge__kafka_refused_one__acknowledges_nothing_from_there_on(
    subscriber: Subscriber,
) -> None:
    good, bad, after = chunk(b"a"), chunk(b"b"), chunk(b"c")
    for one in (good, bad, after):
        subscriber.expect(one)
    confirm(good)
    confirm(bad, KafkaError(KafkaError._MSG_TIMED_OUT))
    confirm(after)
    subscriber.acknowledge()
    assert b"b" not in subscriber.sent  # type: ignore[attr-defined]
    assert b"c" not in subscriber.sent  # type: ignore[attr-defined]
    assert subscriber.in_flight == 0  # forgotten: the new connection brings them again


def test_acknowledge__confirmed_after_a_reconnect__is_not_sent_on_the_new_connection(
    subscriber: Subscriber,
) -> None:
    old = chunk(b"a")
    subscriber.expect(old)
    subscriber.reconnect("test")
    new = chunk(b"a")  # packet ids are used again
    subscriber.expect(new)
    confirm(old)
    subscriber.acknowledge()
    assert subscriber.sent == []  # type: ignore[attr-defined]
    confirm(new)
    subscriber.acknowledge()
    assert subscriber.sent == [b"a"]  # type: ignore[attr-defined]


def test_note_dropped__more_than_before__is_said_once_for_each_rise(subscriber: Subscriber) -> None:
    said = []
    subscriber._log = SimpleNamespace(error=lambda event, **fields: said.append(fields["dropped"]))  # type: ignore[assignment]
    for count in (0, 3, 3, 7, 2, 5):  # 2: the broker started anew
        subscriber.note_dropped(count)
    assert said == [3, 7, 5]
    assert metrics.BROKER_DROPPED.labels("mqtt://127.0.0.1:1")._value.get() == 5
