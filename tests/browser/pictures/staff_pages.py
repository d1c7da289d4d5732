"""Pictures of the staff's pages, over the real stack; alerts are replaced (the seam is Alerts)."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from typing import Any

from playwright.async_api import Page

from tests.browser.page_checks import DESKTOP, eventually, wait_for_text
from tests.browser.pictures.studio import Studio
from tests.browser.test_dispatch import Alerts, busy_evening, report_evening
from tests.browser.test_fleet import NO_WEBGL, fleet_value
from tests.browser.test_restaurant import ITEMS, open_restaurant
from tests.integration.http_services import CUSTOMER, RESTAURANT, north_of

VISIONS = ("none", "protanopia", "deuteranopia", "tritanopia", "achromatopsia")

Step = Callable[[Page], Awaitable[Any]]


async def picture_dispatch(studio: Studio) -> None:
    """The queue, an order, a new order, a driver, alerts, an ended order, the past; vision."""
    city = studio.city
    order = await busy_evening(city)
    cancelled = await city.order("confirm", customer_name="Late Larry")
    await city.command(cancelled, "cancel", reason="The kitchen is closed")
    north_m = itertools.count(3)  # a new place each time
    order_id, ended_id = order["order_id"], cancelled["order_id"]

    async def show(query: str, text: str, step: Step | None = None, **options: Any) -> Page:
        before = Alerts(order_id).install
        await report_evening(city, next(north_m))
        page = await studio.open_page(f"/fleet{query}#{city.staff_token}", before=before, **options)
        assert await eventually(lambda: fleet_value(page, "known")) == 12
        await page.wait_for_selector(text, state="attached")
        await page.wait_for_timeout(2000)  # restaurants, couriers
        if step is not None:
            await step(page)
        return page

    states: dict[str, tuple[str, str, Step | None]] = {
        "queue": ("", "#orders li", None),
        "an order": (f"?order={order_id}", "#timeline li", None),
        "a driver": ("?driver=d9", "#driver dl", None),
        "new order": ("", "#orders li", lambda page: page.keyboard.press("n")),
        "ended order": (f"?order={ended_id}", "#timeline li", None),
        "the past": ("", "#orders li", lambda page: page.keyboard.press("p")),
        "the keys": ("", "#orders li", lambda page: page.keyboard.press("?")),
    }
    await _picture_vision(studio, await show("", "#orders li", size=DESKTOP))
    for name, (query, text, step) in states.items():

        async def opening(
            query: str = query, text: str = text, step: Step | None = step, **options: Any
        ) -> Page:
            return await show(query, text, step, **options)

        await studio.take(name, opening)

    async def map_alone(**options: Any) -> Page:
        return await show(
            "", "#orders li", lambda page: page.click("#tabs [data-tab=map]"), **options
        )

    await studio.take("map", map_alone, sizes=("phone",))

    async def without_connection(**options: Any) -> Page:
        page = await show("", "#orders li", **options)
        await page.context.set_offline(True)
        await page.wait_for_selector("#connection-banner:not([hidden])")
        return page

    await studio.take("no connection", without_connection)

    async def without_webgl(**options: Any) -> Page:
        async def before(page: Page) -> None:
            await page.add_init_script(f"({NO_WEBGL})()")

        await report_evening(city, next(north_m))
        page = await studio.open_page(f"/fleet#{city.staff_token}", before=before, **options)
        await page.wait_for_selector("#driver-list li", state="attached")
        await page.wait_for_selector("#orders li", state="attached")
        return page

    await studio.take("without WebGL", without_webgl)

    async def way_back(**options: Any) -> Page:
        return await show("", "#return-list li", **options)

    under_way = (await city.staff.get("/drivers/d1")).json()["orders"][0]
    await city.command(under_way, "fail", reason="customer_absent", next_step="return")
    await studio.take("on the way back", way_back)


async def _picture_vision(studio: Studio, page: Page) -> None:
    """The couriers on the map, as people with another colour vision see them."""
    await page.locator("#states button", has_text="Restaurants").click()
    await page.evaluate("(center) => doorstepMap.jumpTo({ center, zoom: 14 })", RESTAURANT)
    await page.wait_for_timeout(2000)
    session = await page.context.new_cdp_session(page)
    for kind in VISIONS:
        await session.send("Emulation.setEmulatedVisionDeficiency", {"type": kind})
        await page.wait_for_timeout(500)
        label = "usual vision" if kind == "none" else kind
        studio.add("vision", label, await page.screenshot())
    await page.context.close()


async def picture_restaurant(studio: Studio) -> None:
    """No order, every kind of order, and no connection."""
    city = studio.city

    async def opening(**options: Any) -> Page:
        return await open_restaurant(city, studio.open_page, **options)

    await studio.take("no order", opening)
    await city.driver("d1", CUSTOMER)
    await city.order(items=ITEMS, customer_name="Carla Rossi", external_id="shop-1042")
    await city.order("confirm", items=ITEMS)
    await city.order("cancel")
    await city.order(driver_id="d1", items=ITEMS)

    async def with_orders(**options: Any) -> Page:
        page = await opening(**options)
        await page.wait_for_selector("#gone li")
        return page

    await studio.take("orders", with_orders)

    async def without_connection(**options: Any) -> Page:
        page = await with_orders(**options)
        await page.route("**/restaurant/orders", lambda route: route.abort())
        await page.wait_for_selector("#connection-banner:not([hidden])")
        return page

    await studio.take("no connection", without_connection)


async def picture_reports(studio: Studio) -> None:
    """A day with orders, and one without."""
    city = studio.city
    await city.driver("d1", RESTAURANT)
    failed = await city.order(driver_id="d1", promised_to="2026-01-01T00:00:00Z")
    for command in ("picked-up", "failed"):
        await city.phone("d1", f"orders/{failed['order_id']}/{command}")
    await city.order("cancel")
    await city.driver("d2", north_of(RESTAURANT, 200))
    done = await city.order(driver_id="d2")
    for command in ("picked-up", "delivered"):
        await city.phone("d2", f"orders/{done['order_id']}/{command}")
    for name, query, text in (("today", "", "Da Mario"), ("no order", "?date=2026-03-10", "0")):

        async def opening(query: str = query, text: str = text, **options: Any) -> Page:
            page = await studio.open_page(f"/reports{query}#{city.staff_token}", **options)
            assert await wait_for_text(page, "#report", text)
            return page

        await studio.take(name, opening)


async def picture_sign_in(studio: Studio) -> None:
    """The form, and a wrong token."""

    async def opening(**options: Any) -> Page:
        page = await studio.open_page("/sign-in", **options)
        await page.wait_for_selector("input[name=token]")
        return page

    async def wrong(**options: Any) -> Page:
        page = await opening(**options)
        await page.fill("input", "stf_wrong")
        await page.keyboard.press("Enter")
        await page.wait_for_selector("#error:not(:empty)")
        return page

    await studio.take("form", opening)
    await studio.take("wrong token", wrong)
