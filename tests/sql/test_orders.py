"""Assignments' windows, idempotency, events and announcements."""

from __future__ import annotations

import json
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from doorstep import errors
from doorstep.store import fix_writer
from tests.factories import AWAY, RESTAURANT, make_fix, make_walk, now
from tests.sql.fleet import Fleet, connect_as


@pytest.mark.parametrize("command", ["assign", "reassign"])
@pytest.mark.parametrize(
    "other", [("d1", 2), ("d1", None), ("d2", 1), (None, 1)], ids=["stop", "no stop", "d2", "any"]
)
def test_assign__repeated_with_another_driver_or_stop__is_refused(
    fleet: Fleet, command: str, other: tuple[str | None, int | None]
) -> None:
    order_id = fleet.create_order()["order_id"]
    fleet.command_order(order_id, "confirm")
    if command == "reassign":
        fleet.command_order(order_id, "assign", driver_id="d2")
    assign = "SELECT driver_id FROM assign_order_as_staff_v1(%s, %s, 'anna', %s, %s, 'k')"
    for _ in range(2):
        assert fleet.run(assign, order_id, command, "d1", 1) == [{"driver_id": "d1"}]
    with pytest.raises(errors.IdempotencyConflict):
        fleet.run(assign, order_id, command, *other)


def test_assign__to_the_nearest_repeated_with_that_ones_name__is_refused(fleet: Fleet) -> None:
    fleet.record([make_fix("d1", place=RESTAURANT)])
    order_id = fleet.create_order()["order_id"]
    fleet.command_order(order_id, "confirm")
    for _ in range(2):
        assert fleet.command_order(order_id, "assign", key="k")["driver_id"] == "d1"
    with pytest.raises(errors.IdempotencyConflict):
        fleet.command_order(order_id, "assign", driver_id="d1", key="k")
    # what the release before wrote does not say whether the driver was named
    fleet.run("UPDATE order_command SET is_driver_named = NULL")
    assert fleet.command_order(order_id, "assign", driver_id="d1", key="k")["driver_id"] == "d1"


def windows(fleet: Fleet, order_id: UUID) -> list[tuple[object, ...]]:
    rows = fleet.run(
        "SELECT assignment_no, driver_id, ended_by, ended_at >= assigned_at AS closed"
        " FROM assignment WHERE order_id = %s ORDER BY assignment_no",
        order_id,
    )
    return [tuple(row.values()) for row in rows]


def test_decline__then_assign_again__closes_one_window_and_opens_the_next(fleet: Fleet) -> None:
    order_id = fleet.assigned_order("d1")
    order = fleet.command_order(order_id, "decline", actor="driver", actor_id="d1")
    assert (order["state"], order["assignment_no"], order["driver_id"]) == ("confirmed", 2, None)
    assert fleet.driver("d1")["state"] == "available"
    order = fleet.command_order(order_id, "assign", driver_id="d2")
    assert (order["state"], order["assignment_no"], order["driver_id"]) == ("assigned", 2, "d2")
    assert windows(fleet, order_id) == [(1, "d1", "decline", True), (2, "d2", None, None)]
    assert [event[1:3] for event in fleet.events(order_id)] == [
        (0, "created"),
        (0, "confirmed"),
        (1, "assigned"),
        (2, "confirmed"),
        (2, "assigned"),
    ]


def test_reassign__the_first_drivers_fixes__prove_nothing_for_the_second(fleet: Fleet) -> None:
    order_id = fleet.assigned_order("d1")
    fleet.backdate_assignment(order_id, now() - timedelta(minutes=5))
    fleet.record(make_walk(now() - timedelta(minutes=4), (RESTAURANT, 60)))
    assert fleet.state(order_id) == "at_restaurant"
    order = fleet.command_order(order_id, "reassign", driver_id="d2")
    assert (order["state"], order["assignment_no"], order["driver_id"]) == ("assigned", 2, "d2")
    fleet.record(make_walk(now(), (RESTAURANT, 60), first_seq=100))
    assert fleet.state(order_id) == "assigned"
    assert list(fleet.evidence(order_id)) == [(1, "at_restaurant")]
    assert fleet.driver("d1")["state"] == "available"
    assert fleet.driver("d2")["state"] == "to_restaurant"


def test_reassign__to_nobody_in_particular__never_returns_to_the_same_driver(
    fleet: Fleet,
) -> None:
    order_id = fleet.assigned_order("d1")
    fleet.record([make_fix("d1", place=RESTAURANT)])
    with pytest.raises(errors.NoDriverAvailable):
        fleet.command_order(order_id, "reassign")
    assert windows(fleet, order_id) == [(1, "d1", None, None)]
    fleet.record([make_fix("d2", place=AWAY)])
    assert fleet.command_order(order_id, "reassign")["driver_id"] == "d2"


def test_reassign__to_the_driver_who_has_it__is_refused(fleet: Fleet) -> None:
    order_id = fleet.assigned_order("d1")
    with pytest.raises(errors.DriverUnavailable):
        fleet.command_order(order_id, "reassign", driver_id="d1")


@pytest.mark.parametrize("command", ["cancel", "deliver", "fail"])
def test_end__closes_the_window_and_frees_the_driver(fleet: Fleet, command: str) -> None:
    order_id = fleet.assigned_order("d1")
    if command != "cancel":
        fleet.command_order(order_id, "pick_up")
    order = fleet.command_order(order_id, command)
    assert order["ended_at"] is not None
    assert order["driver_id"] is None
    assert windows(fleet, order_id) == [(1, "d1", command, True)]
    assert fleet.driver()["state"] == "available"
    with pytest.raises(errors.IllegalTransition) as refusal:
        fleet.command_order(order_id, "cancel")
    assert refusal.value.allowed == []


def test_windows__of_one_driver__never_overlap_even_if_the_clock_is_set_back(
    fleet: Fleet,
) -> None:
    first = fleet.assigned_order("d1")
    fleet.command_order(first, "cancel")
    fleet.run("UPDATE assignment SET ended_at = now() + interval '1 hour'")
    second = fleet.assigned_order("d1")
    rows = fleet.run("SELECT order_id, assigned_at, ended_at FROM assignment ORDER BY assigned_at")
    assert [row["order_id"] for row in rows] == [first, second]
    assert rows[0]["ended_at"] <= rows[1]["assigned_at"]


def test_driver__more_open_assignments_than_the_limit__are_impossible(fleet: Fleet) -> None:
    for _ in range(3):
        fleet.assigned_order("d1")
    order_id = fleet.create_order()["order_id"]
    fleet.command_order(order_id, "confirm")
    with pytest.raises(errors.DriverUnavailable):
        fleet.command_order(order_id, "assign", driver_id="d1")


@pytest.mark.parametrize("command", ["decline", "pick_up", "deliver", "fail"])
def test_driver_command__on_another_drivers_order__knows_no_such_order(
    fleet: Fleet, command: str
) -> None:
    order_id = fleet.assigned_order("d1")
    with pytest.raises(errors.UnknownOrder):
        fleet.command_order(order_id, command, actor="driver", actor_id="d2")


def test_command__on_an_unknown_order__says_so(fleet: Fleet) -> None:
    with pytest.raises(errors.UnknownOrder):
        fleet.command_order(uuid4(), "confirm")


def test_command__repeated_with_its_key__changes_nothing_and_answers_as_it_is_now(
    fleet: Fleet,
) -> None:
    order_id = fleet.assigned_order()
    fleet.command_order(order_id, "pick_up", actor="driver", actor_id="d1", key="k1")
    fleet.command_order(order_id, "deliver", actor="driver", actor_id="d1", key="k2")
    events = fleet.events(order_id)
    order = fleet.command_order(order_id, "pick_up", actor="driver", actor_id="d1", key="k1")
    assert order["state"] == "delivered"
    assert fleet.events(order_id) == events


def test_command__decline_repeated_with_its_key__still_succeeds(fleet: Fleet) -> None:
    order_id = fleet.assigned_order()
    for _ in range(2):
        order = fleet.command_order(order_id, "decline", actor="driver", actor_id="d1", key="k")
        assert order["state"] == "confirmed"
    assert order["assignment_no"] == 2


def test_command__another_one_under_a_key__is_a_conflict(fleet: Fleet) -> None:
    order_id = fleet.assigned_order()
    fleet.command_order(order_id, "pick_up", key="k")
    with pytest.raises(errors.IdempotencyConflict):
        fleet.command_order(order_id, "deliver", key="k")


def test_create_order__repeated_with_its_key__is_one_order_with_one_good_token(
    fleet: Fleet,
) -> None:
    tokens = [secrets.token_bytes(32), secrets.token_bytes(32)]
    made = [fleet.create_order(key="k", token_sha256=token) for token in tokens]
    assert [order["created"] for order in made] == [True, False]
    assert made[0]["order_id"] == made[1]["order_id"]
    found = [fleet.run("SELECT order_id FROM find_token_v2(%s)", token) for token in tokens]
    assert found == [[{"order_id": made[0]["order_id"]}], []]


def test_create_order__two_at_once_under_one_key__are_one_order_with_one_good_token(
    fleet: Fleet,
) -> None:
    tokens = [secrets.token_bytes(32) for _ in range(4)]
    gate = threading.Barrier(len(tokens))

    def create(token: bytes) -> tuple[bytes, bool]:
        with connect_as(fleet.database, "tracking_api") as conn:
            gate.wait()
            row = conn.execute(
                "SELECT created FROM create_order_v2(1, 11.26, 43.77, %s, NULL, 'k', NULL, 'anna')",
                [token],
            ).fetchone()
            assert row is not None
            return token, row[0]

    with ThreadPoolExecutor(len(tokens)) as pool:
        created = dict(pool.map(create, tokens))
    good = [token for token in tokens if fleet.run("SELECT 1 FROM find_token_v2(%s)", token)]
    assert good == [token for token in tokens if created[token]]
    assert len(good) == 1
    assert fleet.run("SELECT count(*) AS n FROM orders") == [{"n": 1}]


def test_create_order__one_key_of_two_members_of_staff__makes_two_orders(fleet: Fleet) -> None:
    tokens = {who: secrets.token_bytes(32) for who in ("anna", "dario")}
    made = {
        who: fleet.create_order(key="k", token_sha256=token, who=who)
        for who, token in tokens.items()
    }
    assert [order["created"] for order in made.values()] == [True, True]
    for who, token in tokens.items():
        found = fleet.run("SELECT order_id FROM find_token_v2(%s)", token)
        assert found == [{"order_id": made[who]["order_id"]}]


def test_command__key_of_another_actor__is_neither_seen_nor_hit(fleet: Fleet) -> None:
    order_id = fleet.assigned_order()
    fleet.command_order(order_id, "pick_up", actor_id="anna", key="k")
    delivered = fleet.command_order(order_id, "deliver", actor="driver", actor_id="d1", key="k")
    assert delivered["state"] == "delivered"
    with pytest.raises(errors.IllegalTransition):  # not anna's pick-up repeated
        fleet.command_order(order_id, "pick_up", actor_id="dario", key="k")


def test_driver_command__key_of_another_actor__is_neither_seen_nor_hit(fleet: Fleet) -> None:
    fleet.run("SELECT apply_driver_command_v1('d1', 'on_break', 'staff', 'k')")
    assert fleet.command_driver("d1", "off_duty", key="k")["duty"] == "off_duty"


def test_create_order__another_one_under_a_key__is_a_conflict(fleet: Fleet) -> None:
    fleet.create_order(key="k")
    with pytest.raises(errors.IdempotencyConflict):
        fleet.create_order(key="k", customer=AWAY)


def test_create_order__unknown_restaurant_or_policy__says_so(fleet: Fleet) -> None:
    with pytest.raises(errors.UnknownRestaurant):
        fleet.create_order(restaurant_id=999)
    with pytest.raises(errors.UnknownPolicy):
        fleet.create_order(policy_id=999)


def test_pick_up__after_gps_has_shown_it__succeeds_and_shows_nothing_twice(fleet: Fleet) -> None:
    order_id = fleet.assigned_order()
    fleet.backdate_assignment(order_id, now() - timedelta(minutes=5))
    fleet.record(make_walk(now() - timedelta(minutes=4), (RESTAURANT, 60), (AWAY, 60)))
    assert fleet.state(order_id) == "picked_up"
    events = fleet.events(order_id)
    order = fleet.command_order(order_id, "pick_up", actor="driver", actor_id="d1")
    assert order["state"] == "picked_up"
    assert fleet.events(order_id) == events


def test_events__each__is_announced_once_in_its_order(fleet: Fleet) -> None:
    order_id = fleet.assigned_order()
    with fleet.conn.transaction():
        records = fix_writer.take_outbox(fleet.conn, 100)
    assert {record.topic for record in records} == {"tracking-updates"}
    assert {record.key for record in records} == {str(order_id).encode()}
    said = [json.loads(record.payload) for record in records]
    assert [(one["order_seq"], one["state"], one["driver_id"]) for one in said] == [
        (1, "created", None),
        (2, "confirmed", None),
        (3, "assigned", "d1"),
    ]
    assert set(said[0]) == {
        "order_id",
        "order_seq",
        "assignment_no",
        "state",
        "source",
        "driver_id",
        "occurred_at",
        "recorded_at",
    }
    assert len(said[0]["occurred_at"]) == len("2026-01-02T03:04:05.678Z")
