"""Cursors of pages: text that is opaque to the caller."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import TypeVar

from doorstep.http.problems import UnusableRequest

T = TypeVar("T")


def encode_text(text: str) -> str:
    """Encode text in ASCII as a cursor."""
    return base64.urlsafe_b64encode(text.encode("ascii")).decode().rstrip("=")


def decode_text(cursor: str, parse: Callable[[str], T]) -> T:
    """Decode a cursor and parse its text. Raises UnusableRequest where either fails."""
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        return parse(raw.decode("ascii"))
    except (ValueError, TypeError, AttributeError, RecursionError) as exc:
        complaint = {"loc": "query.cursor", "msg": "not a cursor", "reason": "bad_cursor"}
        raise UnusableRequest([complaint]) from exc
