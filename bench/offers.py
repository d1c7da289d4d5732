"""Cost of the job that offers orders, with thousands of unassigned ones: `python -m bench.offers`.

One temporary cluster with a fleet of couriers, and confirmed orders whose policy offers them. The
job of driver_events runs as there: one transaction every second, or the next at once while each is
full. Three states of the fleet:

full     no courier has room for another order
stacked  each courier has an order and room for another
some     a tenth of the couriers are free, the others have no room

Beside it, in the same run, what one would write by hand: for each order one transaction, which
takes the nearest couriers with room (`ORDER BY geom <-> pickup LIMIT 20`, GiST) and inserts a row
for the first. It neither excludes who declined, nor compares detours, nor ends an offer.

The figure is the backend's CPU time per order that was tried. `jobs` has per state and number of
orders: how long a transaction took, the CPU time per second, and `untried_s`, for how long the
order that waits longest has been due. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg

from bench.fleet_database import Fleet, connect_superuser, prepare, running_database, warm_up
from bench.measure import Measurements, percentiles, progress
from bench.process_cpu import thread_cpu_us
from doorstep.store.offers import advance_offers
from doorstep.store.pool import connect
from driver_events.offers import EVERY_S, ORDERS_PER_COMMIT
from ops.servers.postgres import PASSWORD
from ops.stack.postgres import DATABASE, OWNER, PostgresCluster
from sql.migrate import PASSWORD_VARIABLES, set_passwords

SEED = 1
OURS, BY_HAND = "doorstep", "by hand"
FREE_SHARE = 0.1
EXAMPLES = """\
examples:
  python -m bench.offers                                   1,000 couriers; takes about 6 min
  python -m bench.offers --orders 100 --seconds 5          a short run
  python -m bench.offers --couriers 100000 --orders 1000   a large fleet
"""

# Each state: may a courier have a second order, and are those without one on duty?
STATES = {"full": (1, False), "stacked": (3, False), "some": (1, True)}
SET_STATE = """
UPDATE limits SET max_open_orders = {limit}, nearest_max_age_s = 86400;
UPDATE driver_state SET duty = '{duty}', state = '{state}' WHERE order_id IS NULL;
DELETE FROM order_offer;
DELETE FROM unassigned_order;
DROP TABLE IF EXISTS plain_courier, plain_offer;
CREATE TABLE plain_courier AS
    SELECT driver_id, geom, (order_id IS NOT NULL)::int AS open_orders
    FROM driver_state WHERE duty = 'on_duty';
CREATE INDEX ON plain_courier USING gist (geom);
CREATE TABLE plain_offer (order_id uuid, driver_id text, offered_at timestamptz DEFAULT now());
"""
ADD_ORDERS = """
WITH made AS (
    INSERT INTO orders (restaurant_id, lon_deg, lat_deg, policy_id)
    SELECT 1 + mod(g, 800), 11.2 + random() * 0.1, 43.75 + random() * 0.05, %(policy_id)s
    FROM generate_series(1, %(count)s) g
    RETURNING order_id
)
SELECT array_agg(order_id) FROM made
"""
CONFIRM = "UPDATE orders SET state = 'confirmed', state_at = now() WHERE order_id = ANY (%s)"
AUTO_OFFER = """SELECT create_policy_v1('{"name": "auto", "auto_offer": true}')"""
# For how long the order that waits longest has been due.
UNTRIED = """
SELECT greatest(extract(epoch FROM max(clock_timestamp()
    - coalesce(u.checked_at + interval '10 s', %(began_at)s))), 0)::float8
FROM orders o LEFT JOIN unassigned_order u ON u.order_id = o.order_id
WHERE o.state = 'confirmed' AND NOT EXISTS (
    SELECT FROM order_offer f WHERE f.order_id = o.order_id AND f.ended_at IS NULL)
"""
PICKUPS = """
SELECT o.order_id, r.geom FROM orders o JOIN restaurant r USING (restaurant_id)
WHERE o.state = 'confirmed'
"""
NEAREST_BY_HAND = """
WITH nearest AS MATERIALIZED (
    SELECT driver_id FROM plain_courier WHERE open_orders < %(limit)s
    ORDER BY geom <-> %(pickup)s::geometry LIMIT 20
)
INSERT INTO plain_offer (order_id, driver_id)
SELECT %(order_id)s, (SELECT driver_id FROM nearest LIMIT 1)
"""

Session = psycopg.Connection[Any]
Figures = dict[str, Any]


def scalar(conn: Session, statement: str, parameters: Any = None) -> Any:
    """Return the value of a statement that has one."""
    row = conn.execute(statement.encode(), parameters).fetchone()
    return row[0] if row is not None else None


def set_state(owner: Session, name: str) -> int:
    """Bring the fleet into a state, without offers. Returns the limit of orders per courier."""
    limit, are_free = STATES[name]
    duty, state = ("on_duty", "available") if are_free else ("on_break", "on_break")
    owner.execute(SET_STATE.format(limit=limit, duty=duty, state=state).encode())
    owner.execute("VACUUM ANALYZE")
    return limit


def run_job(job: Session, owner: Session, seconds: float) -> Figures:
    """Run the job for some seconds as driver_events does."""
    began_at, began_s = datetime.now(tz=UTC), time.perf_counter()
    pid = job.info.backend_pid
    began_us = thread_cpu_us(pid)
    took_ms: list[float] = []
    tried = 0
    while time.perf_counter() - began_s < seconds:
        call_s = time.perf_counter()
        count = advance_offers(job, ORDERS_PER_COMMIT)
        job.commit()
        took_ms.append((time.perf_counter() - call_s) * 1e3)
        tried += count
        if count < ORDERS_PER_COMMIT:
            time.sleep(EVERY_S)
    elapsed_s = time.perf_counter() - began_s
    cpu_us = thread_cpu_us(pid) - began_us
    return {
        "orders_tried": tried,
        "ms": percentiles(took_ms) | {"max": round(max(took_ms), 1)},
        "cpu_ms_per_s": round(cpu_us / 1e3 / elapsed_s, 1),
        "cpu_us_per_order": cpu_us / tried if tried else None,
        "open_offers": scalar(owner, "SELECT count(*) FROM order_offer WHERE ended_at IS NULL"),
        "untried_s": round(scalar(owner, UNTRIED, {"began_at": began_at}), 1),
    }


def run_by_hand(session: Session, owner: Session, limit: int) -> float:
    """Try every order once by hand; return the backend's CPU time in µs per order."""
    orders = owner.execute(PICKUPS).fetchall()
    pid = session.info.backend_pid
    before_us = thread_cpu_us(pid)
    for order_id, pickup in orders:
        parameters = {"order_id": order_id, "pickup": pickup, "limit": limit}
        session.execute(NEAREST_BY_HAND, parameters, prepare=True)
    return (thread_cpu_us(pid) - before_us) / len(orders)


def prepare_database(cluster: PostgresCluster, couriers: int) -> None:
    """Fill the database: a current fix of every courier, an order for nine in ten."""
    set_passwords(
        cluster.url(OWNER, PASSWORD, DATABASE), dict.fromkeys(PASSWORD_VARIABLES, PASSWORD)
    )
    fleet = Fleet(couriers, SEED)
    with connect_superuser(cluster) as conn:
        prepare(conn, fleet, 1 - FREE_SHARE)
        fleet.start_at = datetime.now(tz=UTC)
        warm_up(conn, fleet)


def add_orders(owner: Session, policy_id: int) -> Callable[[int], None]:
    """Return what adds confirmed orders until there are so many."""
    present = 0

    def add(wanted: int) -> None:
        nonlocal present
        if wanted > present:
            parameters = {"policy_id": policy_id, "count": wanted - present}
            owner.execute(CONFIRM, [scalar(owner, ADD_ORDERS, parameters)])
            present = wanted

    return add


def measure(
    cluster: PostgresCluster, counts: list[int], states: list[str], seconds: float
) -> Iterator[tuple[str, Figures, float | None]]:
    """Yield for each number of orders and state: its name, the job's figures, the cost by hand."""
    owner = connect_superuser(cluster, autocommit=True)
    add = add_orders(owner, int(scalar(owner, AUTO_OFFER)))
    for count in sorted(counts):
        add(count)
        for state in states:
            limit = set_state(owner, state)
            with connect(cluster.url("driver_events", PASSWORD)) as job:
                figures = run_job(job, owner, seconds)
            with connect_superuser(cluster, autocommit=True) as session:
                by_hand_us = run_by_hand(session, owner, limit) if count else None
            name = f"{state}, {count:,} orders"
            progress(f"{name}: {figures}, by hand {by_hand_us or 0:,.0f} µs an order")
            yield name, figures, by_hand_us


def run(cluster: PostgresCluster, counts: list[int], states: list[str], seconds: float) -> Figures:
    """Measure all, and return the result."""
    parts: Figures = {}
    jobs: Figures = {}
    for name, figures, by_hand_us in measure(cluster, counts, states, seconds):
        ours_us = figures.pop("cpu_us_per_order")
        jobs[name] = figures
        if ours_us is not None and by_hand_us is not None:
            part = Measurements(name, "µs of PostgreSQL per order", [])
            part.set_runs(OURS, [ours_us])
            part.set_runs(BY_HAND, [by_hand_us])
            parts[name] = part.part()
    return {
        "name": "offers",
        "runs": 1,
        "unit": "µs of PostgreSQL per order",
        "parts": parts,
        "jobs": jobs,
        "load_average": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--couriers", type=int, default=1_000)
    parser.add_argument("--orders", type=int, nargs="+", default=[0, 100, 1_000, 5_000])
    parser.add_argument("--states", choices=STATES, nargs="+", default=[*STATES])
    parser.add_argument("--seconds", type=float, default=25.0, help="of the job, each time")
    options = parser.parse_args()
    with running_database() as cluster:
        prepare_database(cluster, options.couriers)
        print(json.dumps(run(cluster, options.orders, options.states, options.seconds)))


if __name__ == "__main__":
    main()
