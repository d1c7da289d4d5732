"""The dispatcher's page with 10,000 drivers: streamed one by one, and from a tile.

The drivers are synthetic: the page gets the stream's frames and the tiles from the test. Frame
times depend on the machine (Chromium draws without a GPU here), so they are printed, not asserted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from playwright.async_api import Page, Route

from tests.browser.conftest import City, OpenPage
from tests.browser.page_checks import eventually
from tests.browser.test_fleet import fleet_value

DRIVERS = 10_000
RecordProperty = Callable[[str, object], None]
# As fleet_tile_v1 makes it of 10,000 drivers: 16 x 16 cells with their counts.
TILE = """
SELECT ST_AsMVT(t, 'drivers', 4096, 'geom') FROM (
    SELECT ST_MakePoint(n % 16 * 256 + 128, n / 16 * 256 + 128) AS geom, 39 AS count
    FROM generate_series(0, 255) AS n
) t
"""
# A quarter of the drivers move each second, as phones do that report every 4 s.
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
  const firstMs = performance.now() - begun;
  return { firstMs, ...(await measureFrames(seconds, (second) => {
    const at = Date.now();
    const drivers = [];
    for (let n = second % 4; n < count; n += 4) drivers.push(row(n, at));
    doorstepFleet.onFrame("positions", { drivers, at_ms: at });
  })) };
}"""
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
  return { frames: times.length, p50Ms: at(0.5), p95Ms: at(0.95), maxMs: at(1) };
}"""


async def open_alone(city: City, open_page: OpenPage, most: int, tile: bytes | None = None) -> Page:
    """Open the page without the real stream and tiles."""

    async def answer_tile(route: Route) -> None:
        await route.fulfill(body=tile or b"", content_type="application/vnd.mapbox-vector-tile")

    async def before(page: Page) -> None:
        await page.route("**/fleet/stream*", lambda route: route.abort())
        await page.route("**/fleet/tiles/**", answer_tile)

    page = await open_page(f"/fleet?most={most}#{city.staff_token}", before=before)
    assert await eventually(lambda: page.evaluate("globalThis.doorstepMap?.loaded()"))
    await page.evaluate(MEASURE)
    return page


def report(name: str, measured: dict[str, Any], record_property: RecordProperty) -> None:
    print(f"\n{name}: {measured}")
    record_property(name, measured)


async def test_dispatch__ten_thousand_streamed_drivers__are_drawn_and_stay_usable(
    city: City, open_page: OpenPage, record_property: RecordProperty
) -> None:
    page = await open_alone(city, open_page, DRIVERS + 2000)
    measured = await page.evaluate(STREAM, {"count": DRIVERS, "seconds": 10})
    report("streamed", measured | {"drawMs": await fleet_value(page, "drawMs")}, record_property)
    assert await fleet_value(page, "known") == DRIVERS
    assert measured["frames"] > 0
    await page.keyboard.press("n")
    assert await page.locator("#pickup").is_visible()


async def test_dispatch__tile_of_ten_thousand_drivers__is_drawn_and_pans(
    city: City, open_page: OpenPage, record_property: RecordProperty
) -> None:
    with city.database() as conn:
        [tile] = conn.execute(TILE).fetchone() or [b""]
    page = await open_alone(city, open_page, DRIVERS // 2, bytes(tile))
    pan = "() => measureFrames(10, (second) => doorstepMap.panBy([second % 2 ? 150 : -150, 60]))"
    report("map alone", await page.evaluate(pan), record_property)
    for _ in range(2):  # the first one has the page ask for its view
        await page.evaluate("""() => doorstepFleet.onFrame("snapshot", { columns: ["driver_id"],
          presence: {}, clusters: [], drivers: [], at_ms: Date.now(),
          counts: { all: { drivers: 10000 }, state: {}, duty: {}, presence: {} } })""")
    count = "doorstepMap.querySourceFeatures('fleet', { sourceLayer: 'drivers' }).length"
    assert await eventually(lambda: page.evaluate(f"{count} >= 256"))
    measured = await page.evaluate(pan)
    report("with tiles", measured, record_property)
    assert await fleet_value(page, "isTiled")
    assert measured["frames"] > 0
