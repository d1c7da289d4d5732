"""The fleet's page in a real browser, over the whole stack."""

from __future__ import annotations

import csv
import io
import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from playwright.async_api import Page

from tests.browser.conftest import City, OpenPage
from tests.browser.page_checks import (
    PHONE,
    accessibility_violations,
    collect_errors,
    eventually,
    rendered_features,
    wait_for_text,
)
from tests.integration.http_services import RESTAURANT, north_of


async def fleet_value(page: Page, member: str) -> Any:
    """A member of the page's `doorstepFleet`; None before the page is loaded."""
    return await page.evaluate(f"globalThis.doorstepFleet?.{member}")


async def test_fleet__opened__shows_saved_positions_then_live_ones(
    city: City, open_page: OpenPage
) -> None:
    for n in (1, 2, 3):
        await city.driver(f"d{n}", north_of(RESTAURANT, 150 * n), ago_s=120)
    await city.order("confirm", "assign")
    errors: list[list[str]] = []
    requests: list[str] = []

    async def before(page: Page) -> None:
        errors.append(collect_errors(page))
        page.on("request", lambda request: requests.append(request.url))
        await page.route("**/alerts*", lambda route: route.fulfill(json={"alerts": []}))

    page = await open_page(f"/fleet#{city.staff_token}", before=before)
    assert await eventually(lambda: fleet_value(page, "first")) == 3
    assert await eventually(lambda: fleet_value(page, "drawn")) == 3
    assert await page.text_content("#drivers-count") == "3"
    assert await wait_for_text(page, "#connection", "live")
    await city.report("d1", north_of(RESTAURANT, 500))
    await city.report("d3", north_of(RESTAURANT, 452), speed_mps=4, heading_deg=90)

    async def has_moved() -> bool:
        place = await fleet_value(page, "placeOf('d1')")
        return abs(place[1] - north_of(RESTAURANT, 500)[1]) < 1e-6

    assert await eventually(has_moved)
    assert await fleet_value(page, "directionOf('d1')") == 0  # north
    assert await fleet_value(page, "directionOf('d2')") is None  # not seen moving
    assert await eventually(lambda: fleet_value(page, "directionOf('d3')")) == 4  # as it says
    attribution = await page.text_content(".maplibregl-ctrl-attrib")
    assert "© OpenStreetMap contributors" in (attribution or "")
    assert city.staff_token not in page.url
    assert [url for url in requests if city.staff_token in url] == []
    assert [url for url in requests if "/drivers/positions" in url] == []  # streamed, not polled
    assert errors == [[]]


async def test_fleet__search_and_filters__work_by_keyboard(city: City, open_page: OpenPage) -> None:
    await city.driver("anna", RESTAURANT)
    await city.driver("bert", north_of(RESTAURANT, 100))
    order = await city.order(driver_id="bert")
    page = await open_page(f"/fleet#{city.staff_token}")
    assert await eventually(lambda: fleet_value(page, "known")) == 2
    available = page.get_by_role("button", name="Available 1")
    assert await eventually(available.count)
    await available.press("Space")
    assert await fleet_value(page, "known") == 1
    await page.get_by_role("button", name="To restaurant 1").press("Enter")
    assert await fleet_value(page, "known") == 0
    await page.get_by_role("button", name="Available 1").press("Space")
    await page.get_by_label("Driver, name or order").press_sequentially("ann")
    await page.keyboard.press("Enter")
    assert await wait_for_text(page, "#driver", "anna")
    assert await wait_for_text(page, "#driver dl", "On duty")
    await page.get_by_label("Driver, name or order").fill(order["order_id"][:8])
    await page.keyboard.press("Enter")
    assert await wait_for_text(page, "#driver", "bert")
    assert await wait_for_text(page, "#order", order["order_id"][:8])
    assert await eventually(lambda: _renders(page, "places", 2))


async def test_fleet__search_for_a_delivered_order__opens_it_and_not_the_couriers_next(
    city: City, open_page: OpenPage
) -> None:
    await city.driver("anna", RESTAURANT)
    delivered = await city.order(driver_id="anna")
    await city.phone("anna", f"orders/{delivered['order_id']}/picked-up")
    await city.phone("anna", f"orders/{delivered['order_id']}/delivered")
    following = await city.order(driver_id="anna")
    page = await open_page(f"/fleet#{city.staff_token}")
    assert await wait_for_text(page, "#orders", following["order_id"][:8])
    await page.fill("#query", delivered["order_id"])
    await page.keyboard.press("Enter")
    assert await wait_for_text(page, "#order h2", f"Order {delivered['order_id'][:8]}Delivered")
    assert await wait_for_text(page, "#order", "anna")
    assert await page.locator("#driver").is_hidden()
    assert await page.locator("#order .actions button").count() == 0
    assert delivered["order_id"] in page.url
    await page.wait_for_timeout(4000)  # the list of open orders is polled
    assert delivered["order_id"][:8] in (await page.text_content("#order h2") or "")


async def test_fleet__order_commands__assign_reassign_refuse_and_cancel(
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

    assert await eventually(listed) == short([*waiting, under_way])
    await page.get_by_role("button", name="No courier 7").click()
    assert await listed() == short(waiting)
    await page.get_by_role("button", name="All 8").click()

    order = waiting[3]
    await page.locator(f"#order-{order['order_id']}").click()
    assert await eventually(page.get_by_role("button", name="Assign", exact=True).count)
    assert await accessibility_violations(page) == []
    await page.get_by_role("button", name="Assign", exact=True).click()
    assert await wait_for_text(page, "#notice", "Assigned to d1.")
    assert await stands(order) == ("assigned", "d1")

    await city.phone("d2", f"orders/{under_way['order_id']}/picked-up")
    await city.phone("d2", f"orders/{under_way['order_id']}/delivered")
    await page.get_by_label("Courier", exact=True).fill("d2")
    await page.get_by_role("button", name="Reassign").click()
    assert await wait_for_text(page, "#notice", "Reassigned to d2.")
    assert await stands(order) == ("assigned", "d2")

    await page.get_by_role("button", name="Cancel order").click()  # has to be confirmed
    assert await stands(order) == ("assigned", "d2")
    await page.route(
        "**/fleet/orders*", lambda route: route.abort()
    )  # the page does not see the new state
    await city.phone("d2", f"orders/{order['order_id']}/picked-up")
    await city.phone("d2", f"orders/{order['order_id']}/delivered")
    await page.get_by_role("button", name="Yes, cancel it").click()
    assert await wait_for_text(page, "#command-error", "Not possible: the order is delivered.")
    await page.unroute("**/fleet/orders*")

    await page.locator(f"#order-{waiting[0]['order_id']}").click()
    await page.get_by_role("button", name="Cancel order").click()
    await page.get_by_role("button", name="Yes, cancel it").click()
    assert await wait_for_text(page, "#notice", "Cancelled.")
    assert await stands(waiting[0]) == ("cancelled", None)


async def test_fleet__playback__plays_and_downloads(city: City, open_page: OpenPage) -> None:
    await city.driver("carla", RESTAURANT, ago_s=1300)
    for n in range(1, 6):
        await city.report("carla", north_of(RESTAURANT, 100 * n), ago_s=1300 - 60 * n)
    page = await open_page(f"/fleet#{city.staff_token}", accept_downloads=True, dark=True)
    assert await eventually(lambda: fleet_value(page, "known")) == 1
    await page.get_by_label("Driver, name or order").fill("carla")
    await page.keyboard.press("Enter")
    assert await eventually(lambda: rendered_features(page, "track"))
    await page.get_by_role("button", name="Past of this driver").click()
    await page.get_by_role("button", name="Show", exact=True).click()
    assert await wait_for_text(page, "#playback-status", "6 positions of 1 driver.")
    assert (await fleet_value(page, "placeOf('carla')"))[1] < north_of(RESTAURANT, 1)[1]
    assert await accessibility_violations(page) == []

    await page.get_by_label("Time").fill("500")  # half of five minutes
    assert (
        abs((await fleet_value(page, "placeOf('carla')"))[1] - north_of(RESTAURANT, 250)[1]) < 1e-5
    )
    await page.get_by_label("Speed").select_option("300")
    await page.get_by_role("button", name="Play").click()

    async def has_arrived() -> bool:
        place = await fleet_value(page, "placeOf('carla')")
        return abs(place[1] - north_of(RESTAURANT, 500)[1]) < 1e-6

    assert await eventually(has_arrived)
    assert await eventually(page.get_by_role("button", name="Play").count)

    await page.get_by_label("File").select_option("CSV")
    async with page.expect_download() as waiting:
        await page.get_by_role("button", name="Download").click()
    path = await (await waiting.value).path()
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    assert [row["driver_id"] for row in rows] == ["carla"] * 6
    first_at = datetime.fromisoformat(rows[0]["fix_at"])
    assert datetime.now(UTC) - first_at > timedelta(seconds=1300)

    await page.get_by_role("button", name="Back to live").click()
    assert await eventually(lambda: page.locator("#playback").is_hidden())
    assert await eventually(lambda: fleet_value(page, "known")) == 1


async def test_fleet__more_drivers_than_the_limit__are_drawn_from_tiles(
    city: City, open_page: OpenPage
) -> None:
    for n in (1, 2, 3):
        await city.driver(f"d{n}", north_of(RESTAURANT, 200 * n))
    page = await open_page(f"/fleet?most=2#{city.staff_token}")
    assert await eventually(lambda: fleet_value(page, "isTiled"))
    assert await eventually(lambda: rendered_features(page, "clusters")) == 3
    assert await page.text_content("#drivers-count") == "3"


async def test_fleet__no_stream__says_so_and_recovers(city: City, open_page: OpenPage) -> None:
    async def before(page: Page) -> None:
        await page.route("**/fleet/stream*", lambda route: route.abort())

    page = await open_page(f"/fleet#{city.staff_token}", before=before)
    assert await wait_for_text(page, "#connection", "reconnecting")
    assert await wait_for_text(page, "#connection-banner", "No connection to the server since")
    await page.unroute("**/fleet/stream*")
    assert await wait_for_text(page, "#connection", "live")
    assert await eventually(lambda: page.locator("#connection-banner").is_hidden())
    await page.get_by_role("link", name="Series").click()
    assert await wait_for_text(page, "#connection", "live")
    assert await page.title() == "Series · Doorstep"
    await page.get_by_role("link", name="Fleet").click()
    assert await eventually(lambda: fleet_value(page, "frames"))


NO_WEBGL = """() => {
  const getContext = HTMLCanvasElement.prototype.getContext;
  HTMLCanvasElement.prototype.getContext = function (kind, ...options) {
    return kind.startsWith("webgl") ? null : getContext.call(this, kind, ...options);
  };
}"""


async def test_fleet__without_webgl__shows_lists_and_removes_the_token_from_the_address(
    city: City, open_page: OpenPage, screenshots: Path
) -> None:
    await city.driver("anna", RESTAURANT)
    order = await city.order(driver_id="anna")

    async def before(page: Page) -> None:
        await page.add_init_script(f"({NO_WEBGL})()")

    page = await open_page(f"/fleet#{city.staff_token}", before=before)
    assert await wait_for_text(page, "#orders", order["order_id"][:8])
    assert await wait_for_text(page, "#drivers-count", "1")
    assert await wait_for_text(page, "#connection", "live")
    assert await page.locator("#no-map").is_visible()
    assert await wait_for_text(page, "#driver-list", "anna")
    assert city.staff_token not in page.url
    await page.locator(f"#order-{order['order_id']}").click()
    assert await wait_for_text(page, "#driver dl", "On duty")
    assert await page.get_by_role("button", name="Reassign").is_visible()
    assert await accessibility_violations(page) == []
    await page.screenshot(path=screenshots / "fleet-no-webgl.png")


async def test_fleet__order_selected_on_a_phone__opens_its_panel_in_view(
    city: City, open_page: OpenPage, screenshots: Path
) -> None:
    await city.driver("anna", RESTAURANT)
    orders = [await city.order("confirm") for _ in range(55)]
    page = await open_page(f"/fleet#{city.staff_token}", size=PHONE)
    more = page.get_by_role("button", name="5 more")
    assert await eventually(more.count)
    await more.click()
    await page.locator(f"#order-{orders[0]['order_id']}").click()
    assert await wait_for_text(page, "#order h2", orders[0]["order_id"][:8])
    box = await page.locator("#order h2").bounding_box()
    button = await page.get_by_role("button", name="Assign", exact=True).bounding_box()
    assert box is not None
    assert button is not None
    assert 0 <= box["y"] < button["y"] + button["height"] <= PHONE["height"]
    await page.screenshot(path=screenshots / "fleet-phone.png")


async def test_fleet__playback__header_legend_and_markers_say_past(
    city: City, open_page: OpenPage, screenshots: Path
) -> None:
    await city.driver("carla", RESTAURANT, ago_s=1300)
    await city.report("carla", north_of(RESTAURANT, 100), ago_s=1240)
    page = await open_page(f"/fleet#{city.staff_token}")
    assert await wait_for_text(page, "#connection", "live")
    assert await eventually(lambda: fleet_value(page, "known")) == 1
    assert await eventually(lambda: fleet_value(page, "symbolOf('carla')?.label")) == "Available"
    await page.get_by_role("button", name="Past", exact=True).click()
    await page.get_by_role("button", name="Show", exact=True).click()
    assert await wait_for_text(page, "#playback-status", "2 positions of 1 driver.")
    assert await wait_for_text(page, "#past-legend", "State unknown 1")  # states come after them
    assert await page.text_content("#connection") == "past"
    assert await page.locator("#live-legend").is_hidden()
    assert "not live" in (await page.text_content("#past-banner") or "")
    assert await page.locator("#live-queue").is_hidden()
    assert await eventually(
        lambda: fleet_value(page, "symbolOf('carla')?.label === 'Past position'")
    )
    await city.report("carla", north_of(RESTAURANT, 200))  # a live fix changes nothing
    await page.wait_for_timeout(2000)
    assert await page.text_content("#connection") == "past"
    assert await fleet_value(page, "symbolOf('carla')?.label") == "Past position"
    await page.screenshot(path=screenshots / "fleet-past.png")
    await page.get_by_role("button", name="Back to live").click()
    assert await wait_for_text(page, "#connection", "live")
    assert await page.locator("#live-legend").is_visible()
    assert await eventually(lambda: fleet_value(page, "symbolOf('carla')?.label")) == "Available"


async def test_fleet__stream_frozen__shows_the_lost_connection(
    city: City, open_page: OpenPage
) -> None:
    await city.driver("d1", RESTAURANT)
    page = await open_page(f"/fleet#{city.staff_token}")
    assert await wait_for_text(page, "#connection", "live")
    frozen = city.stack.pid_of("tracking_api")
    os.kill(frozen, signal.SIGSTOP)
    try:
        text = await wait_for_text(page, "#connection-banner", "No connection to the server since")
        assert text
        assert await page.text_content("#connection") == "reconnecting"
    finally:
        os.kill(frozen, signal.SIGCONT)
    assert await eventually(lambda: page.locator("#connection-banner").is_hidden())


async def test_fleet__webgl_context_lost__throws_nothing_and_recovers(
    city: City, open_page: OpenPage
) -> None:
    await city.driver("d1", RESTAURANT)
    order = await city.order(driver_id="d1")
    page = await open_page(f"/fleet#{city.staff_token}")
    assert await eventually(page.locator(f"#order-{order['order_id']}").count)
    await page.locator(f"#order-{order['order_id']}").click()
    assert await eventually(lambda: _renders(page, "places", 2))
    thrown: list[str] = []
    page.on("pageerror", lambda error: thrown.append(str(error)))
    await page.evaluate("""() => {
      const context = doorstepMap.getCanvas().getContext("webgl2");
      globalThis.lost = context.getExtension("WEBGL_lose_context");
      lost.loseContext();
    }""")
    assert await eventually(lambda: page.evaluate("!doorstepMap.style"))
    await city.report("d1", north_of(RESTAURANT, 300))
    await page.mouse.click(700, 300)
    await page.wait_for_timeout(6000)  # polls, and the refresh of tiles
    await page.locator(f"#order-{order['order_id']}").click()
    await page.evaluate("lost.restoreContext()")
    assert await eventually(lambda: _renders(page, "places", 2))
    assert thrown == []


async def test_fleet__back_from_the_page_cache__streams_again(
    city: City, open_page: OpenPage
) -> None:
    await city.driver("d1", RESTAURANT)
    page = await open_page(f"/fleet#{city.staff_token}")
    assert await eventually(lambda: fleet_value(page, "known")) == 1
    transition = "(type) => dispatchEvent(new PageTransitionEvent(type, { persisted: true }))"
    await page.evaluate(transition, "pagehide")
    await city.driver("d2", RESTAURANT)
    await page.wait_for_timeout(2000)
    assert await fleet_value(page, "known") == 1
    await page.evaluate(transition, "pageshow")
    assert await eventually(lambda: _is(page, "known", 2))


async def _is(page: Page, member: str, value: object) -> bool:
    return bool(await fleet_value(page, member) == value)


async def _renders(page: Page, layer: str, count: int) -> bool:
    return await rendered_features(page, layer) == count
