"""What a driver enters, scans or opens to set a phone app up. Pure."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self
from urllib.parse import quote, urlencode

from doorstep.credentials import phone_username
from doorstep.mqtt_topics import PHONE_DEVICE, phone_command_topic_of, phone_topic_of
from doorstep.phones.owntracks import MOVE
from doorstep.settings import MqttBroker

HTTP_MODE, MQTT_MODE = 3, 0
INTERVAL_S = 10  # of Traccar Client
KEEPALIVE_S = 60


@dataclass(frozen=True, slots=True)
class Phone:
    """A driver's phone, and where it sends to: driver_api's address and the driver's broker."""

    driver_id: str
    token: str
    base_url: str
    broker: MqttBroker

    @classmethod
    def at(cls, driver_id: str, token: str, base_url: str, brokers: Sequence[MqttBroker]) -> Self:
        """Return a driver's phone, with the broker that is the driver's."""
        broker = brokers[zlib.crc32(driver_id.encode()) % len(brokers)]
        return cls(driver_id, token, base_url, broker)

    @property
    def owntracks_url(self) -> str:
        return f"{self.base_url}/owntracks"

    @property
    def traccar_url(self) -> str:
        return f"{self.base_url}/osmand"

    @property
    def overland_url(self) -> str:
        return f"{self.base_url}/overland"

    def owntracks_http(self, monitoring: int = MOVE) -> dict[str, object]:
        """Return OwnTracks' configuration for HTTP: an answer means committed."""
        return {
            **self._owntracks(monitoring),
            "mode": HTTP_MODE,
            "url": self.owntracks_url,
            "username": self.driver_id,
        }

    def owntracks_mqtt(self, monitoring: int = MOVE) -> dict[str, object]:
        """Return OwnTracks' configuration for MQTT.

        It publishes under the driver's id, retains nothing, and subscribes to its own commands
        only: the app's default subscription costs the broker a look per client and message.
        """
        topic = phone_topic_of(self.driver_id)
        return {
            **self._owntracks(monitoring),
            "mode": MQTT_MODE,
            "host": self.broker.host,
            "port": self.broker.port,
            "tls": self.broker.tls,
            "ws": False,
            "username": phone_username(self.driver_id),
            "clientId": phone_username(self.driver_id),
            "keepalive": KEEPALIVE_S,
            "cleanSession": False,
            "pubTopicBase": topic,
            "pubRetain": False,
            "pubQos": 1,
            "sub": True,
            "subTopic": phone_command_topic_of(self.driver_id),
            "subQos": 1,
        }

    def _owntracks(self, monitoring: int) -> dict[str, object]:
        return {
            "_type": "configuration",
            "auth": True,
            "password": self.token,
            "deviceId": PHONE_DEVICE,
            "tid": self.driver_id[:2],
            "monitoring": monitoring,
            "cmd": True,
            "remoteConfiguration": True,  # Android takes `monitoring` from here
            "allowRemoteLocation": True,
        }

    def traccar_link(self, interval_s: int = INTERVAL_S) -> str:
        """Return Traccar Client's configuration link."""
        settings = {"url": self.traccar_url, "id": self.token, "interval": interval_s}
        return f"org.traccar.client://config?{urlencode(settings)}"


def owntracks_link(configuration: dict[str, object]) -> str:
    """Return OwnTracks' configuration link. Android decodes the address, so `+` is escaped."""
    inline = base64.b64encode(json.dumps(configuration, separators=(",", ":")).encode())
    return f"owntracks:///config?inline={quote(inline.decode(), safe='')}"
