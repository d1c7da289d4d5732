"""CPU time of record_fixes_v1 per fix: `python -m bench.record_fixes [--batch 500 2500 5000]`.

Starts a temporary cluster, durable as in production, with a fleet of which a share has an open
order, and writes batches of one fix per driver through record_fixes(), the sizes interleaved.
Prints one JSON object: per size the minimum, median and maximum µs of the server's CPU per fix (on
a busy machine the minimum is the most reliable), the bytes of WAL, and the share of HOT updates.
`--explain` prints the plans of the last batch.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from bench.measure import spread, stop
from bench.process_cpu import thread_cpu_us
from doorstep.store import admin, fix_writer
from doorstep.store.records import IncomingRow
from ops.servers.postgres import PASSWORD
from ops.stack.addresses import any_free_port
from ops.stack.postgres import PostgresCluster
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


def write_batch(conn: psycopg.Connection[Any], rows: list[IncomingRow]) -> float:
    """Write a batch and commit it; return the server's CPU time in µs per fix."""
    pid = conn.info.backend_pid
    before_us = thread_cpu_us(pid)
    refused = fix_writer.record_fixes(conn, rows)
    conn.commit()
    if refused:
        raise ValueError(f"{len(refused)} fixes were not committed: {refused[0]}")
    return (thread_cpu_us(pid) - before_us) / len(rows)


def wal_position(conn: psycopg.Connection[Any]) -> int:
    """The WAL position of the server, in bytes."""
    row = conn.execute("SELECT (pg_current_wal_insert_lsn() - '0/0')::int8").fetchone()
    conn.commit()
    return int(row[0]) if row else 0


def prepare(conn: psycopg.Connection[Any], fleet: Fleet, orders: int) -> None:
    """Register the fleet and give the first drivers an open order each."""
    admin.register_drivers(conn, [admin.NewDriver(name, name, None) for name in fleet.ids])
    admin.register_service_area(conn, "city", west=11.1, south=43.7, east=11.4, north=43.9)
    places = [fleet.random_place() for _ in range(RESTAURANTS)]
    admin.register_restaurants(
        conn, [admin.NewRestaurant(k + 1, "r", *place) for k, place in enumerate(places)]
    )
    conn.execute(PREPARE.format(orders=orders).encode())
    conn.commit()
    conn.autocommit = True
    conn.execute("VACUUM ANALYZE")
    conn.autocommit = False


def warm_up(conn: psycopg.Connection[Any], fleet: Fleet) -> None:
    """Write one fix of every driver, so that every boot exists."""
    for _ in range(0, len(fleet.ids), WARM_UP_BATCH):
        write_batch(conn, fleet.batch(min(WARM_UP_BATCH, len(fleet.ids))))


def hot_share(conn: psycopg.Connection[Any], before: dict[str, tuple[int, int]]) -> dict[str, Any]:
    """The share of HOT updates since `before`."""
    after = update_counts(conn)
    return {
        name: round((hot - before[name][1]) / max(1, updated - before[name][0]), 3)
        for name, (updated, hot) in after.items()
    }


def update_counts(conn: psycopg.Connection[Any]) -> dict[str, tuple[int, int]]:
    """Read the counts of updates and of HOT updates per table."""
    conn.execute("SELECT pg_stat_force_next_flush()")
    conn.commit()
    rows = conn.execute(
        "SELECT relname, n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables"
        " WHERE relname IN ('driver_state', 'boot_seqs')"
    ).fetchall()
    conn.commit()
    return {name: (updated, hot) for name, updated, hot in rows}


def explain_from_now(conn: psycopg.Connection[Any]) -> None:
    """Print the plan of every statement that takes a millisecond or more."""
    for setting in ("log_min_duration = 1", "log_nested_statements = on", "log_analyze = on"):
        conn.execute(f"SET auto_explain.{setting}".encode())
    conn.execute("SET auto_explain.log_level = notice")
    conn.add_notice_handler(lambda notice: print(notice.message_primary, file=sys.stderr))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drivers", type=int, default=100_000)
    parser.add_argument("--batch", type=int, nargs="+", default=[5_000], metavar="FIXES")
    parser.add_argument("--orders", type=float, default=0.3, help="share with an open order")
    parser.add_argument("--batches", type=int, default=60, help="of each size")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--explain", action="store_true")
    options = parser.parse_args()
    fleet = Fleet(options.drivers, options.seed)
    with (
        running_database() as cluster,
        psycopg.connect(
            cluster.superuser_url("food_delivery"), options="-c search_path=doorstep,public"
        ) as conn,
    ):
        prepare(conn, fleet, round(options.drivers * options.orders))
        warm_up(conn, fleet)
        costs_us: dict[int, list[float]] = {size: [] for size in options.batch}
        wal_bytes: dict[int, list[float]] = {size: [] for size in options.batch}
        before = update_counts(conn)
        for k in range(options.batches):
            if options.explain and k == options.batches - 1:
                explain_from_now(conn)
            for size in options.batch:
                at = wal_position(conn)
                costs_us[size].append(write_batch(conn, fleet.batch(size)))
                wal_bytes[size].append((wal_position(conn) - at) / size)
        result = {
            "drivers": options.drivers,
            "batches": options.batches,
            "server_cpu_us_per_fix": {size: spread(costs) for size, costs in costs_us.items()},
            "wal_bytes_per_fix": {size: spread(written) for size, written in wal_bytes.items()},
            "hot": hot_share(conn, before),
            "load_average": os.getloadavg()[0],
        }
        print(json.dumps(result))


if __name__ == "__main__":
    main()
