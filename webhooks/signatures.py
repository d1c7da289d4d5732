"""Signatures of Standard Webhooks (standardwebhooks.com), scheme v1: HMAC-SHA256. Pure."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence

PREFIX = "whsec_"


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Return one signature, "v1,…". `timestamp` is in seconds since 1970."""
    key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    content = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
    digest = hmac.new(key, content, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def signed_headers(
    secrets: Sequence[str], message_id: str, timestamp: int, body: bytes
) -> dict[str, str]:
    """Return the headers of a message. While a secret is replaced, the old one signs, too."""
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(sign(one, message_id, timestamp, body) for one in secrets),
    }
