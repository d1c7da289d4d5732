"""The pages of customers, couriers, restaurants and dispatchers in Italian, texts and attributes.

The seams: `CustomerState` replaces tracking_api's answers about an order, `Alerts` the alerts.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.async_api import Page

from tests.browser.conftest import City, OpenPage
from tests.browser.page_checks import PHONE, eventually, wait_for_text
from tests.browser.pictures.customer_page import open_state
from tests.browser.pictures.customer_states import CUSTOMER_STATES, CustomerState
from tests.browser.pictures.studio import ZONE
from tests.browser.test_dispatch import Alerts, busy_evening
from tests.browser.test_dispatch_returns import failed_order
from tests.browser.test_drive import open_drive, press_duty
from tests.browser.test_fleet import fleet_value
from tests.browser.test_italian import Check, Opening, is_accessible_and_fits, untranslated
from tests.browser.test_join import ANDROID, invite
from tests.browser.test_restaurant import ITEMS, open_restaurant
from tests.integration.http_services import CUSTOMER, RESTAURANT, north_of

SAME = {"PIN", "GeoJSON", "GPX", "CSV", "Admin", "Esc", "File"}
DATA = re.compile(
    r"Da Mario|Carla Rossi|Ugo Neri|Ida Conti|Leo Galli|Ada Bassi|Via |2 x |shop-|· stack"
    r"|~?\d+(–\d+)? (min|km/h)|\d\d:\d\d [A-Z]"
)
SOURCES = ".maplibregl-ctrl-attrib"  # of the map's data: names
NAMES = ("ordered", "courier to restaurant", "at the restaurant")
STATES = [one for one in CUSTOMER_STATES if one.name in NAMES]


async def texts_left(opening: Opening, data: str, check: Check | None = None) -> set[str]:
    """The texts that are the same in Italian, without those of the tests' data."""
    found = await untranslated(opening, data, check)
    return {one for one in found - SAME if not DATA.match(one)}


@pytest.mark.parametrize("state", STATES, ids=lambda one: one.name)
async def test_customer__states_in_italian__have_no_english_left(
    open_page: OpenPage, state: CustomerState
) -> None:
    async def opening(**options: Any) -> Page:
        return await open_state(open_page, state, size=PHONE, timezone_id=ZONE, **options)

    data = f"#restaurant-name, #number, input, textarea, {SOURCES}"
    assert await texts_left(opening, data) == set()


async def test_restaurant__orders_of_every_kind_in_italian__have_no_english_left(
    city: City, open_page: OpenPage
) -> None:
    await city.driver("d1", CUSTOMER)
    await city.order(items=ITEMS, customer_name="Carla Rossi", external_id="shop-1042")
    await city.order("confirm", items=ITEMS)
    await city.order("cancel")
    await city.order(driver_id="d1", items=ITEMS)

    async def opening(**options: Any) -> Page:
        page = await open_restaurant(city, open_page, **options)
        await page.wait_for_selector("#gone li")
        await page.wait_for_selector("#sign-out[title]")
        return page

    data = "#name, .items, .customer"
    assert await texts_left(opening, data, is_accessible_and_fits) == set()


async def test_drive__offer_order_questions_and_way_back_in_italian__have_no_english_left(
    city: City, open_page: OpenPage
) -> None:
    async def at_work(driver_id: str, order: dict[str, Any], **options: Any) -> Page:
        page = await open_drive(city, open_page, driver_id, **options)
        await press_duty(page, "on_duty")
        await city.report(driver_id, RESTAURANT)
        await city.command(order, "assign", driver_id=driver_id)
        await page.reload()
        await page.wait_for_selector("#order button.main")
        return page

    async def assigned(**options: Any) -> Page:
        order = await city.order("confirm", customer_name="Carla Rossi", customer_phone="+39055")
        return await at_work(f"a-{options['locale'][:2]}", order, **options)

    async def asked(**options: Any) -> Page:
        order = await city.order("confirm", pin="4711")
        page = await at_work(f"b-{options['locale'][:2]}", order, **options)
        await city.command(order, "pick_up")
        await page.reload()
        await page.click("#order button.hand-over, #order button.main")
        await page.wait_for_selector("dialog input[name=pin]")
        return page

    async def returning(**options: Any) -> Page:
        order = await city.order("confirm")
        page = await at_work(f"c-{options['locale'][:2]}", order, **options)
        await city.command(order, "pick_up")
        await city.command(order, "fail", reason="customer_absent", next_step="return")
        await page.reload()
        await page.wait_for_selector("#returns .return")
        return page

    for opening in (assigned, asked, returning):
        assert await untranslated(opening, "#who, .stop h3", is_accessible_and_fits) <= {"PIN"}


async def test_join__choice_and_setups_in_italian__have_no_english_left(
    city: City, open_page: OpenPage
) -> None:
    async def choice(**options: Any) -> Page:
        page = await open_page(await invite(city), user_agent=ANDROID, size=PHONE, **options)
        await page.wait_for_selector("#choice-owntracks button")
        return page

    async def setup(app: str, **options: Any) -> Page:
        page = await choice(**options)
        await page.click(f"#choice-{app} button")
        await page.wait_for_selector("#sign:not(:empty)")
        return page

    apps = {"OwnTracks", "Traccar Client", "Android", "iPhone"}
    assert await untranslated(choice) <= apps
    for app in ("owntracks", "traccar"):
        assert await untranslated(lambda app=app, **given: setup(app, **given), "dd") <= apps


async def test_dispatch__queue_map_and_an_order_in_italian__have_no_english_left(
    city: City, open_page: OpenPage
) -> None:
    order = await busy_evening(city)
    await city.driver("d12", north_of(RESTAURANT, 500))
    await failed_order(city, "d12")

    async def opening(**options: Any) -> Page:
        before = Alerts(order["order_id"]).install
        address = f"/fleet?order={order['order_id']}#{city.staff_token}"
        page = await open_page(address, before=before, **options)
        assert await eventually(lambda: fleet_value(page, "known")) == 13
        assert await wait_for_text(page, "#return-list", "d12 · ")
        await page.wait_for_selector("#sign-out[title]", state="attached")
        await page.wait_for_selector("#timeline li", state="attached")
        return page

    assert await texts_left(opening, f"#city, .mono, time, {SOURCES}") == set()
