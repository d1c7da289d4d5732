"""Several orders with one courier: their sequence, who sees the courier, what fixes prove."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from doorstep import errors
from doorstep.store.error_mapping import translated
from doorstep.store.records import INCOMING_COLUMNS, IncomingRow
from tests.factories import AWAY, CUSTOMER, RESTAURANT, Place, make_fix, make_walk, now, numbered
from tests.sql.fleet import Fleet

NEXT_DOOR = CUSTOMER.north(1500)
SAME_HOUSE = CUSTOMER


def stacked(fleet: Fleet, *doors: Place, minutes: float = 10) -> list[UUID]:
    """Give d1 an order to each door, in this sequence, as if some minutes ago."""
    orders = []
    for n, door in enumerate(doors, 1):
        order_id: UUID = fleet.create_order(customer=door)["order_id"]
        fleet.command_order(order_id, "confirm")
        assign(fleet, order_id, stop_no=n)
        orders.append(order_id)
    at = now() - timedelta(minutes=minutes)
    for n, order_id in enumerate(orders):
        fleet.backdate_assignment(order_id, at + timedelta(milliseconds=n))
    return orders


def assign(
    fleet: Fleet, order_id: UUID, *, stop_no: int | None = None, command: str = "assign"
) -> None:
    fleet.run(
        "SELECT assign_order_as_staff_v1(%s, %s, 'anna', 'd1', %s, NULL)",
        order_id,
        command,
        stop_no,
    )


def reorder(fleet: Fleet, *orders: UUID) -> None:
    fleet.run("SELECT set_driver_stops_v1('d1', %s, 'anna')", list(orders))


def stops(fleet: Fleet) -> list[UUID]:
    [row] = fleet.run("SELECT driver_stops__of('d1') AS orders")
    found: list[UUID] = row["orders"]
    return found


def ranges(fleet: Fleet) -> dict[UUID, list[tuple[datetime, datetime | None]]]:
    rows = fleet.run(
        "SELECT order_id, lower(r) AS since, upper(r) AS until"
        " FROM assignment, unnest(visible) r ORDER BY 2"
    )
    found: dict[UUID, list[tuple[datetime, datetime | None]]] = {}
    for row in rows:
        found.setdefault(row["order_id"], []).append((row["since"], row["until"]))
    return found


def seen_now(fleet: Fleet) -> list[UUID]:
    """Whose ranges are open: never more than one."""
    return [
        row["order_id"]
        for row in fleet.run("SELECT order_id FROM assignment WHERE upper_inf(visible)")
    ]


def deliver(fleet: Fleet, order_id: UUID) -> None:
    fleet.command_order(order_id, "pick_up")
    fleet.command_order(order_id, "deliver")


def test_ranges__of_orders_delivered_in_turn__meet_and_never_overlap(fleet: Fleet) -> None:
    first, second, third = stacked(fleet, CUSTOMER, NEXT_DOOR, AWAY)
    assert seen_now(fleet) == [first]
    deliver(fleet, first)
    assert seen_now(fleet) == [second]
    assert stops(fleet) == [second, third]
    deliver(fleet, second)
    assert seen_now(fleet) == [third]
    [(_, first_until)], [(second_since, second_until)] = (ranges(fleet)[k] for k in (first, second))
    assert first_until == second_since
    assert ranges(fleet)[third] == [(second_until, None)]
    deliver(fleet, third)
    assert seen_now(fleet) == []
    assert fleet.driver()["state"] == "available"


@pytest.mark.parametrize("command", ["cancel", "fail", "decline", "reassign"])
@pytest.mark.parametrize("which", [0, 1])
def test_end_of_any_order__moves_the_others_up(fleet: Fleet, command: str, which: int) -> None:
    orders = stacked(fleet, CUSTOMER, NEXT_DOOR, AWAY)
    order_id = orders[which]
    if command == "fail":
        fleet.command_order(order_id, "pick_up")
    by = {"actor": "driver", "actor_id": "d1"} if command == "decline" else {}
    fleet.command_order(order_id, command, driver_id="d2" if command == "reassign" else None, **by)
    left = [one for one in orders if one != order_id]
    assert stops(fleet) == left
    assert set(seen_now(fleet)) == {left[0]} | ({order_id} if command == "reassign" else set())
    closed = fleet.run(
        "SELECT bool_and(NOT upper_inf(visible)) AS closed FROM assignment"
        " WHERE order_id = %s AND assignment_no = 1",
        order_id,
    )
    assert closed == [{"closed": True}]
    assert fleet.driver()["order_id"] == left[0]


def test_reorder__of_waiting_orders__moves_the_open_range(fleet: Fleet) -> None:
    first, second = stacked(fleet, CUSTOMER, NEXT_DOOR)
    reorder(fleet, second, first)
    assert stops(fleet) == [second, first]
    assert seen_now(fleet) == [second]
    assert fleet.driver()["order_id"] == second
    reorder(fleet, first, second)
    [(_, until), (again, _)] = ranges(fleet)[first]
    assert ranges(fleet)[second] == [(until, again)]


def test_reorder__to_the_present_sequence__changes_nothing(fleet: Fleet) -> None:
    orders = stacked(fleet, CUSTOMER, NEXT_DOOR)
    before = ranges(fleet)
    reorder(fleet, *orders)
    assert ranges(fleet) == before
    assert fleet.run("SELECT FROM audit WHERE action = 'driver.stops'") == []


def test_reorder__of_other_orders_than_the_open_ones__is_refused(fleet: Fleet) -> None:
    first, second = stacked(fleet, CUSTOMER, NEXT_DOOR)
    for sequence in ((first,), (first, first, second), (first, UUID(int=1)), ()):
        with pytest.raises(errors.StopsChanged):
            reorder(fleet, *sequence)
    with pytest.raises(errors.UnknownDriver):
        fleet.run("SELECT set_driver_stops_v1('unknown-driver', '{}', 'anna')")


def test_picked_up_stop__never_moves_behind_one_that_is_not(fleet: Fleet) -> None:
    first, second = stacked(fleet, CUSTOMER, NEXT_DOOR)
    fleet.command_order(first, "pick_up")
    with pytest.raises(errors.StopBehind):
        reorder(fleet, second, first)
    third: UUID = fleet.create_order(customer=CUSTOMER)["order_id"]
    fleet.command_order(third, "confirm")
    assign(fleet, third, stop_no=1)
    assert stops(fleet) == [first, third, second]
    fleet.command_order(third, "pick_up")
    reorder(fleet, third, first, second)
    assert seen_now(fleet) == [third]


def test_assign__without_a_stop__goes_to_the_least_detour(fleet: Fleet) -> None:
    fleet.record([make_fix(place=RESTAURANT)])
    far = stacked(fleet, RESTAURANT.north(3000))[0]
    near: UUID = fleet.create_order(customer=RESTAURANT.north(1000))["order_id"]
    fleet.command_order(near, "confirm")
    assign(fleet, near)
    assert stops(fleet) == [near, far]
    farther = fleet.assigned_order("d1", customer=RESTAURANT.north(4000))
    assert stops(fleet) == [near, far, farther]


def test_assign__nearest_without_an_available_driver__takes_the_least_detour(
    fleet: Fleet,
) -> None:
    fleet.add_drivers("south", "north")
    for name, metres in (("south", -200), ("north", 900)):
        fleet.record([make_fix(name, place=RESTAURANT.north(metres))])
    fleet.assigned_order("south", customer=RESTAURANT.north(-2000))
    fleet.assigned_order("north", customer=RESTAURANT.north(2000))
    orders = []
    for _ in range(5):
        order_id = fleet.create_order(customer=RESTAURANT.north(1900))["order_id"]
        fleet.command_order(order_id, "confirm")
        orders.append(order_id)
    got = [fleet.command_order(one, "assign")["driver_id"] for one in orders[:4]]
    assert got == ["north", "north", "south", "south"]
    with pytest.raises(errors.NoDriverAvailable):
        fleet.command_order(orders[4], "assign")


def test_two_assignments_at_once__never_exceed_the_limit(fleet: Fleet) -> None:
    fleet.limit_orders(2)
    stacked(fleet, CUSTOMER)
    orders = []
    for _ in range(4):
        order_id = fleet.create_order(customer=NEXT_DOOR)["order_id"]
        fleet.command_order(order_id, "confirm")
        orders.append(order_id)
    gate = threading.Barrier(4)

    def take(order_id: UUID) -> str:
        with fleet.database.connect("tracking_api") as conn:
            gate.wait()
            try:
                with translated():
                    conn.execute(
                        "SELECT assign_order_as_staff_v1(%s, 'assign', 'anna', 'd1', 1, NULL)",
                        [order_id],
                    )
            except errors.DriverUnavailable:
                return "refused"
            return "assigned"

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(take, orders)) == ["assigned", "refused", "refused", "refused"]
    assert len(stops(fleet)) == 2
    assert len(seen_now(fleet)) == 1


def test_two_orders_of_one_restaurant__are_collected_by_the_same_fixes(fleet: Fleet) -> None:
    first, second = stacked(fleet, CUSTOMER, NEXT_DOOR)
    fleet.record(make_walk(now() - timedelta(minutes=9), (RESTAURANT, 60), (AWAY, 60)))
    for order_id in (first, second):
        assert [state for _, state in sorted(fleet.evidence(order_id))] == [
            "at_restaurant",
            "picked_up",
        ]
        assert fleet.state(order_id) == "picked_up"


def test_two_doors_in_one_house__only_the_next_stop_is_proved(fleet: Fleet) -> None:
    first, second = stacked(fleet, CUSTOMER, SAME_HOUSE)
    walk = make_walk(now() - timedelta(minutes=9), (RESTAURANT, 60), (AWAY, 60), (CUSTOMER, 60))
    fleet.record(walk)
    assert fleet.state(first) == "at_customer"
    assert fleet.state(second) == "picked_up"
    fleet.command_order(first, "deliver")
    assert fleet.state(second) == "picked_up"


def fix_times(rows: list[IncomingRow]) -> list[datetime]:
    return [row[INCOMING_COLUMNS.index("fix_at")] for row in rows]  # type: ignore[misc]


def shuffled_delivery(fleet: Fleet, order: list[int]) -> dict[str, Any]:
    """A range per order, an hour ago; fixes at both doors arrive afterwards in some order."""
    first, second = stacked(fleet, CUSTOMER, NEXT_DOOR, minutes=60)
    at = now() - timedelta(minutes=59)
    walk = make_walk(
        at, (RESTAURANT, 60), (AWAY, 60), (NEXT_DOOR, 60), (CUSTOMER, 60), (NEXT_DOOR, 60)
    )
    for order_id in (first, second):
        fleet.command_order(order_id, "pick_up")
    turn = max(fix_times(walk)) - timedelta(seconds=62)
    fleet.run(
        "UPDATE assignment SET visible = CASE stop_no"
        " WHEN 1 THEN tstzmultirange(tstzrange(assigned_at, %s))"
        " ELSE tstzmultirange(tstzrange(%s, NULL)) END",
        turn,
        turn,
    )
    for n in order:
        fleet.record(walk[n::6])
    return {
        name: {state: at for (_, state), at in fleet.evidence(order_id).items()}
        for name, order_id in (("first", first), ("second", second))
    }


def test_shuffled_delivery__proves_the_second_door_only_in_its_own_range(fleet: Fleet) -> None:
    found = shuffled_delivery(fleet, [5, 2, 0, 4, 1, 3])
    assert set(found["first"]) == {"at_restaurant", "picked_up", "arriving", "at_customer"}
    assert found["second"]["at_customer"] > found["first"]["at_customer"]


def sleep_until(fleet: Fleet, instant: datetime) -> None:
    """Wait until the database's clock shows an instant."""
    fleet.run("SELECT pg_sleep(greatest(0, extract(epoch FROM %s - clock_timestamp())))", instant)


def test_pair_from_the_future__counts_when_it_is_past(fleet: Fleet) -> None:
    [order_id] = stacked(fleet, CUSTOMER)
    fleet.command_order(order_id, "pick_up")
    at = now()
    fleet.backdate_pick_up(order_id, at - timedelta(seconds=70))
    fleet.record(
        numbered(
            [
                make_fix(seq=1, place=CUSTOMER, fix_at=at - timedelta(seconds=60)),
                make_fix(seq=2, place=CUSTOMER, fix_at=at + timedelta(seconds=2)),
            ]
        )
    )
    assert fleet.state(order_id) == "picked_up"
    assert fleet.run("SELECT evidence__settle_v1(10) AS n") == [{"n": 0}]
    sleep_until(fleet, at + timedelta(seconds=2.05))
    assert fleet.run("SELECT evidence__settle_v1(10) AS n") == [{"n": 1}]
    assert fleet.state(order_id) == "at_customer"
    assert fleet.run("SELECT FROM evidence_due") == []


def test_pairs_from_the_future__of_one_batch__each_counts_when_it_is_past(fleet: Fleet) -> None:
    [order_id] = stacked(fleet, CUSTOMER)
    fleet.command_order(order_id, "pick_up")
    at = now()
    fleet.backdate_pick_up(order_id, at - timedelta(seconds=70))
    fleet.record(
        numbered(
            [
                make_fix(seq=n, place=CUSTOMER, fix_at=at + timedelta(seconds=s))
                for n, s in enumerate((-60, 2, 3, 100), 1)
            ]
        )
    )
    for seconds in (2.05, 3.05):
        sleep_until(fleet, at + timedelta(seconds=seconds))
        assert fleet.run("SELECT evidence__settle_v1(10) AS n") == [{"n": 1}]
        assert fleet.state(order_id) == "at_customer"
    assert fleet.run("SELECT due_at, until_at FROM evidence_due") == [
        dict.fromkeys(("due_at", "until_at"), at + timedelta(seconds=100))
    ]


def test_pair_from_the_future__in_a_range_that_was_closed__never_counts(fleet: Fleet) -> None:
    first, second = stacked(fleet, CUSTOMER, NEXT_DOOR)
    for order_id in (first, second):
        fleet.command_order(order_id, "pick_up")
    at = now()
    ahead = [1.0, 40.0]
    fleet.record(
        numbered(
            [
                make_fix(seq=n, place=CUSTOMER, fix_at=at + timedelta(seconds=s))
                for n, s in enumerate(ahead, 1)
            ]
        )
    )
    reorder(fleet, second, first)
    fleet.run("UPDATE evidence_due SET due_at = '-infinity', until_at = '-infinity'")
    fleet.run("SELECT evidence__settle_v1(10)")
    assert (1, "arriving") not in fleet.evidence(first)
    assert fleet.state(first) == "picked_up"


def test_waiting_customer__reads_two_instants_and_nothing_else(fleet: Fleet) -> None:
    fleet.record([make_fix(place=RESTAURANT)])
    first = fleet.assigned_order("d1", token_sha256=b"1" * 32)
    second = fleet.assigned_order("d1", customer=NEXT_DOOR, token_sha256=b"2" * 32)
    assert stops(fleet) == [first, second]
    links = [b"1" * 32, b"2" * 32], [first, second]
    statement = "SELECT * FROM customer_waits_v1(%s::bytea[], %s::uuid[])"
    assert fleet.run(statement, *links) == [{"n": 2, "earliest_at": None, "latest_at": None}]
    assert fleet.run("SELECT order_eta__refresh_v1(10) AS n") == [{"n": 1}]
    assert fleet.run("SELECT order_eta__refresh_v1(10) AS n") == [{"n": 0}]  # once a minute
    [found] = fleet.run(statement, *links)
    for at in (found["earliest_at"], found["latest_at"]):
        assert at.timestamp() % 300 == 0
    assert found["earliest_at"] < found["latest_at"]
    [track] = fleet.run(
        "SELECT * FROM customer_tracks_v3(%s::bytea[], %s::uuid[], NULL, NULL, NULL, NULL)",
        [b"2" * 32],
        [second],
    )
    assert [track[name] for name in ("driver_id", "fix_at", "lon_deg", "trail")] == [None] * 4
    deliver(fleet, first)
    assert fleet.run(statement, *links) == []


def test_waiting_customer__courier_silent_for_five_minutes__reads_no_instant(fleet: Fleet) -> None:
    fleet.record([make_fix(place=RESTAURANT)])
    stacked(fleet, CUSTOMER, NEXT_DOOR)
    fleet.record([make_fix("d2", place=RESTAURANT)])
    for _ in range(2):
        fleet.assigned_order("d2")
    refresh = "SELECT order_eta__refresh_v1(1) AS n"
    for _ in range(2):
        assert fleet.run(refresh) == [{"n": 1}]
    fleet.run("UPDATE order_eta SET estimated_at = estimated_at - interval '61 s'")
    fleet.run("UPDATE driver_state SET fix_at = now() - interval '301 s' WHERE driver_id = 'd1'")
    assert fleet.run(refresh) == [{"n": 1}]  # a silent one takes no place in the batch
    assert fleet.run(refresh) == [{"n": 0}]
    left = "SELECT a.driver_id FROM order_eta e JOIN assignment a ON a.order_id = e.order_id"
    assert fleet.run(left) == [{"driver_id": "d2"}]
    fleet.run("UPDATE driver_state SET fix_at = now() WHERE driver_id = 'd1'")
    assert fleet.run(refresh) == [{"n": 1}]
