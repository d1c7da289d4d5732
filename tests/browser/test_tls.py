"""The pages in a real browser through Caddy: HTTPS, HTTP/2, server-sent events and a WebSocket.

Chromium accepts one public key, the server's; the test itself verifies that certificate with the
stack's own authority.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Error, Page

from doorstep.credentials import driver_token
from ops.stack import caddy
from ops.stack.addresses import reach
from ops.stack.certificates import CertificateAuthority
from ops.stack.stack import Stack
from tests.browser.conftest import City, OpenPage, running_chromium, running_stack
from tests.browser.page_checks import (
    PHONE,
    collect_errors,
    eventually,
    rendered_features,
    wait_for_text,
)
from tests.integration.http_services import RESTAURANT, north_of
from tests.programs import provided

PROTOCOLS = """() => [...new Set(performance.getEntries()
  .filter((one) => one.name.startsWith("https:"))
  .map((one) => one.nextHopProtocol)
  .filter(Boolean))]"""
COURIER = """() => doorstepMap.getSource("courier").serialize().data.features
  .find((one) => one.geometry.type === "Point")?.geometry.coordinates"""
OPEN_WEBSOCKET = """(path) => new Promise((resolve, reject) => {
  const socket = new WebSocket(`wss://${location.host}${path}`);
  globalThis.frames_ = [];
  socket.onmessage = ({ data }) => {
    frames_.push(JSON.parse(data));
    resolve(frames_[0].type);
  };
  socket.onerror = () => reject(new Error("the WebSocket failed"));
})"""


@pytest.fixture(scope="module")
def stack(only_worker: Callable[[str], None]) -> Iterator[Stack]:
    """A stack with TLS and its own authority, in place of the session's."""
    provided(caddy.find_program)
    only_worker("the browsers' stack with TLS")
    with running_stack(doorstep_tls=True) as whole:
        yield whole


@pytest.fixture(scope="module")
def public_key(stack: Stack) -> str:
    """The SHA-256 of the server's public key, from a handshake that the authority verifies."""
    assert stack.addresses.https is not None
    at = reach(stack.addresses.https)
    authority = CertificateAuthority(stack.paths.tls).certificate
    context = ssl.create_default_context(cafile=authority)
    with (
        socket.create_connection((at.host, at.port)) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1") as connection,
    ):
        presented = connection.getpeercert(binary_form=True)
    assert presented
    pem = ssl.DER_cert_to_PEM_cert(presented).encode()
    key = _openssl("x509", "-noout", "-pubkey", stdin=pem)
    der = _openssl("pkey", "-pubin", "-outform", "DER", stdin=key)
    return base64.b64encode(hashlib.sha256(der).digest()).decode()


def _openssl(*arguments: str, stdin: bytes) -> bytes:
    return subprocess.run(
        ["openssl", *arguments], input=stdin, capture_output=True, check=True
    ).stdout


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def browser(public_key: str) -> AsyncIterator[Browser]:
    """A Chromium that accepts the server's public key and no other unknown one."""
    accepted = f"--ignore-certificate-errors-spki-list={public_key}"
    async with running_chromium(accepted) as browser:
        yield browser


async def drawn_at(page: Page, place: tuple[float, float]) -> Any:
    """Wait until the courier is drawn at a place."""

    async def poll() -> bool:
        found = await page.evaluate(COURIER)
        return bool(found) and abs(found[1] - place[1]) < 1e-6

    return await eventually(poll)


async def test_track__over_https__moves_the_courier_by_server_sent_events(
    city: City, open_page: OpenPage, stack: Stack
) -> None:
    await city.driver("d1", RESTAURANT)
    order = await city.order(driver_id="d1")
    await city.phone("d1", f"orders/{order['order_id']}/picked-up")
    await city.report("d1", north_of(RESTAURANT, 300))
    errors: list[list[str]] = []

    assert order["customer_link"].startswith(f"{stack.public_url}/t/")
    page = await open_page(
        order["customer_link"], size=PHONE, before=lambda page: errors.append(collect_errors(page))
    )
    assert await wait_for_text(page, "#state", "On the way to you")
    assert await eventually(lambda: rendered_features(page, "courier")) == 1
    place = north_of(RESTAURANT, 400)
    await city.report("d1", place)
    assert await drawn_at(page, place)
    assert await page.evaluate("isSecureContext")
    assert await page.evaluate(PROTOCOLS) == ["h2"]
    [cookie] = await page.context.cookies(f"{stack.public_url}/track/{order['order_id']}")
    assert (cookie["secure"], cookie["httpOnly"]) == (True, True)
    assert errors == [[]]


async def test_websocket__over_https__receives_the_snapshot_and_a_position(
    city: City, open_page: OpenPage
) -> None:
    await city.driver("d1", RESTAURANT)
    order = await city.order(driver_id="d1")
    page = await open_page(order["customer_link"], size=PHONE)
    assert await eventually(lambda: page.locator("#steps li.current").count())

    path = f"/track/{order['order_id']}/ws"  # with the page's cookie and Origin
    assert await page.evaluate(OPEN_WEBSOCKET, path) == "snapshot"
    await city.report("d1", north_of(RESTAURANT, 300))
    types = "frames_.map((one) => one.type).includes('position')"
    assert await eventually(lambda: page.evaluate(types))


async def test_fleet__over_https__is_live_over_http_2_and_moves_a_driver(
    city: City, open_page: OpenPage, stack: Stack
) -> None:
    await city.driver("d1", RESTAURANT)
    errors: list[list[str]] = []
    page = await open_page(
        f"{stack.public_url}/fleet#{city.staff_token}",
        before=lambda page: errors.append(collect_errors(page)),
    )
    assert await wait_for_text(page, "#connection", "live")
    place = north_of(RESTAURANT, 500)
    await city.report("d1", place)

    async def has_moved() -> bool:
        found = await page.evaluate("doorstepFleet.placeOf('d1')")
        return bool(found) and abs(found[1] - place[1]) < 1e-6

    assert await eventually(has_moved)
    assert await page.evaluate(PROTOCOLS) == ["h2"]
    assert errors == [[]]


async def test_tabs__seven_of_one_browser__all_stay_live(
    city: City, open_page: OpenPage, stack: Stack
) -> None:
    await city.driver("d1", RESTAURANT)
    first = await open_page(f"{stack.public_url}/fleet#{city.staff_token}")
    assert await wait_for_text(first, "#connection", "live")
    for _ in range(6):  # over HTTP/1.1 a browser opens six connections to one host
        page = await first.context.new_page()
        await page.goto(f"{stack.public_url}/fleet#{city.staff_token}")
        assert await wait_for_text(page, "#connection", "live")


async def test_certificate__of_another_authority__is_refused_by_the_browser(
    browser: Browser, tmp_path: Path
) -> None:
    other = CertificateAuthority(tmp_path / "other")
    other.prepare(("127.0.0.1",))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(other.server)
    handler = asyncio.StreamReaderProtocol
    server = await asyncio.get_running_loop().create_server(
        lambda: handler(asyncio.StreamReader()), "127.0.0.1", 0, ssl=context
    )
    async with server:
        page = await browser.new_page()
        with pytest.raises(Error, match="ERR_CERT_AUTHORITY_INVALID"):
            await page.goto(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        await page.close()


async def test_courier_page__over_https__is_at_the_same_address_and_reports(
    city: City, open_page: OpenPage, stack: Stack
) -> None:
    await city.driver("d1")
    errors: list[list[str]] = []
    page = await open_page(
        f"{stack.public_url}/drive#{driver_token(stack.paths.fleet_key(), 'd1')}",
        size=PHONE,
        before=lambda page: errors.append(collect_errors(page)),
        permissions=["geolocation"],
        geolocation={"longitude": RESTAURANT[0], "latitude": RESTAURANT[1], "accuracy": 8},
    )
    await page.click("[data-duty=on_duty]")

    async def has_position() -> bool:
        with city.database() as conn:
            rows = conn.execute("SELECT FROM fix_history WHERE driver_id = 'd1'").fetchall()
        return len(rows) > 0

    assert await eventually(has_position)
    assert await wait_for_text(page, "#safety", "All positions are safe")
    [cookie] = await page.context.cookies(f"{stack.public_url}/drive/session")
    assert (cookie["secure"], cookie["httpOnly"]) == (True, True)
    assert errors == [[]]
