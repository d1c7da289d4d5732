"""Offers of orders to drivers: each rule, and two requests at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import dict_row

from doorstep import errors
from doorstep.credentials import token_sha256
from doorstep.store.error_mapping import translated
from doorstep.store.offers import advance_offers
from sql import query
from tests.factories import AWAY, RESTAURANT, make_fix
from tests.sql.fleet import Fleet, connect_as

OFFERS = "queries/offers.sql"
NEAR, FAR = RESTAURANT.north(200), RESTAURANT.north(900)


@pytest.fixture
def drivers(fleet: Fleet) -> Fleet:
    """d1 near the restaurant, d2 far from it, both with a token."""
    for driver_id, place in (("d1", NEAR), ("d2", FAR)):
        fleet.record([make_fix(driver_id, place=place)])
        fleet.add_token(driver_id)
    return fleet


def confirmed_order(fleet: Fleet, *, auto: bool = False, offer_s: float = 45) -> UUID:
    values = f'{{"name": "x", "auto_offer": {str(auto).lower()}, "offer_s": {offer_s}}}'
    [made] = fleet.run("SELECT create_policy_v1(%s) AS id", values)
    order_id: UUID = fleet.create_order(policy_id=made["id"])["order_id"]
    fleet.command_order(order_id, "confirm")
    return order_id


def call(fleet: Fleet, name: str, driver_id: str, order_id: UUID, key: str | None) -> Any:
    with (
        connect_as(fleet.database, "driver_api") as conn,
        translated(),
        conn.cursor(row_factory=dict_row) as cursor,
    ):
        parameters = {
            "token_sha256": token_sha256(driver_id),
            "order_id": order_id,
            "idempotency_key": key,
        }
        return cursor.execute(query(name, OFFERS), parameters).fetchone()  # type: ignore[arg-type]


def accept(fleet: Fleet, driver_id: str, order_id: UUID, key: str | None = None) -> dict[str, Any]:
    row: dict[str, Any] = call(fleet, "accept_own_offer", driver_id, order_id, key)
    return row


def decline(fleet: Fleet, driver_id: str, order_id: UUID, key: str | None = None) -> dict[str, Any]:
    row: dict[str, Any] = call(fleet, "decline_own_offer", driver_id, order_id, key)
    return row


def offers(fleet: Fleet, order_id: UUID) -> list[tuple[str, str | None]]:
    """The order's offers: to whom, and how each ended."""
    rows = fleet.run(
        "SELECT driver_id, outcome::text FROM order_offer WHERE order_id = %s"
        " ORDER BY order_offer_id",
        order_id,
    )
    return [(row["driver_id"], row["outcome"]) for row in rows]


def advance(fleet: Fleet) -> int:
    with fleet.database.connect("driver_events") as conn:
        return advance_offers(conn, 100)


def unassigned(fleet: Fleet) -> list[UUID]:
    return [row["order_id"] for row in fleet.run("SELECT order_id FROM unassigned_order")]


def test_accept__an_open_offer__assigns_the_order_as_the_driver(drivers: Fleet) -> None:
    order_id = confirmed_order(drivers)
    offer = drivers.offer_order(order_id)
    assert (offer["driver_id"], offer["outcome"]) == ("d1", None)
    assert (offer["expires_at"] - offer["offered_at"]).total_seconds() == 45
    assert drivers.driver("d1")["state"] == "available"
    order = accept(drivers, "d1", order_id)
    assert (order["state"], order["driver_id"], order["assignment_no"]) == ("assigned", "d1", 1)
    assert drivers.driver("d1")["state"] == "to_restaurant"
    assert offers(drivers, order_id) == [("d1", "accepted")]
    assert drivers.events(order_id)[-1][1:] == (1, "assigned", "driver")
    [command] = drivers.run("SELECT * FROM order_command WHERE command = 'assign'")
    assert (command["actor"], command["actor_id"], command["driver_id"]) == ("driver", "d1", "d1")


def test_accept__repeated_with_its_key__succeeds_and_changes_nothing(drivers: Fleet) -> None:
    order_id = confirmed_order(drivers)
    drivers.offer_order(order_id)
    first = accept(drivers, "d1", order_id, "k")
    events = drivers.events(order_id)
    assert accept(drivers, "d1", order_id, "k") == first
    assert drivers.events(order_id) == events
    with pytest.raises(errors.IdempotencyConflict):
        decline(drivers, "d1", order_id, "k")
    with pytest.raises(errors.OfferClosed, match="you have accepted this offer already"):
        accept(drivers, "d1", order_id)


def test_accept__without_an_offer__knows_no_such_order(drivers: Fleet) -> None:
    order_id = confirmed_order(drivers)
    drivers.offer_order(order_id, "d1")
    with pytest.raises(errors.UnknownOrder):
        accept(drivers, "d2", order_id)
    with pytest.raises(errors.UnknownOrder):
        drivers.command_order(order_id, "assign", actor="driver", actor_id="d2", driver_id="d2")
    with (
        connect_as(drivers.database, "driver_api") as conn,
        pytest.raises(errors.UnknownOrder),
        translated(),
    ):
        conn.execute(
            "SELECT driver_command_order_v1(%s, %s, 'assign', NULL)",
            [token_sha256("d1"), order_id],
        )
    assert drivers.state(order_id) == "confirmed"


def test_accept__after_its_time_limit__is_refused_even_before_the_job_has_run(
    drivers: Fleet,
) -> None:
    order_id = confirmed_order(drivers)
    drivers.offer_order(order_id)
    drivers.expire_offer(order_id)
    with pytest.raises(errors.OfferClosed, match="this offer has expired"):
        accept(drivers, "d1", order_id)
    assert drivers.state(order_id) == "confirmed"


@pytest.mark.parametrize("command", ["on_break", "off_duty"])
def test_accept__while_not_available__is_refused(drivers: Fleet, command: str) -> None:
    order_id = confirmed_order(drivers)
    drivers.offer_order(order_id)
    drivers.command_driver("d1", command)
    with pytest.raises(errors.DriverUnavailable):
        accept(drivers, "d1", order_id)
    assert advance(drivers) == 1
    assert offers(drivers, order_id) == [("d1", "withdrawn")]


def test_driver__with_several_open_offers__may_accept_one(drivers: Fleet) -> None:
    drivers.limit_orders(1)
    first, second = confirmed_order(drivers), confirmed_order(drivers, auto=True)
    drivers.offer_order(first, "d1")
    drivers.offer_order(second, "d1")
    accept(drivers, "d1", first)
    with pytest.raises(errors.DriverUnavailable):
        accept(drivers, "d1", second)
    advance(drivers)
    assert offers(drivers, second) == [("d1", "withdrawn"), ("d2", None)]


def test_offer__of_an_order_that_has_an_open_one__is_refused_with_a_sentence(
    drivers: Fleet,
) -> None:
    order_id = confirmed_order(drivers)
    drivers.offer_order(order_id)
    with pytest.raises(errors.OfferOpen, match="this order is offered to d1, until 20"):
        drivers.offer_order(order_id, "d2")
    drivers.expire_offer(order_id)
    assert drivers.offer_order(order_id)["driver_id"] == "d2"
    assert offers(drivers, order_id) == [("d1", "expired"), ("d2", None)]


def test_offer__in_another_state_or_to_a_busy_or_unknown_driver__is_refused(
    drivers: Fleet,
) -> None:
    created: UUID = drivers.create_order()["order_id"]
    with pytest.raises(errors.IllegalTransition) as refusal:
        drivers.offer_order(created)
    assert refusal.value.allowed == ["confirm", "cancel"]
    drivers.limit_orders(1)
    drivers.assigned_order("d1")
    order_id = confirmed_order(drivers)
    with pytest.raises(errors.DriverUnavailable):
        drivers.offer_order(order_id, "d1")
    with pytest.raises(errors.UnknownDriver):
        drivers.offer_order(order_id, "d9")
    with pytest.raises(errors.UnknownOrder):
        drivers.offer_order(UUID(int=9))


def test_offer__to_a_named_driver__is_repeated_with_the_name_only(drivers: Fleet) -> None:
    order_id = confirmed_order(drivers)
    first = drivers.offer_order(order_id, "d1", key="k")
    assert drivers.offer_order(order_id, "d1", key="k") == first
    with pytest.raises(errors.IdempotencyConflict):
        drivers.offer_order(order_id, key="k")


def test_offer__of_an_earlier_release__is_repeated_by_its_driver(drivers: Fleet) -> None:
    order_id = confirmed_order(drivers)
    first = drivers.offer_order(order_id, key="k")
    drivers.run("UPDATE order_offer SET is_driver_named = NULL")
    assert drivers.offer_order(order_id, key="k") == first
    assert drivers.offer_order(order_id, first["driver_id"], key="k") == first


def test_offer__repeated_with_its_key__is_one_offer(drivers: Fleet) -> None:
    order_id = confirmed_order(drivers)
    first = drivers.offer_order(order_id, key="k")
    assert drivers.offer_order(order_id, key="k") == first
    assert len(offers(drivers, order_id)) == 1
    with pytest.raises(errors.IdempotencyConflict):
        drivers.offer_order(order_id, "d2", key="k")
    with pytest.raises(errors.IdempotencyConflict):  # which was not asked for by name
        drivers.offer_order(order_id, first["driver_id"], key="k")
    with pytest.raises(errors.OfferOpen):  # another person's key is another key
        drivers.offer_order(order_id, key="k", name="dario")


@pytest.mark.parametrize("command", ["assign", "cancel"])
def test_command__that_ends_the_wait__withdraws_the_offer(drivers: Fleet, command: str) -> None:
    order_id = confirmed_order(drivers)
    drivers.offer_order(order_id)
    drivers.command_order(order_id, command, driver_id="d2" if command == "assign" else None)
    assert offers(drivers, order_id) == [("d1", "withdrawn")]
    with pytest.raises(errors.OfferClosed, match="this offer was withdrawn"):
        accept(drivers, "d1", order_id)


def test_decline__without_the_policy__lists_the_order_as_unassigned(drivers: Fleet) -> None:
    order_id = confirmed_order(drivers)
    drivers.offer_order(order_id)
    assert decline(drivers, "d1", order_id, "k")["outcome"] == "declined"
    assert decline(drivers, "d1", order_id, "k")["outcome"] == "declined"
    assert offers(drivers, order_id) == [("d1", "declined")]
    assert (drivers.state(order_id), unassigned(drivers)) == ("confirmed", [order_id])
    with pytest.raises(errors.OfferClosed, match="you have declined this offer"):
        accept(drivers, "d1", order_id)
    drivers.offer_order(order_id)
    assert unassigned(drivers) == []
    with pytest.raises(errors.IdempotencyConflict):
        accept(drivers, "d1", order_id, "k")


def test_auto_offer__confirmed_then_declined_then_expired__goes_to_the_next_nearest(
    drivers: Fleet,
) -> None:
    order_id = confirmed_order(drivers, auto=True)
    assert advance(drivers) == 1
    assert offers(drivers, order_id) == [("d1", None)]
    decline(drivers, "d1", order_id)
    assert offers(drivers, order_id) == [("d1", "declined"), ("d2", None)]
    assert advance(drivers) == 0
    drivers.expire_offer(order_id)
    assert advance(drivers) == 1
    assert offers(drivers, order_id) == [("d1", "declined"), ("d2", "expired")]
    assert (drivers.state(order_id), unassigned(drivers)) == ("confirmed", [order_id])
    assert advance(drivers) == 0  # no driver is looked for again within 10 s


def test_auto_offer__a_driver_who_comes_later__gets_the_unassigned_order(drivers: Fleet) -> None:
    order_id = confirmed_order(drivers, auto=True)
    for driver_id in ("d1", "d2"):
        drivers.command_driver(driver_id, "off_duty")
    advance(drivers)
    assert unassigned(drivers) == [order_id]
    drivers.command_driver("d2", "on_duty")
    drivers.run("UPDATE unassigned_order SET checked_at = now() - interval '11 s'")
    advance(drivers)
    assert (offers(drivers, order_id), unassigned(drivers)) == ([("d2", None)], [])


def test_auto_offer__a_driver_who_gave_the_order_back__is_not_offered_it_again(
    drivers: Fleet,
) -> None:
    order_id = confirmed_order(drivers, auto=True)
    drivers.command_order(order_id, "assign", driver_id="d1")
    drivers.command_order(order_id, "decline", actor="driver", actor_id="d1")
    advance(drivers)
    assert offers(drivers, order_id) == [("d2", None)]


def test_without_auto_offer__a_confirmed_order__is_left_alone(drivers: Fleet) -> None:
    order_id = confirmed_order(drivers)
    assert advance(drivers) == 0
    assert (offers(drivers, order_id), unassigned(drivers)) == ([], [])


def test_offered_order__as_its_driver_reads_it__has_no_place_of_the_customer(
    drivers: Fleet,
) -> None:
    order_id = confirmed_order(drivers)
    offer = drivers.offer_order(order_id)
    [row] = drivers.run("SELECT * FROM driver_read_v2(%s)", token_sha256("d1"))
    assert row["current_order"] is None
    [seen] = row["offers"]
    assert set(seen) == {
        *("order_id", "restaurant", "pickup_distance_m", "offered_at", "expires_at")
    }
    assert set(seen["restaurant"]) == {"name", "lon_deg", "lat_deg"}
    assert (seen["order_id"], seen["pickup_distance_m"]) == (str(order_id), 200)
    assert offer["expires_at"].isoformat()[:19] == seen["expires_at"][:19]
    [other] = drivers.run("SELECT offers FROM driver_read_v2(%s)", token_sha256("d2"))
    assert other["offers"] == []
    drivers.expire_offer(order_id)
    [late] = drivers.run("SELECT offers FROM driver_read_v2(%s)", token_sha256("d1"))
    assert late["offers"] == []


# -- two at once -----------------------------------------------------------------------------------


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """Run all at the same time; return each result or error."""
    gate = threading.Barrier(len(works))

    def run(work: Callable[[], Any]) -> Any:
        gate.wait()
        try:
            return work()
        except errors.DoorstepError as exc:
            return type(exc).__name__

    with ThreadPoolExecutor(len(works)) as pool:
        return [one.result() for one in [pool.submit(run, work) for work in works]]


def offer_as_staff(fleet: Fleet, order_id: UUID, name: str) -> str:
    with connect_as(fleet.database, "tracking_api") as conn, translated():
        parameters = {"order_id": order_id, "driver_id": None, "name": name}
        parameters["idempotency_key"] = None
        row = conn.execute(query("offer_order", OFFERS), parameters).fetchone()
        assert row is not None
        return str(row[1])


def command_as_staff(fleet: Fleet, order_id: UUID, command: str) -> str:
    with connect_as(fleet.database, "tracking_api") as conn, translated():
        row = conn.execute(
            "SELECT state::text FROM command_order_as_staff_v1(%s, %s, 'anna', 'd2', NULL)",
            [order_id, command],
        ).fetchone()
        assert row is not None
        return str(row[0])


@pytest.mark.parametrize("turn", range(3))
def test_two_accepts_at_once__of_one_offer__one_wins(drivers: Fleet, turn: int) -> None:
    order_id = confirmed_order(drivers)
    drivers.offer_order(order_id)
    found = at_once(*(lambda: accept(drivers, "d1", order_id)["state"] for _ in range(2)))
    assert sorted(found) == ["OfferClosed", "assigned"], turn


@pytest.mark.parametrize("turn", range(3))
def test_two_accepts_at_once__of_one_driver__one_wins(drivers: Fleet, turn: int) -> None:
    drivers.limit_orders(1)
    orders = [confirmed_order(drivers) for _ in range(2)]
    for order_id in orders:
        drivers.offer_order(order_id, "d1")
    found = at_once(*(lambda one=one: accept(drivers, "d1", one)["state"] for one in orders))
    assert sorted(found) == ["DriverUnavailable", "assigned"], turn


@pytest.mark.parametrize("turn", range(3))
def test_accept_and_assign_at_once__one_wins(drivers: Fleet, turn: int) -> None:
    order_id = confirmed_order(drivers)
    drivers.offer_order(order_id)
    accepted, assigned = at_once(
        lambda: accept(drivers, "d1", order_id)["state"],
        lambda: command_as_staff(drivers, order_id, "assign"),
    )
    assert {accepted, assigned} in (
        {"assigned", "IllegalTransition"},
        {"assigned", "OfferClosed"},
    ), turn
    [(_, outcome)] = offers(drivers, order_id)
    assert outcome == ("accepted" if accepted == "assigned" else "withdrawn")


def test_two_offers_at_once__of_one_order__one_wins(drivers: Fleet) -> None:
    order_id = confirmed_order(drivers)
    found = at_once(
        *(lambda name=name: offer_as_staff(drivers, order_id, name) for name in ("a", "b"))
    )
    assert sorted(found) == ["OfferOpen", "d1"]


def test_several_jobs_at_once__of_many_orders__make_one_offer_each(drivers: Fleet) -> None:
    orders = [confirmed_order(drivers, auto=True) for _ in range(6)]
    at_once(*(lambda: advance(drivers) for _ in range(3)))
    advance(drivers)
    assert [offers(drivers, order_id) for order_id in orders] == [[("d1", None)]] * 6


def test_job__while_a_command_holds_the_order__skips_it_and_does_it_later(
    drivers: Fleet, conn: psycopg.Connection[Any]
) -> None:
    order_id = confirmed_order(drivers, auto=True)
    conn.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 1))", [str(order_id)])
    assert advance(drivers) == 0
    conn.rollback()
    assert advance(drivers) == 1


def test_job__that_is_rolled_back__leaves_nothing_and_is_done_again(drivers: Fleet) -> None:
    order_id = confirmed_order(drivers, auto=True)
    with drivers.database.connect("driver_events") as conn:
        assert advance_offers(conn, 100) == 1
        conn.rollback()  # killed before its commit
    assert offers(drivers, order_id) == []
    assert advance(drivers) == 1
    assert offers(drivers, order_id) == [("d1", None)]


def test_offer__to_a_driver_far_away__is_not_made(drivers: Fleet) -> None:
    order_id = confirmed_order(drivers)
    drivers.command_driver("d1", "off_duty")
    drivers.command_driver("d2", "off_duty")
    with pytest.raises(errors.NoDriverAvailable):
        drivers.offer_order(order_id)
    drivers.record([make_fix("d2", 2, place=AWAY)])
    drivers.command_driver("d2", "on_duty")
    assert drivers.offer_order(order_id)["driver_id"] == "d2"
