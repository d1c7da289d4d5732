"""The fleet's page in a real browser, over the whole stack."""

from __future__ import annotations

from typing import Any

from tests.browser.looking import drawn, seen, watch
from tests.integration.http_services import RESTAURANT, north_of


async def test_fleet__with_a_staff_token__draws_every_driver_and_counts_them(city, open_page):
    for n in (1, 2, 3):
        await city.driver(f"d{n}", north_of(RESTAURANT, 150 * n))
    await city.order("confirm", "assign")
    bad: list[str] = []
    page = await open_page(
        f"/fleet#{city.staff_token}", before=lambda page: bad.append(watch(page))
    )
    assert await seen(lambda: drawn(page, "drivers")) == 3
    assert await page.text_content("#drivers-count") == "3"
    assert await seen(lambda: page.locator("#orders li").count()) == 1
    assert "To restaurant" in (await page.text_content("#legend") or "")
    attribution = await page.text_content(".maplibregl-ctrl-attrib")
    assert attribution is not None
    assert "© OpenStreetMap contributors" in attribution
    assert city.staff_token not in page.url
    await page.locator("#orders button").click()
    assert await seen(lambda: page.locator("#detail dl").count()) == 1
    assert await seen(lambda: drawn(page, "way-ends")) == 2
    assert await seen(lambda: drawn(page, "way"))
    assert bad == [[]]


async def test_fleet__orders_without_a_driver__come_first_the_longest_waiting_on_top(
    city, open_page
):
    await city.driver("d1", RESTAURANT)
    waiting = [await city.order("confirm") for _ in range(7)]
    active = await city.order("confirm", "assign")
    page = await open_page(f"/fleet#{city.staff_token}")

    async def listed() -> list[str]:
        return await page.locator("#orders li .mono").all_text_contents()

    def short(orders: list[dict[str, Any]]) -> list[str]:
        return [order["order_id"][:8] for order in orders]

    assert await seen(listed) == short([*waiting[:5], active])
    await page.get_by_role("button", name="2 more").click()
    assert await listed() == short([*waiting, active])


async def test_fleet__with_a_wrong_token__asks_for_another(city, open_page):
    page = await open_page("/fleet#stf_wrong")
    assert await seen(lambda: page.locator("#door").is_visible())
    assert await page.text_content("#trouble") == "This token is not good."
    await page.fill("#door input", city.staff_token)
    await page.click("#door button")
    assert await seen(lambda: page.locator("#door").is_hidden())
