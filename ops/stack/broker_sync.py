"""`python -m ops.stack.broker_sync`: keeps the brokers' password file up to date.

In the native stack it sends SIGHUP to every broker through supervisord. In a container it only
writes the file: mosquitto/in-container notices the change and sends the signal. It serves /readyz
and /metrics.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psycopg
from prometheus_client import Gauge
from pydantic import Field, SecretStr

from doorstep.broker_sync import BrokerSync
from doorstep.credentials import read_fleet_key
from doorstep.errors import DoorstepError, SettingsError
from doorstep.settings import Bind, BindSetting, ListenerSettings
from doorstep.store.error_mapping import translated
from doorstep.store.pool import connect
from doorstep.telemetry import configure_logging, get_logger, serve_telemetry
from ops.stack import mosquitto
from ops.stack.paths import StackPaths
from ops.stack.supervisor import Supervisor

RETRY_S = 1.0
# Up to 2.0.22, a reload in Mosquitto's first 2 s corrupts its memory (mosquitto#3418).
MIN_BROKER_UPTIME_S = 3.0


SYNCED_AT = Gauge(
    "doorstep_broker_sync_synced_timestamp_seconds",
    "When the brokers' files last had all credentials and revocations of the database",
)


class BrokerSyncSettings(ListenerSettings):
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
    broker_sync_bind: BindSetting = Bind("127.0.0.1", 8007)

    def service_passwords(self) -> dict[str, str]:
        """Return the services' passwords by user name."""
        passwords = {
            "bridge": self.bridge_mqtt_password.get_secret_value(),
            "driver_events": self.driver_events_mqtt_password.get_secret_value(),
            "stack": self.stack_mqtt_password.get_secret_value(),
        }
        return {user: password for user, password in passwords.items() if password}


class Follower:
    """Polls the database until the process ends. An outage is retried."""

    def __init__(self, settings: BrokerSyncSettings, sync: BrokerSync) -> None:
        self._settings = settings
        self._sync = sync
        self._is_synced = False

    def readiness(self) -> Mapping[str, bool]:
        """Return whether the credentials are followed."""
        return {"database": self._is_synced}

    def follow(self) -> None:
        """Poll the database."""
        is_down = False
        while True:
            try:
                url = self._settings.database_url.get_secret_value()
                with translated(), connect(url, application_name="broker_sync") as conn:
                    while True:
                        if self._sync.sync(conn) or is_down:
                            get_logger().info("broker_sync_written")
                        is_down = False
                        self._is_synced = True
                        SYNCED_AT.set_to_current_time()
                        time.sleep(self._settings.broker_sync_poll_s)
            except (DoorstepError, psycopg.errors.UndefinedFunction) as exc:
                if not is_down:
                    get_logger().warning("broker_sync_waits", error=str(exc))
                is_down = True
                self._is_synced = False
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
    follower = Follower(settings, sync)
    serve_telemetry(settings.broker_sync_bind, follower.readiness)
    follower.follow()
    return 0


if __name__ == "__main__":
    sys.exit(main())
