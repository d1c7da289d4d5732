"""Bearer tokens: who is calling.

The database knows only a token's SHA-256. A token that the database knew is remembered for a few
seconds, so that a phone's fixes don't each cost a look-up; a refused one is never remembered.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from doorstep.credentials import token_sha256
from doorstep.errors import Unauthenticated
from doorstep.store.commands import Token

FindToken = Callable[[bytes], Awaitable[Token | None]]

_scheme = HTTPBearer(auto_error=False, description="A staff, driver's or customer's token.")


async def _text(
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_scheme)],
) -> str | None:
    return credentials.credentials if credentials else None


BearerToken = Annotated[str | None, Depends(_text)]
"""The request's bearer token, or None: a dependency, which also documents the scheme."""


async def identify(find_token: FindToken, token: str | None) -> Token:
    """Find out who holds this token. Raises Unauthenticated if there is none or nobody does."""
    if not token:
        raise Unauthenticated
    holder = await find_token(token_sha256(token))
    if holder is None:
        raise Unauthenticated
    return holder


class TokenCache:
    """A `FindToken` that asks another, and remembers drivers' and staff's tokens for `ttl_s`.

    A token revoked meanwhile stays good for so long. A customer's is asked for every time.
    """

    def __init__(
        self,
        find_token: FindToken,
        ttl_s: float = 5,
        most: int = 200_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._find_token = find_token
        self._ttl_s = ttl_s
        self._most = most
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[float, Token]] = OrderedDict()

    async def __call__(self, sha256: bytes) -> Token | None:
        now = self._clock()
        known = self._known.get(sha256)
        if known and known[0] > now:
            return known[1]
        holder = await self._find_token(sha256)
        self._known.pop(sha256, None)
        if holder is not None and holder.role != "customer":
            self._known[sha256] = (now + self._ttl_s, holder)
            while len(self._known) > self._most:
                self._known.popitem(last=False)
        return holder
