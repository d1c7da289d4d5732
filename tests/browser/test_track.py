"""The customer's page in a real browser, over the whole stack."""

from __future__ import annotations

import os
import signal
from typing import Any

from playwright.async_api import Page, Route

from tests.browser.looking import PHONE, drawn, says, seen, watch
from tests.integration.http_services import CUSTOMER, RESTAURANT, north_of


async def test_track__from_the_link__shows_the_courier_while_under_way(city, open_page):
    await city.driver("d1", RESTAURANT)
    order = await city.order(driver_id="d1")
    mine = f"orders/{order['order_id']}"
    await city.phone("d1", f"{mine}/picked-up")
    await city.report("d1", north_of(RESTAURANT, 300))

    bad: list[Any] = []
    page = await open_page(
        order["customer_link"], size=PHONE, before=lambda page: bad.append(watch(page))
    )
    assert await seen(lambda: drawn(page, "courier")) == 1
    assert await seen(lambda: drawn(page, "way"))
    assert await page.text_content("#number") == order["order_id"][:8]
    assert await page.text_content("#state") == "On the way to you"
    assert "min" in (await page.text_content("#minutes") or "")
    assert "#" not in page.url  # the token is a cookie now, which no script can read
    [cookie] = await page.context.cookies(f"{city.url}/track/{order['order_id']}")
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert await page.evaluate("document.cookie") == ""

    await city.phone("d1", f"{mine}/delivered")
    await city.report("d1", CUSTOMER)

    async def no_courier() -> bool:
        return await drawn(page, "courier") == 0

    assert await seen(no_courier)
    assert await page.text_content("#state") == "Delivered"
    await page.reload()
    assert await seen(lambda: page.locator("#steps li.now").count()) == 1
    assert bad == [[]]


async def test_track__tracking_api_killed__heals_by_itself_with_each_event_once(city, open_page):
    await city.driver("d1", RESTAURANT)
    order = await city.order(driver_id="d1")
    await city.report("d1", north_of(RESTAURANT, 300))
    page = await open_page(order["customer_link"], size=PHONE)
    await page.evaluate("globalThis.neverReloaded = true")
    assert await says(page, "#state", "Courier on the way to the restaurant")
    os.kill(city.stack.pid_of("tracking_api"), signal.SIGKILL)
    await city.phone("d1", f"orders/{order['order_id']}/picked-up")
    assert await says(page, "#state", "On the way to you")
    assert await says(page, "#fresh-text", "Courier seen")
    await city.phone("d1", f"orders/{order['order_id']}/delivered")
    assert await says(page, "#state", "Delivered")
    # created, confirmed and assigned came in the snapshot, which is numbered by its newest event
    assert await page.evaluate("doorstepEvents") == [3, 4, 5]
    assert await page.evaluate("neverReloaded")


async def test_track__no_answer_at_first__opens_when_there_is_one(city, open_page):
    order = await city.order()
    failures = 2

    async def fail_at_first(route: Route) -> None:
        nonlocal failures
        failures -= 1
        await (route.fulfill(status=503) if failures >= 0 else route.continue_())

    async def before(page: Page) -> None:
        await page.route("**/track/*/session", fail_at_first)

    page = await open_page(order["customer_link"], before=before)
    assert await seen(lambda: page.locator("#steps li.now").count()) == 1
    assert await page.text_content("#state") == "Order placed"
    assert await page.locator("#gone").is_hidden()


async def test_track__with_a_bad_link__says_so_and_nothing_else(city, open_page):
    order = await city.order()
    page = await open_page(f"{order['customer_link']}x")
    assert await seen(lambda: page.locator("#gone").is_visible())
