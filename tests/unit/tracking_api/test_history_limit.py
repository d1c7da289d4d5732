"""One token's histories are limited. The seam replaced: the database, by an in-memory store."""

from __future__ import annotations

import httpx
import pytest

from tests.unit.tracking_api.memory_store import CUSTOMER, ORDER_ID, STAFF, MemoryStore
from tracking_api.app import BURST_HISTORIES, build_app
from tracking_api.stores import Stores


@pytest.fixture
def http() -> httpx.AsyncClient:
    app = build_app(Stores.backed_by(MemoryStore()), "http://testserver")
    transport = httpx.ASGITransport(app)
    return httpx.AsyncClient(transport=transport, base_url="http://testserver")


async def test_history__of_one_token_without_pause__is_429_and_others_are_served(
    http: httpx.AsyncClient,
) -> None:
    path = f"/track/{ORDER_ID}/history"
    statuses = [(await http.get(path, headers=CUSTOMER)).status_code for _ in range(300)]
    assert statuses[:BURST_HISTORIES] == [200] * BURST_HISTORIES
    assert 429 in statuses
    assert (await http.get(path, headers=STAFF)).status_code == 200
    assert (await http.get(f"/track/{ORDER_ID}", headers=CUSTOMER)).status_code == 200
