"""Whatever anybody sends to tracking_api: an answer below 500. The seam is the store."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.tracking_api.memory_store import NEW_ORDER, ORDER_ID, STAFF, MemoryStore
from tracking_api.app import build_app
from tracking_api.stores import Stores
from tracking_api.track import links

JSON = STAFF | {"Content-Type": "application/json"}
CASES = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
BODIES = [
    "/orders",
    f"/orders/{ORDER_ID}/assign",
    f"/orders/{ORDER_ID}/offers",
    f"/orders/{ORDER_ID}/fail",
    f"/orders/{ORDER_ID}/cancel",
    f"/orders/{ORDER_ID}/deliver",
    "/policies",
]
REPORTING = "/drivers/d1/reporting"

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None), max_size=20)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)
members = st.sampled_from(
    [
        *(*NEW_ORDER, "customer_name", "policy_id", "driver_id", "reason", "name", "dwell_min_s"),
        *("mode", "pickup", "customer_phone", "promised_to", "contact_rule", "note", "pin"),
        "next_step",
    ]
)
objects = st.dictionaries(members, values).map(lambda changes: {**NEW_ORDER, **changes})


@pytest.fixture
async def client(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    monkeypatch.setattr(links, "REFUSE_AFTER_S", 0.0)  # hundreds of bad links: don't wait
    app = build_app(Stores.backed_by(MemoryStore()), "http://tracking.test")
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://tracking") as client:
        yield client


@CASES
@given(st.sampled_from(BODIES), st.binary(max_size=300))
async def test_any_bytes__as_a_body__get_an_answer(
    client: httpx.AsyncClient, path: str, body: bytes
) -> None:
    assert (await client.post(path, content=body, headers=JSON)).status_code < 500
    assert (await client.put(REPORTING, content=body, headers=JSON)).status_code < 500


@CASES
@given(st.sampled_from(BODIES), objects | values)
async def test_any_json__as_a_body__gets_an_answer(
    client: httpx.AsyncClient, path: str, value: Any
) -> None:
    answer = await client.post(path, content=json.dumps(value).encode(), headers=JSON)
    assert answer.status_code < 500, answer.text
    answer = await client.put(REPORTING, content=json.dumps(value).encode(), headers=JSON)
    assert answer.status_code < 500, answer.text


@CASES
@given(st.text(st.characters(codec="utf-8"), max_size=30))
async def test_any_text__as_any_parameter__gets_an_answer(
    client: httpx.AsyncClient, text: str
) -> None:
    quoted = quote(text, safe="")
    names = ("state", "limit", "cursor", "since", "lon_deg", "lat_deg", "from", "to", "bbox", "q")
    query = dict.fromkeys(names, text)
    for path in (
        "/orders",
        "/drivers/positions",
        "/drivers/nearest",
        f"/track/{ORDER_ID}/history",
        "/fleet/orders",
        "/fleet/search",
        "/fleet/history",
        f"/fleet/tiles/{quoted}/0/0.mvt",
        "/drivers/d1/history",
        f"/drivers/d1/history.{quoted}",
        f"/orders/{quoted}",
        f"/drivers/{quoted}",
        f"/track/{quoted}",
        f"/t/{quoted}",
    ):
        answer = await client.get(path, params=query, headers=STAFF)
        assert answer.status_code < 500, (path, answer.text)
    cookie = {"Cookie": f"doorstep_track={text}".encode()}
    assert (await client.get(f"/track/{ORDER_ID}", headers=cookie)).status_code in (404, 429)
