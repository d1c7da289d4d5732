"""Keeps a broker's password file equal to the credentials in the database.

One of these runs beside each password file. A reload makes Mosquitto disconnect the clients whose
line is gone or has another password.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psycopg

from doorstep.credentials import mosquitto_entry, phone_entry, phone_username
from doorstep.mqtt_topics import phone_acl
from doorstep.password_file import service_entries, write_entries
from doorstep.store.people import ChangedDevice, changed_devices
from doorstep.store.phones import ChangedPhone, changed_phones, register_phone_tokens

# A fleet of 100,000 is added in batches: the file is written once, after the last of them.
MANY_ADDED = 1_000


class BrokerSync:
    """Follows the credentials and rewrites one password file, and the phones in the ACL file.

    `reload` makes the brokers read the files again. `acl_file` gets the text of `acl_template` and
    a paragraph per phone.
    """

    def __init__(
        self,
        key: bytes,
        service_passwords: Mapping[str, str],
        password_file: Path,
        reload: Callable[[], None],
        acl_file: Path | None = None,
        acl_template: str = "",
    ) -> None:
        self._key = key
        self._entries = service_entries(service_passwords)
        self._password_file = password_file
        self._reload = reload
        self._acl_file = acl_file
        self._acl = {"": acl_template.rstrip("\n")}
        self._version = -1
        self._is_stale = True  # at the start: the brokers may have missed the last reload

    def sync(self, conn: psycopg.Connection[Any]) -> bool:
        """Apply the changes since the last call. Returns whether there were any."""
        changed = changed_devices(conn, self._version)
        for device in changed:
            self._apply(device)
        phones = changed_phones(conn, self._version)
        for phone in phones:
            self._apply_phone(phone)
        derived = [(one.driver_id, one.generation) for one in phones if one.has_derived_token]
        if derived:
            register_phone_tokens(conn, self._key, derived)
        conn.commit()
        # After the commit: what a lost connection interrupts is applied again.
        self._version = max(
            [self._version, *(one.version for one in changed), *(one.version for one in phones)]
        )
        self._is_stale = self._is_stale or bool(changed or phones)
        is_bulk = len(changed) > MANY_ADDED and all(one.is_active for one in changed)
        if self._is_stale and not is_bulk:
            if self._acl_file is not None:  # first: a phone without its rules is a device
                write_entries(self._acl_file, self._acl)
            write_entries(self._password_file, self._entries)
            self._reload()
            self._is_stale = False
        return bool(changed or phones)

    def _apply(self, device: ChangedDevice) -> None:
        if device.is_active:
            self._entries[device.device_id] = mosquitto_entry(
                self._key, device.device_id, device.mqtt_hash
            )
        else:
            self._entries.pop(device.device_id, None)

    def _apply_phone(self, phone: ChangedPhone) -> None:
        username = phone_username(phone.driver_id)
        if phone.is_active and self._acl_file is not None:
            self._entries[username] = phone_entry(
                self._key, phone.driver_id, phone.generation, phone.mqtt_hash
            )
            self._acl[username] = phone_acl(username, phone.driver_id)
        else:
            self._entries.pop(username, None)
            self._acl.pop(username, None)
