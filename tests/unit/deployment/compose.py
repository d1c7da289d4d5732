"""docker-compose.yml as a test reads it: interpolated, with the anchors merged.

No engine is started: whether one reads the file the same way is not tested here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).resolve().parents[3]
COMPOSE_FILE = PROJECT / "docker-compose.yml"
SERVICES = ("bridge", "driver_events", "driver_api", "tracking_api")
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
