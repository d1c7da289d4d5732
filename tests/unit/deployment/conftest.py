"""Fixtures for the tests of docker-compose.yml and of the alert rules."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from doorstep.kafka.access_control import ADMIN
from ops.stack.paths import StackPaths
from ops.stack.programs import find_program
from tests.programs import provided
from tests.unit.deployment.compose import SERVICES, example_environment, load_services


@pytest.fixture
def paths(tmp_path: Path) -> StackPaths:
    made = StackPaths(tmp_path)
    made.prepare()
    return made


@pytest.fixture
def services(paths: StackPaths) -> dict[str, dict[str, Any]]:
    """The compose file with the secrets of `home` in it."""
    return load_services(
        example_environment()
        | {
            "POSTGRES_PASSWORD": paths.database_password("postgres"),
            "DOORSTEP_OWNER_PASSWORD": paths.database_password("doorstep_owner"),
            "DRIVER_EVENTS_PASSWORD": paths.database_password("driver_events"),
            "DRIVER_API_PASSWORD": paths.database_password("driver_api"),
            "WEBHOOKS_PASSWORD": paths.database_password("webhooks"),
            "TRACKING_API_PASSWORD": paths.database_password("tracking_api"),
            "BROKER_SYNC_PASSWORD": paths.database_password("broker_sync"),
            **dict.fromkeys(("GRAFANA_PASSWORD", "KAFKA_UI_PASSWORD", "PGADMIN_PASSWORD"), "x"),
            "OBSERVER_PASSWORD": paths.observer_password(),
            "CUSTOMER_PASSWORD": paths.database_password("customer"),
            "BRIDGE_MQTT_PASSWORD": paths.mqtt_password("bridge"),
            "DRIVER_EVENTS_MQTT_PASSWORD": paths.mqtt_password("driver_events"),
            "DRIVER_API_TOKEN": paths.driver_api_token(),
            "VAPID_KEY": paths.vapid_key(),
        }
        | {
            f"KAFKA_{name.upper()}_PASSWORD": paths.kafka_password(name)
            for name in (*SERVICES, "inspector", ADMIN)
        }
    )


Promtool = Callable[..., subprocess.CompletedProcess[str]]
RunCase = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture
def promtool(tmp_path: Path) -> Promtool:
    """`promtool(*arguments)`, which runs in `tmp_path`."""
    program = provided(find_program, "promtool", "./run test")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, *arguments], cwd=tmp_path, check=False, capture_output=True, text=True
        )

    return run


@pytest.fixture
def run_case(promtool: Promtool, tmp_path: Path) -> RunCase:
    """`run_case(text)`: promtool compares the rules with a case."""

    def run(text: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "case.yml").write_text(text, encoding="utf-8")
        return promtool("test", "rules", "case.yml")

    return run
