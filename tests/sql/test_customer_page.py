"""Links to share, the note, and push subscriptions: what belongs to a customer's token."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from doorstep.credentials import token_sha256
from doorstep.store.pool import open_pool
from tests.database import Database
from tests.factories import make_fix, now, numbered
from tests.sql.fleet import Fleet
from tracking_api.track.customer_queries import CustomerQueries
from tracking_api.track.order_details import DetailsCache
from tracking_api.track.queries import TrackQueries
from tracking_api.track.visibility import TrackLink

ENDPOINT = "https://push.example.org/send/1"


class Customer:
    """One order and the token of its customer, with the functions of the role `customer`."""

    def __init__(self, fleet: Fleet, conn: psycopg.Connection[Any]) -> None:
        self.conn = conn
        self.token = secrets.token_bytes(32)
        self.order_id: UUID = fleet.create_order(token_sha256=self.token)["order_id"]
        fleet.command_order(self.order_id, "confirm")

    def value(self, call: str, *parameters: object, token: bytes | None = None) -> Any:
        further = ", %s" * len(parameters)
        statement = f"SELECT {call}(%s, %s{further})"
        values = (token or self.token, self.order_id, *parameters)
        row = self.conn.execute(statement.encode(), values).fetchone()
        assert row is not None
        return row[0]

    def page(self, token: bytes | None = None) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.value("customer_page_v1", token=token))
        return found

    def share(self) -> bytes:
        token = secrets.token_bytes(32)
        self.value("customer_share_v1", token)
        return token

    def subscribe(self, endpoint: str = ENDPOINT, language: str = "it") -> None:
        self.value("customer_subscribe_v1", endpoint, "key", "auth", language)

    def is_shared_with(self, token: bytes) -> bool:
        rows = self.conn.execute("SELECT share_links_v1(%s, %s)", ([token], [self.order_id]))
        return rows.fetchall() == [(1,)]


@pytest.fixture
def customer(fleet: Fleet) -> Iterator[Customer]:
    with fleet.database.connect("customer", autocommit=True) as conn:
        yield Customer(fleet, conn)


def refused(customer: Customer, call: str, *parameters: object, token: bytes) -> str | None:
    """The SQLSTATE of a refusal; None if the call succeeds."""
    try:
        customer.value(call, *parameters, token=token)
    except psycopg.Error as exc:
        return exc.sqlstate
    return None


def take_due(database: Database, order_ids: list[UUID] | None = None) -> list[tuple[str, str]]:
    """Take what is due, and report it as sent."""
    with database.connect("tracking_api", autocommit=True) as conn:
        claim = "SELECT * FROM push_subscription__claim_v1(%s, 100, 100, 20)"
        rows = conn.execute(claim, (order_ids,)).fetchall()
        for _, kind, endpoint, *_, owner, attempt in rows:
            report = "SELECT push_subscription__report_v1(%s, %s, %s, %s, NULL)"
            conn.execute(report, (owner, endpoint, kind, attempt))
        return [(row[1], row[2]) for row in rows]


async def track_of(database: Database, order_id: UUID, token: bytes) -> Any:
    pool = await open_pool(database.url("customer"), 1, autocommit=True)
    try:
        link = TrackLink(order_id, token)
        return (await CustomerQueries(pool, DetailsCache()).read_tracks([link])).get(link)
    finally:
        await pool.close()


def test_share__new_link__leads_to_the_order_and_to_nothing_else(customer: Customer):
    token = customer.share()
    assert customer.is_shared_with(token)
    calls: list[tuple[str, tuple[object, ...]]] = [
        ("customer_page_v1", ()),
        ("customer_note_v1", ("x",)),
        ("customer_share_v1", (secrets.token_bytes(32),)),
        ("customer_unshare_v1", ()),
        ("customer_retry_v1", (secrets.token_bytes(32),)),
        ("customer_subscribe_v1", (ENDPOINT, "k", "a", "en")),
        ("customer_cancel_v1", (None,)),
        ("customer_history_v1", (None, None, 10, None, None, None)),
    ]
    assert {refused(customer, call, *rest, token=token) for call, rest in calls} == {"DS015"}
    own = customer.conn.execute("SELECT customer_links_v1(%s, %s)", ([token], [customer.order_id]))
    assert own.fetchall() == []


def test_share__again__ends_the_earlier_link(customer: Customer):
    first, second = customer.share(), customer.share()
    assert not customer.is_shared_with(first)
    assert customer.is_shared_with(second)
    assert customer.page()["shared_at"] is not None


def test_share__withdrawn__leads_nowhere(customer: Customer):
    token = customer.share()
    customer.value("customer_unshare_v1")
    assert not customer.is_shared_with(token)
    assert customer.page()["shared_at"] is None


def test_share__the_customers_own_link_revoked__ends_too(customer: Customer, fleet: Fleet):
    token = customer.share()
    customer.subscribe()
    fleet.run("UPDATE access_token SET revoked_at = now() WHERE order_id = %s", customer.order_id)
    assert not customer.is_shared_with(token)
    assert take_due(fleet.database) == []
    assert fleet.database.value("SELECT count(*) FROM push_subscription") == 0


def test_share__the_customers_own_link_deleted__is_deleted(customer: Customer, fleet: Fleet):
    customer.share()
    customer.subscribe()
    fleet.run("DELETE FROM access_token WHERE order_id = %s", customer.order_id)
    assert fleet.database.value("SELECT count(*) FROM share_link") == 0
    assert fleet.database.value("SELECT count(*) FROM push_subscription") == 0


def test_share__of_another_order__is_not_good(customer: Customer, fleet: Fleet):
    other = fleet.create_order(token_sha256=secrets.token_bytes(32))["order_id"]
    token = customer.share()
    rows = customer.conn.execute("SELECT share_links_v1(%s, %s)", ([token], [other]))
    assert rows.fetchall() == []


async def test_read_tracks__own_and_shared_links_together__marks_the_shared_one(
    database: Database, customer: Customer, fleet: Fleet
):
    token = customer.share()
    fleet.command_order(customer.order_id, "assign", driver_id="d1")
    fleet.backdate_assignment(customer.order_id, now() - timedelta(minutes=10))
    fleet.record(numbered([make_fix(seq=1, fix_at=now() - timedelta(seconds=5))]))
    pool = await open_pool(database.url("customer"), 1, autocommit=True)
    try:
        store = CustomerQueries(pool, DetailsCache())
        links = [TrackLink(customer.order_id, one) for one in (b"x" * 32, token, customer.token)]
        tracks, polls = await store.read_tracks(links), await store.read_polls(links)
        good = await store.find_good_links(links)
    finally:
        await pool.close()
    assert [one in good for one in links] == [False, True, True]
    assert {link: one.is_shared for link, one in tracks.items()} == {
        links[1]: True,
        links[2]: False,
    }
    assert tracks[links[1]].position == tracks[links[2]].position is not None
    assert set(polls) == set(links[1:])


async def test_read_tracks__before_a_courier__has_the_times_of_the_order(
    database: Database, customer: Customer, fleet: Fleet
):
    fleet.run("UPDATE restaurant SET preparation_s = 600")
    track = await track_of(database, customer.order_id, customer.token)
    assert track.plan.preparation_s == 600
    assert track.plan.created_at <= track.now
    pool = await open_pool(database.url("tracking_api"), 1, autocommit=True)
    try:
        link = TrackLink(customer.order_id)
        of_staff = (await TrackQueries(pool).read_tracks([link]))[link]
    finally:
        await pool.close()
    assert of_staff.plan == track.plan  # so that staff read the same estimate


def test_note__changed_until_pick_up__is_what_staff_reads_and_finds(
    customer: Customer, fleet: Fleet
):
    customer.value("customer_note_v1", "Second gate, ring Zanobini")
    assert customer.page()["door_note"] == "Second gate, ring Zanobini"
    found = fleet.database.value(
        "SELECT details ->> 'door_note' FROM order_with_details WHERE order_id = %s",
        customer.order_id,
    )
    assert found == "Second gate, ring Zanobini"
    searched = "SELECT count(*) FROM order_detail WHERE search @@ to_tsquery('simple', 'zanobini')"
    assert fleet.database.value(searched) == 1
    customer.value("customer_note_v1", None)
    assert fleet.database.value(searched) == 0


def test_note__after_pick_up__is_refused(customer: Customer, fleet: Fleet):
    fleet.command_order(customer.order_id, "assign", driver_id="d1")
    fleet.command_order(customer.order_id, "pick_up", actor="driver", actor_id="d1")
    assert refused(customer, "customer_note_v1", "x", token=customer.token) == "DS001"
    assert customer.page()["may_change"] is False


@pytest.mark.parametrize("rule", ["none", "call"])
@pytest.mark.parametrize("ends", ["cancel", "deliver"])
def test_page__the_couriers_number__is_shown_while_visible_if_the_rule_allows(
    customer: Customer, fleet: Fleet, rule: str, ends: str
):
    fleet.run("UPDATE driver SET phone = '+39 055 1'")
    customer.value("customer_note_v1", "x")  # so that there are details
    fleet.run("UPDATE order_detail SET contact_rule = %s::contact_rule", rule)
    assert customer.page()["courier_phone"] is None
    fleet.command_order(customer.order_id, "assign", driver_id="d1")
    shown = "+39 055 1" if rule == "call" else None
    assert customer.page()["courier_phone"] == shown
    shared = customer.share()
    assert refused(customer, "customer_page_v1", token=shared) == "DS015"
    for command in ("pick_up", "deliver") if ends == "deliver" else (ends,):
        fleet.command_order(customer.order_id, command)
    assert customer.page()["courier_phone"] is None


def be_nearby(fleet: Fleet, order_id: UUID) -> None:
    """Write the notice that the courier is nearby, as the job for notices does."""
    add = "SELECT order_notice__add(%s, assignment_no, 'nearby', now()) FROM orders"
    fleet.run(f"{add} WHERE order_id = %s", order_id, order_id)


def test_push__nearby__goes_by_the_notice_and_not_by_the_state(customer: Customer, fleet: Fleet):
    customer.subscribe()
    fleet.command_order(customer.order_id, "assign", driver_id="d1")
    fleet.command_order(customer.order_id, "pick_up", actor="driver", actor_id="d1")
    fleet.run("UPDATE orders SET state = 'arriving' WHERE order_id = %s", customer.order_id)
    assert take_due(fleet.database) == []
    be_nearby(fleet, customer.order_id)
    assert take_due(fleet.database) == [("nearby", ENDPOINT)]


def test_push__courier_with_another_stop_first__tells_the_next_customer_only(
    customer: Customer, fleet: Fleet
):
    fleet.command_order(customer.order_id, "assign", driver_id="d1")
    fleet.command_order(customer.order_id, "pick_up", actor="driver", actor_id="d1")
    other = Customer(fleet, customer.conn)
    fleet.command_order(other.order_id, "assign", driver_id="d1")
    fleet.command_order(other.order_id, "pick_up", actor="driver", actor_id="d1")
    other.subscribe("https://push.example.org/send/other")
    customer.subscribe()
    fleet.run("UPDATE orders SET state = 'arriving'")
    for one in (customer, other):
        be_nearby(fleet, one.order_id)
    assert take_due(fleet.database) == [("nearby", ENDPOINT)]
    notice = "INSERT INTO order_notice VALUES (%s, 90, 'nearby', 1, 'arriving', now())"
    fleet.run(notice, other.order_id)  # of a time when this customer's stop was the next one
    assert take_due(fleet.database) == []
    fleet.command_order(customer.order_id, "deliver", actor="driver", actor_id="d1")
    assert sorted(take_due(fleet.database)) == [
        ("delivered", ENDPOINT),
        ("nearby", "https://push.example.org/send/other"),
    ]


def test_push__nearby_then_delivered__is_taken_once_each_and_then_gone(
    customer: Customer, fleet: Fleet
):
    customer.subscribe()
    fleet.command_order(customer.order_id, "assign", driver_id="d1")
    assert take_due(fleet.database) == []
    fleet.command_order(customer.order_id, "pick_up", actor="driver", actor_id="d1")
    be_nearby(fleet, customer.order_id)
    assert take_due(fleet.database, []) == []  # of no order
    assert take_due(fleet.database, [customer.order_id]) == [("nearby", ENDPOINT)]
    assert take_due(fleet.database) == []
    fleet.command_order(customer.order_id, "deliver", actor="driver", actor_id="d1")
    assert take_due(fleet.database) == [("delivered", ENDPOINT)]
    assert take_due(fleet.database) == []
    assert fleet.database.value("SELECT count(*) FROM push_subscription") == 0


def test_push__order_cancelled__is_removed_without_a_notification(customer: Customer, fleet: Fleet):
    customer.subscribe()
    fleet.command_order(customer.order_id, "cancel")
    assert take_due(fleet.database) == []
    assert fleet.database.value("SELECT count(*) FROM push_subscription") == 0
    customer.subscribe()  # too late
    assert fleet.database.value("SELECT count(*) FROM push_subscription") == 0


def test_push__many_browsers_of_one_link__keeps_the_newest_five(customer: Customer, fleet: Fleet):
    for n in range(7):
        customer.subscribe(f"{ENDPOINT}/{n}")
    rows = fleet.database.rows("SELECT endpoint FROM push_subscription ORDER BY endpoint")
    assert [row["endpoint"][-1] for row in rows] == ["2", "3", "4", "5", "6"]


def test_push__unsubscribed_by_the_endpoints_hash__is_removed(customer: Customer, fleet: Fleet):
    customer.subscribe()
    digest = fleet.database.value("SELECT sha256(%s::bytea)", ENDPOINT)
    customer.value("customer_unsubscribe_v1", digest)
    assert fleet.database.value("SELECT count(*) FROM push_subscription") == 0


def test_push__endpoint_gone__is_dropped(customer: Customer, fleet: Fleet):
    customer.subscribe()
    with fleet.database.connect("tracking_api", autocommit=True) as conn:
        conn.execute("SELECT push_subscription__drop_v1(%s)", (ENDPOINT,))
    assert fleet.database.value("SELECT count(*) FROM push_subscription") == 0


def failed_with_retry(fleet: Fleet, customer: Customer) -> UUID:
    """Let the courier fail the order; return the one that tries again."""
    fleet.add_token("d1")
    fleet.command_order(customer.order_id, "assign", driver_id="d1")
    fleet.command_order(customer.order_id, "pick_up")
    fail = "SELECT * FROM driver_fail_order_v2(%s, %s, 'customer_absent', NULL, 'retry', NULL)"
    fleet.run(fail, token_sha256("d1"), customer.order_id)
    retry = "SELECT order_id FROM order_retry WHERE retry_of = %s"
    order_id: UUID = fleet.run(retry, customer.order_id)[0]["order_id"]
    return order_id


def leads_to(customer: Customer, token: bytes, order_id: UUID) -> bool:
    rows = customer.conn.execute("SELECT customer_links_v1(%s, %s)", ([token], [order_id]))
    return rows.fetchall() == [(1,)]


def test_retry__made_by_the_courier__is_followed_from_the_old_link(
    fleet: Fleet, customer: Customer
):
    token = secrets.token_bytes(32)
    assert customer.value("customer_retry_v1", token) is None
    assert customer.page()["has_retry"] is False
    retry_id = failed_with_retry(fleet, customer)
    assert customer.page()["has_retry"] is True
    assert not leads_to(customer, customer.token, retry_id)
    assert [customer.value("customer_retry_v1", token) for _ in range(2)] == [retry_id, retry_id]
    assert leads_to(customer, token, retry_id)
    assert not leads_to(customer, token, customer.order_id)
    tokens = "SELECT count(*) AS n FROM access_token WHERE order_id = %s"
    assert fleet.run(tokens, retry_id)[0]["n"] == 1


def test_retry__links_revoked__are_not_made_good_from_the_old_link(
    fleet: Fleet, customer: Customer
):
    token = secrets.token_bytes(32)
    retry_id = failed_with_retry(fleet, customer)
    customer.value("customer_retry_v1", token)
    fleet.run("SELECT revoke_customer_tokens_v1(%s)", retry_id)
    assert customer.value("customer_retry_v1", secrets.token_bytes(32)) is None
    assert not leads_to(customer, token, retry_id)


def test_retry__old_link_revoked_or_shared__leads_nowhere(fleet: Fleet, customer: Customer):
    shared = customer.share()
    retry_id = failed_with_retry(fleet, customer)
    new = secrets.token_bytes(32)
    assert refused(customer, "customer_retry_v1", new, token=shared) == "DS015"
    fleet.run("SELECT revoke_customer_tokens_v1(%s)", customer.order_id)
    assert refused(customer, "customer_retry_v1", new, token=customer.token) == "DS015"
    assert not leads_to(customer, new, retry_id)
