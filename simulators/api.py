"""A client of the public HTTP APIs that retries.

It repeats a request while the API is unreachable, overloaded or restarting, with the same
Idempotency-Key, so that a command is executed once.
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
MAX_PARALLEL = 16  # more requests wait here instead of in the APIs' queues
RETRY_MIN_S, RETRY_MAX_S = 0.3, 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A final response: success, or a refusal that a retry would not change."""

    status: int
    body: Any

    @property
    def ok(self) -> bool:
        """Whether the request succeeded."""
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
        limits = httpx.Limits(max_connections=MAX_PARALLEL, max_keepalive_connections=MAX_PARALLEL)
        self._client = httpx.AsyncClient(
            timeout=TIMEOUT_S, limits=limits, trust_env=False, transport=transport
        )
        self._slots = asyncio.Semaphore(MAX_PARALLEL)
        self._log = get_logger()

    async def __aenter__(self) -> Api:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def driver(
        self, method: str, path: str, token: str, body: Mapping[str, Any] | None = None
    ) -> Answer:
        """Call driver_api."""
        return await self._call(method, self._driver_api_url + path, token, json=body)

    async def photo(self, path: str, token: str, png: bytes) -> Answer:
        """Post a photo to driver_api."""
        content_type = {"Content-Type": "image/png"}
        url = self._driver_api_url + path
        return await self._call("POST", url, token, content_type, content=png)

    async def tracking(
        self, method: str, path: str, token: str, body: Mapping[str, Any] | None = None
    ) -> Answer:
        """Call tracking_api."""
        return await self._call(method, self._tracking_api_url + path, token, json=body)

    async def _call(
        self,
        method: str,
        url: str,
        token: str,
        content_type: Mapping[str, str] | None = None,
        **body: Any,
    ) -> Answer:
        headers = {"Authorization": f"Bearer {token}", **(content_type or {})}
        if method == "POST":
            headers["Idempotency-Key"] = str(uuid.uuid4())
        wait_s = RETRY_MIN_S
        while True:
            try:
                async with self._slots:
                    response = await self._client.request(method, url, headers=headers, **body)
            except httpx.TransportError as exc:
                failure = type(exc).__name__
            else:
                if response.status_code < 500 and response.status_code != 429:
                    return Answer(response.status_code, _json(response))
                failure = str(response.status_code)
                if response.status_code not in (429, 503):
                    self._log.error("unexpected_status", url=url, status=response.status_code)
            await asyncio.sleep(random.uniform(RETRY_MIN_S, wait_s))
            wait_s = min(RETRY_MAX_S, wait_s * 2)
            self._log.debug("request_retried", url=url, failure=failure)


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None
