"""One Mosquitto: with the project's configuration, or open to everyone."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

from doorstep.credentials import mqtt_password
from doorstep.password_file import BROKER_SERVICES, SERVICE_USERS, add_entries
from doorstep.settings import Bind
from ops.servers.process import HOST, ServerProcess
from ops.servers.waiting import wait_until
from ops.stack import mosquitto, probes
from ops.stack.addresses import choose_addresses
from ops.stack.paths import StackPaths
from ops.stack.settings import FREE_PORTS, StackSettings

RELOAD_TIMEOUT_S = 5.0


class MosquittoServer(ServerProcess):
    """Mosquitto with the project's configuration, ACL and passwords.

    Services can log in. Drivers can once `add_drivers` has added them.
    """

    def __init__(self, folder: Path, port: int | None = None) -> None:
        settings = StackSettings(doorstep_home=folder, **{**FREE_PORTS, "mqtt_port": port or 0})
        self._addresses = choose_addresses(settings, lambda _line: None)
        super().__init__(folder, self._addresses.mqtt[0].port)
        folder.chmod(0o755)  # the broker runs as another user
        self.paths = StackPaths(folder)
        self.paths.prepare()

    @property
    def url(self) -> str:
        """The broker's URL, as in MQTT_URL."""
        return self._addresses.mqtt_url

    def argv(self) -> list[str]:
        mosquitto.prepare(self.paths, self._addresses, lambda _line: None)
        self._write_passwords([])
        return mosquitto.broker_argv(self.paths, 1)

    def is_ready(self) -> bool:
        return self.accepts("stack")

    def password(self, username: str) -> str:
        """Return the password of a driver or service."""
        if username in SERVICE_USERS:
            service = username if username in BROKER_SERVICES else "driver_events"
            return self.paths.mqtt_password(service)
        return mqtt_password(self.paths.fleet_key(), username)

    def add_drivers(self, *driver_ids: str) -> None:
        """Let drivers log in."""
        self._write_passwords(driver_ids)
        self.signal(signal.SIGHUP)  # Mosquitto reads the password file again
        wait_until(lambda: self.accepts(driver_ids[-1]), RELOAD_TIMEOUT_S, "passwords reloaded")

    def accepts(self, username: str, password: str | None = None) -> bool:
        """Say whether the broker accepts this login. The default is the right password."""
        password = self.password(username) if password is None else password
        return probes.mqtt_accepts(self._addresses.mqtt[0], username, password)

    def erase(self) -> None:
        """Kill the broker and delete its data."""
        self.kill()
        self.paths.erase()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write_passwords(self, driver_ids: Sequence[str]) -> None:
        passwords = self.paths.mqtt_passwords()
        add_entries(self.paths.password_file, passwords, self.paths.fleet_key(), driver_ids)
        mosquitto.set_password_file_owner(self.paths.password_file)


class AnonymousMosquitto(ServerProcess):
    """Mosquitto without passwords or ACL, with queues and packets as large as the project's."""

    @property
    def url(self) -> str:
        """The broker's URL, as in MQTT_URL."""
        return f"mqtt://{Bind(HOST, self.port)}"

    def argv(self) -> list[str]:
        lines = [
            f"listener {self.port} {HOST}",
            *self.listener_options(),
            "allow_anonymous true",
            "set_tcp_nodelay true",
            "max_queued_messages 1000000",
            "max_inflight_messages 5000",
            "max_packet_size 65792",
            "persistence true",
            f"persistence_location {self.folder}/",
            "autosave_interval 1",
            "sys_interval 1",
            *(["user root"] if os.geteuid() == 0 else []),
        ]
        config = self.folder / "mosquitto.conf"
        config.write_text("\n".join(lines) + "\n")
        return [mosquitto.find_program(), "-c", str(config)]

    def listener_options(self) -> Sequence[str]:
        """Return further lines of the listener's configuration."""
        return ()
