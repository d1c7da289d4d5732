"""Ranges at the edge of the calendar, over a real database."""

from __future__ import annotations

import secrets

import httpx
import pytest

from doorstep.credentials import token_sha256
from doorstep.store.admin import register_staff_token
from tests.database import Database
from tests.sql.fleet import Fleet
from tracking_api.app import build_app
from tracking_api.stores import open_stores

FIRST, LAST = "0002-01-01T00:00:00Z", "9998-12-31T00:00:00Z"
NEXT, BEFORE = "0002-01-01T23:00:00+23:59", "9998-12-30T00:00:00-23:59"


@pytest.mark.parametrize("between", [(FIRST, NEXT), (BEFORE, LAST), (FIRST, LAST)])
async def test_every_route__range_at_the_edge__is_answered(
    database: Database, fleet: Fleet, between: tuple[str, str]
) -> None:
    token = secrets.token_urlsafe(16)
    register_staff_token(fleet.conn, token_sha256(token))
    order_id = fleet.assigned_order("d1")
    paths = [
        "/drivers/d1/history",
        "/drivers/d1/history.gpx",
        "/fleet/history?bbox=11,43,12,44",
        "/series/driver/d1/battery",
        f"/track/{order_id}/history",
    ]
    async with open_stores(database.url("tracking_api"), database.url("customer"), 1) as stores:
        transport = httpx.ASGITransport(build_app(stores, "http://t"), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as http:
            for path in paths:
                for names in (("from", "to"), ("from",), ("to",)):
                    params = {name: between[("from", "to").index(name)] for name in names}
                    answer = await http.get(
                        httpx.URL(path).copy_merge_params(params),
                        headers={"Authorization": f"Bearer {token}"},
                    )
                    assert answer.status_code in (200, 422), (path, params, answer.text)
