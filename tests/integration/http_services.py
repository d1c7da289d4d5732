"""Both HTTP services for tests: over a database of one's own, or as the real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from subprocess import PIPE, Popen
from typing import IO, Any, cast

import httpx

from data import BUNDLED_CITY
from doorstep.credentials import token_sha256
from doorstep.fix import Fix
from doorstep.geo import offset
from doorstep.store.admin import (
    NewDriver,
    NewRestaurant,
    register_drivers,
    register_restaurants,
    register_service_area,
    register_staff_token,
)
from driver_api.app import build_app as build_driver_api
from driver_api.queries import DriverQueries, open_queries
from tests.database import Database
from tracking_api.app import build_app as build_tracking_api
from tracking_api.stores import open_stores

RESTAURANT = (11.2500, 43.7700)
CUSTOMER = (11.2600, 43.7800)
STAFF = {"Authorization": "Bearer stf_test"}
# Fixes that are reported so long after the assignment were surely taken after it, and are shown.
SHOWN_AFTER_S = 1.6


def as_driver(driver_id: str) -> dict[str, str]:
    """The headers of a driver's phone."""
    return {"Authorization": f"Bearer drv_{driver_id}"}


def as_customer(order: dict[str, Any]) -> dict[str, str]:
    """The headers of a script with the customer's token."""
    return {"Authorization": f"Bearer {order['customer_token']}"}


def populate(database: Database, drivers: int = 3) -> None:
    """Register drivers d1, d2, …, restaurant 1, Florence and a staff token."""
    with database.connect() as conn:
        register_drivers(
            conn,
            [
                NewDriver(f"d{n}", f"Driver {n}", token_sha256(f"drv_d{n}"))
                for n in range(1, drivers + 1)
            ],
        )
        register_service_area(conn, BUNDLED_CITY, west=11.1, south=43.6, east=11.4, north=43.9)
        register_restaurants(conn, [NewRestaurant(1, "Da Mario", *RESTAURANT)])
        register_staff_token(conn, token_sha256("stf_test"))


class SilentPositions:
    """The seam of driver_api's live feed: keeps what Kafka would get."""

    def __init__(self) -> None:
        self.published: list[tuple[str, Fix]] = []

    def publish(self, driver_id: str, fix: Fix, received_at_ms: int) -> None:
        self.published.append((driver_id, fix))

    def close(self) -> None:
        """Nothing is open."""


@asynccontextmanager
async def open_driver_api(
    database: Database, store: DriverQueries | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """driver_api on a real database, with the role and rights of the service."""
    async with AsyncExitStack() as stack:
        if store is None:
            store = await stack.enter_async_context(open_queries(database.url("driver_api"), 4))
        yield await stack.enter_async_context(_client(build_driver_api(store, SilentPositions())))


@asynccontextmanager
async def open_tracking_api(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    """tracking_api on a real database, with the roles and rights of the service."""
    async with (
        open_stores(database.url("tracking_api"), database.url("customer"), 4) as stores,
        _client(build_tracking_api(stores, "http://tracking.test")) as client,
    ):
        yield client


def _client(app: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://doorstep.test", timeout=30)


@contextmanager
def running(service: str, **environment: str) -> Iterator[Popen[bytes]]:
    """Run a service as its own process; kill it if a test leaves it running."""
    process = Popen([sys.executable, "-m", service], env=os.environ | environment, stderr=PIPE)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def stop(process: Popen[bytes]) -> tuple[int, str]:
    """Ask a process to stop; give its exit status and what it logged."""
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=60)
    return process.returncode, log.decode()


async def logged(process: Popen[bytes], event: str, within_s: float = 30) -> str:
    """Wait until a process logs an event; give all that it logged until then."""
    lines = iter(cast("IO[bytes]", process.stderr).readline, b"")
    found: list[str] = []

    def read() -> None:
        for line in lines:
            found.append(line.decode())
            if f'"event": "{event}"' in found[-1]:
                return
        raise AssertionError(f"no {event}: {''.join(found)}")

    await asyncio.wait_for(asyncio.to_thread(read), within_s)
    return "".join(found)


async def answers(client: httpx.AsyncClient, path: str, status: int, within_s: float = 30) -> bool:
    """Wait until a path answers with this status."""
    loop = asyncio.get_running_loop()
    until = loop.time() + within_s
    while loop.time() < until:
        try:
            if (await client.get(path)).status_code == status:
                return True
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.1)
    return False


class Relay:
    """A port that leads to another, and can swallow everything: a half-open network."""

    def __init__(self, to_port: int, port: int = 0) -> None:
        self._to_port = to_port
        self._port = port
        self._open = asyncio.Event()
        self._open.set()
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """The port to connect to."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def swallow(self) -> None:
        """Drop everything from now on, without an error."""
        self._open.clear()

    def let_through(self) -> None:
        """Let everything through again."""
        self._open.set()

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._links:
            task.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._link(reader, writer))
        self._links.add(task)
        task.add_done_callback(self._links.discard)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        try:
            await self._open.wait()
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._to_port)
            writers.append(there_writer)
            await asyncio.wait(
                [
                    asyncio.create_task(self._pump(reader, there_writer)),
                    asyncio.create_task(self._pump(there_reader, writer)),
                ],
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            for open_writer in writers:
                open_writer.close()
                with suppress(ConnectionError):
                    await open_writer.wait_closed()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                await self._open.wait()
                writer.write(data)
                await writer.drain()


def make_fix(
    place: tuple[float, float] = RESTAURANT, ago_s: float = 0, **members: Any
) -> dict[str, Any]:
    """A fix at a place, so many seconds ago."""
    taken = datetime.now(UTC) - timedelta(seconds=ago_s)
    return {
        "fix_at": taken.isoformat(),
        "lon_deg": place[0],
        "lat_deg": place[1],
        **members,
    }


def north_of(place: tuple[float, float], metres: float) -> tuple[float, float]:
    """A place so far north of another."""
    return offset(place, 0, metres)


async def on_duty_at(
    driver_api: httpx.AsyncClient, driver_id: str, place: tuple[float, float], ago_s: float = 0
) -> None:
    """Put a driver on duty with a position."""
    answer = await driver_api.post(f"/drivers/{driver_id}/on-duty", headers=as_driver(driver_id))
    assert answer.status_code == 200, answer.text
    await report(driver_api, driver_id, place, ago_s)


async def report(
    driver_api: httpx.AsyncClient,
    driver_id: str,
    place: tuple[float, float],
    ago_s: float = 0,
    **members: Any,
) -> dict[str, Any]:
    """Send one fix of a driver."""
    answer = await driver_api.patch(
        f"/drivers/{driver_id}/location",
        json=make_fix(place, ago_s, **members),
        headers=as_driver(driver_id),
    )
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def create_order(
    tracking_api: httpx.AsyncClient, *commands: str, **members: Any
) -> dict[str, Any]:
    """Create an order and apply these commands of staff."""
    new = {
        "restaurant_id": 1,
        "destination": {"lon_deg": CUSTOMER[0], "lat_deg": CUSTOMER[1]},
        **members,
    }
    answer = await tracking_api.post("/orders", json=new, headers=STAFF)
    assert answer.status_code == 201, answer.text
    order: dict[str, Any] = answer.json()
    for command in commands:
        answer = await tracking_api.post(f"/orders/{order['order_id']}/{command}", headers=STAFF)
        assert answer.status_code == 200, answer.text
        order |= answer.json()
    return order


async def track(tracking_api: httpx.AsyncClient, order: dict[str, Any]) -> dict[str, Any]:
    """Read an order as its customer."""
    answer = await tracking_api.get(f"/track/{order['order_id']}", headers=as_customer(order))
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def command(
    api: httpx.AsyncClient, order: dict[str, Any], name: str, **body: Any
) -> httpx.Response:
    """Apply one staff command."""
    address = f"/orders/{order['order_id']}/{name}"
    return await api.post(address, headers=STAFF, json=body or None)


def problem_of(answer: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    """Check that an answer is this problem, and give the document."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    document: dict[str, Any] = answer.json()
    assert (answer.status_code, document["type"]) == (status, f"/problems/{slug}"), document
    return document
