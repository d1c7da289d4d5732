"""docker-compose.yml as a test reads it: interpolated, with the anchors merged.

No engine is started: whether one reads the file the same way is not tested here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from doorstep.settings import Bind
from ops.stack.addresses import MONITORING, Addresses
from ops.stack.settings import StackSettings

PROJECT = Path(__file__).resolve().parents[3]
COMPOSE_FILE = PROJECT / "docker-compose.yml"
SERVICES = ("bridge", "driver_events", "driver_api", "tracking_api", "webhooks")
REFERENCE = re.compile(
    r"\$(?:(?P<dollar>\$)|\{(?P<name>[A-Z0-9_]+)(?:(?P<operator>:[-?])(?P<operand>[^}]*))?\})"
)


def example_environment() -> dict[str, str]:
    """Read .env.example."""
    lines = (PROJECT / ".env.example").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("=", 1) for line in lines if line and not line.startswith("#"))
    return dict(pairs)


def filled_environment() -> dict[str, str]:
    """Read .env.example, with a value in each empty place."""
    return {name: value or "x" for name, value in example_environment().items()}


def interpolate(text: str, environment: Mapping[str, str]) -> str:
    """Put the variables in, by the rules of compose that the file uses."""

    def value(match: re.Match[str]) -> str:
        if match["dollar"]:
            return "$"
        found = environment.get(match["name"], "")
        if not found and match["operator"] == ":?":
            raise LookupError(f"{match['name']}: {match['operand']}")
        return found or (match["operand"] or "" if match["operator"] == ":-" else "")

    return REFERENCE.sub(value, text)


def load(environment: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Read the file, interpolated."""
    text = interpolate(COMPOSE_FILE.read_text(encoding="utf-8"), environment)
    loaded: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return loaded


def load_services(environment: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Read the services, interpolated."""
    return load(environment)["services"]


def variables_used() -> set[str]:
    """Name every variable that the file refers to."""
    text = COMPOSE_FILE.read_text(encoding="utf-8")
    return {match["name"] for match in REFERENCE.finditer(text) if match["name"]}


def in_containers() -> Addresses:
    """A native stack's addresses, if its parts had the containers' names."""
    default = {name: field.default for name, field in StackSettings.model_fields.items()}
    return Addresses(
        mqtt=(Bind("mosquitto", default["mqtt_port"]),),
        kafka=Bind("kafka", default["kafka_port"]),
        kafka_controller=Bind("localhost", 9093),
        database=Bind("postgis", default["database_port"]),
        tracking_api=Bind("tracking_api", default["tracking_api_port"]),
        driver_api=Bind("driver_api", default["driver_api_port"]),
        bridge=Bind("bridge", default["bridge_port"]),
        tracking_api_internal=Bind("tracking_api", default["tracking_api_internal_port"]),
        driver_api_internal=Bind("driver_api", default["driver_api_internal_port"]),
        driver_events=Bind("driver_events", default["driver_events_port"]),
        webhooks=Bind("webhooks", default["webhooks_port"]),
        broker_sync=Bind("broker_sync", default["broker_sync_port"]),
        **{name: Bind(name, default[f"{name}_port"]) for name in MONITORING[:-1]},
        kafka_exporter=Bind("kafka", default["kafka_exporter_port"]),
    )
