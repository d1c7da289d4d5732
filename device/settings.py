"""The settings of devices and simulators: addresses, credentials, journals."""

from __future__ import annotations

import zlib
from pathlib import Path

from pydantic import Field

from device.journal import MAX_FIXES
from doorstep.credentials import driver_token, mqtt_password, read_fleet_key
from doorstep.errors import SettingsError
from doorstep.secrets_file import FILE_NAME, read_secrets
from doorstep.settings import MqttBroker, MqttUrls
from doorstep.traces.settings import TraceSettings


class DeviceSettings(TraceSettings):
    """The environment of a device or simulator."""

    mqtt_url: MqttUrls = (MqttBroker("127.0.0.1", 1883, tls=False),)
    fleet_key_file: Path = Path(".doorstep/stack/secrets/fleet.key")
    staff_token_file: Path = Path(".doorstep/stack/secrets/staff.token")
    driver_api_url: str = "http://127.0.0.1:8001"
    tracking_api_url: str = "http://127.0.0.1:8000"
    journal_dir: Path = Path(".doorstep/stack/journals")
    journal_max_fixes: int = Field(default=MAX_FIXES, ge=1)
    ack_every_s: float = 30.0


class FleetSecrets:
    """The credentials of every driver, derived from the fleet key or rotated, and of staff."""

    def __init__(self, settings: DeviceSettings) -> None:
        """Read the fleet key, and the file of rotated secrets beside it. Raises SettingsError."""
        self._key = read_fleet_key(settings.fleet_key_file)
        self._rotated = read_secrets(settings.fleet_key_file.with_name(FILE_NAME))
        self._staff_token_file = settings.staff_token_file

    def mqtt_password(self, driver_id: str) -> str:
        """Return the driver's MQTT password."""
        kept = self._rotated.get(driver_id)
        return kept.secrets.mqtt_password if kept else mqtt_password(self._key, driver_id)

    def driver_token(self, driver_id: str) -> str:
        """Return the driver's bearer token for driver_api."""
        kept = self._rotated.get(driver_id)
        token = kept.secrets.token if kept else None
        return token or driver_token(self._key, driver_id)

    def staff_token(self) -> str:
        """Return staff's bearer token. Raises SettingsError."""
        try:
            return self._staff_token_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as exc:
            message = f"cannot read the staff token {self._staff_token_file}: {exc}"
            raise SettingsError(message) from exc


def broker_of(driver_id: str, brokers: tuple[MqttBroker, ...]) -> MqttBroker:
    """Return the broker of a driver: crc32(driver_id) modulo the ordered list."""
    return brokers[zlib.crc32(driver_id.encode()) % len(brokers)]
