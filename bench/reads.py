"""CPU time of reads, compared with a simple implementation: `python -m bench.reads`.

One temporary database: 10,000 drivers with a current fix, a third of them with an open order; and a
day of 50 drivers (a fix every 12 s), stored twice: plain, and packed as by `./run compact`. Three
APIs use it, each a process: tracking_api, and bench/naive_reads.py with sync SQLAlchemy and with
psycopg's async pool. They get the same requests, interleaved, 8 at a time. `psycopg position` is
the psycopg one with a shorter answer: the order, its events and its position alone.

  track          GET /track/{order_id}, of 40 orders, each requested since its fix: all keep the
                 estimate, and tracking_api the order's details for 4 s
  track once     the same of 200 orders that were not requested in the last 4 s, but since their fix
  track first    the same of orders that were never requested: each API computes the routes to their
                 doors, at most 20 a second, and reads the start of the ride
  nearest        GET /drivers/nearest, ten of 10,000
  tile           the fleet as a vector tile that is not cached
  tile again     a few tiles, cached
  history plain  two hours of one driver, 600 fixes
  history packed ours of a packed day; the others read the plain day, for lack of a decoder

The figure is CPU time (user and system) of the API and of PostgreSQL per request, less what they
take while idle (tracking_api retries Kafka, which is absent); `ms` is the response time. Each
response is verified. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from datetime import time as day_time
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

import httpx
import psycopg

from bench.fleet_database import HEIGHT_DEG, SOUTH, WEST, WIDTH_DEG, running_database
from bench.growth import FILL, GrowthDatabase
from bench.measure import Measurements, percentiles, progress, spread
from bench.naive_reads import VARIANTS
from bench.process_cpu import cpu_s
from doorstep.credentials import token_sha256
from doorstep.store.admin import register_staff_token
from doorstep.store.compaction import Compactor
from ops.servers.postgres import PASSWORD
from ops.stack.addresses import any_free_port
from ops.stack.postgres import DATABASE, OWNER
from ops.stack.settings import PROJECT
from tracking_api.fleet.tiles import FRESH_FOR_S
from tracking_api.track.order_details import MAX_AGE_S

READS = (
    "track",
    "track once",
    "track first",
    "nearest",
    "tile",
    "tile again",
    "history plain",
    "history packed",
)
OURS = "tracking_api"
POSITION_ONLY = "psycopg position"
STAFF = {"Authorization": "Bearer stf_bench"}
CONCURRENCY = 8
START_TIMEOUT_S = 60.0
DAY_DRIVERS, DAY_FIXES = 50, 7_200
HOURS = 2
FIXES = DAY_FIXES * HOURS // 24
NEAREST_LIMIT = 10
TODAY = datetime.now(tz=UTC).date()
PACKED_DAY, PLAIN_DAY = TODAY - timedelta(days=10), TODAY - timedelta(days=2)
ZOOM = 15  # a tile is 1 km wide: some 160 drivers of 10,000
CACHED_TILES = 6  # tiles
TRACKED_ORDERS = 40  # orders; the first request for a door computes the routes to it
ONCE_ORDERS = 200
FIRST_ORDERS = 120  # in each run
WARM_UP = 4 * TRACKED_ORDERS
BY_ROAD_WITHIN_S = 120.0  # 240 doors and 207 restaurants at 20 a second
AFTERMATH_S = 1.5  # tracking_api reports once a second what was looked at
GRAPH_LOADED_S = 8.0  # tracking_api loads its street graph 3 s after its start
STAFF_PEOPLE = 200  # who read in turn, each within the limit on histories

PEOPLE = """
WITH people AS (
    INSERT INTO staff (name, role) SELECT 'bench' || n, 'viewer'
    FROM generate_series(0, %(count)s - 1) n RETURNING name
)
INSERT INTO access_token (token_sha256, role, name)
SELECT sha256(('stf_' || name)::bytea), 'staff', name FROM people
"""
CUSTOMERS = """
INSERT INTO access_token (token_sha256, role, order_id)
SELECT sha256(('cst_' || order_id)::bytea), 'customer', order_id FROM orders
"""

Check = Callable[[httpx.Response], bool]
Request = tuple[str, Mapping[str, Any], Mapping[str, str], Check]  # path, query, headers


class Api(NamedTuple):
    """One API: its variant, port and pid."""

    variant: str
    port: int
    pid: int


def main() -> int:
    """Run the bench and print its result."""
    parser = argparse.ArgumentParser(
        prog="bench.reads",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--drivers", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=400, help="of each read, each run (400)")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--reads", nargs="*", choices=READS, default=READS)
    options = parser.parse_args()
    with running_database() as cluster:
        growth_database = GrowthDatabase(cluster, DATABASE, options.drivers, 0.3)
        admin_url = cluster.url(OWNER, PASSWORD)
        fill(admin_url)
        postgres = cluster.pid()
        if postgres is None:
            raise SystemExit("the database is not running")
        urls = {role: cluster.url(role, PASSWORD) for role in ("tracking_api", "customer", OWNER)}
        with ExitStack() as stack:
            apis = [stack.enter_context(running(variant, urls)) for variant in (OURS, *VARIANTS)]
            result = asyncio.run(measure(apis, postgres, growth_database, options))
        growth_database.conn.close()
    print(json.dumps(result, ensure_ascii=False))
    return 0


def fill(url: str) -> None:
    """Store the two days, and pack the older one."""
    search_path = "-c search_path=doorstep,public"
    with psycopg.connect(url, autocommit=True, options=search_path) as conn:
        conn.execute(CUSTOMERS)
        register_staff_token(conn, token_sha256(STAFF["Authorization"].split()[1]))
        conn.execute(PEOPLE, {"count": STAFF_PEOPLE})
        for day in (PACKED_DAY, PLAIN_DAY):
            conn.execute("SELECT fix_history__ensure_partitions_v1(%s, %s)", (day, day))
            statement = FILL.format(partition=f"fix_history_{day:%Y%m%d}").encode()
            values = {"first": 0, "drivers": DAY_DRIVERS, "each": DAY_FIXES, "day": day}
            conn.execute(statement, values)
        conn.execute("VACUUM ANALYZE fix_history")
        compactor = Compactor(conn)
        done = compactor.run(compactor.plan(None))
        if done.fixes != DAY_DRIVERS * DAY_FIXES:
            raise SystemExit(f"{done.fixes} fixes were packed")
        conn.execute("VACUUM ANALYZE")


@contextmanager
def running(variant: str, urls: Mapping[str, str], port: int = 0) -> Iterator[Api]:
    """Run one API as a process of its own."""
    port = port or any_free_port()
    if variant == OURS:
        argv = [sys.executable, "-m", "tracking_api"]
    else:
        argv = [sys.executable, "-m", "bench.naive_reads", variant, str(port)]
    environment = {
        # a simple implementation has one role, which may read everything
        "DATABASE_URL": urls["tracking_api" if variant == OURS else OWNER],
        "CUSTOMER_DATABASE_URL": urls["customer"],
        "TRACKING_API_BIND": f"127.0.0.1:{port}",
        "TRACKING_API_INTERNAL_BIND": "127.0.0.1:0",
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",  # none: no read uses Kafka
    }
    process = subprocess.Popen(
        argv, cwd=PROJECT, env=os.environ | environment, stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(f"http://127.0.0.1:{port}/docs", process)
        yield Api(variant, port, process.pid)
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            httpx.get(url, trust_env=False)
            return
        except httpx.TransportError:
            if time.monotonic() > deadline or process.poll() is not None:
                raise
            time.sleep(0.1)


async def measure(
    all_apis: Sequence[Api],
    postgres: int,
    growth_database: GrowthDatabase,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Run all reads against all APIs, interleaved."""
    await asyncio.sleep(GRAPH_LOADED_S)
    growth_database.refresh_presence()
    known = growth_database.order_ids[: TRACKED_ORDERS + ONCE_ORDERS]
    await asyncio.gather(*(until_by_road(one, known) for one in all_apis))
    parts: dict[str, Any] = {}
    took_ms: dict[str, dict[str, list[float]]] = {}
    database: dict[str, dict[str, list[float]]] = {}
    for name in options.reads:
        apis = apis_of(name, all_apis)
        measurements = Measurements(
            f"reads: {name}", "µs of CPU per request", [one.variant for one in apis]
        )
        took_ms[name] = {one.variant: [] for one in apis}
        database[name] = {one.variant: [] for one in apis}
        for run in range(options.runs + 1):
            growth_database.refresh_presence()  # every driver has a current fix
            await prepare(name, apis, growth_database.order_ids)
            idle = await settle(name, [postgres, *(one.pid for one in apis)])
            for api in apis:
                requests = requests_of(
                    name, api, growth_database, options.requests if run else WARM_UP, run
                )
                before, began_s = [cpu_s(api.pid), cpu_s(postgres)], time.monotonic()
                took = await send(api, requests)
                lasted_s = time.monotonic() - began_s
                api_us, database_us = (
                    (cpu_s(pid) - one - idle[pid] * lasted_s) / len(requests) * 1e6
                    for pid, one in zip((api.pid, postgres), before, strict=True)
                )
                if run:
                    measurements.add(api.variant, api_us + database_us)
                    progress(f"  of which PostgreSQL {database_us:,.0f}")
                    database[name][api.variant].append(database_us)
                    took_ms[name][api.variant] += took
        parts[name] = measurements.part()
    ms = {
        name: {variant: percentiles(took) for variant, took in of_way.items()}
        for name, of_way in took_ms.items()
    }
    return {
        "unit": "µs of CPU per request",
        "runs": options.runs,
        "parts": parts,
        "of which PostgreSQL": {
            name: {variant: spread(of_variant) for variant, of_variant in of_read.items()}
            for name, of_read in database.items()
        },
        "ms": ms,
    }


def apis_of(name: str, apis: Sequence[Api]) -> list[Api]:
    """The APIs of one read: of GET /track the shorter answer too."""
    short = [one._replace(variant=POSITION_ONLY) for one in apis if one.variant == "psycopg"]
    return [*apis, *(short if name.startswith("track") else [])]


async def until_by_road(api: Api, order_ids: Sequence[UUID]) -> None:
    """Request orders until an API holds the routes of nearly all: it computes 20 a second.

    A few drivers are far from every street.
    """
    deadline = time.monotonic() + BY_ROAD_WITHIN_S
    missing = set(order_ids)
    while len(missing) > len(order_ids) // 50:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{len(missing)} orders have no estimate by road")

        def note(order_id: UUID, response: httpx.Response) -> bool:
            if (response.json()["eta"] or {}).get("route") == "road":
                missing.discard(order_id)
            return True

        requests = [
            (path, query, headers, partial(note, order_id))
            for order_id in list(missing)
            for path, query, headers, _ in [track_request(api, order_id)]
        ]
        await send(api, requests)


async def prepare(name: str, apis: Sequence[Api], order_ids: Sequence[UUID]) -> None:
    """Request what a read's name promises to be requested before: the new fixes' estimates."""
    known = {
        "track": order_ids[:TRACKED_ORDERS],
        "track once": order_ids[TRACKED_ORDERS : TRACKED_ORDERS + ONCE_ORDERS],
    }
    for api in apis:
        await send(api, [track_request(api, one) for one in known.get(name, ())])


async def settle(name: str, pids: Sequence[int]) -> dict[int, float]:
    """Wait until nothing of the previous run is cached, but for what a read's name promises.

    Returns the CPU seconds per second that each process takes while idle.
    """
    await asyncio.sleep(AFTERMATH_S)
    before, began_s = [cpu_s(pid) for pid in pids], time.monotonic()
    await asyncio.sleep(MAX_AGE_S if name == "track once" else FRESH_FOR_S)
    lasted_s = time.monotonic() - began_s
    return {pid: (cpu_s(pid) - one) / lasted_s for pid, one in zip(pids, before, strict=True)}


def requests_of(
    name: str, api: Api, growth_database: GrowthDatabase, count: int, run: int
) -> list[Request]:
    """The requests of one run: the same places and drivers for each API."""
    rng = random.Random(f"{name} {run}")
    if name == "tile":
        tiles = all_tiles()
        rng.shuffle(tiles)
        return [(path, {}, STAFF, _is_a_tile) for path in tiles[:count]]
    if name == "tile again":
        tiles = random.Random(1).sample(all_tiles(), CACHED_TILES)
        return [(rng.choice(tiles), {}, STAFF, _is_a_tile) for _ in range(count)]
    if name == "track once":
        others = growth_database.order_ids[TRACKED_ORDERS : TRACKED_ORDERS + ONCE_ORDERS]
        return [track_request(api, one) for one in rng.sample(others, min(count, ONCE_ORDERS))]
    if name == "track first":
        first = TRACKED_ORDERS + ONCE_ORDERS + run * FIRST_ORDERS
        unseen = growth_database.order_ids[first : first + min(count, FIRST_ORDERS)]
        return [track_request(api, one) for one in unseen]
    return [request_of(name, api, growth_database, rng) for _ in range(count)]


def track_request(api: Api, order_id: UUID) -> Request:
    """GET /track of one order, as its customer."""
    path = f"/position/{order_id}" if api.variant == POSITION_ONLY else f"/track/{order_id}"
    return path, {}, {"Authorization": f"Bearer cst_{order_id}"}, _has_a_place


def request_of(name: str, api: Api, growth_database: GrowthDatabase, rng: random.Random) -> Request:
    """One request other than a tile."""
    if name == "track":
        return track_request(api, rng.choice(growth_database.order_ids[:TRACKED_ORDERS]))
    if name == "nearest":
        lon_deg, lat_deg = WEST + WIDTH_DEG * rng.random(), SOUTH + HEIGHT_DEG * rng.random()
        query = {"lon_deg": lon_deg, "lat_deg": lat_deg, "limit": NEAREST_LIMIT}
        return "/drivers/nearest", query, STAFF, _are_near
    day = PACKED_DAY if name == "history packed" and api.variant == OURS else PLAIN_DAY
    at = datetime.combine(day, day_time(rng.randrange(24 - HOURS)), UTC)
    between = ("from", "to") if api.variant == OURS else ("since", "before")
    instants = (at.isoformat(), (at + timedelta(hours=HOURS)).isoformat())
    path = f"/drivers/driver-{rng.randrange(DAY_DRIVERS):06d}/history"
    staff = {"Authorization": f"Bearer stf_bench{rng.randrange(STAFF_PEOPLE)}"}
    return path, dict(zip(between, instants, strict=True)), staff, _is_the_past


def all_tiles() -> list[str]:
    """The paths of the tiles of the drivers' city."""
    west, north = tile_at(WEST, SOUTH + HEIGHT_DEG)
    east, south = tile_at(WEST + WIDTH_DEG, SOUTH)
    return [
        f"/fleet/tiles/{ZOOM}/{x}/{y}.mvt"
        for x in range(west + 1, east)  # without the half empty ones at the edge
        for y in range(north + 1, south)
    ]


def tile_at(lon_deg: float, lat_deg: float) -> tuple[int, int]:
    """The tile of a place."""
    across = (lon_deg + 180) / 360
    down = (1 - math.asinh(math.tan(math.radians(lat_deg))) / math.pi) / 2
    return int(across * 2**ZOOM), int(down * 2**ZOOM)


async def send(api: Api, requests: Sequence[Request]) -> list[float]:
    """Send 8 requests at a time; the response times in ms. Raises on a wrong response."""
    took_ms: list[float] = []
    left = iter(requests)

    async def work(client: httpx.AsyncClient) -> None:
        for path, query, headers, is_valid in left:
            began_s = time.perf_counter()
            response = await client.get(path, params=query, headers=headers)
            took_ms.append((time.perf_counter() - began_s) * 1e3)
            if response.status_code != 200 or not is_valid(response):
                raise RuntimeError(
                    f"{api.variant}: {response.url}: {response.status_code} {response.text[:300]}"
                )

    # A client per run: the servers close connections after 5 s of idling.
    at = f"http://127.0.0.1:{api.port}"
    async with (
        httpx.AsyncClient(base_url=at, timeout=30, trust_env=False) as client,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(CONCURRENCY):
            group.create_task(work(client))
    return took_ms


def _has_a_place(response: httpx.Response) -> bool:
    found = response.json()
    return bool(found.get("position") or found.get("lon_deg"))


def _are_near(response: httpx.Response) -> bool:
    found = response.json()
    return len(found["drivers"] if isinstance(found, dict) else found) == NEAREST_LIMIT


def _is_a_tile(response: httpx.Response) -> bool:
    return response.content.count(b"driver-") > 1


def _is_the_past(response: httpx.Response) -> bool:
    found = response.json()
    return abs(len(found["fixes"] if isinstance(found, dict) else found) - FIXES) <= 1


if __name__ == "__main__":
    sys.exit(main())
