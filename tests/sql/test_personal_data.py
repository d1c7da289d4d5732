"""Export and erasing: docs/how-to/personal-data.md."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from doorstep import errors
from doorstep.credentials import DeviceSecrets
from doorstep.store import fix_writer, personal_data
from doorstep.store.people import add_devices, change_device
from doorstep.store.records import Outcome
from ops.commands.export_command import write_export
from ops.commands.rebuild import Rebuilder
from ops.commands.rebuild_command import rebuild
from tests.factories import CUSTOMER, RESTAURANT, make_fix, make_walk, now, numbered
from tests.sql.catalog import columns_of, tables, tables_with
from tests.sql.fleet import Fleet

ANNA = "anna-5f1c"
# What was done, and that the ids of a driver and of a phone are taken.
KEEP_THE_ID = {"audit", "device_credential", "phone_credential"}
# Columns of orders that hold no personal data.
NEUTRAL = {
    *("order_id", "restaurant_id", "policy_id", "created_at", "state", "assignment_no"),
    *("state_source", "state_at", "order_seq", "ended_at", "forgotten_at"),
}
NOT_OF_A_PERSON = {  # tables without a column of a driver or an order
    *(
        "credential_version",
        "demand_policy",
        "driver_transition",
        "eta_band",
        "eta_model",
        "history_bounds",
    ),
    *(
        "kafka_offset",
        "limits",
        "order_transition",
        "outbox",
        "policy",
        "policy_status",
        "restaurant",
    ),
    *("retention", "webhook"),
    *("service_area", "simulation_target", "staff", "street_speed"),
}


def full_fleet(fleet: Fleet) -> UUID:
    """Give ANNA a row in every table that can have one; return an order that she delivered."""
    fleet.add_drivers(ANNA)
    fleet.run(
        "INSERT INTO access_token (token_sha256, role, driver_id) VALUES (%s, 'driver', %s)",
        b"a" * 32,
        ANNA,
    )
    fleet.run(
        "SELECT create_webhook_v1('https://a.example', NULL, NULL, %s, 'test')", f"whsec_{'A' * 32}"
    )
    order_id: UUID = fleet.create_order()["order_id"]
    fleet.command_order(order_id, "confirm")
    fleet.offer_order(order_id, ANNA)
    fleet.command_order(order_id, "assign", actor="driver", actor_id=ANNA, driver_id=ANNA)
    at = now()
    fleet.record(
        numbered(
            [
                make_fix(ANNA, 1, fix_at=at - timedelta(seconds=9), received_at=at),
                make_fix(ANNA, 2, fix_at=at + timedelta(seconds=9), received_at=at),  # a fast clock
                make_fix(ANNA, 9, fix_at=at, received_at=at),
            ]
        )
    )
    fleet.command_order(order_id, "pick_up", actor="driver", actor_id=ANNA, key="by anna")
    fleet.command_order(order_id, "deliver", actor="driver", actor_id=ANNA)
    fleet.run("INSERT INTO driver_quota VALUES (%s, 1, now())", ANNA)
    fleet.run(
        "INSERT INTO alert (kind, order_id, driver_id) VALUES ('lost', %s, %s)", order_id, ANNA
    )
    fleet.run(
        "INSERT INTO parked_fix (driver_id, boot, seq, fix_at, received_at, lon_deg, lat_deg)"
        " VALUES (%s, 'b1', 20, now(), now(), 1, 1)",
        ANNA,
    )
    fleet.run(
        "INSERT INTO outbox (topic, key, payload) VALUES ('dead-letter', %s, %s)",
        ANNA.encode(),
        b"{}",
    )
    fleet.run("DELETE FROM outbox WHERE topic = 'tracking-updates'")  # published
    day = (now() - timedelta(days=9)).replace(hour=0, minute=0, second=0, microsecond=0)
    fleet.run(
        "INSERT INTO fix_history (driver_id, fix_at, boot, seq, received_at, lon_deg, lat_deg)"
        " VALUES (%s, %s, 'b0', 1, %s, 11.2, 43.7)",
        *(ANNA, day, day),
    )
    fleet.run("INSERT INTO fix_chunk SELECT * FROM fix_chunk__pack(%s, ARRAY[%s])", day, ANNA)
    fleet.run("DELETE FROM fix_history WHERE fix_at = %s", day)
    fleet.run(
        "UPDATE history_bounds SET sealed_before = %s, packed_before = %s",
        *(day + timedelta(days=1),) * 2,
    )
    fleet.run(
        "INSERT INTO eta_model (learned_at, rides, crossing_s, arrival_s, wait_s, route_choice)"
        " VALUES (now(), 1, 1, 1, array_fill(1::float8, ARRAY[21]), 'limits')"
    )
    fleet.run("INSERT INTO driver_pace SELECT model_id, %s, 1 FROM eta_model", ANNA)
    fleet.run("SELECT driver_sampling__set_v1(%s, %s)", ANNA, '{"mode": "all"}')
    fleet.run("INSERT INTO phone_credential (driver_id, version) VALUES (%s, 1)", ANNA)
    fleet.run("SELECT invite_driver_v1(%s, %s, 'run:test')", ANNA, b"i" * 32)
    fleet.run("INSERT INTO order_pin VALUES (%s, '4711', false, %s, now())", order_id, ANNA)
    fleet.run("INSERT INTO order_pin_try VALUES (%s, now(), %s)", order_id, ANNA)
    fleet.run("INSERT INTO order_photo VALUES (%s, %s, now(), 'image/png', 'x')", order_id, ANNA)
    fleet.run(
        "INSERT INTO order_return VALUES (%s, %s, now(), now(), %s, 'driver')",
        *(order_id, ANNA, ANNA),
    )
    publish_point(fleet, f"{ANNA}/pulse_bpm")
    return order_id


def publish_point(fleet: Fleet, name: str) -> list[tuple[int, str]]:
    """Store a point of a series; return its outcome if it is another than `written`."""
    with fleet.database.connect() as conn:
        return fix_writer.record_points(conn, [(0, name, now(), 71)])


def exported(rows: Iterator[tuple[str, str]], kind: str, person_id: str) -> dict[str, Any]:
    target = io.StringIO()
    write_export(target, kind, person_id, rows)
    document: dict[str, Any] = json.loads(target.getvalue())
    return document


def age_order(fleet: Fleet, order_id: UUID, days: float) -> None:
    fleet.run(
        "UPDATE orders SET ended_at = now() - make_interval(secs => %s * 86400)"
        " WHERE order_id = %s",
        *(days, order_id),
    )


def test_the_person_of_these_tests__has_a_row_in_every_table_of_drivers(fleet: Fleet) -> None:
    """Or a table that was added since is not tested below."""
    full_fleet(fleet)
    with_a_driver = columns_of(fleet, "driver_id") | columns_of(fleet, "device_id")
    assert with_a_driver <= tables_with(fleet, ANNA)
    with_a_person = with_a_driver | columns_of(fleet, "order_id")
    with_a_person |= {"audit", "series", "series_point"}
    assert set(tables(fleet)) == with_a_person | NOT_OF_A_PERSON


def test_forget_driver__afterwards__no_row_has_the_id(
    fleet: Fleet, conn: psycopg.Connection[Any]
) -> None:
    order_id = full_fleet(fleet)
    before = fleet.evidence(order_id), fleet.events(order_id), fleet.state(order_id)
    erased = personal_data.forget_driver(conn, ANNA, "test")
    assert tables_with(fleet, ANNA) == KEEP_THE_ID
    assert fleet.run("SELECT FROM series_point") == []
    assert (fleet.evidence(order_id), fleet.events(order_id), fleet.state(order_id)) == before
    counts = {one.table_name: one.row_count for one in erased}
    assert counts["fix_history"] == 3
    assert min(counts.values()) >= 1
    commands = fleet.run("SELECT * FROM order_command WHERE order_id = %s", order_id)
    assert {row["actor_id"] for row in commands} == {"staff", "forgotten"}
    audit = fleet.run("SELECT who, subject FROM audit WHERE action = 'driver.forget'")
    assert audit == [{"who": "test", "subject": ANNA}]


def test_forget_driver__a_replay_from_kafka__resurrects_nothing(
    fleet: Fleet, conn: psycopg.Connection[Any]
) -> None:
    full_fleet(fleet)
    personal_data.forget_driver(conn, ANNA, "test")
    replayed = fleet.record([make_fix(ANNA, 1), make_fix("d1", 1, n=1)])
    assert replayed == [Outcome(0, "rejected", "forgotten")]
    assert publish_point(fleet, f"{ANNA}/pulse_bpm") == []
    assert fleet.run("SELECT FROM series_point") == []
    assert tables_with(fleet, ANNA) == KEEP_THE_ID


def test_forget_driver__fixes_parked_meanwhile__are_dropped_without_a_dead_letter(
    fleet: Fleet, conn: psycopg.Connection[Any]
) -> None:
    fleet.add_drivers(ANNA)
    with fleet.database.connect() as holder:
        holder.execute("SELECT FROM driver_state WHERE driver_id = %s FOR UPDATE", [ANNA])
        fleet.record([make_fix(ANNA, 1)])
    fleet.run("UPDATE parked_fix SET driver_id = 'd0'")  # the lock of `forget` hides it
    personal_data.forget_driver(conn, ANNA, "test")
    fleet.run("UPDATE parked_fix SET driver_id = %s", ANNA)
    fleet.run("SELECT record_parked_v1()")
    assert tables_with(fleet, ANNA) == KEEP_THE_ID - {"phone_credential"}


def test_forget_driver__with_an_open_order__is_refused_and_says_what_to_do(
    fleet: Fleet, conn: psycopg.Connection[Any]
) -> None:
    order_id = fleet.assigned_order("d1")
    with pytest.raises(errors.OrderOpen, match=f"{order_id}: reassign, cancel or fail it first"):
        personal_data.forget_driver(conn, "d1", "test")


def test_forget_driver__its_id_again__is_refused(
    fleet: Fleet, conn: psycopg.Connection[Any]
) -> None:
    personal_data.forget_driver(conn, "d1", "test")
    with pytest.raises(errors.IdForgotten, match="d1 was forgotten"):
        change_device(conn, "driver", "d1", "add", "test", DeviceSecrets.draw("driver"))
    conn.rollback()
    [left_alone] = add_devices(conn, "driver", ["d1"])
    assert left_alone.state == "removed"


def test_forget_driver__two_who_began_in_one_microsecond__are_both_forgotten(
    fleet: Fleet, conn: psycopg.Connection[Any]
) -> None:
    at = now() - timedelta(hours=1)
    for driver_id in ("d1", "d2"):
        order_id = fleet.assigned_order(driver_id)
        fleet.backdate_assignment(order_id, at)
        fleet.command_order(order_id, "cancel")
        personal_data.forget_driver(conn, driver_id, "test")
    drivers = fleet.run("SELECT DISTINCT driver_id FROM assignment")
    assert drivers == [{"driver_id": "forgotten"}]


def test_forget_driver__unknown__is_said(conn: psycopg.Connection[Any]) -> None:
    with pytest.raises(errors.UnknownDriver):
        personal_data.forget_driver(conn, "unknown-driver", "test")


def test_forget_order__afterwards__tells_of_no_customer(
    fleet: Fleet, conn: psycopg.Connection[Any]
) -> None:
    order_id = fleet.assigned_order("d1", key="key-of-carla")
    fleet.run(
        "UPDATE orders SET customer_name = 'Carla Rossi', created_by = 'sara' WHERE order_id = %s",
        order_id,
    )
    fleet.command_order(order_id, "cancel", actor="customer", actor_id="Carla Rossi")
    age_order(fleet, order_id, 2)
    [before] = fleet.run("SELECT * FROM orders WHERE order_id = %s", order_id)
    personal_data.forget_order(conn, str(order_id), "test")
    [after] = fleet.run("SELECT * FROM orders WHERE order_id = %s", order_id)
    changed = {name for name in after if after[name] != before[name]}
    assert set(after) == NEUTRAL | (changed - {"forgotten_at"})
    place = f"{CUSTOMER.lon_deg}", f"{CUSTOMER.lat_deg}"
    assert tables_with(fleet, "Carla", "key-of-carla", *place) == set()
    assert fleet.run("SELECT 1 FROM access_token WHERE order_id = %s", order_id) == []
    assert fleet.state(order_id) == "cancelled"
    audit = fleet.run("SELECT subject FROM audit WHERE action = 'order.forget'")
    assert audit == [{"subject": str(order_id)}]


@pytest.mark.parametrize(("days", "end"), [(0.0, False), (0.9, True)])
def test_forget_order__open_or_just_ended__is_refused(
    fleet: Fleet, conn: psycopg.Connection[Any], days: float, end: bool
) -> None:
    order_id = fleet.assigned_order("d1")
    if end:
        fleet.command_order(order_id, "cancel")
        age_order(fleet, order_id, days)
    with pytest.raises(errors.OrderOpen, match=r"cancel or fail it first|repeat this after"):
        personal_data.forget_order(conn, str(order_id), "test")


def test_export_driver__every_table_with_a_driver__is_in_it(
    fleet: Fleet, conn: psycopg.Connection[Any]
) -> None:
    full_fleet(fleet)
    document = exported(personal_data.export_driver(conn, ANNA), "driver", ANNA)
    found = document["tables"]
    assert columns_of(fleet, "driver_id") | columns_of(fleet, "device_id") <= set(found)
    assert [row["seq"] for row in found["fix_history"]] == [1, 9, 2]
    assert [row["seq"] for row in found["fix_chunk"]] == [1]
    assert [row["command"] for row in found["driver_command"]] == ["on_duty"]
    assert [(row["name"], row["value"]) for row in found["series_point"]] == [
        (f"{ANNA}/pulse_bpm", 71)
    ]
    assert "token_sha256" not in found["access_token"][0]
    assert "mqtt_hash" not in found["device_credential"][0]
    assert "customer_lon_deg" not in found["assignment"][0]


def test_export_driver__others__are_not_in_it(fleet: Fleet, conn: psycopg.Connection[Any]) -> None:
    full_fleet(fleet)
    text = json.dumps(exported(personal_data.export_driver(conn, "d2"), "driver", "d2"))
    assert ANNA not in text


def test_export_order__every_table_with_an_order__is_in_it_without_the_driver(
    fleet: Fleet, conn: psycopg.Connection[Any]
) -> None:
    order_id = full_fleet(fleet)
    fleet.run(
        "INSERT INTO evidence (order_id, assignment_no, state, occurred_at)"
        " VALUES (%s, 1, 'at_restaurant', now())",
        order_id,
    )
    fleet.run("INSERT INTO order_watch VALUES (%s, now())", order_id)
    fleet.run(
        "INSERT INTO order_notice (order_id, order_seq, kind, assignment_no, state, occurred_at)"
        " VALUES (%s, 9, 'nearby', 1, 'picked_up', now())",
        order_id,
    )
    fleet.run("INSERT INTO unassigned_order VALUES (%s, now(), now())", order_id)
    fleet.run("INSERT INTO evidence_due VALUES (%s, 1, now(), now())", order_id)
    fleet.run("INSERT INTO order_eta VALUES (%s, now(), 'infinity', now())", order_id)
    fleet.run("INSERT INTO order_retry VALUES (%s, %s)", order_id, order_id)
    fleet.run(
        "INSERT INTO order_detail (order_id, created_by, search) VALUES (%s, 'sara', 'x')", order_id
    )
    own = b"o" * 32
    fleet.run(
        "INSERT INTO access_token (token_sha256, role, order_id) VALUES (%s, 'customer', %s)",
        own,
        order_id,
    )
    fleet.run("INSERT INTO share_link VALUES (%s, %s, %s)", b"s" * 32, order_id, own)
    fleet.run(
        "INSERT INTO push_subscription VALUES (%s, 'https://push.example.org/', %s, 'k', 'a')",
        own,
        order_id,
    )
    person = str(order_id)
    document = exported(personal_data.export_order(conn, person), "order", person)
    assert not {"owner_sha256", "auth"} & set(document["tables"]["push_subscription"][0])
    assert columns_of(fleet, "order_id") - {"driver_state"} <= set(document["tables"])
    assert ANNA not in json.dumps(document)
    assert "sara" not in json.dumps(document)


def test_export__unknown__is_said(conn: psycopg.Connection[Any]) -> None:
    with pytest.raises(errors.UnknownDriver):
        next(personal_data.export_driver(conn, "unknown-driver"))
    with pytest.raises(errors.UnknownOrder):
        next(personal_data.export_order(conn, str(uuid.uuid4())))


def delivered_order(fleet: Fleet, driver_id: str) -> UUID:
    """Bring an order to its customer by fixes, and deliver it."""
    order_id = fleet.assigned_order(driver_id)
    fleet.backdate_assignment(order_id, now() - timedelta(minutes=20))
    legs = (RESTAURANT, 100), (RESTAURANT.north(600), 100), (CUSTOMER, 100)
    fleet.record(make_walk(now() - timedelta(minutes=15), *legs, driver_id=driver_id))
    fleet.command_order(order_id, "deliver")
    return order_id


def test_rebuild__after_forgetting__agrees_with_what_is_stored(
    fleet: Fleet, conn: psycopg.Connection[Any]
) -> None:
    """Evidence stays, and its fixes and places are gone."""
    of_driver, of_customer = delivered_order(fleet, "d1"), delivered_order(fleet, "d2")
    assert len(fleet.evidence(of_driver)) == 4
    personal_data.forget_driver(conn, "d1", "test")
    age_order(fleet, of_customer, 2)
    personal_data.forget_order(conn, str(of_customer), "test")
    rebuilt, _mended = rebuild(Rebuilder(conn))
    assert rebuilt.orders == 2
    unexpected = [one for one in rebuilt.differences if one.fields() != ["ended_at"]]  # aged above
    assert [one.line() for one in unexpected] == []
