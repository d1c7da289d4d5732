"""The restaurant's page: a new order is announced, confirmed and fetched; nothing else is shown."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.async_api import Page

from doorstep.credentials import new_staff_token, token_sha256
from doorstep.store.people import change_staff
from tests.browser.conftest import RESTAURANT_ID, City, OpenPage
from tests.browser.page_checks import (
    PHONE,
    accessibility_violations,
    collect_errors,
    eventually,
    wait_for_text,
)
from tests.browser.test_sign_in import has_path
from tests.integration.http_services import CUSTOMER

TABLET = {"width": 1024, "height": 768}
CONFIRMED = {"it": "Conferma", "en": "Confirm", "fr": "Confirmer", "de": "Bestätigen"}
ITEMS = "2 x margherita\n1 x tiramisù"
# Counts what the page plays: a headless browser has no ears.
COUNT_TONES = """
globalThis.tones = 0;
const start = OscillatorNode.prototype.start;
OscillatorNode.prototype.start = function (...when) {
  globalThis.tones += 1;
  start.apply(this, when);
};
"""


def add_member(city: City) -> tuple[str, str]:
    """Add a member of Da Mario's staff; return the name and the token."""
    name, token = f"mario-{secrets.token_hex(4)}", new_staff_token()
    with city.database() as conn:
        change_staff(
            conn,
            name,
            "add",
            who="test",
            role="restaurant",
            restaurant_id=RESTAURANT_ID,
            token_sha256=token_sha256(token),
            expires_at=datetime.now(UTC) + timedelta(hours=1),
        )
        conn.commit()
    return name, token


async def open_restaurant(city: City, open_page: OpenPage, **options: object) -> Page:
    _, token = add_member(city)
    page = await open_page(f"/restaurant#{token}", **{"size": TABLET, **options})
    await page.wait_for_url(has_path("/restaurant"))
    assert await wait_for_text(page, "#name", "Da Mario")
    return page


async def cards(page: Page, section: str) -> int:
    return await page.locator(f"#{section}:not([hidden]) li").count()


@pytest.mark.parametrize("language", ["it", "en", "fr", "de"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_page__in_each_language__is_accessible_with_every_kind_of_order(
    city: City, open_page: OpenPage, screenshots: Path, language: str, dark: bool
) -> None:
    errors: list[list[str]] = []
    await city.driver("d1", CUSTOMER)
    await city.order(items=ITEMS, customer_name="Carla Rossi", external_id="shop-1042")
    await city.order("confirm", items=ITEMS)
    await city.order("cancel")
    await city.order(driver_id="d1", items=ITEMS)
    size = TABLET if dark else PHONE
    page = await open_restaurant(
        city,
        open_page,
        size=size,
        dark=dark,
        locale=language,
        before=lambda page: errors.append(collect_errors(page)),
    )
    assert await eventually(lambda: cards(page, "fresh"))
    assert await page.locator("html").get_attribute("lang") == language
    buttons = await page.locator("#fresh button.main").all_text_contents()
    assert CONFIRMED[language] in buttons
    assert [await cards(page, one) for one in ("fresh", "kitchen", "gone")] == [1, 2, 1]
    name = f"restaurant-{language}-{'dark' if dark else 'light'}-{size['width']}.png"
    await page.screenshot(path=screenshots / name, full_page=True)
    assert await accessibility_violations(page) == []
    wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    assert not await page.evaluate(wide)
    assert errors == [[]]


async def test_order__new__is_announced_and_rings_until_it_is_confirmed(
    city: City, open_page: OpenPage
) -> None:
    page = await open_restaurant(
        city, open_page, locale="en", before=lambda page: page.add_init_script(COUNT_TONES)
    )
    await page.click("#sound")
    assert await wait_for_text(page, "#sound", "Sound is on")
    before = await page.evaluate("tones")
    order = await city.order(items=ITEMS)
    assert await wait_for_text(page, "#announcement", "A new order has come")
    assert await eventually(lambda: page.evaluate(f"tones > {before}"))
    assert await page.title() == "(1) New orders"
    await page.locator("#fresh button", has_text="20 min").click()
    assert await eventually(lambda: cards(page, "kitchen"))
    assert await cards(page, "fresh") == 0
    assert await wait_for_text(page, "#kitchen", "Ready at")
    shown = (await city.staff.get(f"/orders/{order['order_id']}")).json()
    assert shown["state"] == "confirmed"
    ready_in = datetime.fromisoformat(shown["ready_at"]) - datetime.now(UTC)
    assert ready_in > timedelta(minutes=18)


async def test_courier__is_named_until_the_pick_up_and_no_answer_has_a_place(
    city: City, open_page: OpenPage
) -> None:
    await city.driver("d1", CUSTOMER)
    page = await open_restaurant(city, open_page, locale="en")
    order = await city.order("confirm", items=ITEMS)
    assert await wait_for_text(page, "#kitchen", "No courier yet")
    await city.command(order, "assign", driver_id="d1")
    assert await wait_for_text(page, "#kitchen", "d1 is coming")
    await page.wait_for_timeout(1600)  # earlier fixes are not shown
    await city.report("d1", CUSTOMER)
    assert await wait_for_text(page, "#kitchen", "d1 arrives at about")
    answer = await page.evaluate("fetch('/restaurant/orders').then((found) => found.text())")
    assert "arrives_at" in answer
    assert "lon_deg" not in answer
    assert "coordinates" not in answer
    await page.locator("#kitchen button", has_text="Ready now").click()
    assert await wait_for_text(page, "#kitchen", "Ready since")
    await city.phone("d1", f"orders/{order['order_id']}/picked-up")
    assert await eventually(lambda: cards(page, "gone"))
    assert "d1" not in (await page.text_content("main") or "")


async def test_connection__lost__is_said_and_heals(city: City, open_page: OpenPage) -> None:
    page = await open_restaurant(city, open_page, locale="en")
    await page.route("**/restaurant/orders", lambda route: route.abort())
    assert await wait_for_text(page, "#connection-banner", "No connection since")
    await page.unroute("**/restaurant/orders")
    assert await eventually(lambda: page.locator("#connection-banner[hidden]").count())


async def test_sign_in__of_each_role__leads_to_its_own_page(
    city: City, open_page: OpenPage
) -> None:
    _, token = add_member(city)
    page = await open_page(f"/sign-in?next=/fleet#{token}", size=TABLET)
    await page.wait_for_url(has_path("/restaurant"))
    await page.goto("/fleet")
    assert has_path("/sign-in")(page.url)
    staff = await open_page(f"/sign-in?next=/restaurant#{city.staff_token}", size=TABLET)
    await staff.wait_for_url(has_path("/fleet"))


async def test_sign_out__of_a_restaurant__ends_the_session(city: City, open_page: OpenPage) -> None:
    page = await open_restaurant(city, open_page)
    await page.click("#sign-out")
    await page.wait_for_url(has_path("/sign-in"))
    await page.goto("/restaurant")
    assert has_path("/sign-in")(page.url)
