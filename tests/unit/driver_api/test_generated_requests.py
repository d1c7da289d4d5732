"""Whatever a phone sends: an answer below 500, with a reason. The seam is the store."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driver_api.app import build_app
from tests.unit.driver_api.memory_store import MemoryPositions, MemoryStore, make_fix

HEADERS = {"Authorization": "Bearer tok-staff", "Content-Type": "application/json"}
CASES = settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None), max_size=20)
    | st.sampled_from(["2026-01-01T12:00:00Z", "'; DROP TABLE orders;--", "infinity", "\0"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)
fixes = st.builds(
    lambda changes: make_fix(**changes),
    st.dictionaries(st.sampled_from([*make_fix(), "accuracy_m", "battery", "void", "x"]), values),
)


@pytest.fixture
async def phone() -> AsyncIterator[httpx.AsyncClient]:
    app = build_app(MemoryStore(), MemoryPositions())
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://driver-api") as client:
        yield client


async def answered_well(client: httpx.AsyncClient, method: str, path: str, body: bytes) -> None:
    answer = await client.request(method, path, content=body, headers=HEADERS)
    assert answer.status_code in (200, 422), (body, answer.text)
    if answer.status_code == 422:
        document: dict[str, Any] = answer.json()
        assert document["reason"], body


@CASES
@given(st.binary(max_size=300))
async def test_any_bytes__as_a_body__get_an_answer(phone: httpx.AsyncClient, body: bytes) -> None:
    await answered_well(phone, "PATCH", "/drivers/d1/location", body)
    await answered_well(phone, "POST", "/drivers/d1/locations", b'{"fixes":[' + body + b"]}")


@CASES
@given(fixes | values)
async def test_any_json__as_a_body__gets_an_answer(phone: httpx.AsyncClient, value: Any) -> None:
    body = json.dumps(value).encode()
    await answered_well(phone, "PATCH", "/drivers/d1/location", body)
    await answered_well(phone, "POST", "/drivers/d1/locations", b'{"fixes":[' + body + b"]}")


@CASES
@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=30))
async def test_any_driver_id_and_key__in_a_request__get_an_answer(
    phone: httpx.AsyncClient, text: str
) -> None:
    quoted = quote(text, safe="")
    for path in ("", "/on-duty", f"/orders/{quoted}/decline"):
        method = "POST" if path else "GET"
        answer = await phone.request(method, f"/drivers/{quoted}{path}", headers=HEADERS)
        assert answer.status_code < 500, (text, answer.text)
    key = text.encode("utf-8")
    answer = await phone.request(
        "POST", "/drivers/d1/on-duty", headers=[(b"Idempotency-Key", key.replace(b"\n", b""))]
    )
    assert answer.status_code in (401, 422)
