"""What one hostile device costs the others: `python -m bench.attacks [--quota-burst N]`.

Starts a temporary cluster, durable as in production. Every batch holds `--others` fixes of ordinary
drivers, one each; each attack adds `--attack-fixes` of its own device. Batches with each of the
attacks and batches without one are interleaved, and a separate session reads the watermarks of what
each batch brought, as for acks:

    odd     only odd seqs
    voids   fixes and voids, alternating
    boots   each fix of a new boot
    flood   the next seqs, as fast as the others

Prints one JSON object. `due_to_commit_ms` is that of the ordinary drivers' fixes, which fall due
evenly within the `WAIT_MS` before their batch, as driver_events collects them; `batch_ms` is
without this wait. A ratio is to the batches without an attack. A large --quota-burst lets all fixes
of the attack reach the tables: the quota usually parks them.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from bench.fleet_database import Fleet, running_fleet
from bench.measure import percentiles, spread
from bench.process_cpu import thread_cpu_us
from doorstep.store import admin, fix_writer
from doorstep.store.records import IncomingRow

WAIT_MS = 250.0  # as in driver_events
PLACE = (11.25, 43.77, 5.0, 4.2, 90.0, None, 0.8)
NOWHERE = (None,) * 7
CALM = "no attack"

# (boot, seq, whether it is a void) of an attack's n-th fix, from 0
Nth = Callable[[int], tuple[str, int, bool]]
ATTACKS: dict[str, Nth] = {
    "odd": lambda n: ("b1", 2 * n + 1, False),
    "voids": lambda n: ("b1", n + 1, n % 2 == 1),
    "boots": lambda n: (f"b{n}", 1, False),
    "flood": lambda n: ("b1", n + 1, False),
}
SIZES = """
SELECT s.driver_id, b.boots, b.boot_bytes, k.blocks, k.block_bytes, q.parked
FROM unnest(%(attackers)s::text[]) AS s (driver_id)
CROSS JOIN LATERAL (SELECT count(*) AS boots, coalesce(sum(pg_column_size(t)), 0) AS boot_bytes
    FROM boot_seqs t WHERE t.driver_id = s.driver_id) b
CROSS JOIN LATERAL (SELECT count(*) AS blocks, coalesce(sum(pg_column_size(t)), 0) AS block_bytes
    FROM boot_seq_block t WHERE t.driver_id = s.driver_id) k
CROSS JOIN LATERAL (SELECT count(*) AS parked FROM parked_fix p
    WHERE p.driver_id = s.driver_id) q
"""


class Attack:
    """One hostile device."""

    def __init__(self, name: str) -> None:
        self.driver_id, self.nth, self.sent = f"attacker-{name}", ATTACKS[name], 0

    def rows(self, first_n: int, count: int, at: datetime) -> list[IncomingRow]:
        """Make the next fixes, received at an instant."""
        made: list[IncomingRow] = []
        for n in range(first_n, first_n + count):
            boot, seq, is_void = self.nth(self.sent)
            fix_at = at - timedelta(hours=1) + timedelta(milliseconds=50 * self.sent)
            self.sent += 1
            if is_void:
                made.append((n, self.driver_id, boot, seq, None, at, *NOWHERE, "void"))
            else:
                made.append((n, self.driver_id, boot, seq, fix_at, at, *PLACE, None))
        return made


class Figures:
    """What the batches of one variant took."""

    def __init__(self) -> None:
        self.batch_ms: list[float] = []
        self.cpu_ms: list[float] = []
        self.acks_ms: list[float] = []

    def result(self, calm: Figures, others: int) -> dict[str, Any]:
        """Percentiles, and their ratios to the batches without an attack."""
        mine, before = (
            {
                "due_to_commit_ms": percentiles(f.due_to_commit_ms(others)),
                "batch_ms": percentiles(f.batch_ms),
            }
            for f in (self, calm)
        )
        return {
            **mine,
            "cpu_ms": spread(self.cpu_ms),
            "acks_ms": spread(self.acks_ms),
            "ratio": {
                name: {p: round(mine[name][p] / before[name][p], 2) for p in ("p50", "p99")}
                for name in mine
            },
        }

    def due_to_commit_ms(self, others: int) -> list[float]:
        """Of every ordinary fix, due evenly within the wait before its batch."""
        return [
            WAIT_MS * (k + 0.5) / others + took_ms
            for took_ms in self.batch_ms
            for k in range(others)
        ]


def write(
    conn: psycopg.Connection[Any],
    reader: psycopg.Connection[Any],
    rows: list[IncomingRow],
    figures: Figures,
) -> None:
    """Write and commit a batch, then read the watermarks of its boots."""
    pid = conn.info.backend_pid
    began_us, began_s = thread_cpu_us(pid), time.perf_counter()
    fix_writer.record_fixes(conn, rows)
    conn.commit()
    ended_s = time.perf_counter()
    figures.batch_ms.append((ended_s - began_s) * 1e3)
    figures.cpu_ms.append((thread_cpu_us(pid) - began_us) / 1e3)
    pairs = {(row[1], row[2]) for row in rows if row[2] is not None}
    began_s = time.perf_counter()
    fix_writer.read_watermarks(reader, sorted(pairs))
    reader.commit()
    figures.acks_ms.append((time.perf_counter() - began_s) * 1e3)


def measure(conn: psycopg.Connection[Any], fleet: Fleet, options: argparse.Namespace) -> Any:
    """Write the batches of all variants, interleaved."""
    figures = {name: Figures() for name in (CALM, *ATTACKS)}
    attacks = {name: Attack(name) for name in ATTACKS}
    order = list(figures)
    reader = psycopg.connect(
        conn.info.dsn, password=conn.info.password, options="-c search_path=doorstep,public"
    )
    for k in range(options.fixes // options.attack_fixes):
        at = datetime.now(tz=UTC)
        for name in order[k % len(order) :] + order[: k % len(order)]:
            rows = fleet.batch(options.others)
            if name in attacks:
                rows += attacks[name].rows(len(rows), options.attack_fixes, at)
            write(conn, reader, rows, figures[name])
    reader.close()
    sizes = conn.execute(
        SIZES.encode(), {"attackers": [attack.driver_id for attack in attacks.values()]}
    ).fetchall()
    calm = figures[CALM]
    return {
        "variants": {name: one.result(calm, options.others) for name, one in figures.items()},
        "kept": {
            row[0]: dict(
                zip(
                    ("boots", "boot_bytes", "blocks", "block_bytes", "parked"), row[1:], strict=True
                )
            )
            for row in sizes
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drivers", type=int, default=10_000)
    parser.add_argument("--others", type=int, default=500, help="ordinary fixes in a batch")
    parser.add_argument("--attack-fixes", type=int, default=1_000, help="of an attack, in a batch")
    parser.add_argument("--fixes", type=int, default=40_000, help="of each attack")
    parser.add_argument("--orders", type=float, default=0.3, help="share with an open order")
    parser.add_argument("--quota-burst", type=int, help="instead of the schema's 2,000")
    options = parser.parse_args()
    with running_fleet(options.drivers, options.orders, seed=1) as (conn, fleet):
        names = [f"attacker-{name}" for name in ATTACKS]
        admin.register_drivers(conn, [admin.NewDriver(name, name, None) for name in names])
        if options.quota_burst:
            conn.execute("UPDATE limits SET quota_burst = %s", [options.quota_burst])
        conn.commit()
        result = {
            "others_per_batch": options.others,
            "attack_fixes_per_batch": options.attack_fixes,
            "attack_fixes": options.fixes,
            "quota_burst": options.quota_burst or 2_000,
            **measure(conn, fleet, options),
            "load_average": os.getloadavg()[0],
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
