"""PostgreSQL's CPU per fix beside a bare COPY and INSERT: `python -m bench.write_path`.

Starts a temporary cluster, durable as in production, with a fleet of which a share has an open
order. Batches of one and of five fixes per driver, in random order of drivers, go through
record_fixes() and, the same rows, through one COPY and one INSERT into a plain table with the
columns and the key of fix_history. The four variants are interleaved batch by batch. Prints one
JSON object: µs of the backend's CPU per fix and bytes of WAL, and their ratios to the bare chain.
`--perf FILE` records a profile of the backend with perf.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections.abc import Callable
from statistics import median
from typing import Any

import psycopg

from bench.fleet_database import Fleet, running_fleet, write_batch
from bench.measure import spread
from bench.process_cpu import thread_cpu_us
from bench.record_fixes import explain_from_now, hot_share, update_counts, wal_position
from doorstep.store.records import INCOMING_TYPES, IncomingRow

CREATE_BARE = """
CREATE TABLE bare_history (LIKE fix_history INCLUDING DEFAULTS,
    PRIMARY KEY (driver_id, fix_at, boot, seq));
INSERT INTO bare_history SELECT * FROM fix_history ORDER BY recorded_at;
CREATE TEMP TABLE incoming_bare (n int4, driver_id text COLLATE "C", boot text COLLATE "C",
    seq int8, fix_at timestamptz, received_at timestamptz, lon_deg float8, lat_deg float8,
    accuracy_m float8, speed_mps float8, heading_deg float8, altitude_m float8, battery float8,
    reason text) ON COMMIT DELETE ROWS
"""
COPY_BARE = "COPY incoming_bare FROM STDIN (FORMAT binary)"
INSERT_BARE = """
INSERT INTO bare_history (driver_id, fix_at, boot, seq, received_at, lon_deg, lat_deg, accuracy_m,
    speed_mps, heading_deg, altitude_m, battery)
SELECT driver_id, fix_at, boot, seq, received_at, lon_deg, lat_deg, accuracy_m, speed_mps,
    heading_deg, altitude_m, battery
FROM incoming_bare ON CONFLICT DO NOTHING
"""
Write = Callable[[psycopg.Connection[Any], list[IncomingRow]], float]


def write_bare(conn: psycopg.Connection[Any], rows: list[IncomingRow]) -> float:
    """Write a batch with one COPY and one INSERT; return the server's CPU time in µs per fix."""
    pid = conn.info.backend_pid
    before_us = thread_cpu_us(pid)
    with conn.cursor() as cursor:
        with cursor.copy(COPY_BARE) as copy:
            copy.set_types(INCOMING_TYPES)
            for row in rows:
                copy.write_row(row)
        cursor.execute(INSERT_BARE)
    conn.commit()
    return (thread_cpu_us(pid) - before_us) / len(rows)


def measure(ours: psycopg.Connection[Any], fleet: Fleet, options: argparse.Namespace) -> Any:
    """Write the batches, and return the figures per number of fixes of a driver in a batch."""
    conn = psycopg.connect(ours.info.dsn, password=ours.info.password)
    conn.execute("SET search_path = doorstep, public")
    conn.execute(CREATE_BARE)
    conn.commit()
    variants: dict[str, tuple[psycopg.Connection[Any], Write]] = {
        "record_fixes": (ours, write_batch),
        "bare": (conn, write_bare),
    }
    figures: dict[tuple[int, str], tuple[list[float], list[float]]] = {
        (each, name): ([], []) for each in options.each for name in variants
    }
    for k in range(options.batches):
        for each in options.each:
            rows = fleet.batch(options.batch, each)
            for name in variants if k % 2 else reversed(variants):
                on, write = variants[name]
                at = wal_position(on)
                costs_us, wal_bytes = figures[each, name]
                costs_us.append(write(on, rows))
                wal_bytes.append((wal_position(on) - at) / len(rows))
    conn.close()
    return {
        str(each): _compared({name: figures[each, name] for name in variants})
        for each in options.each
    }


def _compared(figures: dict[str, tuple[list[float], list[float]]]) -> dict[str, Any]:
    ours, bare = figures["record_fixes"], figures["bare"]
    return {
        "cpu_us_per_fix": {name: spread(costs) for name, (costs, _) in figures.items()},
        "wal_bytes_per_fix": {name: round(median(wal)) for name, (_, wal) in figures.items()},
        "ratio": {
            "min": round(min(ours[0]) / min(bare[0]), 2),
            "median": round(median(ours[0]) / median(bare[0]), 2),
            # of each pair of batches: what disturbs one of them disturbs few pairs
            "median_of_pairs": round(
                median(o / b for o, b in zip(ours[0], bare[0], strict=True)), 2
            ),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drivers", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=5_000)
    parser.add_argument("--each", type=int, nargs="+", default=[1, 5], help="fixes of a driver")
    parser.add_argument("--orders", type=float, default=0.3, help="share with an open order")
    parser.add_argument("--batches", type=int, default=40, help="of each variant")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--perf", metavar="FILE", help="record the backend's profile here")
    parser.add_argument("--explain", action="store_true", help="print the last batches' plans")
    options = parser.parse_args()
    with running_fleet(options.drivers, options.orders, options.seed) as (conn, fleet):
        before = update_counts(conn)
        profiler = None
        if options.perf:
            command = ["perf", "record", "-q", "-g", "-F", "2000", "-o", options.perf, "-p"]
            profiler = subprocess.Popen([*command, str(conn.info.backend_pid)])
        found = measure(conn, fleet, options)
        if profiler:
            profiler.terminate()
            profiler.wait()
        result = {
            "drivers": options.drivers,
            "batch": options.batch,
            "batches": options.batches,
            "fixes_of_a_driver": found,
            "hot": hot_share(conn, before),
            "load_average": os.getloadavg()[0],
        }
        if options.explain:
            explain_from_now(conn)
            for each in options.each:
                write_batch(conn, fleet.batch(options.batch, each))
        print(json.dumps(result))


if __name__ == "__main__":
    main()
