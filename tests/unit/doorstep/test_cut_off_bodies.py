"""A client that goes away while it sends a body, over real sockets and uvicorn.

It counts as 400, nothing is written, and no line is logged above info. The stores are in memory.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import re
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import structlog
import uvicorn
from fastapi import FastAPI
from prometheus_client import REGISTRY

from doorstep.http.guarded_protocol import ConnectionLimits, guarded
from driver_api.app import build_app as build_driver_api
from ops.stack.settings import PROJECT
from tests.unit.driver_api.memory_store import ORDER_ID as OWN_ORDER_ID
from tests.unit.driver_api.memory_store import MemoryPositions
from tests.unit.driver_api.memory_store import MemoryStore as DriverStore
from tests.unit.tracking_api.memory_store import ORDER_ID, MemoryStore
from tracking_api.app import build_app as build_tracking_api
from tracking_api.stores import Stores

JSON, CSV, JPEG = "application/json", "text/csv", "image/jpeg"
BASIC = f"Basic {base64.b64encode(b'd1:phn-d1').decode()}"
DRIVER, PHONE = "Bearer tok-d1", "Bearer phn-d1"
STAFF, RESTAURANT = "Bearer tok-staff", "Bearer tok-restaurant"
DRIVER_API = [
    ("PATCH", "/drivers/d1/location", JSON, DRIVER),
    ("POST", "/drivers/d1/locations", JSON, DRIVER),
    ("POST", "/drivers/d1/orders/{order_id}/delivered", JSON, DRIVER),
    ("POST", "/drivers/d1/orders/{order_id}/failed", JSON, DRIVER),
    ("POST", "/drivers/d1/orders/{order_id}/photo", JPEG, DRIVER),
    ("POST", "/owntracks", JSON, BASIC),
    ("POST", "/osmand?id=phn-d1", JSON, PHONE),
    ("POST", "/overland", JSON, PHONE),
]
TRACKING_API = [
    ("POST", "/orders", JSON, STAFF),
    ("POST", "/orders/import", CSV, STAFF),
    ("POST", "/orders/{order_id}/fail", JSON, STAFF),
    ("PUT", "/restaurant/orders/{order_id}/ready-at", JSON, RESTAURANT),
    ("POST", "/session", JSON, STAFF),
    ("POST", "/drivers/import", CSV, STAFF),
]
ENDS = ["closed", "reset", "half-closed"]


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[uvicorn.Server]:
    """Serve an application on a free port of loopback, as the services do."""
    limits = ConnectionLimits(max_connections=100)
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, http=guarded(limits), ws="none",  # type: ignore[arg-type]
        lifespan="off", log_config=None, access_log=False,
    )  # fmt: skip
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    try:
        yield server
    finally:
        server.should_exit = True
        await task


def head_of(method: str, path: str, media_type: str, token: str) -> bytes:
    """The head of a request with 900 bytes of body."""
    fields = {
        "Host": "doorstep.test",
        "Origin": "https://doorstep.test",
        "Authorization": token,
        "Content-Type": media_type,
        "Content-Length": "900",
    }
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode()


async def send_part(server: uvicorn.Server, head: bytes, end: str) -> bytes:
    """Send the head and the first byte of the body, and end the connection in some way.

    Returns what comes back, once the request is over.
    """
    port = server.servers[0].sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head + b"{")
    while not server.server_state.tasks and not server.server_state.total_requests:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.001)
    answer = b""
    if end == "half-closed":
        writer.write_eof()
        answer = await reader.read()
    elif end == "reset":
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.close()
    while server.server_state.tasks:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.001)
    return answer


def statuses() -> Counter[str]:
    """How many requests each status was counted for."""
    found: Counter[str] = Counter()
    for metric in REGISTRY.collect():
        for one in metric.samples:
            if one.name == "doorstep_http_request_seconds_count":
                found[one.labels["status"]] += round(one.value)
    return found


@pytest.fixture
def quiet_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing is logged above info, by structlog or logging."""
    with caplog.at_level(logging.DEBUG), structlog.testing.capture_logs() as events:
        yield
    assert [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING] == []
    assert [one for one in events if one["log_level"] not in ("debug", "info")] == []


@pytest.mark.usefixtures("quiet_log")
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(("method", "path", "media_type", "token"), DRIVER_API)
async def test_driver_api__body_cut_off__is_a_400_and_writes_nothing(
    method: str, path: str, media_type: str, token: str, end: str
) -> None:
    store, positions = DriverStore(), MemoryPositions()
    head = head_of(method, path.format(order_id=OWN_ORDER_ID), media_type, token)
    before = statuses()
    async with serving(build_driver_api(store, positions)) as server:
        answer = await send_part(server, head, end)
    assert (answer, statuses() - before) == (b"", Counter({"400": 1}))
    assert (store.transactions, store.rows, store.letters, store.photos) == (0, [], [], [])
    assert (store.commands, store.failures, store.deliveries) == ([], [], [])


@pytest.mark.usefixtures("quiet_log")
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(("method", "path", "media_type", "token"), TRACKING_API)
async def test_tracking_api__body_cut_off__is_a_400(
    method: str, path: str, media_type: str, token: str, end: str
) -> None:
    app = build_tracking_api(Stores.backed_by(MemoryStore()), "https://doorstep.test")
    head = head_of(method, path.format(order_id=ORDER_ID), media_type, token)
    before = statuses()
    async with serving(app) as server:
        answer = await send_part(server, head, end)
    assert (answer, statuses() - before) == (b"", Counter({"400": 1}))


def test_bodies__in_all_packages__are_read_where_a_cut_off_is_handled() -> None:
    reads = re.compile(r"request\.(body|json|form|stream)\(")
    packages = ("doorstep", "driver_api", "tracking_api", "webhooks", "ops")
    found = {
        str(path.relative_to(PROJECT))
        for package in packages
        for path in (PROJECT / package).rglob("*.py")
        if reads.search(path.read_text("utf-8"))
    }
    assert found == {
        "doorstep/http/request_body.py",
        "doorstep/http/photo_body.py",
        "doorstep/http/csv_body.py",
        "driver_api/phone_bodies.py",
    }
