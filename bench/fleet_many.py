"""What a large fleet costs tracking_api while one staff page looks on.

    python -m bench.fleet_many [--drivers 100000] [--seconds 20]

A database of its own holds the drivers, all in one city; a twentieth of them reports every second,
to the database and to the fleet as the feed would say it. One page follows the whole city and one
a corner of it. Prints one JSON object: the process's CPU per second of time and its longest stalls
of the event loop (ms that a task which sleeps 5 ms came late), then vector tiles of that city, in
ms and bytes each. With `--nobody` nobody looks on, which is what the bench itself costs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import time
from typing import Any

import httpx
import psycopg
import uvicorn

from bench.fleet_page import DRIVERS, HIGH, SOUTH, STATES, TOKEN, WEST, WIDE, percentiles, ready
from doorstep.credentials import token_sha256
from doorstep.store.admin import register_staff_token
from ops.stack.addresses import any_free_port
from tests.database import TEMPLATE, Database, create_template, running_cluster
from tracking_api import app as tracking_app
from tracking_api.database import Database as TrackingDatabase
from tracking_api.live.detachable_protocol import HandsOver
from tracking_api.live.fleet_channel import Fleet

REPORT_EVERY_S = 20
RECORDS_A_S = 10  # what a second brings comes in so many pieces
TILES = ((9, 3), (12, 3), (14, 3))  # zoom, how many of them
MOVE = """
UPDATE doorstep.driver_state AS d
SET fix_at = m.at, received_at = m.at, lon_deg = m.lon_deg, lat_deg = m.lat_deg
FROM unnest(%s::text[], %s::float8[], %s::float8[]) AS n (driver_id, lon_deg, lat_deg),
    LATERAL (SELECT to_timestamp(%s / 1000.0) AS at, n.*) AS m
WHERE d.driver_id = m.driver_id
"""


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--drivers", type=int, default=100_000)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--nobody", action="store_true", help="nobody looks on")
    args = parser.parse_args()
    with running_cluster() as cluster:
        create_template(cluster)
        database = Database(cluster, TEMPLATE)
        with database.connect() as conn:
            register_staff_token(conn, token_sha256(TOKEN))
            city = {"west": WEST, "south": SOUTH, "wide": WIDE, "high": HIGH}
            conn.execute(DRIVERS.format(n=args.drivers, states="','".join(STATES), **city))
        found = asyncio.run(measure(database, args.drivers, args.seconds, not args.nobody))
    print(json.dumps({"drivers": args.drivers, **found}))


async def measure(database: Database, drivers: int, seconds: int, watched: bool) -> dict[str, Any]:
    """Serve and look on, in one process, the pages in others."""
    store = await TrackingDatabase.open(database.url("tracking_api"), 5)
    app = tracking_app.build_app(store, "http://bench.test")
    fleet: Fleet = app.state.parts.live.fleet
    port = any_free_port()
    config = uvicorn.Config(
        app, "127.0.0.1", port, loop="uvloop", http=HandsOver, ws="none", log_config=None
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    await ready(f"http://127.0.0.1:{port}")
    corner = f"{WEST},{SOUTH},{WEST + WIDE / 10},{SOUTH + HIGH / 10}"
    boxes = (f"{WEST - 1},{SOUTH - 1},{WEST + 1},{SOUTH + 1}", corner)
    asked_at = time.monotonic()
    pages = [await page(port, box) for box in boxes] if watched else []
    for one in pages:
        assert one.stdout is not None
        while not (await one.stdout.readline()).startswith(b"event: snapshot"):
            pass
    opened_s = time.monotonic() - asked_at
    draining = [asyncio.create_task(drain(one)) for one in pages]
    moves = list(planned(drivers, seconds + 5))
    late_ms: list[float] = []
    watching = asyncio.create_task(watch_the_loop(late_ms))
    with psycopg.connect(database.url("doorstep_owner"), autocommit=True) as conn:
        await report(conn, fleet, moves[:5])
        late_ms.clear()
        began, cpu_s = time.monotonic(), time.process_time()
        await report(conn, fleet, moves[5:])
        cpu_s, wall_s = time.process_time() - cpu_s, time.monotonic() - began
    watching.cancel()
    found: dict[str, Any] = {
        "snapshots_s": round(opened_s, 2),
        "cpu_ms_per_s": round(cpu_s / wall_s * 1000, 1),
        "loop_late_ms": percentiles(late_ms),
        "tiles": await tiles(port) if watched else None,
    }
    for one in pages:
        one.terminate()
    await asyncio.gather(*draining)
    server.should_exit = True
    await serving
    return found


def planned(drivers: int, seconds: int) -> Any:
    """What is reported in each second: ids, longitudes, latitudes."""
    share = drivers // REPORT_EVERY_S
    for second in range(seconds):
        first = second % REPORT_EVERY_S * share
        ids = [f"d{n}" for n in range(first + 1, first + share + 1)]
        yield (
            ids,
            [WEST + random.random() * WIDE for _ in ids],
            [SOUTH + random.random() * HIGH for _ in ids],
        )


async def report(conn: psycopg.Connection[Any], fleet: Fleet, moves: list[Any]) -> None:
    """Report, a second's share each second, in pieces as they would come from Kafka."""
    for ids, lons, lats in moves:
        began = time.monotonic()
        at_ms = round(time.time() * 1000)
        await asyncio.to_thread(conn.execute, MOVE, (ids, lons, lats, at_ms))
        piece = -(-len(ids) // RECORDS_A_S)
        for n in range(RECORDS_A_S):
            part = slice(n * piece, (n + 1) * piece)
            places = zip(ids[part], lons[part], lats[part], strict=True)
            if fleet.is_watched:
                fleet.hear([[one, at_ms, at_ms, x, y, 5.0, 4.0, 90.0] for one, x, y in places])
            until = began + (n + 1) / RECORDS_A_S
            await asyncio.sleep(max(0.0, until - time.monotonic()))


async def watch_the_loop(late_ms: list[float]) -> None:
    """Sleep 5 ms again and again, and note how late it was."""
    while True:
        began = time.perf_counter()
        await asyncio.sleep(0.005)
        late_ms.append((time.perf_counter() - began) * 1000 - 5)


async def page(port: int, box: str) -> asyncio.subprocess.Process:
    """Follow the fleet from a process of its own."""
    return await asyncio.create_subprocess_exec(
        "curl", "-sN", f"http://127.0.0.1:{port}/fleet/stream?most=20000&bbox={box}",
        "-H", f"Authorization: Bearer {TOKEN}",
        stdout=asyncio.subprocess.PIPE, limit=1 << 25,
    )  # fmt: skip


async def drain(one: asyncio.subprocess.Process) -> None:
    """Read what a page is told."""
    assert one.stdout is not None
    while await one.stdout.read(1 << 20):
        pass


async def tiles(port: int) -> dict[str, Any]:
    """Ask for tiles of the city, one after the other, then the same from the cache."""
    found: dict[str, Any] = {}
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers) as client:
        for z, count in TILES:
            took_ms, again_ms, sizes = [], [], []
            x = int((WEST + WIDE / 2 + 180) / 360 * 2**z)
            north = math.asinh(math.tan(math.radians(SOUTH + HIGH / 2)))
            y = int((1 - north / math.pi) / 2 * 2**z)
            for _ in range(count):
                address = f"/fleet/tiles/{z}/{x}/{y}.mvt"
                began = time.perf_counter()
                answer = await client.get(address)
                answer.raise_for_status()
                middle = time.perf_counter()
                await client.get(address)
                took_ms.append((middle - began) * 1000)
                again_ms.append((time.perf_counter() - middle) * 1000)
                sizes.append(len(answer.content))
                await asyncio.sleep(2.1)  # until it is too old for the cache
            found[f"z{z}"] = {
                "ms": round(sorted(took_ms)[count // 2], 1),
                "cached_ms": round(sorted(again_ms)[count // 2], 1),
                "bytes": max(sizes),
            }
    return found


if __name__ == "__main__":
    main()
