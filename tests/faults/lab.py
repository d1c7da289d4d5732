"""A whole stack of its own, under load, to be broken.

Everything lies in a temporary folder and listens on free ports of 127.0.0.1.
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
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psycopg

from doorstep.errors import DoorstepError, Unavailable
from doorstep.provision import owner_connection
from doorstep.store.pool import connect
from ops.stack.addresses import Addresses, reach
from ops.stack.processes import ProcessSpec
from ops.stack.settings import StackSettings
from ops.stack.setup import set_up_topics
from ops.stack.stack import Stack
from ops.stack.supervisor import SUPERVISOR_GUARD, write_config
from tests.faults.beside import SideSimulators
from tests.faults.crew import PROBE, Crew
from tests.faults.kafka_beside import COPIES, KafkaBeside
from tests.faults.proxy import Proxy
from tests.faults.waiting import wait_until

ANY_PORT = {name: 0 for name in StackSettings.model_fields if name.endswith("_port")}
ACK_EVERY_S = 2.0  # instead of 30: a run waits for acks all the time
ACKED_WITHIN_S = 60.0  # several ack periods: one lost ack is followed by the next
POLL_S = 0.1
READY_WITHIN_S = 120.0
SERVERS = ("mosquitto-1", "kafka", "postgres", "driver_api", "tracking_api")

OLDEST = """
    SELECT max(coalesce(extract(epoch FROM now() - fix_at), 1e9)) FROM driver_state
    WHERE driver_id LIKE %s
"""

Environment = Mapping[str, str]


class Unhealthy(DoorstepError):
    """The stack did not become healthy again in the time given."""


@dataclass(frozen=True, slots=True)
class LabSettings:
    """How large the load is, and what the parts are told."""

    rate: float = 500.0  # fixes/s, in all
    couriers: int = 16  # of the drivers; they carry the scripted orders
    brokers: int = 1  # Mosquittos; the stack's bridge has the first, each other has its own
    two_kafkas: bool = False  # brokers with two copies of each topic; the first is the controller
    ack_every_s: float = ACK_EVERY_S
    normal_s: float = 3.0  # a fix every 0.5 s, 0.1 s to its commit, and a machine that is busy
    environment: tuple[tuple[str, str], ...] = ()  # tuning that all parts inherit


class _Stack(Stack):
    """A stack some of whose parts are told other things than usual."""

    def __init__(
        self, settings: StackSettings, environment: Environment, *, two_kafkas: bool
    ) -> None:
        self.overrides: dict[str, Environment] = {}
        self.kafka_beside: KafkaBeside | None = None
        self._two_kafkas = two_kafkas
        super().__init__(settings, environment=environment, say=lambda _line: None)

    def _prepare_kafka(self) -> None:
        super()._prepare_kafka()
        if self._two_kafkas:
            self.kafka_beside = KafkaBeside(self.paths, self.addresses, self.settings)

    def _set_up(self) -> None:
        if self.kafka_beside is not None:
            self.kafka_beside.start()  # here, as it ends with the thread that has started it
            self.kafka_beside.await_both()  # one that is not there yet is given nothing to lead
            set_up_topics(self.addresses, COPIES)
        super()._set_up()

    def _parts(self) -> list[ProcessSpec]:
        if len(self.addresses.mqtt) > 1:
            first = {"MQTT_URL": self.addresses.mqtt_url.partition(",")[0]}
            self.overrides.setdefault("bridge", first)
        return [
            replace(part, environment={**part.environment, **self.overrides.get(part.name, {})})
            for part in super()._parts()
        ]

    def restart_services(self) -> None:
        """Start the four services anew, with what they are to be told now."""
        write_config(self.paths, self._parts(), os.getpid())
        with self.supervisor._rpc() as rpc:
            rpc.supervisor.reloadConfig()
            rpc.supervisor.stopProcessGroup("services", True)
            rpc.supervisor.removeProcessGroup("services")
            rpc.supervisor.addProcessGroup("services")


class Lab:
    """`with Lab(...) as lab:` starts the stack and its load, and stops and erases both.

    If this process is killed, the stack stops by itself, and so does the load.
    """

    def __init__(
        self, settings: LabSettings | None = None, say: Callable[[str], None] | None = None
    ) -> None:
        self.settings = settings or LabSettings()
        self.say = say or (lambda line: print(line, file=sys.stderr, flush=True))
        self._folder = Path(tempfile.mkdtemp(prefix="doorstep-faults-"))
        self._folder.chmod(0o755)  # the servers' own users must reach it
        environment = {**os.environ, "ACK_EVERY_S": f"{self.settings.ack_every_s:g}"}
        environment |= dict(self.settings.environment)
        stack_settings = StackSettings(
            doorstep_home=self._folder / "stack", mqtt_brokers=self.settings.brokers, **ANY_PORT
        )
        self.bridges: list[SideSimulators] = []  # of the brokers after the first
        self._environment = environment
        self._stack = _Stack(stack_settings, environment, two_kafkas=self.settings.two_kafkas)
        self._watching: psycopg.Connection[Any] | None = None

    def __enter__(self) -> Self:
        try:
            self._stack.up(owner_pid=os.getpid())
            staff = {"Authorization": f"Bearer {self._stack.paths.staff_token()}"}
            at = self._stack.addresses
            self.tracking, self.driver_api = (
                httpx.Client(base_url=url, timeout=10, headers=staff, trust_env=False)
                for url in (at.tracking_api_url, at.driver_api_url)
            )
            for number, url in enumerate(at.mqtt_url.split(",")[1:], 2):
                self.bridges.append(
                    SideSimulators(self, "bridge", f"bridge-{number}", {"MQTT_URL": url})
                )
                self.bridges[-1].start()
            for bridge in self.bridges:  # what nobody has subscribed to yet, a broker drops
                wait_until(bridge.is_ready, READY_WITHIN_S, f"{bridge.name} is ready")
            self.load = Crew(self._stack, self.settings.rate, self.settings.couriers)
            self.load.start()
            self.wait_healthy(timeout_s=300)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, _t: type[BaseException] | None, _e: BaseException | None, _b: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        with contextlib.suppress(AttributeError):  # it may never have come that far
            self.load.stop()
        with contextlib.suppress(AttributeError):
            self.tracking.close()
            self.driver_api.close()
        if self._watching is not None:
            self._watching.close()
        for bridge in self.bridges:
            bridge.end(signal.SIGTERM)
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)  # a stopped process can't be asked to end
        self._stack.down(erase=True)
        if self._stack.kafka_beside is not None:
            self._stack.kafka_beside.end(signal.SIGKILL)
        shutil.rmtree(self._folder, ignore_errors=True)

    # -- what there is ------------------------------------------------------------------------

    @property
    def stack(self) -> Stack:
        """The stack itself."""
        return self._stack

    @property
    def kafka_beside(self) -> KafkaBeside:
        """The second Kafka broker of a lab that has two."""
        assert self._stack.kafka_beside is not None
        return self._stack.kafka_beside

    @property
    def addresses(self) -> Addresses:
        """Where everything listens."""
        return self._stack.addresses

    @property
    def kafka_servers(self) -> str:
        """As KAFKA_BOOTSTRAP_SERVERS has it."""
        return str(reach(self.addresses.kafka))

    @contextlib.contextmanager
    def database(self) -> Iterator[psycopg.Connection[Any]]:
        """Connect as the database's owner. Raises Unavailable, which is a DoorstepError."""
        with owner_connection(self._stack.database_admin_url) as conn:
            yield conn

    def metric(self, part: str, name: str) -> float:
        """Sum up one metric of a service over all its labels; 0 if it has none yet."""
        bind = reach(getattr(self.addresses, part))
        text = httpx.get(f"http://{bind}/metrics", timeout=10, trust_env=False).text
        lines = [line for line in text.splitlines() if line.startswith((name + " ", name + "{"))]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def readyz(self, part: str) -> int:
        """Ask a service whether it is ready: the status, or 0 without any answer."""
        bind = reach(getattr(self.addresses, part))
        try:
            return httpx.get(f"http://{bind}/readyz", timeout=5, trust_env=False).status_code
        except httpx.TransportError:
            return 0

    def log_of(self, part: str) -> str:
        """All that a part has logged so far (the newest 10 MB)."""
        path = self._stack.paths.logs / f"{part}.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def environment_of(self, part: str) -> dict[str, str]:
        """All the variables that a part runs with."""
        found = next(one for one in self._stack._parts() if one.name == part)
        return self._environment | dict(found.environment)

    def keep_logs(self, folder: Path) -> Path:
        """Copy all logs, which would end with the lab, and say where to."""
        to = folder / time.strftime("%Y%m%d-%H%M%S")
        shutil.copytree(self._stack.paths.logs, to)
        return to

    # -- breaking it --------------------------------------------------------------------------

    def pid(self, part: str) -> int:
        """A part's process id. Raises StackError if it doesn't run."""
        return self._stack.pid_of(part)

    def kill(self, part: str, number: signal.Signals = signal.SIGKILL) -> float:
        """Send a part a signal; return when (`time.monotonic`). supervisord starts it again."""
        os.kill(self.pid(part), number)
        return time.monotonic()

    @contextlib.contextmanager
    def stopped(self, part: str) -> Iterator[int]:
        """Freeze a part (SIGSTOP) for the length of the block; gives its pid."""
        pid = self.pid(part)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield pid
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    @contextlib.contextmanager
    def down(self, part: str) -> Iterator[None]:
        """Take a part down in order (SIGTERM) for the length of the block."""
        self._stack.stop_process(part)
        try:
            yield
        finally:
            self._stack.start_process(part)

    @contextlib.contextmanager
    def told(self, part: str, environment: Environment) -> Iterator[None]:
        """Let a service run with other variables for the length of the block.

        All services start anew at both ends, and the lab is healthy at both.
        """
        with self._told({part: environment}):
            yield

    @contextlib.contextmanager
    def _told(self, environments: Mapping[str, Environment]) -> Iterator[None]:
        overrides = self._stack.overrides
        before = {part: overrides.get(part, {}) for part in environments}
        overrides |= {part: {**before[part], **more} for part, more in environments.items()}
        try:
            self._stack.restart_services()
            self.wait_healthy()
            yield
        finally:
            overrides |= before
            self._stack.restart_services()
            self.wait_healthy()

    @contextlib.contextmanager
    def proxied(self, parts: Sequence[str], server: str) -> Iterator[Proxy]:
        """Put a proxy between services and a server: `proxied(["driver_events"], "postgres")`.

        Servers are "mosquitto-1", "postgres", "driver_api" and "tracking_api"; Kafka tells its
        clients where it is, so they would go past the proxy. The services start anew at both ends.
        """
        port = self._port_of(server)
        with Proxy(port) as proxy:
            through = {
                one.name: {
                    name: value.replace(f":{port}", f":{proxy.port}")
                    for name, value in one.environment.items()
                    if f"127.0.0.1:{port}" in value and not name.endswith("_BIND")
                }
                for one in self._stack._parts()
                if one.name in parts
            }
            if not all(through.values()):
                raise ValueError(f"not each of {', '.join(parts)} talks to {server}")
            with self._told(through):
                yield proxy
                proxy.heal()

    def _port_of(self, server: str) -> int:
        at = self.addresses
        if server.startswith("mosquitto-"):
            return at.mqtt[int(server.rpartition("-")[2]) - 1].port
        binds = {"postgres": at.database, "driver_api": at.driver_api}
        return (binds | {"tracking_api": at.tracking_api})[server].port

    def pids(self) -> list[int]:
        """The process ids of all parts, the keeper's first."""
        running = sorted(
            self._stack.supervisor.running().values(), key=lambda one: one.name != SUPERVISOR_GUARD
        )
        return [one.pid for one in running if one.pid > 0]

    def start_again(self, rng: random.Random, gap_s: float = 1.0) -> list[str]:
        """Start every part after all were killed, in an order drawn by `rng`, some time apart."""
        paths = self._stack.paths
        write_config(paths, self._stack._parts(), os.getpid())
        text = paths.supervisor_config.read_text(encoding="utf-8")
        late = text.replace("autorestart = true", "autorestart = true\nautostart = false")
        paths.supervisor_config.write_text(late, encoding="utf-8")
        self._stack.supervisor.start(self._environment)
        parts = [
            *((one.name, one.kind) for one in self._stack._parts()),
            (SUPERVISOR_GUARD, SUPERVISOR_GUARD),
        ]
        rng.shuffle(parts)
        for name, kind in parts:
            self._stack.supervisor.start_process(name, kind)
            time.sleep(gap_s)
        paths.supervisor_config.write_text(text, encoding="utf-8")
        return [name for name, _kind in parts]

    # -- healthy ------------------------------------------------------------------------------

    def wait_healthy(self, timeout_s: float = 180.0, since: float | None = None) -> float:
        """Wait until all is well under load; return the seconds from `since` until then.

        Healthy is the first moment at which every part is ready and each driver of the load has a
        fix in the database that was published after `since` and is at most `normal_s` old. Then,
        not counted, the devices must be told so: their journals forget what they had published by
        that moment. `since` is a `time.monotonic()`, by default now. Raises Unhealthy.
        """
        began = time.monotonic()
        since = began if since is None else since
        deadline = began + timeout_s
        since_at_s = time.time() - (began - since)
        waits_for = self._waits_for(since_at_s)
        while waits_for:
            if time.monotonic() > deadline:
                raise Unhealthy(f"not healthy after {timeout_s:.0f} s: {waits_for}")
            time.sleep(POLL_S)
            waits_for = self._waits_for(since_at_s)
        healthy_at = time.monotonic()
        published = self.load.published()
        while waiting := self.load.unacknowledged(published):
            if time.monotonic() > max(deadline, healthy_at + ACKED_WITHIN_S):
                raise Unhealthy(f"{waiting} fixes committed, and their devices not told")
            time.sleep(POLL_S)
        return healthy_at - since

    def _waits_for(self, since_at_s: float) -> str:
        """What is not well; empty if all is."""
        try:
            age_s = self.oldest_s()
        except (psycopg.Error, Unavailable) as exc:
            return f"the database: {str(exc).strip()}"
        if age_s > self.settings.normal_s:
            return f"fixes: the newest of one driver is {age_s:.1f} s old"
        if age_s >= time.time() - since_at_s:
            return "a fix of after the fault"
        states = self._stack.status()
        return ", ".join(one.part for one in states if not one.ready) or ("" if states else "all")

    def oldest_s(self) -> float:
        """How old a driver's newest committed fix is: of the driver for whom it is oldest.

        Raises psycopg.Error, Unavailable.
        """
        try:
            if self._watching is None:
                url = self._stack.database_admin_url
                self._watching = connect(url, statement_timeout_ms=3000)
                self._watching.autocommit = True
            row = self._watching.execute(OLDEST, (PROBE + "%",)).fetchone()
        except psycopg.Error:
            if self._watching is not None:
                self._watching.close()
            self._watching = None
            raise
        return float(row[0]) if row and row[0] is not None else float("inf")
