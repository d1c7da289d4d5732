"""The topics that driver_events reads for the database, and its consumer group of each."""

from __future__ import annotations

from doorstep.kafka.access import KafkaSettings


class GroupSettings(KafkaSettings):
    """What driver_events, and who shows how far it has read, take from their environment."""

    kafka_topic: str = "driver-pos"
    kafka_phone_topic: str = "phone-pos"
    kafka_series_topic: str = "series"
    kafka_group_id: str = "driver-events"

    @property
    def phone_group_id(self) -> str:
        """The group that reads `kafka_phone_topic`."""
        return f"{self.kafka_group_id}-phones"

    @property
    def series_group_id(self) -> str:
        """The group that reads `kafka_series_topic`."""
        return f"{self.kafka_group_id}-series"
