"""Both pages in a real browser, over both services as real processes and a real database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from subprocess import Popen
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, Route, async_playwright

from tests.database import Database, free_port
from tests.integration.http_services import (
    CUSTOMER,
    RESTAURANT,
    answers,
    as_driver,
    create_order,
    north_of,
    on_duty_at,
    populate,
    report,
    running,
)
from tracking_api.routes.pages import DIST

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]
PATIENCE_S = 60

pytestmark = [
    pytest.mark.skipif(not CHROMIUM.exists(), reason="no chromium"),
    pytest.mark.skipif(not (DIST / "fleet.html").exists(), reason="the pages are not built"),
]


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        await browser.close()


class Services:
    """Both services as processes; tracking_api can be killed and started again."""

    def __init__(self, database: Database) -> None:
        driver_port, tracking_port = free_port(), free_port()
        self.driver_url = f"http://127.0.0.1:{driver_port}"
        self.url = f"http://127.0.0.1:{tracking_port}"
        self.driver_settings = {
            "DATABASE_URL": database.url("driver_api"),
            "DRIVER_API_BIND": f"127.0.0.1:{driver_port}",
            "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        }
        self._tracking_settings = {
            "DATABASE_URL": database.url("tracking_api"),
            "TRACKING_API_BIND": f"127.0.0.1:{tracking_port}",
            "TRACKING_API_PUBLIC_URL": self.url,
            "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        }
        self._stack = ExitStack()
        self._tracking: Popen[bytes] | None = None

    async def start(self) -> None:
        """Start tracking_api, and return when it is ready."""
        self._tracking = self._stack.enter_context(
            running("tracking_api", **self._tracking_settings)
        )
        async with httpx.AsyncClient(base_url=self.url, timeout=20) as tracking_api:
            assert await answers(tracking_api, "/readyz", 200, PATIENCE_S)

    def kill(self) -> None:
        """Kill -9 tracking_api."""
        assert self._tracking is not None
        self._tracking.kill()
        self._tracking.wait()

    def close(self) -> None:
        """Kill what still runs."""
        self._stack.close()


@pytest.fixture
async def both(database: Database) -> AsyncIterator[tuple[httpx.AsyncClient, Services]]:
    """driver_api's client, and the services."""
    populate(database)
    found = Services(database)
    with running("driver_api", **found.driver_settings):
        try:
            await found.start()
            async with httpx.AsyncClient(base_url=found.driver_url, timeout=20) as driver_api:
                assert await answers(driver_api, "/readyz", 200, PATIENCE_S)
                yield driver_api, found
        finally:
            found.close()


@pytest.fixture
def services(both: tuple[httpx.AsyncClient, Services]) -> tuple[httpx.AsyncClient, str]:
    """driver_api's client and tracking_api's address."""
    return both[0], both[1].url


async def seen(look: Callable[[], Awaitable[object]]) -> object:
    """Look until there is something to see."""
    for _ in range(4 * PATIENCE_S):
        if found := await look():
            return found
        await asyncio.sleep(0.25)
    return None


async def drawn(page: Page, layer: str) -> int:
    """How many points of a layer are on the map."""
    count = "(layer) => globalThis.doorstepMap?.getLayer(layer) ? " \
        "doorstepMap.queryRenderedFeatures({ layers: [layer] }).length : 0"  # fmt: skip
    found: int = await page.evaluate(count, layer)
    return found


def watch(page: Page) -> list[str]:
    """Collect what must not happen: errors, warnings, and requests to anybody else."""
    bad: list[str] = []
    page.on("pageerror", lambda error: bad.append(f"error: {error}"))

    def listen(line: ConsoleMessage) -> None:
        if line.type in ("error", "warning") and "GL Driver Message" not in line.text:
            bad.append(line.text)

    page.on("console", listen)

    def look(address: str) -> None:
        if urlsplit(address).hostname not in ("127.0.0.1", None):
            bad.append(f"request to {address}")

    page.on("request", lambda request: look(request.url))
    return bad


async def test_fleet__with_a_staff_token__draws_every_driver_and_counts_them(services, browser):
    driver_api, url = services
    for n in (1, 2, 3):
        await on_duty_at(driver_api, f"d{n}", north_of(RESTAURANT, 150 * n))
    async with httpx.AsyncClient(base_url=url, timeout=20) as tracking_api:
        await create_order(tracking_api, "confirm", "assign")
    page = await browser.new_page(viewport={"width": 1280, "height": 800})
    bad = watch(page)
    await page.goto(f"{url}/fleet#stf_test")
    assert await seen(lambda: drawn(page, "drivers")) == 3
    assert await page.text_content("#drivers-count") == "3"
    assert await seen(lambda: page.locator("#orders li").count()) == 1
    assert "To restaurant" in (await page.text_content("#legend") or "")
    attribution = await page.text_content(".maplibregl-ctrl-attrib")
    assert attribution is not None
    assert "© OpenStreetMap contributors" in attribution
    assert "stf_test" not in page.url
    await page.locator("#orders button").click()
    assert await seen(lambda: page.locator("#detail dl").count()) == 1
    assert await seen(lambda: drawn(page, "way-ends")) == 2
    assert await seen(lambda: drawn(page, "way"))
    assert bad == []


async def test_fleet__orders_without_a_driver__come_first_the_longest_waiting_on_top(
    services, browser
):
    driver_api, url = services
    await on_duty_at(driver_api, "d1", RESTAURANT)
    async with httpx.AsyncClient(base_url=url, timeout=20) as tracking_api:
        waiting = [await create_order(tracking_api, "confirm") for _ in range(7)]
        active = await create_order(tracking_api, "confirm", "assign")
    page = await browser.new_page(viewport={"width": 1280, "height": 800})
    await page.goto(f"{url}/fleet#stf_test")

    async def listed() -> list[str]:
        return await page.locator("#orders li .mono").all_text_contents()

    def short(orders: list[dict[str, str]]) -> list[str]:
        return [order["order_id"][:8] for order in orders]

    assert await seen(listed) == short([*waiting[:5], active])
    await page.get_by_role("button", name="2 more").click()
    assert await listed() == short([*waiting, active])


async def test_fleet__with_a_wrong_token__asks_for_another(services, browser):
    _, url = services
    page = await browser.new_page()
    await page.goto(f"{url}/fleet#stf_wrong")
    assert await seen(lambda: page.locator("#door").is_visible())
    assert await page.text_content("#trouble") == "This token is not good."
    await page.fill("#door input", "stf_test")
    await page.click("#door button")
    assert await seen(lambda: page.locator("#door").is_hidden())


async def test_customers_page__from_the_link__shows_the_courier_while_under_way(services, browser):
    driver_api, url = services
    await on_duty_at(driver_api, "d1", RESTAURANT)
    async with httpx.AsyncClient(base_url=url, timeout=20) as tracking_api:
        order = await create_order(tracking_api, "confirm", "assign")
        mine = f"/drivers/d1/orders/{order['order_id']}"
        await driver_api.post(f"{mine}/picked-up", headers=as_driver("d1"))
        await report(driver_api, "d1", north_of(RESTAURANT, 300))

        context = await browser.new_context(viewport={"width": 390, "height": 844})
        page = await context.new_page()
        bad = watch(page)
        await page.goto(order["customer_link"])
        assert await seen(lambda: drawn(page, "courier")) == 1
        assert await seen(lambda: drawn(page, "way"))
        assert await page.text_content("#number") == order["order_id"][:8]
        assert await page.text_content("#state") == "On the way to you"
        assert "min" in (await page.text_content("#minutes") or "")
        assert "#" not in page.url  # the token is a cookie now, which no script can read
        [cookie] = await context.cookies(f"{url}/track/{order['order_id']}")
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        assert await page.evaluate("document.cookie") == ""

        await driver_api.post(f"{mine}/delivered", headers=as_driver("d1"))
        await report(driver_api, "d1", CUSTOMER)

        async def no_courier() -> bool:
            return await drawn(page, "courier") == 0

        assert await seen(no_courier)
        assert await page.text_content("#state") == "Delivered"
        await page.reload()
        assert await seen(lambda: page.locator("#steps li.now").count()) == 1
        assert bad == []


async def test_customers_page__tracking_api_killed_and_started__heals_with_each_event_once(
    both, browser
):
    driver_api, services = both
    await on_duty_at(driver_api, "d1", RESTAURANT)
    async with httpx.AsyncClient(base_url=services.url, timeout=20) as tracking_api:
        order = await create_order(tracking_api, "confirm", "assign")
    mine = f"/drivers/d1/orders/{order['order_id']}"
    await report(driver_api, "d1", north_of(RESTAURANT, 300))
    page = await browser.new_page(viewport={"width": 390, "height": 844})
    await page.goto(order["customer_link"])
    await page.evaluate("globalThis.neverReloaded = true")

    async def says(selector: str, text: str) -> bool:
        return text in (await page.text_content(selector) or "")

    assert await seen(lambda: says("#state", "Courier on the way to the restaurant"))
    services.kill()
    assert await seen(lambda: says("#fresh-text", "trying again"))
    await driver_api.post(f"{mine}/picked-up", headers=as_driver("d1"))
    await services.start()
    assert await seen(lambda: says("#state", "On the way to you"))
    assert await seen(lambda: says("#fresh-text", "Courier seen"))
    await driver_api.post(f"{mine}/delivered", headers=as_driver("d1"))
    assert await seen(lambda: says("#state", "Delivered"))
    # created, confirmed and assigned came in the snapshot, which is numbered by its newest event
    assert await page.evaluate("doorstepEvents") == [3, 4, 5]
    assert await page.evaluate("neverReloaded")


async def test_customers_page__no_answer_at_first__opens_when_there_is_one(services, browser):
    _, url = services
    async with httpx.AsyncClient(base_url=url, timeout=20) as tracking_api:
        order = await create_order(tracking_api)
    page = await browser.new_page()
    failures = 2

    async def fail_at_first(route: Route) -> None:
        nonlocal failures
        failures -= 1
        await (route.fulfill(status=503) if failures >= 0 else route.continue_())

    await page.route("**/track/*/session", fail_at_first)
    await page.goto(order["customer_link"])
    assert await seen(lambda: page.locator("#steps li.now").count()) == 1
    assert await page.text_content("#state") == "Order placed"
    assert await page.locator("#gone").is_hidden()


async def test_customers_page__with_a_bad_link__says_so_and_nothing_else(services, browser):
    _, url = services
    async with httpx.AsyncClient(base_url=url, timeout=20) as tracking_api:
        order = await create_order(tracking_api)
    page = await browser.new_page()
    await page.goto(f"{order['customer_link']}x")
    assert await seen(lambda: page.locator("#gone").is_visible())
