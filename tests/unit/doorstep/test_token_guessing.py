"""Limits on guessed tokens, and connections freed by good ones. The application is a stub."""

from __future__ import annotations

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from doorstep.http import guarded_protocol
from doorstep.http.guarded_protocol import note_good_token
from doorstep.http.token_guessing import BURST_BAD_TOKENS, TokenGuessing

BAD, GOOD = {"Authorization": "Bearer bad"}, {"Authorization": "Bearer good"}


async def answer(request: Request) -> Response:
    """Answer with the requested status; else 200 to the good token, and 401."""
    token = request.headers.get("authorization")
    if token == "Bearer good":
        note_good_token()
    status = {"Bearer good": 200, "Bearer bad": 401}.get(token or "", 401)
    return Response(status_code=int(request.query_params.get("status", status)))


class Connection:
    """A connection that records whether it still counts as unauthenticated."""

    is_marked = False

    def authenticate(self) -> None:
        self.is_marked = True


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Connection:
    """The connection of every request."""
    found = Connection()
    monkeypatch.setattr(guarded_protocol, "connection_of", lambda _: found)
    return found


@pytest.fixture
def client() -> httpx.AsyncClient:
    app = TokenGuessing(Starlette(routes=[Route("/", answer)]))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def test_bad_tokens__beyond_the_burst__are_429_and_a_good_one_is_served(
    client: httpx.AsyncClient,
) -> None:
    statuses = [(await client.get("/", headers=BAD)).status_code for _ in range(BURST_BAD_TOKENS)]
    assert set(statuses) == {401}
    refused = await client.get("/", headers=BAD)
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) >= 1
    assert (await client.get("/", headers=GOOD)).status_code == 200


async def test_requests_without_a_token__are_not_counted(client: httpx.AsyncClient) -> None:
    for _ in range(BURST_BAD_TOKENS + 10):
        assert (await client.get("/")).status_code == 401


@pytest.mark.parametrize(
    ("headers", "status", "is_marked"),
    [
        (GOOD, 200, True),
        (GOOD, 404, True),
        (BAD, 401, False),
        (BAD, 200, False),  # a page, or health
        (BAD, 413, False),
        ({"Cookie": "a=b"}, 200, False),
        ({}, 200, False),
    ],
)
async def test_connection__is_marked__only_by_a_token_that_was_accepted(
    client: httpx.AsyncClient,
    connection: Connection,
    headers: dict[str, str],
    status: int,
    is_marked: bool,
) -> None:
    await client.get("/", params={"status": status}, headers=headers)
    assert connection.is_marked == is_marked
