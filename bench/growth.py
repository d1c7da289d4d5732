"""CPU time per fix as the fleet and the history grow: `python -m bench.growth`.

Two curves, each in one run on one temporary cluster, durable as in production: the server's CPU
per fix with 1,000, 10,000 and 100,000 drivers, and with an empty history and `--rows` more rows in
the partitions of earlier days. The databases of a curve are interleaved batch by batch, so that a
busy machine slows them alike. Meanwhile a reader runs the queries of GET /track and GET
/drivers/nearest, through tracking_api, and with `--rows` those of a driver's history: half an hour,
and a page of an export. There the empty history holds the drivers that are read. Prints one JSON
object; a ratio compares the minimum with that of the curve's first point.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from bench.fleet_database import (
    HEIGHT_DEG,
    SOUTH,
    WEST,
    WIDTH_DEG,
    Fleet,
    connect_superuser,
    prepare,
    running_database,
    warm_up,
    write_batch,
)
from bench.measure import percentiles, spread
from ops.servers.postgres import PASSWORD
from ops.stack.postgres import DATABASE, OWNER, PostgresCluster
from sql.migrate import PASSWORD_VARIABLES, set_passwords, upgrade
from tracking_api.history.queries import HistoryStore
from tracking_api.stores import open_stores
from tracking_api.track.visibility import TrackLink

SEED = 1
BYTES_A_ROW = 260  # heap and key of a row, measured; the write-ahead log is bounded beside it
SPARE_BYTES = 10 * 2**30
CHUNK = 500_000
READ_DRIVERS = 50
HALF_HOUR = timedelta(minutes=30)
PAGE = 1_000  # fixes

FILL = """
INSERT INTO {partition} (driver_id, fix_at, boot, seq, received_at, lon_deg, lat_deg, accuracy_m,
    speed_mps, heading_deg, battery)
SELECT d.driver_id, at, 'b0000000000000000', n, at + interval '300 ms',
    -- a ride round a circle of 1 km at 3 m/s, for a fix every 12 s
    11.25 + 0.0124 * cos(n * 0.04) + random() * 1e-4,
    43.775 + 0.009 * sin(n * 0.04) + random() * 1e-4,
    5, 4.2, 90, 0.8
FROM (
    SELECT driver_id FROM driver ORDER BY driver_id OFFSET %(first)s LIMIT %(drivers)s
) d,
    generate_series(1, %(each)s) n,
    LATERAL (SELECT %(day)s::timestamptz + n * interval '1 day' / (%(each)s + 1)) t (at)
"""


class GrowthDatabase:
    """One database of a curve: its fleet, its writer's connection and its measurements."""

    def __init__(self, cluster: PostgresCluster, name: str, drivers: int, orders: float) -> None:
        self.cluster, self.name = cluster, name
        admin_url = cluster.url(OWNER, PASSWORD, name)
        if name != DATABASE:
            cluster.create_database(PASSWORD, name)
            upgrade(admin_url)
        set_passwords(admin_url, dict.fromkeys(PASSWORD_VARIABLES, PASSWORD))
        self.fleet = Fleet(drivers, SEED)
        self.conn = connect_superuser(cluster, name)
        prepare(self.conn, self.fleet, orders)
        warm_up(self.conn, self.fleet)
        found = self.conn.execute("SELECT order_id FROM orders LIMIT 3000").fetchall()
        self.order_ids: list[UUID] = [row[0] for row in found]
        self.conn.commit()
        self.costs_us: list[float] = []
        self.reads_ms: dict[str, list[float]] = {}
        self.filled_day: datetime | None = None

    def refresh_presence(self) -> None:
        """Write a current fix of every driver, so that GET /drivers/nearest finds them."""
        elapsed = timedelta(seconds=4 * max(self.fleet.seqs))
        self.fleet.start_at = datetime.now(tz=UTC) - elapsed
        warm_up(self.conn, self.fleet)

    def write(self, batch: int) -> None:
        """Write a batch."""
        self.costs_us.append(write_batch(self.conn, self.fleet.batch(batch)))

    def point(self) -> dict[str, Any]:
        """The measurements since the last point."""
        found = {
            "cpu_us_per_fix": spread(self.costs_us),
            "reads_ms": {name: percentiles(took) for name, took in self.reads_ms.items()},
        }
        self.costs_us, self.reads_ms = [], {}
        return found


class Reader(threading.Thread):
    """Reads orders and nearest drivers of a database until stopped."""

    def __init__(self, database: GrowthDatabase) -> None:
        super().__init__(name=f"reader of {database.name}")
        self.database = database
        self.ended = threading.Event()
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            asyncio.run(self._read())
        except BaseException as exc:  # noqa: BLE001 - a thread's boundary: raised again in stop()
            self.failure = exc

    def stop(self) -> None:
        """Stop reading. Re-raises the thread's exception."""
        self.ended.set()
        self.join()
        if self.failure is not None:
            raise self.failure

    async def _read(self) -> None:
        rng = random.Random(SEED)
        url, customer_url = (
            self.database.cluster.url(role, PASSWORD, self.database.name)
            for role in ("tracking_api", "customer")
        )
        async with open_stores(url, customer_url, 2) as stores:
            while not self.ended.is_set():
                link = TrackLink(rng.choice(self.database.order_ids))
                lon_deg = WEST + WIDTH_DEG * rng.random()
                lat_deg = SOUTH + HEIGHT_DEG * rng.random()
                found = await self._timed("GET /track", partial(stores.track.read_tracks, [link]))
                tracked = found.get(link)
                _now, near = await self._timed(
                    "GET /drivers/nearest",
                    partial(stores.drivers.read_nearest, lon_deg, lat_deg, 5),
                )
                if tracked is None or tracked.position is None or len(near) != 5:
                    raise ValueError(f"a read found too little: {tracked}, {near}")
                if self.database.filled_day is not None:
                    await self._read_history(stores.history, rng, self.database.filled_day)
                await asyncio.sleep(0.005)

    async def _read_history(self, history: HistoryStore, rng: random.Random, day: datetime) -> None:
        driver_id = rng.choice(self.database.fleet.ids[:READ_DRIVERS])
        since, end = day + rng.random() * timedelta(hours=12), day + timedelta(days=1)
        read = history.read_driver_history
        short = partial(read, driver_id, since, since + HALF_HOUR, PAGE)
        page = partial(read, driver_id, since, end, PAGE)
        if not await self._timed("GET /drivers/{id}/history", short):
            raise ValueError(f"{driver_id} has no history on {day}")
        await self._timed("a page of an export", page)

    async def _timed(self, name: str, ask: Callable[[], Awaitable[Any]]) -> Any:
        began_s = time.perf_counter()
        answer = await ask()
        self.database.reads_ms.setdefault(name, []).append((time.perf_counter() - began_s) * 1e3)
        return answer


def interleave(databases: list[GrowthDatabase], batch: int, batches: int) -> None:
    """Write batches to all databases, interleaved, while a reader queries each."""
    readers = [Reader(database) for database in databases]
    for database in databases:
        database.refresh_presence()
    for reader in readers:
        reader.start()
    try:
        for k in range(batches):
            for database in databases if k % 2 else reversed(databases):
                database.write(batch)
    finally:
        for reader in readers:
            reader.stop()


def fill(database: GrowthDatabase, rows: int, days: int, *, drivers: int) -> None:
    """Write the older rows of the first drivers: their share of `rows` in the days before."""
    first_day = datetime.now(tz=UTC).date() - timedelta(days=days + 1)
    conn = database.conn
    conn.execute("SELECT fix_history__ensure_partitions_v1(%s, %s)",
                 (first_day, first_day + timedelta(days=days - 1)))  # fmt: skip
    each = max(1, rows // days // len(database.fleet.ids))  # of a driver on a day
    at_once = max(1, CHUNK // each)
    written = 0
    for day in range(days):
        date = first_day + timedelta(days=day)
        for first in range(0, drivers, at_once):
            statement = FILL.format(partition=f"fix_history_{date:%Y%m%d}").encode()
            parameters = {
                "first": first,
                "drivers": min(at_once, drivers - first),
                "each": each,
                "day": date,
            }
            written += conn.execute(statement, parameters).rowcount
            conn.commit()
            print(f"\rolder rows: {written:,}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    conn.autocommit = True
    conn.execute("ANALYZE fix_history")
    conn.execute("CHECKPOINT")
    conn.autocommit = False
    database.filled_day = datetime.combine(date, datetime.min.time(), UTC)


def measure_drivers(sizes: list[int], options: argparse.Namespace) -> dict[int, Any]:
    """Measure with fleets of several sizes, each in a database of its own."""
    with running_database() as cluster:
        names = [DATABASE, *(f"fleet_{size}" for size in sizes[1:])]
        databases = [
            GrowthDatabase(cluster, name, size, options.orders)
            for name, size in zip(names, sizes, strict=True)
        ]
        interleave(databases, options.batch, options.batches)
        points = {size: database.point() for size, database in zip(sizes, databases, strict=True)}
        for database in databases:
            database.conn.close()
    return _with_ratios(points)


def measure_rows(options: argparse.Namespace) -> dict[str, Any]:
    """Measure two equal databases, one without and one with `--rows` older rows of history."""
    with running_database() as cluster:
        empty = GrowthDatabase(cluster, DATABASE, options.fleet, options.orders)
        full = GrowthDatabase(cluster, "filled", options.fleet, options.orders)
        free = shutil.disk_usage(cluster.data_dir).free
        if free < options.rows * BYTES_A_ROW + SPARE_BYTES:
            raise SystemExit(f"{options.rows:,} rows do not fit: {free / 2**30:.0f} GiB are free")
        fill(empty, options.rows, options.days, drivers=min(READ_DRIVERS, options.fleet))
        fill(full, options.rows, options.days, drivers=options.fleet)
        interleave([empty, full], options.batch, options.batches)
        size = full.conn.execute("SELECT pg_database_size(current_database())").fetchone()
        points = {"empty": empty.point(), f"{options.rows} rows": full.point()}
        for database in (empty, full):
            database.conn.close()
    return {**_with_ratios(points), "database_gib": round((size or [0])[0] / 2**30, 2)}


def _with_ratios(points: dict[Any, dict[str, Any]]) -> dict[Any, Any]:
    first = next(iter(points.values()))["cpu_us_per_fix"]
    for point in points.values():
        cost = point["cpu_us_per_fix"]
        point["ratio"] = {name: round(cost[name] / first[name], 2) for name in ("min", "median")}
    return points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drivers", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    parser.add_argument("--rows", type=int, default=5_000_000, help="of history; 0 leaves it out")
    parser.add_argument("--days", type=int, default=10, help="that hold the rows")
    parser.add_argument("--fleet", type=int, default=10_000, help="drivers of the rows' curve")
    parser.add_argument("--batch", type=int, default=5_000)
    parser.add_argument("--batches", type=int, default=40, help="for each point")
    parser.add_argument("--orders", type=float, default=0.3, help="share with an open order")
    options = parser.parse_args()
    result: dict[str, Any] = {"batch": options.batch, "batches": options.batches}
    if options.drivers:
        result["drivers"] = measure_drivers(options.drivers, options)
    if options.rows:
        result["rows"] = measure_rows(options)
    result["load_average"] = os.getloadavg()[0]
    print(json.dumps(result))


if __name__ == "__main__":
    main()
