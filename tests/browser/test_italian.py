"""The staff's pages in Italian: no text that a reader sees or hears is the same in English.

The other pages: `test_italian_pages`. A page is opened in both languages, and its texts are
compared; data (names, ids, metrics, times) are left out. The seam: `install_dashboards` replaces
Prometheus's answers.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from playwright.async_api import Page

from tests.browser.conftest import City, OpenPage
from tests.browser.page_checks import (
    PHONE,
    accessibility_violations,
    eventually,
    overflowing_texts,
    wait_for_text,
)
from tests.browser.pictures.observe_answers import install_dashboards, label_of
from tests.browser.test_admin import in_form, open_admin
from tests.integration.http_services import RESTAURANT
from tracking_api.observe.dashboards import DASHBOARDS, PANELS

ENGLISH, ITALIAN = "en-GB", "it-IT"
NARROW = {"width": 320, "height": 568}
COMMON = {"Doorstep", "Id", "Token", "Kafka", "Database", "Offset", "WAL", "Area", "Topic"}
COMMON |= {"Leader"}  # of a partition
# What is read or heard, but for the content of `[lang]`, which names its own language.
TEXTS = """(data) => {
  const found = [document.title];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const isData = (element) => element.closest(`script, noscript, code, [lang]:not(html), ${data}`);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    if (!isData(node.parentElement)) found.push(node.data.trim().replace(/\\s+/g, " "));
  }
  const isRead = (name, element) => /^(title|data-title|alt|label|placeholder)$/.test(name)
    || /^aria-(label|description|placeholder|roledescription|valuetext|braillelabel)$/.test(name)
    || (name === "value" && element.matches("[type=button], [type=submit], [type=reset]"))
    || (name === "content" && element.matches("[name=description]"));
  for (const element of document.querySelectorAll("*")) {
    if (isData(element)) continue;
    for (const { name, value } of element.attributes) {
      if (isRead(name, element)) found.push(value.trim().replace(/\\s+/g, " "));
    }
  }
  return found;
}"""
NO_DATA = "never"  # a selector of nothing

Opening = Callable[..., Awaitable[Page]]
Check = Callable[[Page], Awaitable[None]]


async def texts_of(page: Page, data: str) -> set[str]:
    found: list[str] = await page.evaluate(TEXTS, data)
    return {
        one for one in found if re.search("[A-Za-z]{2}", one) and not re.match(r"\d+ min$", one)
    }


async def untranslated(
    opening: Opening, data: str = NO_DATA, check: Check | None = None
) -> set[str]:
    """The texts that a page has in both languages. `check` gets the Italian page."""
    english = await opening(locale=ENGLISH)
    italian = await opening(locale=ITALIAN)
    assert await italian.evaluate("document.documentElement.lang") == "it"
    before, after = await texts_of(english, data), await texts_of(italian, data)
    assert len(before) > 5 < len(after)
    if check is not None:
        await check(italian)
    await english.context.close()
    await italian.context.close()
    return (before & after) - COMMON


async def is_accessible_and_fits(italian: Page) -> None:
    assert await accessibility_violations(italian) == []
    for size in (PHONE, NARROW):
        await italian.set_viewport_size({"width": size["width"], "height": size["height"]})

        async def fits() -> bool:  # charts follow the window's size later
            return await overflowing_texts(italian) == []

        assert await eventually(fits), await overflowing_texts(italian)


async def shared_texts(opening: Opening, data: str = NO_DATA) -> set[str]:
    """The texts that a page has in both languages; in Italian it also fits and is accessible."""
    return await untranslated(opening, data, is_accessible_and_fits)


@pytest.mark.parametrize("tab", ["drivers", "restaurants", "service_areas", "policies", "webhooks"])
async def test_admin__each_tab_and_its_form_in_italian__has_no_english_left(
    city: City, open_page: OpenPage, tab: str
) -> None:
    await city.driver("d1")

    async def opening(**options: Any) -> Page:
        page = await open_admin(city, open_page, tab, **options)
        await page.click("#add")
        await page.wait_for_selector("#fields input")
        if tab in ("restaurants", "service_areas"):
            assert await eventually(lambda: page.text_content("#map-help"))
        return page

    data = "#table td:not(.actions), #table button, #zones, .maplibregl-ctrl-attrib"
    assert await shared_texts(opening, data) == set()


async def test_admin__invitation_and_deliveries_in_italian__have_no_english_left(
    city: City, open_page: OpenPage
) -> None:
    await city.driver("d1")
    hook = {"url": "https://shop.example/hook", "description": "shop"}
    created = (await city.staff.post("/webhooks", json=hook)).json()
    await city.order()
    path = f"/webhooks/{created['webhook_id']}/deliveries"

    async def has_delivery() -> bool:
        return bool((await city.staff.get(path)).json()["deliveries"])

    assert await eventually(has_delivery)

    async def invitation(**options: Any) -> Page:
        page = await open_admin(city, open_page, "drivers", **options)
        await page.locator("#table td.actions button").nth(1).click()
        await page.wait_for_selector("#invitation")
        return page

    async def deliveries(**options: Any) -> Page:
        page = await open_admin(city, open_page, "webhooks", **options)
        await page.locator("#table td.actions button").nth(2).click()
        await page.wait_for_selector("#message-body tbody tr")
        return page

    assert await shared_texts(invitation, "td:not(.actions), #zones, #invitation") == set()
    assert await shared_texts(deliveries, "td:not(.actions), #zones, #message-title") == set()
    await city.staff.delete(f"/webhooks/{created['webhook_id']}")


async def test_admin__value_that_is_refused_in_italian__is_said_in_italian(
    city: City, open_page: OpenPage
) -> None:
    await city.driver("d1")
    page = await open_admin(city, open_page, "drivers", locale=ITALIAN)
    await page.locator("#table td.actions button").first.click()
    await in_form(page, phone="not a number")
    await page.click("#save")
    assert await wait_for_text(page, "#editor-error", "phone: formato non valido")
    await page.click("#cancel")
    bad = {"name": "d.csv", "mimeType": "text/csv", "buffer": b"driver_id,vehicle\nnino,boat\n"}
    await page.set_input_files("#file", bad)  # type: ignore[arg-type]
    assert await wait_for_text(page, "#message-body", "riga 2, vehicle: valore non valido")
    assert await page.text_content("#message-title") == "Non è stato importato nulla"


@pytest.mark.parametrize("dashboard", [one.dashboard_id for one in DASHBOARDS])
async def test_observe__each_dashboard_in_italian__has_no_english_left(
    city: City, open_page: OpenPage, dashboard: str
) -> None:
    async def opening(**options: Any) -> Page:
        page = await open_page(f"/observe#{city.staff_token}", before=install_dashboards, **options)
        await page.goto(f"/observe#{dashboard}")
        panels = next(one.panels for one in DASHBOARDS if one.dashboard_id == dashboard)
        charts = page.locator("#panels .u-legend")

        async def is_drawn() -> bool:
            return await charts.count() == len(panels)

        assert await eventually(is_drawn)
        return page

    queries = [query for panel in PANELS.values() for query in panel.queries]
    labels = {label_of(query) for query in queries if "{" in query.legend}  # of metrics
    found = await shared_texts(opening, ".u-value, .chart[aria-label]") - labels
    assert found <= {"4 Kafka driver-pos", "Kafka driver-pos", "cache", "bridge", "p50", "p99"}


async def test_observe__kafka_in_italian__has_no_english_left(
    city: City, open_page: OpenPage
) -> None:
    async def opening(**options: Any) -> Page:
        page = await open_page(f"/observe#{city.staff_token}", **options)
        assert await wait_for_text(page, "#kafka", "driver-events-series")
        await page.select_option("#kafka select", "tracking-updates/0")
        return page

    assert await shared_texts(opening, "td") == set()


async def test_reports__day_with_orders_in_italian__has_no_english_left(
    city: City, open_page: OpenPage
) -> None:
    await city.driver("d1", RESTAURANT)
    failed = await city.order(driver_id="d1", promised_to="2026-01-01T00:00:00Z")
    for command in ("picked-up", "failed"):
        await city.phone("d1", f"orders/{failed['order_id']}/{command}")
    await city.order("cancel")

    async def opening(**options: Any) -> Page:
        page = await open_page(f"/reports#{city.staff_token}", **options)
        assert await wait_for_text(page, "#report", "Da Mario")
        return page

    assert await shared_texts(opening, "#city") <= {"Da Mario", "d1"}


async def test_series__none_and_one_in_italian__have_no_english_left(
    city: City, open_page: OpenPage
) -> None:
    for query in ("", "?name=box/nothing"):

        async def opening(query: str = query, **options: Any) -> Page:
            page = await open_page(f"/series{query}#{city.staff_token}", **options)
            assert await eventually(lambda: page.text_content("#connection"))
            await page.wait_for_selector("#simulations form")
            await page.locator("#table summary").click()
            return page

        assert await shared_texts(opening, "#list, #name, #chart") == set()


async def test_sign_in__wrong_token_after_a_session_in_italian__has_no_english_left(
    open_page: OpenPage,
) -> None:
    async def opening(**options: Any) -> Page:
        page = await open_page("/sign-in?ended", **options)
        await page.fill("input", "stf_wrong")
        await page.keyboard.press("Enter")
        await page.wait_for_selector("#error:not(:empty)")
        await page.wait_for_selector("#reason:not([hidden])")
        return page

    assert await shared_texts(opening) == set()
