"""Cities: boxes and distances across ±180°, the city of a restaurant, and registration."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from data import BUNDLED_CITY
from doorstep.store import admin
from tests.factories import RESTAURANT, Place, make_fix, now, numbered
from tests.sql.fleet import Fleet

MADE_AT = datetime(2026, 1, 1, tzinfo=UTC)
EAST_OF_IT = Place(-179.9998, -16.8)  # 21 m east of 180 degrees
WEST_OF_IT = Place(179.9998, -16.8)
TAVEUNI = admin.NewCity(
    "taveuni", 179.5, -17.2, -179.6, -16.5, "Pacific/Fiji", MADE_AT,
    [admin.NewRestaurant(1_000_000_001, "Taveuni", *WEST_OF_IT)],
)  # fmt: skip


@pytest.fixture
def fiji(fleet: Fleet) -> Iterator[Fleet]:
    """The bundled city's area, and one across ±180°."""
    assert admin.register_city(fleet.conn, TAVEUNI)
    return fleet


def outcome(fleet: Fleet, seq: int, place: Place) -> str | None:
    found = fleet.record([make_fix(seq=seq, place=place)])
    return found[0].reason if found else None


def test_swapped__with_an_area_across_180_degrees__is_still_exact(fiji: Fleet) -> None:
    # The first fix of a boot takes the slow path, the next ones the fast path.
    for seq, place in enumerate([EAST_OF_IT, WEST_OF_IT, RESTAURANT, EAST_OF_IT], 1):
        assert outcome(fiji, seq, place) is None
    assert outcome(fiji, 5, Place(RESTAURANT.lat_deg, RESTAURANT.lon_deg)) == "swapped"
    assert outcome(fiji, 6, Place(WEST_OF_IT.lat_deg, WEST_OF_IT.lon_deg)) == (
        "latitude_out_of_range"
    )


def test_swapped__a_place_of_another_city__is_never_swapped(fleet: Fleet) -> None:
    # Its own box is the first one's mirror: a place in both is right.
    mirror = admin.NewCity("mirror", 43.7, 11.1, 43.9, 11.4, "Asia/Aden", MADE_AT, [])
    assert admin.register_city(fleet.conn, mirror)
    assert outcome(fleet, 1, Place(43.77, 11.25)) is None
    assert outcome(fleet, 2, RESTAURANT) is None


def test_fast_path__with_a_box_as_wide_as_the_world__still_records_the_fixes(
    fiji: Fleet,
) -> None:
    fiji.record([make_fix(seq=1, place=RESTAURANT, late_s=5)])
    with fiji.conn.transaction():
        fiji.run("SELECT prepare_incoming_v1()")
        fiji.run(
            "INSERT INTO incoming_fix (n, driver_id, boot, seq, fix_at, received_at, lon_deg,"
            " lat_deg) VALUES (0, 'd1', 'b1', 2, now(), now(), %s, %s)",
            *RESTAURANT,
        )
        assert fiji.run("SELECT record_fixes__continue() AS is_done") == [{"is_done": True}]


def test_distance__across_180_degrees__is_the_short_way(fiji: Fleet) -> None:
    [row] = fiji.run(
        "SELECT ground_distance_m(%s, %s, %s, %s) AS there, ground_distance_m(%s, %s, %s, %s)"
        " AS back", *EAST_OF_IT, *WEST_OF_IT, *WEST_OF_IT, *EAST_OF_IT,
    )  # fmt: skip
    assert row["there"] == row["back"] == pytest.approx(42.6, abs=0.1)


def test_nearest__across_180_degrees__finds_drivers_on_both_sides(fiji: Fleet) -> None:
    fiji.add_drivers("east", "west", "far")
    places = {
        "east": EAST_OF_IT,
        "west": Place(179.99, -16.8),
        "far": Place(-179.9, -16.8),
    }
    fixes = [make_fix(name, place=place) for name, place in places.items()]
    fiji.record(numbered(fixes))
    for start, expected in (
        (WEST_OF_IT, ["east", "west", "far"]),
        (Place(180.0, -16.8), ["east", "west", "far"]),
        (Place(-180.0, -16.8), ["east", "west", "far"]),
        (Place(-179.91, -16.8), ["far", "east", "west"]),
    ):
        found = fiji.run("SELECT driver_id FROM nearest_drivers_v1(%s, %s, 3)", *start)
        assert [row["driver_id"] for row in found] == expected


def test_evidence__across_180_degrees__proves_the_arrival(fiji: Fleet) -> None:
    order_id = fiji.assigned_order(restaurant_id=1_000_000_001, customer=Place(-179.98, -16.8))
    started_at = now() - timedelta(minutes=10)
    fiji.backdate_assignment(order_id, started_at)
    fixes = [
        make_fix(seq=n, place=EAST_OF_IT, fix_at=started_at + timedelta(seconds=40 * n))
        for n in (1, 2)
    ]
    fiji.record(numbered(fixes))
    assert fiji.state(order_id) == "at_restaurant"


def city_of(fleet: Fleet, restaurant_id: int) -> str | None:
    [row] = fleet.run("SELECT city FROM restaurant WHERE restaurant_id = %s", restaurant_id)
    city: str | None = row["city"]
    return city


def test_restaurant__without_a_city__belongs_to_the_smallest_around_it(fleet: Fleet) -> None:
    small = admin.NewCity("small", 11.25, 43.76, 11.26, 43.78, "Europe/Rome", MADE_AT, [])
    assert admin.register_city(fleet.conn, small)
    admin.register_restaurants(
        fleet.conn,
        [
            admin.NewRestaurant(2, "In both", *RESTAURANT),
            admin.NewRestaurant(3, "In one", 11.2, 43.75),
            admin.NewRestaurant(4, "In none", 2.35, 48.86),
        ],
    )
    assert [city_of(fleet, one) for one in (1, 2, 3, 4)] == [
        BUNDLED_CITY, "small", BUNDLED_CITY, None,
    ]  # fmt: skip


def test_service_area__drawn_later__takes_the_restaurants_without_a_city(fleet: Fleet) -> None:
    admin.register_restaurants(fleet.conn, [admin.NewRestaurant(4, "In none", 2.35, 48.86)])
    assert city_of(fleet, 4) is None
    admin.register_service_area(fleet.conn, "paris", west=2.2, south=48.8, east=2.5, north=48.9)
    assert [city_of(fleet, one) for one in (1, 4)] == [BUNDLED_CITY, "paris"]


def test_register_city__the_same_files_again__keep_what_staff_changed(fiji: Fleet) -> None:
    fiji.run("UPDATE restaurant SET name = 'Staff' WHERE restaurant_id = 1000000001")
    assert not admin.register_city(fiji.conn, TAVEUNI)
    [row] = fiji.run("SELECT name FROM restaurant WHERE restaurant_id = 1000000001")
    assert row == {"name": "Staff"}


def test_register_city__newer_files__replace_their_restaurants_only(fiji: Fleet) -> None:
    own = admin.NewRestaurant(7, "Staff's own", *WEST_OF_IT)
    admin.register_restaurants(fiji.conn, [own])
    fiji.create_order(restaurant_id=1_000_000_001)
    stolen = admin.NewRestaurant(1, "Another city's", *WEST_OF_IT)
    new = admin.NewRestaurant(1_000_000_002, "New", *WEST_OF_IT)
    later = MADE_AT + timedelta(days=1)
    parts = ("taveuni", 179.5, -17.2, -179.6, -16.5, "Pacific/Fiji")
    assert admin.register_city(fiji.conn, admin.NewCity(*parts, later, [stolen, new]))
    assert city_of(fiji, 1) == BUNDLED_CITY
    assert city_of(fiji, 7) == "taveuni"
    assert city_of(fiji, 1_000_000_001) == "taveuni"  # an order refers to it
    newest = later + timedelta(days=1)
    assert admin.register_city(fiji.conn, admin.NewCity(*parts, newest, []))
    assert not fiji.run("SELECT name FROM restaurant WHERE restaurant_id = 1000000002")


def test_remove_city__with_open_orders__removes_nothing_then_all_but_what_orders_need(
    fiji: Fleet,
) -> None:
    order_id = fiji.create_order(restaurant_id=1_000_000_001)["order_id"]
    assert admin.remove_city(fiji.conn, "taveuni") == 1
    assert city_of(fiji, 1_000_000_001) == "taveuni"
    fiji.command_order(order_id, "cancel")
    assert admin.remove_city(fiji.conn, "taveuni") == 0
    assert city_of(fiji, 1_000_000_001) is None
    assert len(fiji.run("SELECT name FROM service_area")) == 1
