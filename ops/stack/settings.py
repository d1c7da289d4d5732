"""What can be chosen about a native stack, as environment variables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from doorstep.settings import ServiceSettings

PROJECT = Path(__file__).resolve().parents[2]

Port = Annotated[int, Field(ge=0, le=65535)]


class StackSettings(ServiceSettings):
    """Where the stack lies and listens. Port 0 means any free port."""

    doorstep_home: Path = PROJECT / ".doorstep" / "stack"
    doorstep_tools: Path = PROJECT / ".doorstep"

    # What devices, customers and staff reach: Mosquitto, driver_api and tracking_api.
    doorstep_bind: str = "127.0.0.1"
    # What only the parts themselves and a monitoring system reach.
    doorstep_internal_bind: str = "127.0.0.1"

    mqtt_brokers: Annotated[int, Field(ge=1, le=64)] = 1
    mqtt_port: Port = 1883
    kafka_port: Port = 9092
    database_port: Port = 5432
    tracking_api_port: Port = 8000
    driver_api_port: Port = 8001
    bridge_port: Port = 8003
    driver_events_port: Port = 8004

    # What customers' links begin with, where that is not the address that tracking_api listens on.
    tracking_api_public_url: str | None = None

    kafka_heap_opts: str = "-Xms256m -Xmx512m"
