"""The bridge between a real Mosquitto and a real Kafka."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from ops.servers.kafka import KafkaServer
from ops.servers.mosquitto import AnonymousMosquitto
from ops.servers.services import ServiceProcess, bridge_process
from ops.servers.waiting import wait_until
from ops.stack.addresses import any_free_port
from tests.clients.kafka import contains_all, read_topic
from tests.clients.mqtt import DriverClient


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[AnonymousMosquitto]:
    server = AnonymousMosquitto(tmp_path / "mosquitto")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def bridge(
    tmp_path: Path, mosquitto: AnonymousMosquitto, kafka: KafkaServer
) -> Iterator[ServiceProcess]:
    service = bridge_process(tmp_path / "bridge", mosquitto.url, kafka.access)
    service.start()
    yield service
    service.stop()


def payloads(test: str, count: int) -> list[bytes]:
    return [f'{{"test": "{test}", "n": {n}}}'.encode() for n in range(count)]


def test_bridge__any_payload__is_forwarded_unchanged_keyed_by_driver(
    bridge: ServiceProcess, mosquitto: AnonymousMosquitto, kafka: KafkaServer
) -> None:
    odd = [b"\x00\xff\x1f\x8bnot json", b'{"n": 1}', b"x" * 65_000]
    phone = DriverClient(mosquitto, "driver-7")
    phone.send(odd)
    phone.send([b'{"status":"online"}', b""], "status")
    phone.close()

    found = read_topic(kafka.access, "driver-pos", contains_all(set(odd)))
    assert {message.key() for message in found if message.value() in odd} == {b"driver-7"}
    found = read_topic(kafka.access, "driver-status", lambda messages: len(messages) >= 2)
    assert [message.value() for message in found] == [b'{"status":"online"}', b""]


def test_bridge__one_driver__stays_in_order_in_one_partition(
    bridge: ServiceProcess, mosquitto: AnonymousMosquitto, kafka: KafkaServer
) -> None:
    sent = payloads("order", 3000)
    phone = DriverClient(mosquitto, "driver-8")
    phone.send(sent)
    phone.close()
    found = read_topic(kafka.access, "driver-pos", contains_all(set(sent)))
    mine = [message for message in found if message.key() == b"driver-8"]
    assert [message.value() for message in mine] == sent
    assert len({message.partition() for message in mine}) == 1
    wait_until(lambda: bridge.metric("doorstep_bridge_acked_total") >= 3000)
    wait_until(lambda: bridge.metric("doorstep_bridge_in_flight") == 0)


def test_bridge__starts_before_mosquitto_and_kafka__logs_that_it_waits_then_works(
    tmp_path: Path,
) -> None:
    mosquitto = AnonymousMosquitto(tmp_path / "mosquitto")
    kafka = KafkaServer(tmp_path / "kafka")
    bridge = bridge_process(tmp_path / "bridge", mosquitto.url, kafka.access)
    try:
        bridge.launch()
        wait_until(lambda: bridge.get("/readyz")[0] == 503)
        wait_until(lambda: {"waiting_for_mqtt", "waiting_for_kafka"} <= set(bridge.events()))
        assert bridge.get("/healthz")[0] == 200

        mosquitto.start()
        wait_until(lambda: bridge.metric("doorstep_bridge_connected") == 1)
        assert bridge.get("/readyz")[0] == 503  # Kafka is still down
        sent = payloads("early", 50)
        phone = DriverClient(mosquitto)
        phone.send(sent)
        phone.close()

        kafka.start()
        kafka.create_topics()
        bridge.wait_ready()
        read_topic(kafka.access, "driver-pos", contains_all(set(sent)))
    finally:
        for server in (bridge, mosquitto, kafka):
            server.stop()


def test_bridge__one_of_two_brokers_is_down__serves_the_other(
    tmp_path: Path, mosquitto: AnonymousMosquitto, kafka: KafkaServer
) -> None:
    away = any_free_port()
    bridge = bridge_process(
        tmp_path / "bridge", f"{mosquitto.url},mqtt://127.0.0.1:{away}", kafka.access
    )
    try:
        bridge.launch()
        wait_until(lambda: bridge.metric("doorstep_bridge_connected") == 1)
        sent = payloads("two", 20)
        phone = DriverClient(mosquitto)
        phone.send(sent)
        phone.close()
        read_topic(kafka.access, "driver-pos", contains_all(set(sent)))
        assert bridge.get("/readyz")[0] == 503

        other = AnonymousMosquitto(tmp_path / "other", away)
        other.start()
        try:
            bridge.wait_ready()
            more = payloads("other", 20)
            phone = DriverClient(other, "d2")
            phone.send(more)
            phone.close()
            read_topic(kafka.access, "driver-pos", contains_all(set(more)))
        finally:
            other.stop()
    finally:
        bridge.stop()


def test_bridge__publisher_reconnects__its_fixes_stay_in_order(
    bridge: ServiceProcess, mosquitto: AnonymousMosquitto, kafka: KafkaServer
) -> None:
    sent = payloads("publisher", 60)
    for part in (sent[:20], sent[20:40], sent[40:]):
        phone = DriverClient(mosquitto, "driver-9")
        phone.send(part)
        phone.close()
    found = read_topic(kafka.access, "driver-pos", contains_all(set(sent)))
    assert [m.value() for m in found if m.key() == b"driver-9"] == sent


def test_bridge__killed__unacknowledged_messages_are_redelivered(
    bridge: ServiceProcess, mosquitto: AnonymousMosquitto, kafka: KafkaServer
) -> None:
    sent = payloads("killed", 5000)
    phone = DriverClient(mosquitto)
    infos = phone.publish(sent)
    wait_until(lambda: bridge.metric("doorstep_bridge_messages_total") > 500)
    bridge.kill()
    bridge.start()
    for info in infos:
        info.wait_for_publish(20)
    phone.close()
    read_topic(kafka.access, "driver-pos", contains_all(set(sent)))


def test_bridge__sigterm__exits_with_0_and_its_session_queues(
    bridge: ServiceProcess, mosquitto: AnonymousMosquitto, kafka: KafkaServer
) -> None:
    phone = DriverClient(mosquitto)
    first, second = payloads("before", 30), payloads("while-down", 30)
    phone.send(first)
    bridge.signal(signal.SIGTERM)
    assert bridge.exit_code == 0
    assert "stopped" in bridge.events()
    phone.send(second)
    phone.close()
    bridge.start()
    read_topic(kafka.access, "driver-pos", contains_all({*first, *second}))


def test_bridge__mosquitto_killed__resent_messages_are_forwarded(
    bridge: ServiceProcess, mosquitto: AnonymousMosquitto, kafka: KafkaServer
) -> None:
    sent = payloads("mosquitto-killed", 400)
    phone = DriverClient(mosquitto)
    phone.publish(sent[:200])
    mosquitto.kill()
    mosquitto.start()
    wait_until(lambda: bridge.metric("doorstep_bridge_connections_total") >= 2)
    bridge.wait_ready()
    # PUBACK does not promise durability: the device resends from its journal.
    phone.send(sent)
    phone.close()
    read_topic(kafka.access, "driver-pos", contains_all(set(sent)))


def test_bridge__kafka_killed__acknowledges_nothing_and_loses_nothing(tmp_path: Path) -> None:
    kafka = KafkaServer(tmp_path / "kafka")
    mosquitto = AnonymousMosquitto(tmp_path / "mosquitto")
    bridge = bridge_process(
        tmp_path / "bridge", mosquitto.url, kafka.access, BRIDGE_MAX_IN_FLIGHT="100"
    )
    try:
        kafka.start()
        kafka.create_topics()
        mosquitto.start()
        bridge.start()
        phone = DriverClient(mosquitto)
        before, meanwhile = payloads("before", 200), payloads("kafka-down", 500)
        phone.send(before)
        wait_until(lambda: bridge.metric("doorstep_bridge_acked_total") == 200)

        kafka.kill()
        phone.send(meanwhile)
        # Back pressure: the broker stops at the receive maximum (Mosquitto 2.0.11 at up to twice).
        wait_until(lambda: 100 <= bridge.metric("doorstep_bridge_in_flight") <= 200)
        wait_until(lambda: bridge.get("/readyz")[0] == 503)
        assert bridge.metric("doorstep_bridge_acked_total") == 200
        assert bridge.metric("doorstep_bridge_in_flight") <= 200

        kafka.start()
        read_topic(kafka.access, "driver-pos", contains_all({*before, *meanwhile}), 60)
        wait_until(lambda: bridge.metric("doorstep_bridge_acked_total") == 700)
        bridge.wait_ready()
        phone.close()
    finally:
        for server in (bridge, mosquitto, kafka):
            server.stop()


def test_bridge__topic_missing__acknowledges_nothing_until_it_exists(
    tmp_path: Path, mosquitto: AnonymousMosquitto
) -> None:
    kafka = KafkaServer(tmp_path / "kafka")
    bridge = bridge_process(tmp_path / "bridge", mosquitto.url, kafka.access)
    try:
        kafka.start()
        bridge.start()
        phone = DriverClient(mosquitto)
        sent = payloads("no-topic", 20)
        phone.send(sent)
        phone.close()
        wait_until(lambda: bridge.metric("doorstep_bridge_messages_total") >= 20)
        assert bridge.metric("doorstep_bridge_acked_total") == 0
        kafka.create_topics()
        read_topic(kafka.access, "driver-pos", contains_all(set(sent)), 60)
    finally:
        for server in (bridge, kafka):
            server.stop()


def test_bridge__topic_recreated__recovers(
    tmp_path: Path, mosquitto: AnonymousMosquitto, kafka: KafkaServer
) -> None:
    topic = "driver-pos-recreated"
    client = AdminClient({**kafka.access.as_librdkafka_dict()})
    create = [NewTopic(topic, 4, 1)]
    client.create_topics(create)[topic].result(30)
    bridge = bridge_process(tmp_path / "bridge", mosquitto.url, kafka.access, KAFKA_TOPIC=topic)
    try:
        bridge.start()
        phone = DriverClient(mosquitto)
        phone.send(payloads("first", 200))
        wait_until(lambda: bridge.metric("doorstep_bridge_acked_total") >= 200)
        client.delete_topics([topic])[topic].result(30)
        wait_until(lambda: topic not in client.list_topics(timeout=5).topics)
        phone.send(payloads("between", 20))
        client.create_topics(create)[topic].result(30)
        phone.send(payloads("second", 200))
        phone.close()
        # Records confirmed before the deletion are gone with the topic; all others must exist.
        wanted = {*payloads("between", 20), *payloads("second", 200)}
        read_topic(kafka.access, topic, contains_all(wanted), 60)
        wait_until(lambda: bridge.metric("doorstep_bridge_in_flight") == 0)
    finally:
        bridge.stop()


def test_bridge__retained_points__are_relayed_and_no_longer_kept_by_the_broker(
    bridge: ServiceProcess, mosquitto: AnonymousMosquitto, kafka: KafkaServer
) -> None:
    source = Client(CallbackAPIVersion.VERSION2)
    source.connect("127.0.0.1", mosquitto.port)
    source.loop_start()
    wait_until(source.is_connected)
    topics = [f"doorstep/v1/series/source-1/measure-{n}" for n in range(100)]
    for topic in topics:
        source.publish(topic, b"x" * 60_000, 1, retain=True).wait_for_publish(20)
    wait_until(lambda: bridge.metric("doorstep_bridge_retained_cleared_total") >= len(topics))
    wait_until(lambda: bridge.metric("doorstep_bridge_in_flight") == 0)

    heard: list[str] = []
    source.on_message = lambda _c, _u, message: heard.append(message.topic)
    source.subscribe("doorstep/v1/series/#", 1)
    source.publish("doorstep/v1/series/source-1/last", b"1", 1).wait_for_publish(20)
    wait_until(lambda: bool(heard))
    source.disconnect()
    source.loop_stop()
    assert heard == ["doorstep/v1/series/source-1/last"]
    keys = {f"source-1/measure-{n}".encode() for n in range(100)}
    found = read_topic(kafka.access, "series", lambda all_: keys <= {one.key() for one in all_})
    assert all(one.value() for one in found)  # what clears is no point
