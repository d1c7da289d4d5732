"""Publishing to the brokers over MQTT: acks, many at once, and retained commands."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from doorstep.mqtt_topics import ACK, COMMAND, topic_of
from doorstep.settings import MqttBroker
from doorstep.telemetry import get_logger

SESSION_TAKEN_OVER = 0x8E  # MQTT 5: another client has come with the same client id


def publish_frame(topic: str, payload: bytes) -> bytes:
    """Encode a PUBLISH packet of MQTT 5 with QoS 0, not retained and without properties."""
    name = topic.encode()
    left = 2 + len(name) + 1 + len(payload)
    head = bytearray(b"\x30")
    while left > 0x7F:
        head.append(left & 0x7F | 0x80)
        left >>= 7
    head.append(left)
    return b"%b%b%b\0%b" % (bytes(head), len(name).to_bytes(2, "big"), name, payload)


class MqttPublisher:
    """Sends acks with QoS 0: a lost one is followed by the next.

    Many go out in one write, by paho's private `_packet_queue`: its `publish` costs 40 µs and two
    system calls for each.
    """

    def __init__(self, brokers: Sequence[MqttBroker], username: str, password: str) -> None:
        self._clients = [_connect(broker, username, password) for broker in brokers]

    def send(self, acks: Sequence[tuple[str, bytes]]) -> set[str]:
        """Send acks, each to its driver's broker; return the drivers whose broker is away."""
        frames: list[list[bytes]] = [[] for _ in self._clients]
        away: set[str] = set()
        is_there = [client.is_connected() for client in self._clients]
        for driver_id, payload in acks:
            number = self._number_of(driver_id)
            if is_there[number]:
                frames[number].append(publish_frame(topic_of(driver_id, ACK), payload))
            else:
                away.add(driver_id)
        for client, joined in zip(self._clients, frames, strict=True):
            if joined:
                # Queued as no PUBLISH, so that paho does not look for the one message that it is.
                client._packet_queue(0, b"".join(joined), 0, 0)
        return away

    def _number_of(self, driver_id: str) -> int:
        """Say which broker is a driver's: crc32(driver_id) mod their number."""
        return zlib.crc32(driver_id.encode()) % len(self._clients)

    def send_command(self, driver_id: str, payload: bytes) -> Callable[[], bool] | None:
        """Leave a command with the driver's broker, QoS 1, retained: whoever is off gets it later.

        None if the broker is away; else a function that says whether it has confirmed.
        """
        client = self._clients[self._number_of(driver_id)]
        if not client.is_connected():
            return None
        info = client.publish(topic_of(driver_id, COMMAND), payload, qos=1, retain=True)
        return info.is_published if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS else None

    @property
    def connects(self) -> int:
        """How often a broker was connected to."""
        return sum(client.user_data_get()["connects"] for client in self._clients)

    @property
    def is_connected(self) -> bool:
        """Whether every broker is there."""
        return all(client.is_connected() for client in self._clients)

    def close(self) -> None:
        """Hang up."""
        for client in self._clients:
            client.disconnect()
            client.loop_stop()


def _connect(broker: MqttBroker, username: str, password: str) -> Client:
    client = Client(
        CallbackAPIVersion.VERSION2, client_id=username, protocol=MQTTProtocolVersion.MQTTv5
    )
    client.username_pw_set(username, password)
    if broker.tls:
        client.tls_set()
    log = get_logger(broker=str(broker), username=username)
    client.user_data_set({"connects": 0})
    client.on_connect = lambda _, counts, ___, code, ____: _count(log, counts, code)
    client.on_disconnect = lambda _, __, ___, code, ____: _say_why(log, code)
    client.reconnect_delay_set(1, 5)
    client.connect_async(broker.host, broker.port, keepalive=15)
    client.loop_start()
    return client


def _count(log: Any, counts: dict[str, int], code: ReasonCode) -> None:
    counts["connects"] += 1
    log.info("mqtt_connected", code=str(code))


def _say_why(log: Any, code: ReasonCode) -> None:
    if code.value == SESSION_TAKEN_OVER:
        log.error("mqtt_name_taken", hint="each driver_events needs an MQTT_USERNAME of its own")
    else:
        log.info("mqtt_disconnected", reason=str(code))
