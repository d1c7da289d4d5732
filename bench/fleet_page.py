"""How smooth /fleet is in Chromium: `python -m bench.fleet_page [--drivers 10000]`.

A database of its own holds the drivers; tracking_api serves them as always, but for Kafka: each
second a quarter of them moves, told to the fleet as the feed would. Headless Chromium without a
graphics card opens the page, and the time between its animation frames is taken, with the map at
rest and while it is dragged on and on. Prints one JSON object, times in ms.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import uvicorn
from playwright.async_api import Page, async_playwright

from doorstep.credentials import token_sha256
from doorstep.store.admin import register_staff_token
from doorstep.telemetry import get_logger
from ops.stack.addresses import any_free_port
from tests.browser.looking import ARGUMENTS, CHROMIUM
from tests.database import TEMPLATE, Database, create_template, running_cluster
from tracking_api import app as tracking_app
from tracking_api.database import Database as TrackingDatabase
from tracking_api.live.detachable_protocol import HandsOver
from tracking_api.live.fleet_channel import Fleet

TOKEN = "stf_bench"
WEST, SOUTH, WIDE, HIGH = 11.20, 43.74, 0.09, 0.06
STATES = ("available", "to_restaurant", "at_restaurant", "to_customer", "at_customer")
DRIVERS = """
INSERT INTO driver SELECT 'd' || n, 'Driver ' || n FROM generate_series(1, {n}) n;
INSERT INTO driver_state (driver_id, duty, state, fix_at, received_at, lon_deg, lat_deg, speed_mps,
    geom, cell)
SELECT 'd' || n, 'on_duty', (ARRAY['{states}'])[1 + n % 5]::driver_status, now(), now(), lon, lat,
    4, ST_SetSRID(ST_MakePoint(lon, lat), 4326),
    (floor(lat * 100)::int + 9000) * 36000 + floor(lon * 100)::int + 18000
FROM generate_series(1, {n}) n
CROSS JOIN LATERAL (
    SELECT {west} + random() * {wide} + n * 0 AS lon, {south} + random() * {high} AS lat
) AS p;
INSERT INTO driver_cell SELECT driver_id, cell FROM driver_state;
ANALYZE
"""
FRAMES_COUNTED = 20
TICKS_A_S = os.sysconf("SC_CLK_TCK")
FRAMES = """async (ms) => {
  const frames = [];
  let last = performance.now();
  const until = last + ms;
  while (last < until) {
    const now = await new Promise(requestAnimationFrame);
    const at = performance.now();
    frames.push(at - last);
    last = at;
  }
  return frames;
}"""
DRAG = """(ms) => {
  const until = performance.now() + ms;
  const step = (n) => {
    if (performance.now() > until) return;
    doorstepMap.panBy([n % 2 ? 150 : -150, 0], { duration: 900 });
    setTimeout(() => step(n + 1), 1000);
  };
  step(0);
}"""


async def serve(url: str, port: int, drivers: int) -> None:
    """tracking_api with a feed that needs no Kafka."""
    database = await TrackingDatabase.open(url, 5)
    app = tracking_app.build_app(database, f"http://127.0.0.1:{port}")
    fleet: Fleet = app.state.parts.live.fleet
    places: dict[int, list[float]] = {}

    async def feed() -> None:
        turn = 0
        while True:
            await asyncio.sleep(1)
            if not fleet.is_watched:
                continue
            at_ms = round(time.time() * 1000)
            for row in [] if places else fleet.roster.rows:
                places[int(row[0][1:])] = [row[2], row[3]]
            rows: list[list[Any]] = []
            for n in range(1 + turn % 4, drivers + 1, 4):
                place = places.get(n)
                if place is None:
                    continue
                place[0] += random.gauss(0, 2e-4)
                place[1] += random.gauss(0, 1.5e-4)
                rows.append([f"d{n}", at_ms, at_ms, *place, 5.0, 4.0, 90.0])
            fleet.hear(rows)
            turn += 1

    feeding = asyncio.create_task(feed())
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, http=HandsOver, ws="none", log_config=None
    )
    await uvicorn.Server(config).serve()
    feeding.cancel()


def percentiles(values: list[float]) -> dict[str, float]:
    """The middle, the 95th, the 99th and the worst."""
    ranked = sorted(values)
    at = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    found = {name: ranked[min(len(ranked) - 1, int(len(ranked) * p))] for name, p in at.items()}
    return {name: round(value, 1) for name, value in found.items()} | {"frames": len(values)}


def cpu_s() -> dict[str, float]:
    """CPU seconds of Chromium, this process's descendant, by kind of process."""
    ticks: dict[int, int] = {}
    parents: dict[int, int] = {}
    kinds: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            kind = re.search(r"--type=([a-z-]+)", (folder / "cmdline").read_text())
        except OSError:
            continue  # it has just ended
        pid = int(folder.name)
        parents[pid] = int(fields[1])
        ticks[pid] = int(fields[11]) + int(fields[12])
        kinds[pid] = kind[1] if kind else "browser"
    ours = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    found: defaultdict[str, float] = defaultdict(float)
    for pid in ours:
        found[kinds[pid]] += ticks[pid] / TICKS_A_S
    return found


async def cpu_ms_a_frame(page: Page, does: str) -> dict[str, float]:
    """CPU of each kind of process, per frame in which something is done."""
    before = cpu_s()
    await page.evaluate(
        f"""async (frames) => {{
          for (let n = 0; n < frames; n += 1) {{
            {does};
            await new Promise(requestAnimationFrame);
          }}
        }}""",
        FRAMES_COUNTED,
    )
    after = cpu_s()
    return {
        kind: round(1000 * (after[kind] - before.get(kind, 0)) / FRAMES_COUNTED, 1)
        for kind in ("renderer", "gpu-process")
    }


async def wait_for(page: Page, expression: str) -> float:
    """Seconds until something is true in the page."""
    begun = time.monotonic()
    while not await page.evaluate(expression):
        if time.monotonic() - begun > 60:
            raise TimeoutError(expression)
        await asyncio.sleep(0.02)
    return time.monotonic() - begun


async def look(url: str, seconds: float, picture: Path | None) -> dict[str, Any]:
    """Open the page and take its frames."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = await browser.new_page(viewport={"width": 1280, "height": 800})
        empty = percentiles(await page.evaluate(FRAMES, 3000))
        begun = time.monotonic()
        await page.goto(f"{url}/fleet#{TOKEN}")
        fleet = "globalThis.doorstepFleet"
        await wait_for(page, f"{fleet} && ({fleet}.drawn > 0 || {fleet}.tiled)")
        shown_s = time.monotonic() - begun
        await wait_for(page, "doorstepMap.loaded()")
        await asyncio.sleep(3)
        result: dict[str, Any] = {
            "empty_page_ms": empty,  # what the machine is good for just now
            "first_positions_s": round(shown_s, 2),
            "known": await page.evaluate(f"{fleet}.known"),
            "drawn": await page.evaluate(f"{fleet}.drawn"),
            "tiled": await page.evaluate(f"{fleet}.tiled"),
        }
        result["at_rest_ms"] = percentiles(await page.evaluate(FRAMES, seconds * 1000))
        result["cpu_ms_a_frame"] = {
            "alone": await cpu_ms_a_frame(page, ""),
            "with_all_points_drawn": await cpu_ms_a_frame(page, f"{fleet}.drawNow()"),
            "with_the_map_drawn": await cpu_ms_a_frame(page, "doorstepMap.triggerRepaint()"),
        }
        await page.evaluate(DRAG, seconds * 1000)
        result["dragged_ms"] = percentiles(await page.evaluate(FRAMES, seconds * 1000))
        result["frames_of_the_stream"] = await page.evaluate(f"{fleet}.frames")
        result["draw_ms"] = await page.evaluate(f"{fleet}.drawMs")
        if picture is not None:
            await page.screenshot(path=picture)
        await browser.close()
    return result


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drivers", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--picture", type=Path, help="keep a screenshot here")
    parser.add_argument("--serve", nargs=2, metavar=("URL", "PORT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        get_logger()
        asyncio.run(serve(args.serve[0], int(args.serve[1]), args.drivers))
        return
    with running_cluster() as cluster:
        create_template(cluster)
        database = Database(cluster, TEMPLATE)
        with database.connect() as conn:
            register_staff_token(conn, token_sha256(TOKEN))
            conn.execute(
                DRIVERS.format(
                    n=args.drivers,
                    states="','".join(STATES),
                    west=WEST,
                    south=SOUTH,
                    wide=WIDE,
                    high=HIGH,
                )
            )
        port = any_free_port()
        argv = [sys.executable, "-m", "bench.fleet_page", "--drivers", str(args.drivers)]
        argv += ["--serve", database.url("tracking_api"), str(port)]
        server = subprocess.Popen(argv)
        try:
            asyncio.run(ready(f"http://127.0.0.1:{port}"))
            load = os.getloadavg()[0]
            found = asyncio.run(look(f"http://127.0.0.1:{port}", args.seconds, args.picture))
        finally:
            server.terminate()
            server.wait()
    print(json.dumps({"drivers": args.drivers, "load_average": round(load, 1), **found}, indent=2))


async def ready(url: str) -> None:
    """Wait for the server."""
    port = int(url.rpartition(":")[2])
    for _ in range(600):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.1)
            continue
        writer.close()
        return
    raise TimeoutError(url)


if __name__ == "__main__":
    main()
