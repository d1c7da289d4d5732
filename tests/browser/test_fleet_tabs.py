"""The fleet's page in many tabs, a refusal in Italian, and where a new stop goes."""

from __future__ import annotations

from tests.browser.conftest import City, OpenPage
from tests.browser.page_checks import eventually, more_tabs_than_connections, wait_for_text
from tests.browser.test_dispatch import stops_of
from tests.browser.test_fleet import fleet_value
from tests.integration.http_services import CUSTOMER, RESTAURANT, north_of


async def test_fleet__more_tabs_than_connections__all_are_kept_up_to_date(
    city: City, open_page: OpenPage
) -> None:
    await city.driver("d1", north_of(RESTAURANT, 10))
    page = await open_page(f"/fleet#{city.staff_token}")
    assert await eventually(lambda: fleet_value(page, "frames"))
    pages = await more_tabs_than_connections(page)
    for one in pages:
        assert await wait_for_text(one, "#states", "Available")
        assert await eventually(lambda one=one: fleet_value(one, "frames"))
    seen = [await fleet_value(one, "frames") for one in pages]
    await city.report("d1", north_of(RESTAURANT, 400))
    for one, before in zip(pages, seen, strict=True):

        async def has_news(one=one, before=before) -> bool:
            return bool(await fleet_value(one, "frames") > before)

        assert await eventually(has_news)


async def test_assign__with_a_stop_number__puts_the_new_stop_there(
    city: City, open_page: OpenPage
) -> None:
    await city.driver("d1", north_of(RESTAURANT, 10))
    first = await city.order(driver_id="d1")
    order = await city.order(
        "confirm",
        destination=dict(zip(("lon_deg", "lat_deg"), north_of(CUSTOMER, 900), strict=True)),
    )
    page = await open_page(f"/fleet?order={order['order_id']}#{city.staff_token}")
    await page.get_by_label("Courier", exact=True).fill("d1")
    await page.get_by_label("Stop number").fill("1")
    await page.get_by_role("button", name="Assign", exact=True).click()
    assert await wait_for_text(page, "#notice", "Assigned to d1.")
    stops = await stops_of(city, "d1")
    assert [one["order_id"] for one in stops] == [order["order_id"], first["order_id"]]


async def test_refusal__italian_page__is_said_by_its_type(city: City, open_page: OpenPage) -> None:
    order = await city.order("confirm")
    page = await open_page(f"/fleet?order={order['order_id']}#{city.staff_token}", locale="it-IT")
    assert await wait_for_text(page, "#order-facts", "Previsto")  # the customer's estimate
    await page.locator("#courier").fill("nemo")
    await page.get_by_role("button", name="Assegna", exact=True).click()
    assert await wait_for_text(page, "#command-error", "Il corriere non esiste.")
    await page.locator("#courier").fill("ne mo")
    await page.get_by_role("button", name="Assegna", exact=True).click()
    assert await wait_for_text(page, "#command-error", "Il server ha rifiutato la richiesta: ")
