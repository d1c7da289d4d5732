"""Pictures of the customer's page."""

from __future__ import annotations

from typing import Any

from playwright.async_api import Page

from tests.browser.conftest import OpenPage
from tests.browser.page_checks import eventually
from tests.browser.pictures.customer_states import CUSTOMER_STATES, ORDER_ID, CustomerState
from tests.browser.pictures.studio import Studio


async def picture_customer(studio: Studio) -> None:
    """Each state of CUSTOMER_STATES."""
    for state in CUSTOMER_STATES:

        async def opening(state: CustomerState = state, **options: Any) -> Page:
            return await open_state(studio.open_page, state, **options)

        await studio.take(state.name, opening, has_scripts=state.has_javascript)


async def open_state(open_page: OpenPage, state: CustomerState, **options: Any) -> Page:
    """Open the page of an order that is in a state, and wait until it shows it."""
    page = await open_page(
        f"/t/{ORDER_ID}#trk_pictured",
        before=state.install,
        java_script_enabled=state.has_javascript,
        **options,
    )
    if not state.has_javascript:
        return page
    if state.track is None:
        await page.wait_for_selector("#link-ended:not([hidden])")
        return page
    await page.wait_for_selector("#steps li.done")
    if not state.track["is_shared"]:
        await page.wait_for_selector("#actions:not([hidden])", state="attached")
    if state.press is not None:
        await page.click(state.press)
        await page.wait_for_selector("#cancel-yes, #share-link")
    if state.has_webgl:
        assert await eventually(lambda: page.evaluate("Boolean(globalThis.doorstepMap?.loaded())"))
    if state.is_frozen:
        await page.wait_for_selector("#connection:not(:empty)")
    return page
