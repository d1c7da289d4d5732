"""The stack as a whole: start, status, changes, stop."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from doorstep.kafka.access import KafkaAccess
from doorstep.kafka.access_control import ADMIN, OPERATOR
from ops.console import Echo, print_line
from ops.stack import caddy, kafka, monitoring, tls
from ops.stack.addresses import Addresses, check_options, choose_addresses
from ops.stack.database_servers import DatabaseServers
from ops.stack.device_accounts import DeviceAccounts
from ops.stack.errors import StackError
from ops.stack.paths import StackPaths
from ops.stack.pids import process_exists
from ops.stack.postgres import OWNER
from ops.stack.processes import (
    SERVICES,
    Kind,
    ProcessSpec,
    backup_specs,
    broker_specs,
    client_environment,
    database_and_kafka_specs,
    database_url,
    has_service,
    kafka_access,
    owner_environment,
    proxy_specs,
    public_url,
    service_specs,
)
from ops.stack.replicas import kafka_nodes
from ops.stack.replicas.specs import check_folder, replica_specs, stop_databases
from ops.stack.settings import StackSettings
from ops.stack.setup import prepare_brokers, prepare_database, set_up_database, set_up_kafka
from ops.stack.status import ProcessStatus, probe_processes
from ops.stack.supervisor import Supervisor, write_config
from ops.stack.tls_config import TlsConfig

READY_TIMEOUT_S = 180.0
WAITING_MESSAGE_EVERY_S = 5.0
POLL_S = 0.2
SUPERVISOR = "supervisor"


class Stack(DeviceAccounts, DatabaseServers):
    """A native stack below one folder.

    Processes inherit `environment` (tuning such as ACK_EVERY_S), with their addresses and secrets
    added. `echo` receives progress messages.
    """

    def __init__(
        self,
        settings: StackSettings | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        echo: Echo = print_line,
    ) -> None:
        self.settings = settings if settings is not None else StackSettings.load()
        self.paths = StackPaths(self.settings.doorstep_home.absolute())
        self.supervisor = Supervisor(self.paths)
        self._environment = dict(environment if environment is not None else os.environ)
        self._echo = echo
        self._addresses: Addresses | None = None

    # -- addresses and environments ------------------------------------------------------------

    @property
    def addresses(self) -> Addresses:
        """The addresses of the running stack. Raises StackError if none runs."""
        if self._addresses is None:
            self.read_addresses()
        if self._addresses is None:
            raise StackError("the stack is not up: ./run up")
        return self._addresses

    def read_addresses(self) -> None:
        self._addresses = Addresses.load(self.paths.addresses_file)
        if self._addresses is not None:
            self.paths.prepare()  # the stack of an older release lacks the newest secrets

    @property
    def database_admin_url(self) -> str:
        """The URL of the database's owner."""
        return database_url(self.paths, self.addresses, OWNER)

    @property
    def public_url(self) -> str:
        """The URL of tracking_api for customers and staff."""
        return public_url(self.paths, self.addresses)

    def client_environment(self) -> dict[str, str]:
        """Return the environment of a simulator or another client."""
        return self._environment | client_environment(self.paths, self.addresses)

    def owner_environment(self) -> dict[str, str]:
        """Return the environment of migrations and provisioning."""
        cities_dir = {"CITIES_DIR": str(self.settings.cities_root)}
        return self._environment | cities_dir | owner_environment(self.paths, self.addresses)

    def operator_environment(self) -> dict[str, str]:
        """Return the environment of `ops.commands`."""
        kafka = self.kafka_access(OPERATOR).environment()
        return self.owner_environment() | self.client_environment() | kafka

    def kafka_access(self, principal: str) -> KafkaAccess:
        """Return how one of Kafka's principals reaches it."""
        return kafka_access(self.paths, self.addresses, principal)

    def is_up(self) -> bool:
        """Return whether supervisord answers."""
        return self.supervisor.pid() is not None

    def owner_pid(self) -> int | None:
        """The process whose end stops this stack; None if the stack stays up."""
        try:
            pid = int(self.paths.owner_file.read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            return None
        return pid if process_exists(pid) else None

    # -- start and stop ------------------------------------------------------------------------

    @contextlib.contextmanager
    def session(self) -> Iterator[Stack]:
        """Start the stack, and stop it at the end unless it was up before.

        The supervisor guard stops it if this process is killed.
        """
        was_up = self.is_up()
        try:
            self.up(owner_pid=os.getpid())
            yield self
        finally:
            if not was_up and self.owner_pid() == os.getpid():  # else `./run down` came first
                self.down()

    def up(self, *, owner_pid: int | None = None) -> None:
        """Start all processes in parallel and wait until they are ready. Raises StackError.

        Completes an interrupted `up`. Does nothing if all processes are ready.
        """
        started_at = time.monotonic()
        self.paths.root.mkdir(parents=True, exist_ok=True)
        with self.locked():
            if not self.is_up():
                self._start(owner_pid)
            else:
                check_options(self.settings, self.addresses)
                states = self.status()
                if states and all(one.ready for one in states):
                    return
                self._check_processes_known()
            self.set_up()
        self.wait_ready()
        self._echo(f"ready after {time.monotonic() - started_at:.1f} s")

    def down(self, *, erase: bool = False) -> None:
        """Stop services, brokers and database, in this order. `erase` deletes data and secrets."""
        with self.locked() if self.paths.root.exists() else contextlib.nullcontext():
            self.paths.owner_file.unlink(missing_ok=True)  # first, so that a demo notices at once
            self.supervisor.stop()
            if self.paths.addresses_file.exists() and self.paths.secrets.exists():
                if self.addresses.has_replicas:
                    stop_databases(self.paths, self.addresses)
                for node in self.database_nodes():
                    shutil.rmtree(node.socket_dir, ignore_errors=True)
            self.paths.addresses_file.unlink(missing_ok=True)
            self._addresses = None
        if erase:
            kept = self.backups().set_aside()
            if kept is not None:
                self._echo(f"backups are kept in {kept}")
            self.paths.erase()

    def start_without_database(self) -> None:
        """Start etcd and the brokers, for a restore that starts the rest. Raises StackError."""
        self._start(None, without=("database", "services", "backups"))

    def _start(self, owner_pid: int | None, without: tuple[Kind, ...] = ()) -> None:
        self.paths.prepare()
        addresses = self._addresses = choose_addresses(self.settings, self._echo)
        check_folder(self.paths, addresses)
        addresses.save(self.paths.addresses_file)
        if not addresses.has_replicas:
            prepare_database(self.paths, self._echo)
        if not without:
            self.backups().check_not_lost([one.data_dir for one in self.repositories()])
        with ThreadPoolExecutor(3) as pool:
            tasks = [
                pool.submit(self.prepare_databases),
                pool.submit(self.prepare_kafka),
                pool.submit(prepare_brokers, self.paths, addresses, self._echo),
            ]
            for task in tasks:
                task.result()
        if addresses.https is not None:
            config = TlsConfig.of(self.settings)
            config.save(self.paths.tls_file)
            caddy.prepare(self.paths, self._echo)
            tls.install(self.paths, config)
        monitoring.prepare(self.paths, addresses, self.settings, self._echo)
        for service in SERVICES:
            if not has_service(service):
                self._echo(f"{service} is not installed: left out")
        specs = self.process_specs()
        write_config(self.paths, specs, owner_pid, waiting={kind: kind for kind in without})
        self.paths.owner_file.write_text(str(owner_pid or ""), encoding="ascii")
        self.supervisor.start(self._environment)
        if without:  # if supervisord starts again, all start
            write_config(self.paths, specs, owner_pid)

    def prepare_kafka(self) -> None:
        """Write Kafka's configuration, which holds the administrator's password."""
        prepare = kafka_nodes.prepare if self.addresses.has_replicas else kafka.prepare
        prepare(self.paths, self.addresses, self.settings, self._echo)

    def process_specs(self) -> list[ProcessSpec]:
        """Specify every process of the running stack."""
        of_stack = self.paths, self.addresses, self.settings
        servers = (
            replica_specs(*of_stack)
            if self.addresses.has_replicas
            else database_and_kafka_specs(*of_stack, self.cluster())
        )
        specs = servers + broker_specs(self.paths, self.addresses) + service_specs(*of_stack)
        specs += proxy_specs(*of_stack) + backup_specs(*of_stack, self.backups())
        return specs + monitoring.monitoring_specs(*of_stack)

    def renew_certificate(self) -> None:
        """Issue a new certificate now, and reload the servers. Raises StackError."""
        tls.renew(self.paths, self.addresses, self.supervisor, force=True)

    def set_up(self) -> None:
        """Create topics and migrate once the servers answer. The services wait for this."""
        with ThreadPoolExecutor(2) as pool:
            topics = pool.submit(set_up_kafka, self.paths, self.addresses, self.copies)
            environment = self.owner_environment()
            pool.submit(set_up_database, self.paths, self.cluster(), environment).result()
            topics.result()
        monitoring.set_up(self.paths, self.addresses, self.cluster())
        if self.backups().is_wanted:
            self.set_up_backups()

    @property
    def has_replicas(self) -> bool:
        """Whether the stack, or its data if it is not up, is one with --ha."""
        if self._addresses is None:
            self.read_addresses()
        if self._addresses is not None:
            return self._addresses.has_replicas
        has_one = (self.paths.postgres / "data").exists()
        return self.paths.postgres_node(1).exists() or (self.settings.doorstep_ha and not has_one)

    @property
    def copies(self) -> int:
        """How many Kafka nodes hold each record."""
        return kafka_nodes.COPIES if self.addresses.has_replicas else 1

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Serialise starts and stops across processes."""
        with self.paths.lock_file.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    # -- status --------------------------------------------------------------------------------

    def status(self) -> list[ProcessStatus]:
        """Probe every process. Empty if the stack is not up."""
        running = self.supervisor.running()
        pid = self.supervisor.pid()
        if not running or pid is None:
            return []
        socket = str(self.paths.supervisor_socket)
        supervisor = ProcessStatus(SUPERVISOR, socket, pid, ready=True, state="RUNNING")
        return [
            supervisor,
            *probe_processes(
                self.process_specs(),
                running,
                self.cluster(),
                self.paths.mqtt_password("stack"),
                self.kafka_access(ADMIN),
            ),
        ]

    def _check_processes_known(self) -> None:
        """Raise StackError if a process was installed after the running stack was started."""
        running = self.supervisor.running()
        unknown = [
            spec.name
            for spec in self.process_specs()
            if spec.name not in running and spec.kind != "backups"  # `set_up_backups` adds that
        ]
        if running and unknown:
            names = ", ".join(unknown)
            raise StackError(f"{names} was installed after the stack was started: ./run upgrade")

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait until every process is ready, and report the missing ones. Raises StackError."""
        deadline = time.monotonic() + timeout_s
        reported: tuple[str, ...] = ()
        report_at = time.monotonic() + WAITING_MESSAGE_EVERY_S
        while True:
            states = self.status()
            waiting = tuple(
                f"{one.name} ({one.detail or one.state.lower()})" for one in states if not one.ready
            )
            if states and not waiting:
                return
            if not self.paths.addresses_file.exists():
                raise StackError("the stack was stopped before it was ready")
            if time.monotonic() > deadline:
                reason = "; ".join(waiting) or "supervisord does not answer"
                raise StackError(f"not ready after {timeout_s:.0f} s: {reason}; see ./run logs")
            if waiting != reported and time.monotonic() > report_at:
                self._echo("waiting for " + "; ".join(waiting))
                reported, report_at = waiting, time.monotonic() + WAITING_MESSAGE_EVERY_S
            time.sleep(POLL_S)

    # -- changes -------------------------------------------------------------------------------

    def pid_of(self, name: str) -> int:
        """Return a process's pid. Raises StackError if it does not run."""
        if name == SUPERVISOR:
            return self.supervisor.pid() or 0
        process = self.supervisor.running().get(name)
        if process is None or process.pid == 0:
            raise StackError(f"{name} does not run")
        return process.pid

    def stop_process(self, name: str) -> None:
        """Stop a process until `start_process`."""
        self.supervisor.stop_process(name, self._kind_of(name))

    def start_process(self, name: str) -> None:
        """Start a process that `stop_process` stopped."""
        self.supervisor.start_process(name, self._kind_of(name))

    def _kind_of(self, name: str) -> str:
        for spec in self.process_specs():
            if spec.name == name:
                return spec.kind
        raise StackError(f"the stack has no process {name!r}")

    def log_files(self) -> dict[str, Path]:
        """Return the log file of each process by its name."""
        return {path.stem: path for path in sorted(self.paths.logs.glob("*.log"))}
