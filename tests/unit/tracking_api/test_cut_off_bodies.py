"""A client that goes away while it sends a body: a 400 for no one, and no error in the log."""

from __future__ import annotations

import logging

import pytest
import structlog
from starlette.types import Message

from tests.unit.tracking_api.memory_store import ORDER_ID, MemoryStore
from tracking_api.app import build_app
from tracking_api.stores import Stores

ROUTES = [
    ("POST", "/orders", b"application/json"),
    ("POST", f"/orders/{ORDER_ID}/fail", b"application/json"),
    ("PUT", f"/restaurant/orders/{ORDER_ID}/ready-at", b"application/json"),
    ("POST", "/session", b"application/json"),
    ("POST", "/drivers/import", b"text/csv"),
]


@pytest.mark.parametrize(("method", "path", "content_type"), ROUTES)
async def test_body__cut_off__is_never_logged_as_an_error(
    store: MemoryStore,
    caplog: pytest.LogCaptureFixture,
    method: str,
    path: str,
    content_type: bytes,
) -> None:
    app = build_app(Stores.backed_by(store), "https://doorstep.test")
    is_restaurant = path.startswith("/restaurant")
    token = b"tok-restaurant" if is_restaurant else b"tok-staff"
    messages: list[Message] = [
        {"type": "http.request", "body": b'{"token": "st', "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "https",
        "server": ("doorstep.test", 443),
        "client": ("127.0.0.1", 1),
        "headers": [
            (b"host", b"doorstep.test"),
            (b"origin", b"https://doorstep.test"),
            (b"authorization", b"Bearer " + token),
            (b"content-type", content_type),
        ],
        "state": {},
    }
    with caplog.at_level(logging.DEBUG), structlog.testing.capture_logs() as events:
        await app(scope, receive, send)
    assert [one["status"] for one in sent if "status" in one] == [400]
    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []
    assert [one for one in events if one["log_level"] not in ("debug", "info")] == []
