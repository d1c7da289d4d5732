"""What the functions of the role `customer` show. `test_roles` has what the role may do."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.rows import dict_row

from doorstep.store.records import IncomingRow
from sql import query
from tests.database import Database
from tests.factories import AWAY, CUSTOMER, RESTAURANT, Place, make_fix, now, numbered
from tests.sql.fleet import Fleet

OTHER_DOOR = Place(11.2500, 43.7900)


class Customers:
    """The functions of the role, on one connection."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self.conn = conn

    def _rows(self, name: str, **parameters: object) -> list[dict[str, Any]]:
        with self.conn.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query(name), parameters).fetchall()

    def tracks(self, *links: tuple[bytes, UUID]) -> list[dict[str, Any]]:
        tokens, order_ids = [link[0] for link in links], [link[1] for link in links]
        return self._rows("customer_tracks", token_sha256s=tokens, order_ids=order_ids)

    def good_links(self, *links: tuple[bytes, UUID]) -> list[int]:
        tokens, order_ids = [link[0] for link in links], [link[1] for link in links]
        rows = self.conn.execute(
            query("find_good_links", "queries/customers.sql"),
            {"token_sha256s": tokens, "order_ids": order_ids},
        )
        return [n for (n,) in rows]

    def polls(self, *links: tuple[bytes, UUID]) -> list[dict[str, Any]]:
        tokens, order_ids = [link[0] for link in links], [link[1] for link in links]
        return self._rows("customer_polls", token_sha256s=tokens, order_ids=order_ids)

    def history(self, token: bytes, order_id: UUID, **page: object) -> list[dict[str, Any]]:
        names = ("since", "before", "after_fix_at", "after_boot", "after_seq")
        parameters = dict.fromkeys(names) | {"at_most": 5000} | page
        return self._rows("customer_history", token_sha256=token, order_id=order_id, **parameters)

    def cancel(self, token: bytes, order_id: UUID) -> list[dict[str, Any]]:
        return self._rows(
            "customer_cancel", token_sha256=token, order_id=order_id, idempotency_key=None
        )


@pytest.fixture
def customers(database: Database) -> Iterator[Customers]:
    """A connection as `customer`."""
    with database.connect("customer", autocommit=True) as conn:
        yield Customers(conn)


def linked_order(
    fleet: Fleet, assigned_at: datetime | None = None, **options: Any
) -> tuple[bytes, UUID]:
    """An order of d1, assigned at an instant, and its link."""
    token = secrets.token_bytes(32)
    order_id = fleet.assigned_order("d1", token_sha256=token, **options)
    if assigned_at:
        fleet.backdate_assignment(order_id, assigned_at)
    return token, order_id


def deliver(fleet: Fleet, order_id: UUID, at: datetime | None = None) -> None:
    """Deliver an order, at an instant."""
    fleet.command_order(order_id, "pick_up")
    fleet.command_order(order_id, "deliver")
    if at:
        fleet.run("UPDATE assignment SET ended_at = %s WHERE order_id = %s", at, order_id)


def seen(customers: Customers, link: tuple[bytes, UUID]) -> list[int]:
    """The seqs that a customer sees, the same whichever way they look."""
    history = customers.history(*link)
    newest = history[-1] if history else {"fix_at": None, "received_at": None}
    [track], [poll] = customers.tracks(link), customers.polls(link)
    for one in (track, poll):
        assert (one["fix_at"], one["received_at"]) == (newest["fix_at"], newest["received_at"])
    trail = [row["fix_at"] for row in history if row["fix_at"] > now() - timedelta(minutes=5)]
    assert (track["trail_fix_at"] or []) == trail[:-1]
    return [row["seq"] for row in history]


def take(fleet: Fleet, *fixes: IncomingRow) -> None:
    fleet.record(numbered(list(fixes)))


def fix(
    seq: int, taken_at: datetime, *, ahead_s: float = 0, after_s: float = 0.3, **values: Any
) -> IncomingRow:
    """A fix taken at an instant by a clock that runs ahead, and received so much later."""
    return make_fix(
        seq=seq,
        fix_at=taken_at + timedelta(seconds=ahead_s),
        received_at=taken_at + timedelta(seconds=after_s),
        **values,
    )


# -- links -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["unknown", "of_another_order", "revoked", "expired", "drivers"])
def test_bad_link__whatever_is_wrong_with_it__shows_nothing(
    fleet: Fleet, customers: Customers, fault: str
) -> None:
    token, order_id = linked_order(fleet, now() - timedelta(minutes=5))
    take(fleet, fix(1, now() - timedelta(seconds=60)))
    assert seen(customers, (token, order_id)) == [1]
    match fault:
        case "unknown":
            token = secrets.token_bytes(32)
        case "of_another_order":
            token = secrets.token_bytes(32)
            fleet.create_order(token_sha256=token)
        case "revoked":
            fleet.run("SELECT revoke_customer_tokens_v1(%s)", order_id)
        case "expired":
            deliver(fleet, order_id)
            fleet.run("UPDATE orders SET ended_at = now() - interval '25 hours'")
        case "drivers":
            token = secrets.token_bytes(32)
            fleet.run("SELECT register_drivers_v1(ARRAY['d3'], ARRAY['d3'], ARRAY[%s])", token)
    link = (token, order_id)
    assert customers.tracks(link) == customers.polls(link) == customers.good_links(link) == []
    for call in (customers.history, customers.cancel):
        with pytest.raises(psycopg.Error) as refused:
            call(*link)
        assert refused.value.sqlstate == "DS015"


def test_links__good_and_bad_together__good_ones_are_answered_by_number(
    fleet: Fleet, customers: Customers
) -> None:
    good, other = linked_order(fleet), (secrets.token_bytes(32), uuid4())
    assert [row["n"] for row in customers.polls(other, good, other, good)] == [2, 4]
    assert [row["n"] for row in customers.tracks(good, other)] == [1]
    assert customers.good_links(other, good, other, good) == [2, 4]


def test_track__of_an_open_order__has_what_the_page_shows(
    fleet: Fleet, customers: Customers
) -> None:
    link = linked_order(fleet, now() - timedelta(minutes=3))
    take(fleet, fix(1, now() - timedelta(seconds=9), speed_mps=4.5, heading_deg=90.0))
    [track] = customers.tracks(link)
    assert (track["state"], track["restaurant_name"]) == ("assigned", "Da Mario")
    assert (track["restaurant_lon_deg"], track["restaurant_lat_deg"]) == RESTAURANT
    assert (track["destination_lon_deg"], track["destination_lat_deg"]) == CUSTOMER
    assert (track["lon_deg"], track["lat_deg"]) == AWAY
    assert (track["speed_mps"], track["heading_deg"]) == (4.5, 90.0)
    assert track["event_state"] == ["created", "confirmed", "assigned"]
    assert track["event_order_seq"] == [1, 2, 3]
    [poll] = customers.polls(link)
    assert (poll["order_seq"], poll["driver_id"]) == (3, "d1")


def test_history__in_pages__is_whole(fleet: Fleet, customers: Customers) -> None:
    link = linked_order(fleet, now() - timedelta(minutes=3))
    start_at = now() - timedelta(seconds=100)
    take(fleet, *(fix(n, start_at + timedelta(seconds=n)) for n in range(1, 10)))
    seqs: list[int] = []
    page: dict[str, object] = {}
    while rows := customers.history(*link, at_most=4, **page):
        seqs += [row["seq"] for row in rows]
        page = {f"after_{name}": rows[-1][name] for name in ("fix_at", "boot", "seq")}
    assert seqs == list(range(1, 10))
    since = start_at + timedelta(seconds=3)
    before = start_at + timedelta(seconds=5)
    assert [row["seq"] for row in customers.history(*link, since=since, before=before)] == [3, 4]


def test_cancel__by_the_link__ends_the_order_and_the_view(
    fleet: Fleet, customers: Customers
) -> None:
    link = linked_order(fleet, now() - timedelta(minutes=3))
    take(fleet, fix(1, now() - timedelta(seconds=9)))
    [order] = customers.cancel(*link)
    assert order["state"] == "cancelled"
    assert seen(customers, link) == []


# -- clocks and boundaries -------------------------------------------------------------------------


@pytest.mark.parametrize("ahead_s", [100, -100])
@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("boundary", ["assign", "reassign", "decline", "deliver"])
def test_clock_off_by_100_s__at_each_boundary__shows_no_other_orders_fix(
    fleet: Fleet, customers: Customers, boundary: str, ahead_s: int, stored: bool
) -> None:
    start_at = now() - timedelta(minutes=20)
    switch_at = start_at + timedelta(minutes=8)
    first = linked_order(fleet, start_at, customer=OTHER_DOOR)
    match boundary:
        case "assign" | "deliver":
            deliver(fleet, first[1], switch_at)
        case "decline":
            fleet.command_order(first[1], "decline", actor="driver", actor_id="d1")
        case "reassign":
            fleet.command_order(first[1], "reassign", driver_id="d2")
    fleet.run("UPDATE assignment SET ended_at = %s WHERE ended_at IS NOT NULL", switch_at)
    second = linked_order(fleet, switch_at)
    taken = {
        seq: start_at + timedelta(seconds=15 * seq)  # through both orders
        for seq in range(1, 70)
    }
    sent_at = now() - timedelta(seconds=20)
    fixes = [
        fix(seq, at, ahead_s=ahead_s, after_s=(sent_at - at).total_seconds() if stored else 0.3)
        for seq, at in taken.items()
    ]
    prompt = fix(1000, now() - timedelta(seconds=5), ahead_s=ahead_s)
    take(fleet, *fixes, prompt)
    shown = set(seen(customers, second))
    mine = {seq for seq, at in taken.items() if at >= switch_at} | {1000}
    assert shown <= mine
    hidden_s = 2 if ahead_s > 0 else 2 - ahead_s  # a slow clock hides the first of a range
    edge = switch_at + timedelta(seconds=hidden_s)
    assert shown >= {seq for seq, at in taken.items() if at >= edge}
    assert seen(customers, first) == []


def test_next_order__given_at_the_last_door__sees_nothing_of_it(
    fleet: Fleet, customers: Customers
) -> None:
    start_at = now() - timedelta(minutes=20)
    switch_at = start_at + timedelta(minutes=8)
    _token, done = linked_order(fleet, start_at, customer=OTHER_DOOR)
    deliver(fleet, done, switch_at)
    mine = linked_order(fleet, switch_at)
    at = switch_at + timedelta(seconds=10)
    take(
        fleet,
        fix(1, at, place=OTHER_DOOR),
        fix(2, at + timedelta(seconds=10), place=OTHER_DOOR.north(149)),
        fix(3, at + timedelta(seconds=20), place=OTHER_DOOR.north(152)),
        fix(4, at + timedelta(seconds=30), place=OTHER_DOOR.north(20)),
    )
    assert seen(customers, mine) == [3]


def test_door__of_an_order_that_ended_long_ago__is_hidden_until_left(
    fleet: Fleet, customers: Customers
) -> None:
    ended_at = now() - timedelta(minutes=40)
    _token, done = linked_order(fleet, ended_at - timedelta(minutes=5), customer=OTHER_DOOR)
    deliver(fleet, done, ended_at)
    mine = linked_order(fleet, now() - timedelta(minutes=15))
    at = now() - timedelta(minutes=10)
    take(fleet, fix(1, at, place=OTHER_DOOR))
    assert seen(customers, mine) == []
    take(
        fleet,
        fix(2, at + timedelta(seconds=20)),
        fix(3, at + timedelta(seconds=40), place=OTHER_DOOR),
    )
    assert seen(customers, mine) == [2, 3]


def test_two_ranges_of_one_assignment__the_gap__is_hidden(
    fleet: Fleet, customers: Customers
) -> None:
    start_at = now() - timedelta(minutes=10)
    link = linked_order(fleet, start_at)
    gap = (start_at + timedelta(seconds=100), start_at + timedelta(seconds=200))
    fleet.run("UPDATE assignment SET visible = visible - tstzmultirange(tstzrange(%s, %s))", *gap)
    take(
        fleet,
        *(fix(n, start_at + timedelta(seconds=n)) for n in (50, 99, 150, 199, 250)),
        fix(60, start_at + timedelta(seconds=60), after_s=180),  # taken before, arrived after
    )
    assert seen(customers, link) == [50, 99, 250]
    fleet.run(
        "UPDATE assignment SET visible = visible * tstzmultirange(tstzrange(NULL, %s))", gap[0]
    )
    assert seen(customers, link) == []  # another customer's stop is next


def test_refused_copy__dated_ahead__is_what_tells_of_the_clock(
    fleet: Fleet, customers: Customers
) -> None:
    assigned_at = now() - timedelta(minutes=5)
    link = linked_order(fleet, assigned_at)
    before = assigned_at - timedelta(seconds=100)
    take(fleet, fix(1, before, ahead_s=150, after_s=160))
    assert seen(customers, link) == [1]  # nothing is known of this clock
    take(fleet, fix(2, before + timedelta(seconds=1), ahead_s=150))  # refused: in_the_future
    assert fleet.history("seq") == [(1,)]
    assert seen(customers, link) == []


def test_copy__with_an_earlier_arrival__counts_in_history_and_position(
    fleet: Fleet, customers: Customers
) -> None:
    link = linked_order(fleet, now() - timedelta(minutes=5))
    at = now() - timedelta(minutes=2)
    take(fleet, fix(1, at, after_s=60))
    take(fleet, fix(1, at, after_s=2), fix(1, at, after_s=90))
    received_at = at + timedelta(seconds=2)
    assert fleet.history("received_at") == [(received_at,)]
    assert fleet.driver()["received_at"] == received_at
    assert customers.polls(link)[0]["received_at"] == received_at


def test_driver_clock__phones_that_are_right__have_no_row(fleet: Fleet) -> None:
    take(fleet, fix(1, now()), fix(2, now(), ahead_s=0.7))
    assert fleet.run("SELECT * FROM driver_clock") == []


def test_driver_clock__a_new_hour__ends_those_of_three_days_ago(fleet: Fleet) -> None:
    for n, days in enumerate((4, 1, 0), 1):
        take(fleet, fix(n, now() - timedelta(days=days), ahead_s=30))
    hours = fleet.run("SELECT hour, lead FROM driver_clock ORDER BY hour")
    assert [row["lead"] for row in hours] == [timedelta(seconds=29.7)] * 2
