"""Request bodies that are photos. Their routes are exempt from RequestLimits."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from doorstep.errors import UnusablePhoto
from doorstep.http.openapi import Responses, problems
from doorstep.http.request_body import BodyTooLarge, UnsupportedBody, arriving_within, is_of_type
from doorstep.photos import MEDIA_TYPES, Photo, strip_metadata

MAX_PHOTO_BYTES = 512 * 1024
READ_TIMEOUT_S = 30  # 512 KiB at 17 KiB/s


async def read_photo(request: Request) -> Photo:
    """Read a JPEG, PNG or WebP image, and remove its metadata.

    Its first bytes say what it is, not its content type. Raises UnsupportedBody, UnusablePhoto or
    one of the Body… errors.
    """
    if not any(is_of_type(request, one) for one in MEDIA_TYPES):
        raise UnsupportedBody("The body must be image/jpeg, image/png or image/webp.")
    parts: list[bytes] = []
    received = 0
    async with arriving_within(READ_TIMEOUT_S):
        async for part in request.stream():
            received += len(part)
            if received > MAX_PHOTO_BYTES:
                raise BodyTooLarge(f"The photo has more than {MAX_PHOTO_BYTES // 1024} KiB.")
            parts.append(part)
    photo = strip_metadata(b"".join(parts))
    if photo is None:
        raise UnusablePhoto
    return photo


PHOTO_REQUEST: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {one: {"schema": {"type": "string", "format": "binary"}} for one in MEDIA_TYPES},
    }
}


def photo_problems(*statuses: int) -> Responses:
    """Document the problem answers of a route that takes a photo."""
    documented = problems(*statuses, 413, 415)
    documented[413]["description"] = f"The photo has more than {MAX_PHOTO_BYTES // 1024} KiB."
    documented[415]["description"] = f"The body is none of {', '.join(MEDIA_TYPES)}."
    documented[422]["description"] = "The photo is damaged, or no such image."
    return documented
