"""What a device with valid credentials cannot do to others, on Mosquitto with the project's ACL.

Class 36 of docs/reference/bad-input.md, and the part of 31 that is MQTT's. test_mosquitto.py tests
what a device may do, and that packets over the limit end its connection.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from doorstep.credentials import mosquitto_entry
from ops.servers.mosquitto import MosquittoServer
from ops.servers.waiting import wait_until

PROTOCOLS = [
    pytest.param(MQTTProtocolVersion.MQTTv311, id="3.1.1"),
    pytest.param(MQTTProtocolVersion.MQTTv5, id="5"),
]


class Client:
    """A client that records what it receives."""

    def __init__(
        self,
        broker: MosquittoServer,
        username: str | None,
        *,
        password: str | None = None,
        client_id: str = "",
        protocol: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv5,
        will: tuple[str, bytes] | None = None,
    ) -> None:
        self.received: list[tuple[str, bytes, bool]] = []
        self.refusals: list[str] = []
        self.lost = threading.Event()
        self.connected = threading.Event()
        self.answered = threading.Event()
        self._broker = broker
        self.mqtt = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id, protocol=protocol, reconnect_on_failure=False
        )
        if username is not None:
            self.mqtt.username_pw_set(username, password or broker.password(username))
        if will is not None:
            self.mqtt.will_set(*will, qos=1, retain=True)
        self.mqtt.on_connect = self._on_connect
        self.mqtt.on_message = lambda _c, _u, m: self.received.append(
            (m.topic, m.payload, m.retain)
        )
        self.mqtt.on_disconnect = lambda *_: self.lost.set()
        self.mqtt.on_subscribe = lambda *_: self.answered.set()

    def _on_connect(
        self, _c: mqtt.Client, _u: object, _f: object, code: object, _p: object
    ) -> None:
        if str(code) == "Success":
            self.connected.set()
        else:
            self.refusals.append(str(code))

    def open(self) -> None:
        self.mqtt.connect("127.0.0.1", self._broker.port)
        self.mqtt.loop_start()

    def subscribe(self, topic: str) -> None:
        """Subscribe, and wait for the SUBACK or the end of the connection."""
        self.answered.clear()
        self.mqtt.subscribe(topic, 1)
        wait_until(lambda: self.answered.is_set() or self.lost.is_set())

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish with QoS 1, and wait for the PUBACK or the end of the connection."""
        info = self.mqtt.publish(topic, payload, 1, retain)
        wait_until(lambda: info.is_published() or self.lost.is_set())

    def break_off(self) -> None:
        """Close the socket without DISCONNECT, so that the broker sends the will."""
        sock = self.mqtt.socket()
        assert sock is not None
        self.mqtt.on_disconnect = None
        self.mqtt.loop_stop()
        sock.close()

    def close(self) -> None:
        self.mqtt.disconnect()
        self.mqtt.loop_stop()


@contextmanager
def connected(broker: MosquittoServer, username: str, **options: object) -> Iterator[Client]:
    client = Client(broker, username, **options)  # type: ignore[arg-type]
    client.open()
    try:
        assert client.connected.wait(30), client.refusals
        yield client
    finally:
        client.close()


@pytest.fixture(scope="module", autouse=True)
def drivers(mosquitto_broker: MosquittoServer) -> None:
    mosquitto_broker.add_drivers("anna", "bruno")


@pytest.fixture
def bridge_client(mosquitto_broker: MosquittoServer) -> Iterator[Client]:
    """A client with the bridge's subscriptions: what it receives enters the platform."""
    with connected(mosquitto_broker, "bridge") as bridge:
        for kind in ("position", "status"):
            bridge.subscribe(f"doorstep/v1/drivers/+/{kind}")
        yield bridge


def received_until(bridge_client: Client, device: Client, marker: bytes) -> list[tuple[str, bytes]]:
    """Return what was delivered before the device's own, good message."""
    device.publish("doorstep/v1/drivers/anna/position", marker)
    wait_until(lambda: any(payload == marker for _, payload, _ in bridge_client.received))
    return [(topic, payload) for topic, payload, _ in bridge_client.received if payload != marker]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_31_publish_for_other_driver__is_not_delivered(
    mosquitto_broker: MosquittoServer, bridge_client: Client, protocol: MQTTProtocolVersion
) -> None:
    with connected(mosquitto_broker, "anna", protocol=protocol) as anna:
        for topic in (
            "doorstep/v1/drivers/bruno/position",
            "doorstep/v1/drivers/bruno/status",
            "doorstep/v1/drivers/bruno/ack",
            "doorstep/v1/drivers/anna/ack",
            "doorstep/v1/drivers/anna/command",
            "doorstep/v1/drivers//position",
            "doorstep/v1/drivers/anna/position/deeper",
            "doorstep/v1/drivers/ANNA/position",
            "doorstep/v2/drivers/anna/position",
            "$SYS/broker/version",
        ):
            for retain in (False, True):
                anna.publish(topic, b"forged", retain=retain)
        assert received_until(bridge_client, anna, b"own") == []


@pytest.mark.parametrize("topic", ["doorstep/v1/drivers/+/position", "doorstep/v1/drivers/#", "#"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_36_publish_to_wildcard__ends_the_connection(
    mosquitto_broker: MosquittoServer,
    bridge_client: Client,
    protocol: MQTTProtocolVersion,
    topic: str,
) -> None:
    with connected(mosquitto_broker, "anna", protocol=protocol) as anna:
        # paho refuses such a topic: send the packet by hand
        name = topic.encode()
        body = (
            len(name).to_bytes(2, "big") + name + b"\0" * (protocol == MQTTProtocolVersion.MQTTv5)
        )
        sock = anna.mqtt.socket()
        assert sock is not None
        sock.sendall(  # type: ignore[attr-defined]
            bytes([0x30, len(body)]) + body
        )
        assert anna.lost.wait(30)
    assert bridge_client.received == []


@pytest.mark.parametrize(
    "topic",
    [
        "#",
        "+/+/+/+/+",
        "$SYS/#",
        "doorstep/v1/drivers/+/ack",
        "doorstep/v1/drivers/bruno/ack",
        "doorstep/v1/drivers/bruno/#",
        "doorstep/v1/drivers/+/position",
        "doorstep/v1/drivers/anna/position",
        "$share/thieves/doorstep/v1/drivers/+/ack",
    ],
)
def test_36_subscribe_to_other_topics__receives_nothing(
    mosquitto_broker: MosquittoServer, topic: str
) -> None:
    with (
        connected(mosquitto_broker, "bruno") as bruno,
        connected(mosquitto_broker, "driver_events") as service,
        connected(mosquitto_broker, "anna") as anna,
    ):
        anna.subscribe(topic)
        anna.subscribe("doorstep/v1/drivers/anna/command")
        service.publish("doorstep/v1/drivers/bruno/ack", b"his")
        bruno.publish("doorstep/v1/drivers/bruno/position", b"his")
        anna.publish("doorstep/v1/drivers/anna/position", b"hers")
        service.publish("doorstep/v1/drivers/anna/command", b"the last")
        wait_until(lambda: any(payload == b"the last" for _, payload, _ in anna.received))
    assert {topic for topic, _, _ in anna.received} == {"doorstep/v1/drivers/anna/command"}


@pytest.mark.parametrize("username", [None, "anna", "bridge", "unknown-driver", "", "+", "#"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_36_connect_without_right_password__is_refused(
    mosquitto_broker: MosquittoServer, protocol: MQTTProtocolVersion, username: str | None
) -> None:
    client = Client(mosquitto_broker, username, password="wrong", client_id="x", protocol=protocol)
    client.open()
    try:
        wait_until(lambda: client.refusals, description="a refusal")
        assert not client.connected.is_set()
    finally:
        client.close()


def test_36_other_devices_client_id__takes_nothing_over_and_receives_nothing(
    mosquitto_broker: MosquittoServer,
) -> None:
    with (
        connected(mosquitto_broker, "bruno", client_id="bruno") as bruno,
        connected(mosquitto_broker, "bridge", client_id="doorstep-bridge") as bridge,
    ):
        bruno.subscribe("doorstep/v1/drivers/bruno/ack")
        bridge.subscribe("doorstep/v1/drivers/+/position")
        for stolen in ("bruno", "doorstep-bridge", "bridge", "driver_events"):
            with connected(mosquitto_broker, "anna", client_id=stolen) as anna:
                anna.publish("doorstep/v1/drivers/anna/position", stolen.encode())
                assert not anna.received
        wait_until(lambda: len(bridge.received) == 4)
        with connected(mosquitto_broker, "driver_events") as service:
            service.publish("doorstep/v1/drivers/bruno/ack", b"still his")
        wait_until(lambda: bruno.received)
        assert not bruno.lost.is_set()
        assert not bridge.lost.is_set()


@pytest.mark.parametrize("username", ["+", "#", "+/position", "anna/position", ""])
def test_36_wildcard_as_user_name__opens_no_topic(
    mosquitto_broker: MosquittoServer, bridge_client: Client, username: str
) -> None:
    """Such a driver cannot be registered; the test writes it into the password file."""
    path = mosquitto_broker.paths.password_file
    kept = path.read_text()
    entry = mosquitto_entry(mosquitto_broker.paths.fleet_key(), username)
    path.write_text(f"{kept}{entry}\n")
    mosquitto_broker.add_drivers("carla")  # the broker reads its file again
    client = Client(mosquitto_broker, username, client_id="w")
    client.open()
    try:
        wait_until(lambda: client.connected.is_set() or client.refusals or client.lost.is_set())
        if client.connected.is_set():
            client.subscribe("doorstep/v1/drivers/anna/ack")
            for topic in (f"doorstep/v1/drivers/{username}/position",) * (
                not {"+", "#"} & set(username)
            ) + ("doorstep/v1/drivers/anna/position",):
                client.publish(topic, b"forged")
        with (
            connected(mosquitto_broker, "driver_events") as service,
            connected(mosquitto_broker, "anna") as anna,
        ):
            service.publish("doorstep/v1/drivers/anna/ack", b"hers")
            through = received_until(bridge_client, anna, b"own")
        assert [topic for topic, _ in through if "anna" in topic.split("/")] == []
        assert client.received == []
    finally:
        client.close()


def test_36_will_on_other_drivers_topic__is_never_sent(
    mosquitto_broker: MosquittoServer, bridge_client: Client
) -> None:
    for topic in ("doorstep/v1/drivers/bruno/status", "doorstep/v1/drivers/bruno/position"):
        thief = Client(mosquitto_broker, "anna", client_id="w", will=(topic, b"his will"))
        thief.open()
        assert thief.connected.wait(30) or thief.refusals
        if thief.connected.is_set():
            thief.break_off()
        thief.close()
    with connected(
        mosquitto_broker, "anna", will=("doorstep/v1/drivers/anna/status", b"her will")
    ) as anna:
        anna.break_off()
        wait_until(lambda: any(payload == b"her will" for _, payload, _ in bridge_client.received))
    assert [topic for topic, _, _ in bridge_client.received] == ["doorstep/v1/drivers/anna/status"]


def test_36_retained_junk_on_own_topics__reaches_no_other_driver(
    mosquitto_broker: MosquittoServer,
) -> None:
    junk = b"\x00\xff" + b"junk" * 1000
    with connected(mosquitto_broker, "bruno") as bruno:
        for kind in ("status", "position"):
            bruno.publish(f"doorstep/v1/drivers/bruno/{kind}", junk, retain=True)
        bruno.publish("doorstep/v1/drivers/anna/ack", junk, retain=True)
    with connected(mosquitto_broker, "anna") as anna:
        for kind in ("ack", "command"):
            anna.subscribe(f"doorstep/v1/drivers/anna/{kind}")
        with connected(mosquitto_broker, "driver_events") as service:
            service.publish("doorstep/v1/drivers/anna/ack", b"hers")
        wait_until(lambda: anna.received)
        assert [payload for _, payload, _ in anna.received] == [b"hers"]
