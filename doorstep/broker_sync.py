"""Keeps a broker's password file equal to the credentials in the database.

One of these runs beside each password file. A reload makes Mosquitto disconnect the clients whose
line is gone or has another password.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psycopg

from doorstep.credentials import driver_token, mosquitto_entry, token_sha256
from doorstep.password_file import service_entries, write_entries
from doorstep.store.people import ChangedDevice, changed_devices, register_device_tokens

# A fleet of 100,000 is added in batches: the file is written once, after the last of them.
MANY_ADDED = 1_000


class BrokerSync:
    """Follows the credentials and rewrites one password file.

    `reload` makes the brokers read the file again. `generations_file` lists the devices beyond
    generation 0, for simulated devices.
    """

    def __init__(
        self,
        key: bytes,
        service_passwords: Mapping[str, str],
        password_file: Path,
        reload: Callable[[], None],
        generations_file: Path | None = None,
    ) -> None:
        self._key = key
        self._entries = service_entries(service_passwords)
        self._password_file = password_file
        self._reload = reload
        self._generations_file = generations_file
        self._generations: dict[str, int] = {}
        self._version = -1
        self._is_stale = True  # at the start: the brokers may have missed the last reload

    def sync(self, conn: psycopg.Connection[Any]) -> bool:
        """Apply the changes since the last call. Commits. Returns whether there were any."""
        changed = changed_devices(conn, self._version)
        for device in changed:
            self._apply(device)
        tokens = [
            (one.device_id, one.generation, self._token_sha256(one))
            for one in changed
            if one.kind == "driver" and one.is_active and one.generation > 0
        ]
        if tokens:
            register_device_tokens(conn, tokens)
        conn.commit()
        # After the commit: what a lost connection interrupts is applied again.
        self._version = max([self._version, *(one.version for one in changed)])
        self._is_stale = self._is_stale or bool(changed)
        is_bulk = len(changed) > MANY_ADDED and all(one.is_active for one in changed)
        if self._is_stale and not is_bulk:
            write_entries(self._password_file, self._entries)
            self._write_generations()
            self._reload()
            self._is_stale = False
        return bool(changed)

    def _apply(self, device: ChangedDevice) -> None:
        if device.is_active:
            self._entries[device.device_id] = mosquitto_entry(
                self._key, device.device_id, device.generation
            )
        else:
            self._entries.pop(device.device_id, None)
        if device.generation:
            self._generations[device.device_id] = device.generation

    def _token_sha256(self, device: ChangedDevice) -> bytes:
        return token_sha256(driver_token(self._key, device.device_id, device.generation))

    def _write_generations(self) -> None:
        if self._generations_file is not None:
            lines = {name: f"{name} {number}" for name, number in self._generations.items()}
            write_entries(self._generations_file, lines)
