"""What an open order costs a fix: `python -m bench.evidence [--drivers N]`.

Three databases on one cluster below the temporary folder, durable as in production, with the same
fleet: nobody has an order; `--orders` of the drivers are met anywhere on their way to a restaurant
or a door, as in the load generator; and the same, all of them a moment before they arrive. They
take turns batch by batch, so that a busy machine slows them alike. Prints one JSON object: the
server's CPU per fix, and what was proved.
"""

from __future__ import annotations

import argparse
import json
import os
from datetime import timedelta
from typing import Any

import psycopg

from bench.load.fixtures import GO_ON_S, REST_S, RIDE_S
from bench.load.route import LAT_DEG, LON_DEG, MICRO, Errand, Script, Stroll, micro_of
from bench.record_fixes import Fleet, prepare, running_database, spread, warm_up, write_batch
from doorstep.store.records import IncomingRow
from ops.stack.postgres import DATABASE, OWNER, PostgresCluster
from sql.migrate import upgrade
from tests.database import PASSWORD

EVERY_MS = 4000
WARM_UP_MS = 30_000  # of fixes, before the walks' instant 0
RUSH_S = (-30.0, 45.0)

PICK_UP = """
INSERT INTO order_command (order_id, command, actor, actor_id, from_state, to_state,
    assignment_no, commanded_at)
SELECT unnest(%s::uuid[]), 'pick_up', 'driver', 'bench', 'assigned', 'picked_up', 1,
    now() - interval '55 min'
"""


class Errands(Fleet):
    """A fleet of which some have an order: half of those go to the restaurant, half to the door."""

    def __init__(self, conn: psycopg.Connection[Any], drivers: int, orders: int, how: str) -> None:
        super().__init__(drivers, seed=1)
        self.conn, self.costs_us = conn, list[float]()
        prepare(conn, self, orders)
        places = conn.execute(
            "SELECT driver_id, restaurant_lon_deg, restaurant_lat_deg, customer_lon_deg,"
            " customer_lat_deg, order_id FROM assignment ORDER BY driver_id"
        ).fetchall()
        at_restaurant = {row[0]: (row[1], row[2]) for row in places}
        at_door = {row[0]: (row[3], row[4]) for row in places}
        carrying = {one for one in sorted(at_door) if self.random.random() < 0.5}
        self.scripts: list[Script] = []
        for driver_id in self.ids:
            place = (at_door if driver_id in carrying else at_restaurant).get(driver_id)
            self.scripts.append(self._stroll() if place is None else self._errand(place, how))
        carried = [row[5] for row in places if row[0] in carrying]
        conn.execute(PICK_UP, (carried,))
        conn.execute("UPDATE orders SET state = 'picked_up' WHERE order_id = ANY (%s)", (carried,))
        conn.execute("SELECT evidence__derive(%s, %s, false)", (carried, [1] * len(carried)))
        conn.commit()

    def _stroll(self) -> Stroll:
        lon_deg, lat_deg = self._place()
        there_ms = self.random.uniform(60_000, 180_000)
        return Stroll(*micro_of(lon_deg, lat_deg), self.random.randrange(360), there_ms)

    def _errand(self, place: tuple[float, float], how: str) -> Errand:
        rest_s = self.random.uniform(*REST_S)
        at_s = RUSH_S if how == "rush" else (-rest_s, RIDE_S)
        arrives_ms = self.random.uniform(*at_s) * 1000
        leaves_ms = arrives_ms + rest_s * 1000
        heading_deg = self.random.randrange(360)
        ends_ms = leaves_ms + GO_ON_S * 1000
        return Errand(*micro_of(*place), heading_deg, arrives_ms, leaves_ms, ends_ms)

    def batch(self, size: int, per_driver: int = 1) -> list[IncomingRow]:
        """Make the next fixes of the next `size / per_driver` drivers."""
        rows: list[IncomingRow] = []
        while len(rows) < size:
            k = self.turn[self.next % len(self.turn)]
            self.next += 1
            for _ in range(per_driver):
                self.seqs[k] += 1
                rows.append(self._fix(len(rows), k))
        return rows

    def _fix(self, n: int, k: int) -> IncomingRow:
        at_ms = self.seqs[k] * EVERY_MS + k * 37 % EVERY_MS
        fix_at = self.start_at + timedelta(milliseconds=at_ms)
        walked_ms = at_ms - WARM_UP_MS
        leg = self.scripts[k].leg_at(walked_ms)
        lon_deg = LON_DEG + (leg.lon_micro + leg.lon_per_ms * walked_ms) / MICRO
        lat_deg = LAT_DEG + (leg.lat_micro + leg.lat_per_ms * walked_ms) / MICRO
        speed_mps = 8.0 if leg.lon_per_ms or leg.lat_per_ms else 0.3
        identity = (n, self.ids[k], "b0123456789abcdef", self.seqs[k], fix_at)
        received_at = fix_at + timedelta(milliseconds=300)
        return (*identity, received_at, lon_deg, lat_deg, 5.0, speed_mps, 90.0, None, 0.8, None)


def connect(cluster: PostgresCluster, name: str) -> psycopg.Connection[Any]:
    """Make a database of its own, and open it as its owner's superuser."""
    if name != DATABASE:
        cluster.create_database(PASSWORD, name)
        upgrade(cluster.url(OWNER, PASSWORD, name))
    url = cluster.superuser_url(name)
    return psycopg.connect(url, options="-c search_path=doorstep,public")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drivers", type=int, default=20_000)
    parser.add_argument("--orders", type=float, default=0.3, help="share with an open order")
    parser.add_argument("--batch", type=int, default=2_500, metavar="FIXES")
    parser.add_argument("--per-driver", type=int, default=5, help="fixes of a driver in a batch")
    parser.add_argument("--seconds", type=int, default=240, help="of the drivers' time")
    options = parser.parse_args()
    ways = {DATABASE: ("no orders", 0), "evening": ("orders", 1), "rush": ("orders, a rush", 1)}
    with running_database() as cluster:
        fleets: dict[str, Errands] = {}
        for name, (_, has_orders) in ways.items():
            conn = connect(cluster, name)
            orders = round(options.drivers * options.orders) * has_orders
            fleets[name] = Errands(conn, options.drivers, orders, name)
            warm_up(conn, fleets[name])
        each = options.drivers * options.per_driver // options.batch
        for _ in range(each * options.seconds * 1000 // EVERY_MS // options.per_driver):
            for fleet in fleets.values():
                rows = fleet.batch(options.batch, options.per_driver)
                fleet.costs_us.append(write_batch(fleet.conn, rows))
        result = {
            "drivers": options.drivers,
            "orders": options.orders,
            "batches": len(fleets[DATABASE].costs_us),
            "server_cpu_us_per_fix": {
                ways[name][0]: spread(fleet.costs_us) for name, fleet in fleets.items()
            },
            "facts": {ways[name][0]: _facts(fleet.conn) for name, fleet in fleets.items()},
            "load_average": os.getloadavg()[0],
        }
        for fleet in fleets.values():
            fleet.conn.close()
    print(json.dumps(result))


def _facts(conn: psycopg.Connection[Any]) -> int:
    row = conn.execute("SELECT count(*) FROM evidence").fetchone()
    return int(row[0]) if row else 0


if __name__ == "__main__":
    main()
