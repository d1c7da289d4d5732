"""The broker's password file, and what keeps it equal to the credentials."""

from __future__ import annotations

from pathlib import Path

from doorstep.credentials import DRIVER_EVENTS_REPLICAS, mosquitto_entry, service_entry
from doorstep.password_file import add_entries, read_entries, write_entries

KEY = bytes(32)
PASSWORDS = {"bridge": "b", "driver_events": "d", "stack": "s"}


def test_add_entries__new_file__has_services_and_devices(tmp_path: Path) -> None:
    path = tmp_path / "passwd"

    assert add_entries(path, PASSWORDS, KEY, ["anna"])

    assert read_entries(path) == {
        **{user: service_entry(user, password) for user, password in PASSWORDS.items()},
        **{user: service_entry(user, "d") for user in DRIVER_EVENTS_REPLICAS},
        "anna": mosquitto_entry(KEY, "anna"),
    }
    assert path.stat().st_mode & 0o777 == 0o600


def test_add_entries__nothing_new__leaves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "passwd"
    add_entries(path, PASSWORDS, KEY, ["anna"])
    before = path.stat().st_mtime_ns

    assert not add_entries(path, PASSWORDS, KEY, ["anna"])
    assert path.stat().st_mtime_ns == before


def test_add_entries__another_driver__keeps_the_others(tmp_path: Path) -> None:
    path = tmp_path / "passwd"
    add_entries(path, PASSWORDS, KEY, ["anna"])

    assert add_entries(path, PASSWORDS, KEY, ["bruno"])
    assert mosquitto_entry(KEY, "anna") in path.read_text()
    assert mosquitto_entry(KEY, "bruno") in path.read_text()


def test_write_entries__user_left_out__is_gone(tmp_path: Path) -> None:
    path = tmp_path / "passwd"
    add_entries(path, PASSWORDS, KEY, ["anna"])

    assert write_entries(path, {"bruno": mosquitto_entry(KEY, "bruno")})
    assert list(read_entries(path)) == ["bruno"]
