"""tracking_api over a store in memory, and a world and its server for the tests of streams.

A module may replace the world.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.unit.tracking_api.live_server import Server
from tests.unit.tracking_api.live_world import World, serving
from tests.unit.tracking_api.memory_store import MemoryStore
from tracking_api.app import build_app
from tracking_api.stores import Stores


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def http(store: MemoryStore) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application, whose threads have not been started."""
    app = build_app(Stores.backed_by(store), "https://doorstep.test")
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="https://doorstep.test") as client:
        yield client


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def server(world: World) -> AsyncIterator[Server]:
    async with serving(world) as (url, app):
        yield Server(world, url, app.state.context.live)
