"""The page to join: in the phone's language, from the link to the first position."""

from __future__ import annotations

import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.async_api import Page

from tests.browser.conftest import City, OpenPage
from tests.browser.page_checks import (
    PHONE,
    accessibility_violations,
    collect_errors,
    eventually,
    wait_for_text,
)

ANDROID = "Mozilla/5.0 (Linux; Android 15; Pixel 8) AppleWebKit/537.36 Chrome/140 Mobile"
IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) AppleWebKit/605.1.15"
TEXTS = {
    "en": ("Set up your phone", "Waiting for the first position", "The first position has arrived"),
    "it": ("Configura il telefono", "In attesa della prima posizione", "La prima posizione"),
    "de": ("Telefon einrichten", "Warten auf die erste Position", "Die erste Position"),
    "fr": ("Configurez votre téléphone", "En attente de la première", "La première position"),
}


async def invite(city: City, driver_id: str = "d1") -> str:
    await city.driver(driver_id)
    answer = await city.staff.post(f"/drivers/{driver_id}/invitations")
    assert answer.status_code == 201, answer.text
    return str(answer.json()["link"])


async def stored(page: Page) -> str:
    return str(await page.evaluate("JSON.stringify({...sessionStorage, ...localStorage})"))


@pytest.mark.parametrize(("locale", "language"), [("it-IT", "it"), ("en-GB", "en")])
async def test_owntracks__from_the_link_to_the_first_position__in_the_phones_language(
    city: City, open_page: OpenPage, screenshots: Path, locale: str, language: str
) -> None:
    link = await invite(city)
    token = urlsplit(link).fragment
    addresses: list[str] = []
    errors: list[list[str]] = []

    def before(page: Page) -> None:
        errors.append(collect_errors(page))
        page.on("request", lambda request: addresses.append(request.url))

    page = await open_page(link, size=PHONE, before=before, locale=locale, user_agent=ANDROID)
    title, waiting, seen = TEXTS[language]
    assert await page.text_content("h1") == title
    assert await page.evaluate("document.documentElement.lang") == language
    assert await accessibility_violations(page) == []
    await page.screenshot(path=screenshots / f"join-{language}.png", full_page=True)
    await page.click("#choice-owntracks button")
    assert await wait_for_text(page, "#sign", waiting)
    assert await page.locator("#setup a[href*='play.google.com']").count() == 1
    assert await accessibility_violations(page) == []
    await page.screenshot(path=screenshots / f"join-{language}-owntracks.png", full_page=True)
    configuration = await page.get_attribute("#setup ol a.button", "href")
    assert configuration is not None
    assert configuration.startswith("owntracks:///config?inline=")

    await page.reload()  # installing an app may end the tab
    assert await wait_for_text(page, "#sign", waiting)
    assert await page.get_attribute("#setup ol a.button", "href") == configuration

    with city.database() as conn:
        conn.execute("UPDATE phone_credential SET positioned_at = clock_timestamp()")
        conn.commit()
    assert await wait_for_text(page, "#sign", seen)
    assert token not in await stored(page)
    assert "phn_" not in await stored(page)
    assert all(token not in one for one in (page.url, *addresses))
    assert errors == [[]]
    [cookie] = await page.context.cookies()
    assert (cookie["httpOnly"], cookie["path"]) == (True, "/drive")


async def test_traccar__shows_a_code_and_values_and_the_phone_that_reports_is_seen(
    city: City, open_page: OpenPage, screenshots: Path
) -> None:
    link = await invite(city)
    page = await open_page(link, size=PHONE, locale="de-DE", user_agent=IPHONE)
    await page.click("#choice-traccar button")
    assert await wait_for_text(page, "#sign", TEXTS["de"][1])
    assert await page.locator("#setup a[href*='apps.apple.com']").count() == 1
    await page.click("text=Android")
    assert await page.locator("#setup a[href*='play.google.com']").count() == 1
    assert await page.locator(".qr svg").is_visible()
    await page.screenshot(path=screenshots / "join-de-traccar.png", full_page=True)
    configuration = await page.get_attribute("#setup ol a.button", "href")
    found = parse_qs(urlsplit(configuration or "").query)
    place = {"lat": "43.77", "lon": "11.25", "timestamp": str(int(time.time()))}
    answer = await city.phones.post(found["url"][0], data={"id": found["id"][0], **place})
    assert answer.status_code == 200
    assert await wait_for_text(page, "#sign", TEXTS["de"][2])


async def test_link__used_before__says_so_and_changes_nothing(
    city: City, open_page: OpenPage
) -> None:
    link = await invite(city)
    first = await open_page(link, size=PHONE, locale="fr-FR")
    second = await open_page(link, size=PHONE, locale="fr-FR")
    await first.click("#choice-owntracks button")
    assert await wait_for_text(first, "#sign", TEXTS["fr"][1])
    await second.click("#choice-browser button")
    assert await wait_for_text(second, "#error", "Ce lien n'est pas valable")


async def test_page__without_a_token__asks_for_the_whole_link(
    city: City, open_page: OpenPage
) -> None:
    link = await invite(city)
    page = await open_page(link.partition("#")[0], locale="nl-NL")
    assert await wait_for_text(page, "#error", "Open the whole link")
    assert await page.locator("#choices").is_hidden()


async def test_browser__chosen__goes_to_the_couriers_page_with_its_session(
    city: City, open_page: OpenPage
) -> None:
    page = await open_page(await invite(city), size=PHONE)
    await page.click("#choice-browser button")
    assert await eventually(lambda: _is_at(page, "/drive"))
    session = await page.evaluate("fetch('/drive/session').then((answer) => answer.json())")
    assert session["driver_id"] == "d1"


async def _is_at(page: Page, path: str) -> bool:
    return urlsplit(page.url).path == path
