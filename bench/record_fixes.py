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
import sys
from typing import Any

import psycopg

from bench.fleet_database import running_fleet, write_batch
from bench.measure import spread


def wal_position(conn: psycopg.Connection[Any]) -> int:
    """The WAL position of the server, in bytes."""
    row = conn.execute("SELECT (pg_current_wal_insert_lsn() - '0/0')::int8").fetchone()
    conn.commit()
    return int(row[0]) if row else 0


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
    with running_fleet(options.drivers, options.orders, options.seed) as (conn, fleet):
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
