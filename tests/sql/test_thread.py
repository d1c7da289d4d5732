"""One order from its creation to its end."""

from __future__ import annotations

from datetime import timedelta

from doorstep.store import fix_writer
from tests.factories import AWAY, CUSTOMER, RESTAURANT, make_walk, now
from tests.sql.fleet import Fleet


def test_order__driver_walks_the_whole_way__every_state_is_shown_once(fleet: Fleet) -> None:
    start_at = now() - timedelta(minutes=10)
    order_id = fleet.assigned_order()
    fleet.backdate_assignment(order_id, start_at)
    walk = make_walk(start_at, (AWAY, 20), (RESTAURANT, 60), (AWAY, 60), (CUSTOMER, 60))

    assert fleet.record(walk) == []

    assert fleet.state(order_id) == "at_customer"
    assert fleet.driver()["state"] == "at_customer"
    fleet.command_order(order_id, "deliver", actor="driver", actor_id="d1")
    assert fleet.events(order_id) == [
        (1, 0, "created", "staff"),
        (2, 0, "confirmed", "staff"),
        (3, 1, "assigned", "staff"),
        (4, 1, "at_restaurant", "gps"),
        (5, 1, "picked_up", "gps"),
        (6, 1, "arriving", "gps"),
        (7, 1, "at_customer", "gps"),
        (8, 1, "delivered", "driver"),
    ]
    assert fleet.driver()["state"] == "available"
    with fleet.conn.transaction():
        assert len(fix_writer.take_outbox(fleet.conn, 100)) == 8
        [mark] = fix_writer.read_watermarks(fleet.conn, [("d1", "b1")])
    assert (mark.seq, mark.missing) == (len(walk), [])
