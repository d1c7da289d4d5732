"""Time and bytes until the customer's page shows the order, and until it shows the map.

    python -m bench.pages [--runs 5] [--cpu-slowdown 6] [--bytes-per-s 200000] [--latency-ms 40]

Starts the whole native stack on free ports in a temporary folder, with one order on its way, and
opens the customer's link in Chromium with an empty cache. Chromium itself slows the CPU and the
network down. Each run takes, from the start of the navigation:

  state_ms  until the order's current step is in the page
  map_ms    until the map has drawn its tiles and the courier
  state_bytes, map_bytes  received until then, without headers

The slowdown applies to the page's main thread, not to workers and not to the GPU process.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, CDPSession, ConsoleMessage, ViewportSize, sync_playwright

from bench.measure import progress, spread, stop
from bench.running_stack import running_stack
from doorstep.credentials import driver_token
from doorstep.geo import offset
from doorstep.provision import owner_connection, provision_drivers
from doorstep.store.admin import NewRestaurant, register_restaurants
from ops.stack.stack import Stack

CHROMIUM = "/usr/bin/chromium"
CHROMIUM_ARGUMENTS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
PHONE: ViewportSize = {"width": 390, "height": 844}
RESTAURANT_ID = 900_001  # past Florence's own
RESTAURANT = (11.2500, 43.7700)
DOOR = (11.2600, 43.7800)
DRIVER = "bench"
RUN_TIMEOUT_MS = 120_000

# Runs in the page: notes when each is first seen, at every frame.
OBSERVER = """(() => {
  globalThis.seen = {};
  const note = (name, isShown) => {
    if (!isShown || seen[name]) return;
    seen[name] = performance.now();
    console.debug(name);
  };
  const look = () => {
    note("state_ms", document.querySelector("#steps li.current"));
    const map = globalThis.doorstepMap;
    note("map_ms", map?.loaded() && map.areTilesLoaded() && map.getLayer("courier") &&
      map.queryRenderedFeatures({ layers: ["courier"] }).length);
    if (!seen.map_ms) setTimeout(look, 20);
  };
  addEventListener("DOMContentLoaded", look);
})()"""


def main() -> int:
    """Run the bench and print its result."""
    parser = argparse.ArgumentParser(
        prog="bench.pages",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--cpu-slowdown", type=float, default=6)
    parser.add_argument("--bytes-per-s", type=int, default=200_000)
    parser.add_argument("--latency-ms", type=float, default=40, help="added to each request")
    parser.add_argument("--link", help="a customer's link of a running stack, instead of a new one")
    parser.add_argument("--screenshot", type=Path, help="of the last run's map")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, stop)
    if options.link:
        result = _measure(options.link, options)
    else:
        with running_stack(echo=progress) as stack:
            result = _measure(_order_on_its_way(stack), options)
    sys.stdout.write(json.dumps(result, ensure_ascii=False) + "\n")
    return 0


def _measure(link: str, options: argparse.Namespace) -> dict[str, Any]:
    runs: list[dict[str, float]] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
        for _ in range(options.runs):
            runs.append(_open(browser, link, options))
            progress(json.dumps(runs[-1]))
        browser.close()
    conditions = {
        name: getattr(options, name) for name in ("cpu_slowdown", "bytes_per_s", "latency_ms")
    }
    parts = {name: {"ours": spread([run[name] for run in runs])} for name in runs[0]}
    return {
        "name": "pages",
        "runs": options.runs,
        "unit": "ms, bytes",
        **conditions,
        "parts": parts,
    }


def _open(browser: Browser, link: str, options: argparse.Namespace) -> dict[str, float]:
    """Open the link with an empty cache; the time until each is seen, and the bytes until then."""
    context = browser.new_context(viewport=PHONE, device_scale_factor=1)
    page = context.new_page()
    page.add_init_script(OBSERVER)
    devtools = context.new_cdp_session(page)
    received = _count_bytes(devtools)
    devtools.send("Emulation.setCPUThrottlingRate", {"rate": options.cpu_slowdown})
    devtools.send(
        "Network.emulateNetworkConditions",
        {
            "offline": False,
            "latency": options.latency_ms,
            "downloadThroughput": options.bytes_per_s,
            "uploadThroughput": options.bytes_per_s,
        },
    )
    received_by: dict[str, int] = {}

    def note(line: ConsoleMessage) -> None:
        received_by.setdefault(line.text, sum(received))

    page.on("console", note)
    with page.expect_console_message(lambda line: line.text == "map_ms", timeout=RUN_TIMEOUT_MS):
        page.goto(link, wait_until="commit")
    state_bytes, map_bytes = received_by["state_ms"], received_by["map_ms"]
    seen: dict[str, float] = page.evaluate("seen")
    if options.screenshot:
        page.screenshot(path=options.screenshot)
    context.close()
    return {**seen, "state_bytes": state_bytes, "map_bytes": map_bytes}


def _count_bytes(devtools: CDPSession) -> list[int]:
    """Collect the bytes of each piece that the page receives, its workers' excluded."""
    received: list[int] = []
    devtools.send("Network.enable")
    devtools.on("Network.dataReceived", lambda event: received.append(event["encodedDataLength"]))
    return received


def _order_on_its_way(stack: Stack) -> str:
    """Create an order with its courier half way; return the customer's link."""
    settings = stack.client_environment()
    with owner_connection(stack.database_admin_url) as conn:
        register_restaurants(conn, [NewRestaurant(RESTAURANT_ID, "Da Mario", *RESTAURANT)])
        conn.commit()
        provision_drivers(conn, stack.paths.fleet_key(), [DRIVER], progress)
    staff_token = Path(settings["STAFF_TOKEN_FILE"]).read_text(encoding="utf-8").strip()
    phone_token = driver_token(stack.paths.fleet_key(), DRIVER)
    staff = httpx.Client(
        base_url=settings["TRACKING_API_URL"],
        headers={"Authorization": f"Bearer {staff_token}"},
        trust_env=False,
    )
    phone = httpx.Client(
        base_url=f"{settings['DRIVER_API_URL']}/drivers/{DRIVER}/",
        headers={"Authorization": f"Bearer {phone_token}"},
        trust_env=False,
    )
    with staff, phone:
        phone.post("on-duty").raise_for_status()
        destination = {"lon_deg": DOOR[0], "lat_deg": DOOR[1]}
        new = {"restaurant_id": RESTAURANT_ID, "destination": destination}
        answer = staff.post("/orders", json=new).raise_for_status()
        order: dict[str, str] = answer.json()
        path = f"/orders/{order['order_id']}"
        staff.post(f"{path}/confirm").raise_for_status()
        staff.post(f"{path}/assign", json={"driver_id": DRIVER}).raise_for_status()
        phone.post(f"orders/{order['order_id']}/picked-up").raise_for_status()
        time.sleep(2)  # fixes taken later than 1.5 s after the assignment are shown
        for metres in (200, 210):
            lon_deg, lat_deg = offset(RESTAURANT, 0, metres)
            fix_at = datetime.now(UTC) - timedelta(milliseconds=1)
            fix = {"fix_at": fix_at.isoformat(), "lon_deg": lon_deg, "lat_deg": lat_deg}
            phone.patch("location", json=fix).raise_for_status()
            time.sleep(0.2)
    link = httpx.URL(order["customer_link"])
    return f"{settings['TRACKING_API_URL']}{link.path}#{link.fragment}"


if __name__ == "__main__":
    sys.exit(main())
