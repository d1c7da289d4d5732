"""Cursors of pages of orders, opaque to the caller."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from uuid import UUID

from tracking_api.cursors import decode_text, encode_text
from tracking_api.orders.search import OrderKey


def encode_cursor(created_at: datetime, order_id: UUID) -> str:
    """Encode where a page ended, exact to the microsecond."""
    return encode_text(json.dumps([created_at.astimezone(UTC).isoformat(), str(order_id)]))


def decode_cursor(text: str) -> OrderKey:
    """Decode a cursor. Raises UnusableRequest for one that `encode_cursor` did not make."""
    return decode_text(text, _parse)


def _parse(text: str) -> OrderKey:
    created_at, order_id = json.loads(text)
    key = datetime.fromisoformat(created_at), UUID(order_id)
    if key[0].tzinfo is None:
        raise ValueError("no zone")
    return key
