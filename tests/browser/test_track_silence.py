"""What the customer's page says of a courier that it hears nothing of. The answers are replaced."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from playwright.async_api import Page

from tests.browser.conftest import OpenPage
from tests.browser.page_checks import PHONE, wait_for_text
from tests.browser.pictures.customer_page import open_state
from tests.browser.pictures.customer_states import (
    AT_RESTAURANT,
    COURIER,
    EVENTS,
    NOW,
    CustomerState,
    eta,
    position,
    track,
)
from tests.browser.pictures.studio import ZONE

SILENCE = timedelta(minutes=6)
UNSEEN = {
    "en-GB": "The courier’s position is not known yet",
    "it-IT": "La posizione del corriere non è ancora nota",
    "fr-FR": "La position du livreur n’est pas encore connue",
    "de-DE": "Der Standort des Kuriers ist noch nicht bekannt",
}


async def open_order(
    open_page: OpenPage, *states: str, locale: str = "en-GB", **members: Any
) -> Page:
    """Open the page of an order in a state, without a map."""
    state = CustomerState("silence", track(*states, **members), has_webgl=False)
    return await open_state(open_page, state, size=PHONE, locale=locale, timezone_id=ZONE)


async def test_track__courier_falls_silent_at_the_restaurant__drops_the_old_estimate(
    open_page: OpenPage,
) -> None:
    page = await open_order(
        open_page, *AT_RESTAURANT, position=position(COURIER), eta=eta(14, 17, 20)
    )
    assert await wait_for_text(page, "#sentence", "Arriving 20:14 to 20:20")
    await page.clock.set_fixed_time(NOW + SILENCE)
    assert await wait_for_text(page, "#sentence", "No signal from the courier")
    assert await page.text_content("#state") == "Courier at the restaurant (last known)"
    assert await page.text_content("#minutes") == ""


@pytest.mark.parametrize("states", [EVENTS[:3], AT_RESTAURANT, EVENTS[:4], EVENTS[:5]])
async def test_track__no_visible_fix_five_minutes_after_the_newest_event__says_no_signal(
    open_page: OpenPage, states: tuple[str, ...]
) -> None:
    page = await open_order(open_page, *states)
    assert await wait_for_text(page, "#state", " ")
    assert "No signal" not in (await page.text_content("#sentence") or "")
    await page.clock.set_fixed_time(NOW + SILENCE)
    assert await wait_for_text(page, "#sentence", "No signal from the courier")
    assert await wait_for_text(page, "#state", "(last known)")


@pytest.mark.parametrize(
    ("states", "members", "text"),
    [
        (EVENTS[:4], {"other_delivery_first": True}, "On the way to you"),
        (EVENTS[:2], {"eta": eta(26, 31, 38)}, "Arriving"),
        ((*EVENTS[:5], "at_customer"), {}, "At your door"),
    ],
    ids=["other delivery first", "no courier yet", "at the door"],
)
async def test_track__a_state_that_needs_no_position__is_believed_in_silence(
    open_page: OpenPage, states: tuple[str, ...], members: dict[str, Any], text: str
) -> None:
    page = await open_order(open_page, *states, **members)
    await page.clock.set_fixed_time(NOW + 10 * SILENCE)
    await page.wait_for_timeout(1500)  # the page draws each second
    assert text in (await page.text_content("#sentence") or "")


@pytest.mark.parametrize("locale", UNSEEN)
async def test_track__assigned_and_not_seen_yet__does_not_deny_that_there_is_a_courier(
    open_page: OpenPage, locale: str
) -> None:
    for states in (EVENTS[:3], AT_RESTAURANT):
        page = await open_order(open_page, *states, locale=locale, eta=eta(12, 15, 19))
        assert await wait_for_text(page, "#notices", UNSEEN[locale])
    waiting = await open_order(open_page, *EVENTS[:2], locale=locale, eta=eta(26, 31, 38))
    assert await wait_for_text(waiting, "#notices", ":")
    assert UNSEEN[locale] not in (await waiting.text_content("#notices") or "")


async def test_track__notice_of_a_near_courier__is_shown_until_the_door(
    open_page: OpenPage,
) -> None:
    members = {"position": position(COURIER), "eta": eta(2, 3, 5), "nearby_at": "2026-12-01T18:59Z"}
    page = await open_order(open_page, *EVENTS[:4], **members)
    assert await wait_for_text(page, "#notices", "Your courier is nearby")
    at_door = await open_order(open_page, *EVENTS[:5], "at_customer", **members)
    assert await at_door.text_content("#notices") == ""
