"""Three orders on one courier, with the dispatcher's page and three customers' pages open."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from typing import Any

from playwright.async_api import Page

from doorstep.geo import distance_m, offset
from tests.browser.conftest import City, OpenPage
from tests.browser.page_checks import PHONE, collect_errors, eventually, wait_for_text
from tests.browser.test_dispatch import choose_place, stops_of
from tests.browser.test_drive import open_drive, press_duty
from tests.integration.http_services import RESTAURANT, north_of

Place = tuple[float, float]

NAMES = ("Carla Rossi", "Ugo Neri", "Ida Conti")
DOORS = ("via dei servi 2", "via dei servi 12", "via dei servi 20")
OTHER_FIRST = "another delivery first"
STEP_M = 60  # between two places of the courier: no jump
NEAR_M = 25
MOVE_M = 12
# Keeps what the page receives of its order: answers, and the stream's frames.
KEEP_RECEIVED = """
globalThis.received = {};
const request = globalThis.fetch;
let answers = 0;
globalThis.fetch = async (...what) => {
  const response = await request(...what);
  if (String(what[0]).startsWith("/track/")) keep(`${answers++}`, response.clone().body);
  return response;
};
async function keep(name, body) {
  received[name] = "";
  const decoder = new TextDecoder();
  for (const reader = body.getReader(); ; ) {
    const { done, value } = await reader.read().catch(() => ({ done: true }));
    if (done) return;
    received[name] += decoder.decode(value, { stream: true });
  }
}
"""


async def frames(page: Page) -> list[dict[str, Any]]:
    """Each JSON document that a customer's page has received of the order."""
    texts: dict[str, str] = await page.evaluate("received")
    found = []
    for text in texts.values():
        lines = re.findall(r"^data: ?(.*)$", text, re.MULTILINE) or [text]
        found += [json.loads(line) for line in lines if line.startswith("{")]
    return found


async def positions(page: Page) -> list[Place]:
    """Each place of the courier that a customer's page has received."""
    geometries = [(one.get("position") or {}).get("geometry") for one in await frames(page)]
    return [tuple(one["coordinates"]) for one in geometries if one]


def is_near(one: Place, other: Place) -> bool:
    return distance_m(one, other) < NEAR_M


async def create(page: Page, name: str, door: str) -> tuple[str, str]:
    """Create an order with a PIN on the dispatcher's page; its id and the customer's link."""
    await page.click("#new-order-button")
    await choose_place(page, "mario", "pickup", "Da Mario")
    await page.focus("#door")
    await page.keyboard.type(door)
    await page.keyboard.press("Enter")
    assert await eventually(lambda: page.evaluate("document.getElementById('door').value[0]==='V'"))
    await page.fill("[name=customer_name]", name)
    await page.fill("[name=promised_min]", "45")
    await page.fill("[name=pin]", "auto")
    await page.click("#create-order")
    assert await wait_for_text(page, "#order", name)
    assert await wait_for_text(page, "#customer-link", "/t/")
    order_id = await page.evaluate("new URLSearchParams(location.search).get('order')")
    return order_id, await page.get_attribute("#customer-link a", "href") or ""


async def assign(page: Page, order_id: str, driver_id: str) -> None:
    await page.click(f"#order-{order_id}")
    await page.wait_for_selector("#do-assign")
    await page.fill("#courier", driver_id)
    await page.click("#do-assign")
    assert await wait_for_text(page, "#notice", f"Assigned to {driver_id}.")


async def hand_over(courier: Page, order_id: str, pin: str) -> None:
    """Press Delivered for an order, and type the customer's PIN."""
    await courier.click(f"[data-order='{order_id}'] button.main")
    await courier.fill("dialog input[name=pin]", pin)
    await courier.click("dialog button.main")
    assert await eventually(lambda: is_gone(courier, order_id))


async def is_gone(courier: Page, order_id: str) -> bool:
    return await courier.locator(f"[data-order='{order_id}']").count() == 0


async def seen_at(customer: Page, courier: Page, place: Place) -> bool:
    """Move the courier about a place until this customer's page receives it."""
    moves = itertools.cycle([0, MOVE_M])

    async def poll() -> bool:
        lon_deg, lat_deg = offset(place, next(moves), 0)
        await courier.context.set_geolocation(
            {"longitude": lon_deg, "latitude": lat_deg, "accuracy": 5}
        )
        await asyncio.sleep(1)
        return any(is_near(one, place) for one in await positions(customer))

    return bool(await eventually(poll))


async def test_three_orders__from_creation_to_pins__each_customer_sees_their_own_range_only(
    city: City, open_page: OpenPage
) -> None:
    courier = await open_drive(city, open_page, "d1")
    await press_duty(courier, "on_duty")
    dispatcher = await open_page(f"/fleet#{city.staff_token}")
    links: dict[str, str] = {}
    for name, door in zip(NAMES, DOORS, strict=True):
        order_id, link = await create(dispatcher, name, door)
        links[order_id] = link
    errors: list[list[str]] = []

    async def before(page: Page) -> None:
        errors.append(collect_errors(page))
        await page.add_init_script(KEEP_RECEIVED)

    customers: dict[str, Page] = {}
    for order_id, link in links.items():
        customers[order_id] = await open_page(link, size=PHONE, before=before)
        await assign(dispatcher, order_id, "d1")
    ids = [one["order_id"] for one in await stops_of(city, "d1")]
    assert set(ids) == set(links)
    # Each new order went behind the earlier one, or before it: only a former first was visible.
    for order_id in ids:
        await courier.click(f"[data-order='{order_id}'] button.main:text('Picked up')")
        await courier.wait_for_selector(f"[data-order='{order_id}'] button.main:text('Delivered')")
    assert [one["order_id"] for one in await stops_of(city, "d1")] == ids

    visited: list[Place] = []
    for n, order_id in enumerate(ids):
        place = north_of(RESTAURANT, STEP_M * (n + 1))
        for waiting in ids[n + 1 :]:
            assert await wait_for_text(customers[waiting], "#notices", OTHER_FIRST)
        mine = customers[order_id]
        assert await seen_at(mine, courier, place)
        assert OTHER_FIRST not in (await mine.text_content("#notices") or "")
        visited.append(place)
        pin = (await mine.text_content("#pin b") or "").strip()
        assert pin.isdigit()
        await hand_over(courier, order_id, pin)
        assert await wait_for_text(mine, "#state", "Delivered")
        for waiting in ids[n + 1 :]:
            seen = await frames(customers[waiting])
            assert seen
            assert not any(is_near(one, p) for one in await positions(customers[waiting])
                           for p in visited)  # fmt: skip

    assert await wait_for_text(courier, "#order", "No order right now")
    for order_id, place in zip(ids, visited, strict=True):
        others = [one for one in visited if one != place]
        received = await positions(customers[order_id])
        assert not any(is_near(one, other) for one in received for other in others)
        waited = [
            one for one in await frames(customers[order_id]) if one.get("other_delivery_first")
        ]
        assert all(not one.get("position") and not one.get("route") for one in waited)
        assert bool(waited) == (order_id != ids[0])
        assert await eventually(dispatcher.locator(f"#order-{order_id}").is_hidden)
        await dispatcher.goto(f"/fleet?order={order_id}")
        assert await wait_for_text(dispatcher, "#timeline", "Delivered")
        assert await wait_for_text(dispatcher, "#order h2", "Delivered")
    assert errors == [[], [], []]
