"""The fleet's page in a real browser, over the whole stack."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any

from playwright.async_api import Page

from tests.browser.conftest import City, OpenPage
from tests.browser.looking import barriers, drawn, says, seen, watch
from tests.integration.http_services import RESTAURANT, north_of


async def fleet(page: Page, member: str) -> Any:
    """A member of the page's `doorstepFleet`, once the page is there."""
    return await page.evaluate(f"globalThis.doorstepFleet?.{member}")


async def test_fleet__opened__saved_positions_come_first_then_they_move(
    city: City, open_page: OpenPage
) -> None:
    for n in (1, 2, 3):
        await city.driver(f"d{n}", north_of(RESTAURANT, 150 * n), ago_s=120)
    await city.order("confirm", "assign")
    bad: list[list[str]] = []
    asked: list[str] = []

    def before(page: Page) -> None:
        bad.append(watch(page))
        page.on("request", lambda request: asked.append(request.url))

    page = await open_page(f"/fleet#{city.staff_token}", before=before)
    assert await seen(lambda: fleet(page, "first")) == 3
    assert await seen(lambda: fleet(page, "drawn")) == 3
    assert await page.text_content("#drivers-count") == "3"
    assert await says(page, "#pulse", "live")
    await city.report("d1", north_of(RESTAURANT, 500))

    async def has_moved() -> bool:
        place = await fleet(page, "placeOf('d1')")
        return abs(place[1] - north_of(RESTAURANT, 500)[1]) < 1e-6

    assert await seen(has_moved)
    attribution = await page.text_content(".maplibregl-ctrl-attrib")
    assert "© OpenStreetMap contributors" in (attribution or "")
    assert city.staff_token not in page.url
    assert [url for url in asked if city.staff_token in url] == []
    assert [url for url in asked if "/drivers/positions" in url] == []  # streamed, not polled
    assert bad == [[]]


async def test_fleet__search_and_switches__by_keyboard(city: City, open_page: OpenPage) -> None:
    await city.driver("anna", RESTAURANT)
    await city.driver("bert", north_of(RESTAURANT, 100))
    order = await city.order(driver_id="bert")
    page = await open_page(f"/fleet#{city.staff_token}")
    assert await seen(lambda: fleet(page, "known")) == 2
    available = page.get_by_role("button", name="Available 1")
    assert await seen(available.count)
    await available.press("Space")
    assert await fleet(page, "known") == 1
    await page.get_by_role("button", name="To restaurant 1").press("Enter")
    assert await fleet(page, "known") == 0
    await page.get_by_role("button", name="Available 1").press("Space")
    await page.get_by_label("Driver, name or order").press_sequentially("ann")
    await page.keyboard.press("Enter")
    assert await says(page, "#detail", "anna")
    assert await says(page, "#detail dl", "On duty")
    await page.get_by_label("Driver, name or order").fill(order["order_id"][:8])
    await page.keyboard.press("Enter")
    assert await says(page, "#detail", "bert")
    assert await says(page, "#order", order["order_id"][:8])
    assert await seen(lambda: drawn(page, "way-ends")) == 2


async def test_fleet__orders__assigned_reassigned_refused_and_cancelled_from_the_page(
    city: City, open_page: OpenPage
) -> None:
    await city.driver("d1", north_of(RESTAURANT, 10))
    await city.driver("d2", north_of(RESTAURANT, 90))
    waiting = [await city.order("confirm") for _ in range(7)]
    under_way = await city.order(driver_id="d2")
    page = await open_page(f"/fleet#{city.staff_token}")

    async def listed() -> list[str]:
        return await page.locator("#orders li .mono").all_text_contents()

    def short(orders: list[dict[str, Any]]) -> list[str]:
        return [order["order_id"][:8] for order in orders]

    async def stands(order: dict[str, Any]) -> tuple[str, str | None]:
        found = (await city.staff.get(f"/orders/{order['order_id']}")).json()
        return found["state"], found["driver_id"]

    assert await seen(listed) == short([*waiting[:5], under_way])
    await page.get_by_role("button", name="2 more").click()
    assert await listed() == short([*waiting, under_way])

    order = waiting[3]
    await page.locator(f"#order-{order['order_id']}").click()
    assert await seen(page.get_by_role("button", name="Assign", exact=True).count)
    assert await barriers(page) == []
    await page.get_by_role("button", name="Assign", exact=True).click()
    assert await says(page, "#said", "Assigned to d1.")
    assert await stands(order) == ("assigned", "d1")

    await city.phone("d2", f"orders/{under_way['order_id']}/picked-up")
    await city.phone("d2", f"orders/{under_way['order_id']}/delivered")
    await page.get_by_label("Courier", exact=True).fill("d2")
    await page.get_by_role("button", name="Reassign").click()
    assert await says(page, "#said", "Reassigned to d2.")
    assert await stands(order) == ("assigned", "d2")

    await page.get_by_role("button", name="Cancel order").click()  # asks again
    assert await stands(order) == ("assigned", "d2")
    await page.route("**/fleet/orders*", lambda route: route.abort())  # it hears of nothing new
    await city.phone("d2", f"orders/{order['order_id']}/picked-up")
    await city.phone("d2", f"orders/{order['order_id']}/delivered")
    await page.get_by_role("button", name="Yes, cancel it").click()
    assert await says(page, "#refused", "Not possible: the order is delivered.")
    await page.unroute("**/fleet/orders*")

    await page.locator(f"#order-{waiting[0]['order_id']}").click()
    await page.get_by_role("button", name="Cancel order").click()
    await page.get_by_role("button", name="Yes, cancel it").click()
    assert await says(page, "#said", "Cancelled.")
    assert await stands(waiting[0]) == ("cancelled", None)


async def test_fleet__the_past__plays_and_downloads(city: City, open_page: OpenPage) -> None:
    await city.driver("carla", RESTAURANT, ago_s=1300)
    for n in range(1, 6):
        await city.report("carla", north_of(RESTAURANT, 100 * n), ago_s=1300 - 60 * n)
    page = await open_page(f"/fleet#{city.staff_token}", accept_downloads=True, dark=True)
    assert await seen(lambda: fleet(page, "known")) == 1
    await page.get_by_label("Driver, name or order").fill("carla")
    await page.keyboard.press("Enter")
    assert await seen(lambda: drawn(page, "track"))
    await page.get_by_role("button", name="Past of this driver").click()
    await page.get_by_role("button", name="Show", exact=True).click()
    assert await says(page, "#past-said", "6 places of 1 driver.")
    assert (await fleet(page, "placeOf('carla')"))[1] < north_of(RESTAURANT, 1)[1]
    assert await barriers(page) == []

    await page.get_by_label("Moment").fill("500")  # half of five minutes
    assert abs((await fleet(page, "placeOf('carla')"))[1] - north_of(RESTAURANT, 250)[1]) < 1e-5
    await page.get_by_label("Speed").select_option("300")
    await page.get_by_role("button", name="Play").click()

    async def has_arrived() -> bool:
        place = await fleet(page, "placeOf('carla')")
        return abs(place[1] - north_of(RESTAURANT, 500)[1]) < 1e-6

    assert await seen(has_arrived)
    assert await seen(page.get_by_role("button", name="Play").count)

    await page.get_by_label("File").select_option("CSV")
    async with page.expect_download() as waiting:
        await page.get_by_role("button", name="Download").click()
    path = await (await waiting.value).path()
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    assert [row["driver_id"] for row in rows] == ["carla"] * 6
    first_at = datetime.fromisoformat(rows[0]["fix_at"])
    assert datetime.now(UTC) - first_at > timedelta(seconds=1300)

    await page.get_by_role("button", name="Back to live").click()
    assert await seen(lambda: page.locator("#past").is_hidden())
    assert await seen(lambda: fleet(page, "known")) == 1


async def test_fleet__more_drivers_than_asked_for__come_from_tiles(
    city: City, open_page: OpenPage
) -> None:
    for n in (1, 2, 3):
        await city.driver(f"d{n}", north_of(RESTAURANT, 200 * n))
    page = await open_page(f"/fleet?most=2#{city.staff_token}")
    assert await seen(lambda: fleet(page, "tiled"))
    assert await seen(lambda: drawn(page, "crowd")) == 3
    assert await page.text_content("#drivers-count") == "3"


async def test_fleet__with_a_wrong_token_then_without_a_stream__says_so_and_heals(
    city: City, open_page: OpenPage
) -> None:
    page = await open_page("/fleet#stf_wrong")
    assert await seen(lambda: page.locator("#door").is_visible())
    assert await says(page, "#trouble", "This token is not good.")
    await page.route("**/fleet/stream*", lambda route: route.abort())
    await page.fill("#door input", city.staff_token)
    await page.click("#door button")
    assert await seen(lambda: page.locator("#door").is_hidden())
    assert await says(page, "#pulse", "reconnecting")
    assert await says(page, "#offline", "Not connected since")
    await page.unroute("**/fleet/stream*")
    assert await says(page, "#pulse", "live")
    assert await seen(lambda: page.locator("#offline").is_hidden())
    await page.get_by_role("link", name="Series").click()
    assert await says(page, "#pulse", "live")
    assert await page.title() == "Series · Doorstep"
    assert await page.locator("#door").is_hidden()  # the token came along
    await page.get_by_role("link", name="Fleet").click()
    assert await seen(lambda: fleet(page, "frames"))
