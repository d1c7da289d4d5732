"""The courier's page: sign-in, duty, an order, and the browser as a device, with real servers."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Page

from doorstep.credentials import driver_token
from doorstep.store.people import change_device
from tests.browser.conftest import City, OpenPage
from tests.browser.page_checks import (
    PHONE,
    accessibility_violations,
    collect_errors,
    eventually,
    wait_for_text,
)
from tests.integration.http_services import CUSTOMER, RESTAURANT

Place = tuple[float, float]  # longitude, latitude

OUTAGE_S = float(os.environ.get("DRIVE_TEST_OUTAGE_S", "20"))
MOVE_EVERY_S = 1.0
STANDING_S = 45  # two fixes at least 30 s apart
JOURNAL = """(driverId) => new Promise((resolve, reject) => {
  const opening = indexedDB.open(`doorstep-drive-${driverId}`);
  opening.onerror = () => reject(opening.error);
  opening.onsuccess = () => {
    const reading = opening.result.transaction("state").objectStore("state").get("state");
    reading.onsuccess = () => { opening.result.close(); resolve(reading.result); };
  };
})"""


def url_of(city: City, path: str = "/drive") -> str:
    return f"{city.stack.client_environment()['DRIVER_API_URL']}{path}"


def token_of(city: City, driver_id: str) -> str:
    return driver_token(city.stack.paths.fleet_key(), driver_id)


async def open_drive(
    city: City, open_page: OpenPage, driver_id: str, place: Place = RESTAURANT, **options: Any
) -> Page:
    """Register a driver, and open their page signed in, with a position."""
    await city.driver(driver_id)
    page = await open_page(
        f"{url_of(city)}#{token_of(city, driver_id)}",
        size=PHONE,
        permissions=["geolocation"],
        geolocation={"longitude": place[0], "latitude": place[1], "accuracy": 8},
        **options,
    )
    await page.wait_for_selector("#work:not([hidden])")
    return page


async def ride(context: BrowserContext, start: Place, end: Place, seconds: float) -> None:
    """Move the phone from one place to another."""
    steps = max(1, round(seconds / MOVE_EVERY_S))
    for n in range(1, steps + 1):
        lon_deg, lat_deg = (a + (b - a) * n / steps for a, b in zip(start, end, strict=True))
        await context.set_geolocation(
            {"longitude": lon_deg, "latitude": lat_deg, "accuracy": 5 + n % 3}
        )
        await asyncio.sleep(MOVE_EVERY_S)


async def press_duty(page: Page, duty: str) -> None:
    await page.click(f"[data-duty={duty}]")
    assert await eventually(
        lambda: page.evaluate(
            "(d) => JSON.parse(localStorage['doorstep-drive']).driver?.duty === d", duty
        )
    )


async def pending_of(page: Page) -> int:
    return int(await page.get_attribute("#safety", "data-pending") or -1)


async def wait_until_safe(page: Page) -> bool:
    async def is_safe() -> bool:
        return await pending_of(page) == 0

    return bool(await eventually(is_safe))


def stored_seqs(city: City, driver_id: str, boot: str) -> list[int]:
    with city.database() as conn:
        rows = conn.execute(
            "SELECT seq FROM fix_history WHERE driver_id = %s AND boot = %s ORDER BY seq",
            (driver_id, boot),
        ).fetchall()
    return [seq for (seq,) in rows]


async def test_token_in_the_address__leaves_it_and_no_script_can_read_the_session(
    city: City, open_page: OpenPage
) -> None:
    errors: list[str] = []
    addresses: list[str] = []

    def before(page: Page) -> None:
        errors.extend(collect_errors(page))
        page.on("request", lambda request: addresses.append(request.url))

    page = await open_drive(city, open_page, "d1", before=before)
    assert page.url == url_of(city)
    assert await page.evaluate("document.cookie") == ""
    stored = await page.evaluate("JSON.stringify({...localStorage, ...sessionStorage})")
    token = token_of(city, "d1")
    assert all(token not in one for one in (stored, *addresses))
    [cookie] = await page.context.cookies(url_of(city, "/drive/session"))
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/drive")
    assert errors == []


async def test_wrong_token__says_so_and_a_typed_one_signs_in(
    city: City, open_page: OpenPage
) -> None:
    await city.driver("d1")
    page = await open_page(url_of(city), size=PHONE, locale="de-DE")
    await page.fill("input[name=token]", "drv_wrong")
    await page.keyboard.press("Enter")
    assert await wait_for_text(page, "#sign-in-error", "Dieser Token ist ungültig")
    await page.fill("input[name=token]", token_of(city, "d1"))
    await page.keyboard.press("Enter")
    await page.wait_for_selector("#work:not([hidden])")


async def test_revoked_driver__session_ends_and_the_page_asks_for_a_new_token(
    city: City, open_page: OpenPage
) -> None:
    page = await open_drive(city, open_page, "leaver")
    await press_duty(page, "on_duty")
    with city.database() as conn:
        change_device(conn, "driver", "leaver", "revoke", who="test")
        conn.commit()
    assert await wait_for_text(page, "#sign-in-reason", "Your session has ended")


async def test_ride_with_an_outage__every_fix_is_in_the_database_once(
    city: City, open_page: OpenPage
) -> None:
    page = await open_drive(city, open_page, "d1")
    context = page.context
    await press_duty(page, "on_duty")
    order = await city.order("confirm")
    await city.command(order, "assign", driver_id="d1")
    await page.wait_for_selector("#order button.main:text('Picked up')")
    await ride(context, (RESTAURANT[0] - 0.003, RESTAURANT[1]), RESTAURANT, 10)
    await page.click("#order button.main")
    await page.wait_for_selector("#order button.main:text('Delivered')")

    await context.set_offline(True)
    middle = ((RESTAURANT[0] + CUSTOMER[0]) / 2, (RESTAURANT[1] + CUSTOMER[1]) / 2)
    await ride(context, RESTAURANT, middle, OUTAGE_S / 2)
    assert await pending_of(page) >= 1
    await page.reload()  # the page and its journal survive it without a network
    await page.wait_for_selector("#order button.main:text('Delivered')")
    await ride(context, middle, CUSTOMER, OUTAGE_S / 2)
    assert await pending_of(page) >= OUTAGE_S / 8
    assert await wait_for_text(page, "#notices", "No connection")
    await page.click("#order button.main")  # pressed without a network: sent later
    assert await wait_for_text(page, "#notices", "“Delivered” will be sent")
    await context.set_offline(False)

    assert await wait_for_text(page, "#order", "No order right now")
    assert await wait_until_safe(page)
    journal = await page.evaluate(JOURNAL, "d1")
    assert (journal["pending"], journal["givenUp"], journal["rejected"]) == (0, 0, 0)
    assert journal["lastSeq"] >= (10 + OUTAGE_S) / 5
    seqs = stored_seqs(city, "d1", journal["boot"])
    assert seqs == list(range(1, journal["lastSeq"] + 1))
    state = (await city.staff.get(f"/orders/{order['order_id']}")).json()["state"]
    assert state == "delivered"


async def test_two_tabs__one_is_the_device_and_the_other_takes_over(
    city: City, open_page: OpenPage
) -> None:
    first = await open_drive(city, open_page, "d1")
    await press_duty(first, "on_duty")
    second = await first.context.new_page()
    await second.goto(url_of(city))
    assert await wait_for_text(second, "#notices", "open in another tab")
    await first.close()
    assert await eventually(lambda: pending_is_known(second))
    await ride(second.context, RESTAURANT, CUSTOMER, 6)
    assert await wait_until_safe(second)
    journal = await second.evaluate(JOURNAL, "d1")
    seqs = stored_seqs(city, "d1", journal["boot"])
    assert seqs == list(range(1, journal["lastSeq"] + 1))
    assert len(seqs) >= 2


async def pending_is_known(page: Page) -> bool:
    return await pending_of(page) >= 0


async def test_platform_refuses_for_a_while__fixes_wait_and_none_is_sent_twice_at_once(
    city: City, open_page: OpenPage
) -> None:
    page = await open_drive(city, open_page, "d1")
    attempts: Counter[str] = Counter()

    async def refuse(route: Any) -> None:
        attempts["refused"] += 1
        await route.fulfill(status=503, headers={"Retry-After": "3"}, body="{}")

    await page.route("**/locations", refuse)
    await press_duty(page, "on_duty")
    await ride(page.context, RESTAURANT, CUSTOMER, 9)
    assert await pending_of(page) >= 2
    assert 1 <= attempts["refused"] <= 4  # Retry-After is kept
    await page.unroute("**/locations")
    assert await wait_until_safe(page)
    journal = await page.evaluate(JOURNAL, "d1")
    assert stored_seqs(city, "d1", journal["boot"]) == list(range(1, journal["lastSeq"] + 1))


@pytest.mark.parametrize(("locale", "dark"), [("en-GB", False), ("it-IT", True)])
async def test_page_with_an_order__is_accessible_and_speaks_the_phones_language(
    city: City, open_page: OpenPage, screenshots: Path, locale: str, dark: bool
) -> None:
    page = await open_drive(city, open_page, "anna", locale=locale, dark=dark)
    await press_duty(page, "on_duty")
    order = await city.order("confirm")
    await city.command(order, "assign", driver_id="anna")
    await page.wait_for_selector("#order button.main")
    expected = {"en-GB": "Picked up", "it-IT": "Ritirato"}[locale]
    assert await page.text_content("#order button.main") == expected
    assert await page.get_attribute("html", "lang") == locale[:2]
    assert await wait_until_safe(page)
    assert await accessibility_violations(page) == []
    name = f"drive-{locale[:2]}-{'dark' if dark else 'light'}.png"
    await page.screenshot(path=screenshots / name)


async def test_offer_and_details__accept_navigate_and_fail_with_a_reason(
    city: City, open_page: OpenPage, screenshots: Path
) -> None:
    """The platform's answers are replaced: offers and details are a matter of driver_api."""
    order_id = "7d3f5f4e-0000-4000-8000-000000000001"
    place = {"lon_deg": CUSTOMER[0], "lat_deg": CUSTOMER[1]}
    restaurant = {"lon_deg": RESTAURANT[0], "lat_deg": RESTAURANT[1], "name": "Da Mario"}
    offer = {
        "order_id": order_id,
        "restaurant": restaurant,
        "pickup_distance_m": 1240,
        "expires_at": (datetime.now(UTC) + timedelta(seconds=90)).isoformat(),
    }
    order = {
        "order_id": order_id,
        "state": "picked_up",
        "restaurant": {**restaurant, "address": "Via Romana 3", "phone": "+39055123456"},
        "destination": place,
        "customer": {
            "name": "Gina Rossi",
            "phone": "+39333000111",
            "contact_rule": "any",
            "address": "Piazza Ghiberti 5",
            "note": "Second door,\nbell 4",
        },
    }
    reasons = ["customer_absent", "wrong_address", "other"]
    answer: dict[str, Any] = {"offers": [offer], "order": None, "failure_reasons": reasons}
    posted: list[tuple[str, Any]] = []

    async def reply(route: Any) -> None:
        if route.request.method == "GET":
            mine = {"driver_id": "anna", "duty": "on_duty", "state": "available", **answer}
            await route.fulfill(json=mine)
            return
        posted.append((route.request.url.partition("/drivers/anna/")[2], route.request.post_data))
        await route.fulfill(json={})
        answer.update(offers=[], order=order)

    page = await open_drive(city, open_page, "anna", user_agent="Mozilla/5.0 (Linux; Android 15)")
    await page.route(re.compile(r"/drivers/anna(/o.*)?$"), reply)
    await page.reload()
    assert await wait_for_text(page, ".offer", "1.2 km away")
    left_s = int((await page.text_content(".offer .left") or "").removesuffix(" s"))
    assert 30 <= left_s <= 90
    assert await accessibility_violations(page) == []
    await page.screenshot(path=screenshots / "drive-offer.png")
    await page.click(".offer button.main")
    assert await wait_for_text(page, "#order", "Gina Rossi")
    assert await wait_for_text(page, "#order .note", "bell 4")
    links = await page.eval_on_selector_all("#order a", "all => all.map((a) => a.href)")
    assert (
        f"geo:{place['lat_deg']},{place['lon_deg']}?q={place['lat_deg']},{place['lon_deg']}"
        in links
    )
    assert {"tel:+39055123456", "tel:+39333000111", "sms:+39333000111"} <= set(links)
    assert await accessibility_violations(page) == []
    await page.screenshot(path=screenshots / "drive-order.png")
    await page.click("#order button.danger")
    await page.check("dialog input[value=wrong_address]")
    await page.fill("dialog textarea", "no such number")
    assert await accessibility_violations(page) == []
    await page.screenshot(path=screenshots / "drive-failed.png")
    await page.click("dialog button.danger")
    assert await eventually(lambda: is_length(posted, 2))
    failed = json.dumps(
        {"reason": "wrong_address", "note": "no such number"}, separators=(",", ":")
    )
    assert posted == [
        (f"offers/{order_id}/accept", None),
        (f"orders/{order_id}/failed", failed),
    ]


async def is_length(found: list[Any], length: int) -> bool:
    return len(found) == length


async def test_page__can_be_installed_and_keeps_the_screen_on(
    city: City, open_page: OpenPage
) -> None:
    requested = """() => {
      globalThis.wakeLocks = [];
      const request = WakeLock.prototype.request;
      WakeLock.prototype.request = function (...kinds) {
        wakeLocks.push(...kinds);
        return request.apply(this, kinds);
      };
    }"""
    page = await open_drive(
        city, open_page, "d1", before=lambda page: page.add_init_script(f"({requested})()")
    )
    await page.evaluate("navigator.serviceWorker.ready")
    devtools = await page.context.new_cdp_session(page)
    found = await devtools.send("Page.getInstallabilityErrors")
    # A context of a test is like a private window, where nothing is installed.
    errors = [one["errorId"] for one in found["installabilityErrors"]]
    assert [one for one in errors if one != "in-incognito"] == []
    assert await page.evaluate("wakeLocks") == []
    await press_duty(page, "on_duty")
    assert await eventually(lambda: page.evaluate("wakeLocks.length"))


async def test_standing_still__arrival_at_the_restaurant_is_proved_without_a_press(
    city: City, open_page: OpenPage
) -> None:
    page = await open_drive(city, open_page, "d1")
    await press_duty(page, "on_duty")
    order = await city.order("confirm")
    await city.command(order, "assign", driver_id="d1")
    assert await wait_for_text(page, "#order h2", "Go to the restaurant")
    for _ in range(STANDING_S // 5):
        await ride(page.context, RESTAURANT, RESTAURANT, 1)
        await asyncio.sleep(4)
    assert await wait_for_text(page, "#order h2", "At the restaurant")


async def test_full_storage__page_says_so_and_goes_on_once_there_is_room(
    city: City, open_page: OpenPage
) -> None:
    """IndexedDB's refusal is simulated: Chromium's quota cannot be set for a test's context."""
    full_storage = """() => {
      const add = IDBObjectStore.prototype.add;
      IDBObjectStore.prototype.add = function (...row) {
        if (globalThis.isFull) throw new DOMException("full", "QuotaExceededError");
        return add.apply(this, row);
      };
    }"""
    page = await open_drive(
        city, open_page, "d1", before=lambda page: page.add_init_script(f"({full_storage})()")
    )
    await press_duty(page, "on_duty")
    assert await wait_until_safe(page)
    await page.evaluate("globalThis.isFull = true")
    await ride(page.context, RESTAURANT, CUSTOMER, 6)
    assert await wait_for_text(page, "#notices", "storage is full")
    await page.evaluate("globalThis.isFull = false")
    await ride(page.context, CUSTOMER, RESTAURANT, 6)
    assert await eventually(lambda: has_no_notice(page))
    assert await wait_until_safe(page)
    journal = await page.evaluate(JOURNAL, "d1")
    assert stored_seqs(city, "d1", journal["boot"]) == list(range(1, journal["lastSeq"] + 1))


async def has_no_notice(page: Page) -> bool:
    return await page.text_content("#notices") == ""


async def test_off_duty__no_position_leaves_the_phone(city: City, open_page: OpenPage) -> None:
    page = await open_drive(city, open_page, "d1")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    await ride(page.context, RESTAURANT, CUSTOMER, 5)
    assert [url for url in sent if url.endswith("/locations")] == []
    assert await wait_for_text(page, "#safety", "Your position is not reported")
