"""Pictures of the pages of a courier's phone, over the real stack.

The seam: `replies` replaces driver_api's answer about the driver in states that are hard to make.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from playwright.async_api import Page, Route

from tests.browser.page_checks import wait_for_text
from tests.browser.pictures.studio import Studio
from tests.browser.test_drive import open_drive, press_duty, url_of
from tests.browser.test_join import ANDROID, invite
from tests.integration.http_services import CUSTOMER, RESTAURANT

ORDER_IDS = [f"7d3f5f4e-0000-4000-8000-00000000000{n}" for n in range(3)]
MARIO = {
    "lon_deg": RESTAURANT[0], "lat_deg": RESTAURANT[1], "name": "Da Mario",
    "address": "Via Romana 3", "phone": "+39055123456",
}  # fmt: skip
GINA = {
    "name": "Gina Rossi", "phone": "+39333000111", "contact_rule": "any",
    "address": "Piazza Ghiberti 5", "note": "Second door,\nbell 4",
}  # fmt: skip


def an_order(n: int, state: str) -> dict[str, Any]:
    return {
        "order_id": ORDER_IDS[n], "state": state, "restaurant": MARIO, "customer": GINA,
        "destination": {"lon_deg": CUSTOMER[0], "lat_deg": CUSTOMER[1]},
        "items": "2 x margherita", "has_pin": True,
    }  # fmt: skip


def replies(state: str, **answer: Any) -> dict[str, Any]:
    """What driver_api says of the driver anna."""
    orders = answer.get("orders", [])
    return {
        "driver_id": "anna", "duty": "on_duty", "state": state, "offers": [], "returns": [],
        "order": orders[0] if orders else None, "orders": orders,
        "failure_reasons": ["customer_absent", "wrong_address", "refused", "damaged", "other"],
        **answer,
    }  # fmt: skip


async def picture_drive(studio: Studio) -> None:
    """Sign-in, duty, an offer, one order and several, the door, what fails, no network."""
    city = studio.city

    async def signed_out(**options: Any) -> Page:
        page = await studio.open_page(url_of(city), **options)
        await page.wait_for_selector("input[name=token]")
        return page

    async def off_duty(**options: Any) -> Page:
        options.pop("size")
        return await open_drive(city, studio.open_page, "anna", **options)

    async def waiting(**options: Any) -> Page:
        page = await off_duty(**options)
        await press_duty(page, "on_duty")
        return page

    async def replaced(answer: dict[str, Any], selector: str, **options: Any) -> Page:
        async def reply(route: Route) -> None:
            await route.fulfill(json=answer if route.request.method == "GET" else {})

        page = await waiting(**options)
        await page.route(re.compile(r"/drivers/anna(/o.*)?$"), reply)
        await page.reload()
        await page.wait_for_selector(selector)
        return page

    async def offered(**options: Any) -> Page:
        expires_at = (datetime.now(UTC) + timedelta(seconds=90)).isoformat()
        offer = {
            "order_id": ORDER_IDS[0], "restaurant": MARIO, "pickup_distance_m": 1240,
            "expires_at": expires_at,
        }  # fmt: skip
        return await replaced(replies("available", offers=[offer]), ".offer", **options)

    async def assigned(**options: Any) -> Page:
        answer = replies("to_restaurant", orders=[an_order(0, "assigned")])
        return await replaced(answer, "#order button.main", **options)

    async def on_board(**options: Any) -> Page:
        answer = replies("to_customer", orders=[an_order(0, "picked_up")])
        return await replaced(answer, "#order button.main", **options)

    async def stacked(**options: Any) -> Page:
        orders = [an_order(n, "picked_up") for n in range(3)]
        return await replaced(replies("to_customer", orders=orders), "[data-order]", **options)

    async def asked_for_pin(**options: Any) -> Page:
        page = await on_board(**options)
        await page.click("#order button.main")
        await page.wait_for_selector("dialog input[name=pin]")
        return page

    async def failing(**options: Any) -> Page:
        page = await on_board(**options)
        await page.click("#order button.danger")
        await page.check("dialog input[value=wrong_address]")
        return page

    async def without_network(**options: Any) -> Page:
        page = await on_board(**options)
        await page.context.set_offline(True)
        await page.wait_for_selector("#notices:not(:empty)")
        return page

    states = {
        "signed out": signed_out, "off duty": off_duty, "waiting": waiting, "an offer": offered,
        "to the restaurant": assigned, "on board": on_board, "three orders": stacked,
        "PIN and photo": asked_for_pin, "failed": failing, "no network": without_network,
    }  # fmt: skip
    for name, opening in states.items():
        await studio.take(name, opening, sizes=("phone", "desktop"))


async def picture_join(studio: Studio) -> None:
    """The choice, an app's setup, and a link that is not whole."""

    async def choice(**options: Any) -> Page:
        link = await invite(studio.city)
        page = await studio.open_page(link, user_agent=ANDROID, **options)
        await page.wait_for_selector("#choice-owntracks button")
        return page

    async def setup(app: str, **options: Any) -> Page:
        page = await choice(**options)
        await page.click(f"#choice-{app} button")
        await page.wait_for_selector("#sign:not(:empty)")
        return page

    async def owntracks(**options: Any) -> Page:
        return await setup("owntracks", **options)

    async def traccar(**options: Any) -> Page:
        return await setup("traccar", **options)

    async def not_whole(**options: Any) -> Page:
        link = await invite(studio.city)
        page = await studio.open_page(link.partition("#")[0], **options)
        assert await wait_for_text(page, "#error", " ")
        return page

    states = {
        "choice": choice, "OwnTracks": owntracks, "Traccar": traccar, "link not whole": not_whole,
    }  # fmt: skip
    for name, opening in states.items():
        await studio.take(name, opening)
