"""A day's report against orders made by hand: every figure, the local day, the plans."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from psycopg.rows import dict_row

from data import BUNDLED_CITY
from doorstep import errors
from doorstep.store import admin
from doorstep.store.error_mapping import translated
from sql import query
from tests.factories import AWAY, CUSTOMER, RESTAURANT
from tests.sql.fleet import Fleet, connect_as
from tests.sql.packed_days import MIDNIGHT, compact, old_fix, put
from tracking_api.reports.distance import STEP_S, travelled_m

ROME = ZoneInfo("Europe/Rome")
DAY = date(2026, 3, 10)
NOON = datetime(2026, 3, 10, 12, tzinfo=ROME)
MINUTE = timedelta(minutes=1)
SQL_FILE = "queries/reports.sql"


@pytest.fixture
def city(fleet: Fleet) -> Fleet:
    """Florence in its time zone, with restaurants 1 and 2; restaurant 3 is in no city."""
    fleet.run("UPDATE service_area SET time_zone = 'Europe/Rome'")
    places = [
        admin.NewRestaurant(n, name, *RESTAURANT) for n, name in ((1, "Da Mario"), (2, "Da Ugo"))
    ]
    admin.register_restaurants(fleet.conn, places)
    fleet.run(
        "INSERT INTO restaurant (restaurant_id, name, lon_deg, lat_deg) VALUES (3, 'Far', 2, 48)"
    )
    return fleet


def put_order(
    fleet: Fleet,
    state: str = "delivered",
    *,
    created_at: datetime = NOON,
    restaurant_id: int = 1,
    minutes: tuple[float, ...] = (2, 3, 10, 5, 12, 1),
    promised: tuple[float, float] | None = None,
    driver_id: str = "d1",
    actor: str = "staff",
    reason: str | None = None,
) -> UUID:
    """Put an order of the past. `minutes` are of the stages, `promised` is after the creation."""
    order_id = uuid4()
    at = [created_at]
    for one in minutes:
        at.append(at[-1] + one * MINUTE)
    ended_at = at[-1] if state in ("delivered", "cancelled", "failed") else None
    fleet.run(
        "INSERT INTO orders (order_id, restaurant_id, lon_deg, lat_deg, policy_id, created_at)"
        " VALUES (%s, %s, %s, %s, 1, %s)",
        *(order_id, restaurant_id, *CUSTOMER, created_at),
    )
    fleet.run(
        "UPDATE orders SET state = %s, ended_at = %s, assignment_no = %s WHERE order_id = %s",
        *(state, ended_at, int(len(minutes) > 1), order_id),
    )
    fleet.run("DELETE FROM order_event WHERE order_id = %s", order_id)
    if len(at) > 1:
        fleet.run(
            "INSERT INTO order_event (order_id, order_seq, assignment_no, state, source,"
            " occurred_at) VALUES (%s, 2, 0, 'confirmed', 'staff', %s)",
            *(order_id, at[1]),
        )
    if len(at) > 2:
        times = [*at[2:], *[None] * 7][:4]
        fleet.run(
            "INSERT INTO assignment (order_id, assignment_no, driver_id, assigned_at, policy_id,"
            " restaurant_lon_deg, restaurant_lat_deg, customer_lon_deg, customer_lat_deg,"
            " at_restaurant_at, picked_up_at, at_customer_at, ended_at, stop_no, ended_by)"
            " VALUES (%s, 1, %s, %s, 1, 0, 0, 0, 0, %s, %s, %s, %s, %s, %s)",
            *(order_id, driver_id, at[2], *times[1:], ended_at, None if ended_at else 1),
            {"delivered": "deliver", "failed": "fail", "cancelled": "cancel"}.get(state),
        )
    if ended_at is not None and state != "delivered":
        fleet.run(
            "INSERT INTO order_command (order_id, command, actor, actor_id, from_state, to_state,"
            " assignment_no, commanded_at, failure_reason, note)"
            " VALUES (%s, %s, %s, 'x', 'assigned', %s, 0, %s, %s, %s)",
            *(order_id, {"failed": "fail", "cancelled": "cancel"}[state], actor, state),
            *(ended_at, *((reason, None) if state == "failed" else (None, reason))),
        )
    if promised is not None:
        fleet.run(
            "INSERT INTO order_detail (order_id, created_by, search, promised_from, promised_to)"
            " VALUES (%s, '', '', %s, %s)",
            *(order_id, created_at + promised[0] * MINUTE, created_at + promised[1] * MINUTE),
        )
    return order_id


@pytest.fixture
def past(city: Fleet) -> Fleet:
    """Orders can be put as if they were old."""
    for table in ("orders", "order_command", "assignment"):
        city.run(f"ALTER TABLE {table} DISABLE TRIGGER USER")
    city.run("DROP INDEX IF EXISTS assignment_window, assignment_one_open")
    return city


def read(fleet: Fleet, name: str, of_date: date = DAY, **more: object) -> list[dict[str, Any]]:
    """Read a part of the report as tracking_api does."""
    with (
        connect_as(fleet.database, "tracking_api") as conn,
        translated(),
        conn.cursor(row_factory=dict_row) as cursor,
    ):
        day = {"city": BUNDLED_CITY, "date": of_date}
        [bounds] = cursor.execute(query("read_day", SQL_FILE), day).fetchall()
        parameters = {**day, **bounds, **more}
        return cursor.execute(query(name, SQL_FILE), parameters).fetchall()


def test_restaurants__orders_of_a_day__are_counted_by_state(past: Fleet) -> None:
    put_order(past)
    put_order(past, "cancelled", minutes=(2,))
    put_order(past, "failed")
    put_order(past, "assigned", minutes=(2, 3))
    put_order(past, restaurant_id=2)
    put_order(past, restaurant_id=3)  # of no city
    counts = ("restaurant_id", "orders", "open", "delivered", "cancelled", "failed")
    rows = [tuple(one[name] for name in counts) for one in read(past, "read_restaurants")]
    assert rows == [(None, 5, 1, 2, 1, 1), (1, 4, 1, 1, 1, 1), (2, 1, 0, 1, 0, 0)]


def test_restaurants__promised_windows__tell_early_in_time_and_late(past: Fleet) -> None:
    for promised in ((34, 40), (20, 33), (20, 30), (10, 23), (33, 33)):
        put_order(past, promised=promised)  # each delivered after 33 minutes
    put_order(past)  # promised nothing
    put_order(past, "assigned", minutes=(2, 3), promised=(10, 20))
    put_order(past, "failed", promised=(10, 20))
    [city, _] = read(past, "read_restaurants")
    names = ("promised", "early", "in_window", "late", "open_late")
    assert [city[name] for name in names] == [5, 1, 2, 2, 1]
    assert (city["late_p50_s"], city["late_max_s"]) == (6.5 * 60, 10 * 60)


def test_restaurants__stages__have_median_and_ninetieth_percentile(past: Fleet) -> None:
    put_order(past, minutes=(1, 2, 3, 4, 5, 6))
    put_order(past, minutes=(3, 4, 5, 6, 7, 8))
    put_order(past, "assigned", minutes=(5, 6))  # has passed two stages
    [city, _] = read(past, "read_restaurants")
    assert city["stage_orders"] == [3, 3, 2, 2, 2, 2, 2]
    assert [one / 60 for one in city["stage_p50_s"]] == [3, 4, 4, 5, 6, 7, 27]
    assert city["stage_p90_s"][0] / 60 == pytest.approx(4.6)  # between 3 and 5


def test_reasons__of_failed_and_cancelled_orders__are_counted_by_actor(past: Fleet) -> None:
    for reason in ("customer_absent", "customer_absent", "wrong_address", None):
        put_order(past, "failed", actor="driver", reason=reason)
    put_order(past, "cancelled", minutes=(2,), actor="customer")
    put_order(past, "cancelled", minutes=(2,), restaurant_id=2, reason="closed " + "x" * 100)
    rows = [tuple(one.values()) for one in read(past, "read_reasons")]
    assert rows == [
        (1, "cancelled", "customer", None, 1),
        (1, "failed", "driver", "customer_absent", 2),
        (1, "failed", "driver", "wrong_address", 1),
        (1, "failed", "driver", None, 1),
        (2, "cancelled", "staff", "closed " + "x" * 93, 1),
    ]


def test_drivers__who_had_orders__are_listed_with_what_became_of_them(past: Fleet) -> None:
    put_order(past)
    put_order(past, "failed")
    put_order(past, "cancelled", driver_id="d2")
    declined = put_order(past, driver_id="d2")
    past.run("UPDATE assignment SET ended_by = 'decline' WHERE order_id = %s", declined)
    rows = [tuple(one.values()) for one in read(past, "read_drivers", limit=9)]
    assert rows == [("d1", "d1", 2, 1, 1, 0, 0), ("d2", "d2", 2, 0, 0, 1, 1)]
    assert len(read(past, "read_drivers", limit=1)) == 1


@pytest.mark.parametrize(
    ("local", "hours"),
    [(date(2026, 3, 10), 24), (date(2026, 3, 29), 23), (date(2026, 10, 25), 25)],
)
def test_day__of_a_city__is_its_local_day(past: Fleet, local: date, hours: int) -> None:
    first = datetime(local.year, local.month, local.day, tzinfo=ROME).astimezone(UTC)
    for seconds in (-1, 0, hours * 3600 - 1, hours * 3600):
        put_order(past, created_at=first + timedelta(seconds=seconds))
    [city, _] = read(past, "read_restaurants", local)
    assert city["orders"] == 2


def test_day__without_orders__is_all_zero(past: Fleet) -> None:
    [city] = read(past, "read_restaurants")
    assert (city["restaurant_id"], city["orders"], city["late_p50_s"]) == (None, 0, None)
    assert read(past, "read_reasons") == read(past, "read_drivers", limit=9) == []


def test_day__of_an_unknown_city__is_refused(past: Fleet) -> None:
    with pytest.raises(errors.UnknownServiceArea), translated():
        past.conn.execute(query("read_day", SQL_FILE), {"city": "atlantis", "date": DAY})


def places_of(fleet: Fleet) -> list[tuple[datetime, float, float]]:
    with connect_as(fleet.database, "tracking_api") as conn:
        rows = conn.execute(
            query("read_fleet_history", "queries/history.sql"),
            {
                "driver_ids": ["d1"],
                "from_at": MIDNIGHT,
                "to_at": MIDNIGHT + timedelta(days=1),
                "step_s": STEP_S,
            },
        ).fetchall()
    return [(fix_at, lon_deg, lat_deg) for _, fix_at, lon_deg, lat_deg in rows]


def test_kilometres__of_a_day__are_the_same_plain_and_packed(fleet: Fleet) -> None:
    metres = 8.0  # to the north with each fix
    put(
        fleet,
        [
            old_fix(n, lon_deg=AWAY.lon_deg, lat_deg=AWAY.north(metres * n).lat_deg)
            for n in range(1000)
        ],
    )
    plain_m = travelled_m(places_of(fleet))
    assert plain_m == pytest.approx(999 * metres, rel=0.01)
    assert compact(fleet.database).fixes == 1000
    assert travelled_m(places_of(fleet)) == pytest.approx(plain_m, rel=0.01)


def test_plans__a_large_table__are_bounded_by_the_orders_of_the_day(past: Fleet) -> None:
    past.run(
        "INSERT INTO orders (restaurant_id, lon_deg, lat_deg, policy_id, created_at)"
        " SELECT 1, 11.25, 43.77, 1, timestamptz '2026-01-01' + n * interval '1 min'"
        " FROM generate_series(1, 20000) n"
    )
    put_order(past, created_at=datetime(2026, 5, 1, 12, tzinfo=ROME), reason=None)
    past.run("ANALYZE")
    of_day = {"city": BUNDLED_CITY, "date": date(2026, 5, 1)}
    [bounds] = past.run("SELECT * FROM report_day_v1(%s, %s)", *of_day.values())
    for name in ("read_restaurants", "read_reasons", "read_drivers"):
        with past.conn.transaction():
            parameters = {**of_day, **bounds, "limit": 9}
            past.conn.execute(query(name, SQL_FILE), parameters)
            scanned = past.run(
                "SELECT relname, seq_tup_read + coalesce(idx_tup_fetch, 0) AS rows"
                " FROM pg_stat_xact_user_tables"
                " WHERE relname IN ('orders', 'assignment', 'order_event', 'order_command')"
            )
        assert all(one["rows"] <= 10 for one in scanned), json.dumps(scanned)
