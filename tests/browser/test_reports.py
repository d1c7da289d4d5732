"""The page of a day's report: figures, tables, the link to the CSV, and the printed sheet."""

from __future__ import annotations

from pathlib import Path

import pytest

from data import BUNDLED_CITY
from tests.browser.conftest import City, OpenPage
from tests.browser.page_checks import (
    DESKTOP,
    PHONE,
    accessibility_violations,
    collect_errors,
    wait_for_text,
)
from tests.browser.test_sign_in import has_path
from tests.integration.http_services import RESTAURANT


@pytest.mark.parametrize(
    ("size", "dark"), [(DESKTOP, False), (PHONE, True)], ids=["desktop", "dark phone"]
)
async def test_report__of_today__is_shown_accessible_and_can_be_downloaded_and_printed(
    city: City, open_page: OpenPage, screenshots: Path, size: dict[str, int], dark: bool
) -> None:
    errors: list[list[str]] = []
    await city.driver("d1", RESTAURANT)
    failed = await city.order(driver_id="d1", promised_to="2026-01-01T00:00:00Z")
    for command in ("picked-up", "failed"):
        await city.phone("d1", f"orders/{failed['order_id']}/{command}")
    await city.order("cancel")
    page = await open_page(
        f"/reports#{city.staff_token}",
        size=size,
        dark=dark,
        before=lambda page: errors.append(collect_errors(page)),
    )
    await page.wait_for_url(has_path("/reports"))
    assert await wait_for_text(page, "#report", "Da Mario")
    tiles = await page.locator("#report .tiles").first.locator("div").all_text_contents()
    assert tiles == ["Created2", "Delivered0", "Failed1", "Cancelled1", "Still open0"]
    drivers = page.get_by_role("region", name="Drivers").locator("tbody tr")
    assert (await drivers.all_text_contents())[0].startswith("d1")
    assert await wait_for_text(page, "#status", "the day is not over")
    name = f"reports-{'dark' if dark else 'light'}-{size['width']}"
    await page.screenshot(path=screenshots / f"{name}.png", full_page=True)
    assert await accessibility_violations(page) == []
    async with page.expect_download() as started:
        await page.click("#csv")
    assert (await started.value).suggested_filename.startswith(f"{BUNDLED_CITY}-")
    await page.emulate_media(media="print")
    assert not await page.locator("#print").is_visible()
    assert await page.locator("#report").is_visible()
    assert errors == [[]]


async def test_report__day_in_the_address__is_shown_again_after_a_reload(
    city: City, open_page: OpenPage
) -> None:
    page = await open_page(f"/reports?city={BUNDLED_CITY}&date=2026-03-10#{city.staff_token}")
    await page.wait_for_url(has_path("/reports"))
    assert await wait_for_text(page, "#status", "2026-03-10, Europe/Rome")
    await page.fill("#date", "2026-03-11")
    assert await wait_for_text(page, "#status", "2026-03-11")
    await page.reload()
    assert await wait_for_text(page, "#status", "2026-03-11")
