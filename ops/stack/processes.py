"""What runs in a stack: each part's command, variables, address and how it is stopped."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from doorstep.credentials import mqtt_password
from doorstep.settings import Bind
from ops.stack import kafka, mosquitto
from ops.stack.addresses import Addresses, reach
from ops.stack.paths import StackPaths, as_user
from ops.stack.postgres import DATABASE, OWNER, PostgresCluster
from ops.stack.settings import PROJECT, StackSettings

Kind = Literal["database", "brokers", "services"]
KINDS: tuple[Kind, ...] = ("database", "brokers", "services")  # started so, stopped backwards

SERVICES = ("bridge", "driver_events", "driver_api", "tracking_api")
# Programs that the launcher starts beside the stack, by the name of their command.
PROGRAM_MODULES = {
    "couriers": "simulators.couriers",
    "cities": "simulators.cities",
    "tickers": "simulators.tickers",
    "replay": "simulators.replay",
    "send": "simulators.send",
}


def module_argv(program: str) -> list[str]:
    """Return the command that starts a program of `PROGRAM_MODULES`."""
    return [sys.executable, "-m", PROGRAM_MODULES[program]]


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process of the stack."""

    name: str
    kind: Kind
    argv: list[str]
    address: Bind
    directory: Path = PROJECT
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = "TERM"
    stop_wait_s: int = 10


def postgres_cluster(paths: StackPaths, at: Addresses, data_dir: Path) -> PostgresCluster:
    """Describe the stack's database server."""
    return PostgresCluster(
        data_dir=data_dir,
        port=at.database.port,
        host=at.database.host,
        password=paths.database_password("postgres"),
        config={
            # a writer that was stopped while it held locks must not hold them for ever
            "idle_in_transaction_session_timeout": "5s",
            "synchronous_commit": "on",
        },
    )


def database_url(paths: StackPaths, at: Addresses, role: str) -> str:
    """Give the URL with which a role reaches the database."""
    return f"postgresql://{role}:{paths.database_password(role)}@{reach(at.database)}/{DATABASE}"


def owner_environment(paths: StackPaths, at: Addresses) -> dict[str, str]:
    """Give the variables for migrating and provisioning: those of the database's owner."""
    return {
        "DATABASE_ADMIN_URL": database_url(paths, at, OWNER),
        "DRIVER_EVENTS_PASSWORD": paths.database_password("driver_events"),
        "DRIVER_API_PASSWORD": paths.database_password("driver_api"),
        "TRACKING_API_PASSWORD": paths.database_password("tracking_api"),
        "FLEET_KEY_FILE": str(paths.fleet_key_file),
        "STAFF_TOKEN_FILE": str(paths.staff_token_file),
        "MOSQUITTO_PASSWORD_FILE": str(paths.password_file),
    }


def client_environment(paths: StackPaths, at: Addresses) -> dict[str, str]:
    """Give the variables of what stands outside: simulators, `send`, `replay`."""
    return {
        "MQTT_URL": at.mqtt_url,
        "FLEET_KEY_FILE": str(paths.fleet_key_file),
        "STAFF_TOKEN_FILE": str(paths.staff_token_file),
        "DRIVER_API_URL": at.driver_api_url,
        "TRACKING_API_URL": at.tracking_api_url,
        "JOURNAL_DIR": str(paths.journals),
    }


def service_environment(
    service: str, paths: StackPaths, at: Addresses, *, public_url: str | None = None
) -> dict[str, str]:
    """Give the variables of one service; docker-compose.yml sets the same ones."""
    kafka_servers = {"KAFKA_BOOTSTRAP_SERVERS": str(reach(at.kafka))}
    mqtt = {
        "MQTT_URL": at.mqtt_url,
        "MQTT_USERNAME": service,
        "MQTT_PASSWORD": mqtt_password(paths.fleet_key(), service),
    }
    match service:
        case "bridge":
            return {**mqtt, **kafka_servers, "BRIDGE_BIND": str(at.bridge)}
        case "driver_events":
            return {
                **mqtt,
                **kafka_servers,
                "DATABASE_URL": database_url(paths, at, "driver_events"),
                "DRIVER_API_URL": at.driver_api_url,
                "DRIVER_API_TOKEN": paths.staff_token(),
                "DRIVER_EVENTS_BIND": str(at.driver_events),
            }
        case "driver_api":
            return {
                **kafka_servers,
                "DATABASE_URL": database_url(paths, at, "driver_api"),
                "DRIVER_API_BIND": str(at.driver_api),
            }
        case "tracking_api":
            return {
                **kafka_servers,
                "DATABASE_URL": database_url(paths, at, "tracking_api"),
                "TRACKING_API_BIND": str(at.tracking_api),
                "TRACKING_API_PUBLIC_URL": public_url or at.tracking_api_url,
            }
    raise ValueError(f"{service!r} is not a service")


def has_service(service: str) -> bool:
    """Say whether the installation has a service (each is an extra of its own)."""
    return importlib.util.find_spec(service) is not None and (
        importlib.util.find_spec(f"{service}.__main__") is not None
    )


def servers_of(
    paths: StackPaths, at: Addresses, settings: StackSettings, postgres: PostgresCluster
) -> list[ProcessSpec]:
    """List the servers: PostgreSQL, Kafka and each Mosquitto."""
    return [
        ProcessSpec(
            "postgres",
            "database",
            _dies_with_parent(postgres.argv(), "INT"),
            at.database,
            directory=Path("/"),
            stop_signal="INT",  # fast: TERM would wait for every client
            stop_wait_s=30,
        ),
        ProcessSpec(
            "kafka",
            "brokers",
            _dies_with_parent(kafka.broker_argv(paths, settings), "TERM"),
            at.kafka,
            stop_wait_s=30,
        ),
        *(
            ProcessSpec(
                f"mosquitto-{number}",
                "brokers",
                mosquitto.broker_argv(paths, number),
                broker,
                directory=Path("/"),
                stop_wait_s=20,  # it saves its sessions and queues
            )
            for number, broker in enumerate(at.mqtt, start=1)
        ),
    ]


def services_of(paths: StackPaths, at: Addresses, settings: StackSettings) -> list[ProcessSpec]:
    """List the services that are installed."""
    return [
        ProcessSpec(
            service,
            "services",
            _dies_with_parent([sys.executable, "-m", service], "TERM"),
            getattr(at, service),
            environment=service_environment(
                service, paths, at, public_url=settings.tracking_api_public_url
            ),
            stop_wait_s=20,
        )
        for service in SERVICES
        if has_service(service)
    ]


def _dies_with_parent(argv: list[str], signal_name: str) -> list[str]:
    """Let a command end when its parent does.

    The kernel forgets that wish when the user changes, so the `setpriv` that changes it states it.
    """
    if argv[0] == "setpriv":
        return ["setpriv", "--pdeathsig", signal_name, *argv[1:]]
    return as_user(None, argv, on_parent_death=signal_name)
