"""The bounds of one HTTP connection, over real sockets and uvicorn. The application is a stub."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import httpx
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from doorstep.http.guarded_protocol import (
    CLOSED,
    MAX_REFUSED,
    ConnectionLimits,
    guarded,
    note_good_token,
    request_scope,
)

MIB = 1024 * 1024
GOOD = b"GET /good HTTP/1.1\r\nhost: x\r\n\r\n"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 200 to everything; `/token` counts as a good token, `/read` reads the body."""
    if scope["type"] != "http":
        return
    if scope["path"] == "/token":
        request_scope.set(scope)
        note_good_token()
    if scope["path"] == "/read":
        while (await receive()).get("more_body"):
            pass
    size = MIB * 64 if scope["path"] == "/large" else 2
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-length", str(size).encode())],
        }
    )
    for _ in range(max(1, size // MIB)):
        body = b"o" * min(size, MIB)
        await send({"type": "http.response.body", "body": body, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


@contextlib.asynccontextmanager
async def serving(limits: ConnectionLimits) -> AsyncIterator[int]:
    """Serve `app` within `limits` on a free port of loopback."""
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=0,
        http=guarded(limits),  # type: ignore[arg-type]
        ws="none",
        lifespan="off",
        log_config=None,
        loop="none",
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        for writer in _writers:
            writer.transport.abort()
        _writers.clear()
        server.should_exit = True
        await task


def limits(**bounds: float) -> ConnectionLimits:
    """Make limits: `limits(head_timeout_s=0.2)`."""
    return ConnectionLimits(**{"max_connections": 1000, **bounds})  # type: ignore[arg-type]


def closed(reason: str) -> float:
    """Return how many connections were closed for this reason."""
    return CLOSED.labels(reason)._value.get()


_writers: list[asyncio.StreamWriter] = []


async def connect(port: int, **options: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect a client, which `serving` closes at its end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, **options)
    _writers.append(writer)
    return reader, writer


async def answer_of(port: int, request: bytes) -> bytes:
    """Send bytes and read until the server closes; b"" after a reset."""
    reader, writer = await connect(port)
    writer.write(request)
    with contextlib.suppress(ConnectionError):
        return await asyncio.wait_for(reader.read(), 20)
    return b""


async def test_head__without_an_end__is_closed_with_431_before_one_mib() -> None:
    async with serving(limits()) as port:
        reader, writer = await connect(port)
        writer.write(b"GET / HTTP/1.1\r\nX-B: ")
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 64 * MIB and not reader.at_eof():
                writer.write(b"a" * 16384)
                await writer.drain()
                sent += 16384
                await asyncio.sleep(0)
        assert sent < MIB
        with contextlib.suppress(ConnectionError):
            assert (await reader.read()).startswith(b"HTTP/1.1 431")
        assert await answer_of(port, GOOD.replace(b"host", b"connection: close\r\nhost"))


@pytest.mark.parametrize(
    ("request_bytes", "reason", "status"),
    [
        (b"", "slow_head", b""),
        (b"GET / HTTP/1.1\r\nhost", "slow_head", b"HTTP/1.1 408"),
        (b"POST /read HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf", "slow_body", b""),
    ],
    ids=["silent", "half a head", "half a body"],
)
async def test_connection__that_stops_halfway__is_closed(
    request_bytes: bytes, reason: str, status: bytes
) -> None:
    before = closed(reason)
    async with serving(limits(head_timeout_s=0.2, body_timeout_s=0.2)) as port:
        assert (await answer_of(port, request_bytes)).startswith(status)
    assert closed(reason) == before + 1


async def test_second_head_on_a_kept_connection__that_stops_halfway__is_closed() -> None:
    async with serving(limits(head_timeout_s=0.3)) as port:
        reader, writer = await connect(port)
        writer.write(GOOD)
        assert (await reader.readuntil(b"oo")).startswith(b"HTTP/1.1 200")
        writer.write(b"GET / HTTP/1.1\r\nhost")
        assert (await asyncio.wait_for(reader.read(), 20)).startswith(b"HTTP/1.1 408")


async def test_trailers__without_an_end__are_closed() -> None:
    head = b"POST /good HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n"
    before = closed("large_framing")
    async with serving(limits()) as port:
        reader, writer = await connect(port)
        writer.write(head)
        with contextlib.suppress(ConnectionError):
            for number in range(4000):
                writer.write(b"X-%d: %b\r\n" % (number, b"a" * 1000))
                await writer.drain()
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(reader.read(), 20)
    assert closed("large_framing") == before + 1


async def test_answer__never_read__is_cut_off() -> None:
    before = closed("slow_reader")
    async with serving(limits(write_timeout_s=0.2)) as port:
        _, writer = await connect(port, limit=1024)
        writer.write(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        while closed("slow_reader") == before:  # noqa: ASYNC110 - a metric has no event
            await asyncio.sleep(0.05)
    assert closed("slow_reader") == before + 1


async def test_unauthenticated__beyond_the_bound_of_an_address__are_refused() -> None:
    async with serving(limits(max_unauthenticated=3)) as port:
        kept = [await connect(port) for _ in range(3)]
        assert (await answer_of(port, GOOD)).startswith(b"HTTP/1.1 503")
        kept[0][1].write(GOOD.replace(b"/good", b"/token"))
        await kept[0][0].readuntil(b"oo")
        reader, writer = await connect(port)
        writer.write(GOOD)
        assert (await reader.readuntil(b"oo")).startswith(b"HTTP/1.1 200")


async def test_trusted_proxy__has_no_bound_per_address__but_the_one_in_all() -> None:
    bounds = ConnectionLimits(5, max_unauthenticated=1, trusted_proxies=("127.0.0.0/8",))
    async with serving(bounds) as port:
        for _ in range(5):
            reader, writer = await connect(port)
            writer.write(GOOD)
            assert (await reader.readuntil(b"oo")).startswith(b"HTTP/1.1 200")
        assert (await answer_of(port, GOOD)).startswith(b"HTTP/1.1 503")


async def test_refused__client_that_sends_its_body_later__reads_503_with_retry_after() -> None:
    bounds = limits(max_unauthenticated=0)
    async with serving(bounds) as port, httpx.AsyncClient(trust_env=False) as client:
        answer = await client.patch(f"http://127.0.0.1:{port}/read", content=b"x" * MIB)
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "2"
    assert answer.json()["status"] == 503


async def test_refused__that_sends_nothing__is_closed_and_counts_no_longer() -> None:
    bounds = limits(max_unauthenticated=0)
    async with serving(bounds) as port:
        assert await answer_of(port, b"") == b""
        assert bounds.refused == 0


async def test_refused__beyond_their_own_bound__are_closed_at_once() -> None:
    bounds = limits(max_unauthenticated=0)
    async with serving(bounds) as port:
        for _ in range(MAX_REFUSED):
            await connect(port)
        assert await answer_of(port, GOOD) == b""
        assert bounds.open_connections == 0


async def test_connections__that_ended__count_no_longer() -> None:
    bounds = limits(max_unauthenticated=2)
    async with serving(bounds) as port:
        for _ in range(10):
            request = b"GET /good HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
            assert (await answer_of(port, request)).startswith(b"HTTP/1.1 200")
    assert bounds.open_connections == 0
    assert not bounds.unauthenticated
