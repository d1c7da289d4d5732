"""Instants at the edges of what Python and PostgreSQL hold. The seam replaced: the database."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.unit.tracking_api.memory_store import ORDER_ID, STAFF, MemoryStore
from tracking_api.app import build_app
from tracking_api.stores import Stores

ODD = [
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+23:59",
    "0001-01-01T00:00:00-23:59",
    "0001-12-31T23:59:59.999999Z",
    "9999-12-31T23:59:59.999999Z",
    "9999-12-31T23:59:59-23:59",
    "9999-12-31T23:59:59+23:59",
]
VALID = "2026-01-01T00:00:00Z"


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    app = build_app(Stores.backed_by(MemoryStore()), "http://testserver")
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://testserver", headers=STAFF
    ) as client:
        yield client


async def parameters_with_instants(http: httpx.AsyncClient) -> list[tuple[str, str, list[str]]]:
    """Each route with such a parameter: its path, the parameter, and all of them."""
    document = (await http.get("/openapi.json")).json()
    found = []
    for path, methods in document["paths"].items():
        parameters = methods.get("get", {}).get("parameters", [])
        names = [one["name"] for one in parameters if "date-time" in str(one["schema"])]
        found += [(path, name, names) for name in names]
    return found


@pytest.mark.parametrize("odd", ODD)
async def test_every_route__instant_beyond_the_calendar__is_422(
    http: httpx.AsyncClient, odd: str
) -> None:
    asked = 0
    for path, name, names in await parameters_with_instants(http):
        path = path.replace("{order_id}", str(ORDER_ID)).replace("{measure}", "battery")
        path = re.sub(r"\{kind\}", "csv", path)
        path = re.sub(r"\{\w+\}", "d1", path)
        for others in ({}, dict.fromkeys(names, VALID)):
            answer = await http.get(path, params={**others, name: odd})
            assert answer.status_code == 422, (path, name, answer.text)
            asked += 1
    assert asked >= 20
