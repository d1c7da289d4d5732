"""OwnTracks over MQTT, as Android speaks it, and a model of its queue.

MQTT 3.1, QoS 1, retained, clean session off, a last will, and the app's default subscriptions,
whatever the configuration says of them. A position leaves the queue at its PUBACK.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.integration.phone_apps import Entry, OwnTracksAndroid

TIMEOUT_S = 5.0
SUBSCRIPTIONS = ("owntracks/+/+", "owntracks/+/+/event", "owntracks/+/+/info")


@dataclass
class MqttPhone:
    """A connection of the app; `commands` holds what came to its own topic, `other` the rest."""

    configuration: dict[str, Any]
    ca_file: Path | None = None
    commands: list[dict[str, Any]] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    client: mqtt.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = self._new()

    @property
    def topic(self) -> str:
        return str(self.configuration["pubTopicBase"])

    def _new(self) -> mqtt.Client:
        found = self.configuration
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=found["clientId"],
            clean_session=False,
            protocol=MQTTProtocolVersion.MQTTv31,
        )
        client.username_pw_set(found["username"], found["password"])
        if found["tls"]:
            client.tls_set(str(self.ca_file))
        client.will_set(self.topic, json.dumps({"_type": "lwt"}), qos=0)
        client.reconnect_delay_set(1, 1)
        client.on_connect = self._on_connect
        client.on_message = self._on_message
        client.connect_async(found["host"], found["port"], keepalive=3600)
        client.loop_start()
        return client

    def _on_connect(self, client: mqtt.Client, *_: object) -> None:
        for topic in (*SUBSCRIPTIONS, f"{self.topic}/cmd"):
            client.subscribe(topic, 1)

    def _on_message(self, _: mqtt.Client, __: object, message: mqtt.MQTTMessage) -> None:
        if message.topic == f"{self.topic}/cmd":
            self.commands.append(json.loads(message.payload))
        else:
            self.other.append(message.topic)

    @property
    def is_connected(self) -> bool:
        return self.client.is_connected()

    def publish(self, message: bytes) -> bool:
        """Publish, retained, and wait. False without a PUBACK: it may have arrived all the same."""
        if not self.is_connected:
            return False
        info = self.client.publish(self.topic, message, qos=1, retain=True)
        try:
            info.wait_for_publish(TIMEOUT_S)
        except RuntimeError:  # the connection has just failed
            return False
        return info.is_published()

    def restart(self) -> None:
        """Kill the app, without a DISCONNECT, and start it again."""
        self.kill()
        self.client = self._new()

    def kill(self) -> None:
        self.client.loop_stop()
        if (connection := self.client.socket()) is not None:
            connection.close()

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class OwnTracksMqtt(OwnTracksAndroid):
    """PUBACK: removed. Without one, the head is published again."""

    name = "owntracks-mqtt"

    def __init__(self, driver_id: str, phone: MqttPhone) -> None:
        self.driver_id, self.phone = driver_id, phone
        self.queue: deque[Entry] = deque()
        self.safe: list[Entry] = []
        self.tries = 0

    def send_next(self) -> bool:
        self.tries += 1
        if not self.phone.publish(self.body(self.queue[0])):
            return False
        self.safe.append(self.queue.popleft())
        return True

    def restart(self) -> None:
        self.phone.restart()

    def close(self) -> None:
        self.phone.close()


def location(at_s: int, lat_deg: float, lon_deg: float, mode: int = 2) -> dict[str, object]:
    """A position as OwnTracks writes it."""
    return {
        "_type": "location",
        "_id": f"{at_s:x}",
        "tst": at_s,
        "lat": lat_deg,
        "lon": lon_deg,
        "acc": 8,
        "batt": 80,
        "m": mode,
        "t": "u",
        "tid": "xx",
    }
