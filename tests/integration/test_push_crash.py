"""Web push while its sender is killed: nothing is lost, and a customer sees each message once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ops.servers.waiting import wait_until
from tests.database import Database
from tests.integration.push_service import PushService, sending_process
from tests.sql.fleet import Fleet
from tests.sql.test_customer_page import Customer, be_nearby

PATIENCE_S = 90
MANY = 12


@pytest.fixture
def fleet(database: Database) -> Iterator[Fleet]:
    fleet = Fleet(database)
    fleet.add_drivers(*(f"d{n}" for n in range(MANY)))
    yield fleet
    fleet.close()


@pytest.fixture
def service() -> Iterator[PushService]:
    service = PushService()
    yield service
    service.close()


@pytest.fixture
def add_customer(fleet: Fleet, service: PushService) -> Iterator[Callable[[int], Customer]]:
    """Adds customer n, who has subscribed, and whose courier carries the order and is nearby."""
    with fleet.database.connect("customer", autocommit=True) as conn:

        def add(n: int = 0) -> Customer:
            customer = Customer(fleet, conn)
            to = service.recipient(f"c{n}")
            customer.value("customer_subscribe_v1", to.endpoint, to.p256dh, to.auth, "it")
            fleet.command_order(customer.order_id, "assign", driver_id=f"d{n}")
            fleet.command_order(customer.order_id, "pick_up")
            be_nearby(fleet, customer.order_id)
            return customer

        yield add


def wait_for_end(fleet: Fleet) -> None:
    """Wait until no notification is due or under way."""
    pending = (
        "SELECT count(*) FROM push_subscription p JOIN orders o USING (order_id)"
        " WHERE p.nearby_at IS NULL OR p.due_at IS NOT NULL OR o.ended_at IS NOT NULL"
    )
    wait_until(lambda: fleet.database.value(pending) == 0, PATIENCE_S, "all is sent")


@pytest.mark.parametrize("kind", ["nearby", "delivered"])
def test_push__killed_between_the_sending_and_its_note__is_shown_once(
    fleet: Fleet,
    database: Database,
    service: PushService,
    add_customer: Callable[[int], Customer],
    kind: str,
):
    customer = add_customer(0)
    if kind == "delivered":
        fleet.command_order(customer.order_id, "deliver")
    service.may_answer.clear()
    with sending_process(database):
        wait_until(lambda: len(service.messages) == 1, PATIENCE_S, "it is sent")
    service.may_answer.set()
    with sending_process(database):
        wait_for_end(fleet)
    assert len(service.messages) == 2
    assert len(set(service.messages)) == 1  # the same topic, tag and text
    assert service.shown() == {("/c0", str(customer.order_id))}


def test_push__killed_after_the_lease_and_before_the_sending__is_not_lost(
    fleet: Fleet, database: Database, service: PushService, add_customer: Callable[[int], Customer]
):
    add_customer(0)
    [taken] = fleet.run("SELECT kind FROM push_subscription__claim_v1(NULL, 9, 9, 1)")
    with sending_process(database):
        wait_for_end(fleet)
    assert (taken["kind"], len(service.messages)) == ("nearby", 1)


def test_push__killed_after_its_note__is_not_sent_again(
    fleet: Fleet, database: Database, service: PushService, add_customer: Callable[[int], Customer]
):
    add_customer(0)
    with sending_process(database):
        wait_for_end(fleet)
    add_customer(1)
    with sending_process(database):
        wait_for_end(fleet)
    assert [one.path for one in service.messages] == ["/c0", "/c1"]


def test_push__by_two_processes_at_once__is_sent_once(
    fleet: Fleet, database: Database, service: PushService, add_customer: Callable[[int], Customer]
):
    with sending_process(database), sending_process(database):
        for n in range(MANY):
            add_customer(n)
        wait_for_end(fleet)
    assert sorted(one.path for one in service.messages) == sorted(f"/c{n}" for n in range(MANY))
