"""The dispatcher's page: its columns, the keyboard, the address, the past, languages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, Route

from doorstep.geo import offset
from tests.browser.conftest import City, OpenPage
from tests.browser.page_checks import (
    PHONE,
    accessibility_violations,
    eventually,
    wait_for_text,
)
from tests.browser.test_fleet import fleet_value
from tests.integration.http_services import CUSTOMER, RESTAURANT, north_of


async def choose_place(page: Page, text: str, field: str, name: str) -> None:
    """Type into a field of places and choose the first one, without waiting for the list."""
    await page.keyboard.type(text)
    await page.keyboard.press("Enter")

    async def is_chosen() -> bool:
        return await page.input_value(f"#{field}") == name

    assert await eventually(is_chosen)


async def stops_of(city: City, driver_id: str) -> list[dict[str, Any]]:
    """A driver's open orders, the next stop first."""
    found: list[dict[str, Any]] = (await city.staff.get(f"/drivers/{driver_id}")).json()["orders"]
    return found


def evening_place(n: int) -> tuple[float, float]:
    """Where the n-th driver of a busy evening is."""
    return offset(RESTAURANT, 420 * (n % 4 - 1), 300 * (n // 4 - 1) + 40 * n)


async def report_evening(city: City, north_m: float) -> None:
    """Report the drivers of a busy evening again, so that none is silent."""
    for n in range(12):
        place = offset(evening_place(n), 3, north_m)
        await city.report(f"d{n}", place, heading_deg=30.0 * n, speed_mps=3, battery=0.4 + n / 20)


async def busy_evening(city: City) -> dict[str, Any]:
    """Twelve drivers and seven orders in different states; return one that is under way."""
    for n in range(12):
        await city.driver(f"d{n}", evening_place(n))
    await report_evening(city, 2)
    now = datetime.now(UTC)
    orders = []
    for n, name in enumerate(("Carla Rossi", "Ugo Neri", "Ida Conti", "Leo Galli", "Ada Bassi")):
        promised_to = (now + timedelta(minutes=9 * n - 4)).isoformat()
        door = dict(zip(("lon_deg", "lat_deg"), offset(CUSTOMER, 90 * n, -130 * n), strict=True))
        orders.append(
            await city.order(
                "confirm",
                customer_name=name,
                customer_phone="+39 055 123456",
                address=f"Via dei Servi {n + 3}",
                items="2 x margherita",
                promised_to=promised_to,
                destination=door,
            )
        )
    await city.order("confirm", external_id="shop-1043")
    await city.order()
    for order, driver_id in zip(orders, ("d1", "d6", "d9"), strict=False):
        await city.command(order, "assign", driver_id=driver_id)
    await city.command(orders[0], "pick_up")
    await city.phone("d4", "on-break")
    await city.phone("d11", "off-duty")
    return orders[1]


class Alerts:
    """Stands in for the alerts of a stack that raises none: one late order."""

    def __init__(self, order_id: str) -> None:
        self.alert: dict[str, Any] = {
            "alert_id": 7,
            "kind": "late",
            "order_id": order_id,
            "driver_id": None,
            "raised_at": "2026-11-30T00:00:00.000Z",
            "resolved_at": None,
            "acknowledged_at": None,
            "acknowledged_by": None,
        }
        self.acknowledged: list[str] = []

    async def install(self, page: Page) -> None:
        await page.route("**/alerts?*", lambda route: route.fulfill(json={"alerts": [self.alert]}))
        await page.route("**/alerts/*/acknowledge", self._acknowledge)

    async def _acknowledge(self, route: Route) -> None:
        self.acknowledged.append(route.request.url.split("/")[-2])
        self.alert |= {"acknowledged_at": "2026-11-30T00:01:00.000Z", "acknowledged_by": "anna"}
        await route.fulfill(json=self.alert)


async def test_dispatch__no_alerts_on_the_server__hides_the_tray(
    city: City, open_page: OpenPage
) -> None:
    async def before(page: Page) -> None:
        await page.route("**/alerts?*", lambda route: route.fulfill(status=404, json={}))

    page = await open_page(f"/fleet#{city.staff_token}", before=before)
    assert await wait_for_text(page, "#connection", "live")
    assert await page.locator("#alerts").is_hidden()


async def test_dispatch__commands_of_the_courier__are_given_by_staff_and_in_the_timeline(
    city: City, open_page: OpenPage
) -> None:
    await city.driver("d1", RESTAURANT)
    order = await city.order(driver_id="d1")
    page = await open_page(f"/fleet?order={order['order_id']}#{city.staff_token}")
    await page.get_by_role("button", name="Picked up").click()
    assert await wait_for_text(page, "#notice", "Recorded as picked up.")
    await page.get_by_role("button", name="Delivered").click()
    assert await wait_for_text(page, "#notice", "Recorded as delivered.")
    assert await wait_for_text(page, "#order h2", "Delivered")
    assert await wait_for_text(page, "#timeline", "Delivered")
    entries = await page.locator("#timeline li").all_text_contents()
    assert [one.partition(" · ")[0][8:] for one in entries] == [
        "Created", "Confirmed", "Assigned to d1", "Picked up", "Delivered",
    ]  # fmt: skip
    assert all(one.endswith(" · stack") for one in entries)


async def test_dispatch__order_given_up__has_its_reason(city: City, open_page: OpenPage) -> None:
    await city.driver("d1", RESTAURANT)
    order = await city.order(driver_id="d1")
    await city.command(order, "pick_up")
    page = await open_page(f"/fleet?order={order['order_id']}#{city.staff_token}")
    await page.get_by_role("button", name="Give up").click()
    await page.get_by_label("Reason").select_option("wrong_address")
    await page.get_by_label("Note").fill("no such number")
    await page.get_by_role("button", name="Yes, give it up").click()
    assert await wait_for_text(page, "#notice", "Given up.")
    assert await wait_for_text(page, "#timeline", "Given up (Wrong address: no such number)")


async def test_dispatch__choice__is_in_the_address_and_survives_reload_and_back(
    city: City, open_page: OpenPage
) -> None:
    await city.driver("d1", RESTAURANT)
    first, second = [await city.order("confirm") for _ in range(2)]
    page = await open_page(f"/fleet#{city.staff_token}")
    for order in (first, second):
        await page.locator(f"#order-{order['order_id']}").click()
        assert await wait_for_text(page, "#order h2", order["order_id"][:8])
        assert f"order={order['order_id']}" in page.url
    await page.reload()
    assert await wait_for_text(page, "#order h2", second["order_id"][:8])
    await page.go_back()
    assert await wait_for_text(page, "#order h2", first["order_id"][:8])
    await page.keyboard.press("Escape")
    assert await page.locator("#order").is_hidden()
    assert "order=" not in page.url


@pytest.mark.parametrize("width", [1280, 1000])
async def test_dispatch__detail__never_covers_the_queue_or_the_map(
    city: City, open_page: OpenPage, width: int
) -> None:
    await city.driver("d1", RESTAURANT)
    order = await city.order(driver_id="d1")
    size = {"width": width, "height": 700}
    page = await open_page(f"/fleet?order={order['order_id']}#{city.staff_token}", size=size)
    assert await wait_for_text(page, "#timeline", "Assigned to d1")
    boxes = [await page.locator(one).bounding_box() for one in ("#queue", "#map", "#detail")]
    ends = 0.0
    for box in boxes:
        assert box is not None
        assert box["x"] >= ends
        assert box["width"] > 200
        ends = box["x"] + box["width"]
    assert ends <= width


async def test_dispatch__on_a_phone__shows_one_column_at_a_time(
    city: City, open_page: OpenPage, screenshots: Path
) -> None:
    await city.driver("d1", RESTAURANT)
    order = await city.order(driver_id="d1", customer_name="Carla Rossi")
    page = await open_page(f"/fleet#{city.staff_token}", size=PHONE, dark=True)
    assert await wait_for_text(page, "#orders", "Carla Rossi")
    assert await page.locator("#detail").is_hidden()
    await page.locator(f"#order-{order['order_id']}").click()
    assert await page.locator("#queue").is_hidden()
    assert await wait_for_text(page, "#timeline", "Assigned to d1")
    box = await page.locator("#order h2").bounding_box()
    assert box is not None
    assert box["y"] < PHONE["height"] / 2
    assert await page.evaluate("document.documentElement.scrollHeight") <= PHONE["height"]
    assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    await page.screenshot(path=screenshots / "dispatch-phone-dark.png")
    for tab in ("Detail", "Map", "Queue"):
        await page.get_by_role("button", name=tab).first.click()
        assert await accessibility_violations(page) == []
    assert await page.locator("#queue").is_visible()


async def test_dispatch__desktop__has_no_accessibility_violations(
    city: City, open_page: OpenPage, screenshots: Path
) -> None:
    order = await busy_evening(city)
    page = await open_page(
        f"/fleet?order={order['order_id']}#{city.staff_token}",
        before=Alerts("1").install,
    )
    assert await wait_for_text(page, "#timeline", "Assigned to d6")
    assert await wait_for_text(page, "#orders .late", "late")
    assert await eventually(page.locator("#couriers li").count)
    assert await accessibility_violations(page) == []
    await page.screenshot(path=screenshots / "dispatch-light.png")
    await page.keyboard.press("n")
    assert await accessibility_violations(page) == []
    await page.keyboard.press("Escape")
    await page.keyboard.press("?")
    assert await accessibility_violations(page) == []


async def test_dispatch__past__has_a_banner_and_the_states_of_then(
    city: City, open_page: OpenPage, screenshots: Path
) -> None:
    await city.driver("carla", RESTAURANT)
    order = await city.order(driver_id="carla")
    await city.phone("carla", f"orders/{order['order_id']}/picked-up")
    await city.report("carla", north_of(RESTAURANT, 1))  # farther would be a jump
    page = await open_page(f"/fleet?driver=carla#{city.staff_token}")
    assert await eventually(lambda: fleet_value(page, "known")) == 1
    await page.get_by_role("button", name="Past of this driver").click()
    assert await page.text_content("#past-banner") == "Past · not live"
    await page.evaluate("""() => {
      const field = document.querySelector("[name=to]");
      const at = new Date(Date.now() + 60_000 - new Date().getTimezoneOffset() * 60_000);
      field.value = at.toISOString().slice(0, 19);
    }""")
    await page.get_by_role("button", name="Show", exact=True).click()
    assert await wait_for_text(page, "#playback-status", "positions of 1 driver.")
    await page.fill("#seek", "1000")
    assert await wait_for_text(page, "#past-legend", "To customer 1")
    symbol = await fleet_value(page, "symbolOf('carla')")
    assert (symbol["label"], symbol["letter"], symbol["isHollow"]) == (
        "Past: To customer",
        "C",
        True,
    )
    assert "not live" in (await page.text_content("#past-banner") or "")
    assert await page.text_content("#connection") == "past"
    assert await page.locator("#live-queue").is_hidden()
    assert await page.locator("#live-detail").is_hidden()
    assert await accessibility_violations(page) == []
    await page.screenshot(path=screenshots / "dispatch-past.png")
    await page.keyboard.press("Escape")  # of the past
    assert await wait_for_text(page, "#connection", "live")
    assert await page.locator("#past-banner").is_hidden()


async def test_dispatch__in_italian__has_no_english_left(
    city: City, open_page: OpenPage, screenshots: Path
) -> None:
    order = await busy_evening(city)
    page = await open_page(f"/fleet?order={order['order_id']}#{city.staff_token}", locale="it-IT")
    assert await wait_for_text(page, "#timeline", "Assegnato a d6")
    assert await page.evaluate("document.documentElement.lang") == "it"
    text = await page.inner_text("body")
    for english in ("Queue", "Open orders", "Available", "Reassign", "Timeline", "ago", "Sign out"):
        assert english not in text, english
    await page.wait_for_timeout(4000)  # the map's tiles, and the restaurants
    await page.screenshot(path=screenshots / "dispatch-it.png")


async def test_dispatch__colour_blind_simulation__is_pictured(
    city: City, open_page: OpenPage, screenshots: Path
) -> None:
    await busy_evening(city)
    page = await open_page(f"/fleet#{city.staff_token}")
    assert await eventually(lambda: fleet_value(page, "known")) == 12
    await page.wait_for_timeout(2000)  # the map's tiles
    session = await page.context.new_cdp_session(page)
    pictures = set()
    for kind in ("none", "protanopia", "deuteranopia", "tritanopia", "achromatopsia"):
        await session.send("Emulation.setEmulatedVisionDeficiency", {"type": kind})
        pictures.add(await page.screenshot(path=screenshots / f"dispatch-vision-{kind}.png"))
    assert len(pictures) == 5
