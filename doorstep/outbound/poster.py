"""Posts to addresses that others chose: checked, without redirects, bounded in time and size."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping
from typing import NamedTuple

import httpx

from doorstep.outbound.destination import (
    DestinationRules,
    ForbiddenDestination,
    RequestFailed,
    Resolver,
    find_destination,
)

MAX_BODY_BYTES = 16_384


class Answer(NamedTuple):
    """What an answer says; its body is not read."""

    status: int
    retry_after: str | None


class Poster:
    """Makes requests with the clients that it gave out. It needs no thread while it waits."""

    def __init__(self, rules: DestinationRules, timeout_s: float) -> None:
        """`timeout_s` bounds a whole request, from the look-up of the name to the answer's end."""
        for name in ("httpx", "httpcore"):  # they log each URL, which may be a secret
            logging.getLogger(name).setLevel(logging.WARNING)
        self._rules = rules
        self._timeout_s = timeout_s
        self._tls = ssl.create_default_context()
        self._resolver = Resolver()

    def new_client(self, connections: int = 1, keep_alive_s: float = 0.0) -> httpx.AsyncClient:
        """Return a client for one name: connections are by address, TLS is checked for a name."""
        limits = httpx.Limits(
            max_connections=connections,
            max_keepalive_connections=connections,
            keepalive_expiry=keep_alive_s,
        )
        return httpx.AsyncClient(
            verify=self._tls,
            limits=limits,
            timeout=self._timeout_s,
            follow_redirects=False,
            trust_env=False,  # a proxy would connect to unchecked addresses
        )

    async def post(
        self, client: httpx.AsyncClient, url: str, headers: Mapping[str, str], body: bytes
    ) -> Answer:
        """Make a request. Raises RequestFailed, also for an address that is not allowed."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._post(client, url, headers, body)
        except TimeoutError as exc:
            raise RequestFailed(f"no answer within {self._timeout_s:g} s") from exc
        except ForbiddenDestination:
            raise
        except (OSError, ValueError, httpx.HTTPError, httpx.InvalidURL) as exc:
            raise RequestFailed(f"{type(exc).__name__}: {exc}") from exc

    async def _post(
        self, client: httpx.AsyncClient, url: str, headers: Mapping[str, str], body: bytes
    ) -> Answer:
        destination = await find_destination(url, self._resolver, self._rules)
        request = client.build_request(
            "POST",
            destination.url,
            content=body,
            headers={"host": destination.host_header, **headers},
            extensions={"sni_hostname": destination.host},
        )
        answer = await client.send(request, stream=True)
        try:
            await _skip(answer)
            return Answer(answer.status_code, answer.headers.get("retry-after"))
        finally:
            await answer.aclose()

    def close(self) -> None:
        """Stop looking names up. Clients are closed by their owners."""
        self._resolver.close()


async def _skip(answer: httpx.Response) -> None:
    """Read a short body, so that the connection can be used again. It may be endless."""
    read_bytes = 0
    async for part in answer.aiter_raw():
        read_bytes += len(part)
        if read_bytes > MAX_BODY_BYTES:
            return
