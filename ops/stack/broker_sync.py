"""`python -m ops.stack.broker_sync`: keeps the brokers' password file up to date.

In the native stack it sends SIGHUP to every broker through supervisord. In a container it only
writes the file: mosquitto/in-container notices the change and sends the signal.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
from pydantic import Field, SecretStr

from doorstep.broker_sync import BrokerSync
from doorstep.credentials import read_fleet_key
from doorstep.errors import DoorstepError, SettingsError
from doorstep.settings import ServiceSettings
from doorstep.store.error_mapping import translated
from doorstep.store.pool import connect
from doorstep.telemetry import configure_logging, get_logger
from ops.stack import mosquitto
from ops.stack.paths import StackPaths
from ops.stack.supervisor import Supervisor

RETRY_S = 1.0
# Up to 2.0.22, a reload in Mosquitto's first 2 s corrupts its memory (mosquitto#3418).
MIN_BROKER_UPTIME_S = 3.0


class BrokerSyncSettings(ServiceSettings):
    """The environment of broker_sync."""

    database_url: SecretStr
    fleet_key_file: Path
    mosquitto_password_file: Path
    mosquitto_acl_file: Path | None = None  # without one, phone apps may not log in at the brokers
    mosquitto_acl_template: Path = mosquitto.ACL
    bridge_mqtt_password: SecretStr
    driver_events_mqtt_password: SecretStr
    stack_mqtt_password: SecretStr = SecretStr("")
    broker_sync_poll_s: float = Field(default=1.0, gt=0)

    def service_passwords(self) -> dict[str, str]:
        """Return the services' passwords by user name."""
        passwords = {
            "bridge": self.bridge_mqtt_password.get_secret_value(),
            "driver_events": self.driver_events_mqtt_password.get_secret_value(),
            "stack": self.stack_mqtt_password.get_secret_value(),
        }
        return {user: password for user, password in passwords.items() if password}


def follow(settings: BrokerSyncSettings, sync: BrokerSync) -> None:
    """Poll the database until the process ends. An outage is retried."""
    is_down = False
    while True:
        try:
            url = settings.database_url.get_secret_value()
            with translated(), connect(url, application_name="broker_sync") as conn:
                while True:
                    if sync.sync(conn) or is_down:
                        get_logger().info("broker_sync_written")
                    is_down = False
                    time.sleep(settings.broker_sync_poll_s)
        except (DoorstepError, psycopg.errors.UndefinedFunction) as exc:
            if not is_down:
                get_logger().warning("broker_sync_waits", error=str(exc))
            is_down = True
            time.sleep(RETRY_S)


def reload_through_supervisor(paths: StackPaths) -> Callable[[], None]:
    """Return a function that sends SIGHUP to every Mosquitto of a native stack."""
    supervisor = Supervisor(paths)

    def reload() -> None:
        processes = supervisor.running().items()
        brokers = {name: one for name, one in processes if name.startswith("mosquitto-")}
        youngest_s = min((one.uptime_s for one in brokers.values()), default=MIN_BROKER_UPTIME_S)
        time.sleep(max(0.0, MIN_BROKER_UPTIME_S - max(0.0, youngest_s)))
        for name in brokers:
            supervisor.signal(name, "brokers", "HUP")

    return reload


def main() -> int:
    """Run until stopped; the return value is the exit status."""
    parser = argparse.ArgumentParser(prog="ops.stack.broker_sync", description=__doc__)
    parser.add_argument("--home", type=Path, help="the folder of the native stack")
    home = parser.parse_args().home
    configure_logging("broker_sync")
    paths = StackPaths(home) if home is not None else None
    try:
        settings = BrokerSyncSettings.load()
        key = read_fleet_key(settings.fleet_key_file)
    except SettingsError as exc:
        print(f"broker_sync: {exc}", file=sys.stderr)
        return 78  # sysexits.h: configuration error
    sync = BrokerSync(
        key,
        settings.service_passwords(),
        settings.mosquitto_password_file,
        reload_through_supervisor(paths) if paths else lambda: None,
        settings.mosquitto_acl_file,
        settings.mosquitto_acl_template.read_text(encoding="utf-8"),
    )
    follow(settings, sync)
    return 0


if __name__ == "__main__":
    sys.exit(main())
