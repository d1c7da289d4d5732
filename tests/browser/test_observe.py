"""The page /observe of a stack without monitoring: Kafka as tables, and who may see them.

The seam: one test replaces the answer of a Kafka that is away.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from playwright.async_api import Page

from doorstep.kafka.access_control import ADMIN
from tests.browser.conftest import City, OpenPage
from tests.browser.page_checks import (
    DESKTOP,
    PHONE,
    accessibility_violations,
    collect_errors,
    eventually,
    wait_for_text,
)
from tests.browser.test_sign_in import add_staff
from tests.integration.http_services import make_fix

# The texts of a cell and of a summary, without what the other language says.
LANGUAGES = {
    "en-GB": ("in the database", "Partitions of driver-pos", "driver-events lag"),
    "it-IT": ("nel database", "Partizioni di driver-pos", "driver-events arretrato"),
}
KAFKA_AWAY = {
    "en-GB": ("Kafka does not answer", "The tables are of"),
    "it-IT": ("Kafka non risponde", "Le tabelle sono delle"),
}


@pytest.mark.parametrize(
    ("size", "dark"), [(DESKTOP, False), (PHONE, True)], ids=["desktop", "dark phone"]
)
async def test_observe_page__by_an_admin__is_accessible_and_shows_kafka(
    city: City, open_page: OpenPage, screenshots: Path, size: dict[str, int], dark: bool
) -> None:
    _, token = add_staff(city, "admin")
    errors: list[list[str]] = []
    page = await open_page(
        f"/observe#{token}",
        size=size,
        dark=dark,
        before=lambda opened: errors.append(collect_errors(opened)),
    )
    assert await wait_for_text(page, "#problem", "./run up --observe")
    assert await wait_for_text(page, "#kafka", "driver-events-series")
    options = await page.locator("#kafka select option").all_inner_texts()
    topics = {one.partition(",")[0] for one in options} - {"choose"}
    assert topics == {"tracking-updates", "series", "streams"}  # those without positions
    await page.select_option("select[aria-label='Messages of']", "tracking-updates/0")
    assert await wait_for_text(page, "#kafka details[open]", "Partitions of driver-pos")
    while await (closed := page.locator("#kafka details:not([open]) summary")).count():
        await closed.first.click()
    assert await page.locator("#kafka details[open] table").count() > 8
    width = await page.evaluate("document.documentElement.scrollWidth")
    assert width == size["width"]
    assert await accessibility_violations(page) == []
    assert errors == [[]]
    await page.screenshot(path=screenshots / f"observe-{size['width']}-{dark}.png")


async def test_observe_page__by_a_dispatcher__says_who_may_see_it(
    city: City, open_page: OpenPage
) -> None:
    _, token = add_staff(city, "dispatcher")
    page = await open_page(f"/observe#{token}")
    assert await wait_for_text(page, "#problem", "Only admins may see this page.")
    assert await page.locator("#kafka table").count() == 0


async def row_of(page: Page, table: str, *cells: str) -> list[str] | None:
    """The texts of the row of a table that begins with these cells."""
    rows = page.locator(f"{table} tbody tr")
    for row in await rows.all():
        texts = await row.locator("td").all_inner_texts()
        if texts[: len(cells)] == list(cells):
            return texts
    return None


async def test_observe_page__driver_events_stopped_and_started__shows_its_lag_and_none(
    city: City, open_page: OpenPage
) -> None:
    _, token = add_staff(city, "admin")
    await city.driver("d1")
    groups, partitions = "#kafka article", "#kafka details[open]"
    city.stack.stop_process("driver_events")
    try:
        access = city.stack.kafka_access(ADMIN).as_librdkafka_dict()
        producer = Producer({**access, "log_level": 0})
        for seq in range(1, 4):
            fix = json.dumps(make_fix(boot="lag", seq=seq))
            producer.produce("driver-pos", fix, "d1", partition=5)
        assert producer.flush(20) == 0
        pages: dict[str, Page] = {}
        for locale, texts in LANGUAGES.items():
            page = pages[locale] = await open_page(f"/observe#{token}", locale=locale)
            kept_in, title, column = texts

            async def is_behind(page: Page = page) -> bool:
                row = await row_of(page, groups, "driver-events", "driver-pos")
                return row is not None and row[2] == "3" and "(3)" in row[3]

            assert await eventually(is_behind)
            row = await row_of(page, groups, "driver-events", "driver-pos") or []
            assert kept_in in row
            assert title in await page.inner_text(f"{partitions} summary")
            heads = await page.locator(f"{partitions} th").all_inner_texts()
            one = await row_of(page, partitions, "5") or []
            assert one[heads.index(column)] == "3"
            assert one[1] != "-1"
    finally:
        city.stack.start_process("driver_events")
    for page in pages.values():

        async def is_even(page: Page = page) -> bool:
            row = await row_of(page, groups, "driver-events", "driver-pos")
            return row is not None and row[2] == "0"

        assert await eventually(is_even)
    city.stack.wait_ready()


@pytest.mark.parametrize("locale", KAFKA_AWAY)
async def test_observe_page__kafka_stops_answering__says_so_and_keeps_the_tables(
    city: City, open_page: OpenPage, locale: str
) -> None:
    _, token = add_staff(city, "admin")
    page = await open_page(f"/observe#{token}", locale=locale)
    assert await wait_for_text(page, "#kafka", "driver-events-series")
    problem: dict[str, Any] = {"type": "/problems/kafka-unavailable", "status": 503}
    await page.route("**/observe/kafka", lambda route: route.fulfill(status=503, json=problem))
    for text in KAFKA_AWAY[locale]:
        assert await wait_for_text(page, "#kafka", text)
    assert await wait_for_text(page, "#kafka", "driver-events-series")
    await page.unroute("**/observe/kafka")

    async def is_back() -> bool:
        return await page.locator("#kafka .away").count() == 0

    assert await eventually(is_back)
    assert await page.locator("#kafka table").count() > 8
