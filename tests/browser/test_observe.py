"""The page /observe of a stack without monitoring: Kafka as tables, and who may see them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.conftest import City, OpenPage
from tests.browser.page_checks import (
    DESKTOP,
    PHONE,
    accessibility_violations,
    collect_errors,
    wait_for_text,
)
from tests.browser.test_sign_in import add_staff


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
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
    assert await page.locator("#kafka select").count() == 3  # of topics without positions
    await page.select_option("select[aria-label='Messages of tracking-updates']", "0")
    assert await wait_for_text(page, "#kafka", "Newest messages of tracking-updates, partition 0")
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
