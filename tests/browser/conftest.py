"""One stack and one Chromium for all browser tests, and an empty city for each.

    city       drivers and orders: `await city.driver("d1", place)`
    open_page  `page = await open_page("/fleet#…", size=DESKTOP, dark=True)`
    screenshots  their folder: BROWSER_TEST_PICTURES, else .doorstep/pictures

Tests and fixtures share one event loop, which the browser is bound to.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import (
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright

from doorstep.credentials import driver_token
from doorstep.errors import StoreUnavailable
from doorstep.provision import owner_connection, provision_drivers, provision_staff
from doorstep.store.admin import NewRestaurant, register_restaurants
from ops.servers.memory_folder import make_folder
from ops.stack.settings import FREE_PORTS, StackSettings
from ops.stack.stack import Stack
from tests.browser.page_checks import CHROMIUM, CHROMIUM_ARGUMENTS, DESKTOP, PROJECT, TIMEOUT_S
from tests.integration.http_services import CUSTOMER, RESTAURANT, SHOWN_AFTER_S, make_fix
from web import DIST

RESTAURANT_ID = 900_001  # past Florence's own

OpenPage = Callable[..., Awaitable[Page]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run every test here in the browser's event loop."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@contextmanager
def running_stack(**settings: Any) -> Iterator[Stack]:
    """Start a whole stack with Da Mario's restaurant; erase it at the end."""
    folder = make_folder("doorstep-browser-")
    whole = Stack(
        StackSettings(doorstep_home=folder / "stack", **FREE_PORTS, **settings),
        echo=lambda _: None,
    )
    try:
        whole.up(owner_pid=os.getpid())
        with owner_connection(whole.database_admin_url) as conn:
            register_restaurants(conn, [NewRestaurant(RESTAURANT_ID, "Da Mario", *RESTAURANT)])
            conn.commit()
        yield whole
    finally:
        whole.down(erase=True)
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def running_chromium(*arguments: str) -> AsyncIterator[Browser]:
    """Start Chromium, with further arguments."""
    if not CHROMIUM.exists():
        pytest.fail(f"no {CHROMIUM}: ./run test installs it")
    if not (DIST / "fleet.html").exists():
        pytest.fail("the pages are not built: ./run test builds them")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=[*CHROMIUM_ARGUMENTS, *arguments]
        )
        yield browser
        await browser.close()


@pytest.fixture(scope="package")
def stack(only_worker: Callable[[str], None]) -> Iterator[Stack]:
    """The whole stack. A test that kills a part of it waits until it is ready again."""
    only_worker("the browsers' stack")
    with running_stack() as whole:
        yield whole


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Chromium."""
    async with running_chromium() as browser:
        yield browser


async def drop_routes(page: Page) -> None:
    """Forget a page's routes: an answer that is under way at the end belongs to no test."""
    if not page.is_closed():
        await page.unroute_all(behavior="ignoreErrors")


@asynccontextmanager
async def opened_pages(browser: Browser, base_url: str) -> AsyncIterator[OpenPage]:
    """Yield a function that opens a page in a context of its own; close all at the end."""
    async with AsyncExitStack() as opened:

        async def open_it(
            address: str,
            *,
            size: dict[str, int] = DESKTOP,
            dark: bool = False,
            before: Callable[[Page], Any] | None = None,
            **options: Any,
        ) -> Page:
            context = await browser.new_context(
                base_url=base_url,
                viewport={"width": size["width"], "height": size["height"]},
                color_scheme="dark" if dark else "light",
                **options,
            )
            opened.push_async_callback(context.close)
            context.set_default_timeout(TIMEOUT_S * 1000)
            page = await context.new_page()
            opened.push_async_callback(drop_routes, page)
            if before is not None and (waiting := before(page)) is not None:
                await waiting
            await page.goto(address)
            if not address.startswith("/sign-in") and "/sign-in" in page.url:
                await page.wait_for_url(lambda url: "/sign-in" not in url)
            return page

        yield open_it


@pytest_asyncio.fixture(loop_scope="session")
async def open_page(browser: Browser, stack: Stack) -> AsyncIterator[OpenPage]:
    """Open an address of tracking_api (or a whole URL) in a context of its own.

    A staff token after # signs in first.
    `before` gets the page before it is opened, to add listeners or routes.
    """
    async with opened_pages(browser, stack.client_environment()["TRACKING_API_URL"]) as open_it:
        yield open_it


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """The folder of the screenshots."""
    folder = Path(os.environ.get("BROWSER_TEST_PICTURES", PROJECT / ".doorstep/pictures"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class City:
    """Da Mario's restaurant at RESTAURANT, and the drivers and orders that a test creates."""

    def __init__(self, stack: Stack) -> None:
        settings = stack.client_environment()
        self.stack = stack
        self.url = settings["TRACKING_API_URL"]
        self.staff_token = Path(settings["STAFF_TOKEN_FILE"]).read_text().strip()
        # The services close what was idle for 5 s: httpx must not send on it just then.
        kept = {"timeout": 20, "limits": httpx.Limits(keepalive_expiry=2)}
        self.staff = httpx.AsyncClient(
            base_url=self.url, headers={"Authorization": f"Bearer {self.staff_token}"}, **kept
        )
        self.phones = httpx.AsyncClient(base_url=settings["DRIVER_API_URL"], **kept)

    def database(self) -> AbstractContextManager[psycopg.Connection[Any]]:
        """Connect as the owner: `with city.database() as conn`."""
        return owner_connection(self.stack.database_admin_url)

    def clear(self) -> None:
        """Delete every driver and order; again after a deadlock with a service that reads them."""
        for _ in range(5):
            with suppress(StoreUnavailable), self.database() as conn:
                conn.execute("TRUNCATE driver, orders, fix_history CASCADE")  # and tokens
                provision_staff(conn, self.staff_token)
                return
        pytest.fail("the database cannot be cleared")

    async def driver(
        self, driver_id: str, place: tuple[float, float] | None = None, ago_s: float = 0
    ) -> None:
        """Register a driver and, with a place, put them on duty there."""
        with self.database() as conn:
            provision_drivers(conn, self.stack.paths.fleet_key(), [driver_id], print)
        if place is not None:
            await self.phone(driver_id, "on-duty")
            await self.report(driver_id, place, ago_s)

    async def phone(self, driver_id: str, command: str, **body: str) -> None:
        """Post a driver's command: on-duty, orders/{order_id}/picked-up, …"""
        answer = await self.phones.post(
            f"/drivers/{driver_id}/{command}",
            headers=self._as_driver(driver_id),
            json=body or None,
        )
        assert answer.status_code == 200, answer.text

    async def report(
        self, driver_id: str, place: tuple[float, float], ago_s: float = 0, **members: Any
    ) -> None:
        """Send one fix of a driver, `ago_s` old."""
        answer = await self.phones.patch(
            f"/drivers/{driver_id}/location",
            json=make_fix(place, ago_s, **members),
            headers=self._as_driver(driver_id),
        )
        assert answer.status_code == 200, answer.text

    async def order(
        self, *commands: str, driver_id: str | None = None, **members: Any
    ) -> dict[str, Any]:
        """Create an order from RESTAURANT to CUSTOMER, apply commands, and assign it to a driver.

        The result has `order_id`, `customer_link` and `customer_token`.
        """
        new = {
            "restaurant_id": RESTAURANT_ID,
            "destination": {"lon_deg": CUSTOMER[0], "lat_deg": CUSTOMER[1]},
            **members,
        }
        answer = await self.staff.post("/orders", json=new)
        assert answer.status_code == 201, answer.text
        order: dict[str, Any] = answer.json()
        for command in commands:
            await self.command(order, command)
        if driver_id is not None:
            if not commands:
                await self.command(order, "confirm")
            await self.command(order, "assign", driver_id=driver_id)
            await asyncio.sleep(SHOWN_AFTER_S)
        return order

    async def command(self, order: dict[str, Any], command: str, **body: str) -> None:
        """Apply a staff command."""
        answer = await self.staff.post(
            f"/orders/{order['order_id']}/{command}", **({"json": body} if body else {})
        )
        assert answer.status_code == 200, answer.text

    def assigned_ago(self, order: dict[str, Any], ago_s: float) -> None:
        """Move the start of the order's current assignment into the past."""
        with self.database() as conn:
            conn.execute(
                "UPDATE assignment SET assigned_at = assigned_at - make_interval(secs => %s)"
                " WHERE order_id = %s AND ended_at IS NULL",
                (ago_s, order["order_id"]),
            )
            conn.commit()

    def _as_driver(self, driver_id: str) -> dict[str, str]:
        token = driver_token(self.stack.paths.fleet_key(), driver_id)
        return {"Authorization": f"Bearer {token}"}

    async def close(self) -> None:
        """Close the connections."""
        await self.staff.aclose()
        await self.phones.aclose()


@pytest_asyncio.fixture(loop_scope="session")
async def city(stack: Stack) -> AsyncIterator[City]:
    """An empty city."""
    city = City(stack)
    city.clear()
    yield city
    await city.close()
