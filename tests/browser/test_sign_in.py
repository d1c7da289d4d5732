"""Sign-in of staff: the token leaves the address, a session takes its place, and it can end."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Page

from doorstep.credentials import new_staff_token, token_sha256
from doorstep.store.people import change_staff
from tests.browser.conftest import City, OpenPage
from tests.browser.page_checks import (
    DESKTOP,
    PHONE,
    accessibility_violations,
    collect_errors,
    eventually,
    wait_for_text,
)
from tests.browser.test_fleet import NO_WEBGL, fleet_value


def add_staff(city: City, role: str = "dispatcher") -> tuple[str, str]:
    """Add a member of staff; return their name and token."""
    name, token = f"staff-{secrets.token_hex(4)}", new_staff_token()
    with city.database() as conn:
        change_staff(
            conn,
            name,
            "add",
            who="test",
            role=role,
            token_sha256=token_sha256(token),
            expires_at=datetime.now(UTC) + timedelta(hours=1),
        )
        conn.commit()
    return name, token


def revoke_staff(city: City, name: str) -> None:
    with city.database() as conn:
        change_staff(conn, name, "revoke", who="test")
        conn.commit()


def has_path(path: str) -> Callable[[str], bool]:
    """Match an address by its path alone."""
    return lambda url: urlsplit(url).path == path


@pytest.mark.parametrize(
    ("size", "dark"), [(DESKTOP, False), (PHONE, True)], ids=["desktop", "dark phone"]
)
async def test_sign_in_page__is_accessible_and_says_what_is_wrong(
    open_page: OpenPage, screenshots: Path, size: dict[str, int], dark: bool
) -> None:
    page = await open_page("/sign-in", size=size, dark=dark)
    assert await page.evaluate("document.activeElement.name") == "token"
    await page.fill("input", "stf_wrong")
    await page.keyboard.press("Enter")
    assert await wait_for_text(page, "#error", "This token is not valid")
    assert await accessibility_violations(page) == []
    name = f"sign-in-{'dark' if dark else 'light'}-{size['width']}.png"
    await page.screenshot(path=screenshots / name)


@pytest.mark.parametrize("has_webgl", [True, False])
async def test_link_with_token__leaves_the_address_and_no_script_can_read_the_session(
    city: City, open_page: OpenPage, has_webgl: bool
) -> None:
    _, token = add_staff(city)
    errors: list[list[str]] = []
    addresses: list[str] = []

    async def before(page: Page) -> None:
        errors.append(collect_errors(page))
        page.on("request", lambda request: addresses.append(request.url))
        if not has_webgl:
            await page.add_init_script(f"({NO_WEBGL})()")

    page = await open_page(f"/sign-in?next=/fleet#{token}", before=before)
    await page.wait_for_url(has_path("/fleet"))
    assert await eventually(lambda: fleet_value(page, "frames"))
    assert await page.evaluate("document.cookie") == ""
    assert (
        await page.evaluate("Object.keys(sessionStorage).concat(Object.keys(localStorage))") == []
    )
    assert all(token not in one for one in (page.url, *addresses))
    await page.go_back()
    assert token not in page.url
    [cookie] = await page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    if has_webgl:
        assert errors == [[]]


async def test_signed_out__is_sent_to_the_sign_in_and_back_to_where_they_were(
    city: City, open_page: OpenPage
) -> None:
    _, token = add_staff(city)
    page = await open_page("/sign-in")
    await page.goto("/fleet?most=7")
    assert has_path("/sign-in")(page.url)
    await page.fill("input", token)
    await page.click("button")
    await page.wait_for_url("**/fleet?most=7")
    assert await eventually(lambda: fleet_value(page, "frames"))


@pytest.mark.parametrize(
    "next_page",
    ["//evil.test/", "/.//evil.test/", "/a/..//evil.test/", "https://evil.test/", "javascript:1"],
)
async def test_sign_in__next_page_of_another_site__goes_to_the_fleet(
    city: City, open_page: OpenPage, next_page: str
) -> None:
    _, token = add_staff(city)
    page = await open_page(f"/sign-in?next={next_page}#{token}")
    await page.wait_for_url(has_path("/fleet"))
    assert await page.title() == "Fleet · Doorstep"


async def test_sign_out__ends_the_session(city: City, open_page: OpenPage) -> None:
    _, token = add_staff(city)
    page = await open_page(f"/fleet#{token}")
    assert await eventually(lambda: fleet_value(page, "frames"))
    await page.click("#sign-out")
    await page.wait_for_url(has_path("/sign-in"))
    assert await page.context.cookies() == []
    await page.goto("/series")
    assert has_path("/sign-in")(page.url)


async def test_revoked__open_page__is_sent_to_the_sign_in_with_the_reason(
    city: City, open_page: OpenPage
) -> None:
    name, token = add_staff(city, "viewer")
    page = await open_page(f"/fleet#{token}")
    assert await eventually(lambda: fleet_value(page, "frames"))
    revoke_staff(city, name)
    await page.wait_for_url(has_path("/sign-in"))
    assert await wait_for_text(page, "#reason", "Your session has ended")


async def test_viewer__fleets_page__has_no_commands(city: City, open_page: OpenPage) -> None:
    _, token = add_staff(city, "viewer")
    await city.order()
    page = await open_page(f"/fleet#{token}")
    assert await eventually(page.locator("#new-order-button").is_hidden)
    await page.locator("#orders button").first.click()
    assert await wait_for_text(page, "#timeline", "Created")
    assert await page.locator("#order button").all_text_contents() == ["✕"]
    await page.keyboard.press("n")
    assert await page.locator("#new-order").is_hidden()
