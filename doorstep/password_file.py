"""Mosquitto's password file: one line per service and per device that may log in."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from doorstep.credentials import DRIVER_EVENTS_REPLICAS, mosquitto_entry, service_entry

# Services with a password of their own. The instances of driver_events share one.
BROKER_SERVICES = ("bridge", "driver_events", "stack")
TICKERS = "tickers"  # the source of `./run tickers`
FORGOTTEN = "forgotten"  # in place of a driver, in the orders that they carried
# Users of the broker that are not drivers.
SERVICE_USERS = (*BROKER_SERVICES, *DRIVER_EVENTS_REPLICAS, TICKERS)


def service_entries(passwords: Mapping[str, str]) -> dict[str, str]:
    """Build the lines of the services, given the passwords of BROKER_SERVICES."""
    users = dict(passwords)
    if "driver_events" in passwords:
        users |= dict.fromkeys(DRIVER_EVENTS_REPLICAS, passwords["driver_events"])
    return {user: service_entry(user, password) for user, password in users.items()}


def add_entries(
    path: Path, passwords: Mapping[str, str], key: bytes = b"", device_ids: Sequence[str] = ()
) -> bool:
    """Add services and devices with derived secrets to the file, or replace their lines.

    Other lines stay. Return whether the file changed.
    """
    devices = {device_id: mosquitto_entry(key, device_id) for device_id in device_ids}
    return write_entries(path, read_entries(path) | service_entries(passwords) | devices)


def read_entries(path: Path) -> dict[str, str]:
    """Read the lines by user name; none if there is no file."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return {}
    return {line.partition(":")[0]: line for line in lines if line}


def write_entries(path: Path, entries: Mapping[str, str]) -> bool:
    """Replace the file atomically, keeping its owner. Return whether it changed."""
    text = "".join(f"{line}\n" for line in entries.values())
    if path.exists() and path.read_text(encoding="ascii") == text:
        return False
    part = path.with_name(path.name + ".part")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    if path.exists() and os.geteuid() == 0:
        was = path.stat()
        os.chown(part, was.st_uid, was.st_gid)
        part.chmod(was.st_mode & 0o777)
    part.replace(path)
    return True
