"""Provisioning: ids, Florence's restaurants."""

from __future__ import annotations

import pytest

from data.cities import bundled_city
from doorstep.errors import SettingsError
from doorstep.password_file import SERVICE_USERS
from doorstep.provision import (
    check_driver_ids,
    numbered_ids,
    read_restaurants,
)


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


def test_bundled_city__every_restaurant__is_inside_the_service_area() -> None:
    restaurants = list(read_restaurants(bundled_city().restaurants))

    assert len(restaurants) == 814
    assert len({place.restaurant_id for place in restaurants}) == 814
    assert all(place.name for place in restaurants)
    inside = [
        place
        for place in restaurants
        if bundled_city().bounds.contains(place.lon_deg, place.lat_deg)
    ]
    assert len(inside) >= 0.98 * len(restaurants)


def test_numbered__several_digits__are_padded_to_one_width() -> None:
    assert numbered_ids("d-", 10)[:2] == ["d-01", "d-02"]
    assert numbered_ids("d-", 0) == []
