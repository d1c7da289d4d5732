"""The service `webhooks` as a process, over PostgreSQL, with receivers that misbehave."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from uuid import UUID

import pytest

from doorstep.notification_texts import TITLES
from tests.database import Database
from tests.integration.webhook_receiver import Receiver, fates, webhooks_service
from tests.sql.fleet import Fleet
from tests.sql.test_webhook_contact import PHONE, carry, create_order
from tests.unit.webhooks.test_signatures import PAGE
from webhooks.signatures import sign

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PATIENCE_S = 90.0
ORDERS = 12
PATH = ["order.created", "order.confirmed", "order.assigned", "order.picked_up"]
PATH += ["order.delivered"]


@pytest.fixture
def fleet(database: Database) -> Iterator[Fleet]:
    fleet = Fleet(database)
    fleet.add_drivers(*(f"d{n}" for n in range(ORDERS)))
    yield fleet
    fleet.close()


@pytest.fixture
def receivers() -> Iterator[list[Receiver]]:
    opened: list[Receiver] = []
    yield opened
    for one in opened:
        one.close()


def add_hook(fleet: Fleet, url: str) -> UUID:
    [row] = fleet.run("SELECT create_webhook_v1(%s, NULL, NULL, %s, 'anna') AS id", url, SECRET)
    found: UUID = row["id"]
    return found


def deliver_orders(fleet: Fleet) -> list[UUID]:
    """Carry all orders from creation to delivery, interleaved."""
    orders = [fleet.create_order()["order_id"] for _ in range(ORDERS)]
    for command in ("confirm", "assign", "pick_up", "deliver"):
        for n, order_id in enumerate(orders):
            driver_id = f"d{n}" if command == "assign" else None
            fleet.command_order(order_id, command, driver_id=driver_id)
    return orders


def wait_until(is_done: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while not is_done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def pending(fleet: Fleet) -> int:
    [row] = fleet.run("SELECT count(*) AS n FROM webhook_delivery WHERE ended_at IS NULL")
    return int(row["n"])


def assert_each_once_in_order(receiver: Receiver, orders: list[UUID]) -> None:
    """After deduplication by id, every order's events are there, in their order."""
    found: dict[str, list[str]] = {str(order_id): [] for order_id in orders}
    for event in receiver.distinct():
        found[event["data"]["order_id"]].append(event["type"])
    assert found == {str(order_id): PATH for order_id in orders}


def test_receiver__that_loses_delays_and_doubles__has_every_event_once_and_in_order(
    fleet: Fleet, database: Database, receivers: list[Receiver]
) -> None:
    receivers.append(Receiver(fates(7, lost=0.15, refused=0.1, doubled=0.15, delayed=0.2)))
    [receiver] = receivers
    add_hook(fleet, receiver.url)
    with webhooks_service(database):
        orders = deliver_orders(fleet)
        assert wait_until(lambda: pending(fleet) == 0)
    assert_each_once_in_order(receiver, orders)
    assert len(receiver.recorded) > len(receiver.distinct())  # some came twice
    assert receiver.requests > len(receiver.recorded)  # and some were lost


def overtakings(receiver: Receiver) -> int:
    """How often an event was recorded after a later one of its order."""
    latest: dict[str, int] = {}
    found = 0
    for event in receiver.recorded:
        order_id, n = event["data"]["order_id"], PATH.index(event["type"])
        found += n < latest.get(order_id, 0)
        latest[order_id] = max(n, latest.get(order_id, 0))
    return found


def test_receiver__that_records_attempts_after_their_time_out__has_every_event_once_and_in_order(
    fleet: Fleet, database: Database, receivers: list[Receiver]
) -> None:
    receivers.append(Receiver(fates(13, overtaken=0.2), overtaken_s=3))
    [receiver] = receivers
    add_hook(fleet, receiver.url)
    with webhooks_service(database, WEBHOOK_TIMEOUT_S="1"):
        orders = deliver_orders(fleet)
        assert wait_until(lambda: pending(fleet) == 0 and receiver.held == 0)
    assert_each_once_in_order(receiver, orders)
    assert overtakings(receiver) > 0


def test_service__killed_again_and_again__loses_no_event(
    fleet: Fleet, database: Database, receivers: list[Receiver]
) -> None:
    receivers.append(Receiver(fates(11, delayed=0.5)))
    [receiver] = receivers
    add_hook(fleet, receiver.url)
    orders = deliver_orders(fleet)
    for events in (5, 20):
        with webhooks_service(database) as process:
            assert wait_until(lambda least=events: len(receiver.recorded) >= least)
            process.kill()
    assert pending(fleet) > 0
    with webhooks_service(database):
        assert wait_until(lambda: pending(fleet) == 0)
    assert_each_once_in_order(receiver, orders)


def test_slow_receiver__while_it_answers_nothing__the_other_has_everything(
    fleet: Fleet, database: Database, receivers: list[Receiver]
) -> None:
    receivers += [Receiver(lambda: "delayed", delay_s=60), Receiver()]
    slow, quick = receivers
    add_hook(fleet, slow.url)
    add_hook(fleet, quick.url)
    with webhooks_service(database):
        orders = deliver_orders(fleet)
        assert wait_until(lambda: len(quick.distinct()) == len(PATH) * ORDERS)
        assert pending(fleet) == len(PATH) * ORDERS  # all of the slow one's
    assert slow.recorded == []
    assert_each_once_in_order(quick, orders)


def test_message__as_it_arrives__has_the_headers_of_standard_webhooks(
    fleet: Fleet, database: Database, receivers: list[Receiver]
) -> None:
    receivers.append(Receiver())
    [receiver] = receivers
    add_hook(fleet, receiver.url)
    order_id = fleet.create_order()["order_id"]
    with webhooks_service(database):
        assert wait_until(lambda: pending(fleet) == 0)
    [headers], [event] = receiver.headers, receiver.recorded
    assert headers["webhook-id"] == f"msg_{order_id.hex}_1"
    assert headers["content-type"] == "application/json"
    assert headers["host"] == receiver.url.split("/")[2]
    [row] = fleet.run("SELECT webhook_delivery__body(%s, 1, 'order.created') AS body", order_id)
    timestamp = int(headers["webhook-timestamp"])
    signature = sign(SECRET, headers["webhook-id"], timestamp, row["body"].encode())
    assert headers["webhook-signature"] == signature
    assert event["data"].keys() == {
        *("order_id", "external_id", "order_seq", "state", "at", "reason")
    }
    assert all(f'"{name}"' in PAGE.read_text(encoding="utf-8") for name in event["data"])


def test_loopback__unless_it_is_allowed__is_not_connected_to(
    fleet: Fleet, database: Database, receivers: list[Receiver]
) -> None:
    receivers.append(Receiver())
    add_hook(fleet, receivers[0].url)
    fleet.create_order()
    read = "SELECT last_error FROM webhook_delivery WHERE last_error IS NOT NULL"
    with webhooks_service(database, WEBHOOK_ALLOW_LOOPBACK="false"):
        assert wait_until(lambda: bool(fleet.run(read)))
    assert "loopback" in fleet.run(read)[0]["last_error"]
    assert receivers[0].requests == 0


def test_receiver__that_is_dead_for_the_whole_time__is_switched_off(
    fleet: Fleet, database: Database, receivers: list[Receiver]
) -> None:
    receivers.append(Receiver(lambda: "refused"))
    webhook_id = add_hook(fleet, receivers[0].url)
    fleet.create_order()
    read = "SELECT is_on, off_reason::text FROM webhook WHERE webhook_id = %s"
    with webhooks_service(database, WEBHOOK_RETRY_FOR_S="1"):
        assert wait_until(lambda: not fleet.run(read, webhook_id)[0]["is_on"])
    assert fleet.run(read, webhook_id) == [{"is_on": False, "off_reason": "failing"}]
    assert receivers[0].requests >= 3


def test_contact__to_a_receiver_that_may_have_it__is_signed_and_in_no_log(
    fleet: Fleet,
    database: Database,
    receivers: list[Receiver],
    capfd: pytest.CaptureFixture[str],
) -> None:
    refusing = iter(["refused", "lost"])
    receivers.append(Receiver(lambda: next(refusing, "ok")))
    [receiver] = receivers
    create = "SELECT create_webhook_v2(%s, NULL, %s, true, %s, 'anna')"
    fleet.run(create, receiver.url, ["order.delivered"], SECRET)
    order_id = create_order(fleet, PHONE)
    carry(fleet, order_id, "deliver", "d0")
    with webhooks_service(database):
        assert wait_until(lambda: pending(fleet) == 0)
    [event] = receiver.recorded
    contact = {"phone": PHONE, "language": "it", "text": TITLES["it"]["delivered"]}
    assert event["data"]["contact"] == contact
    assert all(f'"{name}"' in PAGE.read_text(encoding="utf-8") for name in ["contact", *contact])
    [row] = fleet.run("SELECT to_jsonb(d)::text AS text FROM webhook_delivery d")
    written = capfd.readouterr()
    assert "started" in written.out + written.err
    assert not any(PHONE in one for one in (row["text"], written.out, written.err))
