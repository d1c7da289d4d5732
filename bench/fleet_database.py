"""A database with a fleet, for the benchmarks of the database.

Starts a temporary cluster, durable as in production. A share of the drivers has an open order.
"""

from __future__ import annotations

import random
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from bench.measure import stop
from bench.process_cpu import thread_cpu_us
from data import BUNDLED_CITY
from doorstep.store import admin, fix_writer
from doorstep.store.records import IncomingRow
from ops.servers.postgres import PASSWORD
from ops.stack.addresses import any_free_port
from ops.stack.postgres import DATABASE, PostgresCluster
from sql.migrate import upgrade

WEST, SOUTH, WIDTH_DEG, HEIGHT_DEG = 11.20, 43.75, 0.10, 0.05
RESTAURANTS = 800  # as in PREPARE
WARM_UP_BATCH = 5_000
STEP_DEG = 2e-4  # about 20 m in 4 s

PREPARE = """
UPDATE driver_state SET duty = 'on_duty', state = 'available';
INSERT INTO orders (restaurant_id, lon_deg, lat_deg, policy_id)
SELECT 1 + g % 800, 11.2 + random() * 0.1, 43.75 + random() * 0.05, 1
FROM generate_series(1, {orders}) g;
UPDATE orders SET state = 'confirmed';
INSERT INTO assignment (order_id, assignment_no, driver_id, assigned_at, policy_id,
    restaurant_lon_deg, restaurant_lat_deg, customer_lon_deg, customer_lat_deg)
SELECT o.order_id, 1, 'driver-' || lpad((row_number() OVER () - 1)::text, 6, '0'),
    now() - interval '1 hour', 1, r.lon_deg, r.lat_deg, o.lon_deg, o.lat_deg
FROM orders o JOIN restaurant r USING (restaurant_id);
UPDATE orders SET state = 'assigned', assignment_no = 1;
"""


class Fleet:
    """Drivers on a random walk, each with its next seq."""

    def __init__(self, drivers: int, seed: int) -> None:
        self.random = random.Random(seed)
        self.ids = [f"driver-{k:06d}" for k in range(drivers)]
        self.places = [self.random_place() for _ in self.ids]
        self.seqs = [0] * drivers
        self.order = self.random.sample(range(drivers), drivers)
        self.next = 0
        self.start_at = datetime.now(tz=UTC) - timedelta(minutes=50)

    def random_place(self) -> tuple[float, float]:
        """A place in the fleet's city."""
        return (WEST + self.random.random() * WIDTH_DEG, SOUTH + self.random.random() * HEIGHT_DEG)

    def batch(self, size: int, each: int = 1) -> list[IncomingRow]:
        """Make `size` fixes: the next `each` of every next driver."""
        rows: list[IncomingRow] = []
        for n in range(size):
            k = self.order[self.next // each % len(self.order)]
            self.next += 1
            self.seqs[k] += 1
            lon_deg, lat_deg = self.places[k]
            lon_deg += self.random.gauss(0, STEP_DEG)
            lat_deg += self.random.gauss(0, STEP_DEG)
            self.places[k] = (lon_deg, lat_deg)
            fix_at = self.start_at + timedelta(seconds=4 * self.seqs[k], milliseconds=n % 1000)
            received_at = fix_at + timedelta(milliseconds=300)
            identity = (n, self.ids[k], "b0123456789abcdef", self.seqs[k], fix_at, received_at)
            rows.append((*identity, lon_deg, lat_deg, 5.0, 4.2, 90.0, None, 0.8, None))
        return rows


@contextmanager
def running_database() -> Iterator[PostgresCluster]:
    """Run a durable cluster with a migrated database; erase it at the end, on SIGTERM too."""
    signal.signal(signal.SIGTERM, stop)
    paths = Path(tempfile.mkdtemp(prefix="doorstep-bench-"))
    paths.chmod(0o711)
    config = {"session_preload_libraries": "auto_explain"}
    cluster = PostgresCluster(paths / "data", any_free_port(), PASSWORD, config=config)
    try:
        cluster.start()
        cluster.create_database(PASSWORD)
        upgrade(cluster.url("doorstep_owner", PASSWORD))
        yield cluster
    finally:
        cluster.erase()
        shutil.rmtree(paths, ignore_errors=True)


def connect_superuser(
    cluster: PostgresCluster, database: str = DATABASE, *, autocommit: bool = False
) -> psycopg.Connection[Any]:
    """Open a session of the superuser, whom no role's limits bind."""
    return psycopg.connect(
        cluster.superuser_url(database),
        options="-c search_path=doorstep,public",
        autocommit=autocommit,
    )


def prepare(conn: psycopg.Connection[Any], fleet: Fleet, share: float) -> None:
    """Register the fleet and give a share of the drivers, the first ones, an open order each."""
    admin.register_drivers(conn, [admin.NewDriver(name, name, None) for name in fleet.ids])
    admin.register_service_area(conn, BUNDLED_CITY, west=11.1, south=43.7, east=11.4, north=43.9)
    places = [fleet.random_place() for _ in range(RESTAURANTS)]
    admin.register_restaurants(
        conn, [admin.NewRestaurant(k + 1, "r", *place) for k, place in enumerate(places)]
    )
    orders = round(len(fleet.ids) * share)
    conn.execute(PREPARE.format(orders=orders).encode())
    conn.commit()
    conn.autocommit = True
    conn.execute("VACUUM ANALYZE")
    conn.autocommit = False


def warm_up(conn: psycopg.Connection[Any], fleet: Fleet) -> None:
    """Write one fix of every driver, so that every boot exists."""
    for _ in range(0, len(fleet.ids), WARM_UP_BATCH):
        write_batch(conn, fleet.batch(min(WARM_UP_BATCH, len(fleet.ids))))


def write_batch(conn: psycopg.Connection[Any], rows: list[IncomingRow]) -> float:
    """Write a batch and commit it; return the server's CPU time in µs per fix."""
    pid = conn.info.backend_pid
    before_us = thread_cpu_us(pid)
    refused = fix_writer.record_fixes(conn, rows)
    conn.commit()
    if refused:
        raise ValueError(f"{len(refused)} fixes were not committed: {refused[0]}")
    return (thread_cpu_us(pid) - before_us) / len(rows)


@contextmanager
def running_fleet(
    drivers: int, share: float, seed: int
) -> Iterator[tuple[psycopg.Connection[Any], Fleet]]:
    """Run a database with a fleet that has written fixes; yield a session and the fleet."""
    fleet = Fleet(drivers, seed)
    with running_database() as cluster, connect_superuser(cluster) as conn:
        prepare(conn, fleet, share)
        warm_up(conn, fleet)
        yield conn, fleet
