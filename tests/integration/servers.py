"""One server for tests: started from the stack's own configuration, killed, started again."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from doorstep.credentials import mqtt_password
from doorstep.provision import write_password_file
from ops.stack import kafka, mosquitto, probes
from ops.stack.addresses import Addresses, choose_addresses, reach
from ops.stack.paths import StackPaths
from ops.stack.settings import StackSettings

START_TIMEOUT_S = 60.0


def wait_until(holds: Callable[[], object], timeout_s: float = 30.0, what: str = "") -> None:
    """Wait until `holds()` is true, or fail."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:.0f} s: {what or holds}")
        time.sleep(0.05)


class _Broker:
    """A server process in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o755)
        self.settings = StackSettings(
            doorstep_home=folder, mqtt_port=0, kafka_port=0, database_port=0
        )
        self.paths = StackPaths(folder)
        self.paths.prepare()
        self.addresses: Addresses = choose_addresses(self.settings, lambda _: None)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """Kill -9, as a power cut would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """SIGTERM, and wait."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(30)

    def erase(self) -> None:
        """Kill it and delete its data."""
        self.kill()
        self.paths.erase()
        shutil.rmtree(self.paths.root, ignore_errors=True)

    def _spawn(self, argv: Sequence[str], is_ready: Callable[[], bool]) -> None:
        with (self.paths.logs / "server.log").open("ab") as log:
            self._process = subprocess.Popen(argv, stdout=log, stderr=log, cwd="/")
        wait_until(is_ready, START_TIMEOUT_S, f"{argv} is ready")


class MosquittoBroker(_Broker):
    """One Mosquitto; drivers are let in once they are added."""

    @property
    def url(self) -> str:
        """As MQTT_URL has it."""
        return self.addresses.mqtt_url

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        return self.addresses.mqtt[0].port

    def password(self, username: str) -> str:
        """The password of a driver or service."""
        return mqtt_password(self.paths.fleet_key(), username)

    def start(self) -> None:
        """Start it, again on its own data if it ran before."""
        mosquitto.prepare(self.paths, self.addresses, lambda _: None)
        self._write_passwords([])
        self._spawn(mosquitto.broker_argv(self.paths, 1), lambda: self.lets_in("stack"))

    def add_drivers(self, *driver_ids: str) -> None:
        """Let drivers in."""
        self._write_passwords(driver_ids)
        assert self._process is not None
        self._process.send_signal(1)  # SIGHUP
        wait_until(lambda: self.lets_in(driver_ids[-1]), 5)

    def lets_in(self, username: str, password: str | None = None) -> bool:
        """Whether it accepts this user."""
        known = self.password(username) if password is None else password
        return probes.mqtt_accepts(self.addresses.mqtt[0], username, known)

    def _write_passwords(self, driver_ids: Sequence[str]) -> None:
        write_password_file(self.paths.password_file, self.paths.fleet_key(), driver_ids)
        mosquitto.give_to_broker(self.paths.password_file)


class KafkaBroker(_Broker):
    """One Kafka; the tests create the topics that they need."""

    @property
    def bootstrap_servers(self) -> str:
        """As KAFKA_BOOTSTRAP_SERVERS has it."""
        return str(reach(self.addresses.kafka))

    def start(self) -> None:
        """Start it, again on its own data if it ran before."""
        kafka.prepare(self.paths, self.addresses, self.settings)
        self._spawn(
            kafka.broker_argv(self.paths, self.settings),
            lambda: probes.listens(self.addresses.kafka),
        )
