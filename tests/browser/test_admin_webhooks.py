"""The tab for webhooks: added, switched, its deliveries sent again, and deleted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.conftest import City, OpenPage
from tests.browser.page_checks import (
    DESKTOP,
    PHONE,
    accessibility_violations,
    eventually,
    wait_for_text,
)
from tests.browser.test_admin import in_form, open_admin

URL = "http://127.0.0.1:9/hook"  # the discard port: nothing listens, and loopback is not allowed


@pytest.mark.parametrize(
    ("size", "dark"), [(DESKTOP, False), (PHONE, True)], ids=["desktop", "dark phone"]
)
async def test_webhook__from_its_secret_to_its_end__by_the_page(
    city: City, open_page: OpenPage, screenshots: Path, size: dict[str, int], dark: bool
) -> None:
    page = await open_admin(city, open_page, "webhooks", size=size, dark=dark)
    assert not await page.is_visible("#export")
    await page.click("#add")
    await in_form(page, url="http://shop.example/x", description="the shop")
    await page.uncheck('#fields input[value="order.nearby"]')
    await page.click("#save")
    assert await wait_for_text(page, "#editor-error", "https")
    assert await accessibility_violations(page) == []
    await in_form(page, url=URL)
    await page.click("#save")
    assert await wait_for_text(page, "#webhook-secret", "whsec_")
    await page.click("#message-close")
    [hook] = (await city.staff.get("/webhooks")).json()["webhooks"]
    assert len(hook["events"]) == 11
    assert "secret" not in hook

    order = await city.order()
    path = f"/webhooks/{hook['webhook_id']}/deliveries"

    async def attempts() -> int:
        found = (await city.staff.get(path)).json()["deliveries"]
        return int(found[0]["attempts"]) if found else 0

    assert await eventually(attempts)
    await page.click(f'[aria-label="Deliveries: {URL}"]')
    assert await wait_for_text(page, "#message-body", "loopback")
    assert await wait_for_text(page, "#message-body", order["order_id"][:8])
    await page.screenshot(path=screenshots / f"admin-deliveries-{size['width']}.png")
    assert await accessibility_violations(page) == []
    await page.click("#message-body td button")
    assert await wait_for_text(page, "#message-body", "is sent again")
    await page.click("#message-close")

    await page.click(f'[aria-label="Switch off: {URL}"]')
    assert await wait_for_text(page, "#status", "is off.")
    await page.screenshot(path=screenshots / f"admin-webhooks-{size['width']}.png")
    assert await accessibility_violations(page) == []
    await page.click(f'[aria-label="Switch on: {URL}"]')
    assert await wait_for_text(page, "#status", "is on.")
    await page.click(f'[aria-label="New secret: {URL}"]')
    await page.click("#message-ok")
    assert await wait_for_text(page, "#webhook-secret", "whsec_")
    await page.click("#message-close")
    await page.click(f'[aria-label="Delete: {URL}"]')
    await page.click("#message-ok")
    assert await wait_for_text(page, "#status", "is deleted.")
    assert (await city.staff.get("/webhooks")).json() == {"webhooks": []}
