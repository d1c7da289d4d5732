"""Frame times of the dispatcher's page with many moving drivers.

    python -m bench.fleet_page [--drivers 10000] [--seconds 10] [--runs 3]

Starts the whole native stack on free ports in a temporary folder and opens the page in Chromium,
which draws without a GPU. The page gets synthetic frames in place of the stream: a snapshot, then
each second a quarter of the drivers, as phones send them that report every 4 s.

  first_ms         from the snapshot until all drivers are drawn
  p50_ms, p95_ms, max_ms  between two frames while the drivers move

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Route, sync_playwright

from bench.measure import progress, spread
from bench.pages import CHROMIUM, CHROMIUM_ARGUMENTS
from bench.running_stack import running_stack

POLL_MS = 100
# Adds measureFrames(seconds, everySecond) to the page.
MEASURE = """globalThis.measureFrames = async (seconds, everySecond) => {
  const times = [];
  let last = performance.now();
  let isRunning = true;
  const frame = (now) => {
    times.push(now - last);
    last = now;
    if (isRunning) requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
  for (let second = 0; second < seconds; second += 1) {
    everySecond(second);
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  isRunning = false;
  times.sort((a, b) => a - b);
  const at = (part) => Math.round(times[Math.floor((times.length - 1) * part)] * 10) / 10;
  return { frames: times.length, p50_ms: at(0.5), p95_ms: at(0.95), max_ms: at(1) };
}"""
# A quarter of the drivers move each second.
STREAM = """async ({ count, seconds }) => {
  const states = ["available", "to_restaurant", "at_restaurant", "to_customer", "at_customer"];
  const columns = ["driver_id", "state", "lon_deg", "lat_deg", "fix_at_ms", "received_at_ms",
    "speed_mps", "heading_deg", "accuracy_m", "battery", "order_id", "duty"];
  const row = (n, at) => [`d${n}`, states[n % 5],
    11.18 + ((n * 7919) % 1000) / 7000 + ((at / 1000) % 60) * 1e-5,
    43.74 + ((n * 104729) % 1000) / 14000, at, at, 4, (n * 37) % 360, 5, 0.8, null, "on_duty"];
  const counts = { all: { drivers: count }, state: {}, duty: {}, presence: {} };
  const presence = { silent_after_s: 60, lost_after_s: 300, moving_mps: 0.5 };
  const begun = performance.now();
  const all = Array.from({ length: count }, (_, n) => row(n, Date.now()));
  doorstepFleet.onFrame("snapshot", { columns, presence, counts, drivers: all, at_ms: Date.now() });
  doorstepFleet.drawNow();
  const first_ms = performance.now() - begun;
  return { first_ms, ...(await measureFrames(seconds, (second) => {
    const at = Date.now();
    const drivers = [];
    for (let n = second % 4; n < count; n += 4) drivers.push(row(n, at));
    doorstepFleet.onFrame("positions", { drivers, at_ms: at });
  })) };
}"""


def main() -> int:
    """Run the bench and print its result."""
    parser = argparse.ArgumentParser(
        prog="bench.fleet_page",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--drivers", type=int, default=10_000)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    runs: list[dict[str, float]] = []
    with running_stack(echo=progress) as stack, sync_playwright() as playwright:
        settings = stack.client_environment()
        token = Path(settings["STAFF_TOKEN_FILE"]).read_text(encoding="utf-8").strip()
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
        most = options.drivers + 2000  # all are streamed, none comes from tiles
        address = f"{settings['TRACKING_API_URL']}/fleet?most={most}#{token}"
        for _ in range(options.runs):
            runs.append(_open(browser, address, options.drivers, options.seconds))
            progress(json.dumps(runs[-1]))
        browser.close()
    parts = {
        name: {"ours": spread([run[name] for run in runs])}
        for name in ("first_ms", "p50_ms", "p95_ms", "max_ms")
    }
    result = {
        "name": "fleet-page",
        "runs": options.runs,
        "unit": "ms",
        "drivers": options.drivers,
        "parts": parts,
    }
    sys.stdout.write(json.dumps(result, ensure_ascii=False) + "\n")
    return 0


def _open(browser: Browser, address: str, drivers: int, seconds: int) -> dict[str, float]:
    context = browser.new_context(viewport={"width": 1280, "height": 800}, device_scale_factor=1)
    page = context.new_page()

    def abort(route: Route) -> None:
        route.abort()

    page.route("**/fleet/stream*", abort)
    page.goto(address)
    page.wait_for_url(lambda url: "/sign-in" not in url)
    while not page.evaluate("Boolean(globalThis.doorstepMap?.loaded())"):
        page.wait_for_timeout(POLL_MS)
    page.evaluate(MEASURE)
    measured: dict[str, Any] = page.evaluate(STREAM, {"count": drivers, "seconds": seconds})
    context.close()
    return {name: float(one) for name, one in measured.items()}


if __name__ == "__main__":
    sys.exit(main())
