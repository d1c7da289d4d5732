"""Provisioning: ids, the broker's password file, Florence's restaurants."""

from __future__ import annotations

from pathlib import Path

import pytest

import data
from doorstep.credentials import mosquitto_entry
from doorstep.errors import SettingsError
from doorstep.provision import (
    FIRENZE,
    SERVICE_USERS,
    check_driver_ids,
    numbered_ids,
    read_restaurants,
    write_password_file,
)

KEY = bytes(32)


@pytest.mark.parametrize("driver_id", ["", "a+b", "a/b", "#", "a" * 65, "a b", "ä", "a\n"])
def test_driver_id__outside_the_contract__is_refused(driver_id: str) -> None:
    with pytest.raises(SettingsError):
        check_driver_ids(["anna", driver_id])


@pytest.mark.parametrize("name", SERVICE_USERS)
def test_driver_id__name_of_a_service__is_refused(name: str) -> None:
    with pytest.raises(SettingsError):
        check_driver_ids([name])


def test_driver_id__within_the_contract__is_accepted() -> None:
    assert check_driver_ids(["a", "A-b_9", "x" * 64]) is None  # type: ignore[func-returns-value]


def test_password_file__new__has_services_and_drivers(tmp_path: Path) -> None:
    path = tmp_path / "passwd"

    assert write_password_file(path, KEY, ["anna"])

    assert path.read_text().splitlines() == [
        mosquitto_entry(KEY, user) for user in (*SERVICE_USERS, "anna")
    ]
    assert path.stat().st_mode & 0o777 == 0o600


def test_password_file__no_new_user__is_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "passwd"
    write_password_file(path, KEY, ["anna"])
    before = path.stat().st_mtime_ns

    assert not write_password_file(path, KEY, ["anna"])
    assert path.stat().st_mtime_ns == before


def test_password_file__another_driver__keeps_the_others(tmp_path: Path) -> None:
    path = tmp_path / "passwd"
    write_password_file(path, KEY, ["anna"])

    assert write_password_file(path, KEY, ["bruno"])
    assert mosquitto_entry(KEY, "anna") in path.read_text()
    assert mosquitto_entry(KEY, "bruno") in path.read_text()


def test_password_file__another_fleet_key__replaces_every_entry(tmp_path: Path) -> None:
    path = tmp_path / "passwd"
    other = bytes([1]) * 32
    write_password_file(path, KEY, ["anna"])

    assert write_password_file(path, other)
    assert mosquitto_entry(other, "anna") in path.read_text()
    assert mosquitto_entry(KEY, "anna") not in path.read_text()


def test_firenze__every_restaurant__is_inside_the_service_area() -> None:
    restaurants = list(read_restaurants(data.firenze_food_places()))

    assert len(restaurants) == 814
    assert len({place.restaurant_id for place in restaurants}) == 814
    assert all(place.name for place in restaurants)
    inside = [
        place
        for place in restaurants
        if FIRENZE["west"] <= place.lon_deg <= FIRENZE["east"]
        and FIRENZE["south"] <= place.lat_deg <= FIRENZE["north"]
    ]
    assert len(inside) >= 0.98 * len(restaurants)


def test_numbered__several_digits__are_padded_to_one_width() -> None:
    assert numbered_ids("d-", 10)[:2] == ["d-01", "d-02"]
    assert numbered_ids("d-", 0) == []
