"""Which orders are late and which couriers nearby, and the alerts: 57_notices.sql."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from doorstep import errors
from tests.database import Database
from tests.factories import AWAY, CUSTOMER, Place, make_fix, now
from tests.sql.fleet import Fleet, connect_as


def promise(fleet: Fleet, order_id: UUID, in_s: float) -> None:
    """Set the end of an order's promised window, from now."""
    fleet.run(
        "INSERT INTO order_detail (order_id, created_by, promised_to, search)"
        " VALUES (%s, '', %s, '') ON CONFLICT (order_id) DO UPDATE SET promised_to ="
        " excluded.promised_to",
        order_id,
        now() + timedelta(seconds=in_s),
    )


def decide(fleet: Fleet) -> list[tuple[str, int, int]]:
    """Run the job; return all notices as (kind, assignment_no, order_seq)."""
    fleet.run("SELECT order_notice__decide_v1(100)")
    rows = fleet.run("SELECT kind::text, assignment_no, order_seq FROM order_notice ORDER BY 3")
    return [tuple(row.values()) for row in rows]


def carried_order(fleet: Fleet, **options: Any) -> UUID:
    """An order that d1 picked up, assigned five minutes ago."""
    order_id = fleet.assigned_order("d1", **options)
    fleet.backdate_assignment(order_id, now() - timedelta(minutes=5))
    fleet.command_order(order_id, "pick_up")
    return order_id


def be_at(fleet: Fleet, place: Place, seq: int = 1, **values: Any) -> None:
    fleet.record([make_fix(seq=seq, place=place, **values)])


def updates(fleet: Fleet) -> list[dict[str, Any]]:
    rows = fleet.run(
        "SELECT convert_from(payload, 'UTF8') AS text FROM outbox"
        " WHERE topic = 'tracking-updates' ORDER BY outbox_id"
    )
    return [json.loads(row["text"]) for row in rows]


# -- late --------------------------------------------------------------------------------------


def test_late__window_has_passed__is_said_once(fleet: Fleet) -> None:
    order_id = fleet.create_order()["order_id"]
    promise(fleet, order_id, -1)
    assert decide(fleet) == decide(fleet) == [("late", 0, 2)]


@pytest.mark.parametrize("end", ["cancel", "not_passed", "no_promise"])
def test_late__ended_or_in_time_or_without_a_promise__is_not_said(fleet: Fleet, end: str) -> None:
    order_id = fleet.create_order()["order_id"]
    if end != "no_promise":
        promise(fleet, order_id, 3600 if end == "not_passed" else -1)
    if end == "cancel":
        fleet.command_order(order_id, "cancel")
    assert decide(fleet) == []


def test_late__courier_would_arrive_after_the_window__is_said_before_it_passes(
    fleet: Fleet,
) -> None:
    order_id = carried_order(fleet)
    be_at(fleet, AWAY)  # 0.8 km: 267 s at 4.5 m/s and 1.5 times the way
    promise(fleet, order_id, 400)
    assert decide(fleet) == []
    promise(fleet, order_id, 100)
    [(kind, _, _)] = decide(fleet)
    assert kind == "late"


def test_late__then_delivered__numbers_of_the_order_go_on(fleet: Fleet) -> None:
    order_id = fleet.create_order()["order_id"]
    promise(fleet, order_id, -1)
    decide(fleet)
    fleet.command_order(order_id, "confirm")
    assert [one[0] for one in fleet.events(order_id)] == [1, 3]
    seen = [(one["order_seq"], one["state"], one.get("notice")) for one in updates(fleet)]
    assert seen == [(1, "created", None), (2, "created", "late"), (3, "confirmed", None)]


# -- nearby ------------------------------------------------------------------------------------


def test_nearby__within_the_radius_after_pick_up__is_said_once_in_an_assignment(
    fleet: Fleet,
) -> None:
    order_id = carried_order(fleet)
    be_at(fleet, AWAY)
    assert decide(fleet) == []
    be_at(fleet, CUSTOMER.north(290), 2)
    [(kind, assignment_no, order_seq)] = decide(fleet)
    assert (kind, assignment_no) == ("nearby", 1)
    assert order_seq == fleet.run("SELECT order_seq FROM orders")[0]["order_seq"]
    be_at(fleet, CUSTOMER.north(100), 3)
    assert len(decide(fleet)) == 1
    assert updates(fleet)[-1]["driver_id"] == "d1"
    assert fleet.state(order_id) == "picked_up"


def test_nearby__within_the_minutes__counts_without_the_radius(fleet: Fleet) -> None:
    policy_id = fleet.run(
        "SELECT create_policy_v1(%s) AS id", '{"name": "x", "nearby_m": null, "nearby_s": 120}'
    )[0]["id"]
    carried_order(fleet, policy_id=policy_id)
    be_at(fleet, CUSTOMER.north(370))
    assert decide(fleet) == []
    be_at(fleet, CUSTOMER.north(350), 2)  # 117 s
    assert [one[0] for one in decide(fleet)] == ["nearby"]


def test_nearby__policy_without_radius_and_minutes__is_never_said(fleet: Fleet) -> None:
    policy_id = fleet.run(
        "SELECT create_policy_v1(%s) AS id", '{"name": "x", "nearby_m": null, "nearby_s": null}'
    )[0]["id"]
    carried_order(fleet, policy_id=policy_id)
    be_at(fleet, CUSTOMER)
    assert decide(fleet) == []


def test_nearby__before_pick_up__is_not_said(fleet: Fleet) -> None:
    order_id = fleet.assigned_order("d1")
    fleet.backdate_assignment(order_id, now() - timedelta(minutes=5))
    be_at(fleet, CUSTOMER.north(100))
    assert decide(fleet) == []


def test_nearby__customer_may_not_see_the_courier_now__is_not_said(fleet: Fleet) -> None:
    order_id = carried_order(fleet)
    be_at(fleet, CUSTOMER.north(100))
    fleet.run("ALTER TABLE assignment DISABLE TRIGGER USER")
    fleet.run(  # another stop is first
        "UPDATE assignment SET visible = tstzmultirange(tstzrange(assigned_at, now()))"
        " WHERE order_id = %s",
        order_id,
    )
    assert decide(fleet) == []


def test_nearby__another_customers_door_hides_the_courier__is_not_said(fleet: Fleet) -> None:
    other = CUSTOMER.north(200)
    first = carried_order(fleet, customer=other)
    fleet.command_order(first, "deliver")
    order_id = fleet.assigned_order("d1")
    fleet.backdate_assignment(order_id, now() - timedelta(seconds=1))
    fleet.command_order(order_id, "pick_up")
    fleet.run("UPDATE assignment SET ended_at = assigned_at WHERE order_id = %s", first)
    be_at(fleet, other, fix_at=now())
    assert decide(fleet) == []


def test_notice__a_command_holds_the_order__is_left_for_later(fleet: Fleet) -> None:
    order_id = fleet.create_order()["order_id"]
    promise(fleet, order_id, -1)
    with fleet.database.connect() as other:
        other.execute("SELECT FROM orders WHERE order_id = %s FOR UPDATE", [order_id])
        assert decide(fleet) == []
    assert len(decide(fleet)) == 1


def test_customer_order_details__notices__are_the_last_member(fleet: Fleet) -> None:
    order_id = fleet.create_order()["order_id"]
    read = "SELECT customer_order__details(%s) AS text"
    assert json.loads(fleet.run(read, order_id)[0]["text"])[-1] is None
    promise(fleet, order_id, -60)
    decide(fleet)
    notices, promised_to = json.loads(fleet.run(read, order_id)[0]["text"])[-1]
    assert [one[:2] for one in notices] == [[2, "late"]]
    assert promised_to is not None


# -- alerts ------------------------------------------------------------------------------------


def alerts(fleet: Fleet) -> list[tuple[Any, ...]]:
    """Run the job; return all alerts as (kind, order_id, driver_id, is open)."""
    fleet.run("SELECT alert__update_v1()")
    rows = fleet.run(
        "SELECT kind::text, order_id, driver_id, resolved_at IS NULL AS is_open FROM alert"
        " ORDER BY alert_id"
    )
    return [tuple(row.values()) for row in rows]


def test_alert_late__order_ends__is_raised_once_and_resolved(fleet: Fleet) -> None:
    order_id = fleet.create_order()["order_id"]
    promise(fleet, order_id, -1)
    decide(fleet)
    assert alerts(fleet) == alerts(fleet) == [("late", order_id, None, True)]
    fleet.command_order(order_id, "cancel")
    assert alerts(fleet) == [("late", order_id, None, False)]


def test_alert_lost__driver_with_an_order_is_silent__until_a_fix_arrives(fleet: Fleet) -> None:
    order_id = fleet.assigned_order("d1")
    fleet.backdate_assignment(order_id, now() - timedelta(minutes=4))
    assert alerts(fleet) == []
    fleet.backdate_assignment(order_id, now() - timedelta(minutes=6))
    assert alerts(fleet) == [("lost", order_id, "d1", True)]
    be_at(fleet, AWAY)
    assert alerts(fleet) == [("lost", order_id, "d1", False)]


def test_alert_unassigned__confirmed_for_minutes__until_it_is_assigned(fleet: Fleet) -> None:
    order_id = fleet.create_order()["order_id"]
    fleet.command_order(order_id, "confirm")
    assert alerts(fleet) == []
    fleet.run("UPDATE orders SET state_at = now() - interval '6 min'")
    assert alerts(fleet) == [("unassigned", order_id, None, True)]
    fleet.command_order(order_id, "assign", driver_id="d1")
    assert alerts(fleet) == [("unassigned", order_id, None, False)]


def test_alert_over_quota__parked_fixes__until_they_are_recorded(fleet: Fleet) -> None:
    fleet.run("INSERT INTO driver_quota VALUES ('d1', 1, now())")
    assert alerts(fleet) == [("over_quota", None, "d1", True)]
    fleet.run("DELETE FROM driver_quota")
    assert alerts(fleet) == [("over_quota", None, "d1", False)]
    fleet.run("INSERT INTO driver_quota VALUES ('d1', 1, now())")
    assert [one[3] for one in alerts(fleet)] == [False, True]


def test_acknowledge__as_tracking_api__keeps_the_first_name_and_is_in_the_audit(
    fleet: Fleet, database: Database
) -> None:
    fleet.run("INSERT INTO driver_quota VALUES ('d1', 1, now())")
    alerts(fleet)
    alert_id = fleet.run("SELECT alert_id FROM alert")[0]["alert_id"]
    with connect_as(database, "tracking_api") as conn:
        for name in ("anna", "bruno"):
            conn.execute("SELECT alert__acknowledge_v1(%s, %s)", [alert_id, name])
    [found] = fleet.run("SELECT acknowledged_by FROM alert")
    assert found == {"acknowledged_by": "anna"}
    audited = fleet.run("SELECT who FROM audit WHERE action = 'alert.acknowledge'")
    assert audited == [{"who": "anna"}]
    with pytest.raises(errors.UnknownAlert):
        fleet.run("SELECT alert__acknowledge_v1(0, 'anna')")
