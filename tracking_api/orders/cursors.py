"""Cursors of pages of orders, opaque to the caller."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import UTC, datetime
from uuid import UUID

from doorstep.http.problems import UnusableRequest
from tracking_api.orders.search import OrderKey


def encode_cursor(created_at: datetime, order_id: UUID) -> str:
    """Encode where a page ended, exact to the microsecond."""
    text = json.dumps([created_at.astimezone(UTC).isoformat(), str(order_id)])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(text: str) -> OrderKey:
    """Decode a cursor. Raises UnusableRequest for one that `encode_cursor` did not make."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        created_at, order_id = json.loads(raw)
        cursor = datetime.fromisoformat(created_at), UUID(order_id)
        if cursor[0].tzinfo is None:
            raise ValueError("no zone")
    except (binascii.Error, ValueError, TypeError, AttributeError, RecursionError) as exc:
        complaint = {"loc": "query.cursor", "msg": "not a cursor", "reason": "bad_cursor"}
        raise UnusableRequest([complaint]) from exc
    return cursor
