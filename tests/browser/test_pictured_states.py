"""Every pictured state of the customer's page is accessible, and none of its texts overflows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from playwright.async_api import Page

from tests.browser.conftest import OpenPage, drop_routes
from tests.browser.page_checks import (
    DESKTOP,
    PHONE,
    Theme,
    overflowing_texts,
    violations_in,
)
from tests.browser.pictures.customer_page import open_state
from tests.browser.pictures.customer_states import CUSTOMER_STATES, CustomerState
from tests.browser.pictures.studio import ZONE

# Without the map, which costs most of a page's time: none of its texts are the page's own.
WITH_SCRIPTS = [replace(one, has_webgl=False) for one in CUSTOMER_STATES if one.has_javascript]
NARROW = {"width": 320, "height": 568}
LOOKS: list[tuple[dict[str, int], Theme]] = [(PHONE, "light"), (DESKTOP, "dark")]


@pytest.mark.parametrize("state", WITH_SCRIPTS, ids=lambda one: one.name)
async def test_state__light_on_a_phone_and_dark_on_a_desktop__is_accessible_and_fits(
    open_page: OpenPage, state: CustomerState
) -> None:
    page = await open_state(open_page, state, size=PHONE, locale="it-IT", timezone_id=ZONE)
    for size, theme in LOOKS:
        await page.set_viewport_size({"width": size["width"], "height": size["height"]})
        await page.emulate_media(color_scheme=theme)
        assert await violations_in(page, theme) == []
        assert await overflowing_texts(page) == []


@pytest.mark.parametrize("locale", ["it-IT", "en-GB", "fr-FR", "de-DE"])
async def test_states__in_each_language_on_a_narrow_phone__have_no_text_that_overflows(
    open_page: OpenPage, locale: str
) -> None:
    page = await open_page("about:blank", size=NARROW, locale=locale, timezone_id=ZONE)

    async def open_again(address: str, before: Callable[[Page], Any], **_: Any) -> Page:
        await page.goto("about:blank")
        await drop_routes(page)
        await before(page)
        await page.goto(address)
        return page

    for state in WITH_SCRIPTS:
        await open_state(open_again, state)
        assert await overflowing_texts(page) == [], state.name


async def test_overflowing_texts__one_that_leaves_its_box__is_found(open_page: OpenPage) -> None:
    page = await open_state(open_page, WITH_SCRIPTS[0], size=PHONE, timezone_id=ZONE)
    assert await overflowing_texts(page) == []
    await page.evaluate(
        "document.getElementById('state').style.cssText = 'display: block; width: 9px'"
    )
    assert len(await overflowing_texts(page)) == 1
