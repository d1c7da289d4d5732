"""The customer's page: the sentence, languages, the way ahead, sharing, what a customer does."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from playwright.async_api import Page, Route

from tests.browser.page_checks import (
    PHONE,
    accessibility_violations,
    collect_errors,
    eventually,
    more_tabs_than_connections,
    rendered_features,
    wait_for_text,
)
from tests.browser.test_track import half_way_order, picked_up_order
from tests.integration.http_services import RESTAURANT, north_of

ROUTE = """() => doorstepMap.getSource("route").serialize().data.features
  .flatMap((one) => one.geometry.coordinates)"""
FLORENCE, NEW_YORK = "Europe/Rome", "America/New_York"


async def answer_with(page: Page, **members: Any) -> None:
    """Let GET /track and the stream's snapshot have further members, as other parts will send."""

    async def add(route: Route) -> None:
        response = await route.fetch()
        body = await response.json()
        await route.fulfill(response=response, json={**body, **members})

    await page.route("**/track/*-*-*", add)
    await page.route("**/track/*/stream*", lambda route: route.abort())


async def test_track__way_ahead__is_drawn_along_the_streets_and_shortened(city, open_page):
    order = await half_way_order(city)
    page = await open_page(order["customer_link"], size=PHONE)
    assert await eventually(lambda: rendered_features(page, "route"))
    track = (await city.staff.get(f"/track/{order['order_id']}")).json()
    way = track["route"]["coordinates"]
    assert 2 < len(way) <= 200
    door = track["destination"]
    assert way[-1] == pytest.approx([door["lon_deg"], door["lat_deg"]], abs=0.002)
    drawn = await page.evaluate(ROUTE)
    assert drawn[-1] == way[-1]
    await city.report("d1", (way[2][0], way[2][1]), speed_mps=5)

    async def is_shorter() -> bool:
        return len(await page.evaluate(ROUTE)) < len(drawn)

    assert await eventually(is_shorter)


@pytest.mark.parametrize(
    ("locale", "sentence", "state", "step"),
    [
        ("it-IT", "Arriva tra le", "Ordine inviato", "In preparazione"),
        ("en-GB", "Arriving", "Order placed", "Being prepared"),
        ("fr-CH", "Arrivée entre", "Commande passée", "En préparation"),
        ("de-AT", "Ankunft", "Bestellt", "In Zubereitung"),
        ("sv-SE", "Arriving", "Order placed", "Being prepared"),
    ],
)
async def test_track__just_ordered__says_when_in_the_phones_language(
    city, open_page, screenshots, locale, sentence, state, step
):
    order = await city.order()
    page = await open_page(order["customer_link"], size=PHONE, locale=locale, timezone_id=FLORENCE)
    assert await wait_for_text(page, "#sentence", sentence)
    assert await page.text_content("#state") == state
    assert step in (await page.text_content("#steps") or "")
    assert await page.evaluate("document.documentElement.lang") == (
        locale[:2] if locale != "sv-SE" else "en"
    )
    assert await accessibility_violations(page) == []
    await page.screenshot(path=screenshots / f"track-ordered-{locale[:2]}.png")


async def test_track__phone_in_another_zone__shows_the_citys_time_with_its_zone(city, open_page):
    order = await picked_up_order(city)
    await city.report("d1", north_of(RESTAURANT, 300))
    links = {"locale": "en-GB", "size": PHONE}
    here = await open_page(order["customer_link"], timezone_id=FLORENCE, **links)
    there = await open_page(order["customer_link"], timezone_id=NEW_YORK, **links)
    assert await wait_for_text(there, "#sentence", "CET") or await wait_for_text(
        there, "#sentence", "GMT+"
    )
    assert await wait_for_text(here, "#sentence", "Arriving")
    assert "CET" not in (await here.text_content("#sentence") or "")


async def test_track__more_tabs_than_connections__all_are_kept_up_to_date(city, open_page):
    order = await picked_up_order(city)
    await city.report("d1", RESTAURANT)
    page = await open_page(order["customer_link"], size=PHONE)
    pages = await more_tabs_than_connections(page)
    for one in pages:
        assert await wait_for_text(one, "#state", "On the way to you")
    await city.phone("d1", f"orders/{order['order_id']}/delivered")
    for one in pages:
        assert await wait_for_text(one, "#state", "Delivered")
        assert await one.text_content("#connection") == ""


async def test_share__link_opened_elsewhere__shows_state_and_position_but_no_place(
    city, open_page, screenshots
):
    order = await picked_up_order(city)
    await city.report("d1", north_of(RESTAURANT, 300))
    page = await open_page(order["customer_link"], size=PHONE)
    await page.locator("#share").click()
    link = await page.locator("#share-link").input_value()
    assert link != order["customer_link"]
    errors: list[Any] = []
    friend = await open_page(
        link, size=PHONE, before=lambda page: errors.append(collect_errors(page))
    )
    assert await wait_for_text(friend, "#sentence", "Arriving")
    assert await eventually(lambda: rendered_features(friend, "courier"))
    assert await friend.locator("#legend").is_hidden()
    assert await friend.locator("#actions").is_hidden()
    path = f"/track/{order['order_id']}"
    seen = json.loads(await friend.evaluate(f"fetch('{path}').then((one) => one.text())"))
    assert (seen["destination"], seen["restaurant"], seen["route"]) == (None, None, None)
    statuses = """(path) => Promise.all(["page", "history"].map((what) =>
      fetch(`${path}/${what}`).then((one) => one.status)))"""
    assert errors == [[]]
    assert await friend.evaluate(statuses, path) == [404, 404]
    await friend.screenshot(path=screenshots / "track-shared.png")
    await page.locator("#unshare").click()
    assert await wait_for_text(page, "#outcome", "has ended")
    assert await eventually(friend.locator("#link-ended").is_visible)


async def test_note_and_cancel__before_pick_up__are_done_and_then_gone(city, open_page):
    order = await city.order()
    page = await open_page(order["customer_link"], size=PHONE)
    await page.locator("#door-note").fill("Ring twice")
    await page.locator("#note-form button").click()
    assert await wait_for_text(page, "#outcome", "saved")
    found = (await city.staff.get(f"/orders/{order['order_id']}")).json()
    assert found["door_note"] == "Ring twice"
    await page.locator("#cancel").click()
    assert await page.evaluate("document.activeElement.id") == "cancel-yes"
    assert await accessibility_violations(page) == []
    await page.keyboard.press("Enter")
    assert await wait_for_text(page, "#sentence", "Cancelled at")
    assert await eventually(page.locator("#cancel").is_hidden)  # redrawn after a request
    assert await page.locator("#steps li.ended").count() == 1


async def test_track__members_of_other_parts__are_said_as_what_they_are(
    city, open_page, screenshots
):
    order = await picked_up_order(city)
    await city.report("d1", north_of(RESTAURANT, 300))

    async def late(page: Page) -> None:
        await answer_with(page, late_by_s=720, pin="4711")

    page = await open_page(order["customer_link"], size=PHONE, before=late)
    assert await wait_for_text(page, "#notices", "12 min later than promised")
    assert await wait_for_text(page, "#pin", "4711")
    assert await accessibility_violations(page) == []
    await page.screenshot(path=screenshots / "track-late.png")

    async def waiting(page: Page) -> None:
        band = {"earliest_at": "2026-12-01T19:10:00Z", "latest_at": "2026-12-01T19:25:00Z"}
        await answer_with(page, position=None, route=None, other_delivery_first=True, eta=band)

    other = await open_page(
        order["customer_link"], size=PHONE, before=waiting, locale="en-GB", timezone_id=FLORENCE
    )
    assert await wait_for_text(other, "#notices", "another delivery first")
    assert await wait_for_text(other, "#sentence", "Arriving 20:10 to 20:25")
    assert await other.text_content("#minutes") == ""

    async def failed(page: Page) -> None:
        await answer_with(page, state="failed", ended_reason="customer_absent")

    over = await open_page(order["customer_link"], size=PHONE, before=failed)
    assert await wait_for_text(over, "#sentence", "Could not be delivered")
    assert await wait_for_text(over, "#notices", "Nobody opened the door")


async def test_track__without_webgl__is_readable(city, open_page, screenshots):
    order = await picked_up_order(city)
    await city.report("d1", north_of(RESTAURANT, 300))

    async def no_webgl(page: Page) -> None:
        await page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")

    page = await open_page(order["customer_link"], size=PHONE, before=no_webgl)
    assert await eventually(page.locator("body.no-map").count)
    assert await wait_for_text(page, "#sentence", "Arriving")
    assert await wait_for_text(page, "#freshness-text", "Courier seen")
    await page.screenshot(path=screenshots / "track-no-webgl.png")


async def test_push__messages_of_the_push_service__are_shown_as_one_notification(city, open_page):
    order = await city.order()
    page = await open_page(order["customer_link"], size=PHONE)
    await page.context.grant_permissions(["notifications"])
    await page.evaluate("""async () => {
      await navigator.serviceWorker.register("/t/service-worker.js", { scope: "/t/" });
      await navigator.serviceWorker.ready;
    }""")
    devtools = await page.context.new_cdp_session(page)
    registrations: list[dict[str, Any]] = []
    devtools.on(
        "ServiceWorker.workerRegistrationUpdated",
        lambda event: registrations.extend(event["registrations"]),
    )
    await devtools.send("ServiceWorker.enable")

    async def is_registered() -> bool:
        return bool(registrations)

    assert await eventually(is_registered)
    shown = """async () => (await (await navigator.serviceWorker.ready).getNotifications())
      .map((one) => one.title)"""

    async def deliver(title: str) -> None:
        message = {"title": title, "tag": "t", "url": "/t/x", "language": "it"}
        await devtools.send(
            "ServiceWorker.deliverPushMessage",
            {
                "origin": city.url,
                "registrationId": registrations[-1]["registrationId"],
                "data": json.dumps(message),
            },
        )

    for title in ("Il corriere sta arrivando", "Il corriere sta arrivando", "È consegnato"):
        await deliver(title)

        async def is_shown_alone(title: str = title) -> bool:
            return await page.evaluate(shown) == [title]

        assert await eventually(is_shown_alone)


async def test_track__failed_with_another_attempt__leads_to_the_new_order(city, open_page):
    order = await picked_up_order(city)
    page = await open_page(order["customer_link"], size=PHONE)
    assert await wait_for_text(page, "#state", "On the way to you")
    body = {"reason": "customer_absent", "next_step": "retry"}
    await city.phone("d1", f"orders/{order['order_id']}/failed", **body)
    assert await wait_for_text(page, "#next-attempt", "A new delivery was arranged.")
    assert await accessibility_violations(page) == []
    await page.locator("#follow-retry").click()
    assert await wait_for_text(page, "#state", "Order placed")
    found = (await city.staff.get(f"/orders/{order['order_id']}")).json()
    assert found["retry_order_id"] in page.url


@pytest.mark.parametrize("is_answered", [True, False], ids=["late", "never"])
async def test_track__page_of_an_earlier_event_overtaken__shows_the_newest(
    city, open_page, is_answered
):
    order = await picked_up_order(city)
    page = await open_page(order["customer_link"], size=PHONE)
    assert await wait_for_text(page, "#state", "On the way to you")
    asked, failed = asyncio.Event(), asyncio.Event()

    async def answer_late(route: Route) -> None:
        response = await route.fetch()
        asked.set()
        await failed.wait()
        await (route.fulfill(response=response) if is_answered else route.abort())

    await page.route("**/track/*/page", answer_late, times=1)
    await page.reload()
    await asyncio.wait_for(asked.wait(), 30)
    body = {"reason": "customer_absent", "next_step": "retry"}
    await city.phone("d1", f"orders/{order['order_id']}/failed", **body)
    assert await wait_for_text(page, "#state", "Could not be delivered")
    failed.set()
    assert await wait_for_text(page, "#next-attempt", "A new delivery was arranged.")
