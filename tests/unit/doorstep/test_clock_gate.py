"""Requests while the clock is not trusted. The seam replaced: the guard's clocks."""

from __future__ import annotations

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from doorstep.clock_guard import ClockGuard, Clocks
from doorstep.http.clock_gate import ClockGate

METHODS = ["GET", "HEAD", "POST", "PATCH", "PUT", "DELETE"]


async def accept(_: Request) -> Response:
    return Response(status_code=204)


@pytest.mark.parametrize("method", METHODS)
async def test_clock_gate__clock_stepped__only_reads_pass(method: str) -> None:
    wall_s = [1000.0]
    clock = ClockGuard(lambda: Clocks(5.0, wall_s[0]), lambda _: False)
    app = Starlette(routes=[Route("/", accept, methods=METHODS)])
    app.add_middleware(ClockGate, clock=clock)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.request(method, "/")).status_code == 204
        wall_s[0] -= 3600
        answer = await client.request(method, "/")
    if method in ("GET", "HEAD"):
        assert answer.status_code == 204
    else:
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "5"
        assert answer.json()["type"] == "/problems/clock-stepped"
