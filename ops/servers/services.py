"""Doorstep's services as processes, without the stack."""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from doorstep.kafka.access import KafkaAccess
from ops.servers.process import HOST, ServerProcess


class ServiceProcess(ServerProcess):
    """`python -m name`, configured by environment variables."""

    def __init__(self, folder: Path, name: str, bind_variable: str, **variables: str) -> None:
        super().__init__(folder)
        self._name = name
        self._variables = {bind_variable: f"{HOST}:{self.port}", **variables}

    def argv(self) -> list[str]:
        return [sys.executable, "-m", self._name]

    def environment(self) -> Mapping[str, str]:
        return os.environ | self._variables

    def is_ready(self) -> bool:
        return self.get("/readyz")[0] == 200

    def get(self, path: str) -> tuple[int, str]:
        """GET a path of the telemetry port: (status, body), or (0, "") without an answer."""
        try:
            url = f"http://{HOST}:{self.port}{path}"
            with urllib.request.urlopen(url, timeout=2) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as exc:
            return exc.code, exc.read().decode()
        except OSError:
            return 0, ""

    def metric(self, name: str) -> float:
        """Sum a metric over its labels; 0 if there is none."""
        lines = self.get("/metrics")[1].splitlines()
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in lines
            if line.startswith((f"{name} ", f"{name}{{"))
        )

    def events(self) -> list[str]:
        """Return the names of the events that the service has logged."""
        lines = self.log().splitlines()
        return [json.loads(line)["event"] for line in lines if line.startswith("{")]


def bridge_process(
    folder: Path, mqtt_url: str, kafka: KafkaAccess, **variables: str
) -> ServiceProcess:
    """Return a bridge that is not started yet."""
    return ServiceProcess(
        folder,
        "bridge",
        "BRIDGE_BIND",
        MQTT_URL=mqtt_url,
        **kafka.environment(),
        **variables,
    )


def driver_events_process(
    folder: Path, database_url: str, mqtt_url: str, kafka: KafkaAccess, **variables: str
) -> ServiceProcess:
    """Return a driver_events that is not started yet and sends acks every second."""
    return ServiceProcess(
        folder,
        "driver_events",
        "DRIVER_EVENTS_BIND",
        DATABASE_URL=database_url,
        MQTT_URL=mqtt_url,
        **kafka.environment(),
        **{"ACK_EVERY_S": "1", **variables},
    )
