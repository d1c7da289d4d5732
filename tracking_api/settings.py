"""The settings of tracking_api."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from doorstep.http.serve import HttpSettings
from doorstep.kafka.groups import GroupSettings
from doorstep.settings import Bind, BindSetting
from doorstep.traces.settings import TraceSettings

MAX_VIEWERS = 18_000  # each holds a file descriptor, of usually 20,000


Serves = Literal["all", "customers", "staff"]


class Settings(HttpSettings, GroupSettings, TraceSettings):
    """Environment variables of tracking_api; each field's name in capitals."""

    tracking_api_serves: Serves = "all"
    database_url: SecretStr = SecretStr("")
    customer_database_url: SecretStr = SecretStr("")
    database_pool_size: int = Field(default=10, ge=1, le=200)
    tracking_api_bind: BindSetting = Bind("127.0.0.1", 8000)
    tracking_api_internal_bind: BindSetting = Bind("127.0.0.1", 8010)
    tracking_api_public_url: str = "http://127.0.0.1:8000"
    join_url: str = "http://127.0.0.1:8001/join"
    kafka_updates_topic: str = "tracking-updates"
    kafka_positions_topic: str = "tracking-positions"
    stream_topics: str = "streams"
    cities_dir: Path | None = None
    prometheus_url: str = ""
    vapid_key: SecretStr = SecretStr("")
    push_contact: str = ""
    live_max_viewers: int = Field(default=MAX_VIEWERS, ge=1, le=1_000_000)

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that staff may publish to and follow."""
        return tuple(name.strip() for name in self.stream_topics.split(",") if name.strip())

    @property
    def readable_topics(self) -> frozenset[str]:
        """The topics whose messages admins may read: none with positions."""
        return frozenset({self.kafka_updates_topic, self.kafka_series_topic, *self.topics})

    @property
    def stored_groups(self) -> Mapping[str, str]:
        """The topic of each of driver_events' consumer groups, whose offsets are rows."""
        return {
            self.kafka_group_id: self.kafka_topic,
            self.phone_group_id: self.kafka_phone_topic,
            self.series_group_id: self.kafka_series_topic,
        }

    @property
    def push_contact_url(self) -> str:
        """How a push service reaches the operator: a mailto: or https: URL."""
        return self.push_contact or self.tracking_api_public_url

    @property
    def staff_url(self) -> str | None:
        """The database's URL for staff. None if this process does not serve them."""
        serves_staff = self.tracking_api_serves != "customers"
        return self.database_url.get_secret_value() if serves_staff else None

    @property
    def customers_url(self) -> str | None:
        """The database's URL for customers. None if this process does not serve them."""
        serves_customers = self.tracking_api_serves != "staff"
        return self.customer_database_url.get_secret_value() if serves_customers else None

    @model_validator(mode="after")
    def _has_the_urls_of_its_sides(self) -> Self:
        urls = {"DATABASE_URL": self.staff_url, "CUSTOMER_DATABASE_URL": self.customers_url}
        for name, url in urls.items():
            if url == "":
                serves = self.tracking_api_serves
                raise ValueError(f"set {name}: required by TRACKING_API_SERVES={serves}")
        return self

    @field_validator("tracking_api_public_url")
    @classmethod
    def _without_slash(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return value.rstrip("/")
