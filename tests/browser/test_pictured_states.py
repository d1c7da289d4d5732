"""Every pictured state of the customer's page is accessible, and none of its texts overflows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.browser.conftest import OpenPage
from tests.browser.page_checks import (
    DESKTOP,
    PHONE,
    accessibility_violations,
    overflowing_texts,
)
from tests.browser.pictures.customer_page import open_state
from tests.browser.pictures.customer_states import CUSTOMER_STATES, CustomerState
from tests.browser.pictures.studio import ZONE

WITH_SCRIPTS = [one for one in CUSTOMER_STATES if one.has_javascript]
NARROW = {"width": 320, "height": 568}


@pytest.mark.parametrize("state", WITH_SCRIPTS, ids=lambda one: one.name)
async def test_state__light_and_dark_on_a_phone_and_a_desktop__is_accessible_and_fits(
    open_page: OpenPage, state: CustomerState
) -> None:
    page = await open_state(open_page, state, size=PHONE, locale="it-IT", timezone_id=ZONE)
    for size in (PHONE, DESKTOP):
        await page.set_viewport_size({"width": size["width"], "height": size["height"]})
        assert await accessibility_violations(page) == []
        assert await overflowing_texts(page) == []


@pytest.mark.parametrize("locale", ["it-IT", "en-GB", "fr-FR", "de-DE"])
async def test_states__in_each_language_on_a_narrow_phone__have_no_text_that_overflows(
    open_page: OpenPage, locale: str
) -> None:
    for pictured in WITH_SCRIPTS:
        state = replace(pictured, has_webgl=False)  # quicker; the map has no text of the page
        page = await open_state(open_page, state, size=NARROW, locale=locale, timezone_id=ZONE)
        assert await overflowing_texts(page) == [], state.name
        await page.context.close()


async def test_overflowing_texts__one_that_leaves_its_box__is_found(open_page: OpenPage) -> None:
    state = replace(CUSTOMER_STATES[0], has_webgl=False)
    page = await open_state(open_page, state, size=PHONE, timezone_id=ZONE)
    assert await overflowing_texts(page) == []
    await page.evaluate(
        "document.getElementById('state').style.cssText = 'display: block; width: 9px'"
    )
    assert len(await overflowing_texts(page)) == 1
