"""Bearer tokens.

The database stores only a token's SHA-256. A valid token is cached for a few seconds, so that a
phone's fixes do not each cost a look-up; an invalid one is never cached.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi.security.utils import get_authorization_scheme_param
from starlette.requests import Request

from doorstep.credentials import token_sha256
from doorstep.errors import Unauthenticated
from doorstep.http.guarded_protocol import note_good_token
from doorstep.store.commands import Token

# A revocation must be effective within 5 s; the look-up after it takes its own time.
CACHED_FOR_S = 4.0

FindToken = Callable[[bytes], Awaitable[Token | None]]

_scheme = HTTPBearer(auto_error=False, description="A staff, driver's or customer's token.")


async def _text(
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_scheme)],
) -> str | None:
    return credentials.credentials if credentials else None


BearerToken = Annotated[str | None, Depends(_text)]
"""The request's bearer token, or None: a dependency, which also documents the scheme."""


def read_bearer(request: Request) -> str | None:
    """Return the request's bearer token, or None, as the dependency does."""
    return parse_bearer(request.headers.get("authorization"))


def parse_bearer(authorization: str | None) -> str | None:
    """Return the bearer token of an Authorization header, or None."""
    scheme, token = get_authorization_scheme_param(authorization)
    return token if token and scheme.lower() == "bearer" else None


async def identify(find_token: FindToken, token: str | None) -> Token:
    """Look this token up. Raises Unauthenticated if it is absent or invalid."""
    if not token:
        raise Unauthenticated
    holder = await find_token(token_sha256(token))
    if holder is None:
        raise Unauthenticated
    note_good_token()
    return holder


class TokenCache:
    """A `FindToken` that caches drivers' and staff's tokens of another one for `ttl_s`.

    A revoked token stays valid for at most that long. Customers' tokens are not cached.
    """

    def __init__(
        self,
        find_token: FindToken,
        ttl_s: float = CACHED_FOR_S,
        max_tokens: int = 200_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._find_token = find_token
        self._ttl_s = ttl_s
        self._max_tokens = max_tokens
        self._clock = clock
        self._cache: OrderedDict[bytes, tuple[float, Token]] = OrderedDict()

    async def __call__(self, sha256: bytes) -> Token | None:
        now = self._clock()
        cached = self._cache.get(sha256)
        if cached and cached[0] > now:
            return cached[1]
        holder = await self._find_token(sha256)
        self._cache.pop(sha256, None)
        if holder is not None and holder.role != "customer":
            self._cache[sha256] = (now + self._ttl_s, holder)
            while len(self._cache) > self._max_tokens:
                self._cache.popitem(last=False)
        return holder
