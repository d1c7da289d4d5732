"""The API client's retries. `httpx.MockTransport` replaces the network."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from simulators import api as api_module
from simulators.api import Api


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "RETRY_MIN_S", 0.001)
    monkeypatch.setattr(api_module, "RETRY_MAX_S", 0.002)


def make_api(answer: Callable[[httpx.Request], httpx.Response]) -> Api:
    return Api("http://driver/", "http://tracking", httpx.MockTransport(answer))


async def test_request__unreachable_then_503_then_ok__is_retried_with_one_key() -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["Idempotency-Key"])
        if len(seen) == 1:
            raise httpx.ConnectError("refused", request=request)
        if len(seen) == 2:
            return httpx.Response(503, headers={"Retry-After": "1"})
        if len(seen) == 3:
            raise httpx.ReadTimeout("slow", request=request)
        return httpx.Response(200, json={"order_id": "o1"})

    async with make_api(answer) as api:
        found = await api.tracking("POST", "/orders", "stf", {"restaurant_id": 1})
    assert (found.ok, found.body) == (True, {"order_id": "o1"})
    assert len(seen) == 4
    assert len(set(seen)) == 1


@pytest.mark.parametrize("status", [401, 404, 409, 422])
async def test_request__refused__is_not_retried(status: int) -> None:
    calls = []

    def answer(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        return httpx.Response(status, json={"type": "/problems/x"})

    async with make_api(answer) as api:
        found = await api.driver("POST", "/drivers/anna/on-duty", "drv_anna")
    assert (found.ok, found.status, len(calls)) == (False, status, 1)
    assert str(calls[0].url) == "http://driver/drivers/anna/on-duty"
    assert calls[0].headers["Authorization"] == "Bearer drv_anna"


async def test_request__two_commands__have_two_keys() -> None:
    keys = set()

    def answer(request: httpx.Request) -> httpx.Response:
        keys.add(request.headers["Idempotency-Key"])
        return httpx.Response(200, text="not json")

    async with make_api(answer) as api:
        assert (await api.driver("POST", "/a", "t")).body is None
        await api.driver("POST", "/a", "t")
    assert len(keys) == 2


async def test_request__a_read__has_no_key() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert "Idempotency-Key" not in request.headers
        return httpx.Response(200, json=[])

    async with make_api(answer) as api:
        assert (await api.tracking("GET", "/restaurants", "stf")).ok
