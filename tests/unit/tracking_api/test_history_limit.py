"""One token's histories are limited. The seam replaced: the database, by an in-memory store."""

from __future__ import annotations

import httpx
import pytest

from tests.unit.tracking_api.memory_store import CUSTOMER, ORDER_ID, STAFF, MemoryStore
from tracking_api.app import BURST_HISTORIES, STAFF_BURST_HISTORIES, build_app
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


@pytest.mark.parametrize(
    "path",
    [
        "/drivers/d1/history?{range}",
        "/drivers/d1/history.csv?{range}",
        "/fleet/history?bbox=11,43,12,44&{range}",
        f"/track/{ORDER_ID}/history",
    ],
)
async def test_history__of_one_person_without_pause__is_429_and_others_are_served(
    http: httpx.AsyncClient, path: str
) -> None:
    path = path.format(range="from=2026-01-01T00:00:00Z&to=2026-01-01T01:00:00Z")
    statuses = [
        (await http.get(path, headers=STAFF)).status_code for _ in range(2 * STAFF_BURST_HISTORIES)
    ]
    assert statuses[: STAFF_BURST_HISTORIES // 10] == [200] * (STAFF_BURST_HISTORIES // 10)
    assert 429 in statuses
    viewer = {"Authorization": "Bearer tok-viewer"}
    assert (await http.get(path, headers=viewer)).status_code == 200
