"""Which pages may use a visitor's cookie: our own.

Browsers add cookies to the requests of other pages, too.
"""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from starlette.requests import Request

from doorstep.errors import Forbidden
from doorstep.http.tokens import read_bearer

_DEFAULT_PORTS = {"http": 80, "https": 443}


class ForeignOrigin(Forbidden):
    """A page of another site must not use its visitor's cookie here."""

    problem = "foreign-origin"


def check_origin(request: Request, public_url: str = "") -> None:
    """Allow only pages of our scheme, host and port. Raises ForeignOrigin.

    A browser sends Origin with each WebSocket and each request that may change something; a script
    with a bearer token need not.
    """
    origin = request.headers.get("origin")
    if origin is None:
        if read_bearer(request) is None:
            raise ForeignOrigin
        return
    own = (public_url, f"{request.url.scheme}://{request.headers.get('host')}")
    parts = _parts(origin)
    if parts is None or parts not in map(_parts, own):
        raise ForeignOrigin


def _parts(url: str) -> tuple[str, str, int | None] | None:
    """Return scheme, host and port; None for an opaque or malformed origin."""
    try:
        split: SplitResult = urlsplit(url.lower())
        port = split.port
    except ValueError:
        return None
    scheme = {"ws": "http", "wss": "https"}.get(split.scheme, split.scheme)
    return scheme, split.hostname or "", port or _DEFAULT_PORTS.get(scheme)


def check_same_origin(request: Request) -> None:
    """Like `check_origin`, for a service that does not know its public address.

    Browsers say with HTTPS and on localhost whether a request comes from a page of ours, and no
    script can change that. Raises ForeignOrigin.
    """
    site = request.headers.get("sec-fetch-site")
    if site is None:
        check_origin(request)
    elif site != "same-origin":
        raise ForeignOrigin
