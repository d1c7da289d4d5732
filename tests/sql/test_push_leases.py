"""A notification is leased to one process before it is sent, and due again if that dies."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, NamedTuple

import psycopg
import pytest

from tests.sql.fleet import Fleet
from tests.sql.test_customer_page import ENDPOINT, Customer, be_nearby

CLAIM = "SELECT * FROM push_subscription__claim_v1(NULL, %s, %s, 20)"
REPORT = "SELECT push_subscription__report_v1(%s, %s, %s, %s, %s)"


class Taken(NamedTuple):
    """A row of push_subscription__claim_v1."""

    order_id: object
    kind: str
    endpoint: str
    p256dh: str
    auth: str
    language: str
    owner_sha256: bytes
    attempt: int


class Process:
    """A process that sends notifications, as the database sees it."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self.conn = conn

    def claim(self, at_most: int = 100, of_order: int = 100) -> list[Taken]:
        return [Taken(*row) for row in self.conn.execute(CLAIM, (at_most, of_order)).fetchall()]

    def kinds(self) -> list[tuple[str, int]]:
        return [(one.kind, one.attempt) for one in self.claim()]

    def report(self, one: Taken, retry_in_s: float | None = None) -> None:
        values = (one.owner_sha256, one.endpoint, one.kind, one.attempt, retry_in_s)
        self.conn.execute(REPORT, values)


@pytest.fixture
def processes(fleet: Fleet) -> Iterator[tuple[Process, Process]]:
    role = "tracking_api"
    with (
        fleet.database.connect(role, autocommit=True) as one,
        fleet.database.connect(role, autocommit=True) as other,
    ):
        yield Process(one), Process(other)


@pytest.fixture
def process(processes: tuple[Process, Process]) -> Process:
    return processes[0]


@pytest.fixture
def customer(fleet: Fleet) -> Iterator[Customer]:
    """A customer with a subscription, whose courier carries the order and is nearby."""
    with fleet.database.connect("customer", autocommit=True) as conn:
        customer = Customer(fleet, conn)
        customer.subscribe()
        fleet.command_order(customer.order_id, "assign", driver_id="d1")
        fleet.command_order(customer.order_id, "pick_up", actor="driver", actor_id="d1")
        be_nearby(fleet, customer.order_id)
        yield customer


def end_leases(fleet: Fleet) -> None:
    """Turn the clock: leases and pauses are over."""
    ended = "UPDATE push_subscription SET due_at = now(), sending_until = sending_until - %s"
    fleet.run(f"{ended} WHERE due_at IS NOT NULL", timedelta(hours=1))


def deliver(fleet: Fleet, customer: Customer) -> None:
    fleet.command_order(customer.order_id, "deliver", actor="driver", actor_id="d1")


def subscriptions(fleet: Fleet) -> int:
    return int(fleet.database.value("SELECT count(*) FROM push_subscription"))


@pytest.mark.parametrize("kind", ["nearby", "delivered"])
def test_claim__process_dies_before_its_report__is_due_again_when_the_lease_ends(
    fleet: Fleet, customer: Customer, process: Process, kind: str
):
    if kind == "delivered":
        deliver(fleet, customer)
    assert process.kinds() == [(kind, 1)]
    assert process.claim() == []
    end_leases(fleet)
    [again] = process.claim()
    assert (again.kind, again.attempt, again.endpoint) == (kind, 2, ENDPOINT)
    process.report(again)
    end_leases(fleet)
    assert process.claim() == []
    assert subscriptions(fleet) == (kind == "nearby")


def test_claim__by_two_processes_at_once__gives_each_notification_to_one(
    fleet: Fleet, customer: Customer, processes: tuple[Process, Process]
):
    one, other = processes
    customer.subscribe(f"{ENDPOINT}/2")
    with one.conn.transaction():
        assert len(one.claim(at_most=1)) == 1
        assert other.claim() == []  # those that the other looks at
    assert len(other.claim()) == 1
    assert one.claim() == other.claim() == []


def test_claim__of_one_order__gives_out_some_at_a_time(
    fleet: Fleet, customer: Customer, process: Process
):
    for n in range(4):
        customer.subscribe(f"{ENDPOINT}/{n}")
    first = process.claim(of_order=2)
    assert (len(first), process.claim(of_order=2)) == (2, [])
    for one in first:
        process.report(one)
    assert len(process.claim(of_order=2)) == 2
    end_leases(fleet)
    assert len(process.claim(of_order=2)) == 2


def test_claim__more_than_the_process_has_room_for__leaves_the_rest(
    fleet: Fleet, customer: Customer, process: Process
):
    customer.subscribe(f"{ENDPOINT}/2")
    assert [len(process.claim(at_most=1)) for _ in range(3)] == [1, 1, 0]


def test_report__of_a_process_that_was_thought_dead__changes_nothing(
    fleet: Fleet, customer: Customer, process: Process
):
    [late] = process.claim()
    end_leases(fleet)
    [second] = process.claim()
    process.report(late)
    end_leases(fleet)
    assert process.kinds() == [("nearby", 3)]
    end_leases(fleet)
    deliver(fleet, customer)
    [delivered] = process.claim()
    assert (delivered.kind, delivered.attempt) == ("delivered", 1)
    process.report(late)
    process.report(second)
    assert subscriptions(fleet) == 1
    process.report(delivered)
    assert subscriptions(fleet) == 0


def test_report__failed__is_due_after_the_pause_unless_there_is_news(
    fleet: Fleet, customer: Customer, process: Process
):
    [first] = process.claim()
    process.report(first, retry_in_s=600)
    assert process.claim() == []
    end_leases(fleet)
    [second] = process.claim()
    assert (second.kind, second.attempt) == ("nearby", 2)
    deliver(fleet, customer)
    assert process.claim() == []  # while it is sent, so that the newer is shown last
    process.report(second, retry_in_s=600)
    assert process.kinds() == [("delivered", 1)]


def test_claim__processes_that_die_again_and_again__ends(
    fleet: Fleet, customer: Customer, process: Process
):
    for n in range(5):
        assert process.kinds() == [("nearby", n + 1)]
        end_leases(fleet)
    assert process.claim() == []
    deliver(fleet, customer)
    for n in range(5):
        assert process.kinds() == [("delivered", n + 1)]
        end_leases(fleet)
    assert process.claim() == []
    assert subscriptions(fleet) == 0


def test_claim__lease_ends_when_the_courier_may_not_be_seen_any_more__is_not_sent_again(
    fleet: Fleet, customer: Customer, process: Process
):
    assert process.kinds() == [("nearby", 1)]
    fleet.run("UPDATE assignment SET visible = tstzmultirange(tstzrange(assigned_at, now()))")
    end_leases(fleet)
    assert process.claim() == []


def test_claim__lease_ends_after_the_link_was_revoked__is_removed(
    fleet: Fleet, customer: Customer, process: Process
):
    deliver(fleet, customer)
    assert process.kinds() == [("delivered", 1)]
    fleet.run("UPDATE access_token SET revoked_at = now() WHERE order_id = %s", customer.order_id)
    assert (process.claim(), subscriptions(fleet)) == ([], 1)
    end_leases(fleet)
    assert (process.claim(), subscriptions(fleet)) == ([], 0)


@pytest.mark.parametrize(("minutes", "is_sent"), [(30, True), (90, False)])
def test_claim__delivered_some_time_ago__is_sent_again_within_an_hour(
    fleet: Fleet, customer: Customer, process: Process, minutes: int, is_sent: bool
):
    deliver(fleet, customer)
    assert process.kinds() == [("delivered", 1)]
    fleet.run(
        "UPDATE orders SET ended_at = ended_at - make_interval(mins => %s) WHERE order_id = %s",
        minutes,
        customer.order_id,
    )
    end_leases(fleet)
    assert bool(process.claim()) is is_sent
    assert subscriptions(fleet) == is_sent


def test_take_due__of_the_release_before__leaves_what_is_leased(
    fleet: Fleet, customer: Customer, process: Process
):
    def taken_by_the_other() -> list[str]:
        rows = process.conn.execute("SELECT kind FROM push_subscription__take_due_v1(NULL)")
        return [row[0] for row in rows]

    customer.subscribe(f"{ENDPOINT}/2")
    assert len(process.claim(at_most=1)) == 1
    assert taken_by_the_other() == ["nearby"]
    end_leases(fleet)
    [again] = process.claim()
    process.report(again)
    deliver(fleet, customer)
    assert len(process.claim(at_most=1)) == 1
    assert taken_by_the_other() == ["delivered"]
    end_leases(fleet)
    assert process.kinds() == [("delivered", 2)]
