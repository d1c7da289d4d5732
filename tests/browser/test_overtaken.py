"""Answers that a later one has overtaken are not shown: each test holds an earlier answer back."""

from __future__ import annotations

import asyncio

from playwright.async_api import Page, Route

from tests.browser.conftest import City, OpenPage
from tests.browser.page_checks import PHONE, eventually, wait_for_text
from tests.browser.test_dispatch import Alerts
from tests.browser.test_drive import token_of, url_of
from tests.browser.test_restaurant import open_restaurant
from tests.browser.test_sign_in import add_staff
from tests.browser.test_track import picked_up_order
from tests.integration.http_services import RESTAURANT, north_of

SETTLED_MS = 500  # a late answer is drawn at once


class Held:
    """Holds the next answer of an address back, which is read before."""

    def __init__(self, page: Page, address: str) -> None:
        self._page, self._address = page, address
        self._is_read, self._is_released = asyncio.Event(), asyncio.Event()
        self._is_answered = asyncio.Event()

    async def start(self) -> None:
        await self._page.route(self._address, self._hold, times=1)

    async def read(self) -> None:
        """Wait until the answer has been read, and is held back."""
        await asyncio.wait_for(self._is_read.wait(), 30)

    async def release(self) -> None:
        """Let the page have the answer, and draw it."""
        self._is_released.set()
        await asyncio.wait_for(self._is_answered.wait(), 30)
        await self._page.wait_for_timeout(SETTLED_MS)

    async def _hold(self, route: Route) -> None:
        response = await route.fetch()
        self._is_read.set()
        await self._is_released.wait()
        await route.fulfill(response=response)
        self._is_answered.set()


async def held(page: Page, address: str) -> Held:
    found = Held(page, address)
    await found.start()
    return found


async def staff_page(city: City, open_page: OpenPage, path: str = "/fleet") -> Page:
    page = await open_page(f"{path}#{city.staff_token}")
    assert await wait_for_text(page, "#connection", "live")
    return page


async def test_track__polled_answer_of_before_the_end__does_not_bring_the_order_back(
    city: City, open_page: OpenPage
) -> None:
    await city.driver("d1", RESTAURANT)
    order = await city.order(driver_id="d1")
    page = await open_page(order["customer_link"], size=PHONE)
    assert await wait_for_text(page, "#state", "Courier on the way to the restaurant")
    earlier = await held(page, f"**/track/{order['order_id']}")
    await city.phone("d1", f"orders/{order['order_id']}/picked-up")
    await earlier.read()  # the event has the page fetch what a stream does not bring
    await city.phone("d1", f"orders/{order['order_id']}/delivered")
    assert await wait_for_text(page, "#state", "Delivered")
    await earlier.release()
    assert await page.text_content("#state") == "Delivered"


async def test_track__answer_after_the_end_fails__is_fetched_again(
    city: City, open_page: OpenPage
) -> None:
    order = await picked_up_order(city)
    await city.report("d1", north_of(RESTAURANT, 300))
    page = await open_page(order["customer_link"], size=PHONE)
    assert await wait_for_text(page, "#state", "On the way to you")
    failed = 0

    async def fail(route: Route) -> None:
        nonlocal failed
        failed += 1
        await route.abort()

    await page.route(f"**/track/{order['order_id']}", fail, times=2)
    fetched: list[str] = []
    page.on("response", lambda response: fetched.append(response.url))
    await city.phone("d1", f"orders/{order['order_id']}/delivered")
    assert await wait_for_text(page, "#state", "Delivered")

    async def is_fetched() -> bool:
        return any(url.endswith(f"/track/{order['order_id']}") for url in fetched)

    assert await eventually(is_fetched)
    assert failed == 2


async def test_fleet__orders_of_before_a_command__do_not_undo_it(
    city: City, open_page: OpenPage
) -> None:
    await city.driver("d1", RESTAURANT)
    order = await city.order()
    page = await staff_page(city, open_page)
    await page.locator(f"#order-{order['order_id']}").click()
    assert await wait_for_text(page, "#order h2", "Created")
    earlier = await held(page, "**/fleet/orders")
    await earlier.read()
    await page.get_by_role("button", name="Confirm").click()
    assert await wait_for_text(page, "#order h2", "Confirmed")
    await earlier.release()
    assert "Confirmed" in (await page.text_content("#order h2") or "")


async def test_fleet__order_opened_after_another_that_is_slow__stays_open(
    city: City, open_page: OpenPage
) -> None:
    ended, opened = [await city.order("confirm") for _ in range(2)]
    await city.command(ended, "cancel")
    page = await staff_page(city, open_page)
    slow = await held(page, f"**/orders/{ended['order_id']}")
    await page.fill("#query", ended["order_id"][:8])
    await page.locator("#results button").click()
    await slow.read()
    await page.locator(f"#order-{opened['order_id']}").click()
    assert await wait_for_text(page, "#order h2", opened["order_id"][:8])
    await slow.release()
    assert opened["order_id"][:8] in (await page.text_content("#order h2") or "")
    assert f"order={opened['order_id']}" in page.url


async def test_fleet__link_of_an_order_left_meanwhile__is_not_shown_with_another(
    city: City, open_page: OpenPage
) -> None:
    first, second = [await city.order("confirm") for _ in range(2)]
    page = await staff_page(city, open_page)
    await page.locator(f"#order-{first['order_id']}").click()
    slow = await held(page, f"**/orders/{first['order_id']}/link")
    await page.locator("#new-link").click()
    await slow.read()
    await page.locator(f"#order-{second['order_id']}").click()
    assert await wait_for_text(page, "#order h2", second["order_id"][:8])
    await slow.release()
    assert await page.text_content("#customer-link") == ""


async def test_fleet__details_of_an_ended_order_fail__are_read_again(
    city: City, open_page: OpenPage
) -> None:
    order = await city.order(customer_name="Carla Rossi")
    await city.command(order, "cancel")
    failures = 0

    async def fail(route: Route) -> None:
        nonlocal failures
        failures += 1
        await route.abort()

    page = await staff_page(city, open_page)
    await page.route("**/orders/*/timeline", fail, times=1)
    await page.fill("#query", order["order_id"][:8])
    await page.locator("#results button").click()
    assert await wait_for_text(page, "#timeline", "Cancelled")
    assert failures == 1
    assert "Carla Rossi" in (await page.text_content("#order-facts") or "")


async def test_fleet__driver_of_before_a_change__is_not_shown_again(
    city: City, open_page: OpenPage
) -> None:
    await city.driver("d1", RESTAURANT)
    page = await staff_page(city, open_page, "/fleet?driver=d1")
    assert await wait_for_text(page, "#driver dl", "Available")
    earlier = await held(page, "**/drivers/d1")
    await earlier.read()
    await city.phone("d1", "on-break")
    await page.get_by_role("button", name="Past", exact=True).click()
    await page.keyboard.press("Escape")  # reads the driver at once
    assert await wait_for_text(page, "#driver dl", "On break")
    await earlier.release()
    assert "On break" in (await page.text_content("#driver dl") or "")


async def test_fleet__alerts_of_before_an_acknowledgement__do_not_undo_it(
    city: City, open_page: OpenPage
) -> None:
    order = await city.order()
    alerts = Alerts(order["order_id"])
    waiting: list[asyncio.Event] = []
    page = await open_page(f"/fleet#{city.staff_token}", before=alerts.install)
    assert await eventually(page.locator("#acknowledge-7").count)

    async def hold(route: Route) -> None:
        listed = {"alerts": [dict(alerts.alert)]}
        waiting.append(asyncio.Event())
        await waiting[-1].wait()
        await route.fulfill(json=listed)

    await page.route("**/alerts?*", hold, times=1)

    async def is_held() -> bool:
        return bool(waiting)

    assert await eventually(is_held)
    await page.locator("#acknowledge-7").click()
    assert await wait_for_text(page, "#alert-list", "seen by anna")
    waiting[0].set()
    await page.wait_for_timeout(SETTLED_MS)
    assert "seen by anna" in (await page.text_content("#alert-list") or "")


async def test_restaurant__orders_of_before_the_confirmation__do_not_ring_again(
    city: City, open_page: OpenPage
) -> None:
    order = await city.order()
    page = await open_restaurant(city, open_page)
    card = f"[data-order='{order['order_id']}']"
    assert await eventually(page.locator(f"#fresh {card}").count)
    earlier = await held(page, "**/restaurant/orders")
    await earlier.read()
    await page.locator(f"#fresh {card}").get_by_role("button", name="Confirm").click()
    assert await eventually(page.locator(f"#kitchen {card}").count)
    await page.evaluate("document.getElementById('announcement').textContent = ''")
    await earlier.release()
    assert await page.locator(f"#kitchen {card}").count() == 1
    assert await page.text_content("#announcement") == ""


async def test_admin__failure_of_a_tab_that_was_left__is_not_reported(
    city: City, open_page: OpenPage
) -> None:
    release = asyncio.Event()
    asked = asyncio.Event()

    async def fail_late(route: Route) -> None:
        asked.set()
        await release.wait()
        await route.abort()

    async def before(page: Page) -> None:
        await page.route("**/drivers?limit=*", fail_late, times=1)

    _, token = add_staff(city, "admin")
    page = await open_page(f"/admin?tab=drivers#{token}", before=before)
    await asyncio.wait_for(asked.wait(), 30)
    await page.locator("#tab-policies").click()
    assert await wait_for_text(page, "#table", "(default)")
    release.set()
    await page.wait_for_timeout(SETTLED_MS)
    assert await page.text_content("#error") == ""


async def test_observe__messages_of_a_topic_that_was_left__are_not_shown_as_the_next_ones(
    city: City, open_page: OpenPage
) -> None:
    _, token = add_staff(city, "admin")
    page = await open_page(f"/observe#{token}")
    first, second = "series", "tracking-updates"
    selector = page.get_by_label("Messages of", exact=True)
    assert await eventually(selector.locator(f"option[value='{second}/0']").count)
    asked, release = asyncio.Event(), asyncio.Event()
    left = "a message of the topic that was left"
    message = {"offset": 1, "at": None, "key": left, "value": "{}", "size_bytes": 2, "headers": {}}

    async def answer_late(route: Route) -> None:
        asked.set()
        await release.wait()
        await route.fulfill(json={"messages": [message]})

    await page.route(f"**/observe/kafka/topics/{first}/messages*", answer_late, times=1)
    await selector.select_option(f"{first}/0")
    await asyncio.wait_for(asked.wait(), 30)
    async with page.expect_response(f"**/observe/kafka/topics/{second}/messages*"):
        await selector.select_option(f"{second}/0")
    release.set()
    await page.wait_for_timeout(SETTLED_MS)
    assert await page.locator("#kafka td", has_text=left).count() == 0
    assert await selector.input_value() == f"{second}/0"


async def test_drive__answer_about_an_earlier_session__does_not_end_the_new_one(
    city: City, open_page: OpenPage
) -> None:
    await city.driver("d1")
    holds: list[Held] = []

    async def before(page: Page) -> None:
        holds.append(await held(page, "**/drive/session"))

    page = await open_page(url_of(city), size=PHONE, before=before)
    await holds[0].read()
    await page.evaluate("(token) => { location.hash = token }", token_of(city, "d1"))
    await page.wait_for_selector("#work:not([hidden])")
    await holds[0].release()
    assert await page.locator("#work").is_visible()


async def test_session__not_read_at_first__is_read_again(city: City, open_page: OpenPage) -> None:
    failures = 0

    async def fail_once(route: Route) -> None:
        nonlocal failures
        if route.request.method == "GET" and not failures:
            failures += 1
            return await route.abort()
        return await route.continue_()

    async def before(page: Page) -> None:
        await page.route("**/session", fail_once)

    page = await open_page(f"/fleet#{city.staff_token}", before=before)
    assert await eventually(page.locator("#sign-out[title^='Signed in as']").count)
    assert failures == 1
