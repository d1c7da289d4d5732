"""Registers drivers, sources, cities with their restaurants, and the staff's token.

    python -m doorstep.provision --cities
    python -m doorstep.provision --drivers 100000 --prefix load-
    python -m doorstep.provision --driver bus304 --driver anna
    python -m doorstep.provision --source weather
    python -m doorstep.provision --rotate anna --revoke bruno --remove carla
    python -m doorstep.provision --kind source --rotate weather

Reads DATABASE_ADMIN_URL, FLEET_KEY_FILE, STAFF_TOKEN_FILE and CITIES_DIR. Each run is idempotent,
and leaves alone who was revoked or removed. broker_sync lets the devices log in at the brokers.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from data.cities import CityFolder, list_cities
from doorstep.credentials import (
    DeviceSecrets,
    driver_token,
    encode_fleet_key,
    mqtt_password,
    new_fleet_key,
    new_staff_token,
    read_fleet_key,
    token_sha256,
)
from doorstep.errors import DoorstepError, SettingsError
from doorstep.password_file import FORGOTTEN, SERVICE_USERS, TICKERS
from doorstep.store.admin import (
    NewCity,
    NewDriver,
    NewRestaurant,
    register_city,
    register_drivers,
    register_staff_token,
)
from doorstep.store.error_mapping import translated
from doorstep.store.people import Device, add_devices, change_device, list_devices
from doorstep.store.pool import connect

DRIVER_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
CITIES = ("city-", 500)  # the drivers of simulators.cities: prefix and count
PROVISION = "provision"  # its name in the audit
CHANGES = ("rotate", "revoke", "remove")
DRIVERS_PER_BATCH = 5_000  # per statement, commit and progress line

Log = Callable[[str], None]
HandOut = Callable[[Device, DeviceSecrets], None]
"""Gives new secrets to their owner: they are not stored."""


def check_driver_ids(driver_ids: Sequence[str]) -> None:
    """Raise SettingsError for an invalid driver id."""
    for driver_id in driver_ids:
        if not DRIVER_ID.fullmatch(driver_id):
            raise SettingsError(
                f"{driver_id!r} can't be a driver's id: 1 to 64 letters, digits, _ or -"
            )
        if driver_id == FORGOTTEN:
            raise SettingsError(f"{driver_id!r} stands for drivers whose data were erased")
        if driver_id in SERVICE_USERS:
            raise SettingsError(f"{driver_id!r} is the name of a service, not of a driver")


def provision_drivers(
    conn: psycopg.Connection[Any],
    key: bytes,
    driver_ids: Sequence[str],
    log: Log,
    *,
    again: HandOut | None = None,
    who: str | None = None,
) -> list[Device]:
    """Register drivers and their tokens. Commits.

    A removed driver comes back only with `again`, which gets the new secrets. Returns the drivers
    that may not log in: those revoked, or removed and not added again.
    """
    check_driver_ids(driver_ids)
    locked_out: list[Device] = []
    for start in range(0, len(driver_ids), DRIVERS_PER_BATCH):
        batch = driver_ids[start : start + DRIVERS_PER_BATCH]
        devices = _add_devices(conn, "driver", batch, again, who)
        active = [one for one in devices if one.state == "active"]
        locked_out += [one for one in devices if one.state != "active"]
        register_drivers(
            conn,
            [
                NewDriver(
                    one.device_id, one.device_id, token_sha256(driver_token(key, one.device_id))
                )
                for one in active
                if one.is_derived
            ],
        )
        conn.commit()
        if len(driver_ids) > DRIVERS_PER_BATCH:
            log(f"drivers: {start + len(batch):,} of {len(driver_ids):,}")
    return locked_out


def provision_sources(
    conn: psycopg.Connection[Any],
    source_ids: Sequence[str],
    *,
    again: HandOut | None = None,
    who: str | None = None,
) -> list[Device]:
    """Register sources of series. Commits. Like `provision_drivers`."""
    check_driver_ids([one for one in source_ids if one != TICKERS])
    devices = _add_devices(conn, "source", source_ids, again, who)
    conn.commit()
    return [one for one in devices if one.state != "active"]


def _add_devices(
    conn: psycopg.Connection[Any],
    kind: str,
    device_ids: Sequence[str],
    again: HandOut | None,
    who: str | None,
) -> list[Device]:
    devices = add_devices(conn, kind, device_ids, who=who)
    _check_kind(kind, devices)
    if again is None:
        return devices
    removed = [one for one in devices if one.state == "removed"]
    devices = [one for one in devices if one.state != "removed"]
    return devices + [_add_again(conn, one, again, who or PROVISION) for one in removed]


def _add_again(
    conn: psycopg.Connection[Any], device: Device, hand_out: HandOut, who: str
) -> Device:
    secrets = DeviceSecrets.draw(device.kind)
    added = change_device(conn, device.kind, device.device_id, "add", who, secrets)
    conn.commit()
    hand_out(added, secrets)
    return added


def import_sources(conn: psycopg.Connection[Any], sources_file: Path) -> None:
    """Register the sources of a release that kept them in a file. Commits."""
    try:
        names = sources_file.read_text(encoding="ascii").split()
    except FileNotFoundError:
        return
    add_devices(conn, "source", names)
    conn.commit()


def _check_kind(kind: str, devices: Sequence[Device]) -> None:
    other = [one for one in devices if one.kind != kind]
    if other:
        raise SettingsError(f"{other[0].device_id!r} is the name of a {other[0].kind} already")


def provision_city(conn: psycopg.Connection[Any], city: CityFolder) -> int | None:
    """Register a city's area and restaurants; return their count. Commits.

    None, without a change, if these files or newer ones are registered: what staff have changed
    since stays.
    """
    bounds = city.bounds
    restaurants = list(read_restaurants(city.restaurants))
    new = NewCity(
        city.name,
        bounds.west,
        bounds.south,
        bounds.east,
        bounds.north,
        city.time_zone,
        city.made_at,
        restaurants,
    )
    is_new = register_city(conn, new)
    conn.commit()
    return len(restaurants) if is_new else None


def provision_cities(conn: psycopg.Connection[Any], cities_dir: Path | None) -> dict[str, int]:
    """Register every city that has a folder; return the restaurants of the new ones. Commits."""
    counts = {city.name: provision_city(conn, city) for city in list_cities(cities_dir)}
    return {name: count for name, count in counts.items() if count is not None}


def provision_staff(conn: psycopg.Connection[Any], token: str) -> None:
    """Register the launcher's token, as the admin `stack`. Commits."""
    register_staff_token(conn, token_sha256(token), "stack")
    conn.commit()


def read_restaurants(path: Path) -> Iterator[NewRestaurant]:
    """Read a city's restaurants; one without a name is named by its number."""
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["kind"] == "restaurant":
                number = int(row["poi_id"])
                name = row["name"].strip() or f"Restaurant {number}"
                yield NewRestaurant(number, name, float(row["lon"]), float(row["lat"]))


@contextmanager
def owner_connection(url: str) -> Iterator[psycopg.Connection[Any]]:
    """Connect as the database's owner. Raises StoreUnavailable."""
    with translated(), connect(url, application_name="doorstep-provision") as conn:
        yield conn


def main() -> int:
    """Provision what the command line names."""
    parser = argparse.ArgumentParser(
        prog="doorstep.provision",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cities", action="store_true", help="all cities that have a folder")
    parser.add_argument("--drivers", type=int, default=0, metavar="N", help="N numbered drivers")
    parser.add_argument("--prefix", default="driver-", help="of the numbered drivers' ids")
    parser.add_argument("--driver", action="append", default=[], metavar="ID", help="a named one")
    parser.add_argument("--source", action="append", default=[], metavar="ID", help="of series")
    parser.add_argument("--again", action="store_true", help="add removed ones again")
    parser.add_argument(
        "--kind",
        choices=["driver", "source"],
        default="driver",
        help="what the next options name (driver)",
    )
    for change in CHANGES:
        parser.add_argument(
            f"--{change}", action="append", default=[], metavar="ID", help=f"{change} a driver"
        )
    parser.add_argument(
        "--make-secrets", action="store_true", help="make the key and token files that are missing"
    )
    options = parser.parse_args()
    try:
        return _run(options)
    except DoorstepError as exc:
        _print(f"provision: {exc}")
        return 1


def _run(options: argparse.Namespace) -> int:
    key_file, token_file = _path("FLEET_KEY_FILE"), _path("STAFF_TOKEN_FILE")
    if options.make_secrets:
        _write_once(key_file, encode_fleet_key(new_fleet_key()))
        _write_once(token_file, new_staff_token() + "\n")
    key = read_fleet_key(key_file)
    driver_ids = [*options.driver, *numbered_ids(options.prefix, options.drivers)]
    with owner_connection(_require("DATABASE_ADMIN_URL")) as conn:
        provision_staff(conn, token_file.read_text(encoding="ascii").strip())
        if options.cities:
            folder = os.environ.get("CITIES_DIR")
            for name, count in provision_cities(conn, Path(folder) if folder else None).items():
                _print(f"{name}: {count:,} restaurants")
        again = _print_secrets if options.again else None
        provision_sources(conn, [TICKERS])
        locked_out = provision_sources(conn, options.source, again=again, who=PROVISION)
        for source in sorted(set(options.source) - {one.device_id for one in locked_out}):
            _print_source(conn, key, source)
        if driver_ids:
            locked_out = provision_drivers(
                conn, key, driver_ids, _print, again=again, who=PROVISION
            )
            _print(f"drivers: {len(driver_ids) - len(locked_out):,}")
        for change in CHANGES:
            for device_id in getattr(options, change):
                _change(conn, options.kind, device_id, change)
    return 0


def _change(conn: psycopg.Connection[Any], kind: str, device_id: str, change: str) -> None:
    """Change a device, and print its state or its new secrets."""
    secrets = DeviceSecrets.draw(kind) if change == "rotate" else None
    device = change_device(conn, kind, device_id, change, PROVISION, secrets)
    conn.commit()
    if secrets is not None:
        _print_secrets(device, secrets)
    else:
        _print(f"{device_id}: {device.state}")


def _print_source(conn: psycopg.Connection[Any], key: bytes, source_id: str) -> None:
    """Print the MQTT password of a source, if it is a derived one."""
    [device] = [one for one in list_devices(conn, "source") if one.device_id == source_id]
    if device.is_derived:
        print(source_id, mqtt_password(key, source_id))


def _print_secrets(device: Device, secrets: DeviceSecrets) -> None:
    print(device.device_id, secrets.mqtt_password, *([secrets.token] if secrets.token else []))


def numbered_ids(prefix: str, count: int, width: int = 0) -> list[str]:
    """Return `count` ids: the prefix and a number from 1, zero-padded to a common width."""
    width = width or len(str(count))
    return [f"{prefix}{number:0{width}}" for number in range(1, count + 1)]


def _write_once(path: Path, text: str) -> None:
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _path(name: str) -> Path:
    return Path(_require(name))


def _require(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise SettingsError(f"set {name}")
    return value


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
