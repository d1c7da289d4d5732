"""driver_api over a store in memory: the seam is `driver_api.queries.Store`."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from driver_api.app import build_app
from tests.unit.driver_api.memory_store import MemoryPositions, MemoryStore


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def positions() -> MemoryPositions:
    return MemoryPositions()


@pytest.fixture
async def http(store: MemoryStore, positions: MemoryPositions) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(
        build_app(store, positions, "tok-service"), raise_app_exceptions=False
    )
    async with httpx.AsyncClient(transport=transport, base_url="http://driver-api") as client:
        client.headers["Authorization"] = "Bearer tok-d1"
        yield client
