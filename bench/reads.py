"""What a read costs, beside the same read as one would write it first: `python -m bench.reads`.

One database below the temporary folder: 10,000 drivers, heard of just now, a third with an open
order; and a day of 50 drivers (a fix every 12 s), stored twice: plain, and packed as
`./run compact` packs it. Three APIs on it, each a process: tracking_api, and bench/naive_reads.py
with sync SQLAlchemy and with psycopg's async pool. They are asked the same by turns, 8 requests at
a time:

  track          GET /track/{order_id}, of 40 orders, each looked at before
  nearest        GET /drivers/nearest, ten of 10,000
  tile           the fleet as a vector tile: a tile that nobody has looked at
  tile again     a few tiles that many look at
  history plain  two hours of one driver, 600 fixes
  history packed ours of a packed day; the others cannot read one and read the plain day again

The figure is CPU time (user and system) of the API and of PostgreSQL, a request; `ms` tells how
long an answer took. Each answer is checked to hold what was asked for. The last line is one JSON
object.
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
from typing import Any, NamedTuple

import httpx
import psycopg

from bench.fanout import free_port
from bench.growth import FILL, Growing, _percentiles
from bench.ingest import cpu_s
from bench.measure import Measured
from bench.naive_reads import WAYS
from bench.record_fixes import HEIGHT_DEG, SOUTH, WEST, WIDTH_DEG, running_database
from doorstep.credentials import token_sha256
from doorstep.store.admin import register_staff_token
from doorstep.store.compaction import Compactor
from ops.stack.postgres import DATABASE, OWNER
from ops.stack.settings import PROJECT
from tests.database import PASSWORD
from tracking_api.fleet.tiles import FRESH_FOR_S

READS = ("track", "nearest", "tile", "tile again", "history plain", "history packed")
OURS = "tracking_api"
STAFF = {"Authorization": "Bearer stf_bench"}
AT_ONCE = 8
STARTED_WITHIN_S = 60.0
DAY_DRIVERS, DAY_FIXES = 50, 7_200
HOURS = 2
FIXES = DAY_FIXES * HOURS // 24
NEAR = 10
TODAY = datetime.now(tz=UTC).date()
PACKED_DAY, PLAIN_DAY = TODAY - timedelta(days=10), TODAY - timedelta(days=2)
ZOOM = 15  # a tile is 1 km wide: some 160 drivers of 10,000
AGAIN = 6  # tiles that many look at
WATCHED = 40  # orders; the first look at a door works out the ways to it along the streets
WARM_UP = 4 * WATCHED

CUSTOMERS = """
INSERT INTO access_token (token_sha256, role, order_id)
SELECT sha256(('cst_' || order_id)::bytea), 'customer', order_id FROM orders
"""

Check = Callable[[httpx.Response], bool]
Request = tuple[str, Mapping[str, Any], Mapping[str, str], Check]  # path, query, headers


class Api(NamedTuple):
    """One API: which it is, where, and whose CPU is counted."""

    way: str
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
    options = parser.parse_args()
    with running_database() as cluster:
        growing = Growing(cluster, DATABASE, options.drivers, 0.3)
        admin_url = cluster.url(OWNER, PASSWORD)
        fill(admin_url)
        postgres = cluster.pid()
        if postgres is None:
            raise SystemExit("the database does not run")
        url = cluster.url("tracking_api", PASSWORD)
        with ExitStack() as stack:
            apis = [stack.enter_context(running(way, url)) for way in (OURS, *WAYS)]
            result = asyncio.run(measure(apis, postgres, growing, options))
        growing.conn.close()
    print(json.dumps(result, ensure_ascii=False))
    return 0


def fill(url: str) -> None:
    """Store the two days, and pack the older one."""
    search_path = "-c search_path=doorstep,public"
    with psycopg.connect(url, autocommit=True, options=search_path) as conn:
        conn.execute(CUSTOMERS)
        register_staff_token(conn, token_sha256(STAFF["Authorization"].split()[1]))
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
def running(way: str, url: str) -> Iterator[Api]:
    """Run one API as a process of its own."""
    port = free_port()
    if way == OURS:
        argv = [sys.executable, "-m", "tracking_api"]
    else:
        argv = [sys.executable, "-m", "bench.naive_reads", way, str(port)]
    environment = {
        "DATABASE_URL": url,
        "TRACKING_API_BIND": f"127.0.0.1:{port}",
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",  # nobody: no read asks Kafka
    }
    process = subprocess.Popen(
        argv, cwd=PROJECT, env=os.environ | environment, stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(f"http://127.0.0.1:{port}/docs", process)
        yield Api(way, port, process.pid)
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + STARTED_WITHIN_S
    while True:
        try:
            httpx.get(url, trust_env=False)
            return
        except httpx.TransportError:
            if time.monotonic() > deadline or process.poll() is not None:
                raise
            time.sleep(0.1)


async def measure(
    apis: Sequence[Api], postgres: int, growing: Growing, options: argparse.Namespace
) -> dict[str, Any]:
    """Ask everything of everybody by turns."""
    parts: dict[str, Any] = {}
    took_ms: dict[str, dict[str, list[float]]] = {}
    for name in READS:
        measured = Measured(f"reads: {name}", "µs of CPU a request", [one.way for one in apis])
        took_ms[name] = {one.way: [] for one in apis}
        for run in range(options.runs + 1):
            growing.come_back()  # everybody is heard of now
            await asyncio.sleep(FRESH_FOR_S)  # and no tile is kept of the run before
            for api in apis:
                asked = requests_of(name, api, growing, options.requests if run else WARM_UP, run)
                before = cpu_s(api.pid) + cpu_s(postgres)
                took = await ask(api, asked)
                cost_s = cpu_s(api.pid) + cpu_s(postgres) - before
                if run:
                    measured.add(api.way, cost_s / len(asked) * 1e6)
                    took_ms[name][api.way] += took
        shaped = measured.result()
        parts[name] = {"ours": shaped["ours"], "others": shaped["others"]}
    ms = {
        name: {way: _percentiles(took) for way, took in of_way.items()}
        for name, of_way in took_ms.items()
    }
    return {"unit": "µs of CPU a request", "runs": options.runs, "parts": parts, "ms": ms}


def requests_of(name: str, api: Api, growing: Growing, count: int, run: int) -> list[Request]:
    """What one API is asked in one run: the same places and drivers as the others."""
    rng = random.Random(f"{name} {run}")
    if name == "tile":
        tiles = all_tiles()
        rng.shuffle(tiles)
        return [(path, {}, STAFF, _is_a_tile) for path in tiles[:count]]
    if name == "tile again":
        tiles = random.Random(1).sample(all_tiles(), AGAIN)
        return [(rng.choice(tiles), {}, STAFF, _is_a_tile) for _ in range(count)]
    return [request_of(name, api, growing, rng) for _ in range(count)]


def request_of(name: str, api: Api, growing: Growing, rng: random.Random) -> Request:
    """One request that is no tile."""
    if name == "track":
        order_id = rng.choice(growing.order_ids[:WATCHED])
        return f"/track/{order_id}", {}, {"Authorization": f"Bearer cst_{order_id}"}, _has_a_place
    if name == "nearest":
        lon_deg, lat_deg = WEST + WIDTH_DEG * rng.random(), SOUTH + HEIGHT_DEG * rng.random()
        query = {"lon_deg": lon_deg, "lat_deg": lat_deg, "limit": NEAR}
        return "/drivers/nearest", query, STAFF, _are_near
    day = PACKED_DAY if name == "history packed" and api.way == OURS else PLAIN_DAY
    at = datetime.combine(day, day_time(rng.randrange(24 - HOURS)), UTC)
    between = ("from", "to") if api.way == OURS else ("since", "before")
    instants = (at.isoformat(), (at + timedelta(hours=HOURS)).isoformat())
    path = f"/drivers/driver-{rng.randrange(DAY_DRIVERS):06d}/history"
    return path, dict(zip(between, instants, strict=True)), STAFF, _is_the_past


def all_tiles() -> list[str]:
    """The paths of the tiles that the drivers' city lies in."""
    west, north = tile_at(WEST, SOUTH + HEIGHT_DEG)
    east, south = tile_at(WEST + WIDTH_DEG, SOUTH)
    return [
        f"/fleet/tiles/{ZOOM}/{x}/{y}.mvt"
        for x in range(west + 1, east)  # without those at the edge, which are half empty
        for y in range(north + 1, south)
    ]


def tile_at(lon_deg: float, lat_deg: float) -> tuple[int, int]:
    """Which tile a place lies in."""
    across = (lon_deg + 180) / 360
    down = (1 - math.asinh(math.tan(math.radians(lat_deg))) / math.pi) / 2
    return int(across * 2**ZOOM), int(down * 2**ZOOM)


async def ask(api: Api, asked: Sequence[Request]) -> list[float]:
    """Ask 8 at a time; how long each answer took, in ms. Raises on an answer that is none."""
    took_ms: list[float] = []
    left = iter(asked)

    async def work(client: httpx.AsyncClient) -> None:
        for path, query, headers, is_answer in left:
            began_s = time.perf_counter()
            answer = await client.get(path, params=query, headers=headers)
            took_ms.append((time.perf_counter() - began_s) * 1e3)
            if answer.status_code != 200 or not is_answer(answer):
                raise RuntimeError(
                    f"{api.way}: {answer.url}: {answer.status_code} {answer.text[:300]}"
                )

    # A client for each run: the servers close connections that were idle for 5 s.
    at = f"http://127.0.0.1:{api.port}"
    async with (
        httpx.AsyncClient(base_url=at, timeout=30, trust_env=False) as client,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(AT_ONCE):
            group.create_task(work(client))
    return took_ms


def _has_a_place(answer: httpx.Response) -> bool:
    found = answer.json()
    return bool(found.get("position") or found.get("lon_deg"))


def _are_near(answer: httpx.Response) -> bool:
    found = answer.json()
    return len(found["drivers"] if isinstance(found, dict) else found) == NEAR


def _is_a_tile(answer: httpx.Response) -> bool:
    return answer.content.count(b"driver-") > 1


def _is_the_past(answer: httpx.Response) -> bool:
    found = answer.json()
    return abs(len(found["fixes"] if isinstance(found, dict) else found) - FIXES) <= 1


if __name__ == "__main__":
    sys.exit(main())
