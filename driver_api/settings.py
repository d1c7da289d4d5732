"""The settings of driver_api."""

from __future__ import annotations

from pydantic import Field, SecretStr

from doorstep.http.serve import HttpSettings
from doorstep.kafka.access import KafkaSettings
from doorstep.settings import Bind, BindSetting, MqttBroker, MqttUrls


class Settings(HttpSettings, KafkaSettings):
    """Environment variables of driver_api; each field's name in capitals."""

    database_url: SecretStr
    database_pool_size: int = Field(default=10, ge=1, le=200)
    driver_api_bind: BindSetting = Bind("127.0.0.1", 8001)
    driver_api_internal_bind: BindSetting = Bind("127.0.0.1", 8011)
    driver_api_token: SecretStr = SecretStr("")  # of driver_events' PATCH sink; empty: refused
    phone_http_url: str = "http://127.0.0.1:8001"
    phone_mqtt_url: MqttUrls = (MqttBroker("127.0.0.1", 1883, tls=False),)
    kafka_positions_topic: str = "tracking-positions"
