"""Pictures of the pages for admins, and of the series.

The seam: `observe_answers` replaces Prometheus's answers in the state "charts".
"""

from __future__ import annotations

from contextlib import closing
from typing import Any

from playwright.async_api import Page

from tests.browser.page_checks import wait_for_text
from tests.browser.pictures.observe_answers import install_dashboards
from tests.browser.pictures.studio import Studio
from tests.browser.test_admin import open_admin
from tests.browser.test_series import Source, state_of
from tests.browser.test_sign_in import add_staff


async def picture_admin(studio: Studio) -> None:
    """Each tab, and the form of its first row."""
    city = studio.city
    for n in range(4):
        await city.driver(f"d{n}")
    for tab in ("drivers", "restaurants", "service_areas", "policies", "webhooks"):

        async def opening(tab: str = tab, **options: Any) -> Page:
            page = await open_admin(city, studio.open_page, tab, **options)
            await page.wait_for_timeout(1500)
            return page

        await studio.take(tab.replace("_", " "), opening)

        async def with_form(tab: str = tab, **options: Any) -> Page:
            page = await open_admin(city, studio.open_page, tab, **options)
            await page.wait_for_timeout(1500)
            if tab == "webhooks":
                await page.click("#add")
            else:
                await page.locator("#table tbody button").first.click()
            await page.wait_for_timeout(1500)
            return page

        await studio.take(f"{tab.replace('_', ' ')}: form", with_form)


async def picture_observe(studio: Studio) -> None:
    """The charts, Kafka as tables, and who may not see them."""
    _, admin = add_staff(studio.city, "admin")
    _, dispatcher = add_staff(studio.city, "dispatcher")

    async def charts(**options: Any) -> Page:
        page = await studio.open_page(f"/observe#{admin}", before=install_dashboards, **options)
        await page.goto("/observe#database")
        await page.wait_for_selector("#panels .u-legend")
        return page

    async def kafka(**options: Any) -> Page:
        page = await studio.open_page(f"/observe#{admin}", **options)
        assert await wait_for_text(page, "#kafka", "driver-events-series")
        return page

    async def refused(**options: Any) -> Page:
        page = await studio.open_page(f"/observe#{dispatcher}", **options)
        await page.wait_for_selector("#problem:not([hidden])")
        return page

    await studio.take("charts", charts)
    await studio.take("for a role: admin", kafka)
    await studio.take("for a role: dispatcher", refused)


async def picture_series(studio: Studio) -> None:
    """No series selected, one, two, and two without a connection."""
    with closing(Source(studio.city.stack, "box-0")) as source:
        for measure in ("box_c", "door"):
            await source.publish_values(measure, *(((n * 7) % 40) - 25.5 for n in range(120)))

        async def none(**options: Any) -> Page:
            page = await studio.open_page(f"/series#{source.token}", **options)
            await page.wait_for_selector("#list li")
            return page

        async def opened(address: str, **options: Any) -> Page:
            page = await studio.open_page(address, **options)
            await state_of(page, lambda state: len(state["ys"]) > 0)
            return page

        async def one(**options: Any) -> Page:
            return await opened(source.page_of("box_c"), **options)

        async def two(**options: Any) -> Page:
            beside = f"{source.name('box_c')}&beside={source.name('door')}"
            page = await opened(f"/series?name={beside}#{source.token}", **options)
            await page.locator("#table summary").click()
            return page

        async def without_connection(**options: Any) -> Page:
            page = await two(**options)
            await page.context.set_offline(True)
            await page.wait_for_selector(".stale .as-of")
            return page

        await studio.take("none selected", none)
        await studio.take("one", one)
        await studio.take("two", two)
        await studio.take("no connection", without_connection)
