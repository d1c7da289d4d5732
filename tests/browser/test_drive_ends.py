"""The courier's page at the door, with real servers: PIN, photo, note, the way back."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

from playwright.async_api import Page

from tests.browser.conftest import City, OpenPage
from tests.browser.page_checks import accessibility_violations, eventually, wait_for_text
from tests.browser.test_drive import open_drive, press_duty


def picture() -> bytes:
    """A PNG of 2 × 2 grey pixels, with a text of where it was taken."""
    rows = zlib.compress(b"\x00\x80\x80" * 2)
    found = b"\x89PNG\r\n\x1a\n"
    head = struct.pack(">IIBBBBB", 2, 2, 8, 0, 0, 0, 0)
    for name, data in (
        (b"IHDR", head),
        (b"tEXt", b"Place\x0011.25"),
        (b"IDAT", rows),
        (b"IEND", b""),
    ):
        check = struct.pack(">I", zlib.crc32(name + data))
        found += struct.pack(">I", len(data)) + name + data + check
    return found


async def open_with_an_order(
    city: City, open_page: OpenPage, **members: Any
) -> tuple[Page, dict[str, Any]]:
    """d1's page, with an order on board."""
    page = await open_drive(city, open_page, "d1")
    await press_duty(page, "on_duty")
    order = await city.order("confirm", **members)
    await city.command(order, "assign", driver_id="d1")
    await page.click("#order button.main:text('Picked up')")
    await page.wait_for_selector("#order button.main:text('Delivered')")
    return page, order


async def read(city: City, order: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = (await city.staff.get(f"/orders/{order['order_id']}")).json()
    return found


async def test_order_with_a_pin__wrong_then_right_with_a_photo__is_delivered(
    city: City, open_page: OpenPage, screenshots: Path
) -> None:
    page, order = await open_with_an_order(city, open_page, pin="4711")
    await page.click("#order button.main")
    assert await wait_for_text(page, "dialog h2", "Ask the customer for the PIN")
    await page.fill("dialog input[name=pin]", "1147")
    assert await accessibility_violations(page) == []
    await page.screenshot(path=screenshots / "drive-pin.png")
    await page.click("dialog button.main")
    assert await wait_for_text(page, "#notices", "The PIN is wrong. Tries left: 4.")
    assert (await read(city, order))["state"] == "picked_up"

    await page.click("#order button.main")
    await page.fill("dialog input[name=pin]", "4711")
    await page.fill("dialog textarea", "at the gate")
    await page.set_input_files(
        "dialog input[type=file]", {"name": "a.png", "mimeType": "image/png", "buffer": picture()}
    )
    await page.click("dialog button.main")
    assert await wait_for_text(page, "#order", "No order right now")

    async def has_photo() -> bool:
        return bool((await read(city, order))["has_photo"])

    assert await eventually(has_photo)
    found = await read(city, order)
    assert found["delivery"] == {"by": "driver", "note": "at the gate", "pin": True}
    photo = await city.staff.get(f"/orders/{order['order_id']}/photo")
    assert photo.headers["content-type"] == "image/jpeg"
    assert b"11.25" not in photo.content
    assert await page.text_content("#notices") == ""


async def test_pin_and_photo_without_a_network__survive_a_reload_and_are_sent_later(
    city: City, open_page: OpenPage
) -> None:
    page, order = await open_with_an_order(city, open_page, pin="4711")
    await page.evaluate("navigator.serviceWorker.ready")
    await page.context.set_offline(True)
    assert await wait_for_text(page, "#notices", "No connection")
    await page.click("#order button.main")
    assert await wait_for_text(page, "dialog", "The PIN is checked when there is a connection")
    await page.fill("dialog input[name=pin]", "4711")
    await page.set_input_files(
        "dialog input[type=file]", {"name": "a.png", "mimeType": "image/png", "buffer": picture()}
    )
    await page.click("dialog button.main")
    assert await wait_for_text(page, "#notices", "A photo waits for a connection")
    await page.reload()
    assert await wait_for_text(page, "#notices", "“Delivered” will be sent")
    await page.context.set_offline(False)
    assert await wait_for_text(page, "#order", "No order right now")

    async def has_photo() -> bool:
        found = await read(city, order)
        return found["state"] == "delivered" and bool(found["has_photo"])

    assert await eventually(has_photo)


async def test_refused_by_the_customer__is_taken_back_to_the_restaurant(
    city: City, open_page: OpenPage, screenshots: Path
) -> None:
    page, order = await open_with_an_order(city, open_page, items="2 x pizza")
    await page.click("#order button.danger")
    await page.check("dialog input[value=refused]")
    await page.check("dialog input[value=return]")
    assert await accessibility_violations(page) == []
    await page.screenshot(path=screenshots / "drive-next-step.png")
    await page.click("dialog button.danger")
    assert await wait_for_text(page, "#returns", "Take back to")
    assert await wait_for_text(page, "#returns", "2 x pizza")
    assert await accessibility_violations(page) == []
    await page.screenshot(path=screenshots / "drive-return.png")
    await page.click("#returns button.main")
    assert await wait_for_text(page, "#order", "No order right now")
    assert (await read(city, order))["return_leg"]["ended_by"] == "d1"


async def test_several_orders__are_shown_in_their_sequence(city: City, open_page: OpenPage) -> None:
    """The platform's answer is extended: a list of orders is a matter of driver_api."""
    page, order = await open_with_an_order(city, open_page)
    second = "7d3f5f4e-0000-4000-8000-000000000002"

    async def extend(route: Any) -> None:
        answer = await route.fetch()
        body = await answer.json()
        mine = body["order"]
        body["orders"] = [mine, {**mine, "order_id": second, "state": "assigned"}]
        await route.fulfill(response=answer, json=body)

    await page.route("**/drivers/d1", extend)
    assert await wait_for_text(page, f"[data-order='{second}']", "Stop 2 of 2")
    shown = await page.eval_on_selector_all(
        "#order [data-order]", "all => all.map((one) => one.dataset.order)"
    )
    assert shown == [order["order_id"], second]
    assert await page.text_content(f"[data-order='{second}'] button.main") == "Picked up"
