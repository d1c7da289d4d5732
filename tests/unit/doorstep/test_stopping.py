"""A stop with requests under way, over real sockets and uvicorn. The application is a stub."""

from __future__ import annotations

import asyncio
import json

import uvicorn
from starlette.types import Receive, Scope, Send

from doorstep.http.stopping import AnswerWhenCutShort


async def never_answers(scope: Scope, _receive: Receive, send: Send) -> None:
    """Begin a response only for `/begun`, and end none."""
    if scope["path"] == "/begun":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"1", "more_body": True})
    await asyncio.Event().wait()


async def answer_to(path: str) -> bytes:
    """Send a request, stop the server, and return all that it sends."""
    config = uvicorn.Config(
        AnswerWhenCutShort(never_answers), host="127.0.0.1", port=0, lifespan="off",
        log_config=None, timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    while not server.server_state.tasks:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    server.should_exit = True
    await task
    answer = await reader.read()
    writer.close()
    return answer


async def test_stop__request_without_a_response__is_answered_503_with_retry_after() -> None:
    head, _, body = (await answer_to("/")).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 2" in head.lower()
    assert json.loads(body)["detail"] == "The service is stopping."


async def test_stop__response_that_has_begun__is_cut_off() -> None:
    answer = await answer_to("/begun")

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"503" not in answer
