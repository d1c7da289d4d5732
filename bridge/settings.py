"""The bridge's settings."""

from __future__ import annotations

from pydantic import Field, SecretStr

from doorstep.kafka.access import KafkaSettings
from doorstep.settings import Bind, BindSetting, ListenerSettings, MqttBroker, MqttUrls
from doorstep.traces.settings import TraceSettings


class BridgeSettings(ListenerSettings, KafkaSettings, TraceSettings):
    """Environment variables of the bridge; each field's name in capitals."""

    mqtt_url: MqttUrls = (MqttBroker("127.0.0.1", 1883, tls=False),)
    mqtt_username: str = "bridge"
    mqtt_password: SecretStr = SecretStr("")
    bridge_client_id: str = Field(default="doorstep-bridge", pattern=r"^[A-Za-z0-9_-]{1,64}$")
    kafka_topic: str = "driver-pos"
    kafka_phone_topic: str = "phone-pos"
    kafka_status_topic: str = "driver-status"
    kafka_series_topic: str = "series"
    kafka_dead_letter_topic: str = "dead-letter"
    # MQTT's Receive Maximum: 50,000/s x (50 ms linger + 50 ms answer), doubled.
    bridge_max_in_flight: int = Field(default=10_000, ge=1, le=65535)
    bridge_bind: BindSetting = Bind("127.0.0.1", 8003)
