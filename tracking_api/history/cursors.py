"""Cursors of pages of fixes, opaque to the caller."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from tracking_api.cursors import decode_text, encode_text
from tracking_api.history.fixes import FixKey

_FIX_KEY = re.compile(r"(\d{4}-\d\d-\d\dT[\d:.]{8,15}\+00:00) (-?\d{1,19}) ([A-Za-z0-9_-]{0,64})")


def encode_fix_key(key: FixKey) -> str:
    """Encode where a page ended."""
    return encode_text(f"{key.fix_at.astimezone(UTC).isoformat()} {key.seq} {key.boot}")


def decode_fix_key(text: str) -> FixKey:
    """Decode a cursor. Raises UnusableRequest for one that `encode_fix_key` did not make."""
    return decode_text(text, _parse)


def _parse(text: str) -> FixKey:
    found = _FIX_KEY.fullmatch(text)
    if found is None or not -(2**63) <= int(found[2]) < 2**63:
        raise ValueError("not a key")
    return FixKey(datetime.fromisoformat(found[1]), found[3], int(found[2]))
