"""Cursors: where a page of orders or of fixes ended, opaque to the caller."""

from __future__ import annotations

import base64
import binascii
import json
import re
from datetime import UTC, datetime
from uuid import UUID

from doorstep.http.problems import UnusableRequest
from tracking_api.track.visibility import FixKey

Cursor = tuple[datetime, UUID]
_FIX_KEY = re.compile(r"(\d{4}-\d\d-\d\dT[\d:.]{8,15}\+00:00) (-?\d{1,19}) ([A-Za-z0-9_-]{0,64})")


def encode_cursor(created_at: datetime, order_id: UUID) -> str:
    """Write a cursor, exact to the microsecond."""
    text = json.dumps([created_at.astimezone(UTC).isoformat(), str(order_id)])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(text: str) -> Cursor:
    """Read a cursor. Raises UnusableRequest for one that this API did not write."""
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


def encode_fix_key(key: FixKey) -> str:
    """Write where a page of a driver's fixes ended."""
    text = f"{key.fix_at.astimezone(UTC).isoformat()} {key.seq} {key.boot}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_fix_key(text: str) -> FixKey:
    """Read such a cursor. Raises UnusableRequest for one that this API did not write."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        found = _FIX_KEY.fullmatch(raw.decode("ascii"))
        if found is None or not -(2**63) <= int(found[2]) < 2**63:
            raise ValueError("not a key")
        key = FixKey(datetime.fromisoformat(found[1]), found[3], int(found[2]))
    except (binascii.Error, ValueError) as exc:
        complaint = {"loc": "query.cursor", "msg": "not a cursor", "reason": "bad_cursor"}
        raise UnusableRequest([complaint]) from exc
    return key
