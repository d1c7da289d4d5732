"""The customer's page in a real browser, over the whole stack."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest
from playwright.async_api import Page, Route

from simulators.tracks import read_track
from tests.browser.looking import PHONE, PROJECT, barriers, drawn, says, seen, watch
from tests.integration.http_services import CUSTOMER, RESTAURANT, north_of

Place = tuple[float, float]

# Notes every place at which the courier is drawn, and the whole way behind.
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

HIDE = """(hidden) => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


async def places(page: Page) -> list[Place | None]:
    """Where the courier was drawn so far, in order; None while there was nobody."""
    found = await page.evaluate("places")
    return [tuple(one) if one else None for one in found]


async def reached(page: Page, place: Place) -> list[Place | None]:
    """Wait until the courier is drawn at a place; give all places up to it."""

    async def look() -> list[Place | None] | None:
        found = await places(page)
        return found if found and found[-1] == place else None

    found: list[Place | None] = await seen(look)
    assert found, f"never at {place}: {await places(page)}"
    return found


async def under_way(city: Any, driver_id: str = "d1", place: Place = RESTAURANT) -> dict[str, Any]:
    """An order on its way, assigned ten minutes ago."""
    await city.driver(driver_id, place, ago_s=300)
    order: dict[str, Any] = await city.order(driver_id=driver_id)
    city.assigned_ago(order, 600)
    await city.phone(driver_id, f"orders/{order['order_id']}/picked-up")
    return order


async def on_the_streets(city: Any) -> dict[str, Any]:
    """An order half way from Ristorante il Cantinone, as the sample track goes."""
    track = read_track(PROJECT / "simulators/tracks/firenze_delivery.gpx")
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


async def test_track__from_the_link__shows_the_courier_while_under_way(city, open_page):
    await city.driver("d1", RESTAURANT)
    order = await city.order(driver_id="d1")
    mine = f"orders/{order['order_id']}"
    await city.phone("d1", f"{mine}/picked-up")
    await city.report("d1", north_of(RESTAURANT, 300))

    bad: list[Any] = []
    page = await open_page(
        order["customer_link"], size=PHONE, before=lambda page: bad.append(watch(page))
    )
    assert await seen(lambda: drawn(page, "courier")) == 1
    assert await seen(lambda: drawn(page, "way"))
    assert await page.text_content("#number") == order["order_id"][:8]
    assert await page.text_content("#state") == "On the way to you"
    assert "min" in (await page.text_content("#minutes") or "")
    assert "#" not in page.url  # the token is a cookie now, which no script can read
    [cookie] = await page.context.cookies(f"{city.url}/track/{order['order_id']}")
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert await page.evaluate("document.cookie") == ""

    await city.phone("d1", f"{mine}/delivered")
    await city.report("d1", CUSTOMER)

    async def no_courier() -> bool:
        return await drawn(page, "courier") == 0

    assert await seen(no_courier)
    assert await page.text_content("#state") == "Delivered"
    await page.reload()
    assert await seen(lambda: page.locator("#steps li.now").count()) == 1
    assert bad == [[]]


async def test_track__tracking_api_killed__heals_by_itself_with_each_event_once(city, open_page):
    await city.driver("d1", RESTAURANT)
    order = await city.order(driver_id="d1")
    await city.report("d1", north_of(RESTAURANT, 300))
    page = await open_page(order["customer_link"], size=PHONE)

    async def no_trouble() -> bool:
        return await page.text_content("#trouble") == ""

    await page.evaluate("globalThis.neverReloaded = true")
    assert await says(page, "#state", "Courier on the way to the restaurant")
    os.kill(city.stack.pid_of("tracking_api"), signal.SIGKILL)
    killed_at = time.monotonic()
    assert await says(page, "#trouble", "trying again")
    await city.phone("d1", f"orders/{order['order_id']}/picked-up")
    assert await says(page, "#state", "On the way to you")
    # The state may have come by a plain GET, between two tries of the stream.
    assert await seen(no_trouble)
    print(f"healed {time.monotonic() - killed_at:.1f} s after the kill")
    await city.phone("d1", f"orders/{order['order_id']}/delivered")
    assert await says(page, "#state", "Delivered")
    # created, confirmed and assigned came in the snapshot, which is numbered by its newest event
    assert await page.evaluate("doorstepEvents") == [3, 4, 5]
    assert await page.evaluate("neverReloaded")


async def test_track__no_answer_at_first__opens_when_there_is_one(city, open_page):
    order = await city.order()
    failures = 2

    async def fail_at_first(route: Route) -> None:
        nonlocal failures
        failures -= 1
        await (route.fulfill(status=503) if failures >= 0 else route.continue_())

    async def before(page: Page) -> None:
        await page.route("**/track/*/session", fail_at_first)

    page = await open_page(order["customer_link"], before=before)
    assert await seen(lambda: page.locator("#steps li.now").count()) == 1
    assert await page.text_content("#state") == "Order placed"
    assert await page.locator("#gone").is_hidden()


async def test_track__with_a_bad_link__says_so_and_nothing_else(city, open_page):
    order = await city.order()
    page = await open_page(f"{order['customer_link']}x")
    assert await seen(lambda: page.locator("#gone").is_visible())


async def test_track__a_fix__the_courier_glides_there_and_never_past_it(city, open_page):
    order = await under_way(city)
    start, end = north_of(RESTAURANT, 300), north_of(RESTAURANT, 340)
    await city.report("d1", start, ago_s=4)
    page = await open_page(order["customer_link"], size=PHONE)
    assert await seen(lambda: drawn(page, "courier"))
    await page.evaluate(SAMPLER)
    await city.report("d1", end, heading_deg=0, speed_mps=10)
    glided = [one[1] for one in await reached(page, end) if one]
    assert len(glided) > 2, glided  # how many more is the machine's affair: each is a frame
    assert glided == sorted(glided)
    assert (glided[0], glided[-1]) == (start[1], end[1])
    assert await drawn(page, "heading") == 1
    await page.close()


async def test_track__for_whoever_wants_no_motion__there_is_none(city, open_page):
    order = await under_way(city)
    await city.report("d1", RESTAURANT, ago_s=4)
    page = await open_page(order["customer_link"], size=PHONE, reduced_motion="reduce")
    assert await seen(lambda: drawn(page, "courier"))
    await page.evaluate(SAMPLER)
    await city.report("d1", end := north_of(RESTAURANT, 40))
    assert await reached(page, end) == [RESTAURANT, end]


async def test_track__an_old_fix_or_a_jump__is_shown_where_it_is_without_a_glide(city, open_page):
    order = await under_way(city)
    way = [(north_of(RESTAURANT, 100 * n), ago_s) for n, ago_s in ((3, 150), (4, 100), (60, 99))]
    await city.report("d1", *way[0])
    page = await open_page(order["customer_link"], size=PHONE)
    assert await seen(lambda: drawn(page, "courier"))
    await page.evaluate(SAMPLER)
    for place, ago_s in way[1:]:
        await city.report("d1", place, ago_s)
        await reached(page, place)
    assert await places(page) == [place for place, _ in way]
    assert "last seen 2 min ago" in (await page.text_content("#fresh-text") or "")
    assert list(way[2][0]) not in await page.evaluate(TRAIL)  # nobody has gone this way


async def test_track__a_hidden_page__does_not_glide_and_is_in_place_when_it_is_seen_again(
    city, open_page
):
    order = await under_way(city)
    await city.report("d1", RESTAURANT, ago_s=8)
    page = await open_page(order["customer_link"], size=PHONE)
    assert await seen(lambda: drawn(page, "courier"))
    await page.evaluate(SAMPLER)
    await page.evaluate(HIDE, True)
    await city.report("d1", end := north_of(RESTAURANT, 40), ago_s=4)  # so the next is 4 s long
    assert await reached(page, end) == [RESTAURANT, end]
    await page.evaluate(HIDE, False)
    await city.report("d1", north_of(RESTAURANT, 60))
    assert len(await reached(page, north_of(RESTAURANT, 60))) > 3  # now it glides again


async def test_track__opened_on_the_way__shows_the_last_saved_place_and_the_way_inside_the_window(
    city, open_page
):
    await city.driver("d1", north_of(RESTAURANT, -500), ago_s=120)  # before it was this order's
    order = await city.order(driver_id="d1")
    city.assigned_ago(order, 60)
    way = [north_of(RESTAURANT, 30 * n) for n in range(6)]
    for n, place in enumerate(way):
        await city.report("d1", place, ago_s=24 - 4 * n)
    page = await open_page(order["customer_link"], size=PHONE)
    assert await seen(lambda: drawn(page, "courier"))  # and the phone says nothing more
    await page.evaluate(SAMPLER)
    assert await places(page) == [way[-1]]
    await seen(lambda: page.evaluate(f"({TRAIL})().length === {len(way)}"))
    assert await page.evaluate(TRAIL) == [list(place) for place in way]


async def test_track__reassigned__shows_nothing_more_of_the_first_driver(city, open_page):
    await city.driver("d1", north_of(RESTAURANT, 200))
    order = await city.order(driver_id="d1")
    await city.report("d1", RESTAURANT)
    page = await open_page(order["customer_link"], size=PHONE)
    assert await seen(lambda: drawn(page, "courier"))
    await page.evaluate(SAMPLER)
    await city.driver("d2", north_of(RESTAURANT, 900))
    await city.command(order, "reassign", driver_id="d2")
    await city.order(driver_id="d1")
    await city.report("d1", secret := north_of(RESTAURANT, -700))
    await city.report("d2", end := north_of(RESTAURANT, 800))
    shown = await reached(page, end)
    assert [one for one in shown if one] == [RESTAURANT, end]  # and no glide between the two
    assert await page.evaluate(TRAIL) == []
    assert secret not in await places(page)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_track__light_and_dark__has_no_serious_barrier(city, open_page, pictures, dark):
    order = await on_the_streets(city)
    page = await open_page(order["customer_link"], size=PHONE, dark=dark)
    assert await seen(lambda: drawn(page, "trail"))
    assert await seen(lambda: drawn(page, "heading"))
    assert await seen(lambda: drawn(page, "way-names"))
    assert await barriers(page) == []
    assert await seen(lambda: page.evaluate("doorstepMap.areTilesLoaded()"))
    await page.screenshot(path=pictures / f"track-{'dark' if dark else 'light'}.png")
    gone = await open_page(f"{order['customer_link']}x", size=PHONE, dark=dark)
    assert await seen(lambda: gone.locator("#gone").is_visible())
    assert await barriers(gone) == []
    await gone.screenshot(path=pictures / f"track-gone-{'dark' if dark else 'light'}.png")
