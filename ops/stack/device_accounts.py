"""The device accounts of a running stack: drivers, sources, their secrets and logins."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence

from doorstep.credentials import DeviceSecrets, driver_token, mqtt_password
from doorstep.provision import (
    check_driver_ids,
    owner_connection,
    provision_drivers,
    provision_sources,
)
from doorstep.secrets_file import keep_secrets, read_secrets
from doorstep.store.people import Device, change_device, list_devices
from ops.console import operator
from ops.stack import probes
from ops.stack.errors import StackError
from ops.stack.stack_part import StackPart

LOGIN_TIMEOUT_S = 30.0  # a broker reads 100,000 new passwords in that time


class DeviceAccounts(StackPart):
    """Adds and changes devices in the database, and waits for the brokers to follow."""

    @property
    @abstractmethod
    def database_admin_url(self) -> str:
        """The URL of the database's owner."""

    def add_drivers(self, driver_ids: Sequence[str], *, again: bool = False) -> list[Device]:
        """Register drivers, and wait until every broker accepts them.

        A removed driver comes back only if `again`. Returns the drivers that may not log in.
        """
        check_driver_ids(driver_ids)
        if not driver_ids:
            return []
        with owner_connection(self.database_admin_url) as conn:
            locked_out = provision_drivers(
                conn,
                self.paths.fleet_key(),
                driver_ids,
                self._echo,
                again=self._keep if again else None,
                who=operator(),
            )
        self._wait_for_newest("driver", driver_ids, locked_out)
        return locked_out

    def add_sources(self, source_ids: Sequence[str], *, again: bool = False) -> list[Device]:
        """Register sources of series, and wait until every broker accepts them."""
        if not source_ids:
            return []
        with owner_connection(self.database_admin_url) as conn:
            locked_out = provision_sources(
                conn, source_ids, again=self._keep if again else None, who=operator()
            )
        self._wait_for_newest("source", source_ids, locked_out)
        return locked_out

    def devices(self, kind: str) -> list[Device]:
        """Return all drivers or sources, removed ones included, in the order of their addition."""
        with owner_connection(self.database_admin_url) as conn:
            return list_devices(conn, kind)

    def change_device(self, kind: str, device_id: str, change: str) -> Device:
        """Revoke, rotate or remove a device, and wait until no broker accepts its old password.

        Raises UnknownDriver.
        """
        secrets = DeviceSecrets.draw(kind) if change == "rotate" else None
        with owner_connection(self.database_admin_url) as conn:
            device = change_device(conn, kind, device_id, change, operator(), secrets)
        if secrets is not None:
            self._keep(device, secrets)
        self._wait_for_logins(device, accepted=secrets is not None)
        return device

    def device_secrets(self, device: Device) -> DeviceSecrets | None:
        """Return a device's secrets; None for random ones that were handed out elsewhere."""
        if device.is_derived:
            key, name = self.paths.fleet_key(), device.device_id
            token = driver_token(key, name) if device.kind == "driver" else None
            return DeviceSecrets(mqtt_password(key, name), token)
        kept = read_secrets(self.paths.device_secrets_file).get(device.device_id)
        return kept.secrets if kept and kept.generation == device.generation else None

    def _keep(self, device: Device, secrets: DeviceSecrets) -> None:
        file = self.paths.device_secrets_file
        keep_secrets(file, device.device_id, device.generation, secrets)

    def _wait_for_newest(
        self, kind: str, device_ids: Sequence[str], locked_out: Sequence[Device]
    ) -> None:
        names = {one.device_id for one in locked_out}
        newest = next((one for one in reversed(device_ids) if one not in names), None)
        if newest is not None:
            [device] = [one for one in self.devices(kind) if one.device_id == newest]
            self._wait_for_logins(device, accepted=True)

    def _wait_for_logins(self, device: Device, *, accepted: bool) -> None:
        secrets = self.device_secrets(device)
        if secrets is not None:  # else made over the API: there is nothing to log in with
            self.wait_for_logins(device.device_id, secrets.mqtt_password, accepted=accepted)

    def wait_for_logins(self, user: str, password: str, *, accepted: bool) -> None:
        """Wait until broker_sync has brought a change to every broker. Raises StackError."""
        deadline = time.monotonic() + LOGIN_TIMEOUT_S
        for number, broker in enumerate(self.addresses.mqtt, start=1):
            while probes.mqtt_accepts(broker, user, password) != accepted:
                if time.monotonic() > deadline:
                    still = "does not accept" if accepted else "still accepts"
                    raise StackError(
                        f"mosquitto-{number} {still} {user}: see ./run logs broker_sync"
                    )
                time.sleep(0.05)
