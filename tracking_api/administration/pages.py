"""Pages of lists by key: opaque cursors, and `Link: …; rel="next"`."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import Query, Request, Response

from tracking_api.administration.queries import Key, Resource
from tracking_api.context import AppContext
from tracking_api.cursors import decode_text, encode_text

Limit = Annotated[int, Query(ge=1, le=5_000)]
Cursor = Annotated[str | None, Query(max_length=200)]
Retired = Annotated[bool, Query(description="List the retired ones too.")]


async def read_page(
    request: Request,
    response: Response,
    context: AppContext,
    resource: Resource,
    limit: int,
    cursor: str | None,
    retired: bool,
) -> tuple[list[dict[str, Any]], str | None]:
    """Read a page of rows, and the cursor of the next one; set the header `Link`."""
    after = None if cursor is None else decode_key(cursor, resource)
    store = context.stores.administration
    found = await store.list_rows(resource, limit + 1, after, retired=retired)
    page = found[:limit]
    if len(found) <= limit:
        return page, None
    next_cursor = encode_key(page[-1][resource.key])
    following = request.url.include_query_params(cursor=next_cursor)
    response.headers["Link"] = f'<{following.path}?{following.query}>; rel="next"'
    return page, next_cursor


def encode_key(key: Key) -> str:
    """Encode where a page ended."""
    return encode_text(json.dumps([key]))


def decode_key(text: str, resource: Resource) -> Key:
    """Decode a cursor. Raises UnusableRequest for one that `encode_key` did not make."""

    def parse(plain: str) -> Key:
        [key] = json.loads(plain)
        valid: Key = resource.csv.key_type.validate_python(key, strict=True)
        return valid

    return decode_text(text, parse)
