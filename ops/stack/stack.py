"""The stack as one thing: started, asked, changed and stopped."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from doorstep.credentials import mqtt_password
from doorstep.provision import (
    check_driver_ids,
    owner_connection,
    provision_drivers,
    provision_sources,
)
from ops.stack import kafka, probes
from ops.stack.addresses import Addresses, choose_addresses, reach
from ops.stack.paths import StackError, StackPaths, print_line, process_runs
from ops.stack.postgres import PostgresCluster
from ops.stack.processes import (
    SERVICES,
    ProcessSpec,
    client_environment,
    has_service,
    owner_environment,
    postgres_cluster,
    servers_of,
    services_of,
)
from ops.stack.settings import StackSettings
from ops.stack.setup import (
    place_database,
    prepare_brokers,
    set_up_database,
    set_up_topics,
)
from ops.stack.status import ProcessStatus, probe_processes
from ops.stack.supervisor import Supervisor, write_config

READY_TIMEOUT_S = 180.0
LOGIN_TIMEOUT_S = 30.0  # a broker that has just been told of 100,000 passwords
POLL_S = 0.2
SUPERVISOR = "supervisor"


class Stack:
    """A native stack in one home folder.

    `environment` is what the parts inherit (tuning such as ACK_EVERY_S); their addresses and
    secrets are put on top of it. `say` takes lines for the screen.
    """

    def __init__(
        self,
        settings: StackSettings | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        say: Callable[[str], None] = print_line,
    ) -> None:
        self.settings = settings if settings is not None else StackSettings.load()
        self.paths = StackPaths(self.settings.doorstep_home.absolute())
        self.supervisor = Supervisor(self.paths)
        self._environment = dict(environment if environment is not None else os.environ)
        self._say = say
        self._addresses: Addresses | None = None

    # -- where and who ----------------------------------------------------------------------

    @property
    def addresses(self) -> Addresses:
        """Where the running stack listens. Raises StackError if there is none."""
        if self._addresses is None:
            self._addresses = Addresses.load(self.paths.addresses_file)
        if self._addresses is None:
            raise StackError("the stack is not up: ./run up")
        return self._addresses

    @property
    def database_admin_url(self) -> str:
        """The URL of the database's owner, who migrates, provisions and checks."""
        return owner_environment(self.paths, self.addresses)["DATABASE_ADMIN_URL"]

    def client_environment(self) -> dict[str, str]:
        """Give a simulator's environment: what we inherited, and where the stack is."""
        return self._environment | client_environment(self.paths, self.addresses)

    def owner_environment(self) -> dict[str, str]:
        """Give a migration's or a checker's environment."""
        return self._environment | owner_environment(self.paths, self.addresses)

    def operator_environment(self) -> dict[str, str]:
        """Give the variables of what looks at every part: `ops.commands`."""
        kafka = {"KAFKA_BOOTSTRAP_SERVERS": str(reach(self.addresses.kafka))}
        return self.owner_environment() | self.client_environment() | kafka

    def is_up(self) -> bool:
        """Say whether supervisord answers."""
        return self.supervisor.pid() is not None

    def owner_pid(self) -> int | None:
        """Which process takes this stack down when it ends; None if it stays up."""
        try:
            pid = int(self._owner_file.read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            return None
        return pid if process_runs(pid) else None

    # -- start and stop ---------------------------------------------------------------------

    @contextlib.contextmanager
    def session(self) -> Iterator[Stack]:
        """Have the stack up; at the end stop it, unless it was up before.

        If this process is killed, the stack stops by itself.
        """
        was_up = self.is_up()
        try:
            self.up(owner_pid=os.getpid())
            yield self
        finally:
            if not was_up and self.owner_pid() == os.getpid():  # `down` came first if it is not
                self.down()

    def up(self, *, owner_pid: int | None = None) -> None:
        """Start everything in parallel and return when every part is ready. Raises StackError.

        Completes what another `up` has not finished, and does nothing if all is ready.
        """
        started_at = time.monotonic()
        self.paths.root.mkdir(parents=True, exist_ok=True)
        with self._locked():
            if not self.is_up():
                self._start(owner_pid)
            else:
                if self._is_ready():
                    return
                self._refuse_an_older_one()
            self._set_up()
        self.wait_ready()
        self._say(f"ready after {time.monotonic() - started_at:.1f} s")

    def down(self, *, erase: bool = False) -> None:
        """Stop services, then brokers, then the database; `erase` deletes all data and secrets."""
        with self._locked() if self.paths.root.exists() else contextlib.nullcontext():
            self._owner_file.unlink(missing_ok=True)  # first: a demo on this stack sees it at once
            self.supervisor.stop()
            if self.paths.addresses_file.exists() and self.paths.secrets.exists():
                shutil.rmtree(self._cluster().socket_dir, ignore_errors=True)
            self.paths.addresses_file.unlink(missing_ok=True)
            self._addresses = None
        if erase:
            self.paths.erase()

    def _start(self, owner_pid: int | None) -> None:
        self.paths.prepare()
        at = choose_addresses(self.settings, self._say)
        at.save(self.paths.addresses_file)
        self._addresses = at
        place_database(self.paths, self._say)
        with ThreadPoolExecutor(3) as at_once:
            work = [
                at_once.submit(self._cluster().prepare),
                at_once.submit(self._prepare_kafka),
                at_once.submit(prepare_brokers, self.paths, at, self._say),
            ]
            for one in work:
                one.result()
        for service in SERVICES:
            if not has_service(service):
                self._say(f"{service} is not installed: left out")
        write_config(self.paths, self._parts(), owner_pid)
        self._owner_file.write_text(str(owner_pid or ""), encoding="ascii")
        self.supervisor.start(self._environment)

    def _prepare_kafka(self) -> None:
        kafka.prepare(self.paths, self.addresses, self.settings)

    @property
    def _owner_file(self) -> Path:
        return self.paths.root / "owner.pid"

    def _cluster(self) -> PostgresCluster:
        return postgres_cluster(self.paths, self.addresses, self.paths.postgres.resolve() / "data")

    def _parts(self) -> list[ProcessSpec]:
        servers = servers_of(self.paths, self.addresses, self.settings, self._cluster())
        return servers + services_of(self.paths, self.addresses, self.settings)

    def _set_up(self) -> None:
        """Migrate and provision as soon as the servers answer; the services wait meanwhile."""
        with ThreadPoolExecutor(2) as at_once:
            topics = at_once.submit(set_up_topics, self.addresses)
            environment = self.owner_environment()
            at_once.submit(set_up_database, self.paths, self._cluster(), environment).result()
            topics.result()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one process at a time start or stop this stack."""
        with self.paths.lock_file.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    # -- state ------------------------------------------------------------------------------

    def status(self) -> list[ProcessStatus]:
        """Ask every part whether it is ready. Empty if the stack is not up."""
        running = self.supervisor.running()
        pid = self.supervisor.pid()
        if not running or pid is None:
            return []
        itself = ProcessStatus(SUPERVISOR, str(self.paths.supervisor_socket), pid, True, "RUNNING")
        return [
            itself,
            *probe_processes(self._parts(), running, self._cluster(), self.paths.fleet_key()),
        ]

    def status_json(self) -> list[dict[str, object]]:
        """Give `status` as plain values."""
        return [asdict(part) for part in self.status()]

    def _refuse_an_older_one(self) -> None:
        """A stack that was started before a part was installed doesn't know it."""
        running = self.supervisor.running()
        unknown = [part.name for part in self._parts() if part.name not in running]
        if running and unknown:
            what = ", ".join(unknown)
            raise StackError(f"the running stack has no {what} yet: ./run down, then ./run up")

    def _is_ready(self) -> bool:
        states = self.status()
        return bool(states) and all(one.ready for one in states)

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Return when every part is ready, saying what is waited for. Raises StackError."""
        deadline = time.monotonic() + timeout_s
        said: tuple[str, ...] = ()
        say_at = time.monotonic() + 5
        while True:
            states = self.status()
            waiting = tuple(
                f"{one.part} ({one.detail or one.state.lower()})" for one in states if not one.ready
            )
            if states and not waiting:
                return
            if not self.paths.addresses_file.exists():
                raise StackError("the stack was taken down before it was ready")
            if time.monotonic() > deadline:
                what = "; ".join(waiting) or "supervisord does not answer"
                raise StackError(f"not ready after {timeout_s:.0f} s: {what}; see ./run logs")
            if waiting != said and time.monotonic() > say_at:
                self._say("waiting: " + "; ".join(waiting))
                said, say_at = waiting, time.monotonic() + 5
            time.sleep(POLL_S)

    # -- change -----------------------------------------------------------------------------

    def add_drivers(self, driver_ids: Sequence[str]) -> None:
        """Register drivers, and return when every broker lets them in."""
        check_driver_ids(driver_ids)
        if not driver_ids:
            return
        key = self.paths.fleet_key()
        with owner_connection(self.database_admin_url) as conn:
            provision_drivers(conn, key, self.paths.password_file, driver_ids, self._say)
        self._let_in(driver_ids[-1])

    def add_sources(self, source_ids: Sequence[str]) -> None:
        """Let sources of series in, and return when every broker does."""
        if source_ids:
            provision_sources(self.paths.password_file, self.paths.fleet_key(), source_ids)
            self._let_in(source_ids[-1])

    def _let_in(self, last: str) -> None:
        """Have the brokers read the passwords again, and wait until they know this user."""
        key = self.paths.fleet_key()
        for number in range(1, len(self.addresses.mqtt) + 1):
            self.supervisor.signal(f"mosquitto-{number}", "brokers", "HUP")
        deadline = time.monotonic() + LOGIN_TIMEOUT_S
        for number, broker in enumerate(self.addresses.mqtt, start=1):
            while not probes.mqtt_accepts(broker, last, mqtt_password(key, last)):
                if time.monotonic() > deadline:
                    raise StackError(f"mosquitto-{number} does not let {last} in")
                time.sleep(0.05)

    def pid_of(self, part: str) -> int:
        """Return a part's process id. Raises StackError if it doesn't run."""
        if part == SUPERVISOR:
            return self.supervisor.pid() or 0
        known = self.supervisor.running().get(part)
        if known is None or known.pid == 0:
            raise StackError(f"{part} does not run")
        return known.pid

    def stop_process(self, part: str) -> None:
        """Stop one part and leave it stopped, as for a planned outage."""
        self.supervisor.stop_process(part, self._kind_of(part))

    def start_process(self, part: str) -> None:
        """Start a part that `stop_process` stopped."""
        self.supervisor.start_process(part, self._kind_of(part))

    def _kind_of(self, name: str) -> str:
        for part in self._parts():
            if part.name == name:
                return part.kind
        raise StackError(f"there is no part {name!r}")

    def log_files(self) -> dict[str, Path]:
        """Return each part's log."""
        return {path.stem: path for path in sorted(self.paths.logs.glob("*.log"))}
