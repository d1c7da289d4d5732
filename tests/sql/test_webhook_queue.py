"""The queue of webhooks: in order per order, at least once, switched off when it keeps failing."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from doorstep import errors
from tests.database import Database
from tests.factories import now
from tests.sql.fleet import Fleet, connect_as

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
LEASE_S = 20.0


class Hooks:
    """Webhooks, and their queue as the service sees it."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet

    def add(self, events: list[str] | None = None, url: str = "https://example.com/a") -> UUID:
        [row] = self.fleet.run(
            "SELECT create_webhook_v1(%s, NULL, %s, %s, 'anna') AS id", url, events, SECRET
        )
        found: UUID = row["id"]
        return found

    def claim(self, at_most: int = 4) -> list[dict[str, Any]]:
        rows = self.fleet.run("SELECT * FROM webhook_delivery__claim_v2(%s, %s)", at_most, LEASE_S)
        return sorted(rows, key=lambda row: row["delivery_id"])

    def report(
        self, claimed: dict[str, Any], status: int | None = 200, retry_in_s: float | None = 5.0
    ) -> str | None:
        [row] = self.fleet.run(
            "SELECT webhook_delivery__report_v1(%s, %s, %s, %s, %s) AS outcome",
            *(claimed["delivery_id"], claimed["attempt"], status, "x", retry_in_s),
        )
        outcome: str | None = row["outcome"]
        return outcome

    def make_due(self) -> None:
        """Turn the clock: pauses and leases are over."""
        self.fleet.run(
            "UPDATE webhook_delivery SET due_at = least(due_at, now()), sending_until = NULL"
            " WHERE ended_at IS NULL AND due_at <> 'infinity'"
        )

    def one(self, webhook_id: UUID) -> dict[str, Any]:
        [row] = self.fleet.run("SELECT * FROM webhook WHERE webhook_id = %s", webhook_id)
        return row


@pytest.fixture
def hooks(fleet: Fleet) -> Hooks:
    return Hooks(fleet)


def types(claimed: list[dict[str, Any]]) -> list[str]:
    return [json.loads(row["body"])["type"] for row in claimed]


def test_queue__events_of_an_order__are_given_out_one_after_the_other(
    fleet: Fleet, hooks: Hooks
) -> None:
    hooks.add()
    order_id = fleet.create_order()["order_id"]
    fleet.command_order(order_id, "confirm")
    fleet.command_order(order_id, "assign", driver_id="d1")
    seen = []
    while claimed := hooks.claim():
        assert len(claimed) == 1
        assert hooks.claim() == []  # while it is under way
        seen += types(claimed)
        assert hooks.report(claimed[0]) == "delivered"
    assert seen == ["order.created", "order.confirmed", "order.assigned"]


def test_queue__a_failed_event__holds_the_order_back_and_no_other(
    fleet: Fleet, hooks: Hooks
) -> None:
    hooks.add()
    first, second = (fleet.create_order()["order_id"] for _ in range(2))
    fleet.command_order(first, "confirm")
    held, other = hooks.claim()
    assert hooks.report(held, 500) == "retried"
    assert hooks.report(other) == "delivered"
    fleet.command_order(second, "confirm")
    [claimed] = hooks.claim()
    assert json.loads(claimed["body"])["data"]["order_id"] == str(second)
    hooks.make_due()
    assert [row["attempt"] for row in hooks.claim() if row["delivery_id"] == held["delivery_id"]]


def test_queue__chosen_events__are_the_only_ones(fleet: Fleet, hooks: Hooks) -> None:
    hooks.add(["order.confirmed"])
    fleet.command_order(fleet.create_order()["order_id"], "confirm")
    [claimed] = hooks.claim()
    assert types([claimed]) == ["order.confirmed"]


def test_queue__a_notice__is_sent_in_its_place(fleet: Fleet, hooks: Hooks) -> None:
    hooks.add()
    order_id = fleet.create_order()["order_id"]
    fleet.run(
        "INSERT INTO order_detail (order_id, created_by, external_id, promised_to, search)"
        " VALUES (%s, '', 'shop-7', now() - interval '1 min', '')",
        order_id,
    )
    fleet.run("SELECT order_notice__decide_v1(10)")
    hooks.report(hooks.claim()[0])
    [claimed] = hooks.claim()
    body = json.loads(claimed["body"])
    assert body["type"] == "order.late"
    assert body["data"].keys() == {
        *("order_id", "external_id", "order_seq", "state", "at", "reason")
    }
    assert (body["data"]["external_id"], body["data"]["order_seq"]) == ("shop-7", 2)
    assert claimed["message_id"] == f"msg_{order_id.hex}_2"


def test_body__of_a_failed_order__has_the_reason(fleet: Fleet, hooks: Hooks) -> None:
    hooks.add(["order.failed"])
    order_id = fleet.assigned_order("d1")
    fleet.command_order(order_id, "pick_up")
    fleet.run("SELECT fail_order_as_staff_v1(%s, 'anna', 'wrong_address', NULL, NULL)", order_id)
    [claimed] = hooks.claim()
    assert json.loads(claimed["body"])["data"]["reason"] == "wrong_address"


def test_claim__process_dies__is_given_out_again_after_the_lease(
    fleet: Fleet, hooks: Hooks
) -> None:
    hooks.add()
    fleet.create_order()
    [lost] = hooks.claim()
    assert hooks.claim() == []
    hooks.make_due()
    [again] = hooks.claim()
    assert (again["message_id"], again["body"]) == (lost["message_id"], lost["body"])
    assert again["attempt"] == 2
    assert hooks.report(lost, 500) is None  # stale
    assert hooks.report(lost) == "delivered"  # but a success counts


def test_claim__more_than_allowed_at_a_time__waits(fleet: Fleet, hooks: Hooks) -> None:
    slow, other = hooks.add(), hooks.add(url="https://example.com/b")
    for _ in range(6):
        fleet.create_order()
    claimed = hooks.claim(4)
    assert [row["webhook_id"] for row in claimed].count(slow) == 4
    for row in claimed:
        if row["webhook_id"] == other:
            hooks.report(row)
    assert {row["webhook_id"] for row in hooks.claim(4)} == {other}


def test_claim__of_a_failing_webhook__is_one_at_a_time(fleet: Fleet, hooks: Hooks) -> None:
    hooks.add()
    for _ in range(3):
        fleet.create_order()
    for row in hooks.claim():
        hooks.report(row, None)
    hooks.make_due()
    [probe] = hooks.claim()
    hooks.report(probe)
    assert len(hooks.claim()) == 2


@pytest.mark.parametrize("status", [410, 500])
def test_webhook__gone_or_given_up_without_success__is_switched_off_with_an_alert(
    fleet: Fleet, hooks: Hooks, status: int
) -> None:
    webhook_id = hooks.add()
    fleet.command_order(fleet.create_order()["order_id"], "confirm")
    [claimed] = hooks.claim()
    assert hooks.report(claimed, status, None) == "failed"
    found = hooks.one(webhook_id)
    assert (found["is_on"], found["off_reason"]) == (False, "gone" if status == 410 else "failing")
    assert hooks.claim() == []
    fleet.create_order()
    assert fleet.run("SELECT count(*) AS n FROM webhook_delivery")[0]["n"] == 2  # none is added
    fleet.run("SELECT alert__update_v1()")
    [alert] = fleet.run("SELECT kind::text, webhook_id, resolved_at FROM alert")
    assert alert == {"kind": "webhook_off", "webhook_id": webhook_id, "resolved_at": None}
    fleet.run("SELECT change_webhook_v1(%s, %s, 'anna')", webhook_id, '{"is_on": true}')
    assert types(hooks.claim()) == ["order.confirmed"]  # what was pending goes on
    fleet.run("SELECT alert__update_v1()")
    assert fleet.run("SELECT resolved_at IS NULL AS is_open FROM alert") == [{"is_open": False}]


def test_webhook__switched_on_again__gives_what_was_pending_a_new_day(
    fleet: Fleet, hooks: Hooks
) -> None:
    webhook_id, other = hooks.add(), hooks.add(url="https://example.com/b")
    for _ in range(3):
        fleet.create_order()
    claimed = hooks.claim()
    given_up, tried, under_way = (row for row in claimed if row["webhook_id"] == webhook_id)
    for row in claimed:
        if row["webhook_id"] == other:
            hooks.report(row, 500, 3600.0)
    hooks.report(tried, 500, 3600.0)
    hooks.report(given_up, 500, None)
    assert not hooks.one(webhook_id)["is_on"]
    fleet.run("UPDATE webhook_delivery SET first_attempt_at = now() - interval '25 h'")
    fleet.run("SELECT change_webhook_v1(%s, %s, 'anna')", webhook_id, '{"description": "x"}')
    assert hooks.claim() == []
    fleet.run("SELECT change_webhook_v1(%s, %s, 'anna')", webhook_id, '{"is_on": true}')
    pending = "SELECT DISTINCT attempts FROM webhook_delivery WHERE webhook_id = %s"
    assert fleet.run(pending, other) == [{"attempts": 1}]
    [again] = hooks.claim()  # at once; the attempt under way keeps its lease
    assert (again["delivery_id"], again["attempt"]) == (tried["delivery_id"], 1)
    assert now() - again["first_attempt_at"] < timedelta(hours=1)
    assert hooks.report(under_way, 500, None) is None  # it began before: stale
    assert hooks.one(webhook_id)["is_on"]
    hooks.make_due()
    [last] = (row for row in hooks.claim() if row["delivery_id"] == under_way["delivery_id"])
    assert now() - last["first_attempt_at"] < timedelta(hours=1)


def test_webhook__one_event_given_up_while_others_succeed__stays_on(
    fleet: Fleet, hooks: Hooks
) -> None:
    webhook_id = hooks.add()
    order_id = fleet.create_order()["order_id"]
    [bad] = hooks.claim()
    fleet.create_order()
    [good] = hooks.claim()
    hooks.report(good)
    fleet.command_order(order_id, "confirm")
    assert hooks.report(bad, 400, None) == "failed"
    assert hooks.one(webhook_id)["is_on"]
    assert types(hooks.claim()) == ["order.confirmed"]


def test_send_again__an_old_event__has_the_same_id_and_holds_nothing_back(
    fleet: Fleet, hooks: Hooks
) -> None:
    webhook_id = hooks.add()
    order_id = fleet.create_order()["order_id"]
    [first] = hooks.claim()
    hooks.report(first)
    send = "SELECT send_webhook_again_v1(%s, %s, 'anna')"
    fleet.run(send, webhook_id, first["delivery_id"])
    [again] = hooks.claim()
    assert (again["message_id"], again["attempt"]) == (first["message_id"], 1)
    fleet.command_order(order_id, "confirm")
    assert types(hooks.claim()) == ["order.confirmed"]
    with pytest.raises(errors.UnknownDelivery):
        fleet.run(send, webhook_id, 0)


def test_rotate__for_a_day__both_secrets_sign(fleet: Fleet, hooks: Hooks) -> None:
    webhook_id = hooks.add()
    new = "whsec_" + "A" * 32
    fleet.run("SELECT rotate_webhook_v1(%s, %s, 'anna')", webhook_id, new)
    fleet.create_order()
    [claimed] = hooks.claim()
    assert claimed["secrets"] == [new, SECRET]
    fleet.run("UPDATE webhook SET old_secret_until = now()")
    hooks.make_due()
    assert hooks.claim()[0]["secrets"] == [new]


def test_change__unknown_webhook__is_refused(fleet: Fleet) -> None:
    unknown = "00000000-0000-0000-0000-000000000001"
    for statement in (
        "SELECT change_webhook_v1(%s, '{}', 'anna')",
        "SELECT rotate_webhook_v1(%s, 'x', 'anna')",
        "SELECT delete_webhook_v1(%s, 'anna')",
    ):
        with pytest.raises(errors.UnknownWebhook):
            fleet.run(statement, unknown)


def test_create__beyond_100__is_refused(fleet: Fleet, hooks: Hooks) -> None:
    for _ in range(100):
        hooks.add()
    with pytest.raises(errors.TooManyWebhooks):
        hooks.add()


def test_event__ends_while_the_next_is_queued__the_next_is_not_forgotten(
    fleet: Fleet, hooks: Hooks, database: Database
) -> None:
    hooks.add()
    order_id = fleet.create_order()["order_id"]
    [claimed] = hooks.claim()
    with database.connect() as other:  # queues the next behind the first, and has not committed
        other.execute(
            "SELECT FROM apply_order_command_v1(%s, 'confirm', 'staff', 'staff', NULL, NULL)",
            [order_id],
        )
        with database.connect() as service:
            service.execute("SET lock_timeout = '100ms'")
            with pytest.raises(Exception, match="lock timeout"):  # the report waits for it
                service.execute(
                    "SELECT webhook_delivery__report_v1(%s, 1, 200, NULL, 5)",
                    [claimed["delivery_id"]],
                )
        other.commit()
    hooks.report(claimed)
    assert types(hooks.claim()) == ["order.confirmed"]


def test_queue__order_is_forgotten__its_deliveries_go(fleet: Fleet, hooks: Hooks) -> None:
    hooks.add()
    order_id = fleet.create_order()["order_id"]
    fleet.command_order(order_id, "cancel")
    fleet.run("SELECT forget_order_v1(%s, 'anna')", order_id)
    assert fleet.run("SELECT 1 FROM webhook_delivery") == []


def test_retention__of_deliveries_and_alerts__spares_what_is_pending(
    fleet: Fleet, hooks: Hooks
) -> None:
    webhook_id = hooks.add()
    fleet.command_order(fleet.create_order()["order_id"], "confirm")
    hooks.report(hooks.claim()[0])
    fleet.run("INSERT INTO alert (kind, webhook_id) VALUES ('webhook_off', %s)", webhook_id)
    expire = "SELECT retention__expire_records(%s, 500, %s) AS n"
    later = now() + timedelta(days=31)
    assert fleet.run(expire, "deliveries", now()) == [{"n": 0}]
    assert fleet.run(expire, "deliveries", later) == [{"n": 1}]
    assert fleet.run(expire, "alerts", later + timedelta(days=90)) == [{"n": 0}]  # it is open
    fleet.run("UPDATE alert SET resolved_at = now()")
    assert fleet.run(expire, "alerts", later + timedelta(days=90)) == [{"n": 1}]


def test_roles__webhooks__reads_no_table_and_tracking_api_no_secret(
    fleet: Fleet, hooks: Hooks, database: Database
) -> None:
    hooks.add()
    for role, statement in (
        ("webhooks", "SELECT url FROM webhook"),
        ("webhooks", "SELECT order_id FROM orders"),
        ("webhooks", "SELECT create_webhook_v1('https://x.y', NULL, NULL, 'x', 'anna')"),
        ("tracking_api", "SELECT secret FROM webhook"),
        ("tracking_api", "SELECT webhook_delivery__claim_v2(1, 1)"),
    ):
        with (
            connect_as(database, role) as conn,
            pytest.raises(Exception, match="permission denied"),
        ):
            conn.execute(statement)
    with connect_as(database, "webhooks") as conn:
        assert conn.execute("SELECT url FROM webhook_delivery__claim_v1(1, 1)").fetchall() == []
