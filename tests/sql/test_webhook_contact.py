"""Phone numbers of customers, for webhooks that may have them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from tests.factories import now
from tests.sql.fleet import Fleet
from tests.sql.test_customer_page import be_nearby

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PHONE, OTHER_PHONE = "+39 055 123", "+39 055 999"
TOLD = ["order.nearby", "order.delivered", "order.failed"]
Contact = tuple[str, str | None, str | None]


def add_hook(fleet: Fleet, *, with_contact: bool = True, url: str = "https://a.example") -> UUID:
    create = "SELECT create_webhook_v2(%s, NULL, NULL, %s, %s, 'anna') AS id"
    found: UUID = fleet.run(create, url, with_contact, SECRET)[0]["id"]
    return found


def create_order(fleet: Fleet, phone: str | None = PHONE, token: bytes | None = None) -> UUID:
    order_id: UUID = fleet.create_order(token_sha256=token)["order_id"]
    fleet.run(
        "INSERT INTO order_detail (order_id, created_by, customer_phone, customer_language, search)"
        " VALUES (%s, '', %s, 'it', '')",
        order_id,
        phone,
    )
    return order_id


def carry(fleet: Fleet, order_id: UUID, last: str, driver_id: str = "d1") -> None:
    """Bring an order near its customer, and end it."""
    fleet.command_order(order_id, "confirm")
    fleet.command_order(order_id, "assign", driver_id=driver_id)
    fleet.command_order(order_id, "pick_up")
    be_nearby(fleet, order_id)
    fleet.command_order(order_id, last)


def subscribe(fleet: Fleet, order_id: UUID, token: bytes) -> None:
    insert = "INSERT INTO push_subscription VALUES (%s, 'https://push.example', %s, 'k', 'a')"
    fleet.run(insert, token, order_id)


def claim_all(fleet: Fleet, version: int = 2) -> list[dict[str, Any]]:
    """Claim and report until nothing is due."""
    found: list[dict[str, Any]] = []
    while rows := fleet.run(f"SELECT * FROM webhook_delivery__claim_v{version}(9, 20)"):
        found += rows
        for row in rows:
            report = "SELECT webhook_delivery__report_v1(%s, %s, 200, NULL, 5)"
            fleet.run(report, row["delivery_id"], row["attempt"])
    return found


def contacts(fleet: Fleet) -> list[Contact]:
    return [
        (row["event_type"], row["phone"], row["language"])
        for row in claim_all(fleet)
        if row["event_type"] in TOLD or row["phone"]
    ]


@pytest.mark.parametrize("last", ["deliver", "fail"])
def test_claim__customer_without_web_push__has_phone_and_language(fleet: Fleet, last: str) -> None:
    add_hook(fleet)
    carry(fleet, create_order(fleet), last)
    ended = "order.delivered" if last == "deliver" else "order.failed"
    assert contacts(fleet) == [("order.nearby", PHONE, "it"), (ended, PHONE, "it")]


def test_claim__of_a_webhook_that_may_not_have_it__has_no_phone(fleet: Fleet) -> None:
    add_hook(fleet, with_contact=False)
    carry(fleet, create_order(fleet), "deliver")
    assert {one[1:] for one in contacts(fleet)} == {(None, None)}


def test_claim__permission_withdrawn_meanwhile__has_no_phone(fleet: Fleet) -> None:
    webhook_id = add_hook(fleet)
    carry(fleet, create_order(fleet), "deliver")
    change = "SELECT change_webhook_v1(%s, '{\"with_contact\": false}', 'anna')"
    fleet.run(change, webhook_id)
    assert {one[1:] for one in contacts(fleet)} == {(None, None)}


def test_claim__permission_given_afterwards__has_no_phone_of_earlier_events(fleet: Fleet) -> None:
    webhook_id = add_hook(fleet, with_contact=False)
    carry(fleet, create_order(fleet), "deliver")
    fleet.run("SELECT change_webhook_v1(%s, '{\"with_contact\": true}', 'anna')", webhook_id)
    assert {one[1:] for one in contacts(fleet)} == {(None, None)}


def test_claim__customer_with_web_push__has_no_phone_after_the_push_either(fleet: Fleet) -> None:
    add_hook(fleet)
    order_id = create_order(fleet, token=b"t" * 32)
    subscribe(fleet, order_id, b"t" * 32)
    carry(fleet, order_id, "deliver")
    [pushed] = fleet.run("SELECT * FROM push_subscription__claim_v1(NULL, 9, 9, 20)")
    assert pushed["kind"] == "delivered"
    fleet.run("DELETE FROM push_subscription")
    assert {one[1:] for one in contacts(fleet)} == {(None, None)}


def test_claim__web_push_of_a_revoked_link__has_the_phone(fleet: Fleet) -> None:
    add_hook(fleet)
    order_id = create_order(fleet, token=b"t" * 32)
    subscribe(fleet, order_id, b"t" * 32)
    fleet.run("UPDATE access_token SET revoked_at = now() WHERE order_id = %s", order_id)
    carry(fleet, order_id, "deliver")
    assert {one[1] for one in contacts(fleet)} == {PHONE}


def test_claim__two_customers_of_one_courier__has_each_ones_own_number(fleet: Fleet) -> None:
    add_hook(fleet)
    orders = {create_order(fleet): PHONE, create_order(fleet, OTHER_PHONE): OTHER_PHONE}
    for n, order_id in enumerate(orders):
        carry(fleet, order_id, "deliver", f"d{n + 1}")
    found = [
        (row["message_id"].split("_")[1], row["phone"]) for row in claim_all(fleet) if row["phone"]
    ]
    assert len(found) == 4
    assert set(found) == {(order_id.hex, phone) for order_id, phone in orders.items()}


@pytest.mark.parametrize(
    ("minutes", "told"),
    [(1, ["order.nearby", "order.delivered"]), (10, ["order.delivered"]), (70, [])],
)
def test_claim__delivery_that_was_late__has_the_phone_while_it_is_news(
    fleet: Fleet, minutes: int, told: list[str]
) -> None:
    add_hook(fleet)
    carry(fleet, create_order(fleet), "deliver")
    created_at = now() - timedelta(minutes=minutes)
    fleet.run("UPDATE webhook_delivery SET created_at = %s", created_at)
    assert [one[0] for one in contacts(fleet) if one[1]] == told


def test_claim__order_forgotten__sends_nothing(fleet: Fleet) -> None:
    add_hook(fleet)
    order_id = create_order(fleet)
    carry(fleet, order_id, "deliver")
    fleet.run("UPDATE orders SET ended_at = now() - interval '2 d' WHERE order_id = %s", order_id)
    fleet.run("SELECT forget_order_v1(%s, 'anna')", order_id)
    assert claim_all(fleet) == []


def test_claim__by_the_release_before__has_no_phone(fleet: Fleet) -> None:
    add_hook(fleet)
    carry(fleet, create_order(fleet), "deliver")
    assert not any(PHONE in str(row) for row in claim_all(fleet, version=1))


def test_queue__with_a_contact__keeps_no_number(fleet: Fleet) -> None:
    add_hook(fleet)
    carry(fleet, create_order(fleet), "deliver")
    assert contacts(fleet) != []
    for table in ("webhook_delivery", "webhook", "outbox", "audit"):
        rows = fleet.run(f"SELECT to_jsonb(t)::text AS text FROM {table} t")
        assert not any(PHONE in row["text"] for row in rows)
