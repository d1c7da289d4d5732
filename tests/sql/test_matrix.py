"""The state machines against an independent copy of the matrix."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import psycopg
import pytest

from doorstep import errors
from doorstep.store.tables import DRIVER_STATES, ORDER_STATES
from tests.sql.fleet import Fleet

COMMANDS = ("confirm", "assign", "decline", "reassign", "pick_up", "deliver", "cancel", "fail")
ACTORS = ("staff", "driver", "customer")

BEFORE_PICK_UP = ("created", "confirmed", "assigned", "at_restaurant")
UNDER_WAY = ("picked_up", "arriving", "at_customer")
WITH_DRIVER = ("assigned", "at_restaurant", *UNDER_WAY)

# (state, command, actor) -> the state after it; whatever is not here is refused
MATRIX: dict[tuple[str, str, str], str] = {
    ("created", "confirm", "staff"): "confirmed",
    ("confirmed", "assign", "staff"): "assigned",
    ("confirmed", "assign", "driver"): "assigned",  # by accepting an offer
    **{(state, "decline", "driver"): "confirmed" for state in ("assigned", "at_restaurant")},
    **{(state, "reassign", "staff"): "assigned" for state in ("assigned", "at_restaurant")},
    **{
        (state, "pick_up", actor): state if state in UNDER_WAY else "picked_up"
        for state in WITH_DRIVER
        for actor in ("driver", "staff")
    },
    **{(s, "deliver", actor): "delivered" for s in UNDER_WAY for actor in ("driver", "staff")},
    **{(s, "fail", actor): "failed" for s in UNDER_WAY for actor in ("driver", "staff")},
    **{(s, "cancel", "customer"): "cancelled" for s in BEFORE_PICK_UP},
    **{(s, "cancel", "staff"): "cancelled" for s in (*BEFORE_PICK_UP, *UNDER_WAY)},
}
EVIDENCE = {
    ("assigned", "at_restaurant"),
    ("at_restaurant", "picked_up"),
    ("picked_up", "arriving"),
    ("arriving", "at_customer"),
}
OPENS = ("assign", "decline", "reassign")  # these may open the next assignment


@contextmanager
def undone(fleet: Fleet) -> Iterator[None]:
    """Roll everything inside back."""
    with fleet.conn.transaction(force_rollback=True):
        yield


def order_in(fleet: Fleet, state: str) -> UUID:
    """Bring a new order of driver d1 into a state, by legal steps only."""
    order_id: UUID = fleet.create_order()["order_id"]
    if state == "created":
        return order_id
    if state == "cancelled":
        fleet.command_order(order_id, "cancel")
        return order_id
    fleet.command_order(order_id, "confirm")
    if state == "confirmed":
        return order_id
    fleet.command_order(order_id, "assign", driver_id="d1")
    if state in ("assigned", "at_restaurant"):
        if state == "at_restaurant":
            fleet.run("UPDATE orders SET state = 'at_restaurant' WHERE order_id = %s", order_id)
        return order_id
    fleet.command_order(order_id, "pick_up")
    for step in ("arriving", "at_customer"):
        if state in ORDER_STATES[ORDER_STATES.index(step) :]:
            fleet.run("UPDATE orders SET state = %s WHERE order_id = %s", step, order_id)
    if state in ("delivered", "failed"):
        fleet.command_order(order_id, "deliver" if state == "delivered" else "fail")
    return order_id


@pytest.mark.parametrize("state", ORDER_STATES)
def test_order_command__every_command_and_actor__does_what_the_matrix_says(
    fleet: Fleet, state: str
) -> None:
    for command, actor in itertools.product(COMMANDS, ACTORS):
        with undone(fleet):
            order_id = order_in(fleet, state)
            assert fleet.state(order_id) == state
            before = fleet.events(order_id)
            actor_id = "d1" if actor == "driver" else actor
            expected = MATRIX.get((state, command, actor))
            if expected is None:
                unknown = actor == "driver" and state in ("created", "confirmed", "cancelled")
                refusal = errors.UnknownOrder if unknown else errors.IllegalTransition
                with pytest.raises(refusal) as caught, undone(fleet):
                    fleet.command_order(order_id, command, actor=actor, actor_id=actor_id)
                if isinstance(caught.value, errors.IllegalTransition):
                    assert caught.value.current_state == state
                    assert caught.value.allowed == [
                        word for word in COMMANDS if (state, word, actor) in MATRIX
                    ]
                assert fleet.state(order_id) == state
                assert fleet.events(order_id) == before
            else:
                driver_id = {"assign": "d1", "reassign": "d2"}.get(command)
                if (command, actor) == ("assign", "driver"):
                    fleet.offer_order(order_id, "d1")
                fleet.command_order(
                    order_id, command, actor=actor, actor_id=actor_id, driver_id=driver_id
                )
                assert fleet.state(order_id) == expected
                assert len(fleet.events(order_id)) == len(before) + (
                    expected != state or command == "reassign"
                )


@pytest.mark.parametrize("state", ORDER_STATES)
def test_orders__direct_update_to_every_state__goes_only_where_the_matrix_does(
    fleet: Fleet, state: str
) -> None:
    for target, step in itertools.product(ORDER_STATES, (0, 1)):
        words = {word for (s, word, _), to in MATRIX.items() if (s, to) == (state, target)}
        may = (state, target) in EVIDENCE or bool(words)
        forward = ORDER_STATES.index(target) > ORDER_STATES.index(state)
        legal = (may and forward) if step == 0 else bool(words & set(OPENS))
        if step == 0 and state == target:
            continue  # nothing changes
        with undone(fleet):
            order_id = order_in(fleet, state)
            statement = (
                "UPDATE orders SET state = %s, assignment_no = assignment_no + %s, ended_at = CASE"
                " WHEN %s IN ('delivered', 'cancelled', 'failed') THEN now() END"
                " WHERE order_id = %s"
            )
            if legal:
                fleet.run(statement, target, step, target, order_id)
                assert fleet.state(order_id) == target
            else:
                with pytest.raises(errors.IllegalTransition), undone(fleet):
                    fleet.run(statement, target, step, target, order_id)


def test_order_transition__its_rows__are_the_matrix(fleet: Fleet) -> None:
    rows = fleet.run("SELECT * FROM order_transition")
    commands = {
        (row["from_state"], row["command"], row["actor"]): row["to_state"]
        for row in rows
        if row["via"] == "command"
    }
    assert commands == MATRIX
    assert {
        (row["from_state"], row["to_state"]) for row in rows if row["via"] == "evidence"
    } == EVIDENCE


def test_order_command__inserted_by_hand_against_the_matrix__is_refused(fleet: Fleet) -> None:
    order_id = fleet.create_order()["order_id"]
    with pytest.raises(errors.IllegalTransition) as refusal:
        fleet.run(
            "INSERT INTO order_command (order_id, command, actor, actor_id, from_state, to_state,"
            " assignment_no, commanded_at)"
            " VALUES (%s, 'deliver', 'staff', 'me', 'created', 'delivered', 0, now())",
            order_id,
        )
    assert refusal.value.current_state == "created"


def test_orders__inserted_by_hand_in_a_later_state__is_refused(fleet: Fleet) -> None:
    with pytest.raises(errors.IllegalTransition):
        fleet.run(
            "INSERT INTO orders (restaurant_id, lon_deg, lat_deg, policy_id, state)"
            " VALUES (1, 11, 43, 1, 'confirmed')"
        )


DRIVER_MATRIX = {
    ("off_duty", "on_duty"): "available",
    ("off_duty", "off_duty"): "off_duty",  # said again
    ("on_break", "on_duty"): "available",
    ("on_break", "on_break"): "on_break",
    ("on_break", "off_duty"): "off_duty",
    ("available", "on_duty"): "available",
    ("available", "on_break"): "on_break",
    ("available", "off_duty"): "off_duty",
    **{(s, "on_duty"): s for s in ("to_restaurant", "at_restaurant", "to_customer", "at_customer")},
}


def driver_in(fleet: Fleet, state: str) -> None:
    """Bring driver d1, who is on duty, into a state."""
    if state in ("on_break", "off_duty"):
        fleet.command_driver("d1", state)
    elif state != "available":
        order_in(fleet, {"to_restaurant": "assigned", "to_customer": "picked_up"}.get(state, state))


@pytest.mark.parametrize("state", DRIVER_STATES)
def test_driver_command__from_every_state__does_what_the_matrix_says(
    fleet: Fleet, state: str
) -> None:
    for command in ("on_duty", "on_break", "off_duty"):
        with undone(fleet):
            driver_in(fleet, state)
            assert fleet.driver()["state"] == state
            expected = DRIVER_MATRIX.get((state, command))
            if expected is None:
                with pytest.raises(errors.IllegalTransition) as refusal, undone(fleet):
                    fleet.command_driver("d1", command)
                assert refusal.value.current_state == state
                assert fleet.driver()["state"] == state
            else:
                assert fleet.command_driver("d1", command)["state"] == expected


def test_driver_transition__its_rows__are_the_matrix_without_repeats(fleet: Fleet) -> None:
    rows = fleet.run("SELECT * FROM driver_transition")
    found = {(row["from_state"], row["command"]): row["to_state"] for row in rows}
    assert found == {key: to for key, to in DRIVER_MATRIX.items() if to != key[0]}


def test_driver_command__unknown_driver__is_refused(fleet: Fleet) -> None:
    with pytest.raises(errors.UnknownDriver):
        fleet.command_driver("unknown-driver", "on_duty")


def test_driver_command__one_key_for_two_commands__is_a_conflict(fleet: Fleet) -> None:
    fleet.command_driver("d1", "on_break", "k")
    assert fleet.command_driver("d1", "on_break", "k")["state"] == "on_break"
    with pytest.raises(errors.IdempotencyConflict):
        fleet.command_driver("d1", "off_duty", "k")


def test_order_command__driver_in_every_state_of_the_order__is_derived(fleet: Fleet) -> None:
    expected = {
        "assigned": "to_restaurant",
        "at_restaurant": "at_restaurant",
        "picked_up": "to_customer",
        "arriving": "to_customer",
        "at_customer": "at_customer",
        "delivered": "available",
        "failed": "available",
        "cancelled": "available",
    }
    for state, driver_state in expected.items():
        with undone(fleet):
            order_id = order_in(fleet, state)
            driver = fleet.driver()
            assert driver["state"] == driver_state
            assert driver["order_id"] == (None if driver_state == "available" else order_id)


def test_orders__a_refused_update__is_a_psycopg_error_with_our_state(fleet: Fleet) -> None:
    order_id = fleet.create_order()["order_id"]
    with pytest.raises(psycopg.Error) as refusal:
        fleet.conn.execute("UPDATE orders SET state = 'assigned' WHERE order_id = %s", (order_id,))
    assert refusal.value.sqlstate == "DS001"
