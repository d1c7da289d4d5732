"""Request bodies of CSV, larger than those of JSON. Their routes are exempt from RequestLimits."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from doorstep.http.request_body import BodyCutOff, BodyTooLarge, BodyTooSlow, UnsupportedBody

MAX_CSV_BYTES = 512 * 1024  # 1,000 rows of 512 bytes
READ_TIMEOUT_S = 30  # 512 KiB at 17 KiB/s


async def read_csv_body(request: Request) -> bytes:
    """Read a body of text/csv. Raises UnsupportedBody or one of the Body… errors."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if media_type != "text/csv" or encoding != "identity":
        raise UnsupportedBody("The body must be text/csv, not encoded any further.")
    parts: list[bytes] = []
    received = 0
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            async for part in request.stream():
                received += len(part)
                if received > MAX_CSV_BYTES:
                    raise BodyTooLarge(f"The body has more than {MAX_CSV_BYTES // 1024} KiB.")
                parts.append(part)
    except TimeoutError as exc:
        raise BodyTooSlow from exc
    except ClientDisconnect as exc:
        raise BodyCutOff from exc
    return b"".join(parts)
