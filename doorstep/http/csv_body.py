"""Request bodies of CSV, larger than those of JSON. Their routes are exempt from RequestLimits."""

from __future__ import annotations

from starlette.requests import Request

from doorstep.http.request_body import BodyTooLarge, UnsupportedBody, arriving_within, is_of_type

MAX_CSV_BYTES = 512 * 1024  # 1,000 rows of 512 bytes
READ_TIMEOUT_S = 30  # 512 KiB at 17 KiB/s


async def read_csv_body(request: Request) -> bytes:
    """Read a body of text/csv. Raises UnsupportedBody or one of the Body… errors."""
    if not is_of_type(request, "text/csv"):
        raise UnsupportedBody("The body must be text/csv, not encoded any further.")
    parts: list[bytes] = []
    received = 0
    async with arriving_within(READ_TIMEOUT_S):
        async for part in request.stream():
            received += len(part)
            if received > MAX_CSV_BYTES:
                raise BodyTooLarge(f"The body has more than {MAX_CSV_BYTES // 1024} KiB.")
            parts.append(part)
    return b"".join(parts)
