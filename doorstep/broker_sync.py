"""Keeps a broker's password file equal to the credentials in the database.

One of these runs beside each password file. A reload makes Mosquitto disconnect the clients whose
line is gone or has another password.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psycopg

from doorstep.credentials import mosquitto_entry
from doorstep.password_file import service_entries, write_entries
from doorstep.store.people import ChangedDevice, changed_devices

# A fleet of 100,000 is added in batches: the file is written once, after the last of them.
MANY_ADDED = 1_000


class BrokerSync:
    """Follows the credentials and rewrites one password file.

    `reload` makes the brokers read the file again.
    """

    def __init__(
        self,
        key: bytes,
        service_passwords: Mapping[str, str],
        password_file: Path,
        reload: Callable[[], None],
    ) -> None:
        self._key = key
        self._entries = service_entries(service_passwords)
        self._password_file = password_file
        self._reload = reload
        self._version = -1
        self._is_stale = True  # at the start: the brokers may have missed the last reload

    def sync(self, conn: psycopg.Connection[Any]) -> bool:
        """Apply the changes since the last call. Returns whether there were any."""
        changed = changed_devices(conn, self._version)
        conn.commit()
        for device in changed:
            self._apply(device)
        self._version = max([self._version, *(one.version for one in changed)])
        self._is_stale = self._is_stale or bool(changed)
        is_bulk = len(changed) > MANY_ADDED and all(one.is_active for one in changed)
        if self._is_stale and not is_bulk:
            write_entries(self._password_file, self._entries)
            self._reload()
            self._is_stale = False
        return bool(changed)

    def _apply(self, device: ChangedDevice) -> None:
        if device.is_active:
            self._entries[device.device_id] = mosquitto_entry(
                self._key, device.device_id, device.mqtt_hash
            )
        else:
            self._entries.pop(device.device_id, None)
