"""A world and its server, for the tests of streams. A test may replace the world."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.unit.tracking_api.live_server import Server
from tests.unit.tracking_api.live_world import World, serving


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def server(world: World) -> AsyncIterator[Server]:
    async with serving(world) as (url, app):
        yield Server(world, url, app.state.context.live)
