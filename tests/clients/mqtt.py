"""A driver's MQTT client for tests: QoS 1, a session that survives, and the acks it received."""

from __future__ import annotations

from collections.abc import Iterable

from paho.mqtt.client import Client, MQTTMessageInfo
from paho.mqtt.enums import CallbackAPIVersion

from doorstep.mqtt_topics import ACK, POSITION, topic_of
from ops.servers.mosquitto import AnonymousMosquitto
from ops.servers.waiting import wait_until

CONNECT_TIMEOUT_S = 10.0


class DriverClient:
    """Publishes a driver's messages. `received` holds (topic, payload) of every ack."""

    def __init__(self, broker: AnonymousMosquitto, driver_id: str = "d1") -> None:
        self.driver_id = driver_id
        self.received: list[tuple[str, bytes]] = []
        self._client = Client(CallbackAPIVersion.VERSION2, client_id=driver_id, clean_session=False)
        self._client.max_inflight_messages_set(1000)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_message = lambda _, __, message: self.received.append(
            (message.topic, message.payload)
        )
        self._client.on_connect = lambda client, *_: client.subscribe(topic_of(driver_id, ACK), 0)
        self._client.connect("127.0.0.1", broker.port)
        self._client.loop_start()
        self._wait_connected()

    def publish(
        self, payloads: Iterable[bytes], kind: str = POSITION, *, retain: bool = False
    ) -> list[MQTTMessageInfo]:
        """Queue payloads for the driver's topic."""
        topic = topic_of(self.driver_id, kind)
        self._wait_connected()
        return [self._client.publish(topic, payload, 1, retain) for payload in payloads]

    def send(
        self, payloads: Iterable[bytes], kind: str = POSITION, timeout_s: float = 20.0
    ) -> None:
        """Publish payloads and wait for every PUBACK."""
        for info in self.publish(payloads, kind):
            info.wait_for_publish(timeout_s)
            assert info.is_published()

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()

    def _wait_connected(self) -> None:
        wait_until(self._client.is_connected, CONNECT_TIMEOUT_S, f"{self.driver_id} is connected")
