"""Cursors of pages of fixes, opaque to the caller."""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime

from doorstep.http.problems import UnusableRequest
from tracking_api.history.fixes import FixKey

_FIX_KEY = re.compile(r"(\d{4}-\d\d-\d\dT[\d:.]{8,15}\+00:00) (-?\d{1,19}) ([A-Za-z0-9_-]{0,64})")


def encode_fix_key(key: FixKey) -> str:
    """Encode where a page ended."""
    text = f"{key.fix_at.astimezone(UTC).isoformat()} {key.seq} {key.boot}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_fix_key(text: str) -> FixKey:
    """Decode a cursor. Raises UnusableRequest for one that `encode_fix_key` did not make."""
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
