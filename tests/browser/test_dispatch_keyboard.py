"""A dispatcher's hour by keyboard alone: the focus is visible and never lost."""

from __future__ import annotations

from pathlib import Path

from playwright.async_api import Page

from tests.browser.conftest import City, OpenPage
from tests.browser.page_checks import eventually, wait_for_text
from tests.browser.test_dispatch import Alerts, choose_place, stops_of
from tests.integration.http_services import RESTAURANT, north_of

MAX_TABS = 120
# Records each use of a mouse, and after which key the focus was lost.
WATCH_FOCUS = """
globalThis.faults = [];
let lastKey = null;
addEventListener("keydown", (event) => (lastKey = event.key), true);
addEventListener("pointerdown", () => faults.push("mouse"), true);
setInterval(() => {
  const { activeElement: active, body } = document;
  if (lastKey === null || (active !== body && active !== null)) return;
  faults.push(`lost after ${lastKey}`);
  lastKey = null;
}, 20);
"""
IS_FOCUS_VISIBLE = """() => {
  const { outlineStyle, outlineWidth, boxShadow } = getComputedStyle(document.activeElement);
  const hasOutline = outlineStyle !== "none" && parseFloat(outlineWidth) > 0;
  const { top, right, bottom, left } = document.activeElement.getBoundingClientRect();
  const isInView = bottom > 0 && top < innerHeight && right > 0 && left < innerWidth;
  return isInView && (hasOutline || boxShadow !== "none");
}"""


class Keyboard:
    """Presses keys, and checks after each that the focus is visible."""

    def __init__(self, page: Page) -> None:
        self.page = page

    async def press(self, *keys: str) -> None:
        for key in keys:
            await self.page.keyboard.press(key)

    async def tab_to(self, selector: str) -> None:
        """Press Tab until an element of this selector has the focus."""
        hidden = []
        for _ in range(MAX_TABS):
            if await self.page.evaluate("(one) => document.activeElement.matches(one)", selector):
                assert hidden == []
                return
            await self.page.keyboard.press("Tab")
            if not await self.page.evaluate(IS_FOCUS_VISIBLE):
                hidden.append(await self.page.evaluate("document.activeElement.outerHTML"))
        raise AssertionError(f"Tab does not reach {selector}")

    async def focus_is_on(self, selector: str) -> bool:
        """Wait until an element of this selector has the focus, and is seen to have it."""
        matches = "(one) => document.activeElement.matches(one)"
        found = await eventually(lambda: self.page.evaluate(matches, selector))
        return bool(found) and bool(await self.page.evaluate(IS_FOCUS_VISIBLE))


async def test_dispatcher__an_hour_by_keyboard_alone__reaches_everything_and_keeps_the_focus(
    city: City, open_page: OpenPage, screenshots: Path
) -> None:
    await city.driver("d1", north_of(RESTAURANT, 150))
    await city.driver("d2", north_of(RESTAURANT, 2500))
    late = await city.order("confirm", customer_name="Late Larry")
    alerts = Alerts(late["order_id"])

    async def before(page: Page) -> None:
        await page.add_init_script(WATCH_FOCUS)
        await alerts.install(page)

    page = await open_page(f"/fleet#{city.staff_token}", before=before)
    assert await wait_for_text(page, "#orders", "Late Larry")
    keyboard = Keyboard(page)

    # A new order, with its places searched for.
    await keyboard.press("n")
    assert await keyboard.focus_is_on("#pickup")
    await choose_place(page, "mario", "pickup", "Da Mario")
    await keyboard.tab_to("#door")
    await choose_place(page, "via dei servi 12", "door", "Via dei Servi 12")
    await keyboard.tab_to("[name=customer_name]")
    await page.keyboard.type("Carla Rossi")
    await keyboard.tab_to("[name=promised_min]")
    await page.keyboard.type("30")
    await page.screenshot(path=screenshots / "dispatch-new-order.png")
    await keyboard.press("Enter")
    assert await wait_for_text(page, "#notice", "created.")
    assert await wait_for_text(page, "#customer-link", "/t/")
    assert await keyboard.focus_is_on("#order-title")
    order_id = await page.evaluate("new URLSearchParams(location.search).get('order')")
    queue = await page.locator("#orders button").all_text_contents()
    assert "Carla Rossi" in queue[0]  # the promise of 30 minutes is before the assumed 60

    # To the first courier of the ranking.
    assert await eventually(page.locator("#couriers input").count) == 2
    await keyboard.press("1")
    assert await page.input_value("#courier") == "d1"
    await keyboard.press("Enter")
    assert await wait_for_text(page, "#notice", "Assigned to d1.")
    assert await keyboard.focus_is_on("#order *")
    found = (await city.staff.get(f"/orders/{order_id}")).json()
    assert (found["state"], found["driver_id"]) == ("assigned", "d1")
    assert found["address"] == "Via dei Servi 12"

    # The same courier's second order, and the other sequence.
    await keyboard.press("q", "End")  # without a promise: due last
    await keyboard.press("Enter")
    assert await wait_for_text(page, "#order h2", late["order_id"][:8])
    await page.wait_for_selector("#couriers input")
    await keyboard.tab_to("#courier")
    await page.keyboard.type("d1")
    await keyboard.press("Enter")
    assert await wait_for_text(page, "#stops", "Late Larry")
    stops = [one["order_id"] for one in await stops_of(city, "d1")]
    assert set(stops) == {order_id, late["order_id"]}
    await keyboard.tab_to(f"#stop-down-{stops[0]}")
    await keyboard.press("Enter")
    assert await wait_for_text(page, "#notice", "Stops reordered.")
    assert [one["order_id"] for one in await stops_of(city, "d1")] == stops[::-1]
    assert await keyboard.focus_is_on(f"#stop-open-{stops[0]}")

    # To another courier, and cancelled with a reason.
    await keyboard.press("d")
    await keyboard.tab_to("#courier")
    await page.keyboard.type("d2")
    await keyboard.press("Enter")
    assert await wait_for_text(page, "#notice", "Reassigned to d2.")
    assert await keyboard.focus_is_on("#order *")
    await keyboard.tab_to("#do-cancel")
    await keyboard.press("Enter")
    assert await keyboard.focus_is_on("#reason-text")
    await page.keyboard.type("The kitchen is closed")
    await keyboard.press("Enter")
    assert await wait_for_text(page, "#notice", "Cancelled.")
    assert await keyboard.focus_is_on("#order-title")

    # An alert.
    await keyboard.press("a")
    assert await keyboard.focus_is_on("#alert-7")
    await keyboard.press("Tab", "Enter")
    assert await wait_for_text(page, "#alert-status", "Acknowledged.")
    assert alerts.acknowledged == ["7"]
    assert await wait_for_text(page, "#alert-list", "seen by anna")
    assert await keyboard.focus_is_on("#alert-list button")

    # The past, and back.
    await keyboard.press("p")
    assert await wait_for_text(page, "#past-banner", "not live")
    assert await keyboard.focus_is_on("#playback-form select")
    await keyboard.press("Escape")
    assert await wait_for_text(page, "#connection", "live")
    assert await keyboard.focus_is_on("#playback-button")

    # An order that has ended.
    await keyboard.press("/")
    await page.keyboard.type(late["order_id"])
    await keyboard.press("Enter")
    assert await wait_for_text(page, "#order h2", "Cancelled")
    assert await wait_for_text(page, "#timeline", "The kitchen is closed")

    await keyboard.press("Tab", "?")
    assert await wait_for_text(page, "#help", "Choose the courier of this rank")
    await keyboard.press("Escape")
    assert await page.locator("#help").is_hidden()
    assert await page.evaluate("faults") == []
