"""The administration page: one life of each kind, by mouse and by keyboard, and on a phone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from playwright.async_api import Page

from tests.browser.conftest import RESTAURANT_ID, City, OpenPage
from tests.browser.page_checks import (
    DESKTOP,
    PHONE,
    accessibility_violations,
    collect_errors,
    eventually,
    wait_for_text,
)
from tests.browser.test_sign_in import add_staff, has_path


async def open_admin(city: City, open_page: OpenPage, tab: str, **options: object) -> Page:
    page = await open_page(f"/admin?tab={tab}#{city.staff_token}", **options)
    await page.wait_for_url(has_path("/admin"))
    assert await eventually(lambda: page.locator(f"#tab-{tab}[aria-selected=true]").count())
    return page


async def in_form(page: Page, **values: str) -> None:
    for name, value in values.items():
        field = page.locator(f'#fields [name="{name}"]')
        if await field.evaluate("one => one.localName") == "select":
            await field.select_option(value)
        else:
            await field.fill(value)


@pytest.mark.parametrize(
    ("size", "dark"), [(DESKTOP, False), (PHONE, True)], ids=["desktop", "dark phone"]
)
@pytest.mark.parametrize("tab", ["drivers", "restaurants", "service_areas", "policies"])
async def test_each_tab__with_its_form__is_accessible_and_fits(
    city: City, open_page: OpenPage, screenshots: Path, tab: str, size: dict[str, int], dark: bool
) -> None:
    errors: list[list[str]] = []
    await city.driver("d1")
    page = await open_admin(
        city,
        open_page,
        tab,
        size=size,
        dark=dark,
        before=lambda page: errors.append(collect_errors(page)),
    )
    assert await eventually(lambda: page.locator("#table tbody tr").count())
    name = f"admin-{tab}-{'dark' if dark else 'light'}-{size['width']}"
    await page.screenshot(path=screenshots / f"{name}.png")
    assert await accessibility_violations(page) == []
    await page.locator("#table tbody button").first.click()
    if tab in ("restaurants", "service_areas"):
        assert await wait_for_text(page, "#map-help", "The fields do the same")
        assert await eventually(
            lambda: page.evaluate("doorstepMap.loaded() && doorstepMap.areTilesLoaded()")
        )
    await page.screenshot(path=screenshots / f"{name}-form.png")
    assert await accessibility_violations(page) == []
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert await page.evaluate(wide) <= 0
    assert errors == [[]]


async def test_driver__added_changed_and_retired_by_keyboard__is_off_the_list(
    city: City, open_page: OpenPage, screenshots: Path
) -> None:
    page = await open_admin(city, open_page, "drivers")
    await page.focus("#add")
    await page.keyboard.press("Enter")
    assert await page.evaluate("document.activeElement.name") == "id"
    await page.keyboard.type("nora")
    await page.keyboard.press("Tab")
    await page.keyboard.type("Nora")
    await page.keyboard.press("Enter")
    assert await wait_for_text(page, "#message-title", "Secrets of nora")
    token = await page.locator("#message-body td").nth(2).text_content()
    assert token is not None
    assert token.startswith("drv_")
    await page.keyboard.press("Escape")
    assert await wait_for_text(page, "#table", "Nora")
    await page.click('[aria-label="Invite a phone for Nora"]')
    assert await wait_for_text(page, "#message-title", "A phone for Nora")
    assert "/join#" in (await page.get_attribute("#invitation", "href") or "")
    assert await page.locator("#message-body svg path").count() > 0
    await page.screenshot(path=screenshots / "admin-invitation.png")
    assert await accessibility_violations(page) == []
    await page.keyboard.press("Escape")
    assert await page.locator('td[data-driver-id="nora"]').count() == 1

    await page.focus('[aria-label="Change Nora"]')
    await page.keyboard.press("Enter")
    await in_form(page, vehicle="cargo_bike", phone="not a number")
    await page.keyboard.press("Enter")
    assert await wait_for_text(page, "#editor-error", "phone")
    assert await page.evaluate("document.activeElement.name") == "phone"
    await in_form(page, phone="+39 055 123")
    await page.keyboard.press("Enter")
    assert await wait_for_text(page, "#status", "Nora is changed.")
    assert await wait_for_text(page, "#table", "Cargo bike")

    await page.focus('[aria-label="Retire Nora"]')
    await page.keyboard.press("Enter")
    assert await page.evaluate("document.activeElement.id") == "message-close"
    await page.click("#message-ok")
    assert await wait_for_text(page, "#status", "Nora is retired.")
    assert "Nora" not in (await page.text_content("#table") or "")
    await page.check("#retired")
    assert await wait_for_text(page, "#table", "Retired")


async def test_restaurant__placed_by_the_marker__gets_its_position_and_hours(
    city: City, open_page: OpenPage
) -> None:
    page = await open_admin(city, open_page, "restaurants")
    await page.click("#add")
    await in_form(page, name="Bar Uno", lat_deg="43.77", lon_deg="11.25", preparation_s="15")
    assert await wait_for_text(page, "#map-help", "Drag the pin")
    pin = await page.locator(".pin").bounding_box()
    assert pin is not None
    middle = pin["x"] + pin["width"] / 2, pin["y"] + pin["height"] / 2
    await page.mouse.move(*middle)
    await page.mouse.down()
    await page.mouse.move(middle[0] + 40, middle[1] + 10, steps=4)
    await page.mouse.up()
    moved = float(await page.input_value('[name="lon_deg"]'))
    assert moved > 11.25
    await page.click("text=Add hours")
    await page.check('.hours input[value="fri"]')
    await page.click("#save")
    assert await wait_for_text(page, "#status", "Bar Uno is added.")
    await page.fill("#filter", "bar uno")
    assert await wait_for_text(page, "#table", "fri 11:30–22:00")
    found = (await city.staff.get("/restaurants")).json()["restaurants"]
    [mine] = [one for one in found if one["name"] == "Bar Uno"]
    assert (mine["lon_deg"], mine["preparation_s"]) == (moved, 900)
    await city.staff.post(f"/restaurants/{mine['restaurant_id']}/retire")


async def test_area__drawn_by_dragging__is_the_box(city: City, open_page: OpenPage) -> None:
    await city.staff.post("/service-areas/drawn/retire")
    page = await open_admin(city, open_page, "service_areas")
    await page.click("#add")
    await in_form(page, name="drawn")
    assert await wait_for_text(page, "#map-help", "Press the button")
    await page.click("#draw")
    box = await page.locator("#map").bounding_box()
    assert box is not None
    await page.mouse.move(box["x"] + 60, box["y"] + 60)
    await page.mouse.down()
    await page.mouse.move(box["x"] + 200, box["y"] + 180, steps=5)
    await page.mouse.up()
    assert await page.get_attribute("#draw", "aria-pressed") == "false"
    await page.click("#save")
    assert await wait_for_text(page, "#status", "drawn is added.")
    area = (await city.staff.get("/service-areas/drawn")).json()
    assert area["west"] < area["east"]
    assert area["south"] < area["north"]
    await city.staff.post("/service-areas/drawn/retire")


async def test_policy__changed__says_that_it_is_a_new_one(city: City, open_page: OpenPage) -> None:
    made = (await city.staff.post("/policies", json={"name": "slow"})).json()["policy_id"]
    page = await open_admin(city, open_page, "policies")
    await page.click(f'[data-key="{made}"] [aria-label="Change slow"]')
    assert "makes a new policy" in (await page.text_content("#editor-note") or "")
    await in_form(page, enter_radius_m="80")
    await page.click("#save")
    assert await wait_for_text(page, "#status", f"in place of {made}.")
    assert await page.locator(f'[data-key="{made}"]').count() == 0


async def test_csv__with_a_bad_row__names_it_and_a_good_one_is_imported(
    city: City, open_page: OpenPage
) -> None:
    page = await open_admin(city, open_page, "drivers")
    bad = {"name": "d.csv", "mimeType": "text/csv", "buffer": b"driver_id,vehicle\nnino,boat\n"}
    await page.set_input_files("#file", bad)  # type: ignore[arg-type]
    assert await wait_for_text(page, "#message-body", "line 2, vehicle")
    await page.click("#message-close")
    good = bad | {"buffer": b"driver_id,vehicle\nnino,van\n"}
    await page.set_input_files("#file", good)  # type: ignore[arg-type]
    assert await wait_for_text(page, "#message-body", "1 new, 0 changed, 0 as they are.")
    # On a slow machine the first dialog's event comes while the second is open.
    await page.evaluate("document.getElementById('message').dispatchEvent(new Event('close'))")
    await page.click("#message-ok")
    assert await wait_for_text(page, "#message-title", "Secrets of nino")
    await page.click("#message-close")
    assert await wait_for_text(page, "#table", "Van")
    async with page.expect_download() as download:
        await page.click("#export")
    path = await (await download.value).path()
    exported = await asyncio.to_thread(path.read_text, encoding="utf-8")
    assert exported.splitlines() == ["driver_id,name,vehicle,phone", "nino,nino,van,"]


async def test_admin_page__by_a_dispatcher__says_that_it_is_for_admins(
    city: City, open_page: OpenPage
) -> None:
    _, token = add_staff(city, "dispatcher")
    page = await open_page(f"/admin#{token}")
    await page.locator("#not-admin").wait_for()  # visible: its text is always there
    assert await page.locator("#panel").is_hidden()
    await page.goto("/fleet")
    assert await page.locator('a[href="/admin"]').is_hidden()


async def test_fleet_page__by_an_admin__links_to_the_administration(
    city: City, open_page: OpenPage
) -> None:
    page = await open_page(f"/fleet#{city.staff_token}")
    await page.locator('a[href="/admin"]').click()
    await page.wait_for_url(has_path("/admin"))
    assert await wait_for_text(page, "#add", "Add a driver")


async def test_order_at_a_restaurant__retired_on_the_page__is_refused(
    city: City, open_page: OpenPage
) -> None:
    new = {"name": "Closing", "lat_deg": 43.77, "lon_deg": 11.25}
    made = (await city.staff.post("/restaurants", json=new)).json()["restaurant_id"]
    assert made != RESTAURANT_ID
    page = await open_admin(city, open_page, "restaurants")
    await page.fill("#filter", "closing")
    await page.click(f'[data-key="{made}"] [aria-label="Retire Closing"]')
    await page.click("#message-ok")
    assert await wait_for_text(page, "#status", "Closing is retired.")
    order = {"restaurant_id": made, "destination": {"lon_deg": 11.26, "lat_deg": 43.78}}
    assert (await city.staff.post("/orders", json=order)).status_code == 409
