"""The addresses that a stack's processes listen on: chosen at start, saved while it runs."""

from __future__ import annotations

import json
import os
import random
import socket
from collections.abc import Collection, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from doorstep.settings import Bind, is_loopback
from ops.console import Echo
from ops.stack.errors import StackError
from ops.stack.settings import StackSettings

OTHER_PORT_OFFSET = 10_000  # if 1883 is taken, 11883 is tried, then 11884, …
TRIES = 200
ANY_PORTS = range(10_000, 32_000)  # below the kernel's ephemeral ports, 32768 and up
# A part of them, as FIRST-LAST: stacks that choose at the same time do not choose the same.
ANY_PORTS_VARIABLE = "DOORSTEP_ANY_PORTS"
MONITORING = (
    "prometheus",
    "alertmanager",
    "node_exporter",
    "postgres_exporter",
    "kafka_exporter",
)
# With --ha. A majority of three survives the loss of one.
KAFKA_NODES, ETCD_NODES, DATABASE_NODES = 3, 3, 2
WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - names, not a choice


@dataclass(frozen=True, slots=True)
class Addresses:
    """The bind addresses of one stack. `reach` turns one into an address for a local client."""

    mqtt: tuple[Bind, ...]
    kafka: Bind
    kafka_controller: Bind
    database: Bind
    tracking_api: Bind
    driver_api: Bind
    tracking_api_internal: Bind
    driver_api_internal: Bind
    bridge: Bind
    driver_events: Bind
    mqtt_tls: tuple[Bind, ...] = ()  # with TLS: what devices use instead of `mqtt`
    https: Bind | None = None  # with TLS: Caddy, in front of both APIs
    # of the backup worker, if backups are used
    backups: Bind = field(default_factory=lambda: Bind("127.0.0.1", 8005))
    webhooks: Bind = field(default_factory=lambda: Bind("127.0.0.1", 8006))
    broker_sync: Bind = field(default_factory=lambda: Bind("127.0.0.1", 8007))
    # with monitoring
    prometheus: Bind | None = None
    alertmanager: Bind | None = None
    node_exporter: Bind | None = None
    postgres_exporter: Bind | None = None
    kafka_exporter: Bind | None = None
    # with --ha: one per node, the first of `kafkas` and `databases` is `kafka` and `database`
    kafkas: tuple[Bind, ...] = ()
    kafka_controllers: tuple[Bind, ...] = ()
    databases: tuple[Bind, ...] = ()
    patroni: tuple[Bind, ...] = ()
    etcd: tuple[Bind, ...] = ()
    etcd_peers: tuple[Bind, ...] = ()
    # with --ha and monitoring: one per node, the first is `kafka_exporter`, `postgres_exporter`
    kafka_exporters: tuple[Bind, ...] = ()
    postgres_exporters: tuple[Bind, ...] = ()
    etcd_metrics: tuple[Bind, ...] = ()

    @property
    def has_replicas(self) -> bool:
        """Whether the stack was started with --ha."""
        return bool(self.databases)

    @property
    def kafka_servers(self) -> str:
        """The comma-separated list of Kafka's nodes for clients."""
        return ",".join(str(reach(one)) for one in self.kafkas or (self.kafka,))

    @property
    def database_servers(self) -> str:
        """The comma-separated list of database servers, as in a URL of libpq."""
        return ",".join(str(reach(one)) for one in self.databases or (self.database,))

    @property
    def mqtt_url(self) -> str:
        """The ordered, comma-separated list of brokers, as in MQTT_URL."""
        return ",".join(f"mqtt://{reach(broker)}" for broker in self.mqtt)

    @property
    def mqtt_tls_url(self) -> str:
        """The ordered list of TLS listeners, as in MQTT_URL; empty without TLS."""
        return ",".join(f"mqtts://{reach(broker)}" for broker in self.mqtt_tls)

    @property
    def driver_api_url(self) -> str:
        return f"http://{reach(self.driver_api)}"

    @property
    def tracking_api_url(self) -> str:
        return f"http://{reach(self.tracking_api)}"

    def telemetry_of(self, service: str) -> Bind:
        """Return the address of a service's /metrics."""
        bind: Bind = getattr(self, f"{service}_internal", None) or getattr(self, service)
        return reach(bind)

    def save(self, path: Path) -> None:
        """Write the addresses to a file, atomically."""
        named = {
            name: [str(one) for one in value] if isinstance(value, tuple) else str(value)
            for name, value in ((name, getattr(self, name)) for name in self.__slots__)
            if value is not None
        }
        _write(path, named)

    @classmethod
    def load(cls, path: Path) -> Addresses | None:
        """Read saved addresses; None if the file does not exist. Raises StackError."""
        try:
            named = json.loads(path.read_text(encoding="utf-8"))
            binds = {
                name: tuple(map(Bind.parse, value))
                if isinstance(value, list)
                else Bind.parse(value)
                for name, value in named.items()
            }
            return cls(**binds)  # type: ignore[arg-type]
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise StackError(f"cannot read {path}: {exc}") from exc


def _write(path: Path, named: Mapping[str, object]) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(named, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def reach(bind: Bind) -> Bind:
    """Return the address at which a client on this machine reaches a bind address."""
    return Bind(WILDCARDS.get(bind.host, bind.host), bind.port)


def choose_addresses(settings: StackSettings, echo: Echo) -> Addresses:
    """Use the configured ports. If one is taken, use another and report it. Raises StackError.

    With TLS, only the TLS listeners use the public address.
    """
    check_plaintext(settings)
    chooser = _PortChooser(echo)
    tls, internal = settings.doorstep_tls, settings.doorstep_internal_bind
    public = "127.0.0.1" if tls else settings.doorstep_bind
    replicas: dict[str, Any] = _choose_replicas(chooser, settings) if settings.doorstep_ha else {}
    monitoring: dict[str, Any] = {
        name: replicas[f"{name}s"][0]
        if f"{name}s" in replicas
        else chooser.choose(name, "127.0.0.1", getattr(settings, f"{name}_port"))
        for name in (MONITORING if settings.doorstep_observe else ())
    }
    kafkas, controllers = replicas.get("kafkas"), replicas.get("kafka_controllers")
    databases = replicas.get("databases")
    return Addresses(
        mqtt=tuple(
            chooser.choose(f"mosquitto-{number + 1}", public, settings.mqtt_port, number)
            for number in range(settings.mqtt_brokers)
        ),
        kafka=kafkas[0] if kafkas else chooser.choose("kafka", internal, settings.kafka_port),
        kafka_controller=controllers[0]
        if controllers
        else chooser.choose("kafka's controller", "127.0.0.1", 0),
        database=databases[0]
        if databases
        else chooser.choose("postgres", internal, settings.database_port),
        tracking_api=chooser.choose("tracking_api", public, settings.tracking_api_port),
        driver_api=chooser.choose("driver_api", public, settings.driver_api_port),
        tracking_api_internal=chooser.choose(
            "tracking_api (internal)", internal, settings.tracking_api_internal_port
        ),
        driver_api_internal=chooser.choose(
            "driver_api (internal)", internal, settings.driver_api_internal_port
        ),
        bridge=chooser.choose("bridge", internal, settings.bridge_port),
        driver_events=chooser.choose("driver_events", internal, settings.driver_events_port),
        mqtt_tls=tuple(
            chooser.choose(
                f"mosquitto-{number + 1} (TLS)",
                settings.doorstep_bind,
                settings.mqtt_tls_port,
                number,
            )
            for number in range(settings.mqtt_brokers if tls else 0)
        ),
        https=chooser.choose("caddy", settings.doorstep_bind, settings.https_port) if tls else None,
        backups=chooser.choose("backups", internal, settings.backup_port),
        webhooks=chooser.choose("webhooks", internal, settings.webhooks_port),
        broker_sync=chooser.choose("broker_sync", internal, settings.broker_sync_port),
        **monitoring,
        **replicas,
    )


def _choose_replicas(chooser: _PortChooser, settings: StackSettings) -> dict[str, tuple[Bind, ...]]:
    internal = settings.doorstep_internal_bind

    def choose(process: str, host: str, port: int, count: int) -> tuple[Bind, ...]:
        return tuple(
            chooser.choose(f"{process}-{number + 1}", host, port, number) for number in range(count)
        )

    exporters: dict[str, tuple[Bind, ...]] = {}
    if settings.doorstep_observe:
        exporters = {
            "kafka_exporters": choose(
                "kafka_exporter", "127.0.0.1", settings.kafka_exporter_port, KAFKA_NODES
            ),
            "postgres_exporters": choose(
                "postgres_exporter", "127.0.0.1", settings.postgres_exporter_port, DATABASE_NODES
            ),
            "etcd_metrics": choose("etcd's metrics", "127.0.0.1", 0, ETCD_NODES),
        }
    return {
        **exporters,
        "kafkas": choose("kafka", internal, settings.kafka_port, KAFKA_NODES),
        "kafka_controllers": choose("kafka's controller", "127.0.0.1", 0, KAFKA_NODES),
        "databases": choose("postgres", internal, settings.database_port, DATABASE_NODES),
        "patroni": choose("patroni", "127.0.0.1", settings.patroni_port, DATABASE_NODES),
        "etcd": choose("etcd", "127.0.0.1", 0, ETCD_NODES),
        "etcd_peers": choose("etcd's peers", "127.0.0.1", 0, ETCD_NODES),
    }


def add_addresses(path: Path, settings: StackSettings, echo: Echo) -> None:
    """Choose addresses for processes that the release which wrote the file did not have."""
    saved = Addresses.load(path)
    if saved is None:
        raise StackError("the stack is not up: ./run up")
    named = json.loads(path.read_text(encoding="utf-8"))
    chooser = _PortChooser(echo)
    for one in fields(Addresses):
        if one.name not in named and one.default_factory is not MISSING:
            default: Bind = getattr(saved, one.name)
            port = getattr(settings, f"{one.name}_port", default.port)
            named[one.name] = str(chooser.choose(one.name, settings.doorstep_internal_bind, port))
    # Only what the upgrade starts again: Kafka nodes and etcd listen nowhere else until they do.
    if saved.databases and saved.postgres_exporter and not saved.postgres_exporters:
        others = [
            chooser.choose(
                f"postgres_exporter-{number + 1}",
                "127.0.0.1",
                settings.postgres_exporter_port,
                number,
            )
            for number in range(1, len(saved.databases))
        ]
        named["postgres_exporters"] = [str(one) for one in (saved.postgres_exporter, *others)]
    _write(path, named)


def check_options(settings: StackSettings, running: Addresses) -> None:
    """Raise StackError if the running stack lacks an option that is now wanted."""
    for option, is_wanted, bind in (
        ("tls", settings.doorstep_tls, running.https),
        ("observe", settings.doorstep_observe, running.prometheus),
        ("ha", settings.doorstep_ha, running.databases or None),
    ):
        if is_wanted and bind is None:
            raise StackError(
                f"the stack runs without --{option}: ./run down, then ./run up --{option}"
            )


def check_plaintext(settings: StackSettings) -> None:
    """Raise StackError if an address beyond loopback would be served without TLS."""
    if settings.allow_plaintext:
        return
    if not settings.doorstep_tls and not is_loopback(settings.doorstep_bind):
        raise StackError(
            f"DOORSTEP_BIND={settings.doorstep_bind} opens plaintext listeners to the network: "
            "use --tls, or set ALLOW_PLAINTEXT=true"
        )
    if not is_loopback(settings.doorstep_internal_bind):
        raise StackError(
            f"DOORSTEP_INTERNAL_BIND={settings.doorstep_internal_bind} opens plaintext listeners "
            "to the network: set ALLOW_PLAINTEXT=true to allow it"
        )


class _PortChooser:
    def __init__(self, echo: Echo) -> None:
        self._echo = echo
        self._chosen: set[int] = set()

    def choose(self, process: str, host: str, configured: int, number: int = 0) -> Bind:
        """Choose a port for a process. Broker `number` uses `configured + number`."""
        if configured == 0:
            return self._reserve(host, any_free_port(host, self._chosen))
        wanted = configured + number
        if self._is_free(host, wanted):
            return self._reserve(host, wanted)
        for port in range(wanted + OTHER_PORT_OFFSET, wanted + OTHER_PORT_OFFSET + TRIES):
            if port <= 65535 and self._is_free(host, port):
                self._echo(
                    f"port {wanted} is taken by another program: {process} listens on {port}"
                )
                return self._reserve(host, port)
        raise StackError(f"no free port for {process} near {wanted + OTHER_PORT_OFFSET}")

    def _reserve(self, host: str, port: int) -> Bind:
        self._chosen.add(port)
        return Bind(host, port)

    def _is_free(self, host: str, port: int) -> bool:
        return port not in self._chosen and can_listen(host, port)


def can_listen(host: str, port: int) -> bool:
    """Return whether a server could listen on this address."""
    try:
        with _bound(host, port):
            return True
    except OSError:
        return False


def any_free_port(host: str = "127.0.0.1", avoid: Collection[int] = ()) -> int:
    """Choose a free port. Raises StackError.

    An ephemeral port could be given to a connection before the server binds it, so it is below
    those.
    """
    ports = _any_ports()
    for _ in range(TRIES):
        port = random.choice(ports)
        if port not in avoid and can_listen(host, port):
            return port
    raise StackError("the machine has no free port")


def _any_ports() -> range:
    if not (text := os.environ.get(ANY_PORTS_VARIABLE)):
        return ANY_PORTS
    try:
        first, last = map(int, text.split("-"))
        if not 1024 <= first <= last <= 65535:
            raise ValueError(text)
    except ValueError as exc:
        raise StackError(f"{ANY_PORTS_VARIABLE}={text} is not FIRST-LAST, as 10000-20999") from exc
    return range(first, last + 1)


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1)
    except OSError:
        listener.close()
        raise
    return listener
