"""The token of driver_events' PATCH sink (FIX_SINK=driver_api), and what it allows.

The sink relays fixes that reached Kafka earlier, so it states when each one arrived. No other
sender may: a device that chose its `received_at` could evade every rule about age and visibility.
"""

from __future__ import annotations

from datetime import datetime
from hmac import compare_digest

from starlette.requests import Request

from doorstep.credentials import token_sha256
from doorstep.errors import MalformedFix
from doorstep.fix import RECEIVED_AT_HEADER, instant_of
from doorstep.http.problems import UnusableRequest
from doorstep.http.tokens import FindToken
from doorstep.store.records import Token

SERVICE = "service"


def accept_service_token(find_token: FindToken, service_token: str) -> FindToken:
    """Wrap a `FindToken` so that the service's token has the role `service`; empty: none has."""
    if not service_token:
        return find_token
    service_sha256 = token_sha256(service_token)

    async def find(sha256: bytes) -> Token | None:
        if compare_digest(sha256, service_sha256):
            return Token(SERVICE, None, None)
        return await find_token(sha256)

    return find


def received_at_of(request: Request, sender: Token, now: datetime) -> datetime:
    """Return when a request's fixes arrived: `now`, or what the service states, never later.

    Raises UnusableRequest if the service's header is not an RFC 3339 instant.
    """
    stated = request.headers.get(RECEIVED_AT_HEADER)
    if sender.role != SERVICE or stated is None:
        return now
    try:
        return min(now, instant_of(stated))
    except MalformedFix as exc:
        complaint = {"loc": f"header.{RECEIVED_AT_HEADER}", "msg": "not an RFC 3339 instant"}
        raise UnusableRequest([{**complaint, "reason": exc.reason}]) from exc
