"""The settings of the operators' commands."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr

from doorstep.kafka.access import KafkaSettings
from doorstep.traces.settings import TraceSettings


class OperatorSettings(KafkaSettings, TraceSettings):
    """The addresses of the system that a command works on."""

    database_admin_url: SecretStr
    kafka_topic: str = "driver-pos"
    kafka_dead_letter_topic: str = "dead-letter"
    cities_dir: Path | None = None
    journal_dir: Path = Path(".doorstep/stack/journals")
