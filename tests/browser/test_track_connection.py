"""The customer's page in a real browser while the server or the network fails."""

from __future__ import annotations

import os
import re
import signal
import time

from playwright.async_api import Page, Route

from tests.browser.page_checks import PHONE, eventually, wait_for_text
from tests.browser.test_track import picked_up_order
from tests.integration.http_services import RESTAURANT, north_of

FRESHNESS_TEXTS = """() => {
  globalThis.texts = [];
  const shown = document.getElementById("freshness-text");
  new MutationObserver(() => texts.push(shown.textContent)).observe(shown, { childList: true });
}"""


async def test_track__tracking_api_killed__reconnects_and_shows_each_event_once(city, open_page):
    await city.driver("d1", RESTAURANT)
    order = await city.order(driver_id="d1")
    await city.report("d1", north_of(RESTAURANT, 300))
    page = await open_page(order["customer_link"], size=PHONE)

    async def is_connected() -> bool:
        return await page.text_content("#connection") == ""

    await page.evaluate("globalThis.neverReloaded = true")
    assert await wait_for_text(page, "#state", "Courier on the way to the restaurant")
    os.kill(city.stack.pid_of("tracking_api"), signal.SIGKILL)
    killed_at = time.monotonic()
    assert await wait_for_text(page, "#connection", "Retrying")
    await city.phone("d1", f"orders/{order['order_id']}/picked-up")
    assert await wait_for_text(page, "#state", "On the way to you")
    # The state may have come by a poll, between two attempts of the stream.
    assert await eventually(is_connected)
    print(f"reconnected {time.monotonic() - killed_at:.1f} s after the kill")
    await city.phone("d1", f"orders/{order['order_id']}/delivered")
    assert await wait_for_text(page, "#state", "Delivered")
    # created, confirmed and assigned came in the snapshot, which is numbered by its newest event
    assert await page.evaluate("doorstepEvents") == [3, 4, 5]
    assert await page.evaluate("neverReloaded")


async def test_track__session_fails_at_first__opens_after_retries(city, open_page):
    order = await city.order()
    failures = 2

    async def fail_at_first(route: Route) -> None:
        nonlocal failures
        failures -= 1
        await (route.fulfill(status=503) if failures >= 0 else route.continue_())

    async def before(page: Page) -> None:
        await page.route("**/track/*/session", fail_at_first)

    page = await open_page(order["customer_link"], before=before)
    assert await eventually(lambda: page.locator("#steps li.current").count()) == 1
    assert await page.text_content("#state") == "Order placed"
    assert await page.locator("#link-ended").is_hidden()


async def minutes_and_freshness(page: Page) -> tuple[str | None, str | None]:
    """The texts that depend on the age of the data."""
    return await page.text_content("#minutes"), await page.text_content("#freshness-text")


async def test_track__server_frozen__shows_the_lost_connection_and_stops_the_countdown(
    city, open_page
):
    order = await picked_up_order(city)
    await city.report("d1", north_of(RESTAURANT, 300))
    page = await open_page(order["customer_link"], size=PHONE)
    assert await wait_for_text(page, "#minutes", "min")
    await page.evaluate(FRESHNESS_TEXTS)
    frozen = city.stack.pid_of("tracking_api")
    os.kill(frozen, signal.SIGSTOP)
    try:
        assert await wait_for_text(page, "#connection", "No connection to the server since")
        texts = await page.evaluate("texts")
        assert [text for text in texts if re.search("last seen (2[0-9]|[3-9][0-9]) s", text)] == []
        before = await minutes_and_freshness(page)
        assert (before[1] or "").startswith("Courier's position of")  # the courier is not blamed
        assert await page.locator("#minutes.muted").count() == 1
        await page.evaluate("(now) => { Date.now = () => now + 600_000 }", time.time() * 1000)
        await page.wait_for_timeout(2500)
        assert await minutes_and_freshness(page) == before
    finally:
        os.kill(frozen, signal.SIGCONT)

    async def is_connected() -> bool:
        return await page.text_content("#connection") == ""

    assert await eventually(is_connected)


async def test_track__no_response_to_the_stream__times_out_and_polls(city, open_page):
    order = await picked_up_order(city)
    await city.report("d1", RESTAURANT)
    held: list[Route] = []

    async def before(page: Page) -> None:
        await page.route("**/stream*", lambda route: held.append(route))

    page = await open_page(order["customer_link"], size=PHONE, before=before)
    assert await wait_for_text(page, "#state", "On the way to you")  # by GET, after the time-out
    assert len(held) >= 1


async def test_track__back_from_the_page_cache__is_up_to_date_at_once(city, open_page):
    order = await picked_up_order(city)
    await city.report("d1", RESTAURANT, ago_s=4)
    page = await open_page(order["customer_link"], size=PHONE)
    assert await wait_for_text(page, "#state", "On the way to you")
    transition = "(type) => dispatchEvent(new PageTransitionEvent(type, { persisted: true }))"
    await page.evaluate(transition, "pagehide")
    await city.phone("d1", f"orders/{order['order_id']}/delivered")
    await page.wait_for_timeout(2000)
    assert await page.text_content("#state") == "On the way to you"  # closed while in the cache
    assert await page.text_content("#connection") == ""
    await page.evaluate(transition, "pageshow")
    assert await wait_for_text(page, "#state", "Delivered")
