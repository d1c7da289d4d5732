"""The customer's page in a real browser, over the whole stack."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from playwright.async_api import Page, Route

from simulators.tracks import read_track
from tests.browser.page_checks import (
    PHONE,
    PROJECT,
    accessibility_violations,
    collect_errors,
    eventually,
    rendered_features,
    wait_for_text,
)
from tests.integration.http_services import CUSTOMER, RESTAURANT, SHOWN_AFTER_S, north_of

Place = tuple[float, float]

# Records every place at which the courier is drawn.
SAMPLER = """() => {
  globalThis.places = [];
  const look = () => {
    const { features } = doorstepMap.getSource("courier").serialize().data;
    const place = features.find((one) => one.geometry.type === "Point")?.geometry.coordinates;
    if (String(place) !== String(places.at(-1))) places.push(place ?? null);
    requestAnimationFrame(look);
  };
  look();
}"""
TRAIL = """() => doorstepMap.getSource("trail").serialize().data.features
  .flatMap((one) => one.geometry.coordinates)"""

SET_HIDDEN = """(hidden) => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


async def places(page: Page) -> list[Place | None]:
    """The places at which the courier was drawn, in order; None while invisible."""
    found = await page.evaluate("places")
    return [tuple(one) if one else None for one in found]


async def reached(page: Page, place: Place) -> list[Place | None]:
    """Wait until the courier is drawn at a place; return all places up to it."""

    async def poll() -> list[Place | None] | None:
        found = await places(page)
        return found if found and found[-1] == place else None

    found: list[Place | None] = await eventually(poll)
    assert found, f"never at {place}: {await places(page)}"
    return found


async def picked_up_order(
    city: Any, driver_id: str = "d1", place: Place = RESTAURANT
) -> dict[str, Any]:
    """An order on its way, assigned ten minutes ago."""
    await city.driver(driver_id, place, ago_s=300)
    order: dict[str, Any] = await city.order(driver_id=driver_id)
    city.assigned_ago(order, 600)
    await city.phone(driver_id, f"orders/{order['order_id']}/picked-up")
    return order


async def half_way_order(city: Any) -> dict[str, Any]:
    """An order half way from Ristorante il Cantinone, as the sample track goes."""
    track = read_track(PROJECT / "simulators/tracks/delivery.gpx")
    leaves, now = 159, 182  # of its 260 points, 4 s apart
    way = [(point.values["lon_deg"], point.values["lat_deg"]) for point in track]
    door = {"lon_deg": way[-1][0], "lat_deg": way[-1][1]}
    await city.driver("d1", way[leaves], ago_s=300)
    order: dict[str, Any] = await city.order(driver_id="d1", restaurant_id=717, destination=door)
    city.assigned_ago(order, 600)
    await city.phone("d1", f"orders/{order['order_id']}/picked-up")
    for n, place in enumerate(way[leaves:now], leaves):
        await city.report("d1", place, 4 * (now - n), speed_mps=5.6)
    return order


async def test_track__opened_from_the_link__shows_the_courier_while_under_way(city, open_page):
    await city.driver("d1", RESTAURANT)
    order = await city.order(driver_id="d1")
    mine = f"orders/{order['order_id']}"
    await city.phone("d1", f"{mine}/picked-up")
    await city.report("d1", north_of(RESTAURANT, 300))

    errors: list[Any] = []
    page = await open_page(
        order["customer_link"], size=PHONE, before=lambda page: errors.append(collect_errors(page))
    )
    assert await eventually(lambda: rendered_features(page, "courier")) == 1
    assert await eventually(lambda: rendered_features(page, "places"))
    assert await page.text_content("#number") == order["order_id"][:8]
    assert await page.text_content("#state") == "On the way to you"
    assert "min" in (await page.text_content("#minutes") or "")
    assert "#" not in page.url  # exchanged for a cookie that scripts cannot read
    [cookie] = await page.context.cookies(f"{city.url}/track/{order['order_id']}")
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert await page.evaluate("document.cookie") == ""

    await city.phone("d1", f"{mine}/delivered")
    await city.report("d1", CUSTOMER)

    async def no_courier() -> bool:
        return await rendered_features(page, "courier") == 0

    assert await eventually(no_courier)
    assert await page.text_content("#state") == "Delivered"
    await page.reload()
    assert await eventually(lambda: page.locator("#steps li.current").count()) == 1
    assert errors == [[]]


async def test_track__map_code_held_back__shows_state_steps_and_minutes_without_it(
    city, open_page, screenshots
):
    order = await picked_up_order(city)
    await city.report("d1", north_of(RESTAURANT, 300))
    requested, released = asyncio.Event(), asyncio.Event()

    async def hold(route: Route) -> None:
        requested.set()
        await released.wait()
        await route.continue_()

    async def before(page: Page) -> None:
        await page.route("**/assets/maplibre*", hold)

    page = await open_page(order["customer_link"], size=PHONE, before=before)
    assert await wait_for_text(page, "#state", "On the way to you")
    assert await wait_for_text(page, "#minutes", "min")
    assert await page.locator("#steps li.done").count() == 3
    await requested.wait()
    assert await page.evaluate("globalThis.doorstepMap === undefined")
    assert await accessibility_violations(page) == []
    await page.screenshot(path=screenshots / "track-before-map.png")
    released.set()
    assert await eventually(lambda: rendered_features(page, "courier"))
    assert await eventually(lambda: rendered_features(page, "place-names"))


async def test_track__map_code_unreachable_at_first__works_and_draws_the_map_after_a_reconnect(
    city, open_page
):
    order = await picked_up_order(city)
    await city.report("d1", north_of(RESTAURANT, 300))
    maps = "**/assets/maplibre*"

    async def before(page: Page) -> None:
        await page.route(maps, lambda route: route.abort())

    page = await open_page(order["customer_link"], size=PHONE, before=before)
    assert await eventually(page.locator("body.no-map").count)
    assert await wait_for_text(page, "#state", "On the way to you")
    await page.unroute(maps)
    os.kill(city.stack.pid_of("tracking_api"), signal.SIGKILL)
    assert await eventually(lambda: rendered_features(page, "courier"))
    assert await page.locator("body.no-map").count() == 0


async def test_track__without_javascript__says_so_in_a_sentence(city, open_page, screenshots):
    order = await city.order()
    page = await open_page(order["customer_link"], size=PHONE, java_script_enabled=False)
    text = page.locator("noscript p").first
    assert await text.is_visible()
    assert "allow JavaScript" in (await text.inner_text())
    box = await text.bounding_box()
    assert box["y"] + box["height"] < PHONE["height"]
    await page.screenshot(path=screenshots / "track-no-javascript.png")


async def test_track__courier_not_heard_of_for_a_minute__stops_the_countdown(city, open_page):
    order = await picked_up_order(city)
    await city.report("d1", north_of(RESTAURANT, 300), ago_s=90)
    page = await open_page(order["customer_link"], size=PHONE)
    assert await wait_for_text(page, "#minutes", "min")
    before = await page.text_content("#minutes")
    await page.evaluate("() => { const now = Date.now; Date.now = () => now() + 150_000 }")
    assert await wait_for_text(page, "#freshness-text", "Courier last seen 4 min ago")
    assert await page.text_content("#minutes") == before
    assert await page.locator("#minutes.muted").count() == 1


async def test_track__an_invalid_link__shows_the_link_ended_page(city, open_page):
    order = await city.order()
    page = await open_page(f"{order['customer_link']}x")
    assert await eventually(lambda: page.locator("#link-ended").is_visible())


async def test_track__a_new_fix__moves_the_courier_smoothly_and_never_past_it(city, open_page):
    order = await picked_up_order(city)
    start, end = north_of(RESTAURANT, 300), north_of(RESTAURANT, 340)
    await city.report("d1", start, ago_s=4)
    page = await open_page(order["customer_link"], size=PHONE)
    assert await eventually(lambda: rendered_features(page, "courier"))
    await page.evaluate(SAMPLER)
    await city.report("d1", end, heading_deg=0, speed_mps=10)
    moved = [one[1] for one in await reached(page, end) if one]
    assert len(moved) > 2, moved  # one per frame
    assert moved == sorted(moved)
    assert (moved[0], moved[-1]) == (start[1], end[1])
    assert await rendered_features(page, "heading") == 1
    await page.close()


async def test_track__reduced_motion__places_the_courier_without_animation(city, open_page):
    order = await picked_up_order(city)
    await city.report("d1", RESTAURANT, ago_s=4)
    page = await open_page(order["customer_link"], size=PHONE, reduced_motion="reduce")
    assert await eventually(lambda: rendered_features(page, "courier"))
    await page.evaluate(SAMPLER)
    await city.report("d1", end := north_of(RESTAURANT, 40))
    assert await reached(page, end) == [RESTAURANT, end]


async def test_track__an_old_fix_or_a_jump__is_placed_without_animation(city, open_page):
    order = await picked_up_order(city)
    way = [(north_of(RESTAURANT, 100 * n), ago_s) for n, ago_s in ((3, 150), (4, 100), (60, 99))]
    await city.report("d1", *way[0])
    page = await open_page(order["customer_link"], size=PHONE)
    assert await eventually(lambda: rendered_features(page, "courier"))
    await page.evaluate(SAMPLER)
    for place, ago_s in way[1:]:
        await city.report("d1", place, ago_s)
        await reached(page, place)
    assert await places(page) == [place for place, _ in way]
    assert "last seen 2 min ago" in (await page.text_content("#freshness-text") or "")
    assert list(way[2][0]) not in await page.evaluate(TRAIL)  # no line along a jump


async def test_track__a_hidden_page__is_not_animated_and_up_to_date_when_visible(city, open_page):
    order = await picked_up_order(city)
    await city.report("d1", RESTAURANT, ago_s=8)
    page = await open_page(order["customer_link"], size=PHONE)
    assert await eventually(lambda: rendered_features(page, "courier"))
    await page.evaluate(SAMPLER)
    await page.evaluate(SET_HIDDEN, True)
    await city.report("d1", end := north_of(RESTAURANT, 40), ago_s=4)  # so the next is 4 s long
    assert await reached(page, end) == [RESTAURANT, end]
    await page.evaluate(SET_HIDDEN, False)
    await city.report("d1", north_of(RESTAURANT, 60))
    assert len(await reached(page, north_of(RESTAURANT, 60))) > 3  # animated again


async def test_track__opened_under_way__shows_the_last_position_and_the_trail_of_the_window(
    city, open_page
):
    await city.driver("d1", north_of(RESTAURANT, -500), ago_s=120)  # before this order
    order = await city.order(driver_id="d1")
    city.assigned_ago(order, 60)
    way = [north_of(RESTAURANT, 30 * n) for n in range(6)]
    for n, place in enumerate(way):
        await city.report("d1", place, ago_s=24 - 4 * n)
    page = await open_page(order["customer_link"], size=PHONE)
    assert await eventually(lambda: rendered_features(page, "courier"))  # without another fix
    await page.evaluate(SAMPLER)
    assert await places(page) == [way[-1]]
    await eventually(lambda: page.evaluate(f"({TRAIL})().length === {len(way)}"))
    assert await page.evaluate(TRAIL) == [list(place) for place in way]


async def test_track__reassigned__shows_no_further_position_of_the_first_driver(city, open_page):
    await city.driver("d1", north_of(RESTAURANT, 200))
    order = await city.order(driver_id="d1")
    await asyncio.sleep(SHOWN_AFTER_S)
    await city.report("d1", RESTAURANT)
    page = await open_page(order["customer_link"], size=PHONE)
    assert await eventually(lambda: rendered_features(page, "courier"))
    await page.evaluate(SAMPLER)
    await city.driver("d2", north_of(RESTAURANT, 900))
    await city.command(order, "reassign", driver_id="d2")
    await city.order(driver_id="d1")
    await asyncio.sleep(SHOWN_AFTER_S)
    await city.report("d1", secret := north_of(RESTAURANT, -700))
    await city.report("d2", end := north_of(RESTAURANT, 800))
    shown = await reached(page, end)
    assert [one for one in shown if one] == [RESTAURANT, end]  # and no animation between the two
    assert await page.evaluate(TRAIL) == []
    assert secret not in await places(page)


async def test_track__light_and_dark__has_no_serious_accessibility_violation(
    city, open_page, screenshots
):
    order = await half_way_order(city)
    page = await open_page(order["customer_link"], size=PHONE)
    assert await eventually(lambda: rendered_features(page, "trail"))
    assert await eventually(lambda: rendered_features(page, "heading"))
    assert await eventually(lambda: rendered_features(page, "place-names"))
    assert await accessibility_violations(page) == []
    assert await eventually(lambda: page.evaluate("doorstepMap.areTilesLoaded()"))
    await page.screenshot(path=screenshots / "track-light.png")
    gone = await open_page(f"{order['customer_link']}x", size=PHONE, dark=True)
    assert await eventually(lambda: gone.locator("#link-ended").is_visible())
    assert await accessibility_violations(gone) == []
    await gone.screenshot(path=screenshots / "track-gone-dark.png")


async def test_track__courier_silent_for_half_an_hour__shows_no_signal_instead_of_the_state(
    city, open_page, screenshots
):
    await city.driver("d1", RESTAURANT, ago_s=2400)
    order = await city.order(driver_id="d1")
    city.assigned_ago(order, 3000)
    await city.phone("d1", f"orders/{order['order_id']}/picked-up")
    await city.report("d1", north_of(RESTAURANT, 200), ago_s=1920)
    page = await open_page(order["customer_link"], size=PHONE)
    assert await wait_for_text(page, "#sentence", "No signal from the courier")
    assert await wait_for_text(page, "#freshness-text", "last seen 32 min ago")
    assert await page.text_content("#minutes") == ""
    assert await page.text_content("#state") == "On the way to you (last known)"
    bold = "(selector) => Number(getComputedStyle(document.querySelector(selector)).fontWeight)"
    assert await page.evaluate(bold, "#sentence") == 400
    assert await page.evaluate(bold, "#steps .current") == 400
    assert await accessibility_violations(page) == []
    await page.screenshot(path=screenshots / "track-no-signal.png")
    await city.report("d1", north_of(RESTAURANT, 260))
    assert await wait_for_text(page, "#sentence", "Arriving")


async def test_track__webgl_context_lost__throws_nothing_and_recovers(city, open_page):
    order = await picked_up_order(city)
    await city.report("d1", RESTAURANT, ago_s=4)
    page = await open_page(order["customer_link"], size=PHONE)
    assert await eventually(lambda: rendered_features(page, "courier"))
    thrown: list[str] = []
    page.on("pageerror", lambda error: thrown.append(str(error)))
    await page.evaluate("""() => {
      const context = doorstepMap.getCanvas().getContext("webgl2");
      globalThis.lost = context.getExtension("WEBGL_lose_context");
      lost.loseContext();
    }""")
    assert await eventually(lambda: page.evaluate("!doorstepMap.style"))
    await city.report("d1", north_of(RESTAURANT, 60))
    await page.wait_for_timeout(3000)
    assert await wait_for_text(page, "#freshness-text", "Courier seen")
    await page.evaluate("lost.restoreContext()")
    assert await eventually(lambda: rendered_features(page, "courier"))
    await page.evaluate(SAMPLER)
    await reached(page, north_of(RESTAURANT, 60))
    assert thrown == []


async def test_track__under_way__draws_no_straight_line_to_the_door(city, open_page):
    order = await half_way_order(city)
    page = await open_page(order["customer_link"], size=PHONE)
    assert await eventually(lambda: rendered_features(page, "trail"))
    lines = await page.evaluate("""() => ["places", "courier", "trail"].flatMap((source) =>
      doorstepMap.getSource(source).serialize().data.features
        .filter((one) => one.geometry.type === "LineString")
        .map((one) => one.geometry.coordinates))""")
    track = (await city.staff.get(f"/track/{order['order_id']}")).json()
    door = [track["destination"]["lon_deg"], track["destination"]["lat_deg"]]
    assert lines
    assert [line for line in lines if door in line] == []
