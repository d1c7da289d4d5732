"""Storage per fix, plain and packed: `python -m bench.history [--drivers 40]`.

Recorded routes (goal_delivery_agents: delivery couriers, a fix every 5 s) are joined into days of
7,200 fixes and stored in order of arrival. The recordings contain no accuracy, battery or delay:
these are random (accuracy a random walk between 3 and 30 m in steps of 0.1 m). Then the day is
packed as by `./run compact`. Prints one JSON object: bytes per fix of the plain table and of the
chunks, with indexes and TOAST; µs of the server's CPU to pack and to read a fix.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from itertools import islice
from typing import Any

import psycopg

from bench.fleet_database import running_database
from bench.measure import spread
from bench.process_cpu import thread_cpu_us
from bench.recordings.traces import TraceFix, goal_rows, read_trace
from doorstep.store.compaction import Compactor
from ops.servers.postgres import PASSWORD

FIXES_A_DAY = 7200
TRACCAR_BYTES = 301  # per position of Traccar 6.13 with indexes, measured separately
DAY = datetime.now(tz=UTC).date() - timedelta(days=10)
MORNING = datetime.combine(DAY, time(7), UTC)
COLUMNS = (
    "driver_id, fix_at, boot, seq, received_at, lon_deg, lat_deg, accuracy_m, speed_mps,"
    " heading_deg, battery"
)
PARTITION = f"fix_history_{DAY:%Y%m%d}"
SIZES = "SELECT pg_total_relation_size(%s), pg_indexes_size(%s)"
ALL_OF = "SELECT count(*), sum(lon_deg) FROM fix_history__between_v1(%s, %s, %s)"
SOME_OF = """
    SELECT fix_at, received_at, lon_deg, lat_deg, accuracy_m, speed_mps, heading_deg
    FROM fix_history__between_v1(%s, %s, %s) WHERE quarantine IS NULL ORDER BY fix_at, boot, seq
"""


def endless_route(rng: random.Random) -> Iterator[TraceFix]:
    """The recorded runs in random order, without end."""
    runs = sorted(goal_rows())
    at_s = MORNING.timestamp()
    while True:
        fixes = read_trace(f"goal+speed/{rng.choice(runs)}").fixes
        for fix in fixes:
            yield replace(fix, fix_s=at_s + fix.fix_s - fixes[0].fix_s)
        at_s += fixes[-1].fix_s - fixes[0].fix_s + 5


def rows_of(driver_id: str, rng: random.Random) -> Iterator[tuple[object, ...]]:
    """The rows of a driver's day in fix_history."""
    accuracy_m = 8.0
    for seq, fix in enumerate(islice(endless_route(rng), FIXES_A_DAY), 1):
        accuracy_m = min(30.0, max(3.0, accuracy_m + rng.gauss(0, 1.2)))
        fix_at = fix.at.replace(microsecond=rng.randrange(0, 200) * 1000)  # a phone's ms
        yield (
            driver_id,
            fix_at,
            "k3Jx9QpA",
            seq,
            fix_at + timedelta(milliseconds=max(20, rng.gauss(180, 60))),
            round(fix.place.lon_deg, 7),
            round(fix.place.lat_deg, 7),
            round(accuracy_m, 1),
            round(fix.speed_mps or 0.0, 2),
            float(rng.randrange(360)) if (fix.speed_mps or 0.0) > 0.5 else None,
            round(0.95 - seq / 9000, 2),
        )


def fill(conn: psycopg.Connection[Any], drivers: list[str], rng: random.Random) -> int:
    """Store a day of every driver, interleaved in order of arrival."""
    conn.execute("SELECT fix_history__ensure_partitions_v1(%s, %s)", [DAY, DAY])
    routes = [rows_of(one, rng) for one in drivers]
    count = 0
    with conn.cursor().copy(f"COPY fix_history ({COLUMNS}) FROM STDIN") as copy:
        for batch in zip(*routes, strict=True):
            for row in batch:
                copy.write_row(row)
                count += 1
    conn.execute(f"VACUUM ANALYZE {PARTITION}".encode())
    return count


def read_cost(
    conn: psycopg.Connection[Any], drivers: list[str], rounds: int
) -> dict[str, dict[str, float]]:
    """µs of CPU per fix for whole days, and ms of CPU for half an hour of one driver."""
    ends = (MORNING, MORNING + timedelta(hours=12))
    half = (MORNING + timedelta(hours=3), MORNING + timedelta(hours=3.5))

    def whole() -> None:
        for one in drivers:
            conn.execute(ALL_OF, [one, *ends])

    def some() -> None:
        for one in drivers * 5:
            conn.execute(SOME_OF, [one, *half]).fetchall()

    fixes, requests = len(drivers) * FIXES_A_DAY, len(drivers) * 5
    return {
        "us_per_fix_of_a_day": spread([cpu_us(conn, whole) / fixes for _ in range(rounds)]),
        "ms_per_half_hour": spread([cpu_us(conn, some) / 1e3 / requests for _ in range(rounds)]),
    }


def cpu_us(conn: psycopg.Connection[Any], work: Callable[[], object]) -> float:
    """CPU time of the session's server process during `work`."""
    before_us = thread_cpu_us(conn.info.backend_pid)
    work()
    return thread_cpu_us(conn.info.backend_pid) - before_us


def sizes(conn: psycopg.Connection[Any], table: str, fixes: int) -> dict[str, float]:
    """Bytes per fix of a table in all, and of its indexes."""
    row = conn.execute(SIZES, [table, table]).fetchone()
    assert row is not None
    return {"all": round(row[0] / fixes, 2), "indexes": round(row[1] / fixes, 2)}


def measure(conn: psycopg.Connection[Any], drivers: list[str], rounds: int) -> dict[str, Any]:
    """Fill, read, pack, read again."""
    fixes = fill(conn, drivers, random.Random(5))
    plain = {"bytes_per_fix": sizes(conn, PARTITION, fixes), **read_cost(conn, drivers, rounds)}
    compactor = Compactor(conn)
    plan = compactor.plan(None)
    began_us = thread_cpu_us(conn.info.backend_pid)
    done = compactor.run(plan)
    pack_us = thread_cpu_us(conn.info.backend_pid) - began_us
    if (done.fixes, done.still_there) != (fixes, 0):
        raise SystemExit(f"{done.fixes} of {fixes} packed, {done.still_there} days left")
    conn.execute("VACUUM ANALYZE fix_chunk")
    row = conn.execute("SELECT sum(length(encoded)) FROM fix_chunk").fetchone()
    assert row is not None
    packed = {
        "bytes_per_fix": sizes(conn, "fix_chunk", fixes),
        "coded_bytes_per_fix": round(row[0] / fixes, 2),
        "fixes_per_chunk": round(fixes / done.chunks),
        "us_to_pack_and_compare": round(pack_us / fixes, 2),
        **read_cost(conn, drivers, rounds),
    }
    ratio = plain["bytes_per_fix"]["all"] / packed["bytes_per_fix"]["all"]
    return {
        "fixes": fixes,
        "plain": plain,
        "packed": packed,
        "plain_to_packed": round(ratio, 1),
        "traccar_bytes_per_position": TRACCAR_BYTES,
    }


def main() -> int:
    """Run the benchmark and print its result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--drivers", type=int, default=40, help="of 7,200 fixes each (40)")
    parser.add_argument("--rounds", type=int, default=3, help="of each reading (3)")
    options = parser.parse_args()
    drivers = [f"driver-{k:06d}" for k in range(options.drivers)]
    with running_database() as cluster:
        url = cluster.url("doorstep_owner", PASSWORD)
        options_text = "-c search_path=doorstep,public -c jit=off"
        with psycopg.connect(url, autocommit=True, options=options_text) as conn:
            json.dump(measure(conn, drivers, options.rounds), sys.stdout, indent=2)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
