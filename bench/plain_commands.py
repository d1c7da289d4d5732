"""The plain counterpart of an order's commands, for `bench.commands`.

An orders table with the same columns and indexes, and a row of events per change: no tokens, audit,
idempotent repetition, assignments, states of drivers, guards or outbox.
"""

from __future__ import annotations

from uuid import UUID

from bench.fleet_database import RESTAURANTS
from doorstep.store.pool import connect
from ops.servers.postgres import PASSWORD
from ops.stack.postgres import PostgresCluster

PLAIN_TABLES = """
CREATE TABLE plain_order (LIKE orders INCLUDING ALL, driver_id text);
CREATE TABLE plain_event (LIKE order_event INCLUDING ALL);
GRANT SELECT, INSERT, UPDATE ON plain_order, plain_event TO tracking_api;
INSERT INTO plain_order (restaurant_id, lon_deg, lat_deg, policy_id)
SELECT restaurant_id, lon_deg, lat_deg, policy_id FROM orders;
INSERT INTO plain_event (order_id, order_seq, assignment_no, state, source, occurred_at)
SELECT order_id, 1, 0, 'created', 'staff', created_at FROM plain_order;
"""
PLAIN_CREATE = (
    "INSERT INTO plain_order (restaurant_id, lon_deg, lat_deg, policy_id, idempotency_key,"
    " customer_name, created_by) VALUES (%s, %s, %s, 1, %s, %s, %s) RETURNING *"
)
PLAIN_UPDATE = (
    "UPDATE plain_order SET state = %s, state_at = clock_timestamp(), order_seq = order_seq + 1,"
    " driver_id = coalesce(%s, driver_id), assignment_no = 1, ended_at = CASE WHEN %s THEN"
    " clock_timestamp() END WHERE order_id = %s AND state = %s RETURNING *"
)
PLAIN_EVENT = (
    "INSERT INTO plain_event (order_id, order_seq, assignment_no, state, source, driver_id,"
    " occurred_at) VALUES (%s, %s, 1, %s, 'staff', %s, clock_timestamp())"
)


class PlainTables:
    """What a simple application writes instead."""

    def __init__(self, cluster: PostgresCluster) -> None:
        self.conn = connect(cluster.url("tracking_api", PASSWORD))
        self.sessions = (self.conn,)

    def create(self, number: int, place: tuple[float, float]) -> UUID:
        """Insert an order and its first event."""
        parameters = (1 + number % RESTAURANTS, *place, f"key-{number}", "A customer", "bench")
        with self.conn.transaction():
            found = self.conn.execute(PLAIN_CREATE, parameters).fetchall()
            order_id: UUID = found[0][0]
            self.conn.execute(PLAIN_EVENT, (order_id, 1, "created", None))
        return order_id

    def update(self, order_id: UUID, seq: int, before: str, after: str, driver: str) -> None:
        """Update an order's state, and insert the event."""
        with self.conn.transaction():
            parameters = (after, driver, after == "delivered", order_id, before)
            if not self.conn.execute(PLAIN_UPDATE, parameters).fetchall():
                raise ValueError(f"{order_id} is not {before}")
            self.conn.execute(PLAIN_EVENT, (order_id, seq, after, driver))
