"""The settings of driver_events."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr

from doorstep.kafka.groups import GroupSettings
from doorstep.settings import Bind, BindSetting, ListenerSettings, MqttBroker, MqttUrls
from doorstep.traces.settings import TraceSettings


class DriverEventsSettings(ListenerSettings, GroupSettings, TraceSettings):
    """Environment variables of driver_events; each field's name in capitals."""

    kafka_dead_letter_topic: str = "dead-letter"
    kafka_updates_topic: str = "tracking-updates"
    kafka_positions_topic: str = "tracking-positions"
    database_url: SecretStr
    mqtt_url: MqttUrls = (MqttBroker("127.0.0.1", 1883, tls=False),)
    mqtt_username: str = "driver_events"
    mqtt_password: SecretStr = SecretStr("")
    ack_every_s: float = Field(default=30.0, gt=0)
    max_batch_fixes: int = Field(default=5000, ge=1, le=100_000)
    max_batch_age_s: float = Field(default=0.05, gt=0, le=10)
    sampling_follows_demand: bool = True
    dead_letters_per_minute: float = Field(default=20.0, gt=0)
    series_retention_days: float = Field(default=7.0, gt=0, le=3650)
    fix_sink: Literal["database", "driver_api"] = "database"
    driver_api_url: str = "http://127.0.0.1:8001"
    driver_api_token: SecretStr = SecretStr("")
    driver_events_bind: BindSetting = Bind("127.0.0.1", 8004)
