"""CPU time of an order's commands: `python -m bench.commands`.

One temporary cluster, durable as in production, with a fleet of which a share has an open order.
The entry functions are called as the services call them, one statement each: create, confirm,
assign (to a named driver, and to the nearest one), pick up and deliver. Another session writes what
a simple application would: an INSERT or UPDATE of an orders table with the same indexes, and a row
of events, in a transaction. The two are interleaved, a round of `--orders` each.

The figure is the backend's CPU time (user and system, commit included) per command; `ms` is the
response time. `deliver after a ride` recomputes evidence over `RIDE_FIXES` stored fixes. `first
call` is that of a new session, which reads the catalog and plans every statement. The last line
is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import count
from typing import Any, NamedTuple
from uuid import UUID

import psycopg

from bench.fleet_database import (
    RESTAURANTS,
    Fleet,
    connect_superuser,
    prepare,
    running_database,
    warm_up,
)
from bench.measure import Measurements, percentiles
from bench.plain_commands import PLAIN_TABLES, PlainTables
from bench.process_cpu import thread_cpu_us
from doorstep.credentials import token_sha256
from doorstep.store.pool import connect
from ops.servers.postgres import PASSWORD
from ops.stack.postgres import DATABASE, OWNER, PostgresCluster
from sql import query
from sql.migrate import PASSWORD_VARIABLES, set_passwords

SEED = 1
OURS, PLAIN = "doorstep", "plain tables"
STAFF = "bench"
RIDE_FIXES = 300  # 20 min, one every 4 s
# Each command, and what it is compared with.
COMMANDS = {
    "create": (OURS, PLAIN),
    "confirm": (OURS, PLAIN),
    "assign": (OURS, PLAIN),
    "pick up": (OURS, PLAIN),
    "deliver": (OURS, PLAIN),
    "assign nearest": (OURS,),
    "deliver after a ride": (OURS,),
}

# A ride: a fourth of its fixes at the restaurant, a half on the way, a fourth at the door.
TURN_BACK = """
UPDATE assignment SET assigned_at = now() - (4 * %(fixes)s + 10) * interval '1 s'
WHERE order_id = ANY (%(order_ids)s) AND ended_at IS NULL
"""
RIDE = """
INSERT INTO fix_history (driver_id, fix_at, boot, seq, received_at, lon_deg, lat_deg, accuracy_m,
    speed_mps)
SELECT a.driver_id, t.fix_at, 'ride', extract(epoch FROM t.fix_at)::int8,
    t.fix_at + interval '300 ms',
    a.restaurant_lon_deg + (a.customer_lon_deg - a.restaurant_lon_deg) * p.share,
    a.restaurant_lat_deg + (a.customer_lat_deg - a.restaurant_lat_deg) * p.share,
    5, CASE WHEN p.share > 0 AND p.share < 1 THEN 4.2 ELSE 0.3 END
FROM assignment a, generate_series(1, %(fixes)s) n
CROSS JOIN LATERAL (SELECT least(greatest(2.0 * n / %(fixes)s - 0.5, 0), 1)) p (share)
CROSS JOIN LATERAL (SELECT a.assigned_at + 4 * n * interval '1 s') t (fix_at)
WHERE a.order_id = ANY (%(order_ids)s) AND a.ended_at IS NULL
"""
CHOSEN = """
SELECT order_id, driver_id FROM assignment
WHERE order_id = ANY (%(order_ids)s) AND ended_at IS NULL
"""
# The drivers of a round: free ones, spread over the fleet.
FREE_DRIVERS = """
SELECT driver_id FROM driver_state WHERE state = 'available' ORDER BY md5(driver_id)
OFFSET %(skip)s LIMIT %(count)s
"""
DRIVERS_LOG_IN = """
INSERT INTO access_token (token_sha256, role, driver_id)
SELECT sha256(convert_to(driver_id, 'UTF8')), 'driver', driver_id FROM driver;
UPDATE limits SET nearest_max_age_s = 86400;  -- the run may take longer than 5 min
"""

Session = psycopg.Connection[Any]


class Doorstep:
    """Sessions of the services that command orders."""

    def __init__(self, cluster: PostgresCluster) -> None:
        self.staff = connect(cluster.url("tracking_api", PASSWORD))
        self.driver = connect(cluster.url("driver_api", PASSWORD))
        self.sessions = (self.staff, self.driver)
        for session in self.sessions:
            session.autocommit = True  # as the services' pools

    def create(self, number: int, place: tuple[float, float]) -> UUID:
        """Create an order."""
        parameters = {
            "restaurant_id": 1 + number % RESTAURANTS,
            "lon_deg": place[0],
            "lat_deg": place[1],
            "token_sha256": token_sha256(f"order-{number}"),
            "policy_id": None,
            "idempotency_key": f"key-{number}",
            "customer_name": "A customer",
            "who": STAFF,
            "pickup": None,
            "details": None,
        }
        [row] = self._call(self.staff, "create_order", parameters)
        order_id: UUID = row[0]
        return order_id

    def command(self, order_id: UUID, command: str, driver_id: str | None = None) -> None:
        """Apply a command of staff."""
        parameters = {
            "order_id": order_id,
            "command": command,
            "name": STAFF,
            "driver_id": driver_id,
            "idempotency_key": f"{command}-{order_id}",
        }
        self._call(self.staff, "command_order_as_staff", parameters)

    def drive(self, order_id: UUID, command: str, driver_id: str) -> None:
        """Apply a command of the driver."""
        parameters = {
            "order_id": order_id,
            "command": command,
            "token_sha256": token_sha256(driver_id),
            "idempotency_key": f"{command}-{order_id}",
        }
        self._call(self.driver, "command_own_order", parameters)

    def _call(self, conn: Session, name: str, parameters: dict[str, object]) -> list[Any]:
        text = query(name, "queries/driver_api.sql") if conn is self.driver else query(name)
        return conn.execute(text, parameters).fetchall()


class Block(NamedTuple):
    """A command of one round: its name, and what applies it to the k-th order of the round."""

    command: str
    call: Callable[[int], object]


def doorstep_round(
    of: Doorstep, owner: Session, fleet: Fleet, drivers: Sequence[str], numbers: Iterator[int]
) -> Iterator[Block]:
    """Take two orders per driver through all commands."""
    orders: list[UUID] = []
    nearest: list[UUID] = []

    def create(_k: int) -> None:
        orders.append(of.create(next(numbers), fleet.random_place()))

    yield Block("create", create)
    yield Block("confirm", lambda k: of.command(orders[k], "confirm"))
    yield Block("assign", lambda k: of.command(orders[k], "assign", drivers[k]))
    yield Block("pick up", lambda k: of.drive(orders[k], "pick_up", drivers[k]))
    yield Block("deliver", lambda k: of.drive(orders[k], "deliver", drivers[k]))

    for _ in drivers:
        nearest.append(of.create(next(numbers), fleet.random_place()))
        of.command(nearest[-1], "confirm")
    yield Block("assign nearest", lambda k: of.command(nearest[k], "assign"))
    owner.execute(TURN_BACK, {"order_ids": nearest, "fixes": RIDE_FIXES})
    owner.execute(RIDE, {"order_ids": nearest, "fixes": RIDE_FIXES})
    chosen = dict(owner.execute(CHOSEN, {"order_ids": nearest}).fetchall())
    for order_id in nearest:
        of.drive(order_id, "pick_up", chosen[order_id])
    yield Block(
        "deliver after a ride", lambda k: of.drive(nearest[k], "deliver", chosen[nearest[k]])
    )


def plain_round(
    of: PlainTables, fleet: Fleet, drivers: Sequence[str], numbers: Iterator[int]
) -> Iterator[Block]:
    """Take an order per driver through the plain counterparts of the commands."""
    orders: list[UUID] = []

    def create(_k: int) -> None:
        orders.append(of.create(next(numbers), fleet.random_place()))

    def updated(seq: int, before: str, after: str) -> Callable[[int], None]:
        return lambda k: of.update(orders[k], seq, before, after, drivers[k])

    yield Block("create", create)
    yield Block("confirm", updated(2, "created", "confirmed"))
    yield Block("assign", updated(3, "confirmed", "assigned"))
    yield Block("pick up", updated(4, "assigned", "picked_up"))
    yield Block("deliver", updated(5, "picked_up", "delivered"))


def measure(
    sessions: Sequence[Session], call: Callable[[int], Any], count: int
) -> tuple[float, list[float]]:
    """Run a block. Returns the backends' CPU time per call in µs, and each response time in ms."""
    pids = [session.info.backend_pid for session in sessions]
    before_us = sum(map(thread_cpu_us, pids))
    took_ms = []
    for k in range(count):
        began_s = time.perf_counter()
        call(k)
        took_ms.append((time.perf_counter() - began_s) * 1e3)
    return (sum(map(thread_cpu_us, pids)) - before_us) / count, took_ms


def prepare_database(cluster: PostgresCluster, drivers: int, share: float) -> Fleet:
    """Fill the database: a current fix of every driver, open orders, tokens, plain tables."""
    set_passwords(
        cluster.url(OWNER, PASSWORD, DATABASE), dict.fromkeys(PASSWORD_VARIABLES, PASSWORD)
    )
    fleet = Fleet(drivers, SEED)
    with connect_superuser(cluster) as conn:
        prepare(conn, fleet, share)
        fleet.start_at = datetime.now(tz=UTC)
        warm_up(conn, fleet)
        conn.execute(DRIVERS_LOG_IN)
        conn.execute(PLAIN_TABLES)
        conn.commit()
        conn.autocommit = True
        conn.execute("VACUUM ANALYZE")
        conn.execute("CHECKPOINT")
    return fleet


def run(cluster: PostgresCluster, fleet: Fleet, rounds: int, orders: int) -> dict[str, Any]:
    """Measure `rounds` rounds of each variant, after one that warms up the sessions."""
    numbers = count(time.time_ns())
    ours, plain = Doorstep(cluster), PlainTables(cluster)
    owner = connect_superuser(cluster, autocommit=True)
    parts = {
        name: Measurements(name, "µs of PostgreSQL", variants)
        for name, variants in COMMANDS.items()
    }
    responses: dict[str, list[float]] = {name: [] for name in COMMANDS}
    first_call_us: dict[str, float] = {}
    for k in range(-2, rounds):  # the first call of each command, then a warm-up
        size = 1 if k == -2 else orders
        drivers = [row[0] for row in owner.execute(FREE_DRIVERS, {"skip": 0, "count": size})]
        for block in doorstep_round(ours, owner, fleet, drivers, numbers):
            cost_us, took_ms = measure(ours.sessions, block.call, size)
            if k == -2:
                first_call_us[block.command] = round(cost_us)
            if k >= 0:
                parts[block.command].add(OURS, cost_us)
                responses[block.command] += took_ms
        for block in plain_round(plain, fleet, drivers, numbers):
            cost_us, _took_ms = measure(plain.sessions, block.call, size)
            if k >= 0:
                parts[block.command].add(PLAIN, cost_us)
    return {
        "name": "commands",
        "runs": rounds,
        "unit": "µs of PostgreSQL per command",
        "parts": {name: one.part() for name, one in parts.items()},
        "ms": {name: percentiles(took) for name, took in responses.items()},
        "first_call_us": first_call_us,
        "load_average": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drivers", type=int, default=100_000)
    parser.add_argument("--open", type=float, default=0.3, help="share with an open order")
    parser.add_argument("--orders", type=int, default=100, help="per round and command")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with running_database() as cluster:
        fleet = prepare_database(cluster, options.drivers, options.open)
        print(json.dumps(run(cluster, fleet, options.rounds, options.orders)))


if __name__ == "__main__":
    main()
