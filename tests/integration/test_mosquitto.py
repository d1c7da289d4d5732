"""Mosquitto with the project's configuration: logins, topics, sessions."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from ops.servers.mosquitto import MosquittoServer
from ops.servers.waiting import wait_until
from tests.integration.mqtt_client import MqttClient

TOPIC = "doorstep/v1/drivers/{}/{}"


class Client(MqttClient):
    """A paho client with waits for messages and connection."""

    def __init__(self, broker: MosquittoServer, username: str, client_id: str = "") -> None:
        self.messages: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self.disconnected = threading.Event()
        self.mqtt = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id, protocol=MQTTProtocolVersion.MQTTv5
        )
        self.mqtt.username_pw_set(username, broker.password(username))
        self.mqtt.on_message = lambda _c, _u, message: self.messages.put(
            (message.topic, message.payload)
        )
        self.mqtt.on_disconnect = lambda *_: self.disconnected.set()
        self._broker = broker

    def connect(self, *, session: bool = False) -> None:
        """Connect, with a persistent session if `session`."""
        properties = Properties(PacketTypes.CONNECT)
        if session:
            properties.SessionExpiryInterval = 3600
        self.mqtt.connect(
            "127.0.0.1", self._broker.port, clean_start=not session, properties=properties
        )
        self.mqtt.loop_start()
        wait_until(self.mqtt.is_connected)


@contextmanager
def connected(broker: MosquittoServer, username: str, **options: Any) -> Iterator[Client]:
    client = Client(broker, username, **options)
    client.connect()
    try:
        yield client
    finally:
        client.close()


@pytest.fixture(scope="module", autouse=True)
def drivers(mosquitto_broker: MosquittoServer) -> None:
    mosquitto_broker.add_drivers("anna", "bruno")


def test_wrong_password__is_refused(mosquitto_broker: MosquittoServer) -> None:
    assert mosquitto_broker.accepts("anna")
    assert not mosquitto_broker.accepts("anna", mosquitto_broker.password("bruno"))
    assert not mosquitto_broker.accepts("anna", "")
    assert not mosquitto_broker.accepts("unknown-driver")


def test_device__publishes_on_its_own_topics_only(mosquitto_broker: MosquittoServer) -> None:
    with (
        connected(mosquitto_broker, "bridge") as bridge,
        connected(mosquitto_broker, "anna") as anna,
    ):
        bridge.subscribe(TOPIC.format("+", "position"))
        for who, kind in (("bruno", "position"), ("anna", "ack"), ("anna", "nonsense")):
            anna.publish(TOPIC.format(who, kind), b"not hers")
        anna.publish(TOPIC.format("anna", "position"), b"hers")

        assert bridge.messages.get(timeout=30) == (TOPIC.format("anna", "position"), b"hers")
        assert bridge.messages.empty()


def test_device__receives_its_own_topics_only(mosquitto_broker: MosquittoServer) -> None:
    with (
        connected(mosquitto_broker, "driver_events") as service,
        connected(mosquitto_broker, "anna") as anna,
    ):
        for topic in ("#", TOPIC.format("+", "ack"), TOPIC.format("anna", "ack")):
            anna.subscribe(topic)
        service.publish(TOPIC.format("bruno", "ack"), b"his")
        service.publish(TOPIC.format("anna", "ack"), b"hers")
        topic, payload = anna.messages.get(timeout=30)

        assert (topic, payload) == (TOPIC.format("anna", "ack"), b"hers")
        assert {message for _, message in list(anna.messages.queue)} <= {b"hers"}


def test_device__cannot_take_over_another_session(mosquitto_broker: MosquittoServer) -> None:
    with (
        connected(mosquitto_broker, "bruno", client_id="bruno") as bruno,
        connected(mosquitto_broker, "anna", client_id="bruno"),
    ):
        assert not bruno.disconnected.wait(0.5)


def test_second_driver_events__with_its_own_name__does_not_disconnect_the_first(
    mosquitto_broker: MosquittoServer,
) -> None:
    with (
        connected(mosquitto_broker, "driver_events") as first,
        connected(mosquitto_broker, "driver_events-2") as second,
        connected(mosquitto_broker, "anna") as anna,
    ):
        anna.subscribe(TOPIC.format("anna", "ack"))
        for sender in (first, second):
            sender.publish(TOPIC.format("anna", "ack"), b"{}")
            assert anna.messages.get(timeout=30)[1] == b"{}"
        assert not first.disconnected.is_set()


def test_packet_too_large__is_disconnected_without_puback(
    mosquitto_broker: MosquittoServer,
) -> None:
    with (
        connected(mosquitto_broker, "bridge") as bridge,
        connected(mosquitto_broker, "anna") as anna,
    ):
        bridge.subscribe(TOPIC.format("+", "position"))
        anna.publish(TOPIC.format("anna", "position"), bytes(65_536))
        assert len(bridge.messages.get(timeout=30)[1]) == 65_536

        anna.mqtt.publish(TOPIC.format("anna", "position"), bytes(80_000), qos=1)
        assert anna.disconnected.wait(30)
        anna.mqtt.disconnect()  # otherwise it resends the packet


def test_session__broker_is_stopped__keeps_its_messages(mosquitto_broker: MosquittoServer) -> None:
    bridge = Client(mosquitto_broker, "bridge")
    bridge.connect(session=True)
    bridge.subscribe(TOPIC.format("+", "position"))
    bridge.close()
    with connected(mosquitto_broker, "anna") as anna:
        for number in range(2000):
            anna.mqtt.publish(TOPIC.format("anna", "position"), str(number).encode(), qos=1)
        anna.publish(TOPIC.format("anna", "position"), b"last")

    mosquitto_broker.stop()
    mosquitto_broker.start()
    again = Client(mosquitto_broker, "bridge")
    again.connect(session=True)
    try:
        heard = [again.messages.get(timeout=30)[1] for _ in range(2001)]
    finally:
        again.close()

    assert heard == [*(str(number).encode() for number in range(2000)), b"last"]


def test_driver_added_at_run_time__can_log_in_and_others_stay_connected(
    mosquitto_broker: MosquittoServer,
) -> None:
    with connected(mosquitto_broker, "anna") as anna:
        assert not mosquitto_broker.accepts("carla")
        mosquitto_broker.add_drivers("carla")

        assert mosquitto_broker.accepts("carla")
        assert not anna.disconnected.is_set()
