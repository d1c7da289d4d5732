"""Failed orders on their way back, on the dispatcher's page."""

from __future__ import annotations

from typing import Any

from playwright.async_api import Page, Route

from tests.browser.conftest import City, OpenPage
from tests.browser.page_checks import (
    accessibility_violations,
    eventually,
    rendered_features,
    wait_for_text,
)
from tests.browser.test_fleet import fleet_value
from tests.integration.http_services import RESTAURANT, north_of


async def failed_order(city: City, driver_id: str) -> dict[str, Any]:
    """An order that its courier takes back to the restaurant."""
    order = await city.order(driver_id=driver_id)
    await city.phone(driver_id, f"orders/{order['order_id']}/picked-up")
    await city.command(order, "fail", reason="customer_absent", next_step="return")
    return order


async def symbol_of(page: Page, driver_id: str) -> str | None:
    """The label of a driver's symbol on the map."""
    label: str | None = await page.evaluate("(id) => doorstepFleet.symbolOf(id)?.label", driver_id)
    return label


async def test_dispatch__failed_order_on_its_way_back__is_listed_until_it_has_returned(
    city: City, open_page: OpenPage
) -> None:
    await city.driver("d1", north_of(RESTAURANT, 300))
    await city.driver("d2", north_of(RESTAURANT, 600))
    order = await failed_order(city, "d1")
    page = await open_page(f"/fleet#{city.staff_token}")
    assert await wait_for_text(page, "#return-list", "Da Mario")
    assert await wait_for_text(page, "#return-list", "d1 · ")
    assert await page.text_content("#returns-title") == "On the way back 1"
    assert await accessibility_violations(page) == []
    await page.click("#return-list button")
    assert await wait_for_text(page, "#order-title", order["order_id"][:8])
    await page.get_by_role("button", name="Back at the restaurant").click()
    assert await wait_for_text(page, "#notice", "Recorded.")
    assert await eventually(lambda: page.locator("#returns").is_hidden())


async def test_dispatch__courier_on_the_way_back__is_marked_and_not_counted_as_available(
    city: City, open_page: OpenPage
) -> None:
    await city.driver("d1", north_of(RESTAURANT, 300))
    await city.driver("d2", north_of(RESTAURANT, 600))
    returning = await failed_order(city, "d1")
    order = await city.order("confirm")
    page = await open_page(f"/fleet?order={order['order_id']}#{city.staff_token}")
    assert await wait_for_text(page, "#returning", "On the way back 1")
    assert await wait_for_text(page, "#states", "Available 1")
    assert await eventually(lambda: fleet_value(page, "known")) == 2
    assert (await symbol_of(page, "d1"), await symbol_of(page, "d2")) == (
        "On the way back",
        "Available",
    )
    assert await wait_for_text(page, "#couriers li:has([value=d1])", "takes an order back")
    assert await wait_for_text(page, "#couriers li:has([value=d2])", "free")
    await city.command(returning, "returned")
    assert await wait_for_text(page, "#states", "Available 2")
    assert await page.locator("#returning").is_hidden()
    assert await symbol_of(page, "d1") == "Available"
    assert await wait_for_text(page, "#couriers li:has([value=d1])", "free")


IN_TILES = """() => Object.fromEntries(
  doorstepMap.queryRenderedFeatures({ layers: ["clusters"] })
    .map(({ properties }) => [properties.driver_id, properties.is_returning ?? false]),
)"""


async def test_dispatch__courier_on_the_way_back_in_a_large_fleet__is_marked_wherever_they_are(
    city: City, open_page: OpenPage
) -> None:
    await city.driver("d1", north_of(RESTAURANT, 300))
    await city.driver("d2", north_of(RESTAURANT, 600))
    returning = await failed_order(city, "d1")
    page = await open_page(f"/fleet?most=1#{city.staff_token}")
    assert await eventually(lambda: fleet_value(page, "isTiled"))

    assert await eventually(lambda: rendered_features(page, "clusters")) == 2

    async def is_drawn() -> bool:
        return bool(await page.evaluate(IN_TILES) == {"d1": True, "d2": False})

    assert await eventually(is_drawn), await page.evaluate(IN_TILES)
    assert await wait_for_text(page, "#returning", "On the way back 1")
    assert await wait_for_text(page, "#states", "Available 1")
    await city.command(returning, "returned")
    assert await wait_for_text(page, "#states", "Available 2")

    async def is_redrawn() -> bool:
        return bool(await page.evaluate(IN_TILES) == {"d1": False, "d2": False})

    assert await eventually(is_redrawn), await page.evaluate(IN_TILES)


async def test_dispatch__list_of_ways_back_is_away__ranking_search_and_detail_mark_the_courier(
    city: City, open_page: OpenPage
) -> None:
    async def refuse(route: Route) -> None:
        await route.abort()

    await city.driver("d1", north_of(RESTAURANT, 300))
    await city.driver("d2", north_of(RESTAURANT, 600))
    await failed_order(city, "d1")
    order = await city.order("confirm")
    page = await open_page(
        f"/fleet?order={order['order_id']}#{city.staff_token}",
        before=lambda page: page.route("**/returns?*", refuse),
    )
    assert await wait_for_text(page, "#couriers li:has([value=d1])", "takes an order back")
    assert await wait_for_text(page, "#couriers li:has([value=d2])", "free")
    await page.fill("#query", "d1")
    assert await wait_for_text(page, "#results", "On the way back")
    await page.fill("#query", "d2")
    assert await wait_for_text(page, "#results", "Available")
    await page.fill("#query", "d1")
    assert await wait_for_text(page, "#results", "d1")
    await page.click("#results button")
    assert await wait_for_text(page, "#driver dl", "On the way back")
