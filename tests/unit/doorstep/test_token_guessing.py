"""Limits on guessed tokens, and connections freed by good ones. The application is a stub."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from doorstep.http import token_guessing
from doorstep.http.token_guessing import BURST_BAD_TOKENS, TokenGuessing

BAD, GOOD = {"Authorization": "Bearer bad"}, {"Authorization": "Bearer good"}


async def answer(request: Request) -> Response:
    """Answer 200 to the good token, 401 to the bad one and the status asked for to none."""
    token = request.headers.get("authorization")
    status = {"Bearer good": 200, "Bearer bad": 401}.get(token or "", 401)
    return Response(status_code=int(request.query_params.get("status", status)))


@pytest.fixture
def marked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The requests whose connection was marked."""
    scopes: list[Any] = []
    monkeypatch.setattr(token_guessing, "mark_authenticated", scopes.append)
    return scopes


@pytest.fixture
def client() -> httpx.AsyncClient:
    app = TokenGuessing(Starlette(routes=[Route("/", answer)]))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


@pytest.mark.usefixtures("marked")
async def test_bad_tokens__beyond_the_burst__are_429_and_a_good_one_is_served(
    client: httpx.AsyncClient,
) -> None:
    statuses = [(await client.get("/", headers=BAD)).status_code for _ in range(BURST_BAD_TOKENS)]
    assert set(statuses) == {401}
    refused = await client.get("/", headers=BAD)
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) >= 1
    assert (await client.get("/", headers=GOOD)).status_code == 200


@pytest.mark.usefixtures("marked")
async def test_requests_without_a_token__are_not_counted(client: httpx.AsyncClient) -> None:
    for _ in range(BURST_BAD_TOKENS + 10):
        assert (await client.get("/")).status_code == 401


@pytest.mark.parametrize(
    ("headers", "status", "is_marked"),
    [(GOOD, 200, True), (GOOD, 409, True), (GOOD, 404, False), (BAD, 401, False), ({}, 200, False)],
)
async def test_connection__is_marked__only_by_a_token_that_was_accepted(
    client: httpx.AsyncClient,
    marked: list[Any],
    headers: dict[str, str],
    status: int,
    is_marked: bool,
) -> None:
    await client.get("/", params={"status": status}, headers=headers)
    assert len(marked) == is_marked
