"""Requests to addresses that others chose, over real sockets to servers that misbehave."""

from __future__ import annotations

import logging
import socket

import pytest

from doorstep.outbound.destination import DestinationRules, ForbiddenDestination, RequestFailed
from doorstep.outbound.poster import Answer, Poster
from tests.unit.doorstep.http_peer import (
    DRIPPING_BODY,
    DRIPPING_HEAD,
    ENDLESS_BODY,
    answering,
    peer,
)

LOOPBACK = DestinationRules(allow_loopback=True)
LONG_S = 600.0


async def post(url: str, rules: DestinationRules = LOOPBACK, timeout_s: float = LONG_S) -> Answer:
    poster = Poster(rules, timeout_s)
    async with poster.new_client() as client:
        try:
            return await poster.post(client, url, {"x-test": "1"}, b"body")
        finally:
            poster.close()


async def test_post__answer__has_status_and_retry_after():
    async with peer(answering(429, "Retry-After: 7")) as server:
        assert await post(server.url) == Answer(429, "7")
    [(headers, body)] = server.requests
    assert (headers["x-test"], body) == ("1", b"body")


async def test_post__at_any_level__logs_no_url(caplog):
    caplog.set_level(logging.DEBUG)
    async with peer(answering(201)) as server:
        await post(f"{server.url}/secret")
    assert len(server.requests) == 1
    assert "secret" not in caplog.text


@pytest.mark.parametrize("reply", [DRIPPING_HEAD, DRIPPING_BODY], ids=["head", "body"])
async def test_post__answer_that_drips__fails_after_the_whole_time_out(reply):
    async with peer(reply) as server:
        with pytest.raises(RequestFailed, match="within 1 s"):
            await post(server.url, timeout_s=1.0)
        await server.until(lambda one: one.replies_ended == 1)  # the connection is closed


async def test_post__endless_body__is_cut_off():
    async with peer(ENDLESS_BODY) as server:
        assert (await post(server.url)).status == 201
        await server.until(lambda one: one.replies_ended == 1)


async def test_post__redirect__is_not_followed():
    async with peer(answering(201)) as inside:
        async with peer(answering(307, f"Location: {inside.url}")) as server:
            assert (await post(server.url)).status == 307
        assert inside.requests == []


async def test_post__name_that_leads_inside__connects_to_nothing(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        inside = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", listener.getsockname())]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: inside)
        with pytest.raises(ForbiddenDestination, match="inside"):
            await post("https://push.example.org/x", DestinationRules())
        listener.settimeout(0.2)
        with pytest.raises(TimeoutError):
            listener.accept()


async def test_post__connection_refused__fails():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(RequestFailed, match="ConnectError"):
        await post(f"http://127.0.0.1:{port}/x")
