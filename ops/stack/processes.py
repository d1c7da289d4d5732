"""The processes of a stack: command, environment, address and stop signal of each."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from doorstep.kafka.access import PLAIN, SCRAM, KafkaAccess
from doorstep.kafka.access_control import ADMIN
from doorstep.password_file import BROKER_SERVICES
from doorstep.settings import Bind
from ops.stack import caddy, kafka, mosquitto
from ops.stack.addresses import Addresses
from ops.stack.backup_repository import BackupRepository
from ops.stack.certificates import CertificateAuthority
from ops.stack.monitoring_files import jmx_agent
from ops.stack.paths import SUPERUSER, StackPaths
from ops.stack.phone_addresses import phone_addresses
from ops.stack.postgres import DATABASE, OWNER, PRIMARY_ONLY, PostgresCluster
from ops.stack.settings import PROJECT, StackSettings
from ops.stack.tls_config import TlsConfig
from ops.stack.users import as_user, dies_with_parent, service_user

Kind = Literal["etcd", "database", "brokers", "services", "proxies", "backups", "monitoring"]
# in start order; stop reverses it
KINDS: tuple[Kind, ...] = (
    "etcd",
    "database",
    "brokers",
    "services",
    "proxies",
    "backups",
    "monitoring",
)

BROKER_SYNC = "broker_sync"
BACKUP_WORKER = "backup_worker"
SERVICES = ("bridge", "driver_events", "driver_api", "tracking_api", "webhooks")
# Programs that the launcher runs beside the stack, by their `./run` command.
PROGRAM_MODULES = {
    "couriers": "simulators.couriers",
    "cities": "simulators.cities",
    "tickers": "simulators.tickers",
    "replay": "simulators.replay",
    "send": "simulators.send",
}


def module_argv(program: str) -> list[str]:
    """Return the command that runs a program of PROGRAM_MODULES."""
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
    # Whether it is ready, and why not or in which role. None: `ops.stack.status` probes it.
    probe: Callable[[], tuple[bool, str]] | None = None


def postgres_cluster(
    paths: StackPaths,
    addresses: Addresses,
    data_dir: Path,
    config: Mapping[str, str] | None = None,
) -> PostgresCluster:
    """Describe the stack's database server, with further settings."""
    return PostgresCluster(
        data_dir=data_dir,
        port=addresses.database.port,
        host=addresses.database.host,
        servers=addresses.database_servers if addresses.has_replicas else "",
        password=paths.database_password(SUPERUSER),
        config={
            # ends the transaction of a writer that was stopped while it held locks
            "idle_in_transaction_session_timeout": "5s",
            "synchronous_commit": "on",
            **(config or {}),
        },
    )


def database_url(paths: StackPaths, addresses: Addresses, role: str) -> str:
    """Return the URL with which a role reaches the database."""
    primary = PRIMARY_ONLY if addresses.has_replicas else ""
    servers, password = addresses.database_servers, paths.database_password(role)
    return f"postgresql://{role}:{password}@{servers}/{DATABASE}{primary}"


def kafka_access(paths: StackPaths, addresses: Addresses, principal: str) -> KafkaAccess:
    """Return how one of Kafka's principals reaches it."""
    return KafkaAccess(
        addresses.kafka_servers,
        principal,
        paths.kafka_password(principal),
        mechanism=PLAIN if principal == ADMIN else SCRAM,
    )


def owner_environment(paths: StackPaths, addresses: Addresses) -> dict[str, str]:
    """Return the database owner's environment, for migrations and provisioning."""
    return {
        "DATABASE_ADMIN_URL": database_url(paths, addresses, OWNER),
        "DRIVER_EVENTS_PASSWORD": paths.database_password("driver_events"),
        "DRIVER_API_PASSWORD": paths.database_password("driver_api"),
        "TRACKING_API_PASSWORD": paths.database_password("tracking_api"),
        "BROKER_SYNC_PASSWORD": paths.database_password("broker_sync"),
        "CUSTOMER_PASSWORD": paths.database_password("customer"),
        "WEBHOOKS_PASSWORD": paths.database_password("webhooks"),
        "FLEET_KEY_FILE": str(paths.fleet_key_file),
        "STAFF_TOKEN_FILE": str(paths.staff_token_file),
    }


def broker_sync_environment(paths: StackPaths, addresses: Addresses) -> dict[str, str]:
    """Return the environment of broker_sync."""
    return {
        "DATABASE_URL": database_url(paths, addresses, "broker_sync"),
        "FLEET_KEY_FILE": str(paths.fleet_key_file),
        "MOSQUITTO_PASSWORD_FILE": str(paths.password_file),
        "MOSQUITTO_ACL_FILE": str(paths.acl_file),
        "MOSQUITTO_ACL_TEMPLATE": str(mosquitto.ACL),
        "BRIDGE_MQTT_PASSWORD": paths.mqtt_password("bridge"),
        "DRIVER_EVENTS_MQTT_PASSWORD": paths.mqtt_password("driver_events"),
        "STACK_MQTT_PASSWORD": paths.mqtt_password("stack"),
        "BROKER_SYNC_BIND": str(addresses.broker_sync),
    }


def client_environment(paths: StackPaths, addresses: Addresses) -> dict[str, str]:
    """Return the environment of clients: simulators, `send` and `replay`."""
    return {
        "MQTT_URL": addresses.mqtt_url,
        **_tls_environment(paths, addresses),
        "FLEET_KEY_FILE": str(paths.fleet_key_file),
        "STAFF_TOKEN_FILE": str(paths.staff_token_file),
        "DRIVER_API_URL": addresses.driver_api_url,
        "TRACKING_API_URL": addresses.tracking_api_url,
        "JOURNAL_DIR": str(paths.journals),
    }


def _tls_environment(paths: StackPaths, addresses: Addresses) -> dict[str, str]:
    """Return what devices on this machine use with TLS.

    A given certificate is for a name of its own, which this machine may not resolve: there they
    use the plaintext listener on loopback.
    """
    if not addresses.mqtt_tls or not TlsConfig.load(paths.tls_file).has_own_authority:
        return {}
    authority = CertificateAuthority(paths.tls).certificate
    return {"MQTT_URL": addresses.mqtt_tls_url, "SSL_CERT_FILE": str(authority)}


def service_environment(
    service: str,
    paths: StackPaths,
    addresses: Addresses,
    *,
    public_url: str | None = None,
    cities_dir: Path | None = None,
) -> dict[str, str]:
    """Return the environment of one service. docker-compose.yml sets the same variables."""
    if service == "webhooks":
        return {
            "DATABASE_URL": database_url(paths, addresses, "webhooks"),
            "WEBHOOKS_BIND": str(addresses.webhooks),
        }
    kafka_servers = kafka_access(paths, addresses, service).environment()
    prometheus = addresses.prometheus
    proxy = {} if addresses.https is None else {"TRUSTED_PROXIES": "127.0.0.1"}
    mqtt = {"MQTT_URL": addresses.mqtt_url, "MQTT_USERNAME": service}
    if service in BROKER_SERVICES:
        mqtt["MQTT_PASSWORD"] = paths.mqtt_password(service)
    phones = phone_addresses(paths, addresses, public_url or addresses.tracking_api_url)
    match service:
        case "bridge":
            return {**mqtt, **kafka_servers, "BRIDGE_BIND": str(addresses.bridge)}
        case "driver_events":
            return {
                **mqtt,
                **kafka_servers,
                "DATABASE_URL": database_url(paths, addresses, "driver_events"),
                "DRIVER_API_URL": addresses.driver_api_url,
                "DRIVER_API_TOKEN": paths.driver_api_token(),
                "DRIVER_EVENTS_BIND": str(addresses.driver_events),
            }
        case "driver_api":
            return {
                **proxy,
                **kafka_servers,
                "DATABASE_URL": database_url(paths, addresses, "driver_api"),
                "DRIVER_API_TOKEN": paths.driver_api_token(),
                "DRIVER_API_BIND": str(addresses.driver_api),
                "DRIVER_API_INTERNAL_BIND": str(addresses.driver_api_internal),
                **phones.environment(),
            }
        case "tracking_api":
            return {
                **proxy,
                **kafka_servers,
                "DATABASE_URL": database_url(paths, addresses, "tracking_api"),
                "CUSTOMER_DATABASE_URL": database_url(paths, addresses, "customer"),
                "TRACKING_API_BIND": str(addresses.tracking_api),
                "TRACKING_API_INTERNAL_BIND": str(addresses.tracking_api_internal),
                "TRACKING_API_PUBLIC_URL": public_url or addresses.tracking_api_url,
                "JOIN_URL": phones.join_url,
                **({"CITIES_DIR": str(cities_dir)} if cities_dir else {}),
                "PROMETHEUS_URL": f"http://{prometheus}" if prometheus else "",
                "VAPID_KEY": paths.vapid_key(),
            }
    raise ValueError(f"{service!r} is not a service")


def public_url(paths: StackPaths, addresses: Addresses) -> str:
    """Return tracking_api's address for customers and staff: Caddy's, with TLS."""
    if addresses.https is None:
        return addresses.tracking_api_url
    config = TlsConfig.load(paths.tls_file)
    # A domain is reached on port 443, which is forwarded.
    port = "" if config.domain else f":{addresses.https.port}"
    return f"https://{config.public_host}{port}"


def proxy_specs(
    paths: StackPaths, addresses: Addresses, settings: StackSettings
) -> list[ProcessSpec]:
    """Specify Caddy, for a stack with TLS."""
    if addresses.https is None:
        return []
    return [
        ProcessSpec(
            "caddy",
            "proxies",
            caddy.argv(settings),
            addresses.https,
            directory=paths.caddy.resolve(),
            environment=caddy.environment(paths, addresses, TlsConfig.load(paths.tls_file).domain),
        )
    ]


def backup_specs(
    paths: StackPaths, addresses: Addresses, settings: StackSettings, repository: BackupRepository
) -> list[ProcessSpec]:
    """Specify the backup worker, for a stack that has backups."""
    if not repository.is_wanted:
        return []
    names = ("backup_every_h", "backup_full_every_days", "backup_keep_full")
    worker = [sys.executable, "-m", "ops.backup.worker", "--home", str(paths.root)]
    return [
        ProcessSpec(
            BACKUP_WORKER,
            "backups",
            dies_with_parent(worker, "TERM"),
            addresses.backups,
            environment={
                "BACKUP_DIR": str(repository.folder),
                **{name.upper(): str(getattr(settings, name)) for name in names},
            },
            stop_wait_s=20,
        )
    ]


def has_service(service: str) -> bool:
    """Return whether a service is installed: each is an extra of the package."""
    return importlib.util.find_spec(service) is not None and (
        importlib.util.find_spec(f"{service}.__main__") is not None
    )


def database_and_kafka_specs(
    paths: StackPaths, addresses: Addresses, settings: StackSettings, postgres: PostgresCluster
) -> list[ProcessSpec]:
    """Specify one PostgreSQL and one Kafka: `ops.stack.replicas` has several of each."""
    return [
        ProcessSpec(
            "postgres",
            "database",
            dies_with_parent(postgres.argv(), "INT"),
            addresses.database,
            directory=Path("/"),
            stop_signal="INT",  # fast shutdown: TERM waits for every client
            stop_wait_s=30,
        ),
        ProcessSpec(
            "kafka",
            "brokers",
            dies_with_parent(
                kafka.broker_argv(paths, settings, jmx_agent(addresses, settings)), "TERM"
            ),
            addresses.kafka,
            stop_wait_s=30,
        ),
    ]


def broker_specs(paths: StackPaths, addresses: Addresses) -> list[ProcessSpec]:
    """Specify each Mosquitto."""
    return [
        ProcessSpec(
            f"mosquitto-{number}",
            "brokers",
            mosquitto.broker_argv(paths, number),
            broker,
            directory=Path("/"),
            stop_wait_s=20,  # Mosquitto saves its sessions and queues
        )
        for number, broker in enumerate(addresses.mqtt, start=1)
    ]


def service_specs(
    paths: StackPaths, addresses: Addresses, settings: StackSettings
) -> list[ProcessSpec]:
    """Specify broker_sync and the installed services."""
    sync = [sys.executable, "-m", "ops.stack.broker_sync", "--home", str(paths.root)]
    return [
        ProcessSpec(
            BROKER_SYNC,
            "services",
            dies_with_parent(sync, "TERM"),
            addresses.broker_sync,
            environment=broker_sync_environment(paths, addresses),
        ),
        *_http_specs(paths, addresses, settings),
    ]


def _http_specs(
    paths: StackPaths, addresses: Addresses, settings: StackSettings
) -> list[ProcessSpec]:
    user = service_user()
    return [
        ProcessSpec(
            service,
            "services",
            dies_with_parent(as_user(user, [sys.executable, "-m", service]), "TERM"),
            getattr(addresses, service),
            environment=service_environment(
                service,
                paths,
                addresses,
                public_url=settings.tracking_api_public_url or public_url(paths, addresses),
                cities_dir=settings.cities_root,
            ),
            stop_wait_s=20,
        )
        for service in SERVICES
        if has_service(service)
    ]
