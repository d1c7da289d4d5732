"""Fixes while the server's clock may be wrong. The seam replaced: the guard's clocks."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx
import pytest

from doorstep.clock_guard import ClockGuard, Clocks
from driver_api.app import build_app
from tests.unit.driver_api.memory_store import MemoryPositions, MemoryStore

PHONE = "/osmand?id=phn-d1&lat=43.77&lon=11.25&timestamp={}"


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", PHONE), ("POST", PHONE), ("PATCH", "/drivers/d1/location")],
)
async def test_position__clock_stepped__is_503_and_not_judged(
    store: MemoryStore, method: str, path: str
) -> None:
    wall_s = [1000.0]
    clock = ClockGuard(lambda: Clocks(5.0, wall_s[0]), lambda _: False)
    transport = httpx.ASGITransport(build_app(store, MemoryPositions(), clock=clock))
    now_s = round(datetime.now(UTC).timestamp())
    fix = {"fix_at": now_s * 1000, "lat_deg": 43.77, "lon_deg": 11.25}
    headers = {"Authorization": "Bearer tok-d1"}
    async with httpx.AsyncClient(transport=transport, base_url="http://driver-api") as client:

        async def send() -> httpx.Response:
            body = fix if method == "PATCH" else None
            return await client.request(method, path.format(now_s), json=body, headers=headers)

        assert (await send()).status_code == 200
        wall_s[0] -= 3600
        written = len(store.rows)
        answer = await send()
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert len(store.rows) == written
