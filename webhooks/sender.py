"""Makes one attempt: a POST to the checked address, without redirects, within a time-out."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import OrderedDict
from uuid import UUID

import httpx

from webhooks.destination import DestinationRules, ForbiddenDestination, Resolver, find_destination
from webhooks.queue import Attempt, Delivery
from webhooks.retries import parse_retry_after
from webhooks.signatures import signed_headers

MAX_CLIENTS = 200  # of 100 webhooks, and addresses that were changed
KEEP_ALIVE_S = 15.0
MAX_BODY_BYTES = 16_384
USER_AGENT = "Doorstep-Webhooks/1"


class Sender:
    """Sends deliveries. Each webhook has connections of its own: TLS is checked for its name."""

    def __init__(self, rules: DestinationRules, timeout_s: float, concurrency: int) -> None:
        self._rules = rules
        self._timeout_s = timeout_s
        self._limits = httpx.Limits(
            max_connections=concurrency,
            max_keepalive_connections=concurrency,
            keepalive_expiry=KEEP_ALIVE_S,
        )
        self._tls = ssl.create_default_context()
        self._resolver = Resolver()
        self._clients: OrderedDict[tuple[UUID, str], httpx.AsyncClient] = OrderedDict()

    async def send(self, delivery: Delivery) -> Attempt:
        """Make an attempt; every failure is an Attempt, too."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._post(delivery)
        except TimeoutError:
            return Attempt(None, f"no answer within {self._timeout_s:g} s")
        except ForbiddenDestination as exc:
            return Attempt(None, str(exc))
        except (OSError, ValueError, httpx.HTTPError, httpx.InvalidURL) as exc:
            return Attempt(None, f"{type(exc).__name__}: {exc}")

    async def _post(self, delivery: Delivery) -> Attempt:
        destination = await find_destination(delivery.url, self._resolver, self._rules)
        body = delivery.body.encode()
        request = self._client(delivery).build_request(
            "POST",
            destination.url,
            content=body,
            headers={
                "host": destination.host_header,
                "content-type": "application/json",
                "user-agent": USER_AGENT,
                **signed_headers(delivery.secrets, delivery.message_id, int(time.time()), body),
            },
            extensions={"sni_hostname": destination.host},
        )
        answer = await self._client(delivery).send(request, stream=True)
        try:
            await _skip(answer)
            error = None if answer.is_success else f"HTTP {answer.status_code}"
            retry_after_s = parse_retry_after(answer.headers.get("retry-after"))
            return Attempt(answer.status_code, error, retry_after_s)
        finally:
            await answer.aclose()

    def _client(self, delivery: Delivery) -> httpx.AsyncClient:
        key = delivery.webhook_id, delivery.url
        client = self._clients.get(key)
        if client is None:
            client = self._clients[key] = httpx.AsyncClient(
                verify=self._tls,
                limits=self._limits,
                timeout=self._timeout_s,
                follow_redirects=False,
                trust_env=False,  # a proxy would connect to unchecked addresses
            )
        self._clients.move_to_end(key)
        return client

    async def drop_idle_clients(self) -> None:
        """Close the clients that were used least recently, beyond MAX_CLIENTS."""
        while len(self._clients) > MAX_CLIENTS:
            _, client = self._clients.popitem(last=False)
            await client.aclose()

    async def close(self) -> None:
        """Close all connections."""
        self._resolver.close()
        for client in self._clients.values():
            await client.aclose()


async def _skip(answer: httpx.Response) -> None:
    """Read a short body, so that the connection can be used again. It may be endless."""
    read_bytes = 0
    async for part in answer.aiter_raw():
        read_bytes += len(part)
        if read_bytes > MAX_BODY_BYTES:
            return
