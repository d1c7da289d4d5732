"""The settings of tracking_api."""

from __future__ import annotations

from pydantic import Field, SecretStr, field_validator

from doorstep.http.serve import HttpSettings
from doorstep.kafka.access import KafkaSettings
from doorstep.settings import Bind, BindSetting

MAX_VIEWERS = 18_000  # each holds a file descriptor, of usually 20,000


class Settings(HttpSettings, KafkaSettings):
    """Environment variables of tracking_api; each field's name in capitals."""

    database_url: SecretStr
    customer_database_url: SecretStr
    database_pool_size: int = Field(default=10, ge=1, le=200)
    tracking_api_bind: BindSetting = Bind("127.0.0.1", 8000)
    tracking_api_internal_bind: BindSetting = Bind("127.0.0.1", 8010)
    tracking_api_public_url: str = "http://127.0.0.1:8000"
    kafka_updates_topic: str = "tracking-updates"
    kafka_positions_topic: str = "tracking-positions"
    kafka_series_topic: str = "series"
    stream_topics: str = "streams"
    live_max_viewers: int = Field(default=MAX_VIEWERS, ge=1, le=1_000_000)

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that staff may publish to and follow."""
        return tuple(name.strip() for name in self.stream_topics.split(",") if name.strip())

    @field_validator("tracking_api_public_url")
    @classmethod
    def _without_slash(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return value.rstrip("/")
