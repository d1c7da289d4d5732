"""The dispatcher's page with 10,000 drivers: its work follows what changed, not the fleet.

The drivers are synthetic: the page gets the stream's frames and the tiles from the test. Frame
times depend on the machine (Chromium draws without a GPU here): `bench.fleet_page` measures them.
"""

from __future__ import annotations

from typing import Any

from playwright.async_api import Page, Route

from bench.fleet_page import MEASURE, STREAM
from tests.browser.conftest import City, OpenPage
from tests.browser.page_checks import eventually, wait_for_text
from tests.browser.test_fleet import fleet_value

DRIVERS = 10_000
SECONDS = 5
ORDERS = 3000
SHOWN_ORDERS = 50
CELLS = 256
MAX_NEW_ELEMENTS = 300  # alerts, restaurants, the queue; one for each driver would be 10,000
SIZE = """() => ({
  elements: document.querySelectorAll("*").length,
  layers: doorstepMap.getStyle().layers.length,
})"""
# As fleet_tile_v1 makes it of 10,000 drivers: 16 x 16 cells with their counts.
TILE = """
SELECT ST_AsMVT(t, 'drivers', 4096, 'geom') FROM (
    SELECT ST_MakePoint(n % 16 * 256 + 128, n / 16 * 256 + 128) AS geom, 39 AS count
    FROM generate_series(0, 255) AS n
) t
"""


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


async def growth_since(page: Page, before: dict[str, int]) -> dict[str, int]:
    """How many elements and layers of the map have been added."""
    after = await page.evaluate(SIZE)
    return {name: after[name] - before[name] for name in before}


async def test_dispatch__quarter_of_ten_thousand_drivers_moves__only_these_are_placed(
    city: City, open_page: OpenPage
) -> None:
    page = await open_alone(city, open_page, DRIVERS + 2000)
    before, redraws = await page.evaluate(SIZE), await fleet_value(page, "redraws")
    measured = await page.evaluate(STREAM, {"count": DRIVERS, "seconds": SECONDS})
    assert await fleet_value(page, "known") == DRIVERS
    assert await fleet_value(page, "changes") == DRIVERS + SECONDS * DRIVERS // 4
    # In each frame the markers are drawn once at most, besides the first time.
    assert 1 < await fleet_value(page, "redraws") - redraws <= measured["frames"] + 2
    grown = await growth_since(page, before)
    assert grown["layers"] == 0
    assert grown["elements"] < MAX_NEW_ELEMENTS
    await page.keyboard.press("n")
    assert await page.locator("#pickup").is_visible()


async def test_dispatch__ten_thousand_drivers_that_stay__are_not_placed_again(
    city: City, open_page: OpenPage
) -> None:
    page = await open_alone(city, open_page, DRIVERS + 2000)
    await page.evaluate(STREAM, {"count": DRIVERS, "seconds": 0})
    changes = await fleet_value(page, "changes")
    await page.wait_for_timeout(11_000)  # presence is computed again every 10 s
    assert await fleet_value(page, "changes") == changes == DRIVERS


async def test_dispatch__tile_of_ten_thousand_drivers__is_drawn_without_markers(
    city: City, open_page: OpenPage
) -> None:
    with city.database() as conn:
        [tile] = conn.execute(TILE).fetchone() or [b""]
    page = await open_alone(city, open_page, DRIVERS // 2, bytes(tile))
    before = await page.evaluate(SIZE)
    for _ in range(2):  # the first one has the page ask for its view
        await page.evaluate("""() => doorstepFleet.onFrame("snapshot", { columns: ["driver_id"],
          presence: {}, clusters: [], drivers: [], at_ms: Date.now(),
          counts: { all: { drivers: 10000 }, state: {}, duty: {}, presence: {} } })""")
    count = "doorstepMap.querySourceFeatures('fleet', { sourceLayer: 'drivers' }).length"
    assert await eventually(lambda: page.evaluate(f"{count} >= {CELLS}"))
    pan = "() => measureFrames(3, (second) => doorstepMap.panBy([second % 2 ? 150 : -150, 60]))"
    await page.evaluate(pan)
    assert await fleet_value(page, "isTiled")
    assert (await fleet_value(page, "known"), await fleet_value(page, "changes")) == (0, 0)
    grown = await growth_since(page, before)
    assert grown["layers"] == 0
    assert grown["elements"] < MAX_NEW_ELEMENTS


async def test_dispatch__three_thousand_open_orders__has_rows_for_the_first_fifty(
    city: City, open_page: OpenPage
) -> None:
    await city.order("confirm")
    one = (await city.staff.get("/fleet/orders")).json()
    [order] = one["orders"]
    many: list[dict[str, Any]] = [
        {**order, "order_id": f"00000000-0000-4000-8000-{n:012}"} for n in range(ORDERS)
    ]

    async def before(page: Page) -> None:
        await page.route(
            "**/fleet/orders", lambda route: route.fulfill(json={**one, "orders": many})
        )

    page = await open_page(f"/fleet#{city.staff_token}", before=before)
    assert await wait_for_text(page, "#tab-count", str(ORDERS))
    assert await page.locator("#orders li").count() == SHOWN_ORDERS
    assert await wait_for_text(page, "#more-orders", f"{ORDERS - SHOWN_ORDERS} more")
