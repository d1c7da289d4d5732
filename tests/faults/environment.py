"""The environment of the faults: a whole stack under load, and the means to break it.

It has its own temporary folder and free ports of 127.0.0.1.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psycopg

from doorstep.errors import DoorstepError, Unavailable
from doorstep.kafka.access import KafkaAccess
from doorstep.kafka.access_control import ADMIN
from doorstep.provision import owner_connection
from doorstep.store.pool import connect
from ops.stack.addresses import Addresses, reach
from ops.stack.settings import FREE_PORTS, PROJECT, StackSettings
from ops.stack.stack import Stack
from ops.stack.supervisor import SUPERVISOR_GUARD, write_config
from tests.faults.fault_stack import FaultStack, Variables
from tests.faults.load_process import PROBE, LoadProcess
from tests.faults.proxy import Proxy
from tests.faults.second_kafka import SecondKafka
from tests.faults.side_process import SideProcess

ACK_EVERY_S = 2.0  # 30 s by default: faults wait for acks
ACKED_WITHIN_S = 60.0  # many ack periods: a lost ack is followed by the next
POLL_S = 0.1
LOGS = PROJECT / ".doorstep" / "faults"

OLDEST_FIX_AGE = """
    SELECT max(coalesce(extract(epoch FROM now() - fix_at), 1e9)) FROM driver_state
    WHERE driver_id LIKE %s
"""


class Unhealthy(DoorstepError):
    """The stack did not become healthy in time."""


@dataclass(frozen=True, slots=True)
class EnvironmentSettings:
    """Size of the load, number of brokers, and variables of the parts."""

    rate: float = 500.0  # fixes/s in total
    couriers: int = 16  # drivers with scripted orders
    brokers: int = 1  # of Mosquitto, each with its own bridge
    two_kafkas: bool = False  # two brokers and two replicas of each topic
    ack_every_s: float = ACK_EVERY_S
    # Age of a driver's newest fix: one every 0.5 s, 0.1 s to commit, and room for a busy machine.
    normal_s: float = 3.0
    environment: tuple[tuple[str, str], ...] = ()  # variables of all parts


class FaultEnvironment:
    """`with FaultEnvironment(...) as env:` starts the stack and its load, then erases both.

    If this process is killed, the stack and the load stop by themselves.
    """

    load_project = PROJECT  # the folder of the load's code

    def __init__(
        self, settings: EnvironmentSettings | None = None, say: Callable[[str], None] | None = None
    ) -> None:
        self.settings = settings or EnvironmentSettings()
        self.say = say or (lambda line: print(line, file=sys.stderr, flush=True))
        self.folder = Path(tempfile.mkdtemp(prefix="doorstep-faults-"))
        self.folder.chmod(0o755)  # the servers run as other users
        environment = {
            **os.environ,
            "ACK_EVERY_S": f"{self.settings.ack_every_s:g}",
            "SAMPLING_FOLLOWS_DEMAND": "false",  # the load's rate is fixed
        }
        environment |= dict(self.settings.environment)
        stack_settings = StackSettings(
            doorstep_home=self.folder / "stack", mqtt_brokers=self.settings.brokers, **FREE_PORTS
        )
        self.bridges: list[SideProcess] = []  # of the brokers after the first
        self._environment = environment
        self._stack = self.make_stack(stack_settings, environment)
        self._health_conn: psycopg.Connection[Any] | None = None

    def __enter__(self) -> Self:
        try:
            self.start_stack()
            staff = {"Authorization": f"Bearer {self._stack.paths.staff_token()}"}
            at = self._stack.addresses
            self.tracking, self.driver_api = (
                httpx.Client(base_url=url, timeout=10, headers=staff, trust_env=False)
                for url in (at.tracking_api_url, at.driver_api_url)
            )
            for number, url in enumerate(at.mqtt_url.split(",")[1:], 2):
                self.bridges.append(
                    SideProcess(self, "bridge", f"bridge-{number}", {"MQTT_URL": url})
                )
                self.bridges[-1].launch()
            for bridge in self.bridges:  # a broker drops messages without a subscriber
                bridge.wait_ready()
            self.load = LoadProcess(
                self._stack, self.settings.rate, self.settings.couriers, self.load_project
            )
            self.load.start()
            self.wait_healthy(timeout_s=300)
        except BaseException:
            with contextlib.suppress(OSError):
                self.say(f"    logs: {self.copy_logs()}")
            self._stop()
            raise
        return self

    def make_stack(self, settings: StackSettings, environment: Variables) -> FaultStack:
        """Make the stack, which does not run yet."""
        return FaultStack(settings, environment, two_kafkas=self.settings.two_kafkas)

    def start_stack(self) -> None:
        """Start the stack, and wait until it is ready."""
        self._stack.up(owner_pid=os.getpid())

    def __exit__(
        self, _t: type[BaseException] | None, _e: BaseException | None, _b: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        with contextlib.suppress(AttributeError):  # __enter__ may have failed before this attribute
            self.load.stop()
        with contextlib.suppress(AttributeError):
            self.tracking.close()
            self.driver_api.close()
        if self._health_conn is not None:
            self._health_conn.close()
        for bridge in self.bridges:
            bridge.end(signal.SIGTERM)
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)  # a frozen process cannot handle SIGTERM
        self._stack.down(erase=True)
        if self._stack.second_kafka is not None:
            self._stack.second_kafka.end(signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- state --------------------------------------------------------------------------------

    @property
    def stack(self) -> Stack:
        """The stack."""
        return self._stack

    @property
    def second_kafka(self) -> SecondKafka:
        """The second Kafka broker. Only with `two_kafkas`."""
        assert self._stack.second_kafka is not None
        return self._stack.second_kafka

    @property
    def addresses(self) -> Addresses:
        """The addresses of the parts."""
        return self._stack.addresses

    @property
    def kafka(self) -> KafkaAccess:
        """Kafka as its administrator reaches it."""
        return self._stack.kafka_access(ADMIN)

    @contextlib.contextmanager
    def database(self) -> Iterator[psycopg.Connection[Any]]:
        """Connect as the database's owner. Raises Unavailable."""
        with owner_connection(self._stack.database_admin_url) as conn:
            yield conn

    def metric(self, part: str, name: str) -> float:
        """Sum a service's metric over its labels; 0 if there is none."""
        bind = self.addresses.telemetry_of(part)
        text = httpx.get(f"http://{bind}/metrics", timeout=10, trust_env=False).text
        lines = [line for line in text.splitlines() if line.startswith((name + " ", name + "{"))]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def readyz(self, part: str) -> int:
        """Return the status of a service's /readyz, or 0 without a response."""
        bind = reach(getattr(self.addresses, part))
        try:
            return httpx.get(f"http://{bind}/readyz", timeout=5, trust_env=False).status_code
        except httpx.TransportError:
            return 0

    def log(self, part: str) -> str:
        """Return a part's log: the newest 10 MB."""
        path = self._stack.paths.logs / f"{part}.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def environment_of(self, part: str) -> dict[str, str]:
        """Return all environment variables of a part."""
        found = next(one for one in self._stack.process_specs() if one.name == part)
        return self._environment | dict(found.environment)

    def copy_logs(self) -> Path:
        """Copy all logs, which are erased at the end, and return the new folder."""
        to = LOGS / time.strftime("%Y%m%d-%H%M%S")
        shutil.copytree(self._stack.paths.logs, to)
        return to

    # -- breaking -----------------------------------------------------------------------------

    def pid(self, part: str) -> int:
        """Return a part's process id. Raises StackError if it does not run."""
        return self._stack.pid_of(part)

    def kill(self, part: str, number: signal.Signals = signal.SIGKILL) -> float:
        """Send a signal to a part, which supervisord restarts. Returns `time.monotonic()`."""
        os.kill(self.pid(part), number)
        return time.monotonic()

    @contextlib.contextmanager
    def frozen(self, part: str) -> Iterator[int]:
        """Freeze a part (SIGSTOP) during the block. Yields its pid."""
        pid = self.pid(part)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield pid
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    @contextlib.contextmanager
    def shut_down(self, part: str) -> Iterator[None]:
        """Stop a part (SIGTERM) during the block."""
        self._stack.stop_process(part)
        try:
            yield
        finally:
            self._stack.start_process(part)

    @contextlib.contextmanager
    def with_variables(self, part: str, variables: Variables) -> Iterator[None]:
        """Override variables of a service during the block.

        All services restart at both ends, and the environment is healthy at both.
        """
        with self.with_variables_of({part: variables}):
            yield

    @contextlib.contextmanager
    def with_variables_of(self, variables: Mapping[str, Variables]) -> Iterator[None]:
        """Override variables of several services, as `with_variables` does."""
        overrides = self._stack.overrides
        before = {part: overrides.get(part, {}) for part in variables}
        overrides |= {part: {**before[part], **more} for part, more in variables.items()}
        try:
            self._stack.restart("services")
            self.wait_healthy()
            yield
        finally:
            overrides |= before
            self._stack.restart("services")
            self.wait_healthy()

    def restart_with_prefix(self, prefixes: Mapping[str, Sequence[str]]) -> None:
        """Restart servers and services, the named ones behind a command, and wait for health."""
        self._stack.prefixes = prefixes
        self._stack.restart("database", "brokers", "services")
        self.wait_healthy()

    @contextlib.contextmanager
    def proxied(self, parts: Sequence[str], server: str) -> Iterator[Proxy]:
        """Put a proxy between services and a server: `proxied(["driver_events"], "postgres")`.

        Servers are "mosquitto-1", "postgres", "driver_api" and "tracking_api". Kafka cannot be
        proxied: its clients connect to the address that it advertises. The services restart at
        both ends.
        """
        port = self._port_of(server)
        with Proxy(port) as proxy:
            through = {
                one.name: {
                    name: value.replace(f":{port}", f":{proxy.port}")
                    for name, value in one.environment.items()
                    if f"127.0.0.1:{port}" in value and not name.endswith("_BIND")
                }
                for one in self._stack.process_specs()
                if one.name in parts
            }
            if not all(through.values()):
                raise ValueError(f"not each of {', '.join(parts)} connects to {server}")
            with self.with_variables_of(through):
                yield proxy
                proxy.heal()

    def _port_of(self, server: str) -> int:
        at = self.addresses
        if server.startswith("mosquitto-"):
            return at.mqtt[int(server.rpartition("-")[2]) - 1].port
        binds = {"postgres": at.database, "driver_api": at.driver_api}
        return (binds | {"tracking_api": at.tracking_api})[server].port

    def pids(self) -> list[int]:
        """Return the process ids of all parts, the supervisor guard's first."""
        running = sorted(
            self._stack.supervisor.running().values(), key=lambda one: one.name != SUPERVISOR_GUARD
        )
        return [one.pid for one in running if one.pid > 0]

    def start_in_random_order(self, rng: random.Random, gap_s: float = 1.0) -> list[str]:
        """Start every part after all were killed, in a random order. Returns the order."""
        paths = self._stack.paths
        write_config(paths, self._stack.process_specs(), os.getpid())
        text = paths.supervisor_config.read_text(encoding="utf-8")
        manual = text.replace("autorestart = true", "autorestart = true\nautostart = false")
        paths.supervisor_config.write_text(manual, encoding="utf-8")
        self._stack.supervisor.start(self._environment)
        parts = [
            *((one.name, one.kind) for one in self._stack.process_specs()),
            (SUPERVISOR_GUARD, SUPERVISOR_GUARD),
        ]
        rng.shuffle(parts)
        for name, kind in parts:
            self._stack.supervisor.start_process(name, kind)
            time.sleep(gap_s)
        paths.supervisor_config.write_text(text, encoding="utf-8")
        return [name for name, _kind in parts]

    # -- health -------------------------------------------------------------------------------

    def wait_healthy(self, timeout_s: float = 180.0, since: float | None = None) -> float:
        """Wait until the stack is healthy under load; return the seconds since `since`.

        Healthy: every part is ready, and every driver of the load has a committed fix that was
        published after `since` and is at most `normal_s` old. Then, not counted, it waits until
        the devices have acks for all that they had published by that moment. `since` is a
        `time.monotonic()`, by default now. Raises Unhealthy.
        """
        began = time.monotonic()
        since = began if since is None else since
        deadline = began + timeout_s
        since_at_s = time.time() - (began - since)
        reason = self._unhealthy_reason(since_at_s)
        while reason:
            if time.monotonic() > deadline:
                raise Unhealthy(f"not healthy after {timeout_s:.0f} s: {reason}")
            time.sleep(POLL_S)
            reason = self._unhealthy_reason(since_at_s)
        healthy_at = time.monotonic()
        published = self.load.published()
        while waiting := self.load.unacknowledged(published):
            if time.monotonic() > max(deadline, healthy_at + ACKED_WITHIN_S):
                raise Unhealthy(f"{waiting} fixes are committed and not acknowledged")
            time.sleep(POLL_S)
        return healthy_at - since

    def _unhealthy_reason(self, since_at_s: float) -> str:
        """Say what is unhealthy; empty if nothing is."""
        try:
            age_s = self.oldest_fix_age_s()
        except (psycopg.Error, Unavailable) as exc:
            return f"the database: {str(exc).strip()}"
        if age_s > self.settings.normal_s:
            return f"a driver's newest fix is {age_s:.1f} s old"
        if age_s >= time.time() - since_at_s:
            return "no fix since the fault"
        states = self._stack.status()
        return ", ".join(one.name for one in states if not one.ready) or ("" if states else "all")

    def oldest_fix_age_s(self) -> float:
        """Return the greatest age of a driver's newest committed fix.

        Raises psycopg.Error, Unavailable.
        """
        try:
            if self._health_conn is None:
                url = self._stack.database_admin_url
                self._health_conn = connect(url, statement_timeout_ms=3000)
                self._health_conn.autocommit = True
            row = self._health_conn.execute(OLDEST_FIX_AGE, (PROBE + "%",)).fetchone()
        except psycopg.Error:
            if self._health_conn is not None:
                self._health_conn.close()
            self._health_conn = None
            raise
        return float(row[0]) if row and row[0] is not None else float("inf")
