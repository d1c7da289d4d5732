"""Whom a customer may call: by the order's rule, while the courier may be seen, and never else."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import Page

from tests.browser.conftest import City, OpenPage
from tests.browser.page_checks import PHONE, eventually, wait_for_text
from tests.browser.test_dispatch import stops_of
from tests.integration.http_services import RESTAURANT, north_of

COURIER = "+39 333 000111"
LINKS = {"call": ["tel:+39333000111"], "text": ["sms:+39333000111"]}
SHOWN = {**LINKS, "none": [], "any": LINKS["call"] + LINKS["text"]}


async def courier(city: City) -> None:
    """d1 at the restaurant, with a number."""
    await city.driver("d1", RESTAURANT)
    with city.database() as conn:
        conn.execute("UPDATE driver SET phone = %s", (COURIER,))
        conn.execute("UPDATE restaurant SET phone = NULL")
        conn.commit()


async def contacts(page: Page) -> list[str]:
    """The numbers that the page lets its customer call or text."""
    links = "(all) => all.map((one) => one.getAttribute('href'))"
    found: list[str] = await page.locator("#actions a.button").evaluate_all(links)
    return found


async def come_to(page: Page, wanted: list[str]) -> bool:
    async def are_shown() -> bool:
        return await contacts(page) == wanted

    return bool(await eventually(are_shown))


async def opened(city: City, open_page: OpenPage, order: dict[str, Any]) -> Page:
    page = await open_page(order["customer_link"], size=PHONE)
    assert await eventually(page.locator("#share").count)
    return page


@pytest.mark.parametrize("rule", ["none", "call", "text", "any"])
async def test_courier__by_each_rule__is_called_from_the_assignment_to_the_end_only(
    city: City, open_page: OpenPage, rule: str
) -> None:
    await courier(city)
    order = await city.order("confirm", contact_rule=rule)
    page = await opened(city, open_page, order)
    assert await contacts(page) == []
    await city.command(order, "assign", driver_id="d1")
    assert await wait_for_text(page, "#state", "Courier on the way to the restaurant")
    assert await come_to(page, SHOWN[rule])
    await city.phone("d1", f"orders/{order['order_id']}/picked-up")
    assert await wait_for_text(page, "#state", "On the way to you")
    assert await contacts(page) == SHOWN[rule]
    await city.phone("d1", f"orders/{order['order_id']}/delivered")
    assert await wait_for_text(page, "#state", "Delivered")
    assert await come_to(page, [])
    assert COURIER not in await page.content()


async def test_courier__with_another_delivery_first__is_called_once_it_is_this_customers_turn(
    city: City, open_page: OpenPage
) -> None:
    await courier(city)
    first, second = [await city.order("confirm", contact_rule="call") for _ in range(2)]
    for order in (first, second):
        await city.command(order, "assign", driver_id="d1")
    await city.report("d1", north_of(RESTAURANT, 1))
    assert [one["order_id"] for one in await stops_of(city, "d1")] == [
        first["order_id"],
        second["order_id"],
    ]
    page = await opened(city, open_page, second)
    assert await wait_for_text(page, "#notices", "another delivery first")
    assert await contacts(page) == []
    sequence = {"order_ids": [second["order_id"], first["order_id"]]}
    assert (await city.staff.put("/drivers/d1/stops", json=sequence)).status_code == 200
    assert await come_to(page, LINKS["call"])
    sequence["order_ids"].reverse()
    assert (await city.staff.put("/drivers/d1/stops", json=sequence)).status_code == 200
    assert await come_to(page, [])
