"""How orders end: PINs, photos, notes, reasons, a second attempt, the way back."""

from __future__ import annotations

import secrets
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Jsonb

from doorstep import errors
from doorstep.credentials import token_sha256
from sql import query
from tests.database import Database
from tests.factories import AWAY, CUSTOMER, RESTAURANT, Place
from tests.sql.fleet import Fleet, connect_as

DELIVER = "SELECT * FROM driver_deliver_order_v1(%s, %s, %s, %s, %s)"
FAIL = "SELECT * FROM driver_fail_order_v2(%s, %s, 'customer_absent', %s, %s, %s)"
STAFF_FAIL = "SELECT * FROM fail_order_as_staff_v2(%s, 'anna', 'other', NULL, %s, %s, %s)"
PHOTO = b"\xff\xd8\xff pixels"


@pytest.fixture
def drivers(fleet: Fleet) -> Fleet:
    """d1 and d2 have tokens: their ids."""
    for driver_id in ("d1", "d2"):
        fleet.add_token(driver_id)
    return fleet


def create(
    fleet: Fleet,
    *,
    pin: str | None = None,
    key: str | None = None,
    who: str | None = "anna",
    token: bytes | None = None,
    place: Place = CUSTOMER,
    **details: str,
) -> UUID:
    """Create an order with a PIN or other details."""
    given: dict[str, Any] = {**details, **({"pin": pin} if pin else {})}
    parameters = {
        "restaurant_id": 1,
        "pickup": None,
        "lon_deg": place.lon_deg,
        "lat_deg": place.lat_deg,
        "token_sha256": token or secrets.token_bytes(32),
        "policy_id": None,
        "idempotency_key": key,
        "customer_name": "Carla",
        "details": Jsonb(given) if given else None,
        "who": who,
    }
    order_id: UUID = fleet._call(query("create_order"), **parameters)["order_id"]
    return order_id


def picked_up(fleet: Fleet, driver_id: str = "d1", **options: Any) -> UUID:
    """Create an order that is on board of a driver."""
    order_id = create(fleet, **options)
    fleet.command_order(order_id, "confirm")
    fleet.command_order(order_id, "assign", driver_id=driver_id)
    fleet.command_order(order_id, "pick_up")
    return order_id


def deliver(
    fleet: Fleet,
    order_id: UUID,
    pin: str | None = None,
    note: str | None = None,
    key: str | None = None,
    driver_id: str = "d1",
) -> dict[str, Any]:
    [row] = fleet.run(DELIVER, token_sha256(driver_id), order_id, pin, note, key)
    return row


def pin_of(fleet: Fleet, order_id: UUID) -> str:
    pin: str = fleet.run("SELECT pin FROM order_pin WHERE order_id = %s", order_id)[0]["pin"]
    return pin


def ends(fleet: Fleet, order_id: UUID) -> dict[str, Any]:
    found: dict[str, Any] = fleet.run("SELECT order_ends_v1(%s) AS ends", order_id)[0]["ends"]
    return found


def customers_ends(fleet: Fleet, order_id: UUID) -> dict[str, Any]:
    found: dict[str, Any] = fleet.run(
        "SELECT customer_order__ends(order_id, ended_at IS NOT NULL) AS ends FROM orders"
        " WHERE order_id = %s",
        order_id,
    )[0]["ends"]
    return found


def test_deliver__order_with_a_pin__needs_the_right_one(drivers: Fleet) -> None:
    order_id = picked_up(drivers, pin="4711")
    assert customers_ends(drivers, order_id) == {"pin": "4711"}
    missing, wrong = deliver(drivers, order_id), deliver(drivers, order_id, "1147")
    assert (missing["pin_refusal"], missing["tries_left"]) == ("missing", 5)
    assert (wrong["pin_refusal"], wrong["tries_left"]) == ("wrong", 4)
    assert drivers.state(order_id) == "picked_up"
    assert deliver(drivers, order_id, "4711", "at the gate")["state"] == "delivered"
    assert ends(drivers, order_id)["delivery"] == {
        "by": "driver",
        "note": "at the gate",
        "pin": True,
    }
    assert customers_ends(drivers, order_id) == {"ended_reason": None, "photo": False}


def test_deliver__five_wrong_pins__refuse_even_the_right_one_for_ten_minutes(
    drivers: Fleet,
) -> None:
    order_id = picked_up(drivers, pin="4711")
    left = [deliver(drivers, order_id, f"000{n}")["tries_left"] for n in range(5)]
    assert left == [4, 3, 2, 1, 0]
    locked = deliver(drivers, order_id, "4711")
    assert locked["pin_refusal"] == "locked"
    assert 0 < locked["retry_after_s"] <= 600
    drivers.run("UPDATE order_pin_try SET tried_at = tried_at - interval '10 min'")
    assert deliver(drivers, order_id, "4711")["state"] == "delivered"


def test_deliver__many_wrong_pins_at_once__are_five_tries(
    drivers: Fleet, database: Database
) -> None:
    order_id = picked_up(drivers, pin="4711")

    def guess(n: int) -> str:
        with connect_as(database, "driver_api") as conn:
            parameters = (token_sha256("d1"), order_id, f"{n:04}", None, None)
            row = conn.execute(DELIVER, parameters).fetchone()
        assert row is not None
        return str(row[5])

    with ThreadPoolExecutor(8) as pool:
        refusals = Counter(pool.map(guess, range(12)))
    assert refusals == {"wrong": 5, "locked": 7}


def test_deliver__wrong_pin_of_another_driver__is_no_try(drivers: Fleet) -> None:
    order_id = picked_up(drivers, pin="4711")
    with pytest.raises(errors.UnknownOrder):
        deliver(drivers, order_id, "0000", driver_id="d2")
    assert drivers.run("SELECT FROM order_pin_try") == []


def test_deliver__before_pick_up__is_refused_without_a_try(drivers: Fleet) -> None:
    order_id = create(drivers, pin="4711")
    drivers.command_order(order_id, "confirm")
    drivers.command_order(order_id, "assign", driver_id="d1")
    with pytest.raises(errors.IllegalTransition):
        deliver(drivers, order_id, "0000")
    assert drivers.run("SELECT FROM order_pin_try") == []


def test_deliver__repeated_with_its_key__is_one_delivery(drivers: Fleet) -> None:
    order_id = picked_up(drivers, pin="4711")
    first = deliver(drivers, order_id, "4711", "note", "k")
    assert deliver(drivers, order_id, "4711", "note", "k") == first
    with pytest.raises(errors.IdempotencyConflict):
        deliver(drivers, order_id, "4711", "another note", "k")


def test_deliver__by_the_command_of_0_2_0__is_refused_without_the_pin(drivers: Fleet) -> None:
    order_id = picked_up(drivers, pin="4711")
    command = "SELECT * FROM driver_command_order_v1(%s, %s, 'deliver', NULL)"
    with pytest.raises(errors.IllegalTransition) as refused:
        drivers.run(command, token_sha256("d1"), order_id)
    assert refused.value.allowed == ["fail"]
    without = picked_up(drivers, "d2")
    assert drivers.run(command, token_sha256("d2"), without)[0]["state"] == "delivered"


def test_deliver__order_of_0_2_0_with_a_hash_only__checks_the_hash(drivers: Fleet) -> None:
    order_id = picked_up(drivers, pin="4711")
    drivers.run("DELETE FROM order_pin")
    assert customers_ends(drivers, order_id) == {"pin": None}
    assert deliver(drivers, order_id, "4712")["pin_refusal"] == "wrong"
    assert deliver(drivers, order_id, "4711")["state"] == "delivered"


def test_deliver__by_staff__needs_no_pin_and_says_so(drivers: Fleet) -> None:
    order_id = picked_up(drivers, pin="4711")
    drivers.run(
        "SELECT * FROM end_order_as_staff_v1(%s, 'deliver', 'anna', 'by phone', NULL)", order_id
    )
    assert ends(drivers, order_id)["delivery"] == {"by": "staff", "note": "by phone", "pin": False}


def test_create_order__pin_auto__draws_four_digits_once_per_key(drivers: Fleet) -> None:
    first = create(drivers, pin="auto", key="k")
    pin = pin_of(drivers, first)
    assert (len(pin), pin.isdigit()) == (4, True)
    assert create(drivers, pin="auto", key="k") == first
    assert pin_of(drivers, first) == pin
    with pytest.raises(errors.IdempotencyConflict):
        create(drivers, pin="4711" if pin != "4711" else "4712", key="k")
    create(drivers, pin="4711", key="given")
    with pytest.raises(errors.IdempotencyConflict):
        create(drivers, pin="auto", key="given")


def test_order_pin__services__cannot_read_it(drivers: Fleet, database: Database) -> None:
    create(drivers, pin="4711")
    for role in ("tracking_api", "driver_api", "driver_events", "customer"):
        with connect_as(database, role) as conn, pytest.raises(psycopg.errors.Error) as refused:
            conn.execute("SELECT pin FROM order_pin")
        assert refused.value.sqlstate == "42501"


def test_create_order__swapped_coordinates__is_refused(drivers: Fleet) -> None:
    with pytest.raises(errors.SwappedCoordinates):
        create(drivers, place=Place(CUSTOMER.lat_deg, CUSTOMER.lon_deg))
    assert drivers.run("SELECT FROM orders") == []
    assert create(drivers, place=Place(2.35, 48.85))  # in no service area, swapped or not


def test_fail__with_return__the_way_back_is_a_leg_that_the_courier_ends(drivers: Fleet) -> None:
    order_id = picked_up(drivers, items="2 x pizza")
    failed = drivers.run(FAIL, token_sha256("d1"), order_id, "rang", "return", "k")
    assert failed == drivers.run(FAIL, token_sha256("d1"), order_id, "rang", "return", "k")
    assert drivers.state(order_id) == "failed"
    [leg] = drivers.run("SELECT driver_ends_v1(%s) AS e", token_sha256("d1"))[0]["e"]["returns"]
    assert (leg["order_id"], leg["items"]) == (str(order_id), "2 x pizza")
    assert leg["restaurant"]["lon_deg"] == RESTAURANT.lon_deg
    [open_leg] = drivers.run("SELECT * FROM open_returns_v1(10)")
    assert (open_leg["order_id"], open_leg["driver_id"]) == (order_id, "d1")
    end = "SELECT * FROM driver_end_return_v1(%s, %s)"
    with pytest.raises(errors.UnknownOrder):
        drivers.run(end, token_sha256("d2"), order_id)
    first = drivers.run(end, token_sha256("d1"), order_id)
    assert first == drivers.run(end, token_sha256("d1"), order_id)
    assert drivers.run("SELECT * FROM open_returns_v1(10)") == []
    assert ends(drivers, order_id)["return"]["ended_by"] == "d1"
    assert (drivers.state(order_id), drivers.driver("d1")["state"]) == ("failed", "available")


def test_fail__with_another_next_step_under_the_key__is_a_conflict(drivers: Fleet) -> None:
    order_id = picked_up(drivers)
    drivers.run(FAIL, token_sha256("d1"), order_id, None, "return", "k")
    with pytest.raises(errors.IdempotencyConflict):
        drivers.run(FAIL, token_sha256("d1"), order_id, None, "retry", "k")
    assert drivers.run("SELECT FROM order_retry") == []


def test_fail__with_retry_by_staff__is_a_confirmed_order_with_the_same_pin_and_a_new_link(
    drivers: Fleet,
) -> None:
    order_id = picked_up(drivers, pin="4711", external_id="shop-1", address="Via Romana 3")
    token = token_sha256("new")
    [failed] = drivers.run(STAFF_FAIL, order_id, "retry", token, "k")
    retry_id = failed["retry_order_id"]
    assert (failed["state"], failed["is_new"]) == ("failed", True)
    [again] = drivers.run(STAFF_FAIL, order_id, "retry", token_sha256("other"), "k")
    assert (again["retry_order_id"], again["is_new"]) == (retry_id, False)
    assert drivers.state(retry_id) == "confirmed"
    good = "SELECT count(*) AS n FROM customer_links_v1(ARRAY[%s]::bytea[], ARRAY[%s]::uuid[])"
    assert drivers.run(good, token, retry_id)[0]["n"] == 1
    assert drivers.run(good, token_sha256("other"), retry_id)[0]["n"] == 0
    assert pin_of(drivers, retry_id) == "4711"
    assert ends(drivers, retry_id)["retry_of"] == str(order_id)
    assert ends(drivers, order_id)["retry_order_id"] == str(retry_id)
    drivers.command_order(retry_id, "assign", driver_id="d2")
    drivers.command_order(retry_id, "pick_up")
    assert deliver(drivers, retry_id, "4711", driver_id="d2")["state"] == "delivered"
    assert customers_ends(drivers, order_id)["ended_reason"] == "other"


def test_fail__with_retry_by_the_driver__waits_for_staff(drivers: Fleet) -> None:
    order_id = picked_up(drivers, pin="4711")
    drivers.run(FAIL, token_sha256("d1"), order_id, None, "retry", None)
    retry_id = UUID(ends(drivers, order_id)["retry_order_id"])
    assert drivers.state(retry_id) == "created"
    assert drivers.run("SELECT FROM access_token WHERE order_id = %s", retry_id) == []


def test_cancel__with_a_reason__its_customer_reads_it(drivers: Fleet) -> None:
    order_id = create(drivers)
    cancel = "SELECT * FROM end_order_as_staff_v1(%s, 'cancel', 'anna', %s, 'k')"
    drivers.run(cancel, order_id, "The oven is broken.")
    assert customers_ends(drivers, order_id)["ended_reason"] == "The oven is broken."
    drivers.run(cancel, order_id, "The oven is broken.")
    with pytest.raises(errors.IdempotencyConflict):
        drivers.run(cancel, order_id, "Something else.")


def store_photo(fleet: Fleet, order_id: UUID, driver_id: str = "d1") -> None:
    statement = "SELECT driver_store_photo_v1(%s, %s, 'image/jpeg', %s)"
    fleet.run(statement, token_sha256(driver_id), order_id, PHOTO)


def test_photo__of_the_orders_driver__is_seen_with_this_orders_link_only(
    drivers: Fleet, database: Database
) -> None:
    token, other = token_sha256("mine"), token_sha256("other")
    order_id = picked_up(drivers, token=token)
    other_id = create(drivers, token=other, place=AWAY)
    with pytest.raises(errors.UnknownOrder):
        store_photo(drivers, order_id, "d2")
    store_photo(drivers, order_id)
    deliver(drivers, order_id)
    store_photo(drivers, order_id)  # a better one
    read = "SELECT content FROM customer_photo_v1(%s, %s)"
    with connect_as(database, "customer") as conn:
        assert conn.execute(read, (token, order_id)).fetchall() == [(PHOTO,)]
        assert conn.execute(read, (other, other_id)).fetchall() == []
        for bad in ((other, order_id), (token, other_id)):
            with pytest.raises(psycopg.errors.Error) as refused:
                conn.execute(read, bad)
            assert refused.value.sqlstate == "DS015"
    assert customers_ends(drivers, order_id)["photo"]


def test_photo__before_pick_up_and_long_after_the_end__is_refused(drivers: Fleet) -> None:
    order_id = create(drivers)
    drivers.command_order(order_id, "confirm")
    drivers.command_order(order_id, "assign", driver_id="d1")
    with pytest.raises(errors.IllegalTransition):
        store_photo(drivers, order_id)
    drivers.command_order(order_id, "pick_up")
    deliver(drivers, order_id)
    drivers.run("UPDATE orders SET ended_at = ended_at - interval '61 min'")
    with pytest.raises(errors.IllegalTransition):
        store_photo(drivers, order_id)


def test_forgotten_order__keeps_no_pin_photo_or_note(drivers: Fleet) -> None:
    order_id = picked_up(drivers, pin="4711")
    store_photo(drivers, order_id)
    deliver(drivers, order_id, "0000")
    deliver(drivers, order_id, "4711", "note")
    drivers.run("SELECT orders__forget(ARRAY[%s]::uuid[], now())", order_id)
    for table in ("order_pin", "order_pin_try", "order_photo", "order_detail"):
        assert drivers.run(f"SELECT FROM {table} WHERE order_id = %s", order_id) == [], table
    assert ends(drivers, order_id)["delivery"]["note"] is None


def test_retention_of_photos__past_their_days__deletes_them(drivers: Fleet) -> None:
    order_id = picked_up(drivers)
    store_photo(drivers, order_id)
    expire = "SELECT retention__expire('photos', 10, clock_timestamp() + %s::interval) AS n"
    assert drivers.run(expire, "29 days")[0]["n"] == 0
    assert drivers.run(expire, "31 days")[0]["n"] == 1
    assert not ends(drivers, order_id)["has_photo"]


def test_forget_driver__who_took_orders_back__names_nobody(drivers: Fleet) -> None:
    order_id = picked_up(drivers, pin="4711")
    deliver(drivers, order_id, "0000")
    store_photo(drivers, order_id)
    drivers.run(FAIL, token_sha256("d1"), order_id, None, "return", None)
    drivers.command_driver("d1", "off_duty")
    drivers.run("SELECT * FROM forget_driver_v1('d1', 'test')")
    leg = ends(drivers, order_id)["return"]
    assert (leg["driver_id"], leg["ended_by"]) == ("forgotten", "forgotten")
    assert drivers.run("SELECT FROM order_pin_try") == []
    assert drivers.run("SELECT driver_id FROM order_photo") == [{"driver_id": "forgotten"}]
