"""Publishes to the brokers over MQTT: acks in bulk, and retained commands."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from doorstep.mqtt_packets import PUBLISH, field, packet
from doorstep.mqtt_topics import ACK, COMMAND, topic_of
from doorstep.settings import MqttBroker
from doorstep.telemetry import get_logger

SESSION_TAKEN_OVER = 0x8E  # MQTT 5: another client connected with the same client id


def encode_publish(topic: str, payload: bytes) -> bytes:
    """Encode a PUBLISH packet of MQTT 5 with QoS 0, not retained and without properties."""
    return packet(PUBLISH, b"%b\0%b" % (field(topic.encode()), payload))


class MqttPublisher:
    """Sends acks with QoS 0: the next ack makes up for a lost one.

    Many acks are sent in one write through paho's private `_packet_queue`; paho's `publish` costs
    40 µs and two system calls per ack.
    """

    def __init__(self, brokers: Sequence[MqttBroker], username: str, password: str) -> None:
        self._clients = [_connect(broker, username, password) for broker in brokers]

    def send(self, acks: Sequence[tuple[str, bytes]]) -> set[str]:
        """Send acks, each to its driver's broker; return the drivers of unreachable ones."""
        packets: list[list[bytes]] = [[] for _ in self._clients]
        unreachable: set[str] = set()
        connected = [client.is_connected() for client in self._clients]
        for driver_id, payload in acks:
            number = self._shard_of(driver_id)
            if connected[number]:
                packets[number].append(encode_publish(topic_of(driver_id, ACK), payload))
            else:
                unreachable.add(driver_id)
        for client, queued in zip(self._clients, packets, strict=True):
            if queued:
                # Type 0 instead of PUBLISH, or paho looks up a message id.
                client._packet_queue(0, b"".join(queued), 0, 0)
        return unreachable

    def _shard_of(self, driver_id: str) -> int:
        """Return the index of a driver's broker: crc32(driver_id) mod their number."""
        return zlib.crc32(driver_id.encode()) % len(self._clients)

    def send_command(self, driver_id: str, payload: bytes) -> Callable[[], bool] | None:
        """Publish a command with QoS 1, retained: an offline device gets it when it connects.

        Returns None if the broker is unreachable, else a function that tells whether the broker has
        confirmed.
        """
        client = self._clients[self._shard_of(driver_id)]
        if not client.is_connected():
            return None
        info = client.publish(topic_of(driver_id, COMMAND), payload, qos=1, retain=True)
        return info.is_published if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS else None

    def send_message(self, driver_id: str, topic: str, payload: bytes) -> bool:
        """Publish with QoS 1, not retained: a session that is kept gets it.

        Returns False if the driver's broker is unreachable.
        """
        client = self._clients[self._shard_of(driver_id)]
        if not client.is_connected():
            return False
        return client.publish(topic, payload, qos=1).rc == MQTTErrorCode.MQTT_ERR_SUCCESS

    @property
    def connect_count(self) -> int:
        """How many times a broker has been connected."""
        return sum(client.user_data_get()["connects"] for client in self._clients)

    @property
    def is_connected(self) -> bool:
        """True if every broker is connected."""
        return all(client.is_connected() for client in self._clients)

    def close(self) -> None:
        """Disconnect."""
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
    client.on_connect = lambda _, counts, ___, code, ____: _on_connect(log, counts, code)
    client.on_disconnect = lambda _, __, ___, code, ____: _log_disconnect(log, code)
    client.reconnect_delay_set(1, 5)
    client.connect_async(broker.host, broker.port, keepalive=15)
    client.loop_start()
    return client


def _on_connect(log: Any, counts: dict[str, int], code: ReasonCode) -> None:
    counts["connects"] += 1
    log.info("mqtt_connected", code=str(code))


def _log_disconnect(log: Any, code: ReasonCode) -> None:
    if code.value == SESSION_TAKEN_OVER:
        log.error("mqtt_name_taken", hint="each driver_events needs an MQTT_USERNAME of its own")
    else:
        log.info("mqtt_disconnected", reason=str(code))
