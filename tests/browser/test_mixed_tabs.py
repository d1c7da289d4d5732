"""More tabs of different pages than a browser has connections, over the whole stack."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from playwright.async_api import Page

from tests.browser.conftest import City, OpenPage
from tests.browser.page_checks import eventually, wait_for_text
from tests.browser.test_fleet import fleet_value
from tests.browser.test_series import Source, state_of
from tests.browser.test_track import picked_up_order
from tests.integration.http_services import RESTAURANT, north_of


@pytest.fixture
def box(stack: Any) -> Iterator[Source]:
    """A source of series."""
    with closing(Source(stack)) as source:
        yield source


async def open_tab(page: Page, address: str) -> Page:
    """Open an address in a further tab of a page's browser."""
    tab = await page.context.new_page()
    await tab.goto(address)
    return tab


async def test_tabs__of_series_customers_and_dispatch__are_all_kept_up_to_date(
    city: City, box: Source, open_page: OpenPage
) -> None:
    order = await picked_up_order(city)
    await city.report("d1", RESTAURANT)
    for measure in "abc":
        await box.publish_values(measure, 1.0)
    first = await open_page(box.page_of("a"))
    charts = [first, *[await open_tab(first, f"/series?name={box.name(one)}") for one in "bc"]]
    link = order["customer_link"]
    customers = [await open_tab(first, link) for _ in range(3)]
    maps = [await open_tab(first, "/fleet") for _ in range(2)]
    for chart in charts:
        await state_of(chart, lambda state: state["ys"] == [1.0])
    for customer in customers:
        assert await wait_for_text(customer, "#state", "On the way to you")
    for one in maps:
        assert await eventually(lambda one=one: fleet_value(one, "frames"))
    frames = [await fleet_value(one, "frames") for one in maps]

    for measure in "abc":
        await box.publish_values(measure, 2.0)
    await city.report("d1", north_of(RESTAURANT, 400))
    await city.phone("d1", f"orders/{order['order_id']}/delivered")
    for chart in charts:
        await state_of(chart, lambda state: state["ys"] == [1.0, 2.0])
        assert await wait_for_text(chart, "#connection", "live")
    for customer in customers:
        assert await wait_for_text(customer, "#state", "Delivered")
    for one, before in zip(maps, frames, strict=True):

        async def has_news(one: Page = one, before: Any = before) -> bool:
            return bool(await fleet_value(one, "frames") > before)

        assert await eventually(has_news)


async def test_series__more_tabs_than_connections__all_are_kept_up_to_date(
    box: Source, open_page: OpenPage
) -> None:
    await box.publish_values("a", 1.0)
    page = await open_page(box.page_of("a"))
    tabs = [page, *[await open_tab(page, f"/series?name={box.name('a')}") for _ in range(7)]]
    for tab in tabs:
        await state_of(tab, lambda state: state["ys"] == [1.0])
    await box.publish_values("a", 2.0)
    for tab in tabs:
        await state_of(tab, lambda state: state["ys"] == [1.0, 2.0])
        assert await wait_for_text(tab, "#connection", "live")
    streaming = [one for one in tabs if (await one.evaluate("doorstepSeries().events"))]
    await streaming[0].close()  # another one gets its place
    await box.publish_values("a", 3.0)
    for tab in tabs:
        if not tab.is_closed():
            await state_of(tab, lambda state: state["ys"] == [1.0, 2.0, 3.0])
