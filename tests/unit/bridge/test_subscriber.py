"""Acknowledgement order. The seam replaced: the MQTT client records what it would send."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError

from bridge import metrics
from bridge.subscriber import BROKER_GAUGES, DROPPED_TOPIC, AckBatch, Subscriber
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


def batch(*packet_ids: bytes) -> AckBatch:
    return AckBatch(list(packet_ids), unconfirmed=len(packet_ids))


def confirm(one: AckBatch, error: KafkaError | None = None) -> None:
    for _ in one.packet_ids:
        one.on_delivery(error, None)


def test_acknowledge__confirmed_out_of_order__goes_out_in_the_order_received(
    subscriber: Subscriber,
) -> None:
    first, second = batch(b"a", b"b"), batch(b"c")
    subscriber.enqueue(first)
    subscriber.enqueue(second)
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
    good, bad, after = batch(b"a"), batch(b"b"), batch(b"c")
    for one in (good, bad, after):
        subscriber.enqueue(one)
    confirm(good)
    confirm(bad, KafkaError(KafkaError._MSG_TIMED_OUT))
    confirm(after)
    subscriber.acknowledge()
    assert b"b" not in subscriber.sent  # type: ignore[attr-defined]
    assert b"c" not in subscriber.sent  # type: ignore[attr-defined]
    assert subscriber.in_flight == 0  # discarded: the broker redelivers them


def test_acknowledge__confirmed_after_a_reconnect__is_not_sent_on_the_new_connection(
    subscriber: Subscriber,
) -> None:
    old = batch(b"a")
    subscriber.enqueue(old)
    subscriber.reconnect("test")
    new = batch(b"a")  # packet ids are reused
    subscriber.enqueue(new)
    confirm(old)
    subscriber.acknowledge()
    assert subscriber.sent == []  # type: ignore[attr-defined]
    confirm(new)
    subscriber.acknowledge()
    assert subscriber.sent == [b"a"]  # type: ignore[attr-defined]


def test_update_broker_dropped__more_than_before__is_logged_once_per_rise(
    subscriber: Subscriber,
) -> None:
    logged = []
    subscriber._log = SimpleNamespace(
        error=lambda event, **fields: logged.append(fields["dropped"])
    )  # type: ignore[assignment]
    for count in (0, 3, 3, 7, 2, 5):  # 2: the broker has restarted
        subscriber.update_broker_dropped(count)
    assert logged == [3, 7, 5]
    assert metrics.BROKER_DROPPED.labels("mqtt://127.0.0.1:1")._value.get() == 5


def test_update_broker_figure__each_topic__has_a_gauge_of_its_own(subscriber: Subscriber) -> None:
    topics = {topic: number for number, topic in enumerate((DROPPED_TOPIC, *BROKER_GAUGES), 1)}
    for topic, number in topics.items():
        subscriber.update_broker_figure(topic, number)
    subscriber.update_broker_figure("$SYS/broker/uptime", 99)
    gauges = {DROPPED_TOPIC: metrics.BROKER_DROPPED, **BROKER_GAUGES}
    found = {
        topic: gauge.labels("mqtt://127.0.0.1:1")._value.get() for topic, gauge in gauges.items()
    }
    assert found == topics
