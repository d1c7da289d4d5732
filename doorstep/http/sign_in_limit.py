"""The limit on wrong tokens at sign-in, by the address that they come from."""

from __future__ import annotations

from starlette.requests import Request

from doorstep.http.rate_limit import RateLimiter

BAD_SIGN_INS_PER_S = 0.2
BURST_BAD_SIGN_INS = 20


def client_address(request: Request) -> str:
    """Return the client's address, or `unknown`."""
    return request.client.host if request.client else "unknown"


class SignInLimiter:
    """Counts wrong tokens by the address that they come from."""

    def __init__(self) -> None:
        self._limiter = RateLimiter(BAD_SIGN_INS_PER_S, BURST_BAD_SIGN_INS)

    def take(self, request: Request) -> None:
        """Count a wrong token. Raises TooManyRequests."""
        self._limiter.take(client_address(request))
