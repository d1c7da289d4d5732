"""Bodies of phone apps' requests: no 413, 415 or 408, which would empty or block their queues."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from doorstep.errors import Unavailable
from doorstep.http.request_body import BodyCutOff

MAX_BODY_BYTES = 1024 * 1024  # Overland: up to 1,000 points of 600 bytes
MAX_DISCARDED_BYTES = 8 * MAX_BODY_BYTES  # read and thrown away, so that the app gets its answer
READ_TIMEOUT_S = 10.0


class BodyNotRead(Unavailable):
    """The body is larger than 8 MiB, or did not arrive within 10 s."""

    problem = "body-not-read"
    retry_after_s = 10


async def read_phone_body(request: Request) -> bytes | None:
    """Read a body of any type. None if it is over 1 MiB. Raises BodyNotRead or BodyCutOff."""
    parts: list[bytes] = []
    received = 0
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            async for part in request.stream():
                received += len(part)
                if received > MAX_DISCARDED_BYTES:
                    raise BodyNotRead
                if received <= MAX_BODY_BYTES:
                    parts.append(part)
    except TimeoutError as exc:
        raise BodyNotRead from exc
    except ClientDisconnect as exc:  # no app gets this answer; it counts as 400, not as 503
        raise BodyCutOff from exc
    return b"".join(parts) if received <= MAX_BODY_BYTES else None
