"""The public HTTP APIs, called with patience.

A call is repeated until it is answered: while the API is away, overloaded or restarting, with the
same Idempotency-Key, so that a repeated command happens once.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from doorstep.telemetry import get_logger

TIMEOUT_S = 10.0
AT_ONCE = 16  # calls under way; the rest waits here instead of in the APIs' queues
WAIT_MIN_S, WAIT_MAX_S = 0.3, 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A final answer: success, or a refusal that repeating would not change."""

    status: int
    body: Any

    @property
    def ok(self) -> bool:
        """Whether the call did what it asked."""
        return self.status < 300


class Api:
    """A client of both APIs; `async with` closes it."""

    def __init__(
        self,
        driver_api_url: str,
        tracking_api_url: str,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._driver_api_url = driver_api_url.rstrip("/")
        self._tracking_api_url = tracking_api_url.rstrip("/")
        limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
        self._client = httpx.AsyncClient(
            timeout=TIMEOUT_S, limits=limits, trust_env=False, transport=transport
        )
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._log = get_logger()

    async def __aenter__(self) -> Api:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def driver(
        self, method: str, path: str, token: str, body: Mapping[str, Any] | None = None
    ) -> Answer:
        """Call driver_api."""
        return await self._call(method, self._driver_api_url + path, token, body)

    async def tracking(
        self, method: str, path: str, token: str, body: Mapping[str, Any] | None = None
    ) -> Answer:
        """Call tracking_api."""
        return await self._call(method, self._tracking_api_url + path, token, body)

    async def _call(
        self, method: str, url: str, token: str, body: Mapping[str, Any] | None
    ) -> Answer:
        headers = {"Authorization": f"Bearer {token}"}
        if method == "POST":
            headers["Idempotency-Key"] = str(uuid.uuid4())
        wait_s = WAIT_MIN_S
        while True:
            try:
                async with self._slots:
                    response = await self._client.request(method, url, headers=headers, json=body)
            except httpx.TransportError as exc:
                failure = type(exc).__name__
            else:
                if response.status_code < 500 and response.status_code != 429:
                    return Answer(response.status_code, _json(response))
                failure = str(response.status_code)
                if response.status_code not in (429, 503):
                    self._log.error("unexpected_answer", url=url, status=response.status_code)
            await asyncio.sleep(random.uniform(WAIT_MIN_S, wait_s))
            wait_s = min(WAIT_MAX_S, wait_s * 2)
            self._log.debug("call_repeated", url=url, failure=failure)


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None
